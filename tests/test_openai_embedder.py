"""The real openai client against a real server on this machine."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_server import MODES, OpenAIServer, vectors

from newsfuse.errors import AuthenticationError, DataError, NewsfuseError, ParamsError, ProviderError, QuotaError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

PLUGIN = Path(__file__).parents[1] / "plugins" / "embedders" / "openai.py"
KEY = "sk-CANARY-0123456789abcdef"
DIMENSIONS = 8
TEXTS = ["Cat wins race", "Straße gesperrt", "雨 in Oslo"]
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def loaded() -> ModuleType:
    """Load the plugin as newsfuse does: by path."""
    spec = importlib.util.spec_from_file_location("plugins.embedders.openai", PLUGIN)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(PLUGIN)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


plugin = loaded()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a key and waits that do not show; forget the settings of whoever runs the tests."""
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", *PROXIES, *map(str.lower, PROXIES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(plugin, "BACKOFF_S", 0.001)


def embedded(
    server: OpenAIServer,
    texts: Sequence[str] = TEXTS,
    model: str | None = None,
) -> np.ndarray:
    """Embed texts with the embedder that the hook offers."""
    (embedder,) = plugin.newsfuse_embedders()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", server.url)
        vectors_: np.ndarray = embedder.build([], model, DIMENSIONS, embedder.params())(texts)
    return vectors_


def refused(server: OpenAIServer, error: type[NewsfuseError], texts: Sequence[str] = TEXTS) -> str:
    """Return the message of the error that embedding ends in, having searched its traceback for the key."""
    with pytest.raises(error) as caught:
        embedded(server, texts)
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY not in shown
    assert KEY[:9] not in shown
    assert KEY[-4:] not in shown
    return str(caught.value)


def outcome(server: OpenAIServer) -> tuple[int, str]:
    """Return the exit code of embedding and the traceback, if any."""
    try:
        embedded(server)
    except NewsfuseError as error:
        return error.exit_code, "".join(traceback.format_exception(error))
    return 0, ""


# --- what is offered


def test_the_hook_offers_one_paid_embedder_with_a_default_model() -> None:
    (embedder,) = plugin.newsfuse_embedders()
    assert (embedder.name, embedder.default_model, embedder.paid) == ("openai", "text-embedding-3-small", True)


def test_loading_the_plugin_does_not_import_the_sdk() -> None:
    code = f"""
import sys, importlib.util
spec = importlib.util.spec_from_file_location("plugins.embedders.openai", {str(PLUGIN)!r})
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
sys.exit("openai" in sys.modules)
"""
    root = PLUGIN.parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0  # noqa: S603 - our code


# --- vectors


def test_vectors_come_back_as_float32_in_the_order_of_the_texts() -> None:
    with OpenAIServer() as server:
        got = embedded(server)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, vectors(TEXTS, DIMENSIONS))


def test_one_request_asks_for_base64_the_model_and_the_dimensions() -> None:
    with OpenAIServer() as server:
        embedded(server)
    assert server.bodies == [
        {"input": TEXTS, "model": "text-embedding-3-small", "dimensions": DIMENSIONS, "encoding_format": "base64"}
    ]


def test_a_model_of_one_size_is_not_told_its_dimensions() -> None:
    with OpenAIServer() as server, pytest.raises(ProviderError, match="1536 numbers, asked were 8"):
        embedded(server, model="text-embedding-ada-002")
    assert "dimensions" not in server.bodies[0]


def test_a_server_that_ignores_base64_gives_the_same_vectors() -> None:
    with OpenAIServer(base64_known=False) as server:
        np.testing.assert_array_equal(embedded(server), vectors(TEXTS, DIMENSIONS))


def test_a_reversed_answer_is_put_right() -> None:
    with OpenAIServer("reversed") as server:
        np.testing.assert_array_equal(embedded(server), vectors(TEXTS, DIMENSIONS))
    assert server.requests == 1


def test_many_texts_are_sent_in_several_requests_and_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin.batches, "__defaults__", (3, 300_000))
    texts = [f"title {i}" for i in range(10)]
    with OpenAIServer("reversed") as server:
        np.testing.assert_array_equal(embedded(server, texts), vectors(texts, DIMENSIONS))
    assert [len(body["input"]) for body in server.bodies] == [3, 3, 3, 1]
    assert server.texts == texts


# --- before any request


def test_no_texts_need_no_key_and_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with OpenAIServer() as server:
        assert embedded(server, []).shape == (0, DIMENSIONS)
    assert server.requests == 0


