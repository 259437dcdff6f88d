"""Embeddings bought from OpenAI, or from any server that speaks the same protocol.

API: https://platform.openai.com/docs/api-reference/embeddings/create, and .../batch for `embed.mode: batch`. The key
comes from OPENAI_API_KEY alone, the address from OPENAI_BASE_URL. This file sends one request at a time and says what
went wrong with it; when to ask again, how many at once and what is kept is newsfuse.paid's business, and the SDK's own
retries are off.

From the top: what the API's JSON looks like, what `build` makes of the settings, where requests go, how they are sent
(`Client`), what a refusal stands for, and how answers are checked.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import json
import logging
import math
import os
import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import SplitResult, urlsplit

import numpy as np
from pydantic import BaseModel, StrictInt, ValidationError

from newsfuse import Allowance, Answer, Cost, Embedder, Mode, Options, Service, hookimpl
from newsfuse.environment import Environment
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
from newsfuse.service import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import openai

log = logging.getLogger(__name__)

DEFAULT_MODEL = "text-embedding-3-small"
OFFICIAL_HOST = "api.openai.com"
OFFICIAL_URL = f"https://{OFFICIAL_HOST}/v1"
FREE_WAY_OUT = "use a free embedder, which runs on this machine: embed.provider=lsa"
FIXED_SIZE_MODELS = frozenset({"text-embedding-ada-002"})  # these answer 400 when told `dimensions`
SIZES = {"text-embedding-ada-002": 1536, "text-embedding-3-small": 1536, "text-embedding-3-large": 3072}  # the largest

PRICE_SOURCE = "https://platform.openai.com/docs/pricing, as of May 2026"
USD_PER_MILLION_TOKENS = {  # the Batch API costs half
    "text-embedding-3-small": 0.02,
    "text-embedding-3-large": 0.13,
    "text-embedding-ada-002": 0.10,
}

# Limits of one request, from the API reference. Tokens are counted as UTF-8 bytes, which bound the tokens of a
# byte-level BPE from above: no vocabulary to download, and batches that are smaller than they need be, never larger.
MAX_INPUTS = 2048
MAX_TOKENS = 300_000
MAX_TEXT_TOKENS = 8191
MOST_BILLED = 2**53  # what JSON can count

# Limits of one job: 50,000 texts, and a file of 200 MB. Tokens bind first: an account of the lowest tier may have
# 3 million waiting at a time, about 12 MB of English, and a job above that is refused as a whole.
MAX_JOB_TEXTS = 50_000
MAX_JOB_BYTES = 8_000_000

CONNECT_TIMEOUT_S = 10.0
MAY_HEAL = frozenset({408, 409, 429})  # with 5xx, what the SDK itself would ask again
UNSENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})  # of the SDK's transport: nothing has left
ABOUT_THE_TEXTS = frozenset({400, 413, 422})
OPTIONAL = frozenset({"dimensions", "encoding_format"})  # fields that some servers do not know, and then refuse
OUT_OF_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
LASTING = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

OK = 200
EMBEDDINGS = "list of embeddings"
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
URL: Literal["/v1/embeddings"] = "/v1/embeddings"
MARK = "newsfuse"  # where a batch's metadata has the token that we find it by
PART = re.compile(r"(\d{1,9})-(\d{1,9})")

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


# --- what the API sends: the fields that we read


class Vector(BaseModel):
    """One vector as sent: base64 of little-endian float32, or a plain list where a server ignores `encoding_format`."""

    index: StrictInt
    embedding: str | list[float]


class Usage(BaseModel):
    """What is billed."""

    total_tokens: int | None = None


class Body(BaseModel):
    """A list of embeddings."""

    data: list[Vector]
    model: str = ""
    usage: Usage | None = None


class Reply(BaseModel):
    """What one request of a batch would have been answered, had it been sent by itself."""

    status_code: int = 0
    body: Any = None


class Line(BaseModel):
    """A line of a batch's results."""

    custom_id: str = ""
    response: Reply | None = None
    error: Any = None


# --- what is offered


@hookimpl
def newsfuse_embedders() -> list[Embedder]:
    """`openai`."""
    return [
        Embedder(
            "openai",
            build,
            default_model=DEFAULT_MODEL,
            cost=Cost.MONEY,
            modes=frozenset(Mode),
            models=tuple(USD_PER_MILLION_TOKENS),
            price_source=PRICE_SOURCE,
        )
    ]


