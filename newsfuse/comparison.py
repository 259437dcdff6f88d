"""Runs side by side: their metrics as a whole and in slices, and how certain each difference to the first one is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from newsfuse.bootstrap import LEVEL, Estimate, bootstrap, holm
from newsfuse.course import ALL, Course, Measured
from newsfuse.entrants import Entrant
from newsfuse.provenance import Provenance
from newsfuse.runs import Run, setting

OF_SLICES = ("category", "history", "hour")
"""Columns that slices other than warm and cold are cut by; older versions did not write them."""
FEW_USERS = 30
"""Of fewer, resamples say too little of other users: no interval is given (docs/comparison.md)."""
NAN = float("nan")


@dataclass(frozen=True)
class Finding:
    """One metric of one entrant in one slice, and its difference to the reference's. NaN: not defined, not known."""

    slice: str
    metric: str
    run: str
    seeds: int
    value: float
    """Mean over impressions, and over seeds."""
    spread: float
    """Standard deviation over seeds, by seeds - 1; NaN of one seed."""
    difference: float
    """`value` less the reference's; NaN of the reference itself, as are the next five."""
    low: float
    """Of the 95 % interval of the difference."""
    high: float
    p: float
    """Two-sided, by itself."""
    p_corrected: float
    """By Holm, for all comparisons of its table: what has no slice is one table, the slices of each metric another."""
    seed_margin: float
    """95 % interval of the difference over seeds, half of it: Student's t of two samples with one spread. A difference
    below it may be that of the seeds that happened to be drawn. NaN where neither has two seeds."""
    impressions: int
    """In which the metric is defined."""
    users: int
    """Whose these are."""


@dataclass(frozen=True)
class Cost:
    """What a run of an entrant cost: the mean over its runs; None where that of any is not known."""

    run: str
    seeds: int
    dollars: float | None
    minutes: float | None


@dataclass(frozen=True)
class Comparison:
    """Entrants, the reference first, in each metric, and in slices."""

    findings: tuple[Finding, ...]
    costs: tuple[Cost, ...]
    missing: tuple[str, ...]
    """Of OF_SLICES, what the reference's predictions lack."""

    @property
    def reference(self) -> str:
        """Its label."""
        return self.costs[0].run


def comparison(entrants: Sequence[Entrant], root: Path, *, in_slices: Sequence[str]) -> Comparison:
    """Compare entrants with the first of them on the same candidates of the same impressions, in all metrics.

    `root`: of the project; `in_slices`: metrics in which all slices are compared too. Raises ParamsError for a name of
    nothing, DataError for runs on other data or candidates, IntegrityError for predictions that are damaged or not to
    be had.
    """
    costs = _costs(entrants, root)
    drop_unknown = setting(root, "evaluate", "unknown_candidates", default="last") == "drop"
    first = Run.read(entrants[0].runs[0], root)
    missing = tuple(column for column in OF_SLICES if column not in first.table.columns)
    course = Course.of(first, in_slices=in_slices, drop_unknown=drop_unknown)
    del first  # the course has what it needs of it
    measured = [course.measured(entrant.runs, root) for entrant in entrants]
    return Comparison(tuple(_findings(entrants, measured, course)), costs, missing)


def _costs(entrants: Sequence[Entrant], root: Path) -> tuple[Cost, ...]:
    """Raises DataError where runs are known to have read other data than the first."""
    known = [[Provenance.read(name, root) for name in entrant.runs] for entrant in entrants]
    for provenance in (each for group in known for each in group):
        provenance.refuse_other_data(known[0][0])
    return tuple(
        Cost(
            entrant.label,
            len(runs),
            mean_if_known([run.dollars for run in runs]),
            mean_if_known([run.minutes for run in runs]),
        )
        for entrant, runs in zip(entrants, known, strict=True)
    )


def mean_if_known(values: Sequence[float | None]) -> float | None:
    """None where that of any is not known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _findings(entrants: Sequence[Entrant], measured: Sequence[Measured], course: Course) -> Iterator[Finding]:
    """Slice by slice, metric by metric, entrant by entrant."""
    figures = _figures(measured, course)
    for column, (in_slice, metric) in enumerate(course.columns):
        for number, entrant in enumerate(entrants):
            own: dict[str, Any] = {name: values[column, number].item() for name, values in figures.items()}
            yield Finding(in_slice, metric, entrant.label, len(entrant.runs), **own)


def _figures(measured: Sequence[Measured], course: Course) -> dict[str, np.ndarray]:
    """The figures of findings by name, (K, entrants) each; those of differences are NaN for the reference."""
    found = [_differences(other, measured[0], course.first.users) for other in measured[1:]]
    own = {
        "value": [each.means.mean(axis=0) for each in measured],
        "spread": [_spread(each.means) for each in measured],
        "impressions": [each.impressions for each in (found[0], *found)],
        "users": [each.users for each in (found[0], *found)],
    }
    unknown = np.full(len(course.columns), NAN)
    of_differences = {"difference": "mean", "low": "low", "high": "high", "p": "p"}
    figures = {name: np.stack(values, axis=1) for name, values in own.items()} | {
        name: np.stack([unknown, *(getattr(each, field) for each in found)], axis=1)
        for name, field in of_differences.items()
    }
    margin = _seed_margin(figures["spread"], np.array([len(each.means) for each in measured]))
    return figures | {"p_corrected": _corrected(figures["p"], course.columns), "seed_margin": margin}


def _differences(other: Measured, reference: Measured, users: np.ndarray) -> Estimate:
    """Of K columns; without an interval where the users are few."""
    found = bootstrap(other.values - reference.values, users)
    low, high, p = (np.where(found.users < FEW_USERS, NAN, values) for values in (found.low, found.high, found.p))
    return replace(found, low=low, high=high, p=p)


def _spread(means: np.ndarray) -> np.ndarray:
    return np.std(means, axis=0, ddof=1) if len(means) > 1 else np.full(means.shape[1:], NAN)


def _seed_margin(spread: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """(K, entrants): see Finding. `spread`: (K, entrants); `seeds`: (entrants,), how many each has."""
    free = seeds - 1 + seeds[0] - 1
    squares = np.nan_to_num(spread) ** 2 * (seeds - 1)  # one seed says nothing of its spread
    with np.errstate(invalid="ignore"):  # 0 / 0 where there is one seed each
        variance = (squares + squares[..., :1]) / free
        margin = stdtrit(free, (1 + LEVEL) / 2) * np.sqrt(variance * (1 / seeds + 1 / seeds[0]))
    margin[..., 0] = NAN
    return margin


def _corrected(p: np.ndarray, columns: Sequence[tuple[str, str]]) -> np.ndarray:
    """`p` (K, entrants) by Holm, table by table: see Finding. `columns`: slice and metric of each row of it."""
    tables = np.array(["" if in_slice == ALL else metric for in_slice, metric in columns])
    corrected = np.empty_like(p)
    for table in np.unique(tables):
        corrected[tables == table] = holm(p[tables == table])
    return corrected
