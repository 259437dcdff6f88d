"""Runs by the names that a user knows, and what each predicted.

A run is `workspace`, an experiment's name or a Git revision as `dvc exp show` prints them, or a folder with
predictions. What another revision predicted comes out of DVC's cache: nothing is checked out, nothing is computed.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import yaml

from newsfuse import csr
from newsfuse.artifact import DISTRUST, MANIFEST, verified
from newsfuse.errors import DataError, IntegrityError, ParamsError
from newsfuse.ranking import Ranking, ranking, subset, unknown_last
from newsfuse.revisions import opened

WORKSPACE = "workspace"
SCORES = "scores.parquet"
COLUMNS = ("impression", "user", "news", "clicked", "score", "warm")
"""That a table of scores has; others may stand beside them."""
KINDS = ("evaluate", "ensemble")
"""Of artifacts that are predictions."""
KEY = ("impression", "news", "nth")
"""Which candidate of another run a candidate is. `nth`: where an impression has an article, or none known, twice."""


@dataclass(frozen=True)
class Run:
    """What a run predicted for n impressions."""

    name: str
    table: pl.DataFrame
    """A row per candidate with COLUMNS, those of an impression side by side; no score (null): an unknown article."""
    sha256: str
    """Of the file with the scores, "" where there is none."""

    @classmethod
    def read(cls, name: str, root: Path) -> "Run":
        """The run that `name` names in the project at `root`, its files verified.

        Raises ParamsError for a name of nothing, IntegrityError for predictions that are damaged or not to be had.
        """
        with _predictions(name, root) as folder:
            table = pl.read_parquet(folder / SCORES)
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        _check(name, table)
        return cls(name, table, manifest["files"][SCORES]["sha256"])

    @cached_property
    def offsets(self) -> np.ndarray:
        """int64 (n + 1,): the candidates of impression i are the rows `offsets[i]:offsets[i + 1]`."""
        return csr.runs(self.table["impression"])

    @cached_property
    def impressions(self) -> pl.Series:
        """Impression ids (n,)."""
        return self.table["impression"].gather(self.offsets[:-1])

    @property
    def users(self) -> np.ndarray:
        """Whose each impression is (n,)."""
        return self.table["user"].gather(self.offsets[:-1]).to_numpy()

    @cached_property
    def scores(self) -> np.ndarray:
        """float64 (candidates,): NaN for an unknown article."""
        return self.table["score"].cast(pl.Float64).fill_null(float("nan")).to_numpy()

    def ranking(self, *, drop_unknown: bool, among: np.ndarray | None = None) -> Ranking:
        """MIND's metrics of each impression; unknown candidates rank last, or do not count.

        `among`: bool (candidates,), the only ones that are ranked.
        """
        keep = ~np.isnan(self.scores) if drop_unknown else np.ones(len(self.scores), dtype=bool)
        keep = keep if among is None else keep & among
        labels = self.table["clicked"].to_numpy()
        return ranking(*subset(unknown_last(self.scores), labels, self.offsets, keep))

    def rescored(self, name: str, scores: np.ndarray) -> "Run":
        """Another run on the same candidates. `scores`: float64 (candidates,), NaN for an unknown article."""
        table = self.table.with_columns(score=pl.Series(scores, nan_to_null=True))
        return replace(self, name=name, table=table, sha256="")

    def aligned(self, first: "Run") -> "Run":
        """The same with its rows in the order of another run's, matched by impression and article.

        Raises DataError, naming the first difference, unless both have the same candidates, and clicks, of the same
        impressions.
        """
        same = ["impression", "news", "clicked"]
        if self.table.select(same).equals(first.table.select(same)):
            return self
        theirs, mine = _keyed(first).with_row_index("place"), _keyed(self).with_row_index("row")
        pairs = theirs.join(mine, on=KEY, how="full", coalesce=True, nulls_equal=True)
        pairs = pairs.sort("place", "row", nulls_last=True)
        _refuse_differences(pairs, self.name, first.name)
        return replace(self, table=self.table[pairs["row"]])


def setting(root: Path, *keys: str, default: str = "") -> str:
    """A setting of the project's params.yaml; `default` where it is not set. Raises ParamsError without either."""
    path = root / "params.yaml"
    try:
        return _setting(path.read_text(encoding="utf-8"), keys, default)
    except FileNotFoundError as error:
        if default:
            return default
        message = f"{path.name}: not found in {root.resolve()}; run this in the root of a newsfuse project"
        raise ParamsError(message) from error