def build(corpus: Sequence[str], model: str | None, dimensions: int, options: Options) -> Service:
    """OpenAI's service, or that of the server OPENAI_BASE_URL names. Raises ParamsError for a wrong one."""
    url, name = chosen_url(), model or DEFAULT_MODEL
    require_size(name, dimensions)
    host = place(url)
    return Service(
        connect=partial(opened_server, url, name, dimensions),
        host="" if host == OFFICIAL_HOST else host,
        usd_per_million_tokens=price(name, url),
        max_inputs=MAX_INPUTS,
        max_tokens=MAX_TOKENS,
        max_text_bytes=MAX_TEXT_TOKENS,
        max_job_texts=MAX_JOB_TEXTS,
        max_job_bytes=MAX_JOB_BYTES,
    )


def require_size(model: str, dimensions: int) -> None:
    """Raise ParamsError for a length that the model does not make: a whole job of it would be paid for nothing."""
    largest = SIZES.get(model, dimensions)
    if dimensions > largest or (model in FIXED_SIZE_MODELS and dimensions < largest):
        can = f"{'' if model in FIXED_SIZE_MODELS else 'at most '}{largest}"
        found = f"'{model}' makes vectors of {can} numbers, found {dimensions}"
        msg = f"params.yaml: embed.dimensions: {found}. Set it: -S embed.dimensions={largest}"
        raise ParamsError(msg)


def price(model: str, url: str) -> float | None:
    """Dollars per million tokens. A model without a known price costs nothing on this machine, and None elsewhere."""
    free_here = 0.0 if loopback(urlsplit(url).hostname) else None
    return USD_PER_MILLION_TOKENS.get(model, free_here)


# --- where requests go


@dataclass(frozen=True)
class Server:
    """Where the texts go, and the key that is shown there and nowhere else."""

    url: str
    key: str = field(repr=False)

    @property
    def host(self) -> str:
        """The name that every error carries."""
        return address(self.url)

    @property
    def official(self) -> bool:
        """Whether it is OpenAI's own."""
        return self.host == OFFICIAL_HOST

    def scrub(self, words: str) -> str:
        """One line of at most 300 printable characters that holds no key, not even the half that OpenAI repeats."""
        words = re.sub(r"\bsk-\S+|\S*\*{3,}\S*", "(key)", words.replace(self.key, "(key)"))
        return "".join(c for c in " ".join(words.split()) if c.isprintable())[:300]


def chosen_url() -> str:
    """OPENAI_BASE_URL, or the official address. Raises ParamsError."""
    url = os.environ.get("OPENAI_BASE_URL", "").strip() or OFFICIAL_URL
    require_private(url)
    return url


def chosen_key() -> str:
    """OPENAI_API_KEY. Raises AuthenticationError."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key:
        msg = f"OPENAI_API_KEY is not set. Export a key, or {FREE_WAY_OUT}"
        raise AuthenticationError(msg)
    if not (key.isascii() and key.isprintable()):
        # an HTTP header cannot carry it, and the error that says so would show it
        msg = "OPENAI_API_KEY holds characters that no key has (a line break, a letter that is not ASCII); copy it anew"
        raise AuthenticationError(msg)
    return key


def require_private(url: str) -> None:
    """Let pass https, and http to this machine: the request carries the key. Raises ParamsError."""
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
    """The URL taken apart. Raises ParamsError where it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises on a port that is no number
    except ValueError:
        msg = f"OPENAI_BASE_URL: not a URL; expected something like {OFFICIAL_URL}"
        raise ParamsError(msg) from None  # the cause quotes the URL, which may hold a secret
    return parts


