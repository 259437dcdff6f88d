"""Scorers that learn nothing, against loops, and on data whose best scorer is known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from small import behave

from newsfuse import baselines as module
from newsfuse.baselines import PRIOR, at_random, baselines, category_shares, click_rates, cosines
from newsfuse.ranking import ranking, unknown_last

if TYPE_CHECKING:
    from collections.abc import Callable

    from newsfuse.behaviors import Behaviors

CATEGORIES = np.array([0, 1, 1, 2, 0, 2])
VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
VECTORS[3] = 0
"""An article without a text points nowhere."""
DEV = behave(
    ([0, 1, 2, 4], [(0, 1), (5, 0), (1, 0)]),
    ([], [(1, 0), (3, 1)]),
    ([3], [(2, 0), (-1, 1), (2, 1)]),
    ([0, 1, 2, 4], [(3, 0)]),
    ([5, 3, 3], [(5, 1), (4, 0)]),
)
MOST = 3

histories = st.lists(st.integers(0, 5), max_size=6)
shown = st.lists(st.tuples(st.integers(-1, 5), st.integers(0, 1)), min_size=1, max_size=5)
worlds = st.lists(st.tuples(histories, shown), min_size=1, max_size=6).map(lambda drawn: behave(*drawn))


def latest(behaviors: Behaviors, impression: int, most: int) -> list[int]:
    row = behaviors.history[impression]
    own = behaviors.history_news[behaviors.history_offsets[row] : behaviors.history_offsets[row + 1]]
    return [int(article) for article in own[-most:]]


def pairs(behaviors: Behaviors, most: int) -> list[tuple[list[int], int]]:
    """(latest clicks, candidate) of every candidate."""
    sizes = np.diff(behaviors.candidate_offsets)
    impressions = np.repeat(np.arange(len(behaviors)), sizes)
    return [
        (latest(behaviors, int(impression), most), int(article))
        for impression, article in zip(impressions, behaviors.candidate_news, strict=True)
    ]


def auc(scores: np.ndarray, behaviors: Behaviors) -> float:
    return ranking(unknown_last(scores), behaviors.labels, behaviors.candidate_offsets).means()["auc"]


@given(worlds)
def test_the_category_share_is_that_of_a_loop(behaviors: Behaviors) -> None:
    found = category_shares(behaviors, CATEGORIES, MOST)
    for value, (clicks, article) in zip(found, pairs(behaviors, MOST), strict=True):
        if article >= 0:
            same = [CATEGORIES[click] == CATEGORIES[article] for click in clicks]
            assert value == pytest.approx(np.mean(same) if clicks else 0)


@given(worlds)
def test_the_cosine_is_that_of_a_loop(behaviors: Behaviors) -> None:
    unit = VECTORS / np.maximum(np.linalg.norm(VECTORS, axis=1, keepdims=True), 1e-9)
    found = cosines(behaviors, VECTORS, MOST)
    for value, (clicks, article) in zip(found, pairs(behaviors, MOST), strict=True):
        mean = unit[clicks].mean(axis=0) if clicks else np.zeros(4)
        length = np.linalg.norm(mean)
        if article >= 0:
            assert value == pytest.approx(float(unit[article] @ mean / length) if length else 0, abs=1e-5)


def test_cosines_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cosines(DEV, VECTORS, MOST)
    monkeypatch.setattr(module, "IMPRESSIONS", 2)
    assert_allclose(cosines(DEV, VECTORS, MOST), whole, rtol=1e-6)


@given(worlds)
def test_click_rates_are_those_of_a_loop(behaviors: Behaviors) -> None:
    cells = [
        (article, label)
        for article, label in zip(behaviors.candidate_news, behaviors.labels, strict=True)
        if article >= 0
    ]
    mean = np.mean([label for _, label in cells]) if cells else 0
    for article, rate in enumerate(click_rates(behaviors, 6)):
        own = [label for shown, label in cells if shown == article]
        assert rate == pytest.approx((sum(own) + PRIOR * mean) / (len(own) + PRIOR))


def test_random_scores_are_another_draw_for_another_seed() -> None:
    once, again, other = (at_random(DEV, seed) for seed in (1, 1, 2))
    assert (once == again).all()
    assert (once != other).all()


def test_random_scores_do_not_depend_on_the_order_of_impressions() -> None:
    behaviors = replace(DEV, impressions=pl.Series(["10", "9", "2", "33", "1"]))
    order = np.array([3, 0, 4, 2, 1])
    ends = behaviors.candidate_offsets
    cells = np.concatenate([np.arange(ends[row], ends[row + 1]) for row in order])
    assert at_random(behaviors.take(order), 0).tolist() == at_random(behaviors, 0)[cells].tolist()


def test_an_unknown_candidate_has_no_score() -> None:
    found = baselines(DEV, DEV, CATEGORIES, VECTORS, history=MOST, seed=0)
    assert list(found) == ["random", "popularity", "category", "cosine"]
    assert all(np.flatnonzero(np.isnan(scores)).tolist() == [6] for scores in found.values())


def test_without_vectors_there_is_no_cosine() -> None:
    assert list(baselines(DEV, DEV, CATEGORIES, None, history=MOST, seed=0)) == ["random", "popularity", "category"]


@pytest.fixture(scope="module")
def planted() -> dict[str, dict[str, float]]:
    """AUC of each baseline on clicks that follow popularity, the category of the history, or its vectors."""
    rng = np.random.default_rng(0)
    categories = rng.integers(4, size=60)
    vectors = np.eye(4, 8, dtype=np.float32)[rng.integers(4, size=60)] + 0.1 * rng.normal(size=(60, 8))
    liked = rng.random(60)
    appeals: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "popularity": lambda _, shown: liked[shown],
        "category": lambda history, shown: (categories[history][:, None] == categories[shown]).mean(axis=0),
        "cosine": lambda history, shown: vectors[shown] @ vectors[history].mean(axis=0),
    }
    found = {}
    for name, appeal in appeals.items():
        drawn = [(rng.integers(60, size=3), rng.choice(60, size=8, replace=False)) for _ in range(600)]
        clicked = [int(np.argmax(appeal(history, shown) + 1e-6 * rng.random(8))) for history, shown in drawn]
        behaviors = behave(
            *(
                (history.tolist(), [(int(article), int(place == click)) for place, article in enumerate(shown)])
                for (history, shown), click in zip(drawn, clicked, strict=True)
            )
        )
        scores = baselines(behaviors, behaviors, categories, vectors.astype(np.float32), history=50, seed=0)
        found[name] = {other: auc(values, behaviors) for other, values in scores.items()}
    return found


@pytest.mark.parametrize("name", ["popularity", "category", "cosine"])
def test_each_baseline_finds_what_was_planted_for_it(planted: dict[str, dict[str, float]], name: str) -> None:
    found = planted[name]
    assert found[name] > 0.8
    assert {other for other, value in found.items() if value > 0.75} == {name}
    assert found["random"] == pytest.approx(0.5, abs=0.05)
