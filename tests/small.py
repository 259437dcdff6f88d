"""A world small enough to read: the kit's articles, the shipped plugins, and impressions from lists."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from newsfuse.behaviors import Behaviors
from newsfuse.csr import offsets
from newsfuse.registry import Registry
from newsfuse.testing.world import BARE, EARLY, UNMENTIONED, WIDTH, world

__all__ = ["BARE", "EARLY", "ROOT", "UNMENTIONED", "WIDTH", "behave", "plugins", "world"]

ROOT = Path(__file__).parents[1]


def plugins() -> Registry:
    return Registry(ROOT / "plugins", {})


Shown = Sequence[tuple[int, int]]
"""(article, label) of each candidate."""


def behave(*impressions: tuple[Sequence[int], Shown]) -> Behaviors:
    """Impressions of (history, oldest click first; what was shown), an hour between each and the next."""
    n = len(impressions)
    histories = sorted({tuple(history) for history, _ in impressions})
    return Behaviors(
        impressions=pl.Series([f"I{number}" for number in range(n)], dtype=pl.String),
        users=np.arange(n, dtype=np.int32),
        times=np.datetime64("2019-11-09T00:00:00", "s") + 3600 * np.arange(n),
        history=np.array([histories.index(tuple(history)) for history, _ in impressions], dtype=np.int32),
        history_offsets=offsets(np.array([len(each) for each in histories], dtype=np.int64)),
        history_news=np.array([article for each in histories for article in each], dtype=np.int32),
        candidate_offsets=offsets(np.array([len(shown) for _, shown in impressions], dtype=np.int64)),
        candidate_news=np.array([article for _, shown in impressions for article, _ in shown], dtype=np.int32),
        labels=np.array([label for _, shown in impressions for _, label in shown], dtype=np.int8),
    )
