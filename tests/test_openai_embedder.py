"""The real openai client against a real server on this machine: one request, and what became of it.

What is bought through it, how often it is asked and what is kept: test_purchase.py, test_embed_stage.py.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from openai_server import MODES, OpenAIServer, vectors
from small import ROOT, plugins

from newsfuse import Allowance, Answer, Cost, Embedder, Mode, Service
from newsfuse.errors import (
    AuthenticationError,
    NewsfuseError,
    ParamsError,
    ProviderError,
    QuotaError,
    RefusedTextsError,
    TransientError,
    UselessAnswerError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from newsfuse.service import Connection

PLUGIN = plugins().load(Embedder, "openai")
plugin: Any = sys.modules["plugins.embedders.openai"]
KEY = "sk-CANARY-0123456789abcdef"
DIMENSIONS = 8
TEXTS = ["Cat wins race", "Straße gesperrt", "雨 in Oslo"]
TOKENS = 3 + 4 + 2
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
OFFICIAL = "https://api.openai.com/v1"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key; nothing of the settings of whoever runs the tests."""
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", *PROXIES, *map(str.lower, PROXIES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def built(url: str, model: str | None = None) -> Service:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", url)
        service = PLUGIN.build([], model, DIMENSIONS, PLUGIN.params())
    assert isinstance(service, Service)
    return service


@contextmanager
def connected(server: OpenAIServer, model: str | None = None) -> Iterator[Connection]:
    with built(server.url, model).connect() as connection:
        yield connection


def embedded(server: OpenAIServer, texts: Sequence[str] = TEXTS, model: str | None = None) -> Answer:
    with connected(server, model) as connection:
        return connection.embed(texts)


def refused(server: OpenAIServer, error: type[NewsfuseError], texts: Sequence[str] = TEXTS) -> str:
    """The message of the error that a request ends in; its traceback was searched for the key."""
    with pytest.raises(NewsfuseError) as caught:
        embedded(server, texts)
    assert type(caught.value) is error
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY not in shown
    assert KEY[:9] not in shown
    assert KEY[-4:] not in shown
    return str(caught.value)


def outcome(server: OpenAIServer) -> tuple[int, str]:
    """The exit code of a request and the traceback, if any."""
    try:
        embedded(server)
    except NewsfuseError as error:
        return error.exit_code, "".join(traceback.format_exception(error))
    return 0, ""


# --- what is offered


def test_the_hook_offers_one_embedder_that_costs_money() -> None:
    assert (PLUGIN.name, PLUGIN.default_model) == ("openai", "text-embedding-3-small")
    assert PLUGIN.cost is Cost.MONEY
    assert PLUGIN.modes == {Mode.DIRECT, Mode.BATCH}


