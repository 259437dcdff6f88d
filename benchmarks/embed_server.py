"""A provider of embeddings for benchmarks, in a process of its own: OpenAI's protocol, a fixed latency, little work.

python benchmarks/embed_server.py 0.3 1536      # prints its address, serves until it is ended
"""

import base64
import json
import sys
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

POOL = 4096
"""Vectors made beforehand: one is chosen by a text's checksum."""


class Provider(ThreadingHTTPServer):
    """Counts what it bills."""

    daemon_threads = True

    def __init__(self, latency_s: float, dimensions: int) -> None:
        """Listen on a free port of 127.0.0.1."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.latency_s = latency_s
        drawn = np.random.default_rng(0).standard_normal((POOL, dimensions)).astype("<f4")
        self.vectors = [base64.b64encode(row).decode() for row in drawn / np.linalg.norm(drawn, axis=1, keepdims=True)]
        self.lock = threading.Lock()
        self.requests = self.texts = self.tokens = 0

    def bill(self, texts: list[str]) -> int:
        """Count a request -> its tokens: a quarter of its UTF-8 bytes, text by text."""
        tokens = sum(max(1, len(text.encode()) // 4) for text in texts)
        with self.lock:
            self.requests, self.texts, self.tokens = self.requests + 1, self.texts + len(texts), self.tokens + tokens
        return tokens


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Provider
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Answer a request for embeddings after the latency."""
        start = time.monotonic()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts, tokens = body["input"], self.server.bill(body["input"])
        found = (self.server.vectors[zlib.crc32(text.encode()) % POOL] for text in texts)
        data = ",".join(
            f'{{"object":"embedding","index":{i},"embedding":"{vector}"}}' for i, vector in enumerate(found)
        )
        usage = f'{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}'
        answer = f'{{"object":"list","model":"{body["model"]}","data":[{data}],"usage":{usage}}}'.encode()
        time.sleep(max(0.0, self.server.latency_s - (time.monotonic() - start)))
        self.reply(answer)

    def do_GET(self) -> None:
        """Tell what was billed."""
        counts = {name: getattr(self.server, name) for name in ("requests", "texts", "tokens")}
        self.reply(json.dumps(counts).encode())

    def reply(self, content: bytes) -> None:
        """Send JSON."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Say nothing."""


if __name__ == "__main__":
    provider = Provider(float(sys.argv[1]), int(sys.argv[2]))
    print(f"http://127.0.0.1:{provider.server_address[1]}/v1", flush=True)
    provider.serve_forever()
