"""A place where the embed stage is run with a fault at its n-th operation, and what must hold afterwards."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml
from openai_server import OpenAIServer, vector, written
from project import ROOT, environment

from newsfuse.artifact import verified
from newsfuse.embeddings import Embeddings
from newsfuse.paid.ledger import Ledger
from newsfuse.paid.space import KEY_BYTES, Space

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
KINDS = ("create", "mkdir", "write", "truncate", "sync", "rename", "unlink", "connect", "send", "receive")
FILES = frozenset(KINDS[:7])
FAIL_ONCE, FAIL_FROM_THEN_ON, KILL, TEAR = range(4)
DIMENSIONS = 1536
IN_FLIGHT = 3
"""Texts in a request, and requests go one by one."""
TITLES = {"train": "abcdef", "dev": "efgg"}
"""An article per letter, which is its text; the last two articles share theirs."""
TEXTS = frozenset("abcdefg")


@dataclass(frozen=True)
class Fault:
    """What happens at the `nth` of all operations of these `kinds`, the first being 1; 0: nothing."""

    kinds: frozenset[str]
    action: int
    errno: int = 0
    nth: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "kinds": sum(1 << KINDS.index(kind) for kind in self.kinds)}


NONE = Fault(frozenset(), FAIL_ONCE)


@dataclass(frozen=True)
class Outcome:
    """What became of one run."""

    code: int
    """The exit code, -9 if killed."""
    fired: str
    """The operation that failed and its file, "" if none did."""
    counted: dict[str, int]
    told: str
    requests: list[list[str]]
    """The texts of each request that the server got, and billed."""

    @property
    def billed(self) -> list[str]:
        return [text for request in self.requests for text in request]


@dataclass(frozen=True)
class Kept:
    """What the ledger holds, as SQLite reads it by itself."""

    vectors: dict[str, bytes]
    """By text."""
    requests: list[tuple[str, list[str]]]
    """Status and texts of each row of the spend table."""


class Changing(OpenAIServer):
    """A provider whose vectors differ from call to call, so that one which was overwritten is seen."""

    def __enter__(self) -> Self:
        self.given: dict[str, list[bytes]] = {text: [] for text in TEXTS}
        """Every vector that was ever sent, by text."""
        super().__enter__()
        # clients that are killed in the middle of a request are what this is about
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]
        return self

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = super().answer(body)
        for text, each in zip(body["input"], answer["data"], strict=True):
            drawn = vector(f"{text}, as drawn for request {self.requests}", body["dimensions"])
            each["embedding"] = written(drawn, as_base64=True)
            self.given[text].append(drawn.tobytes())
        return answer

    def settle(self) -> None:
        """Return once all that clients have sent so far is noted, those included that are dead by now."""
        # what came before us was accepted before us
        with socket.create_connection(("127.0.0.1", self.http.server_port), timeout=10) as connection:
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
        for thread in threading.enumerate():
            if "process_request_thread" in thread.name:
                thread.join(10)


class Bench:
    """A project of nine articles, a server, and a program that runs the stage in a new process per run."""

    def __init__(self, root: Path, server: Changing, program: subprocess.Popen[str]) -> None:
        self.server, self._program = server, program
        self.folder, self._told, self._copy = root / "project", root / "told", root / "copy"
        self.artifact, self.metrics = self.folder / "data/few/embeddings", self.folder / "metrics/embed.json"

    def clear(self) -> None:
        """Begin anew: no ledger, no artifact."""
        shutil.rmtree(self.folder, ignore_errors=True)
        lay_out(self.folder)

    def run(
        self, fault: Fault = NONE, *, recipe: str = "embed", journal: str = "WAL", record: Path | None = None
    ) -> Outcome:
        """One run of the stage in what the runs before left, with this fault; see forks.py for the rest."""
        assert self._program.stdin
        assert self._program.stdout
        before = len(self.server.bodies)
        job = {"folder": str(self.folder), "told": str(self._told), "record": str(record or ""), "recipe": recipe}
        self._program.stdin.write(json.dumps({**job, "journal": journal, "fault": fault.to_dict()}) + "\n")
        self._program.stdin.flush()
        ended = json.loads(self._program.stdout.readline())
        self.server.settle()
        return Outcome(**ended, requests=[body["input"] for body in self.server.bodies[before:]])

    def kept(self) -> Kept:
        """What the ledger holds. Of a copy: looking at a database mends it, which is the next run's task."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self.folder / ".newsfuse", self._copy) if (self.folder / ".newsfuse").exists() else None
        return kept(self._copy / "ledger.sqlite")


