"""The budget: nothing is sent that is known to be above it, and what turns out to be is stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faults.buyer import BATCH, BATCHES, TITLES

if TYPE_CHECKING:
    from faults.book import Measured
    from faults.buyer import Buyer
    from openai_server import OpenAIServer

USD_PER_MILLION, BYTES_PER_TOKEN = "10000", 4
"""A price at which one token is a cent."""
TOKENS = sum(-(-len(title) // BYTES_PER_TOKEN) for title in TITLES.values())


def test_an_estimate_above_the_budget_is_refused_before_the_first_request(
    buyer: Buyer, server: OpenAIServer, measured: Measured
) -> None:
    priced = buyer.under(NEWSFUSE_USD_PER_MILLION_TOKENS=USD_PER_MILLION)
    below = priced.embed(NEWSFUSE_BUDGET_USD=f"{(TOKENS - 1) / 100}")
    assert below.code == 5
    cost, budget = f"${TOKENS / 100:.4f}", f"${(TOKENS - 1) / 100:g}"
    assert f"ERROR: about {cost} for {TOKENS} tokens is above the budget of {budget}; nothing was sent." in below.text
    assert (server.requests, buyer.ledger.exists()) == (0, False)
    allowed = priced.embed(NEWSFUSE_BUDGET_USD=f"{TOKENS / 100}")
    assert allowed.code == 0, allowed.text
    assert server.requests == BATCHES
    measured(
        21,
        "an estimate one cent above the budget; budget raised by a cent, run again",
        code="5, 0",
        requests=f"0 / {BATCHES}",
        twice=server.twice,
    )


def test_what_costs_more_than_estimated_stops_at_the_first_batch_past_the_budget(
    buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured
) -> None:
    server.billed_per_token = 3
    priced = buyer.under(NEWSFUSE_USD_PER_MILLION_TOKENS=USD_PER_MILLION, NEWSFUSE_BUDGET_USD=f"{2 * TOKENS / 100}")
    stopped = priced.embed()
    assert stopped.code == 5
    spent, budget = f"${server.answer(server.bodies[0])['usage']['total_tokens'] / 100 * 2:.4f}", f"${TOKENS / 50:g}"
    above = f"ERROR: {spent} is spent, and the next request would go above the budget of {budget}"
    assert above in stopped.text
    assert (
        f"{2 * BATCH} texts are paid and kept ({spent} was spent), {len(TITLES) - 2 * BATCH} are left" in stopped.text
    )
    assert (server.requests, buyer.kept()) == (2, 2 * BATCH)
    assert priced.embed(NEWSFUSE_BUDGET_USD="100").code == 0
    assert buyer.artifact() == unbroken
    assert (server.requests, server.twice) == (BATCHES, 0)
    measured(
        21,
        "a provider that bills three times the tokens estimated, a budget of twice; raised, run again",
        code="5, 0",
        requests=f"2 / {BATCHES - 2}",
        twice=0,
    )


def test_a_budget_of_nothing_allows_what_costs_nothing(owner: Buyer, server: OpenAIServer, measured: Measured) -> None:
    owner.without_outs()
    assert owner.embed(NEWSFUSE_BUDGET_USD="0").code == 0
    assert server.requests == 0
    measured(21, "a budget of 0, nothing missing", code=0, requests=0, twice=0)