def address(url: str) -> str:
    """Host and port of a URL, one spelling for each server: part of every vector's key, which must not depend on it."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    host = f"[{name}]" if ":" in name else name
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    return host if parts.port in {None, usual} else f"{host}:{parts.port}"


def place(url: str) -> str:
    """Host, port, and a path other than the usual: a gateway may have several models of one name."""
    path = urlsplit(url).path.rstrip("/")
    return address(url) + ("" if path == "/v1" else path)


def loopback(hostname: str | None) -> bool:
    """Whether a request to this host stays on this machine."""
    try:
        return hostname == "localhost" or ipaddress.ip_address(hostname or "").is_loopback
    except ValueError:
        return False


def opened_server(url: str, model: str, dimensions: int) -> contextlib.AbstractContextManager[Client]:
    """A client, once there is a key; says so where a price is taken for nothing."""
    if price(model, url) == 0 and Environment.read().usd_per_million_tokens is None:
        told = "'%s' is taken to cost nothing, because %s is on this machine. If it passes texts on to a paid one: %s"
        log.warning(told, model, address(url), "export NEWSFUSE_USD_PER_MILLION_TOKENS=...")
    return connected(Server(url, chosen_key()), model, dimensions)


@contextlib.contextmanager
def connected(server: Server, model: str, dimensions: int) -> Iterator[Client]:
    """A client that neither retries nor follows a redirect."""
    import openai  # noqa: PLC0415 - a second of import, not wanted where plugins are only listed

    timeout = openai.Timeout(Environment.read().timeout_s, connect=CONNECT_TIMEOUT_S)
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
    ) as sdk:
        yield Client(sdk, server, model, dimensions)


# --- how they are sent


@dataclass(frozen=True)
class Batch:
    """The texts of one request, and what is wanted of them."""

    texts: Sequence[str]
    model: str
    dimensions: int


class Client:
    """An open connection: texts in, vectors out, at once (`embed`) or by way of a job (the rest)."""

    def __init__(self, sdk: openai.OpenAI, server: Server, model: str, dimensions: int) -> None:
        self.sdk, self.server, self.model, self.dimensions = sdk, server, model, dimensions
        self.fields = OPTIONAL - {"dimensions"} if model in FIXED_SIZE_MODELS else OPTIONAL
        """The optional fields that are sent. What they ask for is looked for in the answer, sent or not."""

    def embed(self, texts: Sequence[str]) -> Answer:
        """One request -> float32 (n, dimensions). Every failure is a NewsfuseError.

        A server that refuses a field which can be left out has done nothing yet: it is asked again without.
        """
        batch, fields = Batch(texts, self.model, self.dimensions), self.fields
        answer = self.asked(lambda: self.requested(batch, fields))
        if not isinstance(answer, Refusal):
            return opened(*answer, self.server, batch)
        if not self.server.official and (unknown := answer.fields & fields):
            self.fields -= unknown
            return self.embed(texts)
        raise answer.of_texts(self.server, self.model)

    def requested(self, batch: Batch, fields: frozenset[str]) -> tuple[bytes, Mapping[str, str]]:
        """Body and headers of the answer as they came.

        The raw response, because the SDK's model accepts any JSON and raises a ValueError on empty data.
        base64, because a float list is three times as long and takes eight times as long to read.
        """
        import openai  # noqa: PLC0415 - see `connected`

        raw = self.sdk.embeddings.with_raw_response.create(
            input=list(batch.texts),
            model=batch.model,
            dimensions=batch.dimensions,
            encoding_format="base64",
            extra_body=dict.fromkeys(OPTIONAL - fields, openai.omit),  # left to itself, the SDK asks for base64
        )
        return raw.http_response.content, raw.http_response.headers

    def hand_in(self, texts: Sequence[str], parts: Sequence[range], token: str) -> Job:
        """A batch, made of a file with a line for each part. Every failure is a NewsfuseError."""
        lines = b"".join(self.line(part, texts[part.start : part.stop]) for part in parts)
        file = self.told(lambda: self.sdk.files.create(file=(f"{MARK}-{token}.jsonl", lines), purpose="batch").id)
        made = self.sdk.batches.create
        return self.told(
            lambda: self.job(made(input_file_id=file, endpoint=URL, completion_window="24h", metadata={MARK: token}))
        )

    def line(self, part: range, texts: Sequence[str]) -> bytes:
        """One request of a batch. Its id says which texts it is about, whatever the order of the answers."""
        wanted = {"dimensions": self.dimensions, "encoding_format": "base64"}
        body = {"input": texts, "model": self.model, **{name: wanted[name] for name in sorted(self.fields)}}
        request = {"custom_id": f"{part.start}-{part.stop}", "method": "POST", "url": URL, "body": body}
        return json.dumps(request, ensure_ascii=False).encode() + b"\n"

    def find(self, token: str) -> Job | None:
        """The batch that was made with this token; None if there is none."""
        return self.told(lambda: next(map(self.job, self.marked(token)), None))

    def marked(self, token: str) -> Iterator[openai.types.Batch]:
        """Those of all batches there are that have this token: the SDK turns the pages."""
        return (batch for batch in self.sdk.batches.list(limit=100) if (batch.metadata or {}).get(MARK) == token)

    def look(self, reference: str) -> Job:
        """The batch as it is now."""
        return self.told(lambda: self.job(self.sdk.batches.retrieve(reference)))

    def job(self, batch: openai.types.Batch) -> Job:
        """What a batch tells of itself."""
        counts = batch.request_counts
        done, requests = (counts.completed, counts.total) if counts else (0, 0)
        results = tuple(name for name in (batch.output_file_id, batch.error_file_id) if name)
        # seen: "completed", and no file named yet. What was answered is billed, so it is waited for
        whole = bool(batch.output_file_id) if done else bool(results) or batch.status != "completed"
        failure = self.failure(batch) if batch.status == "failed" else None
        return Job(batch.id, batch.status, batch.status in ENDED and whole, done, requests, results, failure)

    def failure(self, batch: openai.types.Batch) -> NewsfuseError:
        """Why a batch was not accepted: too much is waiting already, no money, or a mistake."""
        faults = (batch.errors and batch.errors.data) or []
        code, message = (faults[0].code or "", faults[0].message or "") if faults else ("", "")
        told = f"{self.server.host} did not accept {batch.id}: {self.server.scrub(message) or '(nothing more)'}"
        if code in OUT_OF_QUOTA:
            return QuotaError(f"{told}. Raise the quota, or {FREE_WAY_OUT}")
        if not code or code.endswith("limit_exceeded"):
            return TransientError(told)
        return ProviderError(f"{told}. {remedy(self.model)}")

    def collect(self, job: Job) -> Iterator[tuple[range, Answer | NewsfuseError]]:
        """What came of each request of a batch, as it is downloaded: it may not fit into memory."""
        found = 0
        for name in job.results:
            for line in self.lines(name):
                found += 1
                yield self.result(line)
        if found < job.done:
            msg = f"{self.server.host}: {job.done} requests of {job.reference} were answered, its files hold {found}"
            raise TransientError(msg)

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a file. Raises TransientError where it breaks off."""
        with contextlib.ExitStack() as stack:
            content = self.sdk.files.with_streaming_response.content(name)
            response = self.told(lambda: stack.enter_context(content))
            try:
                yield from split(response.iter_bytes())
            except Exception as error:  # noqa: BLE001 - the SDK lets foreign errors through, no list of them is complete
                msg = f"{self.server.host}: the download of {name} broke off: {self.server.scrub(str(error))}"
                raise TransientError(msg) from None

    def result(self, line: bytes) -> tuple[range, Answer | NewsfuseError]:
        """What a line says, and of which texts; of none where it cannot be told."""
        try:
            said = read(Line, line, self.server, "line of results")
            part = named(said.custom_id, self.server)
            return part, self.outcome(said, len(part))
        except UselessAnswerError as error:
            return range(0), error

    def outcome(self, line: Line, count: int) -> Answer | NewsfuseError:
        """The vectors of a request, or why there are none: no reply means that it never had its turn."""
        reply = line.response or Reply()
        if reply.status_code != OK:
            return Refusal.read(reply.status_code, reply.body or line.error).of_texts(self.server, self.model)
        try:
            body = read(Body, reply.body, self.server, EMBEDDINGS)
            return Answer(arranged(body, count, self.server, self.model, self.dimensions), billed(body))
        except UselessAnswerError as error:
            return error

    def told(self, call: Callable[[], T]) -> T:
        """What a call about files and batches gives. Every failure is a NewsfuseError."""
        # whatever goes wrong in an unknown way, the batch may have been made
        answer = self.asked(call, unknown=TransientError)
        if isinstance(answer, Refusal):
            raise answer.of_jobs(self.server)
        return answer

    def asked(self, call: Callable[[], T], unknown: type[NewsfuseError] = ProviderError) -> T | Refusal:
        """What a call of the SDK gives, or the server's refusal. Every other failure is a NewsfuseError."""
        import openai  # noqa: PLC0415 - see `connected`

        server = self.server
        try:
            return call()
        except openai.APIStatusError as error:
            # not raised on: the SDK's text repeats the provider's words, which may repeat the key
            return Refusal.read(error.status_code, error.body, wanted_wait_s(error.response.headers))
        except openai.APIConnectionError as error:
            msg = f"{server.host}: {server.scrub(str(error))} {server.scrub(str(error.__cause__ or ''))}".strip()
            sent = type(error.__cause__).__name__ not in UNSENT  # then it may be billed, whatever became of the answer
            raise (UselessAnswerError if sent else TransientError)(msg) from error
        except Exception as error:  # noqa: BLE001 - the SDK lets foreign errors through, no list of them is complete
            msg = f"{server.host}: the request failed: {type(error).__name__}: {server.scrub(str(error))}"
            raise unknown(msg) from None


