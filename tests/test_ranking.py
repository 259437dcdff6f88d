"""Ranking metrics, against scikit-learn and against the definitions written out for one impression."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from newsfuse import csr
from newsfuse.ranking import Ranking, is_constant, pooled_auc, ranking, ranks, subset

METRICS = ("auc", "mrr", "ndcg5", "ndcg10")

Impression = tuple[np.ndarray, np.ndarray]
"""Scores and labels of the candidates of one impression."""
Flat = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Scores, labels and offsets of many."""


def flat(impressions: list[Impression]) -> Flat:
    scores = np.concatenate([np.zeros(0), *(scores for scores, _ in impressions)])
    labels = np.concatenate([np.zeros(0, np.int8), *(labels for _, labels in impressions)])
    return scores, labels, csr.offsets(np.array([len(scores) for scores, _ in impressions], dtype=np.int64))


@st.composite
def impressions(draw: st.DrawFn) -> list[Impression]:
    """Few distinct scores, so that ties are common, as are impressions with no click and with clicks only."""
    sizes = draw(st.lists(st.sampled_from([0, 1, 1, 2, 3, 5, 8, 20]), max_size=12))
    return [(draw(_scores(size)), draw(_labels(size))) for size in sizes]


def _scores(size: int) -> st.SearchStrategy[np.ndarray]:
    score = st.sampled_from([-1e300, -1.0, -0.0, 0.0, 0.1, 0.1 + 1e-16, 0.2, 3.0])
    return st.lists(score, min_size=size, max_size=size).map(lambda drawn: np.array(drawn, np.float64))


def _labels(size: int) -> st.SearchStrategy[np.ndarray]:
    labels = st.sampled_from([[0], [1], [0, 1], [0, 0, 0, 1]]).map(st.sampled_from)
    lists = labels.flatmap(lambda label: st.lists(label, min_size=size, max_size=size))
    return lists.map(lambda drawn: np.array(drawn, np.int8))


@pytest.fixture(scope="module")
def many() -> list[Impression]:
    """10,000 impressions of 0 to 59 candidates; half have distinct scores, half of them ties, some are one-sided."""
    rng = np.random.default_rng(20191115)
    return [_random(rng, int(size)) for size in rng.integers(0, 60, size=10_000)]


def _random(rng: np.random.Generator, size: int) -> Impression:
    scores = rng.normal(size=size) if rng.random() < 0.5 else rng.integers(0, 5, size=size) / 10
    share = rng.choice([0.0, 0.04, 0.3, 1.0], p=[0.05, 0.6, 0.3, 0.05])
    return scores, (rng.random(size) < share).astype(np.int8)


# --- MIND's own script, for one impression, but for `kind="stable"`: see the decision about ties


def order_of(scores: np.ndarray) -> np.ndarray:
    return np.argsort(scores, kind="stable")[::-1]


def auc_of(scores: np.ndarray, labels: np.ndarray) -> float:
    """The share of pairs in the right order, pair by pair; the script takes scikit-learn's."""
    pairs = scores[labels == 1][:, None], scores[labels == 0][None, :]
    right = (pairs[0] > pairs[1]) + 0.5 * (pairs[0] == pairs[1])
    return float(right.mean()) if right.size else float("nan")


def dcg_score(y_true: np.ndarray, y_score: np.ndarray, k: int) -> float:
    y_true = np.take(y_true, order_of(y_score)[:k])
    gains = 2**y_true - 1
    discounts = np.log2(np.arange(len(y_true)) + 2)
    return float(np.sum(gains / discounts))


def ndcg_score_of_mind(y_true: np.ndarray, y_score: np.ndarray, k: int) -> float:
    return dcg_score(y_true, y_score, k) / dcg_score(y_true, y_true, k)


def mrr_score(y_true: np.ndarray, y_score: np.ndarray) -> float:
    y_true = np.take(y_true, order_of(y_score))
    return float(np.sum(y_true / (np.arange(len(y_true)) + 1)) / np.sum(y_true))


