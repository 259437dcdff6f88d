"""A project that buys its vectors from a server on this machine."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
from faults.canary import KEY
from openai_server import vector
from project import Outcome, Project

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from signal import Signals

    from openai_server import OpenAIServer

NEWS = {split: f"data/tiny/{split}/news.tsv" for split in ("train", "dev")}
ARTIFACT = "data/tiny/embeddings"
LEDGER = ".newsfuse/ledger.sqlite"
TITLES = {f"N{n}": f"Article {n:02} says what nobody else says" for n in range(1, 13)}
TRAIN, DEV = tuple(TITLES)[:9], tuple(TITLES)[8:]
EMBED = ("python", "-m", "stages.embed")
BATCH, BATCHES = 3, 4
"""Texts in a request, and how many requests all of TITLES are."""
DIMENSIONS = 8
PATIENCE_S = 120


class Hold:
    """Keeps the answer to one request back; for a server's `before`."""

    def __init__(self, request: int) -> None:
        self._request, self._come, self._go = request, Event(), Event()

    def __call__(self, number: int) -> None:
        if number == self._request:
            self._come.set()
            assert self._go.wait(PATIENCE_S)

    def wait(self) -> None:
        """Until the request has come."""
        assert self._come.wait(PATIENCE_S)

    def release(self) -> None:
        """Let it be answered."""
        self._go.set()


def until(so: Callable[[], bool]) -> None:
    """Wait until it is so."""
    end = time.monotonic() + PATIENCE_S
    while not so():
        assert time.monotonic() < end
        time.sleep(0.02)


@dataclass(frozen=True)
class Running:
    """A command that has been started."""

    process: subprocess.Popen[bytes]
    printed: Path

    def text(self) -> str:
        """What it has printed so far."""
        return self.printed.read_text(encoding="utf-8")

    def ended(self, timeout_s: float = PATIENCE_S) -> Outcome:
        """Wait for it. A death by a signal is told as shells tell it: 137 for SIGKILL."""
        try:
            code = self.process.wait(timeout_s)
        finally:
            self.process.kill()
            self.process.wait()
        return Outcome(code if code >= 0 else 128 - code, self.text(), 0)

    def send(self, number: Signals) -> None:
        self.process.send_signal(number)


@dataclass(frozen=True)
class Buyer(Project):
    """A project whose embed stage is paid, and the environment variables that its commands are given.

    What they print is kept beside the project.
    """

    settings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def bare(cls, root: Path) -> Buyer:
        """With the shipped data, nothing committed since; nothing bought yet."""
        buyer = cls.make(root, without=("tests/", "docs/", "benchmarks/", "CHANGELOG"))
        buyer.edit("params.yaml", "provider: lsa", "provider: openai")
        buyer.edit("params.yaml", r"dimensions: \d+", f"dimensions: {DIMENSIONS}")
        return buyer

    @classmethod
    def opened(cls, root: Path) -> Buyer:
        """With TITLES for news, committed; nothing bought yet."""
        buyer = cls.bare(root)
        buyer.tell("train", {news_id: TITLES[news_id] for news_id in TRAIN})
        buyer.tell("dev", {news_id: TITLES[news_id] for news_id in DEV})
        buyer.commit()
        buyer.must("python", "-m", "compileall", "-q", "newsfuse", "plugins", "stages")  # once, for all copies
        return buyer

    def at(self, server: OpenAIServer) -> Buyer:
        """The same, paying at `server`, one request of BATCH texts at a time."""
        one_by_one = {"NEWSFUSE_CONCURRENCY": "1", "NEWSFUSE_MAX_INPUTS": str(BATCH)}
        return self.under(OPENAI_BASE_URL=server.url, OPENAI_API_KEY=KEY, **one_by_one)

    def under(self, **settings: str) -> Buyer:
        """The same, with these environment variables set too."""
        return replace(self, settings={**self.settings, **settings})

    def moved(self, root: Path) -> Buyer:
        """The same for the project at another place, which is there already."""
        return replace(self, root=root)

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **self.settings}

    def run(self, *command: str) -> Outcome:
        outcome = super().run(*command)
        self._page().write_text(outcome.text, encoding="utf-8")
        return outcome

    def begin(self, *command: str, group: bool = False) -> Running:
        """The command, started; as the leader of a process group of its own if `group`, as a shell would do it."""
        page = self._page()
        with page.open("wb") as printed:
            process = subprocess.Popen(
                command, cwd=self.root, env=self.environment(), stdout=printed, stderr=printed, start_new_session=group
            )
        return Running(process, page)

    def _page(self) -> Path:
        pages = self.root.parent / "printed"
        pages.mkdir(exist_ok=True)
        page = pages / f"{len(list(pages.iterdir())):03}"
        page.touch()
        return page

    def embed(self, **settings: str) -> Outcome:
        """The stage by itself."""
        return self.under(**settings).stage("embed")

    # --- news

    def tell(self, split: str, titles: Mapping[str, str]) -> None:
        """Make these all the news of the split; an article's text is its title."""
        lines = [f"{news_id}\tnews\tworld\t{title}\t\thttps://localhost\t[]\t[]\n" for news_id, title in titles.items()]
        (self.root / NEWS[split]).write_text("".join(lines), encoding="utf-8")

    def add(self, split: str, news_id: str, title: str) -> None:
        self.append(NEWS[split], f"{news_id}\tnews\tworld\t{title}\t\thttps://localhost\t[]\t[]\n")

    def titles(self) -> dict[str, str]:
        rows = [line.split("\t") for path in NEWS.values() for line in self.lines(path)]
        return {row[0]: row[3] for row in rows}

    # --- what was bought

    @property
    def ledger(self) -> Path:
        return self.root / LEDGER

    def kept(self) -> int:
        """How many vectors the ledger holds, as SQLite says without any of our code."""
        with closing(sqlite3.connect(f"{self.ledger.as_uri()}?mode=ro", uri=True)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return int(database.execute("SELECT count(*) FROM vectors").fetchone()[0])

    def artifact(self) -> dict[str, str]:
        """The sha256 of each file of the artifact, every vector of which was found to be its article's own."""
        assert self.wrong() == []
        return self.hashes(ARTIFACT)

    def wrong(self) -> list[str]:
        """The articles whose vector in the artifact is not the one that the server has for their text."""
        folder, titles = self.root / ARTIFACT, self.titles()
        ids, vectors = (folder / "ids.txt").read_text().split(), np.load(folder / "vectors.npy")
        assert ids == sorted(titles)
        own = [vector(titles[news_id], vectors.shape[1]) for news_id in ids]
        return [news_id for news_id, found, wanted in zip(ids, vectors, own, strict=True) if (found != wanted).any()]

    def receipt(self) -> dict[str, Any]:
        return dict(json.loads(self.text("metrics/embed.json")))

    def without_outs(self) -> None:
        """As DVC leaves it before it runs the stage."""
        shutil.rmtree(self.root / ARTIFACT, ignore_errors=True)
        (self.root / "metrics/embed.json").unlink(missing_ok=True)
        shutil.rmtree(self.root / "metrics/embed", ignore_errors=True)
