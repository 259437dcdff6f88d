"""The bootstrap over users: scipy and plain loops say the same, noise is rarely called a difference, a gain is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from newsfuse import bootstrap as module
from newsfuse.bootstrap import Estimate, bootstrap, by_user, holm, resampled
from newsfuse.csr import offsets, owners
from newsfuse.ranking import ranking

NAN = float("nan")


def world(impressions: int, users: int, columns: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Values that are alike within a user, some of them not defined, and whose each is."""
    rng = np.random.default_rng(seed)
    owner = rng.integers(users, size=impressions) * 7 + 3
    values = rng.normal(0.1, 1, (impressions, columns)) + rng.normal(0, 1, 7 * users + 3)[owner, None]
    values[rng.random(values.shape) < 0.1] = NAN
    return values, owner


def close(first: Estimate, second: Estimate) -> None:
    for name in ("mean", "low", "high", "p", "impressions", "users"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=0, atol=1e-6, err_msg=name)


def paired(impressions: int, users: int, signals: tuple[float, float], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Differences of the AUC of two runs that rank clicks so far above others, each with noise of its own; users."""
    rng = np.random.default_rng(seed)
    ends = offsets(rng.integers(4, 30, size=impressions))
    clicked = np.zeros(ends[-1], np.int8)
    clicked[ends[:-1]] = 1
    user = rng.integers(users, size=impressions)
    easy = rng.normal(1, 0.5, users)[user][owners(ends)]  # the clicks of some users are easy to foresee
    auc = [ranking(rng.standard_normal(ends[-1]) + signal * easy * clicked, clicked, ends).auc for signal in signals]
    return (auc[1] - auc[0])[:, None], user


def test_the_interval_is_scipys_paired_one_by_users() -> None:
    values, users = world(200, 40, 1, seed=3)
    sums, counts = by_user(values, users)
    theirs = stats.bootstrap(
        (sums[:, 0], counts[:, 0]),
        lambda total, number, axis: total.sum(axis=axis) / number.sum(axis=axis),
        paired=True, vectorized=True, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1),
    )  # fmt: skip
    ours = bootstrap(values, users)
    # the end of an interval from 10,000 resamples varies by about .03 standard errors
    tolerance = float(0.12 * theirs.standard_error)
    assert ours.low[0] == pytest.approx(theirs.confidence_interval.low, abs=tolerance)
    assert ours.high[0] == pytest.approx(theirs.confidence_interval.high, abs=tolerance)
    drawn = theirs.bootstrap_distribution
    assert ours.p[0] == pytest.approx(2 * min((drawn <= 0).mean(), (drawn >= 0).mean()), abs=0.03)
    assert 0.05 < ours.p[0] < 0.95  # else the line above says little


def test_a_resample_is_the_ratio_of_sums_over_drawn_users() -> None:
    values, users = world(60, 9, 3)
    found = resampled(*by_user(values, users), resamples=50, seed=4)
    rng, names = np.random.default_rng(4), np.unique(users)
    for row in found:
        drawn = names[rng.integers(len(names), size=len(names), dtype=np.uint32)]
        rows = np.concatenate([values[users == name] for name in drawn])
        np.testing.assert_allclose(row, np.nanmean(rows, axis=0), rtol=0, atol=1e-6)


def test_the_mean_is_over_the_impressions_where_the_value_is_defined() -> None:
    values, users = world(300, 50, 4)
    found = bootstrap(values, users, resamples=10)
    np.testing.assert_allclose(found.mean, np.nanmean(values, axis=0), rtol=0, atol=1e-12)
    assert found.impressions.tolist() == (~np.isnan(values)).sum(axis=0).tolist()
    seen = [len(np.unique(users[~np.isnan(column)])) for column in values.T]
    assert found.users.tolist() == seen


def test_impressions_of_one_user_are_no_independent_evidence() -> None:
    values, users = world(40, 10**6, 1)  # hardly a user twice
    close_to = bootstrap(values, users)
    again = bootstrap(np.repeat(values, 25, axis=0), np.repeat(users, 25))
    assert again.low == pytest.approx(close_to.low, abs=1e-6)
    assert again.high == pytest.approx(close_to.high, abs=1e-6)


def test_columns_do_not_depend_on_each_other() -> None:
    values, users = world(200, 30, 5)
    values[:, 3] = values[:, 1] * 2  # defined in the same impressions
    together = bootstrap(values, users, resamples=200)
    alone = [bootstrap(column[:, None], users, resamples=200) for column in values.T]
    close(together, Estimate(*(np.concatenate(each) for each in zip(*map(fields, alone), strict=True))))


def fields(estimate: Estimate) -> list[np.ndarray]:
    return list(vars(estimate).values())


def test_it_is_the_same_at_every_call_and_whatever_memory_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    values, users = world(200, 30, 2)
    whole = bootstrap(values, users, resamples=200)
    monkeypatch.setattr(module, "BLOCK", 100)
    close(bootstrap(values, users, resamples=200), whole)


def test_a_p_value_below_five_percent_is_an_interval_without_zero() -> None:
    values, users = world(150, 30, 60)
    values += np.linspace(-1, 1, 60)
    found = bootstrap(values, users, resamples=999)
    without = (found.low > 0) | (found.high < 0)
    clear = abs(found.p - 0.05) > 0.005  # the interval's ends lie between two resamples
    assert (without == (found.p < 0.05))[clear].all()
    assert 10 < without.sum() < 50


def test_equal_runs_do_not_differ() -> None:
    found = bootstrap(np.zeros((50, 1)), np.arange(50) % 20, resamples=100)
    assert (found.mean[0], found.low[0], found.high[0], found.p[0]) == (0, 0, 0, 1)


@pytest.mark.filterwarnings("error")
def test_what_is_defined_nowhere_has_no_interval() -> None:
    for found in (bootstrap(np.full((9, 2), NAN), np.arange(9), resamples=10), bootstrap(np.ones((0, 2)), np.ones(0))):
        assert np.isnan([found.mean, found.low, found.high, found.p]).all()
        assert found.impressions.tolist() == found.users.tolist() == [0, 0]


def test_noise_is_called_a_difference_in_at_most_seven_of_a_hundred_repeats() -> None:
    p = np.array([bootstrap(*paired(500, 200, (1, 1), seed), resamples=400).p[0] for seed in range(100)])
    assert (p < 0.05).sum() <= 7
    assert 35 < (p < 0.5).sum() < 65  # nor is it careful only because nothing is ever called one


def test_a_gain_of_a_hundredth_of_auc_is_found() -> None:
    differences, users = paired(73_152, 50_000, (0.5, 0.545), seed=0)  # as large as MIND-small's dev set
    found = bootstrap(differences, users, resamples=1000)
    assert found.mean[0] == pytest.approx(0.01, abs=0.003)
    assert found.p[0] < 0.05
    assert found.low[0] > 0


probability = st.one_of(st.just(NAN), st.floats(0, 1))


@given(st.lists(probability, max_size=12))
def test_p_values_are_corrected_step_by_step_as_holm_has_it(p: list[float]) -> None:
    expected, left, last = [NAN] * len(p), np.flatnonzero(~np.isnan(p)).tolist(), 0.0
    while left:
        least = min(left, key=lambda number: p[number])
        last = expected[least] = max(last, min(1.0, p[least] * len(left)))
        left.remove(least)
    np.testing.assert_allclose(holm(np.array(p)), expected, rtol=1e-12, atol=0)


def test_the_shape_of_p_values_is_kept() -> None:
    assert holm(np.array([[0.01, 0.04], [NAN, 0.03]]))[0].tolist() == pytest.approx([0.03, 0.06])
