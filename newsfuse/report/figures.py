"""Means with their intervals, and differences between two runs, from the users' bootstrap."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from heapq import nlargest
from itertools import groupby

import numpy as np

from newsfuse.bootstrap import bootstrap
from newsfuse.comparison import FEW_USERS
from newsfuse.ranking import METRICS, Ranking
from newsfuse.report.evidence import Evidence
from newsfuse.report.section import AbsentError, Figure, between, number
from newsfuse.runs import Run
from newsfuse.slices import Slice, sliced

MOST = 40
"""Slices, or groups of articles, of one kind that are shown: the largest."""


@dataclass(frozen=True)
class Estimated:
    """A mean over impressions, and its 95 % interval over users; none where these are fewer than FEW_USERS."""

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def ends(self) -> tuple[float, float | None, float | None]:
        """mean, low, high: as a chart has it."""
        return self.mean, self.low, self.high

    def figure(self, *, sign: bool = False) -> Figure:
        """As a table has it."""
        mean = f"{self.mean:+.4f}" if sign and self.mean == self.mean else number(self.mean)  # noqa: PLR0124 - NaN
        return Figure(mean, between(self.low, self.high))


@dataclass(frozen=True)
class Part:
    """The metrics of a slice."""

    kind: str
    """What slices are told apart by, such as history."""
    value: str
    """Such as 1-5."""
    metrics: dict[str, Estimated]
    impressions: int
    """In which the metrics are defined."""


def drops_unknown(evidence: Evidence) -> bool:
    """Whether candidates without an article do not count, as the run's `evaluate.unknown_candidates` says."""
    try:
        return bool(evidence.group("evaluate").get("unknown_candidates") == "drop")
    except AbsentError:
        return False


def means(run: Run, *, drop_unknown: bool) -> dict[str, Estimated]:
    """By METRICS' keys."""
    return _estimated(_values(run.ranking(drop_unknown=drop_unknown)), run.users)


def differences(run: Run, reference: Run, *, drop_unknown: bool) -> dict[str, Estimated]:
    """How much better `run` is, impression by impression. Raises DataError for runs on other candidates."""
    aligned = run.aligned(reference)
    pair = [_values(each.ranking(drop_unknown=drop_unknown)) for each in (aligned, reference)]
    return _estimated(pair[0] - pair[1], reference.users)


def parts(run: Run, metrics: Sequence[str], *, drop_unknown: bool) -> list[Part]:
    """These metrics of the MOST largest slices of each kind, all from the same resamples of users."""
    found = list(_largest(run))
    rankings = [run.ranking(drop_unknown=drop_unknown, among=each.mask) for each in found]
    values = np.stack([getattr(each, name) for each in rankings for name in metrics], axis=1)
    impressions, columns = (~np.isnan(values)).sum(axis=0), _columns(values, run.users)
    starts = range(0, len(columns), len(metrics))
    return [
        Part(each.kind, each.value, dict(zip(metrics, columns[at:], strict=False)), int(impressions[at]))
        for each, at in zip(found, starts, strict=True)
    ]


def _largest(run: Run) -> Iterator[Slice]:
    # a data set may have thousands of categories: each is a column of resamples, and a row that nobody reads
    for _, kind in groupby(sliced(run.table), key=lambda each: each.kind):
        largest = nlargest(MOST, enumerate(kind), key=lambda numbered: numbered[1].mask.sum())
        yield from (each for _, each in sorted(largest, key=lambda numbered: numbered[0]))


def _values(ranking: Ranking) -> np.ndarray:
    """float64 (n, metrics)"""
    return np.stack(astuple(ranking), axis=1)


def _estimated(values: np.ndarray, users: np.ndarray) -> dict[str, Estimated]:
    return dict(zip(METRICS, _columns(values, users), strict=True))


def _columns(values: np.ndarray, users: np.ndarray) -> list[Estimated]:
    """Of each column of `values`: float (n, K), NaN where not defined. `users`: (n,)."""
    found = bootstrap(values, users)
    return [
        Estimated(float(mean)) if own < FEW_USERS else Estimated(float(mean), float(low), float(high))
        for mean, low, high, own in zip(found.mean, found.low, found.high, found.users, strict=True)
    ]
