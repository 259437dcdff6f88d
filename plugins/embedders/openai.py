"""Embeddings bought from OpenAI, or from any server that speaks the same protocol.

API: https://platform.openai.com/docs/api-reference/embeddings/create. The key comes from OPENAI_API_KEY alone, the
address from OPENAI_BASE_URL. The SDK's own retries are off: the one policy is `patiently`.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import logging
import math
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import SplitResult, urlsplit

import numpy as np
import tenacity
from pydantic import BaseModel, StrictInt, ValidationError

from newsfuse import Embedder, Options, hookimpl
from newsfuse.errors import AuthenticationError, DataError, NewsfuseError, ParamsError, ProviderError, QuotaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import openai

log = logging.getLogger(__name__)

DEFAULT_MODEL = "text-embedding-3-small"
OFFICIAL_HOST = "api.openai.com"
OFFICIAL_URL = f"https://{OFFICIAL_HOST}/v1"
FREE_WAY_OUT = "use the free embedder, which runs on this machine: embed.provider=lsa"
FIXED_SIZE_MODELS = frozenset({"text-embedding-ada-002"})  # these answer 400 when told `dimensions`

# Limits of one request, from the API reference. Tokens are counted as UTF-8 bytes, which bound the tokens of a
# byte-level BPE from above: no vocabulary to download, and batches that are smaller than they need be, never larger.
MAX_INPUTS = 2048
MAX_TOKENS = 300_000
MAX_TEXT_TOKENS = 8191

TIMEOUT_S = 60.0  # for 2,048 texts at once; the SDK's own 600 s would look like a hang
CONNECT_TIMEOUT_S = 10.0
ATTEMPTS = 6  # waits of about 1 + 2 + 4 + 8 + 16 s outlast a restart on their side, not a bad day
USELESS_ANSWERS = 2  # each may have been billed, so they get one second chance, not five
BACKOFF_S = 1.0
LONGEST_WAIT_S = 60.0

MAY_HEAL = frozenset({408, 409, 429})  # with 5xx, what the SDK itself would ask again
ABOUT_THE_TEXTS = frozenset({400, 413, 422})
ABOUT_THE_SETTINGS = frozenset({"model", "dimensions", "encoding_format"})  # `param` of a 400 no text is to blame for
OUT_OF_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})


class UnwellError(ProviderError):
    """A failure that may heal by itself; `wait_s` is how long the provider asked us to wait, if it did."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        """Keep the message and the wait."""
        super().__init__(message)
        self.wait_s = wait_s


class UselessAnswerError(UnwellError):
    """A 200 that does not hold the vectors asked for."""


class Vector(BaseModel):
    """One vector as sent: base64 of little-endian float32, or a plain list where a server ignores `encoding_format`."""

    index: StrictInt
    embedding: str | list[float]


class Answer(BaseModel):
    """The part of the response body that we read."""

    data: list[Vector]
    model: str = ""


@dataclass(frozen=True)
class Server:
    """Where the texts go, and the key that is shown there and nowhere else."""

    url: str
    key: str = field(repr=False)

    @property
    def host(self) -> str:
        """Host and port, the name that every error carries."""
        return urlsplit(self.url).netloc

    def scrub(self, words: str) -> str:
        """One line of at most 300 printable characters that holds no key, not even the half that OpenAI repeats."""
        words = re.sub(r"\bsk-\S+|\S*\*{3,}\S*", "(key)", words.replace(self.key, "(key)"))
        return "".join(c for c in " ".join(words.split()) if c.isprintable())[:300]


@dataclass(frozen=True)
class Batch:
    """The texts of one request, and what is wanted of them."""

    texts: Sequence[str]
    model: str
    dimensions: int


def build(
    corpus: Sequence[str],
    model: str | None,
    dimensions: int,
    options: Options,
) -> Callable[[Sequence[str]], np.ndarray]:
    """Return `embed(texts) -> float32 (len(texts), dimensions)`, order kept; no key is needed until it has texts.

    `embed` raises AuthenticationError, DataError, ParamsError, ProviderError and QuotaError.
    A text longer than 8,191 UTF-8 bytes is cut there, with a warning.
    """
    name = model or DEFAULT_MODEL

    def embed(texts: Sequence[str]) -> np.ndarray:
        if len(texts) == 0:
            return np.empty((0, dimensions), np.float32)
        texts = sendable(texts)
        server = chosen_server(len(texts))
        with connected(server) as client:
            parts = [patiently(client, server, Batch(texts[a:b], name, dimensions)) for a, b in batches(texts)]
        return np.concatenate(parts)

    return embed


# --- texts


def sendable(texts: Sequence[str]) -> list[str]:
    """Return the texts as they may be sent: none blank (DataError), none longer than MAX_TEXT_TOKENS bytes."""
    for position, text in enumerate(texts, start=1):
        require_words(text, f"text {position} of {len(texts)}")
    cut = [shortened(text) for text in texts]
    long = [position for position, (text, kept) in enumerate(zip(texts, cut, strict=True), start=1) if text != kept]
    if long:
        told = "%d of %d texts are longer than %d bytes and were cut there, the first is text %d"
        log.warning(told, len(long), len(texts), MAX_TEXT_TOKENS, long[0])
    return cut


def require_words(text: str, where: str) -> None:
    """Refuse what the API answers with a 400 that names no text, or what cannot be put in a request at all."""
    if not text.strip():
        msg = f"{where} is blank; the provider embeds no blank text. Give it a title or an abstract, or leave it out"
        raise DataError(msg)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        msg = f"{where} holds {text[error.start]!r}, which is not a character and cannot be sent. Remove it"
        raise DataError(msg) from error


def shortened(text: str) -> str:
    """Return the longest start of the text that has at most MAX_TEXT_TOKENS bytes and ends on a whole character."""
    return text.encode()[:MAX_TEXT_TOKENS].decode(errors="ignore")


def batches(
    texts: Sequence[str],
    max_inputs: int = MAX_INPUTS,
    max_tokens: int = MAX_TOKENS,
) -> list[tuple[int, int]]:
    """Cut texts into (start, stop) slices, in order and without gaps, each as full as a request may be.

    A text of more than `max_tokens` bytes gets a slice of its own.
    """
    slices: list[tuple[int, int]] = []
    start = tokens = 0
    for position, size in enumerate(len(text.encode()) for text in texts):
        if position > start and (position - start == max_inputs or tokens + size > max_tokens):
            slices.append((start, position))
            start, tokens = position, 0
        tokens += size
    return [*slices, (start, len(texts))] if texts else []


# --- server


def chosen_server(missing: int) -> Server:
    """Read OPENAI_BASE_URL and OPENAI_API_KEY; ParamsError, AuthenticationError telling that `missing` texts wait."""
    url = os.environ.get("OPENAI_BASE_URL", "").strip() or OFFICIAL_URL
    require_private(url)
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key:
        msg = f"OPENAI_API_KEY is not set, and {missing} texts have no vectors yet. Export a key, or {FREE_WAY_OUT}"
        raise AuthenticationError(msg)
    if not (key.isascii() and key.isprintable()):
        # an HTTP header cannot carry it, and the error that says so would show it
        msg = "OPENAI_API_KEY holds characters that no key has (a line break, a letter that is not ASCII); copy it anew"
        raise AuthenticationError(msg)
    return Server(url, key)


def require_private(url: str) -> None:
    """Let pass https, and http to this machine: the request carries the key."""
    parts = parsed(url)
    if parts.username or parts.password:
        msg = "OPENAI_BASE_URL: holds a user name or a password; the only secret that is used is OPENAI_API_KEY"
        raise ParamsError(msg)
    if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and loopback(parts.hostname))):
        msg = (
            f"OPENAI_BASE_URL: '{parts.scheme}://{parts.hostname or ''}' would not keep the key private; "
            "expected https://..., or http://... on this machine (localhost, 127.0.0.1)"
        )
        raise ParamsError(msg)


def parsed(url: str) -> SplitResult:
    """Take the URL apart; ParamsError where it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises on a port that is no number
    except ValueError:
        msg = f"OPENAI_BASE_URL: not a URL; expected something like {OFFICIAL_URL}"
        raise ParamsError(msg) from None  # the cause quotes the URL, which may hold a secret
    return parts