def split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    r"""The lines of a file that comes in pieces. Lines end at \n alone: JSON may hold other line breaks."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from filter(bytes.strip, lines)
    if rest.strip():
        yield rest


def named(custom_id: str, server: Server) -> range:
    """The texts that a request of a batch is about. Raises UselessAnswerError for an id that is not ours."""
    if not (found := PART.fullmatch(custom_id)):
        msg = f"{server.host}: an answer to a request that was not made: '{server.scrub(custom_id)}'"
        raise UselessAnswerError(msg)
    return range(int(found[1]), int(found[2]))


# --- what a refusal stands for


@dataclass(frozen=True)
class Refusal:
    """What a server said instead of an answer: an HTTP status, or 0 for a request that never had its turn."""

    status: int
    message: str
    param: str = ""
    marks: frozenset[str] = frozenset()
    """`code` and `type`: hosts differ in which of them says what."""
    wait_s: float | None = None

    @classmethod
    def read(cls, status: int, said: object, wait_s: float | None = None) -> Refusal:
        """From a JSON body, be it worded as OpenAI does or not, or from any other body."""
        error = said.get("error", said) if isinstance(said, dict) else said
        if not isinstance(error, dict):
            return cls(status, str(error or ""), wait_s=wait_s)
        marks = frozenset(str(error.get(name) or "") for name in ("code", "type"))
        return cls(status, str(error.get("message") or error), str(error.get("param") or ""), marks, wait_s)

    @property
    def fields(self) -> frozenset[str]:
        """The optional fields that it is about."""
        about = f"{self.param} {self.message}" if self.status in ABOUT_THE_TEXTS else ""
        return frozenset(name for name in OPTIONAL if name in about)

    def of_texts(self, server: Server, model: str) -> NewsfuseError:
        """What it means for a request for vectors."""
        told, about_settings = self.told(server), self.fields or self.param == "model"
        if self.status in ABOUT_THE_TEXTS and not about_settings and not self.marks & OUT_OF_QUOTA:
            return RefusedTextsError(told)
        return self.known(server) or ProviderError(f"{told}. {remedy(model)}")

    def of_jobs(self, server: Server) -> NewsfuseError:
        """What it means for a request about files and batches."""
        way_out = "Where a server has no Batch API, buy at once: embed.mode=direct"
        return self.known(server) or ProviderError(f"{self.told(server)}. {way_out}")

    def known(self, server: Server) -> NewsfuseError | None:
        """What it means whatever was asked for; None if that says nothing."""
        told = self.told(server)
        if self.marks & OUT_OF_QUOTA:
            return QuotaError(f"{told}. Raise the quota, or {FREE_WAY_OUT}")
        if self.status in {401, 403}:
            return AuthenticationError(f"{told}. Check OPENAI_API_KEY, or {FREE_WAY_OUT}")
        if not self.status or self.status in MAY_HEAL or self.status >= 500:  # noqa: PLR2004 - RFC 9110's server errors
            return TransientError(told, self.wait_s)
        if self.status < 400:  # noqa: PLR2004 - RFC 9110's redirections
            return ProviderError(f"{told}. A redirect is not followed: it would carry the texts elsewhere")
        return None

    def told(self, server: Server) -> str:
        """It, in one line."""
        answered = f" answered HTTP {self.status}" if self.status else ""
        return f"{server.host}{answered}: {server.scrub(self.message).rstrip('.') or '(nothing more)'}"


def remedy(model: str) -> str:
    """What to look at where nothing better is known."""
    return f"Check embed.model ('{model}'), embed.dimensions and OPENAI_BASE_URL"


def wanted_wait_s(headers: Mapping[str, str]) -> float | None:
    """`retry-after-ms` or `retry-after` in seconds; None where it is absent, a date, or (some hosts) 0 or -1."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with contextlib.suppress(ValueError):
            wait_s = float(headers.get(name, "")) * unit_s
            if 0 < wait_s < math.inf:
                return wait_s
    return None


