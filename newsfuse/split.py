"""Which training impressions are set aside for validation: the last day."""

import numpy as np

from newsfuse.behaviors import Behaviors

LAST_SHARE = 0.1
"""Of a training file that covers one day only, this share (the latest impressions) validates."""


def split(behaviors: Behaviors) -> tuple[Behaviors, Behaviors]:
    """(what the model learns from, what chooses the epoch)."""
    late = is_validation(behaviors.times)
    return behaviors.take(np.flatnonzero(~late)), behaviors.take(np.flatnonzero(late))


def is_validation(times: np.ndarray) -> np.ndarray:
    """bool (n,): impressions of the last calendar day in `times` (datetime64[s]), as dev is the day after train.

    Training and validation never overlap in time, so validation asks what dev will ask: can the
    model rank articles that appeared after its last lesson?
    """
    days = times.astype("datetime64[D]")
    last = days == days.max()
    if not last.all():
        return last
    return np.asarray(times > np.quantile(times.astype(np.int64), 1 - LAST_SHARE).astype("datetime64[s]"))
