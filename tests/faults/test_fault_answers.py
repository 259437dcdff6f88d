"""Answers with wrong vectors, and a text for which there is none."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
from faults.buyer import BATCH, BATCHES, NEWS, TITLES

if TYPE_CHECKING:
    from faults.book import Measured
    from faults.buyer import Buyer
    from openai_server import OpenAIServer

slow = pytest.mark.slow

# 9: a poisonous text


def test_a_text_that_the_provider_refuses_is_found_and_named_and_all_others_are_kept(
    buyer: Buyer, server: OpenAIServer, measured: Measured
) -> None:
    line, (news_id, title) = 5, tuple(TITLES.items())[4]
    n = len(TITLES)
    server.mode, server.poison = "poisonous", title
    outcome = buyer.embed(NEWSFUSE_MAX_INPUTS=str(n))
    assert outcome.code == 3
    refusal = f"{server.host} answered HTTP 400: '$.input' is invalid."
    assert f"ERROR: the provider refuses 1 texts: {NEWS['train']}:{line} ({news_id}): {refusal}" in outcome.text
    assert f"Change or remove them. {n - 1} texts are paid and kept" in outcome.text
    first, most = server.requests, 2 * math.log2(n) + 1
    assert first <= most
    assert buyer.kept() == server.billed == n - 1

    buyer.edit(NEWS["train"], title, f"{title}, in other words")
    server.mode = "ok"
    assert buyer.embed().code == 0
    assert buyer.wrong() == []
    assert (server.requests, server.billed, server.twice) == (first + 1, n, 0)
    done = f"one of {n} texts makes every batch that it is in a 400; the text changed, run again"
    measured(9, done, code="3, 0", requests=f"{first} (≤ {most:.1f}) / 1", twice=0)


def test_run_again_it_asks_for_the_refused_text_alone(buyer: Buyer, server: OpenAIServer, measured: Measured) -> None:
    server.mode, server.poison = "poisonous", TITLES["N5"]
    assert buyer.embed().code == 3
    first = server.requests
    assert buyer.embed().code == 3
    assert (server.requests, server.billed, server.twice) == (first + 1, len(TITLES) - 1, 0)
    done = f"the same in batches of {BATCH}, run again without a change"
    measured(9, done, code="3, 3", requests=f"{first} / 1", twice=0)


# 10: wrong vectors


def test_vectors_in_another_order_are_put_right(
    buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured
) -> None:
    server.mode = "reversed"
    assert buyer.embed().code == 0
    assert buyer.artifact() == unbroken
    assert (server.requests, server.twice) == (BATCHES, 0)
    measured(10, "every answer in reverse order", code=0, requests=BATCHES, twice=0)


@pytest.mark.parametrize(
    ("mode", "done", "message"),
    [
        ("short", "one vector too few", ": provider returned 2 vectors for 3 texts"),
        pytest.param("duplicate_index", "one index twice", ": provider's 3 vectors are not numbered 0", marks=slow),
        pytest.param("nan", "a NaN", ": vector 2 is not finite", marks=slow),
        pytest.param("zero", "a vector of zeros", ": vector 2 is all zero", marks=slow),
        pytest.param("wrong_dimension", "twice the dimensions", ": vector 2 has 16 numbers, asked were 8", marks=slow),
        pytest.param("other_model", "another model's name", " answered with model 'text-embedding-3-tiny'", marks=slow),
    ],
)
def test_an_answer_with_wrong_vectors_is_kept_in_no_part_and_asked_for_once_more(
    buyer: Buyer, server: OpenAIServer, *, mode: str, done: str, message: str, measured: Measured
) -> None:
    server.modes = ["ok", mode]
    outcome = buyer.embed()
    assert outcome.code == 6
    assert f"ERROR: {server.host}{message}" in outcome.text
    assert f"Gave up after 2 requests. {BATCH} texts are paid and kept" in outcome.text
    assert (server.requests, buyer.kept()) == (3, BATCH)
    assert not (buyer.root / "metrics/embed.json").exists()
    measured(
        10,
        f"after the first answer only {done}",
        code=6,
        requests=server.requests,
        twice=f"{server.twice} (asked once more)",
    )


def test_one_wrong_answer_is_made_good_by_the_next(
    buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured
) -> None:
    server.modes = ["ok", "short", "ok"]
    assert buyer.embed().code == 0
    assert buyer.artifact() == unbroken
    assert (server.requests, server.twice) == (BATCHES + 1, BATCH)
    paid = json.loads(buyer.text("metrics/embed.json"))
    assert (paid["paid"], paid["requests"]) == (len(TITLES), BATCHES + 1)
    measured(
        10,
        "one vector too few once, then fine",
        code=0,
        requests=server.requests,
        twice=f"{server.twice} (asked once more)",
    )