# --- how answers are checked


def opened(body: bytes, headers: Mapping[str, str], server: Server, batch: Batch) -> Answer:
    """The answer to a request, in the order of its texts. Raises UselessAnswerError."""
    answer = read(Body, body, server, EMBEDDINGS)
    vectors = arranged(answer, len(batch.texts), server, batch.model, batch.dimensions)
    return Answer(vectors, billed(answer), allowance(headers, "requests"), allowance(headers, "tokens"))


def read(kind: type[M], content: object, server: Server, what: str) -> M:
    """JSON of a kind, in bytes or parsed. Raises UselessAnswerError where it is HTML, cut short, or another JSON."""
    try:
        return kind.model_validate_json(content) if isinstance(content, bytes) else kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "body"
        msg = f"{server.host}: the answer is no {what} ({where}: {server.scrub(first['msg'])})"
        raise UselessAnswerError(msg) from None


def arranged(answer: Body, count: int, server: Server, model: str, dimensions: int) -> np.ndarray:
    """The vectors for `count` texts in their order, float32 (count, dimensions). Raises UselessAnswerError."""
    if not same_model(answer.model, model, official=server.official):
        msg = f"{server.host} answered with model '{server.scrub(answer.model)}', asked was '{model}'"
        raise UselessAnswerError(msg)
    if len(answer.data) != count:
        msg = f"{server.host}: provider returned {len(answer.data)} vectors for {count} texts"
        raise UselessAnswerError(msg)
    if sorted(vector.index for vector in answer.data) != list(range(count)):
        msg = f"{server.host}: provider's {count} vectors are not numbered 0 to {count - 1}"
        raise UselessAnswerError(msg)
    ordered = sorted(answer.data, key=lambda vector: vector.index)
    return np.stack([numbers(vector, server, dimensions) for vector in ordered])


