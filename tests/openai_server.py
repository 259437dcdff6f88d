"""A server on this machine that speaks OpenAI's embeddings protocol, counts what it billed, and fails on demand.

    with OpenAIServer("ok") as server:                      # or OpenAIServer("rate_limited", "rate_limited", "ok")
        server.url, server.requests, server.billed, server.texts

The n-th request is answered in the n-th mode; the last mode is kept. Modes: `MODES`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HTML = b"<html><script>alert(1)</script>Welcome to the hotel's wifi</html>"
ALIASES = {
    "rate_limited_then_ok": ("rate_limited", "rate_limited", "ok"),
    "server_error_then_ok": ("server_error", "server_error", "ok"),
}


def vector(text: str, dimensions: int) -> np.ndarray:
    """Return the vector of a text: float32 (dimensions,), of length one, drawn from the text's sha256."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    drawn = np.random.default_rng(seed).standard_normal(dimensions)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def vectors(texts: Sequence[str], dimensions: int) -> np.ndarray:
    """Return what a faithful provider answers: float32 (len(texts), dimensions)."""
    return np.stack([vector(text, dimensions) for text in texts])


class OpenAIServer:
    """One server; `requests` counts requests, `billed` and `texts` what a provider would send an invoice for.

    `bodies` and `headers` (names in lower case) hold every request, `times` (time.monotonic) say when it came.
    `location` is where the mode `redirect` points to. `mode` may be set between requests. `before` and `after` are
    called with the number of each request (the first is 1) before and after it is answered: a test may hold the answer
    there, or kill somebody. `poison` is what the mode `poisonous` refuses, `unknown` are the fields that the mode
    `picky` refuses, `billed_per_token` makes usage a lie, `limits` are headers of every good answer.
    """

    def __init__(
        self,
        *modes: str,
        mode: str = "ok",
        retry_after_ms: str = "5",
        location: str = "",
        delay_s: float = 1.0,
        base64_known: bool = True,
    ) -> None:
        """Listen on a free port of 127.0.0.1 from `__enter__` on."""
        self.modes = [single for name in modes or (mode,) for single in ALIASES.get(name, (name,))]
        unknown = set(self.modes) - set(MODES)
        if unknown:
            msg = f"unknown modes {sorted(unknown)}; known: {sorted(MODES)}"
            raise ValueError(msg)
        self.retry_after_ms, self.location, self.delay_s = retry_after_ms, location, delay_s
        self.base64_known = base64_known
        self.texts: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.before: Callable[[int], object] = lambda _: None
        self.after: Callable[[int], object] = lambda _: None
        self.poison, self.billed_per_token = "", 1
        self.unknown: frozenset[str] = frozenset()
        self.limits: dict[str, str] = {}
        self.lock = threading.Lock()

    @property
    def requests(self) -> int:
        """How many requests came."""
        return len(self.bodies)

    @property
    def billed(self) -> int:
        """How many texts were billed, repeats included."""
        return len(self.texts)

    @property
    def twice(self) -> int:
        """How many texts were billed that had been billed before."""
        return self.billed - len(set(self.texts))

    @property
    def mode(self) -> str:
        """The mode of the next request."""
        return self.modes[min(self.requests, len(self.modes) - 1)]

    @mode.setter
    def mode(self, name: str) -> None:
        self.modes = [name]

    @property
    def host(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.http.server_address[1]}"

    @property
    def url(self) -> str:
        """What OPENAI_BASE_URL should say."""
        return f"http://{self.host}/v1"

    def forget(self) -> None:
        """Be as new, under the same address."""
        for seen in (self.texts, self.bodies, self.headers, self.times):
            seen.clear()
        self.before = self.after = lambda _: None
        self.mode, self.poison, self.billed_per_token = "ok", "", 1
        self.unknown, self.limits = frozenset(), {}

    def __enter__(self) -> Self:
        """Start to listen."""
        handler = type("Handler", (Handler,), {"owner": self})
        self.http = Http(("127.0.0.1", 0), handler)
        # the default poll of 0.5 s would be paid by every test when the server stops
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self.http.shutdown()
        self.http.server_close()

    def noted(self, body: dict[str, Any], headers: dict[str, str]) -> Callable[[Handler, dict[str, Any]], None]:
        """Count a request and return what answers it."""
        with self.lock:
            mode = self.mode
            self.bodies.append(body)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            number = self.requests
            if mode in BILLED:
                self.texts += body.get("input", [])
        return self.watched(MODES[mode], number)

    def watched(
        self, answer: Callable[[Handler, dict[str, Any]], None], number: int
    ) -> Callable[[Handler, dict[str, Any]], None]:
        """Return a mode that calls `before` and `after` around another."""

        def answered(handler: Handler, body: dict[str, Any]) -> None:
            self.before(number)
            answer(handler, body)
            self.after(number)

        return answered

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the faithful answer to a request."""
        as_base64 = self.base64_known and body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": i, "embedding": written(row, as_base64=as_base64)}
            for i, row in enumerate(vectors(body["input"], body.get("dimensions", 1536)))
        ]
        tokens = self.billed_per_token * sum(max(1, len(text.encode()) // 4) for text in body["input"])
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "model": body["model"], "data": data, "usage": usage}


class Http(ThreadingHTTPServer):
    """Has a thread per connection, and thinks nothing of clients that are killed."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in the base class
        """Tell of every error but a client's sudden end."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection in the mode of its server."""

    owner: OpenAIServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Count the request, then answer in its mode."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.owner.noted(body, self.lowered())(self, body)

    def do_GET(self) -> None:
        """Count what a followed redirect turns into."""
        self.owner.noted({"input": []}, self.lowered())
        self.reply({"object": "list", "data": []})

    def lowered(self) -> dict[str, str]:
        """Return the headers of the request by their names in lower case."""
        return {name.lower(): value for name, value in self.headers.items()}

    def reply(self, answer: object, status: int = 200, **headers: str) -> None:
        """Send JSON."""
        content = json.dumps(answer).encode()
        self.send(content, status, {"Content-Type": "application/json"} | headers)

    def refuse(self, status: int, message: str, code: str, kind: str = "", **headers: str) -> None:
        """Send an error as OpenAI words it."""
        error = {"message": message, "type": kind or code, "param": None, "code": code}
        self.reply({"error": error}, status, **headers)

    def send(self, content: bytes, status: int, headers: dict[str, str], length: int | None = None) -> None:
        """Send a response whose Content-Length may be a lie."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Say nothing: the counters are the log."""