@pytest.mark.parametrize("key", ["", "  \n"])
def test_without_a_key_nothing_is_sent_and_both_ways_out_are_named(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with OpenAIServer() as server:
        message = refused(server, AuthenticationError)
    assert server.requests == 0
    assert "3 texts" in message
    assert "Export a key" in message
    assert "embed.provider=lsa" in message


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
def test_an_address_that_would_show_the_key_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(ParamsError, match="OPENAI_BASE_URL") as caught:
        plugin.build([], None, DIMENSIONS, plugin.Options())(TEXTS)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url", ["https://example.com/v1", "http://localhost:1/v1", "http://127.0.0.2/v1", "http://[::1]:8/v1"]
)
def test_https_and_this_machine_are_allowed(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    assert plugin.chosen_server(1).url == url


def test_without_a_base_url_the_official_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    assert plugin.chosen_server(1).host == "api.openai.com"


def test_the_key_is_not_in_the_representation_of_the_server() -> None:
    assert KEY not in repr(plugin.chosen_server(1))


def test_a_server_on_this_machine_is_reached_past_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer("unauthorized") as proxy, OpenAIServer() as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.host}")
        embedded(server)
    assert (proxy.requests, server.requests) == (0, 1)


@pytest.mark.parametrize("blank", ["", " ", "\t\n", "\u3000"])
def test_a_blank_text_is_named_and_nothing_is_sent(blank: str) -> None:
    with OpenAIServer() as server:
        message = refused(server, DataError, ["fine", blank, "fine too"])
    assert "text 2 of 3 is blank" in message
    assert server.requests == 0


def test_half_a_character_is_named_and_nothing_is_sent() -> None:
    with OpenAIServer() as server:
        message = refused(server, DataError, ["fine", "half \ud83d"])
    assert "text 2 of 2" in message
    assert server.requests == 0


def test_a_text_over_the_limit_is_cut_at_a_whole_character_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with OpenAIServer() as server, caplog.at_level(logging.WARNING):
        embedded(server, ["fine", "雨" * 3000])
    assert server.texts[1] == "雨" * (8191 // 3)
    assert "1 of 2 texts are longer than 8191 bytes" in caplog.text


# --- failures that may heal


@pytest.mark.parametrize("bad", ["rate_limited", "server_error", "reset"])
def test_what_heals_by_itself_is_waited_for(bad: str) -> None:
    with OpenAIServer(bad, bad, "ok") as server:
        np.testing.assert_array_equal(embedded(server), vectors(TEXTS, DIMENSIONS))
    assert (server.requests, server.billed) == (3, 3)


@pytest.mark.parametrize("bad", ["rate_limited", "server_error", "reset", "truncated"])
def test_patience_ends_after_six_requests(bad: str) -> None:
    with OpenAIServer(bad) as server:
        message = refused(server, ProviderError)
    assert server.requests == 6
    assert server.host in message
    assert "after 6 requests" in message


def test_a_server_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "TIMEOUT_S", 0.05)
    with OpenAIServer("slow", delay_s=0.2) as server:
        message = refused(server, ProviderError)
    assert server.requests == 6
    assert "timed out" in message


def test_a_server_that_is_not_there_is_named() -> None:
    with OpenAIServer() as server:
        pass
    message = refused(server, ProviderError)
    assert server.host in message
    assert "Connection refused" in message


def pauses(monkeypatch: pytest.MonkeyPatch, server: OpenAIServer) -> list[float]:
    """Embed, and return the waits in seconds instead of waiting."""
    waited: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waited.append)
    embedded(server)
    return waited


@pytest.mark.parametrize(("hint_ms", "wait_s"), [("7000", 7.0), ("3600000", 60.0)])
def test_the_wait_is_what_the_provider_asked_for_up_to_a_minute(
    monkeypatch: pytest.MonkeyPatch, hint_ms: str, wait_s: float
) -> None:
    with OpenAIServer("rate_limited_then_ok", retry_after_ms=hint_ms) as server:
        assert pauses(monkeypatch, server) == [wait_s, wait_s]


@pytest.mark.parametrize("hint_ms", ["0", "-1", "nan", "inf", "soon"])
def test_without_a_usable_hint_the_waits_grow(monkeypatch: pytest.MonkeyPatch, hint_ms: str) -> None:
    monkeypatch.setattr(plugin, "BACKOFF_S", 1.0)
    with OpenAIServer("rate_limited_then_ok", retry_after_ms=hint_ms) as server:
        first, second = pauses(monkeypatch, server)
    assert 1 <= first <= 2 <= second <= 3


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
def test_a_useless_answer_is_asked_for_once_more_and_then_named(bad: str, words: str) -> None:
    with OpenAIServer(bad) as server:
        message = refused(server, ProviderError)
    assert server.requests == 2
    assert words in message
    assert server.host in message


