"""What runs are measured on to be compared: the same candidates of the same impressions, as a whole and in slices."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from newsfuse import csr
from newsfuse.ranking import METRICS, Ranking
from newsfuse.runs import Run
from newsfuse.slices import sliced

ALL = "all"
"""The whole, among slices."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """A slice, as it cuts n impressions: whole ones, or some candidates of each."""

    name: str
    impressions: np.ndarray
    """bool (n,): of which it has a candidate."""
    among: np.ndarray | None
    """bool (candidates,); None where it has whole impressions, which need no ranking of their own."""

    @classmethod
    def cut(cls, name: str, mask: np.ndarray, offsets: np.ndarray) -> "Part":
        """`mask`: bool (candidates,); `offsets`: int64 (n + 1,), of impressions that have a candidate each."""
        first = mask[offsets[:-1]]
        if (np.repeat(first, csr.lengths(offsets)) == mask).all():
            return cls(name, first, None)
        return cls(name, csr.lengths(csr.offsets(mask)[offsets]) > 0, mask)

    def values(self, run: Run, whole: np.ndarray, *, drop_unknown: bool) -> np.ndarray:
        """float (n, 4): METRICS of each impression, NaN where not defined. `whole`: the same without a slice."""
        if self.among is None:
            return np.where(self.impressions[:, None], whole, np.float32("nan"))
        return _columns(run.ranking(drop_unknown=drop_unknown, among=self.among))


@dataclass(frozen=True)
class Measured:
    """What runs that differ in their seed reach together in the K columns of a course."""

    values: np.ndarray
    """float32 (n, K): of each impression, the mean over runs; NaN where not defined."""
    means: np.ndarray
    """float64 (runs, K): of each run, the mean over impressions."""


@dataclass(frozen=True)
class Course:
    """What all runs are measured on: the candidates of the first run."""

    first: Run
    parts: tuple[Part, ...]
    in_slices: tuple[str, ...]
    """Which of METRICS are measured in the parts; as a whole, all are."""
    drop_unknown: bool
    """Whether candidates without a score do not count, or rank last."""

    @classmethod
    def of(cls, first: Run, *, in_slices: Sequence[str], drop_unknown: bool) -> "Course":
        """`in_slices`: metrics that are measured in each slice that is not empty too; none: there are no slices."""
        found = [Part.cut(each.name, each.mask, first.offsets) for each in sliced(first.table)] if in_slices else []
        # what slices are cut from is needed no more, and large
        slim = replace(first, table=first.table.select("impression", "user", "news", "clicked", "score"))
        return cls(slim, tuple(part for part in found if part.impressions.any()), tuple(in_slices), drop_unknown)

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Slice and metric of each of the K columns."""
        whole = [(ALL, metric) for metric in METRICS]
        return whole + [(part.name, metric) for part in self.parts for metric in self.in_slices]

    def measured(self, names: Sequence[str], root: Path) -> Measured:
        """Of the runs of these names, one at a time in memory. Raises what `Run.read` and `Run.aligned` raise."""
        hashes = dict[str, str]()
        total, means = np.zeros((), np.float32), list[np.ndarray]()
        for name in names:
            run = self.first if name == self.first.name else Run.read(name, root).aligned(self.first)
            _warn(run, hashes)
            values = self._values(run)
            total = total + values
            means.append(_means(values))
        return Measured(total / np.float32(len(means)), np.stack(means))

    def _values(self, run: Run) -> np.ndarray:
        # float32: a metric is off by less than a ten-millionth, and fifty slices of 73,000 impressions are 58 MB
        result = np.empty((len(run.impressions), len(self.columns)), np.float32)
        whole, slices = result[:, : len(METRICS)], result[:, len(METRICS) :]
        whole[:] = _columns(run.ranking(drop_unknown=self.drop_unknown))
        kept = [list(METRICS).index(metric) for metric in self.in_slices]
        for number, part in enumerate(self.parts):
            own = slice(number * len(kept), (number + 1) * len(kept))
            slices[:, own] = part.values(run, whole, drop_unknown=self.drop_unknown)[:, kept]
        return result


def _columns(ranking: Ranking) -> np.ndarray:
    return np.stack([getattr(ranking, metric) for metric in METRICS], axis=1)


def _means(values: np.ndarray) -> np.ndarray:
    """(n, K) -> (K,): over the impressions where each is defined, NaN where there are none."""
    with np.errstate(invalid="ignore"):  # 0 / 0
        return np.nansum(values, axis=0, dtype=np.float64) / (~np.isnan(values)).sum(axis=0)


def _warn(run: Run, before: dict[str, str]) -> None:
    if run.sha256 in before:
        same = before[run.sha256]
        log.warning("run '%s' predicts what '%s' does to the last bit: the spread is too small", run.name, same)
    before[run.sha256] = run.name
