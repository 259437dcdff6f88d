"""Which training impressions are set aside for validation: the last day, or days."""

import numpy as np

from newsfuse.behaviors import Behaviors

LAST_SHARE = 0.1
"""This share of the impressions validates at least; of a file that covers one day only, the latest ones."""


def split(behaviors: Behaviors) -> tuple[Behaviors, Behaviors]:
    """(what the model learns from, what chooses the epoch)."""
    late = is_validation(behaviors.times)
    return behaviors.take(np.flatnonzero(~late)), behaviors.take(np.flatnonzero(late))


def is_validation(times: np.ndarray) -> np.ndarray:
    """bool (n,): impressions of the last calendar days in `times` (datetime64[s]), as dev is what comes after train.

    The last day, and as many before it as make up LAST_SHARE: a file that ends in the morning has a last day of a
    few hours, which say little about a day. The first day is always learned from. Training and validation never
    overlap in time, so validation asks what dev will ask: can the model rank articles that appeared after its last
    lesson?
    """
    days, day, counts = np.unique(times.astype("datetime64[D]"), return_inverse=True, return_counts=True)
    if len(days) == 1:
        return np.asarray(times > np.quantile(times.astype(np.int64), 1 - LAST_SHARE).astype("datetime64[s]"))
    enough = np.flatnonzero(counts[::-1].cumsum()[::-1] >= LAST_SHARE * len(times))
    return np.asarray(day >= max(1, enough[-1]))