def of_mind(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float, float, float]:
    """Without a click the script divides by zero; here that is NaN."""
    if not labels.any():
        return (float("nan"),) * 4
    y_true = labels.astype("float32")  # as the script has it
    ndcg5, ndcg10 = (ndcg_score_of_mind(y_true, scores, k) for k in (5, 10))
    return auc_of(scores, labels), mrr_score(y_true, scores), ndcg5, ndcg10


def expected(impressions: list[Impression]) -> Ranking:
    rows = [of_mind(scores, labels) for scores, labels in impressions]
    return Ranking(*np.array(rows, np.float64).reshape(-1, 4).T)


def assert_close(found: np.ndarray, wanted: np.ndarray | list[float]) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12, equal_nan=True)


def assert_equal(found: Ranking, wanted: Ranking) -> None:
    for metric in METRICS:
        assert_close(getattr(found, metric), getattr(wanted, metric))
        assert getattr(found, metric).dtype == np.float64


# --- metrics


def test_a_hand_counted_impression_has_the_metrics_of_the_definitions() -> None:
    # ranks: 3, 1, 2 with clicks at 1 and 3; of the two pairs one is right
    found = ranking(np.array([0.1, 0.9, 0.5]), np.array([1, 1, 0], np.int8), np.array([0, 3]))
    dcg, best = 1 + 1 / np.log2(4), 1 + 1 / np.log2(3)
    assert found.auc.tolist() == [0.5]
    assert found.mrr == pytest.approx([(1 + 1 / 3) / 2], abs=1e-15)
    assert found.ndcg5 == pytest.approx([dcg / best], abs=1e-15)
    assert found.ndcg10 == pytest.approx([dcg / best], abs=1e-15)


def test_ten_thousand_random_impressions_equal_the_official_script(many: list[Impression]) -> None:
    assert_equal(ranking(*flat(many)), expected(many))


def test_auc_of_ten_thousand_random_impressions_equals_scikit_learn(many: list[Impression]) -> None:
    both = [(s, y) for s, y in many if 0 < y.sum() < len(y)]
    wanted = [roc_auc_score(y, s) for s, y in both]
    assert_close(ranking(*flat(both)).auc, wanted)


def test_ndcg_equals_scikit_learn_without_ties(many: list[Impression]) -> None:
    untied = [(s, y) for s, y in many if y.any() and len(y) > 1 and len(set(s.tolist())) == len(s)][:500]
    found = ranking(*flat(untied))
    assert_close(found.ndcg5, [ndcg_score([y], [s], k=5) for s, y in untied])
    assert_close(found.ndcg10, [ndcg_score([y], [s], k=10) for s, y in untied])


@given(impressions())
def test_any_impressions_equal_the_definitions(chosen: list[Impression]) -> None:
    assert_equal(ranking(*flat(chosen)), expected(chosen))


@given(impressions())
def test_metrics_do_not_depend_on_the_impressions_beside_them(chosen: list[Impression]) -> None:
    together = ranking(*flat(chosen))
    for row, impression in enumerate(chosen):
        assert_equal(together.take(np.array([row])), ranking(*flat([impression])))


@given(impressions())
def test_labels_may_be_bool(chosen: list[Impression]) -> None:
    scores, labels, offsets = flat(chosen)
    assert_equal(ranking(scores, labels == 1, offsets), ranking(scores, labels, offsets))