def test_loading_the_plugin_does_not_import_the_sdk() -> None:
    code = """
import sys
from pathlib import Path
from newsfuse import Embedder
from newsfuse.registry import Registry
Registry(Path("plugins"), {}).load(Embedder, "openai")
sys.exit("openai" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_service_has_the_limits_of_the_api() -> None:
    service = built("")
    assert (service.max_inputs, service.max_tokens, service.max_text_bytes) == (2048, 300_000, 8191)
    assert service.batch_discount == 0.5


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("", ""),
        (OFFICIAL, ""),
        ("https://API.openai.com:443/v1/", ""),
        ("https://eu.api.openai.com/v1", "eu.api.openai.com"),
        ("https://api.openai.com.example.com/v1", "api.openai.com.example.com"),
        ("http://localhost:8080/v1", "localhost:8080"),
        ("http://127.0.0.1:11434", "127.0.0.1:11434"),
        ("http://[::1]:8/v1", "[::1]:8"),
    ],
)
def test_the_host_is_part_of_the_key_unless_it_is_openais_own(url: str, host: str) -> None:
    assert built(url).host == host


@pytest.mark.parametrize(
    ("url", "model", "usd"),
    [
        ("", None, 0.02),
        ("", "text-embedding-3-large", 0.13),
        ("", "text-embedding-ada-002", 0.10),
        ("", "text-embedding-4", None),
        ("https://example.com/v1", "bge-m3", None),
        ("http://localhost:8080/v1", "bge-m3", 0.0),
    ],
)
def test_a_price_is_known_or_nothing_on_this_machine_or_unknown(url: str, model: str | None, usd: float | None) -> None:
    assert plugin.price(model or plugin.DEFAULT_MODEL, url or plugin.OFFICIAL_URL) == usd


@pytest.mark.parametrize(
    ("model", "dimensions", "found"),
    [
        ("text-embedding-ada-002", 256, "makes vectors of 1536 numbers, found 256. Set it: -S embed.dimensions=1536"),
        (None, 1537, "makes vectors of at most 1536 numbers, found 1537. Set it: -S embed.dimensions=1536"),
        (
            "text-embedding-3-large",
            4096,
            "makes vectors of at most 3072 numbers, found 4096. Set it: ",
        ),
    ],
)
def test_a_length_that_a_model_does_not_make_is_refused_before_anything_is_paid(
    model: str | None, dimensions: int, found: str
) -> None:
    with pytest.raises(ParamsError) as caught:
        plugin.build((), model, dimensions, plugin.Options())
    assert found in str(caught.value)


def test_a_model_taken_to_cost_nothing_is_said_to_be(caplog: pytest.LogCaptureFixture) -> None:
    with OpenAIServer() as server:
        embedded(server, model="bge-m3")
        assert "NEWSFUSE_USD_PER_MILLION_TOKENS" in caplog.text
        caplog.clear()
        embedded(server)
        assert caplog.text == ""


# --- vectors


def test_vectors_come_back_as_float32_in_the_order_of_the_texts() -> None:
    with OpenAIServer() as server:
        answer = embedded(server)
    assert answer.vectors.dtype == np.float32
    np.testing.assert_array_equal(answer.vectors, vectors(TEXTS, DIMENSIONS))
    assert answer.tokens == TOKENS
    assert (server.requests, server.texts) == (1, TEXTS)


def test_one_request_asks_for_base64_the_model_and_the_dimensions() -> None:
    with OpenAIServer() as server:
        embedded(server)
    assert server.bodies == [
        {"input": TEXTS, "model": "text-embedding-3-small", "dimensions": DIMENSIONS, "encoding_format": "base64"}
    ]


def test_a_reversed_answer_is_put_right() -> None:
    with OpenAIServer("reversed") as server:
        np.testing.assert_array_equal(embedded(server).vectors, vectors(TEXTS, DIMENSIONS))
    assert server.requests == 1


def test_a_server_that_does_not_tell_what_it_bills_is_believed() -> None:
    with OpenAIServer("no_usage") as server:
        answer = embedded(server)
    assert answer.tokens is None
    np.testing.assert_array_equal(answer.vectors, vectors(TEXTS, DIMENSIONS))


def test_several_threads_may_ask_at_once() -> None:
    together = threading.Barrier(4)
    found: dict[int, np.ndarray] = {}

    def ask(number: int, connection: Connection) -> None:
        together.wait(10)
        found[number] = connection.embed([f"text {number}"]).vectors

    with OpenAIServer() as server, connected(server) as connection:
        workers = [threading.Thread(target=ask, args=(number, connection)) for number in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(10)
    for number in range(4):
        np.testing.assert_array_equal(found[number], vectors([f"text {number}"], DIMENSIONS))


def test_to_connect_is_no_request_and_what_was_connected_is_closed() -> None:
    with OpenAIServer() as server, connected(server) as connection:
        pass
    assert server.requests == 0
    assert plugin.Client in type(connection).__mro__
    assert connection.sdk.is_closed()  # type: ignore[attr-defined]


# --- servers that know less


def test_a_server_that_ignores_base64_gives_the_same_vectors() -> None:
    with OpenAIServer(base64_known=False) as server:
        np.testing.assert_array_equal(embedded(server).vectors, vectors(TEXTS, DIMENSIONS))


@pytest.mark.parametrize("unknown", [{"encoding_format"}, {"dimensions"}, {"dimensions", "encoding_format"}])
def test_a_field_that_a_server_refuses_is_left_out_from_then_on(unknown: set[str]) -> None:
    with OpenAIServer("picky") as server, connected(server) as connection:
        server.unknown = frozenset(unknown)
        if "dimensions" in unknown:
            with pytest.raises(UselessAnswerError, match="1536 numbers, asked were 8"):
                connection.embed(TEXTS)
        else:
            for _ in range(2):
                np.testing.assert_array_equal(connection.embed(TEXTS).vectors, vectors(TEXTS, DIMENSIONS))
    asked = [body.keys() - {"input", "model"} for body in server.bodies]
    both = {"dimensions", "encoding_format"}
    first = sorted(unknown)  # the server names one at a time
    assert asked[: len(unknown) + 1] == [both - {*first[:number]} for number in range(len(unknown) + 1)]
    assert server.requests == len(unknown) + (1 if "dimensions" in unknown else 2)


def test_dimensions_that_are_ignored_are_noticed_and_the_way_out_is_named() -> None:
    with OpenAIServer("wrong_dimension") as server:
        message = refused(server, UselessAnswerError)
    assert message == (
        f"{server.host}: vector 2 has 16 numbers, asked were 8. "
        "If the model has one size only, say so: embed.dimensions=16"
    )


def test_a_model_of_one_size_is_not_told_its_dimensions() -> None:
    refusal = pytest.raises(UselessAnswerError, match="1536 numbers, asked were 8")
    with OpenAIServer() as server:
        wanted = plugin.connected(plugin.Server(server.url, KEY), "text-embedding-ada-002", DIMENSIONS)
        with wanted as client, refusal:
            client.embed(TEXTS)
    assert "dimensions" not in server.bodies[0]


# --- what the server will still take


LIMITS = {"x-ratelimit-limit-requests": "500", "x-ratelimit-limit-tokens": "1000000"}
LEFT = {"x-ratelimit-remaining-requests": "7", "x-ratelimit-remaining-tokens": "950000"}
RESET = {"x-ratelimit-reset-requests": "120ms", "x-ratelimit-reset-tokens": "6m0s"}


def test_what_the_server_will_still_take_is_told() -> None:
    with OpenAIServer() as server:
        server.limits = {**LIMITS, **LEFT, **RESET}
        answer = embedded(server)
    assert (answer.requests, answer.budget) == (Allowance(7, 0.12), Allowance(950_000, 360.0))


def test_a_server_that_says_nothing_of_limits_has_none() -> None:
    with OpenAIServer() as server:
        answer = embedded(server)
    assert (answer.requests, answer.budget) == (None, None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Allowance(7, 0.12)),
        ({"x-ratelimit-limit-requests": "0"}, None),
        ({"x-ratelimit-limit-requests": "-1"}, None),
        ({"x-ratelimit-limit-requests": ""}, None),
        ({"x-ratelimit-limit-requests": "many"}, None),
        ({"x-ratelimit-remaining-requests": ""}, None),
        ({"x-ratelimit-remaining-requests": "0"}, Allowance(0, 0.12)),
        ({"x-ratelimit-reset-requests": "1h2m3.5s"}, Allowance(7, 3723.5)),
        ({"x-ratelimit-reset-requests": "1m17ms"}, Allowance(7, 60.017)),
        ({"x-ratelimit-reset-requests": ""}, Allowance(7, 0.0)),
        ({"x-ratelimit-reset-requests": "soon"}, Allowance(7, 0.0)),
    ],
)
def test_headers_that_say_nothing_count_as_absent(changes: dict[str, str], expected: Allowance | None) -> None:
    assert plugin.allowance({**LIMITS, **LEFT, **RESET, **changes}, "requests") == expected


# --- before any request


@pytest.mark.parametrize("key", ["", "  \n"])
def test_without_a_key_a_service_is_described_and_not_opened(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with OpenAIServer() as server:
        assert built(server.url).host == server.host
        message = refused(server, AuthenticationError)
    assert server.requests == 0
    assert message.startswith("OPENAI_API_KEY is not set. Export a key, or ")
    assert "embed.provider=" in message


@pytest.mark.parametrize("break_", ["\nX", "é"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch, break_: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY + break_ + "tail")
    with OpenAIServer() as server:
        refused(server, AuthenticationError)
    assert server.requests == 0


def test_a_line_break_after_the_key_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    with OpenAIServer() as server:
        embedded(server)
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_no_other_variable_of_the_sdk_replaces_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer another")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "another")
    with OpenAIServer() as server:
        embedded(server)
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "url",
    [
        "http://api.openai.com/v1",
        "http://localhost.example.com/v1",
        "http://10.0.0.1/v1",
        "ftp://localhost/v1",
        "localhost:8080",
        "https://",
        "https://me:hunter2@example.com/v1",
        "http://[::1/v1",
        "https://example.com:hunter2/v1",
        "https://example.com:hunter2",
    ],
)
def test_an_address_that_would_show_the_key_is_refused(url: str) -> None:
    with pytest.raises(ParamsError, match="OPENAI_BASE_URL") as caught:
        built(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url", ["https://example.com/v1", "http://localhost:1/v1", "http://127.0.0.2/v1", "http://[::1]:8/v1"]
)
def test_https_and_this_machine_are_allowed(url: str) -> None:
    built(url)


def test_the_key_is_not_in_the_representation_of_the_server() -> None:
    assert KEY not in repr(plugin.Server(OFFICIAL, KEY))


def test_a_server_on_this_machine_is_reached_past_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer("unauthorized") as proxy, OpenAIServer() as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.host}")
        embedded(server)
    assert (proxy.requests, server.requests) == (0, 1)


# --- failures that may heal


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("rate_limited", "answered HTTP 429: Rate limit reached"),
        ("server_error", "answered HTTP 502: "),
    ],
)
def test_what_may_heal_is_told_as_such_and_not_asked_again_here(mode: str, words: str) -> None:
    with OpenAIServer(mode) as server:
        message = refused(server, TransientError)
    assert server.requests == 1
    assert message.startswith(server.host)
    assert words in message


def test_a_server_that_hangs_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWSFUSE_TIMEOUT_S", "0.05")
    with OpenAIServer("slow", delay_s=0.3) as server:
        message = refused(server, UselessAnswerError)
    assert server.requests == 1
    assert "timed out" in message


@pytest.mark.parametrize("mode", ["reset", "truncated"])
def test_a_request_that_was_sent_and_not_answered_counts_as_one_that_may_be_billed(mode: str) -> None:
    with OpenAIServer(mode) as server:
        message = refused(server, UselessAnswerError)
    assert server.requests == 1
    assert message.startswith(f"{server.host}: Connection error. ")


def test_a_server_that_is_not_there_is_named() -> None:
    with OpenAIServer() as server:
        pass
    message = refused(server, TransientError)
    assert message.startswith(server.host)
    assert "Connection refused" in message


@pytest.mark.parametrize(
    ("hint_ms", "wait_s"),
    [("7000", 7.0), ("3600000", 3600.0), ("0", None), ("-1", None), ("nan", None), ("inf", None), ("soon", None)],
)
def test_how_long_the_provider_asks_to_wait_is_told(hint_ms: str, wait_s: float | None) -> None:
    with OpenAIServer("rate_limited", retry_after_ms=hint_ms) as server, pytest.raises(TransientError) as caught:
        embedded(server)
    assert caught.value.wait_s == wait_s


def test_a_hint_in_seconds_is_read_and_a_date_is_not() -> None:
    assert plugin.wanted_wait_s({"retry-after": "2.5"}) == 2.5
    assert plugin.wanted_wait_s({"retry-after-ms": "-1", "retry-after": "3"}) == 3
    assert plugin.wanted_wait_s({"retry-after": "Fri, 31 Dec 2027 23:59:59 GMT"}) is None
    assert plugin.wanted_wait_s({}) is None


# --- answers that do not hold the vectors


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("short", "provider returned 2 vectors for 3 texts"),
        ("empty", "provider returned 0 vectors for 3 texts"),
        ("duplicate_index", "not numbered 0 to 2"),
        ("nan", "vector 2 is not finite"),
        ("infinite", "vector 2 is not finite"),
        ("zero", "vector 2 is all zero"),
        ("wrong_dimension", "vector 2 has 16 numbers, asked were 8"),
        ("not_base64", "vector 2 is neither base64"),
        ("other_model", "'text-embedding-3-tiny', asked was 'text-embedding-3-small'"),
        ("html", "no list of embeddings"),
        ("half_json", "no list of embeddings"),
    ],
)
def test_an_answer_without_the_vectors_is_useless(bad: str, words: str) -> None:
    with OpenAIServer(bad) as server:
        message = refused(server, UselessAnswerError)
    assert server.requests == 1
    assert words in message
    assert message.startswith(server.host)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"data": null}',
        b'{"data": [{"embedding": [1.0]}]}',
        b'{"data": [{"index": true, "embedding": [1.0]}]}',
        b'{"data": [{"index": 0, "embedding": [1.0, null]}]}',
        b'{"data": [{"index": 0, "embedding": [1e400]}], "model": "m"}',
        b'{"data": [{"index": 0, "embedding": [1e300]}], "model": "m"}',
        b'{"data": [{"index": 0, "embedding": [NaN]}], "model": "m"}',
        b'{"data": [{"index": 0, "embedding": "AAA="}], "model": "m"}',
        b'{"data": [{"index": 0, "embedding": "\xff"}], "model": "m"}',
        b"[" * 100_000,
    ],
)
def test_no_body_is_hostile_enough_for_a_traceback(body: bytes) -> None:
    server = plugin.Server("http://localhost/v1", KEY)
    with pytest.raises(UselessAnswerError, match="localhost"):
        plugin.opened(body, {}, server, plugin.Batch(["text"], "m", 1))


@pytest.mark.parametrize(
    ("echoed", "asked", "official", "same"),
    [
        ("text-embedding-3-small", "text-embedding-3-small", True, True),
        ("text-embedding-ada-002-v2", "text-embedding-ada-002", True, True),
        ("text-embedding-3-large", "text-embedding-3-small", True, False),
        ("text-embedding-3-smaller", "text-embedding-3-small", True, False),
        ("BAAI/bge-m3", "bge-m3", False, True),
        ("nomic-embed-text:latest", "nomic-embed-text", False, True),
        ("", "bge-m3", False, True),
        ("", "text-embedding-3-small", True, False),
        ("bge-m3", "nomic-embed-text", False, False),
    ],
)
def test_the_model_that_answers_must_be_the_model_asked_for(
    echoed: str,
    asked: str,
    official: bool,  # noqa: FBT001 - a table of cases
    same: bool,  # noqa: FBT001 - a table of cases
) -> None:
    assert plugin.same_model(echoed, asked, official=official) is same


def test_only_the_official_host_must_name_its_model() -> None:
    body, batch = b'{"data": [{"index": 0, "embedding": [1.0]}]}', plugin.Batch(["text"], "m", 1)
    assert plugin.opened(body, {}, plugin.Server("http://localhost/v1", KEY), batch).vectors == 1
    with pytest.raises(UselessAnswerError, match=r"api\.openai\.com answered with model ''"):
        plugin.opened(body, {}, plugin.Server(f"{OFFICIAL}/", KEY), batch)


# --- refusals


@pytest.mark.parametrize("mode", ["insufficient_quota", "insufficient_quota_type"])
def test_a_used_up_quota_is_told_with_the_ways_out(mode: str) -> None:
    with OpenAIServer(mode) as server:
        message = refused(server, QuotaError)
    assert server.requests == 1
    assert "exceeded your current quota. Raise the quota, or " in message
    assert "embed.provider=" in message


@pytest.mark.parametrize("mode", ["unauthorized", "forbidden"])
def test_a_refused_key_is_not_shown(mode: str) -> None:
    with OpenAIServer(mode) as server:
        message = refused(server, AuthenticationError)
    assert server.requests == 1
    assert "Check OPENAI_API_KEY" in message
    assert "(key)" in message


@pytest.mark.parametrize(
    ("mode", "error", "words"),
    [
        ("bad_request", RefusedTextsError, "answered HTTP 400: '$.input' is invalid"),
        ("not_found", ProviderError, "answered HTTP 404: The model does not exist. Check embed.model"),
    ],
)
def test_other_refusals_are_told_in_the_providers_words(mode: str, error: type[NewsfuseError], words: str) -> None:
    with OpenAIServer(mode) as server:
        message = refused(server, error)
    assert server.requests == 1
    assert message.startswith(f"{server.host} {words}")


def test_a_setting_that_is_refused_whatever_is_left_out_is_not_blamed_on_the_texts() -> None:
    with OpenAIServer("bad_dimensions") as server:
        message = refused(server, ProviderError)
    assert [body.keys() - {"input", "model", "encoding_format"} for body in server.bodies] == [{"dimensions"}, set()]
    assert "does not support specifying dimensions. Check embed.model" in message


def test_a_redirect_is_not_followed_and_no_text_leaves() -> None:
    with OpenAIServer() as other, OpenAIServer("redirect", location=f"{other.url}/embeddings") as server:
        message = refused(server, ProviderError)
    assert (server.requests, other.requests) == (1, 0)
    assert "redirect is not followed" in message


def test_a_gateways_page_is_told_without_its_control_characters() -> None:
    with OpenAIServer("server_error") as server:
        message = refused(server, TransientError)
    assert "502 Bad Gateway" in message
    assert message.isprintable()


@pytest.mark.parametrize(
    "words", ["Incorrect key CANARY-word.", "Incorrect key CANA****word.", "Incorrect key sk-CANARY-of-a-colleague."]
)
def test_no_spelling_of_a_key_survives_in_the_providers_words(words: str) -> None:
    shown = plugin.Server("http://localhost/v1", "CANARY-word").scrub(words)
    assert shown.startswith("Incorrect key (key)")
    assert "CANA" not in shown


def test_words_that_only_look_like_a_key_survive() -> None:
    assert plugin.Server("http://localhost/v1", KEY).scrub("a task-force\n for 5 ** 2") == "a task-force for 5 ** 2"


def test_a_foreign_error_of_the_sdk_names_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def foreign(*_: object) -> None:
        msg = f"no embedding data received by {KEY}"
        raise ValueError(msg)

    monkeypatch.setattr(plugin.Client, "requested", foreign)
    with OpenAIServer() as server:
        message = refused(server, ProviderError)
    assert message == f"{server.host}: the request failed: ValueError: no embedding data received by (key)"


@pytest.mark.parametrize("mode", sorted(MODES), ids="answer {}".format)  # by itself, `slow` would be a mark
def test_every_outcome_has_its_exit_code_and_never_shows_the_key(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    monkeypatch.setenv("NEWSFUSE_TIMEOUT_S", "0.05")
    codes = {"ok": 0, "reversed": 0, "picky": 0, "no_usage": 0, "bad_request": 3, "poisonous": 3}
    codes |= {"unauthorized": 4, "forbidden": 4, "insufficient_quota": 5, "insufficient_quota_type": 5}
    with OpenAIServer(mode, location="http://localhost:1/", delay_s=0.2) as server, caplog.at_level(logging.DEBUG):
        code, shown = outcome(server)
    assert code == codes.get(mode, 6)
    assert KEY not in shown + caplog.text