def loopback(hostname: str | None) -> bool:
    """Tell whether a request to this host stays on this machine."""
    try:
        return hostname == "localhost" or ipaddress.ip_address(hostname or "").is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def connected(server: Server) -> Iterator[openai.OpenAI]:
    """Lend a client that neither retries nor follows a redirect."""
    import openai  # noqa: PLC0415 - a second of import, not wanted where plugins are only listed

    timeout = openai.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    # what goes to this machine must not go through a proxy: it may be http
    proxies = not loopback(urlsplit(server.url).hostname)
    transport = openai.DefaultHttpxClient(follow_redirects=False, timeout=timeout, trust_env=proxies)
    with openai.OpenAI(
        api_key=server.key,
        # said again, because OPENAI_CUSTOM_HEADERS would otherwise replace it
        default_headers={"Authorization": f"Bearer {server.key}"},
        base_url=server.url,
        max_retries=0,
        timeout=timeout,
        http_client=transport,
    ) as client:
        yield client


# --- request


def patiently(client: openai.OpenAI, server: Server, batch: Batch) -> np.ndarray:
    """Ask until it works, what failed cannot heal, or patience ends (ProviderError) -> float32 (n, dimensions)."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(UnwellError),
        stop=patience(),
        wait=pause_s,
        retry_error_callback=give_up,
    )
    vectors: np.ndarray = retrying(ask, client, server, batch)
    return vectors


def patience() -> Callable[[tenacity.RetryCallState], bool]:
    """Return what tells when to stop: after ATTEMPTS failures of any kind, or USELESS_ANSWERS useless answers."""
    useless = 0

    def stop(state: tenacity.RetryCallState) -> bool:
        nonlocal useless
        useless += isinstance(failure(state), UselessAnswerError)
        return useless >= USELESS_ANSWERS or state.attempt_number >= ATTEMPTS

    return stop


def pause_s(state: tenacity.RetryCallState) -> float:
    """As long as the provider asked, else exponential backoff with jitter; never above LONGEST_WAIT_S."""
    asked = failure(state).wait_s
    backoff = tenacity.wait_exponential_jitter(multiplier=BACKOFF_S, max=LONGEST_WAIT_S, jitter=BACKOFF_S)
    return min(asked, LONGEST_WAIT_S) if asked else backoff(state)


def give_up(state: tenacity.RetryCallState) -> NoReturn:
    """Raise the last failure with the number of requests it took."""
    last = failure(state)
    msg = f"{last}. Gave up after {state.attempt_number} requests; run again to continue"
    raise ProviderError(msg) from last


def failure(state: tenacity.RetryCallState) -> UnwellError:
    """Return the failure of the latest attempt; only failures that may heal come this far."""
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, UnwellError) else UnwellError(str(error))


def ask(client: openai.OpenAI, server: Server, batch: Batch) -> np.ndarray:
    """Send one request and check its answer -> float32 (n, dimensions); every failure is a NewsfuseError."""
    import openai  # noqa: PLC0415 - see `connected`

    try:
        body = requested(client, batch)
    except openai.APIStatusError as error:
        # the SDK's text repeats the provider's words, which may repeat the key: no traceback may show it
        raise refusal(error, server, batch) from None
    except openai.APIConnectionError as error:
        msg = f"{server.host}: {server.scrub(str(error))} {server.scrub(str(error.__cause__ or ''))}".strip()
        raise UnwellError(msg) from error
    except Exception as error:  # noqa: BLE001 - the SDK lets foreign errors through, no list of them is complete
        msg = f"{server.host}: the request failed: {type(error).__name__}: {server.scrub(str(error))}"
        raise ProviderError(msg) from None
    return opened(body, server, batch)


def requested(client: openai.OpenAI, batch: Batch) -> bytes:
    """Return the body of the answer as it came.

    The raw response, because the SDK's model accepts any JSON and raises a ValueError on empty data.
    base64, because a float list is three times as long and takes eight times as long to read.
    """
    import openai  # noqa: PLC0415 - see `connected`

    raw = client.embeddings.with_raw_response.create(
        input=list(batch.texts),
        model=batch.model,
        dimensions=openai.omit if batch.model in FIXED_SIZE_MODELS else batch.dimensions,
        encoding_format="base64",
    )
    return raw.http_response.content


# --- refusals


def refusal(error: openai.APIStatusError, server: Server, batch: Batch) -> NewsfuseError:
    """Return the error that an HTTP status stands for; an UnwellError where asking again may help."""
    status = error.status_code
    told = f"{server.host} answered HTTP {status}: {server.scrub(words(error)) or '(nothing more)'}"
    if {error.code, error.type} & OUT_OF_QUOTA:
        msg = f"{told}. {len(batch.texts)} texts of this batch have no vectors. Raise the quota, or {FREE_WAY_OUT}"
        return QuotaError(msg)
    if status in {401, 403}:
        return AuthenticationError(f"{told}. Check OPENAI_API_KEY, or {FREE_WAY_OUT}")
    if status in MAY_HEAL or status >= 500:  # noqa: PLR2004 - RFC 9110's server errors
        return UnwellError(told, wanted_wait_s(error.response.headers))
    if status in ABOUT_THE_TEXTS and error.param not in ABOUT_THE_SETTINGS:
        return DataError(f"{told} (a batch of {len(batch.texts)} texts)")
    if status < 400:  # noqa: PLR2004 - RFC 9110's redirections
        return ProviderError(f"{told}. A redirect is not followed: it would carry the texts elsewhere")
    return ProviderError(f"{told}. Check embed.model ('{batch.model}'), embed.dimensions and OPENAI_BASE_URL")


def words(error: openai.APIStatusError) -> str:
    """Return what the provider said: the message of a JSON body, else the body."""
    said = error.body.get("message") if isinstance(error.body, dict) else error.body
    return str(said or "")


def wanted_wait_s(headers: Mapping[str, str]) -> float | None:
    """Read `retry-after-ms` or `retry-after` in seconds; None where it is absent, a date, or (some hosts) 0 or -1."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with contextlib.suppress(ValueError):
            wait_s = float(headers.get(name, "")) * unit_s
            if 0 < wait_s < math.inf:
                return wait_s
    return None