@pytest.mark.parametrize(("block", "clicks"), [(1, 16), (7, 3), (1 << 17, 0), (50, 1)])
def test_neither_blocks_nor_the_way_of_ranking_change_a_bit(
    block: int, clicks: int, many: list[Impression], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = flat(many[:500])
    wanted = ranking(*few)
    monkeypatch.setattr("newsfuse.ranking.BLOCK", block)
    monkeypatch.setattr("newsfuse.ranking.MANY", clicks)
    for metric in METRICS:
        np.testing.assert_array_equal(getattr(ranking(*few), metric), getattr(wanted, metric))


def test_an_impression_of_half_a_million_clicks_takes_no_quadratic_time() -> None:
    scores, labels = np.random.default_rng(0).normal(size=1 << 20), np.arange(1 << 20) % 2
    found = ranking(scores, labels, np.array([0, len(scores)]))
    assert found.auc == pytest.approx([roc_auc_score(labels, scores)], abs=1e-12)


def test_scores_may_be_infinite() -> None:
    scores, labels = np.array([-np.inf, np.inf, 0.0, -np.inf]), np.array([0, 0, 1, 1], np.int8)
    assert_equal(ranking(*flat([(scores, labels)])), expected([(scores, labels)]))


def test_a_perfect_order_is_worth_exactly_one() -> None:
    for clicks in range(1, 40):
        labels = (np.arange(40) < clicks).astype(np.int8)
        found = ranking(*flat([(-np.arange(40.0), labels)]))
        assert (found.auc[0], found.ndcg5[0], found.ndcg10[0]) == (1, 1, 1)


def test_a_metric_without_its_clicks_is_nan() -> None:
    none, every = np.zeros(2, np.int8), np.ones(2, np.int8)
    scores = np.array([0.2, 0.1])
    found = ranking(*flat([(scores, none), (scores, every), (scores[:0], none[:0]), (scores[:1], every[:1])]))
    assert np.isnan(found.auc).all()
    for metric in METRICS[1:]:
        np.testing.assert_array_equal(np.isnan(getattr(found, metric)), [True, False, True, False])


# --- means


def test_a_mean_counts_the_impressions_where_the_metric_is_defined(many: list[Impression]) -> None:
    wanted = expected(many)
    means = ranking(*flat(many)).means()
    assert tuple(means) == METRICS
    for metric, mean in means.items():
        assert mean == pytest.approx(np.nanmean(getattr(wanted, metric)), abs=1e-12)


@pytest.mark.parametrize("chosen", [[], [(np.zeros(0), np.zeros(0, np.int8))], [(np.zeros(3), np.zeros(3, np.int8))]])
def test_a_mean_over_nothing_is_nan_without_a_warning(chosen: list[Impression]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        means = ranking(*flat(chosen)).means()
    assert all(np.isnan(mean) for mean in means.values())


# --- pooled AUC


def test_the_mean_auc_is_not_the_pooled_auc() -> None:
    # each impression is ordered perfectly, on scales that have nothing to do with each other
    chosen = [(np.array([2.0, 1.0]), np.array([1, 0], np.int8)), (np.array([9.0, 8.0]), np.array([1, 0], np.int8))]
    scores, labels, offsets = flat(chosen)
    assert ranking(scores, labels, offsets).means()["auc"] == 1
    assert pooled_auc(scores, labels) == roc_auc_score(labels, scores) == 0.75


@given(impressions())
def test_the_pooled_auc_equals_scikit_learn(chosen: list[Impression]) -> None:
    scores, labels, _ = flat(chosen)
    wanted = roc_auc_score(labels, scores) if 0 < labels.sum() < len(labels) else np.nan
    assert_close(np.array(pooled_auc(scores, labels)), np.array(wanted))
    assert_close(np.array(pooled_auc(scores, labels == 1)), np.array(wanted))


def test_taking_rows_selects_and_orders_impressions(many: list[Impression]) -> None:
    full = ranking(*flat(many))
    taken, masked = full.take(np.array([7, 3])), full.take(np.arange(len(many)) < 2)
    for metric in METRICS:
        np.testing.assert_array_equal(getattr(taken, metric), getattr(full, metric)[[7, 3]])
        np.testing.assert_array_equal(getattr(masked, metric), getattr(full, metric)[:2])


# --- ranks


def test_of_equal_scores_the_later_candidate_ranks_first() -> None:
    found = ranks(np.array([0.5, 0.9, 0.5, 0.5, 0.1]), np.array([0, 4, 5]))
    assert found.tolist() == [4, 1, 3, 2, 1]
    assert found.dtype == np.int64


def test_ties_are_settled_by_position_in_long_impressions_too() -> None:
    # numpy's default argsort is not stable past 16 elements
    assert ranks(np.zeros(300), np.array([0, 300])).tolist() == list(range(300, 0, -1))


@given(impressions())
def test_ranks_are_those_of_a_stable_argsort_reversed(chosen: list[Impression]) -> None:
    scores, _, offsets = flat(chosen)
    found = ranks(scores, offsets)
    for (own, _), start in zip(chosen, offsets[:-1], strict=True):
        wanted = np.empty(len(own), np.int64)
        wanted[order_of(own)] = np.arange(1, len(own) + 1)
        assert found[start : start + len(own)].tolist() == wanted.tolist()


# --- what cannot be ranked


def test_a_nan_score_is_refused_by_name() -> None:
    scores, labels, offsets = np.array([0.1, np.nan, np.nan]), np.array([1, 0, 0], np.int8), np.array([0, 3])
    for refused in (
        lambda: ranking(scores, labels, offsets),
        lambda: ranks(scores, offsets),
        lambda: is_constant(scores, offsets),
    ):
        with pytest.raises(ValueError, match=r"candidate 1 has the score NaN \(2 in all\)"):
            refused()


@pytest.mark.parametrize("offsets", [[0, 2], [0, 4], [1, 3], [0, 2, 1, 3]])
def test_offsets_that_do_not_fit_the_scores_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="3 scores need offsets that rise from 0 to 3, found"):
        ranks(np.zeros(3), np.array(offsets))


def test_labels_that_do_not_fit_the_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="2 labels need offsets"):
        ranking(np.zeros(3), np.zeros(2, np.int8), np.array([0, 3]))


