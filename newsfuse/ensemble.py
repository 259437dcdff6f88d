"""An ensemble: several runs on the same data ranked as one, by the mean of their standardised scores."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from newsfuse import csr, parquet
from newsfuse.artifact import MANIFEST, writing
from newsfuse.errors import ParamsError
from newsfuse.ranking import METRICS, ranks, unknown_last
from newsfuse.runs import SCORES, Run, setting
from newsfuse.submission import write_predictions
from newsfuse.terminal import show, tell

KIND = "ensemble"

log = logging.getLogger(__name__)


def ensemble(names: Sequence[str], root: Path, out: Path | None) -> None:
    """Write the ensemble of the named runs as predictions, and show what each is worth.

    `out`: data/<dataset>/ensemble unless given. One run at a time is in memory beside the first. Raises ParamsError
    for names that cannot be used, DataError for runs that were not evaluated on the same candidates, IntegrityError.
    """
    folder = out or root / "data" / setting(root, "dataset") / "ensemble"
    _check(names, folder)
    drop_unknown = setting(root, "evaluate", "unknown_candidates", default="last") == "drop"
    first = Run.read(names[0], root)
    total, hashes, means = np.zeros(len(first.scores)), dict[str, str](), dict[str, dict[str, float]]()
    for name in names:
        run = first if name == first.name else Run.read(name, root).aligned(first)
        standard = standardised(run.scores, run.offsets)
        _warn(run, standard, hashes)
        total += standard
        hashes[name], means[name] = run.sha256, run.ranking(drop_unknown=drop_unknown).means()
    mean = first.rescored(KIND, total / len(names))
    _write(folder, mean, hashes)
    show(_table(len(mean.impressions), means | {KIND: mean.ranking(drop_unknown=drop_unknown).means()}))
    tell(f"Written: {folder}")


def standardised(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """float64 (candidates,): scores less the mean of their impression, in its standard deviations.

    `scores`: float64 (candidates,), NaN for an unknown article, which stays NaN and counts in no mean; `offsets`:
    int64 (n + 1,). As `scipy.stats.zscore` has it (the population's deviation) but where all scores of an impression
    are equal: zeros, so that a run that ranks nothing there leaves the order to the others.
    """
    known = ~np.isnan(scores)
    values, n = scores[known], len(offsets) - 1
    own, owner = csr.offsets(known)[offsets], csr.owners(offsets)[known]
    size = np.maximum(csr.lengths(own), 1)
    centred = values - (np.bincount(owner, values, n) / size)[owner]
    deviation = np.sqrt(np.bincount(owner, centred**2, n) / size)
    # not by the deviation: the mean of equal scores may differ from them in its last bit
    varied = np.bincount(owner, values != values[own[:-1][owner]], n) > 0
    result = np.full(len(scores), np.nan)
    result[known] = np.divide(
        centred, deviation[owner], out=np.zeros(len(values)), where=(varied & (deviation > 0))[owner]
    )
    return result


def _check(names: Sequence[str], folder: Path) -> None:
    if len(set(names)) < max(len(names), 2):
        message = f"runs: found {', '.join(names)}; expected two or more, each once"
        raise ParamsError(message)
    if folder.exists() and not _is_ours(folder):
        message = f"--out: {folder} is there already and is no ensemble; nothing was changed. Name another folder"
        raise ParamsError(message)


def _is_ours(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("kind") == KIND


def _warn(run: Run, standard: np.ndarray, before: dict[str, str]) -> None:
    if same := [name for name, sha256 in before.items() if sha256 == run.sha256]:
        log.warning("run '%s' predicts what '%s' does to the last bit: it counts twice", run.name, same[0])
    if not np.nan_to_num(standard).any():
        log.warning("run '%s' gives all candidates of an impression the same score: it adds nothing", run.name)


def _write(folder: Path, run: Run, hashes: dict[str, str]) -> None:
    """What evaluate writes of a run; the manifest says which scores went into it."""
    with writing(folder, kind=KIND, settings={"runs": hashes}) as draft:
        parquet.write(draft / SCORES, run.table)
        order = ranks(unknown_last(run.scores), run.offsets)
        write_predictions(draft / "prediction.txt", run.impressions, order, run.offsets)


def _table(n: int, means: dict[str, dict[str, float]]) -> Table:
    table = Table("run", title=f"{n:,} impressions", title_justify="left")
    for metric in METRICS.values():
        table.add_column(metric, justify="right")
    for name, values in means.items():
        table.add_row(name, *(f"{values[metric]:.4f}" for metric in METRICS))
    return table