def _setting(text: str, keys: tuple[str, ...], default: str) -> str:
    try:
        value: Any = yaml.safe_load(text)
        for key in keys:
            value = value[key]
    except KeyError:
        value = default
    except (yaml.YAMLError, ValueError, TypeError):
        value = None
    if not isinstance(value, str) or not value:
        message = f"params.yaml: {'.'.join(keys)}: expected a name, found {value!r}"
        raise ParamsError(message)
    return value


class Sort(Enum):
    """What the name of a run names."""

    WORKSPACE = auto()
    FOLDER = auto()
    REVISION = auto()


def sort_of(name: str, root: Path) -> Sort:
    """What `name` names in the project at `root`; whether there is such a revision is another question.

    Raises ParamsError for a folder without predictions.
    """
    if name == WORKSPACE:
        return Sort.WORKSPACE
    if (root / name / MANIFEST).is_file():
        return Sort.FOLDER
    if (root / name).is_dir() and "/" in name:
        message = f"run '{name}': has no {MANIFEST}; expected a folder such as data/<dataset>/predictions"
        raise ParamsError(message)
    return Sort.REVISION


@contextmanager
def _predictions(name: str, root: Path) -> Iterator[Path]:
    """A verified folder with the predictions, which may be gone afterwards."""
    match sort_of(name, root):
        case Sort.WORKSPACE:
            folder = root / "data" / setting(root, "dataset") / "predictions"
            verified(folder, kind=KINDS[0])
            yield folder
        case Sort.FOLDER:
            yield _whole(name, root / name, "Make it again, or name the run that it is of")
        case Sort.REVISION:
            with TemporaryDirectory() as copy:
                yield _fetched(name, root, Path(copy, "predictions"))


def _whole(name: str, folder: Path, remedy: str) -> Path:
    """The folder. Raises ParamsError when it never held predictions, IntegrityError when they are damaged."""
    try:
        kind = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["kind"]
        if kind not in KINDS:
            message = f"run '{name}': holds {kind!r}, no predictions; expected such as data/<dataset>/predictions"
            raise ParamsError(message)
        verified(folder, kind=kind)
    except (OSError, ValueError, KeyError, TypeError, IntegrityError) as error:
        # not in the words of `verified`, which would have a folder of the user's own removed
        message = f"run '{name}': its predictions are damaged or incomplete: {MANIFEST} says otherwise. {remedy}"
        raise IntegrityError(message) from error
    return folder


def _fetched(name: str, root: Path, copy: Path) -> Path:
    """A verified copy of what a revision predicted."""
    with opened(name, root) as revision:
        dataset = _setting(revision.text("params.yaml"), ("dataset",), "")
        revision.fetch(f"data/{dataset}/predictions", copy)
        return _whole(name, copy, f"First: {DISTRUST}. {revision.remedy}")


def _check(name: str, table: pl.DataFrame) -> None:
    if missing := [column for column in COLUMNS if column not in table.columns]:
        message = f"run '{name}': {SCORES} has no column {', '.join(missing)}: another version of newsfuse made it"
        raise IntegrityError(message)
    if not table.select(pl.col("score").is_finite().all()).item():
        message = f"run '{name}': {SCORES} has scores that are no finite numbers, which cannot be ranked"
        raise IntegrityError(message)


def _keyed(run: Run) -> pl.DataFrame:
    """KEY and `clicked` of each candidate."""
    twice = run.impressions.filter(run.impressions.is_duplicated())
    if len(twice):
        message = f"run '{run.name}': impression {twice[0]} is there twice: which is which in another run is not known"
        raise DataError(message)
    nth = pl.int_range(pl.len()).over("impression", "news").alias("nth")
    return run.table.select("impression", "news", nth, "clicked")


def _refuse_differences(pairs: pl.DataFrame, mine: str, theirs: str) -> None:
    """`pairs`: KEY, and the place, row and clicks of each candidate of both runs, null where one lacks it."""
    faults = {
        f"is in '{theirs}' and not in '{mine}'": pl.col("row").is_null(),
        f"is in '{mine}' and not in '{theirs}'": pl.col("place").is_null(),
        f"was clicked in only one of '{theirs}' and '{mine}'": pl.col("clicked") != pl.col("clicked_right"),
    }
    for fault, wrong in faults.items():
        found = pairs.filter(wrong)
        if len(found):
            impression, news = found.select("impression", pl.col("news").fill_null("without an article")).row(0)
            others = f" (and {len(found) - 1:,} more)" if len(found) > 1 else ""
            message = f"impression {impression}: candidate {news}{others} {fault}; only runs on the same data compare"
            raise DataError(message)
