"""OpenAI's files and batches, beside its embeddings: a server on this machine that works batches off when told to.

with OpenAIJobs() as server:
    ...                      # somebody hands in a batch
    server.work()            # it is worked off and billed, its results last line first
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

from openai_server import MODES, Handler, OpenAIServer

if TYPE_CHECKING:
    from collections.abc import Callable

ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass
class Batch:
    """A batch. `ticket` is what the API shows of it, `key` the API key that it belongs to, `lines` its requests."""

    ticket: dict[str, Any]
    key: str
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        return [text for line in self.lines for text in line["body"]["input"]]


def unaltered(_answer: dict[str, Any], _body: dict[str, Any]) -> None:
    """Leave an answer as it is."""


class OpenAIJobs(OpenAIServer):
    """An OpenAIServer that also takes batches.

    `calls` lists what was asked about files and batches, as "POST files", "POST batches", "GET batches", "GET batch",
    "GET content". `arrived` and `handled` are called with each, before anything is done and before it is answered;
    `handled` also with "half content" in the middle of a file. `faults` has modes of an OpenAIServer by call, each used
    once: the call fails in that mode and nothing is done, or with "late " before the mode, is done and then fails.
    `poison` is in texts whose request is refused, `altered` changes the answer to the last request of a batch.
    """

    def __init__(self, *modes: str, page: int = 100, **settings: Any) -> None:  # noqa: ANN401 - those of an OpenAIServer
        super().__init__(*modes, **settings)
        self.page = page
        self.files: dict[str, bytes] = {}
        self.batches: list[Batch] = []
        self.calls: list[str] = []
        self.faults: dict[str, list[str]] = {}
        self.arrived: Callable[[str], object] = lambda _: None
        self.handled: Callable[[str], object] = lambda _: None
        self.altered: Callable[[dict[str, Any], dict[str, Any]], None] = unaltered

    def __enter__(self) -> Self:
        super().__enter__()
        self.http.RequestHandlerClass = type("JobHandler", (JobHandler,), {"owner": self})
        return self

    def forget(self) -> None:
        super().forget()
        for seen in (self.files, self.batches, self.calls, self.faults):
            seen.clear()
        self.arrived = self.handled = lambda _: None
        self.altered, self.poison, self.mode = unaltered, "", "ok"

    # --- what a test may do

    @property
    def references(self) -> list[str]:
        """The ids of all batches, oldest first."""
        return [batch.ticket["id"] for batch in self.batches]

    def start(self, done: int = 0) -> None:
        """Accept every new batch, and say that so many of its requests are done."""
        for batch in self.batches:
            if batch.ticket["status"] not in ENDED:
                counts = {"total": len(batch.lines), "completed": done, "failed": 0}
                batch.ticket |= {"status": "in_progress", "request_counts": counts}

    def work(self, status: str = "completed", *, lines: int | None = None, only: int | None = None) -> None:
        """Work off all batches that have not ended, or only the n-th of all; of each all lines or the first few."""
        for number, batch in enumerate(self.batches):
            if batch.ticket["status"] not in ENDED and only in {None, number}:
                self._work(batch, status, len(batch.lines) if lines is None else lines)

    def fail(self, code: str, message: str) -> None:
        """Refuse all batches that have not ended."""
        for batch in self.batches:
            if batch.ticket["status"] not in ENDED:
                errors = {"object": "list", "data": [{"code": code, "message": message, "line": None, "param": None}]}
                batch.ticket |= {"status": "failed", "errors": errors}

    def _work(self, batch: Batch, status: str, count: int) -> None:
        done, late = batch.lines[:count], batch.lines[count:]
        results = [self._result(line, last=line is batch.lines[-1]) for line in done]
        good = [line for line in results if line["response"]["status_code"] == 200]
        bad = [line for line in results if line not in good]
        error = {"code": f"batch_{status}", "message": "This request could not be executed in time."}
        bad += [{"id": "r", "custom_id": line["custom_id"], "response": None, "error": error} for line in late]
        counts = {"total": len(batch.lines), "completed": len(good), "failed": len(bad)}
        names = {"output_file_id": self._stored(good), "error_file_id": self._stored(bad)}
        batch.ticket |= {"status": status, "request_counts": counts, **names}

    def _result(self, line: dict[str, Any], *, last: bool) -> dict[str, Any]:
        body = line["body"]
        if self.poison and any(self.poison in text for text in body["input"]):
            error = {"message": "'$.input' is invalid.", "type": "invalid_request_error", "param": None, "code": None}
            return self._replied(line, 400, {"error": error})
        self.texts += body["input"]
        answer = self.answer(body)
        if last:
            self.altered(answer, body)
        return self._replied(line, 200, answer)

    @staticmethod
    def _replied(line: dict[str, Any], status: int, body: dict[str, Any]) -> dict[str, Any]:
        response = {"status_code": status, "request_id": "req", "body": body}
        return {"id": "batch_req", "custom_id": line["custom_id"], "response": response, "error": None}

    def _stored(self, lines: list[dict[str, Any]]) -> str | None:
        content = "".join(json.dumps(line) + "\n" for line in reversed(lines)).encode()
        return self.store(content) if lines else None

    def store(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    # --- what a client may do

    def create(self, wanted: dict[str, Any], key: str) -> dict[str, Any]:
        """Make a batch of an uploaded file."""
        lines = [json.loads(line) for line in self.files[wanted["input_file_id"]].splitlines()]
        assert {line["url"] for line in lines} == {wanted["endpoint"]}
        assert len({line["custom_id"] for line in lines}) == len(lines)
        counts = {"total": 0, "completed": 0, "failed": 0}
        own = {"id": f"batch_{len(self.batches)}", "object": "batch", "status": "validating", "request_counts": counts}
        self.batches.append(Batch({**wanted, **own, "created_at": int(time.time())}, key, lines))
        return self.batches[-1].ticket

    def listed(self, key: str, query: dict[str, list[str]]) -> dict[str, Any]:
        """A page of the key's batches, newest first."""
        mine = [batch.ticket for batch in reversed(self.batches) if batch.key == key]
        after = query.get("after", [""])[0]
        start = next((number + 1 for number, ticket in enumerate(mine) if ticket["id"] == after), 0)
        size = min(self.page, int(query.get("limit", ["20"])[0]))
        return {"object": "list", "data": mine[start : start + size], "has_more": start + size < len(mine)}

    def fault(self, call: str) -> str:
        with self.lock:
            self.calls.append(call)
            return self.faults[call].pop(0) if self.faults.get(call) else ""