@pytest.mark.parametrize("bad", ["short", "html", "nan"])
def test_one_useless_answer_does_no_harm(bad: str) -> None:
    with OpenAIServer("rate_limited", bad, "rate_limited", "ok") as server:
        np.testing.assert_array_equal(embedded(server), vectors(TEXTS, DIMENSIONS))
    assert server.requests == 4


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
    with pytest.raises(plugin.UselessAnswerError, match="localhost"):
        plugin.opened(body, server, plugin.Batch(["text"], "m", 1))


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
    assert plugin.opened(body, plugin.Server("http://localhost/v1", KEY), batch) == 1
    with pytest.raises(plugin.UselessAnswerError, match=r"api\.openai\.com answered with model ''"):
        plugin.opened(body, plugin.Server("https://api.openai.com/v1/", KEY), batch)


# --- refusals


@pytest.mark.parametrize("mode", ["insufficient_quota", "insufficient_quota_type"])
def test_a_used_up_quota_takes_exactly_one_request(mode: str) -> None:
    with OpenAIServer(mode) as server:
        message = refused(server, QuotaError)
    assert server.requests == 1
    assert "exceeded your current quota" in message
    assert "embed.provider=lsa" in message


@pytest.mark.parametrize("mode", ["unauthorized", "forbidden"])
def test_a_refused_key_takes_one_request_and_is_not_shown(mode: str) -> None:
    with OpenAIServer(mode) as server:
        message = refused(server, AuthenticationError)
    assert server.requests == 1
    assert "OPENAI_API_KEY" in message
    assert "(key)" in message


@pytest.mark.parametrize(
    ("mode", "error", "words"),
    [
        ("bad_request", DataError, "'$.input' is invalid."),
        ("bad_dimensions", ProviderError, "does not support specifying dimensions. Check embed.model"),
        ("not_found", ProviderError, "The model does not exist"),
    ],
)
def test_other_refusals_are_told_in_the_providers_words(mode: str, error: type[NewsfuseError], words: str) -> None:
    with OpenAIServer(mode) as server:
        message = refused(server, error)
    assert server.requests == 1
    assert server.host in message
    assert words.removesuffix(". Check embed.model") in message


def test_a_redirect_is_not_followed_and_no_text_leaves() -> None:
    with OpenAIServer() as other, OpenAIServer("redirect", location=f"{other.url}/embeddings") as server:
        message = refused(server, ProviderError)
    assert (server.requests, other.requests) == (1, 0)
    assert "redirect is not followed" in message


def test_a_gateways_page_is_told_without_its_control_characters() -> None:
    with OpenAIServer("server_error") as server:
        message = refused(server, ProviderError)
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
    def foreign(*_: object) -> Any:  # noqa: ANN401 - it never returns
        msg = f"no embedding data received by {KEY}"
        raise ValueError(msg)

    monkeypatch.setattr(plugin, "requested", foreign)
    with OpenAIServer() as server:
        message = refused(server, ProviderError)
    assert server.host in message
    assert "ValueError" in message


@pytest.mark.parametrize("mode", sorted(MODES))
def test_every_failure_has_its_exit_code_and_never_shows_the_key(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    monkeypatch.setattr(plugin, "ATTEMPTS", 2)
    monkeypatch.setattr(plugin, "TIMEOUT_S", 0.05)
    codes = {"ok": 0, "reversed": 0, "bad_request": 3, "unauthorized": 4, "forbidden": 4}
    codes |= {"insufficient_quota": 5, "insufficient_quota_type": 5}
    with OpenAIServer(mode, location="http://localhost:1/", delay_s=0.2) as server, caplog.at_level(logging.DEBUG):
        code, shown = outcome(server)
    assert code == codes.get(mode, 6)
    assert KEY not in shown + caplog.text


# --- batches


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12)), st.integers(1, 5), st.integers(1, 30))
def test_batches_keep_the_order_and_every_limit(texts: list[str], inputs: int, tokens: int) -> None:
    cut = plugin.batches(texts, inputs, tokens)
    assert [text for start, stop in cut for text in texts[start:stop]] == texts
    for start, stop in cut:
        assert 1 <= stop - start <= inputs
        assert stop - start == 1 or sum(len(text.encode()) for text in texts[start:stop]) <= tokens


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=12, alphabet="aé雨")), st.integers(1, 5), st.integers(1, 30))
def test_batches_are_as_full_as_they_may_be(texts: list[str], inputs: int, tokens: int) -> None:
    for start, stop in plugin.batches(texts, inputs, tokens)[:-1]:
        size = sum(len(text.encode()) for text in texts[start : stop + 1])
        assert stop - start == inputs or size > tokens


def test_the_official_limits_are_the_default() -> None:
    assert plugin.batches(["a"] * 4097) == [(0, 2048), (2048, 4096), (4096, 4097)]
    assert plugin.batches(["a" * 8000] * 40) == [(0, 37), (37, 40)]
    assert plugin.batches([]) == []