@contextmanager
def opened(root: Path, shim: Path) -> Iterator[Bench]:
    with Changing("ok") as server:
        variables = {
            **environment(root / "home"),
            "LD_PRELOAD": str(shim),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",  # would be operations that depend on who ran before
            "OPENBLAS_NUM_THREADS": "1",
            "OPENAI_BASE_URL": server.url,
            "OPENAI_API_KEY": "sk-none",
            "NEWSFUSE_CONCURRENCY": "1",
            "NEWSFUSE_MAX_INPUTS": str(IN_FLIGHT),
        }
        command = [sys.executable, str(HERE / "forks.py")]
        with subprocess.Popen(
            command, env=variables, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as program:
            yield Bench(root, server, program)
            program.stdin.close() if program.stdin else None


def lay_out(folder: Path, dimensions: int = DIMENSIONS) -> None:
    """A project of nine articles with seven texts, whose embed stage is paid."""
    for split, letters in TITLES.items():
        (data := folder / "data/few" / split).mkdir(parents=True)
        first = 4 if split == "dev" else 0  # two articles are in both
        rows = (f"N{number}\tnews\tworld\t{title}\t\t\t[]\t[]\n" for number, title in enumerate(letters, first))
        (data / "news.tsv").write_text("".join(rows), encoding="utf-8")
    (folder / "plugins").symlink_to(ROOT / "plugins")
    (folder / "params.yaml").write_text(_params(dimensions), encoding="utf-8")


def _params(dimensions: int) -> str:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["embed"] |= {"provider": "openai", "dimensions": dimensions}
    # what this stage only checks is chosen to load fast
    few = {"dataset": "few", "encoders": {"category": True}, "fusion": "mean", "user_encoder": "mean", "options": {}}
    return yaml.safe_dump({**values, **few})


# what must hold


def kept(ledger: Path) -> Kept:
    """Of a ledger that is absent or whole.

    Asserts that it is, that each vector passes its sha256, and that newsfuse sees the same, which comes first: whoever
    opens a database for writing mends it.
    """
    if not ledger.exists():
        return Kept({}, [])
    with Ledger.reading(ledger) as ours:
        ours.require_whole()
        seen = [(request.status, list(request.keys)) for request in ours.requests()]
        missing = ours.missing(every := [key for _, keys in seen for key in keys])
    with closing(sqlite3.connect(ledger)) as database:
        spent = database.execute("SELECT status, space, keys FROM spend ORDER BY id").fetchall()
        rows = database.execute("SELECT key, sha256, vector FROM vectors").fetchall()
    assert [hashlib.sha256(key + vector).digest() for key, _, vector in rows] == [sha256 for _, sha256, _ in rows]
    assert seen == [(status, _cut(keys)) for status, _, keys in spent], "a reader saw what is rolled back"
    assert {*every} - {every[row] for row in missing} == {key for key, _, _ in rows}, "a reader saw what is rolled back"
    named = {key: text for space in {row[1] for row in spent} for key, text in _keys(space, sorted(TEXTS))}
    vectors = {named[key]: vector for key, _, vector in rows}
    return Kept(vectors, [(status, [named[key] for key in _cut(keys)]) for status, _, keys in spent])


def _cut(keys: bytes) -> list[bytes]:
    return [keys[at : at + KEY_BYTES] for at in range(0, len(keys), KEY_BYTES)]


def _keys(space: str, texts: list[str]) -> Iterator[tuple[bytes, str]]:
    return zip(Space.from_json(space).keys(texts), texts, strict=True)


def check_after_fault(bench: Bench, outcome: Outcome) -> Kept:
    """Whatever the fault was: the ledger has all but what was in flight, and nothing is half done."""
    now = bench.kept()
    assert "Traceback" not in outcome.told, outcome.told
    assert len(outcome.billed) - len(now.vectors) <= IN_FLIGHT
    assert all(vector in bench.server.given[text] for text, vector in now.vectors.items())
    # written down before it was sent
    assert Counter(map("".join, outcome.requests)) <= Counter("".join(texts) for _, texts in now.requests)
    done = [text for status, texts in now.requests if status == "done" for text in texts]
    assert sorted(done) == sorted(now.vectors)
    if bench.artifact.exists():
        check_artifact(bench, now)
    if bench.metrics.exists():
        assert json.loads(bench.metrics.read_text(encoding="utf-8"))["texts"] == len(TEXTS)
    return now


def check_repair(bench: Bench, before: Kept, *, journal: str = "WAL") -> None:
    """A plain run pays for what was not kept and for nothing else, and all is well."""
    outcome = bench.run(journal=journal)
    assert outcome.code == 0, outcome.told
    assert sorted(outcome.billed) == sorted(TEXTS - before.vectors.keys())
    now = bench.kept()
    assert before.vectors.items() <= now.vectors.items(), "a vector was overwritten"
    assert now.vectors.keys() == TEXTS
    check_artifact(bench, now)
    metrics = json.loads(bench.metrics.read_text(encoding="utf-8"))
    assert (metrics["texts"], metrics["paid"]) == (len(TEXTS), len(outcome.billed))
    check_home(bench.folder / ".newsfuse")


def check_artifact(bench: Bench, now: Kept) -> None:
    """Whole, and what the ledger has."""
    verified(bench.artifact, kind="embed")
    embeddings = Embeddings.read(bench.artifact)
    letters = TITLES["train"] + TITLES["dev"][2:]
    assert embeddings.ids.words.to_list() == [f"N{number}" for number in range(len(letters))]
    assert [row.tobytes() for row in embeddings.vectors] == [now.vectors.get(letter) for letter in letters]


def check_home(home: Path) -> None:
    """Nobody else may read the ledger, Git does not see it, and nothing half done lies beside it."""
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert (home / ".gitignore").read_text(encoding="utf-8") == "*\n"
    assert stat.S_IMODE((home / "ledger.sqlite").stat().st_mode) == 0o600
    known = {".gitignore", *(f"ledger.sqlite{end}" for end in ("", ".lock", ".payer", "-wal", "-shm", "-journal"))}
    assert {path.name for path in home.iterdir()} <= known
