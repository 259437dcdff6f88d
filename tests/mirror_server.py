"""A mirror on this machine that counts what it sent, and fails on demand.

    with MirrorServer({"MINDdemo_train.zip": b"..."}, "broken", "ok") as mirror:
        mirror.url, mirror.ranges, mirror.sent

The n-th request is answered in the n-th mode; the last mode is kept. Modes: see `Handler`.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Self

from openai_server import Http

if TYPE_CHECKING:
    from collections.abc import Callable

SOME = 20_000
"""Bytes that a broken answer has."""


class MirrorServer:
    """`files` by name may be changed between requests, and `modes` too.

    `ranges` has the Range header of each request ("" without one), `headers` all of them, `sent` the bytes of all
    bodies. `location` is where the mode `redirect` leads. `before` is called with the number of each request.
    """

    def __init__(self, files: dict[str, bytes], *modes: str, location: str = "") -> None:
        self.files, self.modes, self.location = files, list(modes or ("ok",)), location
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.sent = 0
        self.before: Callable[[int], object] = lambda _: None
        self.lock = threading.Lock()

    @property
    def requests(self) -> int:
        return len(self.headers)

    @property
    def ranges(self) -> list[str]:
        return [headers.get("range", "") for headers in self.headers]

    @property
    def url(self) -> str:
        """What NEWSFUSE_MIRROR should say."""
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self) -> Self:
        self.http = Http(("127.0.0.1", 0), type("Handler", (Handler,), {"owner": self}))
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def mode(self, path: str, headers: dict[str, str]) -> str:
        """Count a request and say how it is to be answered."""
        with self.lock:
            mode = self.modes[min(self.requests, len(self.modes) - 1)]
            self.paths.append(path)
            self.headers.append(headers)
            number = self.requests
        self.before(number)
        return mode


class Handler(BaseHTTPRequestHandler):
    """A method for each mode."""

    owner: MirrorServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        mode = self.owner.mode(self.path, {name.lower(): value for name, value in self.headers.items()})
        name = self.path.rpartition("/")[2]
        if name not in self.owner.files:
            self.refuse(404)
        else:
            getattr(self, mode)(self.owner.files[name])

    def ok(self, body: bytes) -> None:
        """As a good server, with ranges and a tag."""
        self.give(body, tag=f'"{hashlib.sha256(body).hexdigest()}"')

    def broken(self, body: bytes) -> None:
        """The connection ends after SOME bytes."""
        self.give(body, tag=f'"{hashlib.sha256(body).hexdigest()}"', most=SOME)

    def silent(self, body: bytes) -> None:
        """Nothing comes after SOME bytes, and the connection stays."""
        self.give(body, most=SOME)
        time.sleep(2)

    def untagged(self, body: bytes) -> None:
        """Ranges, but no name for the version."""
        self.give(body)

    def untagged_broken(self, body: bytes) -> None:
        self.give(body, most=SOME)

    def weak_broken(self, body: bytes) -> None:
        """A tag that promises no equal bytes, and a date."""
        self.give(body, tag='W/"1"', most=SOME, Last_Modified="Sat, 09 Nov 2019 08:55:22 GMT")

    def rangeless(self, body: bytes) -> None:
        """Whatever is asked for, all is sent."""
        self.send(200, body)

    def rangeless_broken(self, body: bytes) -> None:
        self.send(200, body, most=SOME)

    def other_range(self, body: bytes) -> None:
        """All is sent as if it were the range asked for."""
        self.send(206, body, Content_Range=f"bytes 0-{len(body) - 1}/{len(body)}")

    def unsatisfiable(self, body: bytes) -> None:
        self.send(416, b"", Content_Range=f"bytes */{len(body)}")

    def short(self, body: bytes) -> None:
        """Says that the file ends where it does not."""
        self.send(200, body[:-SOME])

    def endless(self, body: bytes) -> None:
        """Says nothing of the length, and sends more than the file has."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(3):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
        self.wfile.write(b"0\r\n\r\n")

    def lengthless(self, body: bytes) -> None:
        """Says nothing of the length."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

    def packed(self, body: bytes) -> None:
        self.send(200, body, Content_Encoding="gzip")

    def redirect(self, _: bytes) -> None:
        self.send(302, b"elsewhere", Location=self.owner.location + self.path)

    def busy(self, _: bytes) -> None:
        self.send(503, b"", Retry_After="0")

    def refuse(self, status: int) -> None:
        self.send(status, b"<html>no</html>")

    def give(self, body: bytes, tag: str = "", most: int | None = None, **headers: str) -> None:
        """The body from where it is asked for, unless If-Range says another version."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        headers |= {"ETag": tag} if tag else {}
        if asked and self.headers.get("If-Range", tag) in {tag, headers.get("Last_Modified")}:
            start = int(asked[1])
            headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.send(206, body[start:], most, **headers)
        else:
            self.send(200, body, most, **headers)

    def send(self, status: int, body: bytes, most: int | None = None, **headers: str) -> None:
        """So many bytes of the body at most, and then the connection ends."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:most])
        self.owner.sent += len(body[:most])
        self.close_connection = most is not None or self.close_connection

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Say nothing: the counters are the log."""