# --- answers


def opened(body: bytes, server: Server, batch: Batch) -> np.ndarray:
    """Check the answer and put it in the order of the texts -> float32 (n, dimensions); UselessAnswerError."""
    answer = read_answer(body, server)
    if not same_model(answer.model, batch.model, official=server.host == OFFICIAL_HOST):
        msg = f"{server.host} answered with model '{server.scrub(answer.model)}', asked was '{batch.model}'"
        raise UselessAnswerError(msg)
    if len(answer.data) != len(batch.texts):
        msg = f"{server.host}: provider returned {len(answer.data)} vectors for {len(batch.texts)} texts"
        raise UselessAnswerError(msg)
    if sorted(vector.index for vector in answer.data) != list(range(len(batch.texts))):
        msg = f"{server.host}: provider's {len(batch.texts)} vectors are not numbered 0 to {len(batch.texts) - 1}"
        raise UselessAnswerError(msg)
    ordered = sorted(answer.data, key=lambda vector: vector.index)
    return np.stack([numbers(vector, server, batch.dimensions) for vector in ordered])


def read_answer(body: bytes, server: Server) -> Answer:
    """Parse the body; UselessAnswerError where it is HTML, cut short, or another JSON."""
    try:
        return Answer.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "body"
        msg = f"{server.host}: the answer is no list of embeddings ({where}: {server.scrub(first['msg'])})"
        raise UselessAnswerError(msg) from None


