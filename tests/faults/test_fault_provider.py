"""A provider that refuses, stalls, answers nonsense or points elsewhere; and no provider at all."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from faults.buyer import BATCH, BATCHES, TITLES
from faults.canary import KEY
from openai_server import OpenAIServer

if TYPE_CHECKING:
    from faults.book import Measured
    from faults.buyer import Buyer

REST = len(TITLES) - BATCH
slow = pytest.mark.slow
FREE_WAY_OUT = "use a free embedder, which runs on this machine: embed.provider=lsa"


def state(kept: int, left: int) -> str:
    """The beginning and the end of how a message tells what is kept and what is left."""
    return rf"{kept} texts are paid and kept \(\$0\.\d{{4}} was spent\), {left} are left \(about \$0\.\d{{4}}\)"


# 5: rate limits


def test_a_storm_of_rate_limits_is_waited_out_as_long_as_the_server_asks(
    buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured
) -> None:
    server.modes, server.retry_after_ms = ["ok", *["rate_limited"] * 4, "ok"], "300"
    outcome = buyer.embed()
    assert outcome.code == 0, outcome.text
    assert buyer.artifact() == unbroken
    assert (server.requests, server.twice) == (BATCHES + 4, 0)
    waits_s = [later - earlier for earlier, later in pairwise(server.times)]
    assert min(waits_s[1:5]) >= 0.3
    assert max(waits_s[1:5]) < 1
    measured(
        5,
        "4 times 429 with `retry-after-ms: 300` after the first answer, then fine",
        code=0,
        requests=server.requests,
        twice=0,
    )


def test_a_storm_that_hits_eight_requests_at_once_costs_each_one_more_request(
    buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured
) -> None:
    server.modes, server.retry_after_ms = ["ok", *["rate_limited"] * 8, "ok"], "300"
    outcome = buyer.embed(NEWSFUSE_CONCURRENCY="8", NEWSFUSE_MAX_INPUTS="1")
    assert outcome.code == 0, outcome.text
    assert buyer.artifact() == unbroken
    assert (server.requests, server.twice) == (len(TITLES) + 8, 0)
    assert server.times[9] - server.times[8] >= 0.25  # whoever comes next has waited, too
    measured(5, "429 to eight requests in flight, then fine", code=0, requests=server.requests, twice=0)


def test_a_server_that_only_ever_asks_for_patience_is_given_up(
    buyer: Buyer, server: OpenAIServer, measured: Measured
) -> None:
    server.modes, server.retry_after_ms = ["ok", "rate_limited"], "50"
    outcome = buyer.embed()
    assert outcome.code == 6
    assert f"ERROR: {server.host} answered HTTP 429: Rate limit reached. Gave up after 6 requests. " in outcome.text
    assert re.search(state(BATCH, REST), outcome.text)
    assert (server.requests, server.billed, buyer.kept()) == (1 + 6, BATCH, BATCH)
    measured(5, "429 for ever after the first answer", code=6, requests=server.requests, twice=0)


# 6: the quota


@pytest.mark.parametrize("place", ["code", pytest.param("type", marks=slow)])
def test_a_used_up_quota_ends_the_run_with_one_request(
    buyer: Buyer, server: OpenAIServer, *, place: str, measured: Measured
) -> None:
    refusal = {"code": "insufficient_quota", "type": "insufficient_quota_type"}[place]
    server.modes = ["ok", refusal]
    outcome = buyer.embed()
    assert outcome.code == 5
    assert f"ERROR: {server.host} answered HTTP 429: You exceeded your current quota. Raise the quota" in outcome.text
    assert re.search(state(BATCH, REST), outcome.text)
    assert (server.requests, server.billed, buyer.kept()) == (2, BATCH, BATCH)
    server.mode = "ok"
    assert buyer.embed().code == 0
    assert (server.requests, server.twice) == (1 + BATCHES, 0)
    measured(
        6,
        f"429 `insufficient_quota`, in `{place}`, after the first answer; quota raised, run again",
        code="5, 0",
        requests=f"2 / {BATCHES - 1}",
        twice=0,
    )


def test_a_quota_that_is_used_up_from_the_start_is_found_out_once_and_not_eight_times(
    buyer: Buyer, server: OpenAIServer, measured: Measured
) -> None:
    server.mode = "insufficient_quota"
    assert buyer.embed(NEWSFUSE_CONCURRENCY="8", NEWSFUSE_MAX_INPUTS="1").code == 5
    assert (server.requests, server.billed) == (1, 0)
    measured(
        6, "429 `insufficient_quota` from the start, eight requests allowed in flight", code=5, requests=1, twice=0
    )


# 7: the key


def test_a_refused_key_ends_the_run_and_is_not_shown(
    buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured
) -> None:
    server.modes = ["ok", "unauthorized"]  # which repeats the key
    outcome = buyer.embed()
    assert outcome.code == 4
    assert f"ERROR: {server.host} answered HTTP 401: Incorrect API key provided: (key). " in outcome.text
    assert "Check OPENAI_API_KEY, or " + FREE_WAY_OUT in outcome.text
    assert re.search(state(BATCH, REST), outcome.text)
    assert server.headers[1]["authorization"] == f"Bearer {KEY}"
    assert (server.requests, server.billed, buyer.kept()) == (2, BATCH, BATCH)
    server.mode = "ok"
    assert buyer.embed().code == 0
    assert buyer.artifact() == unbroken
    assert (server.requests, server.twice) == (1 + BATCHES, 0)
    measured(
        7, "401 after the first answer; key mended, run again", code="4, 0", requests=f"2 / {BATCHES - 1}", twice=0
    )


# 8: no key

NO_CLIENT = 'raise SystemExit("the client of a provider was imported")\n'


def test_without_a_key_and_with_nothing_to_buy_no_client_is_even_imported(
    owner: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured
) -> None:
    owner.append("openai.py", NO_CLIENT)  # found before the installed one
    owner.without_outs()
    outcome = owner.embed(OPENAI_API_KEY="")
    assert (outcome.code, outcome.text) == (0, "")
    assert owner.artifact() == unbroken
    assert server.requests == 0
    measured(8, "nothing missing", code=0, requests=0, twice=0)


def test_without_a_key_it_says_what_is_missing_what_it_costs_and_the_two_ways_out(
    owner: Buyer, server: OpenAIServer, measured: Measured
) -> None:
    owner.add("dev", "N100", "An article that nobody has bought")
    outcome = owner.embed(OPENAI_API_KEY="")
    assert outcome.code == 4
    told = f"ERROR: OPENAI_API_KEY is not set. Export a key, or {FREE_WAY_OUT}. "
    assert told + "1 texts have no vectors yet: about 9 tokens, $0.0000. Nothing was sent\n" in outcome.text
    assert server.requests == 0
    owner.append("openai.py", NO_CLIENT)
    owner.edit("params.yaml", "provider: openai", "provider: lsa")
    assert owner.embed(OPENAI_API_KEY="").code == 0
    measured(8, "one text missing", code=4, requests=0, twice=0)


# 11: nothing that can be read


@pytest.mark.parametrize(
    ("mode", "done", "message", "requests"),
    [
        ("html", "200 with a page of HTML", "the answer is no list of embeddings", 2),
        pytest.param("half_json", "half of the JSON", "the answer is no list of embeddings", 2, marks=slow),
        pytest.param("truncated", "a connection closed in the middle of the body", "Connection error.", 2, marks=slow),
        pytest.param("slow", "no answer for longer than NEWSFUSE_TIMEOUT_S", "Request timed out.", 2, marks=slow),
        pytest.param("reset", "a reset connection", "Connection error.", 2, marks=slow),
        pytest.param(
            "server_error",
            "502 with a page of HTML",
            "answered HTTP 502: <html>[31m502 Bad Gateway</html>.",
            3,
            marks=slow,
        ),
    ],
)
def test_an_answer_that_cannot_be_read_is_asked_for_again_a_few_times(
    buyer: Buyer, server: OpenAIServer, *, mode: str, done: str, message: str, requests: int, measured: Measured
) -> None:
    server.modes = ["ok", mode]
    outcome = buyer.embed(NEWSFUSE_RETRIES="2", NEWSFUSE_TIMEOUT_S="0.5")
    assert outcome.code == 6
    assert re.search(rf"ERROR: {server.host}:? {re.escape(message)}", outcome.text), outcome.text
    assert f"Gave up after {requests} requests. {BATCH} texts are paid and kept" in outcome.text
    # what may have been billed for nothing is asked for once more only, and told
    assert (f"{2 * BATCH} more may have been billed for nothing" in outcome.text) == (requests == 2)
    assert (server.requests, buyer.kept()) == (1 + requests, BATCH)
    measured(
        11,
        f"after the first answer only {done} (NEWSFUSE_RETRIES=2)",
        code=6,
        requests=server.requests,
        twice=server.twice,
    )


# 12: elsewhere


def test_a_redirect_is_not_followed(buyer: Buyer, server: OpenAIServer, measured: Measured) -> None:
    with OpenAIServer() as other:
        server.modes, server.location = ["ok", "redirect"], f"{other.url}/embeddings"
        outcome = buyer.embed()
    assert outcome.code == 6
    assert f"ERROR: {server.host} answered HTTP 307: (nothing more). A redirect is not followed" in outcome.text
    assert (server.requests, buyer.kept(), other.requests) == (2, BATCH, 0)
    measured(
        12,
        f"307 to another server after the first answer; the other saw {other.requests} requests",
        code=6,
        requests=2,
        twice=0,
    )
