"""How far a mean over impressions may be trusted: the bootstrap over users.

Impressions of one user are alike, so users are drawn, with replacement and with all their impressions, as often as
there are users (the cluster bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section
3.8). A resample's statistic is the ratio of two sums over the drawn users: of their values, and of their impressions
in which the value is defined. To compare two runs, hand in the difference of their values in each impression: both
are then seen by the same users in every resample, which is the paired bootstrap.

The interval is the percentile interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3).
The p value is the level at which that interval just touches 0 (section 15.4), doubled for two sides and with the
observation counted as one resample, so that it is never 0 (Davison and Hinkley, section 4.2.1):

    p = min(1, 2 (1 + min(#{t* <= 0}, #{t* >= 0})) / (R + 1))

So p < .05 and a 95 % interval without 0 are one statement, but for the last resample. Both follow users only: what
another seed, another day or another data set would give is not in them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
FEWER_RESAMPLES = 2_000
"""Where nothing is tested: their noise in the ends of an interval is a fiftieth of its width."""
LEVEL = 0.95
BLOCK = 1 << 22
"""Counts of users in memory at once, in float32: 16 MB."""


@dataclass(frozen=True)
class Estimate:
    """Means of K columns of values, and what the users' resamples say of each. Arrays (K,), NaN where undefined."""

    mean: np.ndarray
    """float64: over the impressions in which the value is defined."""
    low: np.ndarray
    """float64: lower end of the percentile interval."""
    high: np.ndarray
    """float64: upper end."""
    p: np.ndarray
    """float64 in (0, 1]: two-sided, of the mean being 0; not corrected, see `holm`."""
    impressions: np.ndarray
    """int64: in how many the value is defined."""
    users: np.ndarray
    """int64: how many users these are of."""


def bootstrap(
    values: np.ndarray, users: np.ndarray, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Estimate:
    """The means of `values` over impressions, with intervals over users.

    `values`: float (n, K), a metric of each impression or the difference of two runs' in it, NaN where it is not
    defined, which counts in no sum; `users`: (n,), whose impression it is. All columns share the resamples, and so
    do calls with the same seed and users. Memory: `resamples` (K) values and BLOCK counts beside the sums of users.
    """
    sums, counts = by_user(values, users)
    impressions = counts.sum(axis=0, dtype=np.int64)
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing is defined
        mean = np.nansum(values, axis=0, dtype=np.float64) / impressions
    drawn = resampled(sums, counts, resamples=resamples, seed=seed)
    low, high = _interval(drawn, level)
    return Estimate(mean, low, high, _p(drawn), impressions, np.count_nonzero(counts, axis=0))


def by_user(values: np.ndarray, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the defined values of each user, and how many these are: float32 (U, K) each, users in sorted order.

    `values`: float (n, K), NaN where not defined; `users`: (n,).
    """
    names, owner = np.unique(users, return_inverse=True)
    sums, counts = np.empty((2, values.shape[1], len(names)), np.float32)
    for column, own in enumerate(values.T):
        defined = ~np.isnan(own)
        sums[column] = np.bincount(owner[defined], own[defined], len(names))
        counts[column] = np.bincount(owner[defined], minlength=len(names))
    return sums.T, counts.T


def resampled(sums: np.ndarray, counts: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """float64 (resamples, K): the statistic of each resample, NaN where no drawn user has a value.

    `sums`, `counts`: float32 (U, K), as `by_user` has them. Counts stay exact in float32, and a sum over 50,000 users
    is off by less than a millionth of itself.
    """
    # columns that are defined in the same impressions, as those of one slice, need one product for all
    distinct, which = _distinct(counts)
    both = np.concatenate([sums, counts[:, distinct]], axis=1)
    result = np.empty((resamples, sums.shape[1]))
    for rows, drawn in _drawn(len(sums), resamples, seed):
        totals = drawn @ both
        with np.errstate(invalid="ignore", divide="ignore"):
            result[rows] = totals[:, : sums.shape[1]] / totals[:, sums.shape[1] :][:, which]
    return result


def holm(p: np.ndarray) -> np.ndarray:
    """float64, shaped as `p`: p values such that at a level alpha, all claims together err with that probability.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979. NaN
    (not tested) stays NaN and is not counted.
    """
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p.flat[tested], kind="stable")]
    steps = p.flat[order] * np.arange(len(order), 0, -1)
    adjusted.flat[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def _drawn(n: int, resamples: int, seed: int) -> Iterator[tuple[slice, np.ndarray]]:
    """How often each of n users is drawn, some resamples at a time: multinomial counts, float32 (rows, n)."""
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK // max(n, 1))
    for start in range(0, resamples, block):
        drawn = np.empty((min(block, resamples - start), n), np.float32)
        for row in drawn:  # one resample's counts stay in a core's cache
            row[:] = np.bincount(rng.integers(n, size=n, dtype=np.uint32), minlength=n)
        yield slice(start, start + len(drawn)), drawn


def _distinct(counts: np.ndarray) -> tuple[list[int], list[int]]:
    """Columns of which no two are equal, and of every column, which of those it equals."""
    known: dict[bytes, int] = {}
    which = [known.setdefault(np.ascontiguousarray(column).tobytes(), len(known)) for column in counts.T]
    return [which.index(number) for number in range(len(known))], which


def _interval(drawn: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """(K,) and (K,): the percentile interval of each column, over the resamples in which it is defined."""
    ends = np.full((2, drawn.shape[1]), np.nan)
    for column, own in enumerate(drawn.T):
        defined = own[~np.isnan(own)]
        if len(defined):
            ends[:, column] = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return ends[0], ends[1]


def _p(drawn: np.ndarray) -> np.ndarray:
    """(K,): see the top of this file; NaN where no resample is defined."""
    defined = np.count_nonzero(~np.isnan(drawn), axis=0)
    rarer = np.minimum((drawn <= 0).sum(axis=0), (drawn >= 0).sum(axis=0))
    return np.where(defined, np.minimum(2 * (1 + rarer) / (defined + 1), 1), np.nan)