def billed(body: Body) -> int | None:
    """Tokens, where the server tells: some tell -1."""
    tokens = body.usage.total_tokens if body.usage else None
    return tokens if tokens is not None and 0 <= tokens < MOST_BILLED else None


def same_model(echoed: str, asked: str, *, official: bool) -> bool:
    """Whether the model that answered is the one asked for.

    A dated or tagged name is the same model (`text-embedding-ada-002-v2` for `text-embedding-ada-002`), so are names
    that differ in case or in the folder before the last '/'. A server other than OpenAI's may also name none.
    """
    echo, name = (word.rsplit("/", 1)[-1].casefold() for word in (echoed, asked))
    return echo == name or echo.startswith((f"{name}-", f"{name}:", f"{name}@")) or (not echoed and not official)


def numbers(vector: Vector, server: Server, dimensions: int) -> np.ndarray:
    """One vector, float32 (dimensions,), that is finite and not all zero; else UselessAnswerError."""
    values = decoded(vector.embedding)
    where = f"{server.host}: vector {vector.index}"
    if values is None:
        msg = f"{where} is neither base64 of float32 numbers nor a list of numbers"
        raise UselessAnswerError(msg)
    if len(values) != dimensions:
        size = f"{len(values)} numbers, asked were {dimensions}"
        msg = f"{where} has {size}. If the model has one size only, say so: embed.dimensions={len(values)}"
        raise UselessAnswerError(msg)
    if not np.isfinite(values).all() or not values.any():
        msg = f"{where} is {'all zero' if np.isfinite(values).all() else 'not finite'}"
        raise UselessAnswerError(msg)
    return values


def decoded(embedding: str | list[float]) -> np.ndarray | None:
    """The numbers as float32, whatever this machine's byte order; None where base64 holds none."""
    if isinstance(embedding, list):
        with np.errstate(over="ignore"):  # what float32 cannot hold turns infinite, and is refused as such
            return np.array(embedding, np.float32)
    try:
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float32)
    except ValueError:
        return None


def allowance(headers: Mapping[str, str], unit: str) -> Allowance | None:
    """x-ratelimit-*-`unit`; None where a header is absent or says nothing (some hosts' limit is 0 or -1)."""
    with contextlib.suppress(ValueError):
        limit, left = (int(headers.get(f"x-ratelimit-{name}-{unit}", "")) for name in ("limit", "remaining"))
        reset = headers.get(f"x-ratelimit-reset-{unit}", "")
        reset_s = sum(float(number) * UNIT_S[mark] for number, mark in LASTING.findall(reset))
        return Allowance(left, reset_s) if limit > 0 else None
    return None