def same_model(echoed: str, asked: str, *, official: bool) -> bool:
    """Tell whether the model that answered is the one asked for.

    A dated or tagged name is the same model (`text-embedding-ada-002-v2` for `text-embedding-ada-002`), so are names
    that differ in case or in the folder before the last '/'. A server other than OpenAI's may also name none.
    """
    echo, name = (word.rsplit("/", 1)[-1].casefold() for word in (echoed, asked))
    return echo == name or echo.startswith((f"{name}-", f"{name}:", f"{name}@")) or (not echoed and not official)


def numbers(vector: Vector, server: Server, dimensions: int) -> np.ndarray:
    """Return one vector, float32 (dimensions,), that is finite and not all zero; else UselessAnswerError."""
    values = decoded(vector.embedding)
    where = f"{server.host}: vector {vector.index}"
    if values is None:
        msg = f"{where} is neither base64 of float32 numbers nor a list of numbers"
        raise UselessAnswerError(msg)
    if len(values) != dimensions:
        msg = f"{where} has {len(values)} numbers, asked were {dimensions} (embed.dimensions)"
        raise UselessAnswerError(msg)
    if not np.isfinite(values).all() or not values.any():
        msg = f"{where} is {'all zero' if np.isfinite(values).all() else 'not finite'}"
        raise UselessAnswerError(msg)
    return values


def decoded(embedding: str | list[float]) -> np.ndarray | None:
    """Return the numbers as float32, whatever this machine's byte order; None where base64 holds none."""
    if isinstance(embedding, list):
        with np.errstate(over="ignore"):  # what float32 cannot hold turns infinite, and is refused as such
            return np.array(embedding, np.float32)
    try:
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float32)
    except ValueError:
        return None


@hookimpl
def newsfuse_embedders() -> list[Embedder]:
    """Offer `openai`."""
    return [Embedder("openai", build, default_model=DEFAULT_MODEL, paid=True)]
