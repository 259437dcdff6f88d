"""What a run left behind: settings, metrics, curves, predictions, as files in one folder."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import yaml

from newsfuse.artifact import DISTRUST, MANIFEST
from newsfuse.dotted import dotted
from newsfuse.errors import IntegrityError, NewsfuseError
from newsfuse.harmless import plain
from newsfuse.report.section import AbsentError
from newsfuse.revisions import Revision, opened
from newsfuse.runs import WORKSPACE, Run, Sort, setting, sort_of
from newsfuse.times import FOLDERS

KEPT = ("params.yaml", "dvc.lock", "plugins", "metrics/embed.json", "metrics/evaluate", "metrics/train")
"""What is read of another revision, beside its predictions and manifests."""
STAGES = {folder: stage for stage, folder in FOLDERS.items()}
"""Which stage makes a folder of data/<dataset>."""


@dataclass(frozen=True)
class Evidence:
    """Of one run. What is missing raises AbsentError, with a sentence on which stage makes it."""

    name: str
    """As the user gave it."""
    commit: str
    """Hash, date and subject of the Git commit; "" where there is none."""
    tree: Path
    """A folder laid out as the project is, with what was found of it."""
    predictions: Path
    """The folder with the run's scores, which may be missing."""
    remedy: str = ""
    """What to type for a revision's files to be made again."""

    def text(self, path: str, stage: str) -> str:
        """A text file that `stage` makes. Raises AbsentError."""
        try:
            return (self.tree / path).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise AbsentError(_absent(self.name, path, stage)) from error

    def mapping(self, path: str, stage: str) -> Mapping[str, Any]:
        """A JSON or YAML file that holds names and values. Raises AbsentError."""
        text = self.text(path, stage)
        try:
            value: Any = json.loads(text) if path.endswith(".json") else yaml.safe_load(text)
        except (ValueError, yaml.YAMLError) as error:
            raise AbsentError(_absent(self.name, path, stage)) from error
        if not isinstance(value, dict):
            raise AbsentError(_absent(self.name, path, stage))
        return value

    def frame(self, path: str, columns: Mapping[str, type[pl.DataType]], stage: str) -> pl.DataFrame:
        """The named columns of a table of commas or tabs. Raises AbsentError."""
        separator = "\t" if path.endswith(".tsv") else ","
        text = self.text(path, stage).encode()
        try:
            frame = pl.read_csv(text, separator=separator, infer_schema=False)
            return _plain(frame.select(pl.col(name).cast(kind) for name, kind in columns.items()))
        except pl.exceptions.PolarsError as error:
            raise AbsentError(_absent(self.name, path, stage)) from error

    @cached_property
    def params(self) -> Mapping[str, Any]:
        """params.yaml."""
        return self.mapping("params.yaml", "")

    def group(self, name: str) -> Mapping[str, Any]:
        """The settings under a name of params.yaml; {} where there are none."""
        value = self.params.get(name)
        return value if isinstance(value, dict) else {}

    @property
    def encoders(self) -> list[str]:
        """Those that are on."""
        return [str(name) for name, on in self.group("encoders").items() if on]

    @property
    def dataset(self) -> str:
        """The name of the data set."""
        return str(self.params.get("dataset", ""))

    @cached_property
    def locked(self) -> Mapping[str, Mapping[str, Any]]:
        """What dvc.lock says of each path that a stage read or wrote: md5, and perhaps size and nfiles."""
        return {each["path"]: each for each in (*self._paths("deps"), *self._paths("outs"))}

    @property
    def inputs(self) -> dict[str, str]:
        """The md5 of each path that a stage read and none made."""
        made = {each["path"] for each in self._paths("outs")}
        return {each["path"]: each.get("md5", "") for each in self._paths("deps") if each["path"] not in made}

    @property
    def stages(self) -> list[Mapping[str, Any]]:
        """What dvc.lock says of each stage."""
        stages = self.mapping("dvc.lock", "").get("stages")
        return [each for each in stages.values() if isinstance(each, dict)] if isinstance(stages, dict) else []

    def _paths(self, kind: str) -> list[Mapping[str, Any]]:
        """Entries of dvc.lock."""
        entries = [each for stage in self.stages for each in stage.get(kind) or []]
        return [each for each in entries if isinstance(each, dict) and "path" in each]

    @cached_property
    def run(self) -> Run:
        """The scores. Raises AbsentError where there are none, IntegrityError where they are damaged."""
        try:
            # a folder by its full path, so that another revision's copy reads as any folder does
            name = WORKSPACE if self.name == WORKSPACE else str(self.predictions.resolve())
            return replace(Run.read(name, self.tree), name=self.name)
        except NewsfuseError as error:
            if isinstance(error, IntegrityError) and (self.predictions / MANIFEST).is_file():
                raise self._damaged(error) from error
            raise AbsentError(_absent(self.name, "predictions/scores.parquet", "evaluate")) from error

    def _damaged(self, error: IntegrityError) -> IntegrityError:
        if not self.remedy:
            return error
        # the folder that the error names is a copy
        return IntegrityError(f"run '{self.name}': its predictions are damaged. First: {DISTRUST}. {self.remedy}")

    @cached_property
    def articles(self) -> pl.DataFrame:
        """A row per article that dev shows: news, and perhaps weight_<encoder>. Raises AbsentError."""
        try:
            frame = pl.read_parquet(self.predictions / "articles.parquet")
            return frame.select("news", "^weight_.*$")
        except (OSError, pl.exceptions.PolarsError) as error:
            raise AbsentError(_absent(self.name, "predictions/articles.parquet", "evaluate")) from error