class JobHandler(Handler):
    """Also answers what is asked about files and batches."""

    owner: OpenAIJobs

    def do_POST(self) -> None:  # noqa: N802 - as in the base class
        if self.asked == ["embeddings"]:
            super().do_POST()
            return
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.asked == ["files"]:
            self.about("POST files", lambda: {"id": self.owner.store(self.uploaded(content)), "object": "file"})
        else:
            self.about("POST batches", lambda: self.owner.create(json.loads(content), self.key))

    def do_GET(self) -> None:  # noqa: N802 - as in the base class
        match self.asked:
            case ["files", name, "content"]:
                self.about("GET content", lambda: self.owner.files[name])
            case ["batches"]:
                query = parse_qs(urlsplit(self.path).query)
                self.about("GET batches", lambda: self.owner.listed(self.key, query))
            case ["batches", reference]:
                tickets = {batch.ticket["id"]: batch.ticket for batch in self.owner.batches if batch.key == self.key}
                self.about("GET batch", lambda: tickets.get(reference))

    @property
    def asked(self) -> list[str]:
        return urlsplit(self.path).path.removeprefix("/v1/").split("/")

    @property
    def key(self) -> str:
        return str(self.headers["Authorization"]).removeprefix("Bearer ")

    def uploaded(self, content: bytes) -> bytes:
        header = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        form = message_from_bytes(header + content, policy=policy.HTTP)
        parts: dict[Any, Any] = {
            part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
            for part in form.iter_parts()
        }
        assert parts["purpose"] == b"batch"
        return bytes(parts["file"])

    def about(self, call: str, do: Callable[[], Any]) -> None:
        self.owner.arrived(call)
        fault = self.owner.fault(call)
        answer = do() if not fault or fault.startswith("late ") else None
        self.owner.handled(call)
        if fault:
            MODES[fault.removeprefix("late ")](self, {"input": [], "model": ""})
        elif isinstance(answer, bytes):
            self.send_in_halves(answer)
        elif answer is None:
            self.refuse(404, "No batch found with that id.", "not_found")
        else:
            self.reply(answer)

    def send_in_halves(self, content: bytes) -> None:
        half = len(content) // 2
        self.send(content[:half], 200, {"Content-Type": "application/octet-stream"}, len(content))
        self.wfile.flush()
        self.owner.handled("half content")
        self.wfile.write(content[half:])
