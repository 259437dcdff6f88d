"""Slices of the candidates: which they are, told from the table alone."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsfuse.slices import sliced

SCHEMA = {
    "impression": pl.String, "clicked": pl.Int8, "warm": pl.Boolean, "category": pl.String, "history": pl.Int32,
    "hour": pl.Int8,
}  # fmt: skip
HISTORIES = ("history_0", "history_1_5", "history_21", "history_6_20")
LENGTHS = (0, 1, 5, 6, 20, 21, 80)

Candidate = tuple[int, bool, str | None]
"""(clicked, warm, category)."""
candidates = st.tuples(st.integers(0, 1), st.booleans(), st.sampled_from(["news", "sports", "</script>", None]))
impressions = st.lists(
    st.tuples(st.sampled_from(LENGTHS), st.integers(0, 23), st.lists(candidates, min_size=1, max_size=4)), max_size=12
)


def slices(table: pl.DataFrame) -> dict[str, np.ndarray]:
    return {each.name: each.mask for each in sorted(sliced(table), key=lambda each: each.name)}


def table(shown: Sequence[tuple[int, int, Sequence[Candidate]]]) -> pl.DataFrame:
    """From (clicks in the history, hour, candidates) of each impression."""
    rows = [
        (f"I{number}", clicked, warm, category, history, hour)
        for number, (history, hour, own) in enumerate(shown)
        for clicked, warm, category in own
    ]
    return pl.DataFrame(rows, SCHEMA, orient="row")


def by_loop(frame: pl.DataFrame) -> dict[str, list[bool]]:
    found: dict[str, list[bool]] = {}

    def keep(name: str, row: int) -> None:
        found.setdefault(name, [False] * len(frame))[row] = True

    bounds = {"history_0": range(1), "history_1_5": range(1, 6), "history_6_20": range(6, 21)}
    numbered = list(enumerate(frame.iter_rows(named=True)))
    for _, group in groupby(numbered, key=lambda each: each[1]["impression"]):
        own = list(group)
        first = next((row["category"] for _, row in own if row["clicked"]), None)
        for number, row in own:
            keep("warm" if row["warm"] else "cold", number)
            keep(next((name for name, held in bounds.items() if row["history"] in held), "history_21"), number)
            keep(f"hour_{row['hour']:02}", number)
            if first is not None:
                keep(f"category_{first}", number)
    return found


@given(impressions)
def test_slices_equal_those_of_a_loop(shown: list[tuple[int, int, list[Candidate]]]) -> None:
    frame = table(shown)
    found = {name: mask.tolist() for name, mask in slices(frame).items()}
    assert {name: mask for name, mask in found.items() if any(mask)} == by_loop(frame)


@given(impressions)
def test_every_impression_has_one_length_of_history_and_one_hour(
    shown: list[tuple[int, int, list[Candidate]]],
) -> None:
    found = slices(table(shown))
    n = sum(len(own) for _, _, own in shown)
    for names in (HISTORIES, [name for name in found if name.startswith("hour")], ("warm", "cold")):
        times = sum((found[name].astype(int) for name in names), start=np.zeros(n, dtype=int))
        assert times.tolist() == [1] * n


def test_slices_are_sorted_masks_by_name() -> None:
    found = slices(table([(3, 7, [(1, True, "news"), (0, False, None)])]))
    assert list(found) == ["category_news", "cold", *HISTORIES, "hour_07", "warm"]
    assert all(mask.dtype == bool and mask.shape == (2,) for mask in found.values())


def test_an_impression_belongs_to_the_category_of_its_first_click_as_a_whole() -> None:
    shown = [(0, 0, [(0, True, "news"), (1, True, "sports"), (1, True, "news")]), (0, 0, [(0, True, "news")])]
    found = slices(table(shown))
    assert found["category_sports"].tolist() == [True, True, True, False]
    assert "category_news" not in found


def test_of_an_older_table_there_are_warm_and_cold_candidates() -> None:
    frame = table([(0, 0, [(1, True, "news"), (0, False, "news")])]).drop("category", "history", "hour")
    assert list(slices(frame)) == ["cold", "warm"]


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [("history_21", "history", "21+"), ("hour_07", "hour", "07"), ("cold", "article", "cold")],
)
def test_a_slice_says_what_its_candidates_have_in_common(name: str, kind: str, value: str) -> None:
    found = {each.name: each for each in sliced(table([(30, 7, [(1, False, "news")])]))}
    assert (found[name].kind, found[name].value) == (kind, value)


def test_slices_come_in_an_order_to_read_them_in() -> None:
    histories = [each.value for each in sliced(table([(0, 0, [(1, True, "news")])])) if each.kind == "history"]
    assert histories == ["0", "1-5", "6-20", "21+"]