@contextmanager
def gathered(name: str, root: Path) -> Iterator[Evidence]:
    """What the run that `name` names in the project at `root` left; it may be gone afterwards.

    Raises ParamsError for a name of nothing.
    """
    match sort_of(name, root):
        case Sort.WORKSPACE:
            folder = root / "data" / setting(root, "dataset") / "predictions"
            yield Evidence(name, _head(root), root, folder)
        case Sort.FOLDER:
            with TemporaryDirectory() as empty:
                yield Evidence(name, "", Path(empty), root / name)
        case Sort.REVISION:
            with opened(name, root) as revision, TemporaryDirectory() as copy:
                dataset = _copied(revision, Path(copy))
                commit = _described(root, revision.commit)
                yield Evidence(name, commit, Path(copy), Path(copy, "data", dataset, "predictions"), revision.remedy)


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """With text as it was before `newsfuse.harmless` wrote it for DVC's plots."""
    texts = frame.select(pl.col(pl.String).fill_null(""))
    return frame.with_columns(pl.Series(text.name, map(plain, text), pl.String) for text in texts)


def _copied(revision: Revision, copy: Path) -> str:
    """Copy what is to be had of the revision; its data set."""
    (copy / "params.yaml").write_text(revision.text("params.yaml"), encoding="utf-8")
    dataset = setting(copy, "dataset")
    manifests = [f"data/{dataset}/{folder}/{MANIFEST}" for folder in STAGES if folder != "predictions"]
    for path in (*KEPT[1:], *manifests, f"data/{dataset}/predictions"):
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        # what a stage has not made, or nobody has kept, is told where it would be shown
        with suppress(NewsfuseError):
            revision.fetch(path, copy / path)
    return dataset


def _head(root: Path) -> str:
    """The commit of the workspace, and whether it has changes."""
    described = _described(root, "HEAD")
    changed = described and _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{described}, and changes that are not committed" if changed else described


def _described(root: Path, revision: str) -> str:
    return _git(root, "log", "-1", "--format=%h of %cs, '%s'", revision)


def _git(root: Path, *arguments: str) -> str:
    """What git answers, "" where it cannot."""
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments, no shell
            ["git", "--no-optional-locks", *arguments],  # noqa: S607 - the git that DVC uses as well
            cwd=root, capture_output=True, encoding="utf-8", errors="replace", check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _absent(name: str, path: str, stage: str) -> str:
    remedy = (
        f" The {stage} stage makes it: dvc repro {stage}." if stage else " dvc repro writes it." * (path == "dvc.lock")
    )
    return f"{path} of '{name}' is missing or cannot be read.{remedy}"


def flattened(settings: Mapping[str, Any]) -> dict[str, str]:
    """{dotted name: value as text} of nested settings; an empty group has no entry."""
    return {name: _shown(value) for name, value in dotted(settings)}


def _shown(value: object) -> str:
    if value is None:
        return "(default)"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
