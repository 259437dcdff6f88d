"""Slices of dev: parts of the candidates, or of the impressions, that are looked at by themselves."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from newsfuse import csr

HISTORY = {"0": (0, 0), "1-5": (1, 5), "6-20": (6, 20), "21+": (21, np.iinfo(np.int64).max)}
"""Fewest and most clicks of a user's history."""


@dataclass(frozen=True)
class Slice:
    """Some of the candidates, and what they have in common."""

    name: str
    """Such as history_1_5."""
    kind: str
    """What the candidates are told apart by: article, history, category or hour."""
    value: str
    """Such as 1-5."""
    mask: np.ndarray
    """bool (candidates,)."""


def sliced(table: pl.DataFrame) -> Iterator[Slice]:
    """The slices of the candidates, one by one, in an order to read them in.

    `table`: a row per candidate, those of an impression side by side, as scores.parquet has them. warm and cold are
    slices of candidates: they keep, of every impression, the candidates of their sort. All others are slices of whole
    impressions: history_0, history_1_5, history_6_20 and history_21 (or more) by the user's clicks before, hour_00 to
    hour_23 by the hour of the day, and category_<name> by the category of the impression's first clicked article,
    since the candidates of one category alone would leave nothing to tell them apart by category. An impression
    without a click, or whose clicked article has no category, is in none of the last.

    What the table has no column for is left out, for tables of older versions have but `warm`. warm, cold and the
    histories are there even where they are empty; categories and hours are those that occur.
    """
    kinds = {"warm": _articles, "history": _histories, "category": _categories, "hour": _hours}
    for column, of_kind in kinds.items():
        if column in table.columns:
            yield from of_kind(table)


def _articles(table: pl.DataFrame) -> Iterator[Slice]:
    warm = table["warm"].to_numpy()
    for value, mask in {"warm": warm, "cold": ~warm}.items():
        yield Slice(value, "article", value, mask)


def _histories(table: pl.DataFrame) -> Iterator[Slice]:
    clicks = table["history"].to_numpy()
    for value, (fewest, most) in HISTORY.items():
        name = value.replace("-", "_").removesuffix("+")
        yield Slice(f"history_{name}", "history", value, (fewest <= clicks) & (clicks <= most))


def _categories(table: pl.DataFrame) -> Iterator[Slice]:
    owner = csr.owners(csr.runs(table["impression"]))
    clicks = np.flatnonzero(table["clicked"].to_numpy() == 1)
    clicked, first = np.unique(owner[clicks], return_index=True)
    categories = table["category"].gather(clicks[first])
    for category in categories.drop_nulls().unique().sort():
        impressions = np.zeros(owner.max(initial=-1) + 1, dtype=bool)
        impressions[clicked] = (categories == category).fill_null(value=False).to_numpy()
        yield Slice(f"category_{category}", "category", category, impressions[owner])


def _hours(table: pl.DataFrame) -> Iterator[Slice]:
    hours = table["hour"].to_numpy()
    for hour in np.unique(hours):
        yield Slice(f"hour_{hour:02}", "hour", f"{hour:02}", hours == hour)
