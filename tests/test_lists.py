"""What the ten best-ranked candidates are like, against loops over lists and numbers worked out by hand."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy
from small import behave

from newsfuse import lists as module
from newsfuse.csr import offsets
from newsfuse.lists import (
    ALPHA,
    Lists,
    Popularity,
    calibration,
    coverage,
    diversity,
    metrics,
    novelty,
    popularity_lift,
    vector_diversity,
)

CATEGORIES = np.array([0, 1, 1, 2, 0, 2])
VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
VECTORS[3] = 0
POPULARITY = Popularity(np.array([3, 0, 1, 0, 7, 1]), np.array([2, 0, 1, 0, 5, 1]), 9)

some = st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=1, max_size=6)


def listed(*lists: list[int]) -> Lists:
    return Lists(
        offsets(np.array([len(each) for each in lists])), np.array([news for own in lists for news in own], int)
    )


def mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def same(found: float, expected: float) -> None:
    assert found == pytest.approx(expected, abs=1e-5, nan_ok=True)


# --- which articles are in a list


def test_the_best_ten_known_candidates_are_listed() -> None:
    shown = [(article % 6, 0) for article in range(12)]
    scores = np.append(np.arange(12.0), [np.nan, 0.5, 0.7])
    found = Lists.best(scores, behave(([], shown), ([], [(-1, 1), (3, 0), (4, 0)])))
    assert np.diff(found.offsets).tolist() == [10, 2]
    assert found.news.tolist() == [article % 6 for article in range(2, 12)] + [3, 4]


def test_of_two_lengths_the_shorter_list_begins_the_longer() -> None:
    shown = behave(([], [(0, 0), (1, 1), (2, 0), (3, 0)]))
    scores = np.array([0.1, 0.9, 0.9, 0.5])  # of equal scores the later ranks first
    assert [Lists.best(scores, shown, length).news.tolist() for length in (1, 2, 3)] == [[2], [1, 2], [1, 2, 3]]


def test_histories_are_those_of_each_impression_in_whole() -> None:
    shown = [(0, 1)]
    found = Lists.histories(behave(([5, 5, 1], shown), ([], shown), ([2], shown), ([5, 5, 1], shown)))
    assert np.split(found.news, found.offsets[1:-1])[0].tolist() == [5, 5, 1]
    assert np.diff(found.offsets).tolist() == [3, 0, 1, 3]


def test_clicks_of_train_are_counted_by_article_and_by_user() -> None:
    behaviors = behave(([1], [(0, 1), (2, 0)]), ([], [(0, 1), (-1, 1)]), ([], [(0, 1), (3, 1)]))
    behaviors.users[:] = [4, 4, 7]
    found = Popularity.of(behaviors, 6)
    assert found.clicks.tolist() == [3, 0, 0, 1, 0, 0]
    assert found.users.tolist() == [2, 0, 0, 1, 0, 0]
    assert found.all_users == 2


# --- what they are like


@given(some)
def test_diversity_is_the_share_of_pairs_that_differ(drawn: list[list[int]]) -> None:
    shares = [[CATEGORIES[a] != CATEGORIES[b] for a, b in combinations(own, 2)] for own in drawn if len(own) > 1]
    same(diversity(listed(*drawn), CATEGORIES), mean([float(np.mean(each)) for each in shares]))


@given(some)
def test_vector_diversity_is_the_mean_distance_of_pairs(drawn: list[list[int]]) -> None:
    unit = VECTORS / np.maximum(np.linalg.norm(VECTORS, axis=1, keepdims=True), 1e-9)
    distances = [[1 - float(unit[a] @ unit[b]) for a, b in combinations(own, 2)] for own in drawn if len(own) > 1]
    same(vector_diversity(listed(*drawn), VECTORS), mean([float(np.mean(each)) for each in distances]))


@given(some)
def test_novelty_is_the_mean_surprise_at_an_article(drawn: list[list[int]]) -> None:
    bits = [[-np.log2((POPULARITY.users[news] + 1) / 11) for news in own] for own in drawn if own]
    same(novelty(listed(*drawn), POPULARITY), mean([float(np.mean(each)) for each in bits]))


@given(st.lists(st.tuples(st.lists(st.integers(0, 5), max_size=4), st.lists(st.integers(0, 5), max_size=4))))
def test_popularity_lift_is_of_the_means_of_lists_and_histories(drawn: list[tuple[list[int], list[int]]]) -> None:
    clicks = POPULARITY.clicks
    both = [(clicks[own].mean(), clicks[read].mean()) for own, read in drawn if own and read]
    shown, read = (mean([pair[side] for pair in both]) for side in (0, 1))
    found = popularity_lift(listed(*(own for own, _ in drawn)), listed(*(read for _, read in drawn)), POPULARITY)
    same(found, shown / read - 1 if read > 0 else float("nan"))


@given(st.lists(st.tuples(st.lists(st.integers(0, 5), max_size=4), st.lists(st.integers(0, 5), max_size=4))))
def test_calibration_is_the_divergence_of_categories(drawn: list[tuple[list[int], list[int]]]) -> None:
    shares = [
        tuple(np.bincount(CATEGORIES[each], minlength=3) / len(each) for each in pair) for pair in drawn if all(pair)
    ]
    divergences = [float(entropy(p, (1 - ALPHA) * q + ALPHA * p)) for q, p in shares]
    found = calibration(listed(*(own for own, _ in drawn)), listed(*(read for _, read in drawn)), CATEGORIES)
    same(found, mean(divergences))


def test_in_parts_the_same_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    own, read = listed([0, 1, 2], [], [3, 4], [5, 0, 1, 1]), listed([0], [1], [2, 3], [4])

    def measured() -> list[float]:
        return [diversity(own, CATEGORIES), vector_diversity(own, VECTORS), calibration(own, read, CATEGORIES)]

    whole = measured()
    monkeypatch.setattr(module, "CELLS", 4)  # a list of four values, or one of three categories, at a time
    assert measured() == pytest.approx(whole, rel=1e-6)


def test_coverage_is_of_the_articles_that_could_be_shown() -> None:
    assert coverage(listed([0, 1], [1, 1]), np.array([0, 1, -1, 5, 5, 2])) == 2 / 4


def test_a_list_like_its_history_is_calibrated() -> None:
    assert calibration(listed([0, 1]), listed([1, 4, 0, 2]), CATEGORIES) == 0


def test_a_list_of_other_categories_than_the_history_is_as_far_as_the_smoothing_allows() -> None:
    assert calibration(listed([0]), listed([1]), CATEGORIES) == pytest.approx(-np.log(ALPHA))


def test_lists_that_are_more_popular_than_histories_lift() -> None:
    assert popularity_lift(listed([4], [0]), listed([2, 5], [0]), POPULARITY) == (7 + 3) / (1 + 3) - 1


def test_all_of_it_is_measured_on_the_best_candidates() -> None:
    train = behave(*[([], [(article, 1)]) for article in (0, 4, 4, 2)])
    dev = behave(([4], [(0, 1), (1, 0), (-1, 0)]), ([], [(2, 1), (4, 0)]))
    scores = np.array([0.5, 0.1, np.nan, 0.2, 0.8])
    found = metrics(scores, train, dev, CATEGORIES, VECTORS)
    best, read = Lists.best(scores, dev), Lists.histories(dev)
    assert found == {
        "coverage10": 1,
        "diversity10": 1,
        "novelty10": novelty(best, Popularity.of(train, 6)),
        "popularity_lift10": (1 + 0) / 2 / 2 - 1,
        "calibration10": calibration(best, read, CATEGORIES),
        "vector_diversity10": vector_diversity(best, VECTORS),
    }


def test_without_vectors_there_is_no_vector_diversity() -> None:
    dev = behave(([4], [(0, 1), (1, 0)]))
    assert "vector_diversity10" not in metrics(np.zeros(2), dev, dev, CATEGORIES, None)


def test_what_is_defined_for_no_list_is_nan() -> None:
    dev = behave(([], [(-1, 1)]))
    found = metrics(np.array([np.nan]), dev, dev, CATEGORIES, VECTORS)
    assert all(np.isnan(value) for value in found.values())