def written(row: np.ndarray, *, as_base64: bool) -> str | list[float]:
    """Return a vector as JSON holds it."""
    return base64.b64encode(row.astype("<f4").tobytes()).decode() if as_base64 else [float(x) for x in row]


def altered(change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Callable[[Handler, dict[str, Any]], None]:
    """Return a mode that sends the faithful answer after a change to it."""

    def answer(handler: Handler, body: dict[str, Any]) -> None:
        faithful = handler.owner.answer(body)
        change(faithful, body)
        handler.reply(faithful)

    return answer


def shuffled(answer: dict[str, Any], _: dict[str, Any]) -> None:
    """Send the vectors last first, each with its true index."""
    answer["data"].reverse()


def renumbered(answer: dict[str, Any], _: dict[str, Any]) -> None:
    """Give the last vector the index of the first."""
    answer["data"][-1]["index"] = 0


def shorn(answer: dict[str, Any], _: dict[str, Any]) -> None:
    """Forget the last vector."""
    answer["data"].pop()


def emptied(answer: dict[str, Any], _: dict[str, Any]) -> None:
    """Forget all vectors."""
    answer["data"].clear()


def renamed(answer: dict[str, Any], _: dict[str, Any]) -> None:
    """Answer for another model."""
    answer["model"] = "text-embedding-3-tiny"


def unbilled(answer: dict[str, Any], _: dict[str, Any]) -> None:
    """Do not tell what it costs."""
    del answer["usage"]


def garbled(answer: dict[str, Any], _: dict[str, Any]) -> None:
    """Send something that is not base64."""
    answer["data"][-1]["embedding"] = "this is no base64!"


def first_number(value: float) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Return a change that puts `value` first in the last vector."""

    def change(answer: dict[str, Any], body: dict[str, Any]) -> None:
        row = vector(body["input"][-1], body["dimensions"])
        row[0] = value
        answer["data"][-1]["embedding"] = written(row, as_base64=body["encoding_format"] == "base64")

    return change


def zeroed(answer: dict[str, Any], body: dict[str, Any]) -> None:
    """Send a last vector of zeros."""
    row = np.zeros(body["dimensions"], np.float32)
    answer["data"][-1]["embedding"] = written(row, as_base64=body["encoding_format"] == "base64")


def lengthened(answer: dict[str, Any], body: dict[str, Any]) -> None:
    """Send a last vector of twice the dimensions, as servers do that ignore `dimensions`."""
    row = vector(body["input"][-1], 2 * body["dimensions"])
    answer["data"][-1]["embedding"] = written(row, as_base64=body["encoding_format"] == "base64")


def rate_limited(handler: Handler, _: dict[str, Any]) -> None:
    """Ask for patience."""
    wait = {"retry_after_ms": handler.owner.retry_after_ms}
    handler.refuse(429, "Rate limit reached", "rate_limit_exceeded", "requests", **wait)


def quota_in_code(handler: Handler, _: dict[str, Any]) -> None:
    """Say that the quota is used up, in `code`."""
    handler.refuse(429, "You exceeded your current quota", "insufficient_quota", "requests", retry_after_ms="5")


def quota_in_type(handler: Handler, _: dict[str, Any]) -> None:
    """Say that the quota is used up, in `type`."""
    handler.refuse(429, "You exceeded your current quota", "429", "insufficient_quota")


def unauthorized(handler: Handler, _: dict[str, Any]) -> None:
    """Refuse the key and repeat it."""
    key = handler.headers["Authorization"].removeprefix("Bearer ")
    handler.refuse(401, f"Incorrect API key provided: {key}. You can find yours elsewhere.", "invalid_api_key")


def forbidden(handler: Handler, _: dict[str, Any]) -> None:
    """Refuse the country and repeat half of the key."""
    key = handler.headers["Authorization"].removeprefix("Bearer ")
    handler.refuse(403, f"Country not supported ({key[:9]}********{key[-4:]})", "unsupported_country")


def bad_request(handler: Handler, _: dict[str, Any]) -> None:
    """Refuse the texts."""
    handler.refuse(400, "'$.input' is invalid.", "invalid_request_error")


def bad_dimensions(handler: Handler, _: dict[str, Any]) -> None:
    """Refuse a setting."""
    message = "This model does not support specifying dimensions."
    error = {"message": message, "type": "invalid_request_error", "param": "dimensions", "code": None}
    handler.reply({"error": error}, 400)


def not_found(handler: Handler, _: dict[str, Any]) -> None:
    """Know no such model."""
    handler.refuse(404, "The model does not exist", "model_not_found")


def server_error(handler: Handler, _: dict[str, Any]) -> None:
    """Fail as a gateway does: with a page."""
    handler.send(b"<html>\x1b[31m502 Bad Gateway</html>", 502, {"Content-Type": "text/html"})


def echo(handler: Handler, _: dict[str, Any]) -> None:
    """Fail, and repeat the request's headers as careless proxies do."""
    handler.refuse(500, f"cannot forward {dict(handler.headers)}", "bad_gateway")


def html(handler: Handler, _: dict[str, Any]) -> None:
    """Answer 200 with a page, as a captive portal does."""
    handler.send(HTML, 200, {"Content-Type": "text/html"})


def truncated(handler: Handler, body: dict[str, Any]) -> None:
    """Promise the whole answer, send half of it, hang up."""
    content = json.dumps(handler.owner.answer(body)).encode()
    handler.send(content[: len(content) // 2], 200, {"Content-Type": "application/json"}, len(content))
    handler.close_connection = True


def half_json(handler: Handler, body: dict[str, Any]) -> None:
    """Send half of the answer as if it were the whole."""
    content = json.dumps(handler.owner.answer(body)).encode()
    handler.send(content[: len(content) // 2], 200, {"Content-Type": "application/json"})


def redirect(handler: Handler, _: dict[str, Any]) -> None:
    """Point elsewhere with a 307, which keeps method and body."""
    handler.send(b"", 307, {"Location": handler.owner.location})


def reset(handler: Handler, _: dict[str, Any]) -> None:
    """Reset the connection without a word."""
    # lingering for 0 s makes close() send RST instead of FIN
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.rfile.close()
    handler.wfile = open("/dev/null", "wb")  # noqa: SIM115, PTH123 - the base class closes it
    handler.close_connection = True


def slow(handler: Handler, body: dict[str, Any]) -> None:
    """Answer after `delay_s`, by which time the client may be gone."""
    time.sleep(handler.owner.delay_s)
    handler.close_connection = True
    try:
        handler.reply(handler.owner.answer(body))
    except OSError:
        return


def poisonous(handler: Handler, body: dict[str, Any]) -> None:
    """Refuse all texts because of one, without saying which; bill those of other requests."""
    if any(handler.owner.poison in text for text in body["input"]):
        bad_request(handler, body)
        return
    with handler.owner.lock:
        handler.owner.texts += body["input"]
    ok(handler, body)


def ok(handler: Handler, body: dict[str, Any]) -> None:
    """Answer faithfully."""
    handler.reply(handler.owner.answer(body), 200, **handler.owner.limits)


def picky(handler: Handler, body: dict[str, Any]) -> None:
    """Refuse the first of the unknown fields, as strict servers do; bill the texts of other requests."""
    if refused := sorted(handler.owner.unknown & body.keys()):
        handler.refuse(422, f"body.{refused[0]}: Extra inputs are not permitted", "", "BadRequestError")
        return
    with handler.owner.lock:
        handler.owner.texts += body["input"]
    ok(handler, body)


# A 200 is billed, useful or not; a text whose answer is lost on the way is billed too.
BILLED_MODES: dict[str, Callable[[Handler, dict[str, Any]], None]] = {
    "ok": ok,
    "reversed": altered(shuffled),
    "short": altered(shorn),
    "empty": altered(emptied),
    "duplicate_index": altered(renumbered),
    "nan": altered(first_number(np.nan)),
    "infinite": altered(first_number(np.inf)),
    "zero": altered(zeroed),
    "wrong_dimension": altered(lengthened),
    "other_model": altered(renamed),
    "not_base64": altered(garbled),
    "no_usage": altered(unbilled),
    "truncated": truncated,
    "half_json": half_json,
    "slow": slow,
}
MODES: dict[str, Callable[[Handler, dict[str, Any]], None]] = BILLED_MODES | {
    "rate_limited": rate_limited,
    "insufficient_quota": quota_in_code,
    "insufficient_quota_type": quota_in_type,
    "unauthorized": unauthorized,
    "forbidden": forbidden,
    "bad_request": bad_request,
    "bad_dimensions": bad_dimensions,
    "not_found": not_found,
    "server_error": server_error,
    "echo": echo,
    "html": html,
    "picky": picky,
    "poisonous": poisonous,
    "redirect": redirect,
    "reset": reset,
}
BILLED = frozenset(BILLED_MODES)
