"""Tokens and dollars of one run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsfuse.errors import ParamsError, QuotaError
from newsfuse.paid.budget import MILLION, Budget, price

estimates = st.lists(st.integers(1, 300_000), min_size=1, max_size=30)
prices = st.sampled_from([0.02, 0.13, 0.1, 0.065, 0.3, 1 / 3])


def refused(budget: Budget, estimate: int) -> str:
    with pytest.raises(QuotaError) as caught:
        budget.promise(estimate)
    assert caught.value.exit_code == 5
    return str(caught.value)


def bought(budget: Budget, estimate: int, billed: int | None) -> float:
    budget.promise(estimate)
    return budget.settle(estimate, billed)


# the price


@pytest.mark.parametrize(
    ("known", "said", "expected"), [(0.02, None, 0.02), (0.02, 0.5, 0.5), (None, 0.5, 0.5), (0.02, 0.0, 0.0)]
)
def test_a_price_that_the_user_says_wins(known: float | None, said: float | None, expected: float) -> None:
    assert price(known, said, "shop") == expected


def test_an_unknown_price_is_asked_for_by_the_name_of_its_variable() -> None:
    with pytest.raises(ParamsError, match=r"^the price of shop, clay is not known") as caught:
        price(None, None, "shop, clay")
    assert "export NEWSFUSE_USD_PER_MILLION_TOKENS=0.02 (0 where it costs nothing)" in str(caught.value)


# before the first request


def test_work_above_the_budget_is_refused_with_its_price_and_what_to_do() -> None:
    with pytest.raises(QuotaError) as caught:
        Budget(1.0, 0.02).require(51_000_000)
    assert str(caught.value) == (
        "about $1.0200 for 51,000,000 tokens is above the budget of $1; nothing was sent. "
        "Look at it: newsfuse plan. Allow it: export NEWSFUSE_BUDGET_USD=1.1"
    )


@given(estimates, prices)
def test_the_budget_that_a_refusal_names_is_enough(sizes: list[int], usd: float) -> None:
    total = sum(sizes)
    with pytest.raises(QuotaError) as caught:
        Budget(0.0, usd).require(total)
    named = float(str(caught.value).rpartition("=")[2])
    Budget(named, usd).require(total)
    assert named < 1.2 * total * usd / MILLION


@given(estimates, prices)
def test_work_that_costs_exactly_the_budget_is_never_refused(sizes: list[int], usd: float) -> None:
    budget = Budget(sum(sizes) * usd / MILLION, usd)
    budget.require(sum(sizes))
    for size in sizes:
        bought(budget, size, size)
    assert budget.tokens == budget.estimated == sum(sizes)


@given(estimates, prices)
def test_nor_is_it_when_all_requests_are_in_flight_at_once(sizes: list[int], usd: float) -> None:
    budget = Budget(sum(sizes) * usd / MILLION, usd)
    for size in sizes:
        budget.promise(size)
    for size in sizes:
        budget.settle(size, size)
    assert budget.promised == 0


@given(estimates, prices)
def test_a_token_above_the_budget_is_refused(sizes: list[int], usd: float) -> None:
    budget = Budget((sum(sizes) - 1) * usd / MILLION, usd)
    with pytest.raises(QuotaError):
        budget.require(sum(sizes))
    for size in sizes[:-1]:
        budget.promise(size)
    refused(budget, sizes[-1])


def test_a_budget_of_nothing_allows_what_costs_nothing() -> None:
    budget = Budget(0.0, 0.0)
    budget.require(10**9)
    assert bought(budget, 10**9, 10**9) == 0.0
    refused(Budget(0.0, 0.02), 1)


# during the run: $1 a token


def test_what_is_billed_is_counted_and_not_what_was_estimated() -> None:
    budget = Budget(100.0, MILLION)
    assert bought(budget, 10, 13) == 13.0
    assert bought(budget, 10, None) == 10.0  # a server that does not tell
    assert (budget.usd, budget.tokens, budget.estimated, budget.promised) == (23.0, 23, 20, 0)


def test_the_forecast_learns_from_what_was_billed() -> None:
    budget = Budget(100.0, MILLION)
    assert budget.forecast_usd(40) == 40.0
    bought(budget, 10, 15)
    assert budget.forecast_usd(40) == 60.0


def test_inflated_usage_stops_the_run_before_the_request_that_would_go_above_the_budget() -> None:
    budget = Budget(100.0, MILLION)
    budget.require(100)
    for _ in range(5):
        bought(budget, 10, 20)
    assert refused(budget, 10) == (
        "$100.0000 is spent, and the next request would go above the budget of $100: "
        "the provider bills more tokens than estimated. Allow it: export NEWSFUSE_BUDGET_USD=260"
    )
    assert budget.usd == 100.0


def test_requests_in_flight_are_expected_to_be_inflated_as_well() -> None:
    budget = Budget(100.0, MILLION)
    bought(budget, 10, 20)
    for _ in range(4):
        budget.promise(10)  # of 100, 20 are spent and 80 may come
    refused(budget, 1)


def test_a_request_that_failed_gives_its_promise_back() -> None:
    budget = Budget(10.0, MILLION)
    budget.promise(10)
    refused(budget, 1)
    assert budget.release(10) == 0.0
    assert (budget.usd, budget.promised) == (0.0, 0)
    budget.promise(10)