# --- slices


def test_a_subset_keeps_the_impressions_and_drops_candidates() -> None:
    scores, labels = np.array([0.1, 0.2, 0.3, 0.4]), np.array([1, 0, 1, 0], np.int8)
    kept = subset(scores, labels, np.array([0, 3, 3, 4]), np.array([True, False, True, False]))
    assert [part.tolist() for part in kept] == [[0.1, 0.3], [1, 1], [0, 2, 2, 2]]


@given(impressions(), st.integers(0, 2**32))
def test_a_subset_has_the_metrics_of_its_candidates_alone(chosen: list[Impression], seed: int) -> None:
    scores, labels, offsets = flat(chosen)
    keep = np.random.default_rng(seed).random(len(scores)) < 0.5
    keeps = np.split(keep, offsets[1:-1])
    alone = [
        (s[kept], y[kept]) for (s, y), kept in zip(chosen, keeps, strict=False)
    ]  # split never gives no part at all
    assert_equal(ranking(*subset(scores, labels, offsets, keep)), expected(alone))


def test_a_dropped_candidate_may_lack_a_score() -> None:
    kept = subset(np.array([np.nan, 0.3, 0.2]), np.array([0, 1, 0]), np.array([0, 3]), np.array([False, True, True]))
    assert ranking(*kept).auc.tolist() == [1]


# --- constant predictions


@pytest.mark.parametrize(
    ("scores", "offsets", "constant"),
    [
        ([1.0, 1.0, 2.0, 2.0], [0, 2, 4], True),  # the impressions may differ from each other
        ([1.0, 1.0, 2.0, 2.0], [0, 4], False),
        ([1.0, 1.0, 2.0, 2.1], [0, 2, 4], False),
        ([1.0, 2.0, 3.0], [0, 1, 2, 2, 3], True),  # one candidate, or none: nothing to rank
        ([0.0, -0.0], [0, 2], True),
        ([], [0], True),
    ],
)
def test_predictions_are_constant_when_no_impression_has_two_scores(
    scores: list[float], offsets: list[int], *, constant: bool
) -> None:
    assert is_constant(np.array(scores), np.array(offsets)) is constant


@given(impressions())
def test_constant_means_one_distinct_score_in_every_impression(chosen: list[Impression]) -> None:
    scores, _, offsets = flat(chosen)
    assert is_constant(scores, offsets) == all(len(np.unique(own)) <= 1 for own, _ in chosen)


def test_a_constant_model_is_worth_half_an_auc(many: list[Impression]) -> None:
    scores, labels, offsets = flat(many)
    assert ranking(np.zeros_like(scores), labels, offsets).means()["auc"] == 0.5
