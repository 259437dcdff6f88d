"""The ledger against a dictionary in which the first write wins, through crashes at any moment.

A crash is played by leaving the open database as it is and going on with a copy of its files, as they stand: that is
what a process that was killed leaves. What a disk may lose besides is the business of test_crash_points.py.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from newsfuse.errors import IntegrityError
from newsfuse.paid.ledger import Ledger
from newsfuse.paid.space import Space

DIMENSIONS = 4096
"""Two vectors fill a page of the ledger, so that most transactions change several."""
SPACE = Space("test", "", "model", DIMENSIONS, 1)
KEYS = SPACE.keys(f"text {number}" for number in range(9))
some_keys = st.lists(st.sampled_from(KEYS), min_size=1, max_size=6, unique=True)
which = st.integers(0, 100)
Book = list[tuple[str, tuple[bytes, ...], str | None]]


class LedgerMachine(RuleBasedStateMachine):
    """Buys overlapping batches, whose answers come in any order, and crashes."""

    file_system = "ext4"

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[bytes, bytes] = {}
        self.book: Book = []
        """Status, keys and note of every request."""
        self.flying: list[tuple[int, list[bytes]]] = []
        self.bought = self.crashes = 0
        self.home = TemporaryDirectory()
        self.path = Path(self.home.name, "0", "ledger.sqlite")
        self.path.parent.mkdir()
        self.left_open: list[ExitStack] = []

    @initialize()
    def begin(self) -> None:
        self.open()

    def open(self) -> None:
        self.stack = ExitStack()
        with patch("newsfuse.paid.ledger._file_system", lambda _: self.file_system):
            self.ledger = self.stack.enter_context(Ledger.writing(self.path))
        with self.ledger.transaction() as self.database:
            pass
        # what does not fit is written before it is committed: a crash must not let it through
        self.database.execute("PRAGMA cache_size = 1")

    def teardown(self) -> None:
        for stack in (*self.left_open, self.stack):
            stack.close()
        self.home.cleanup()

    # --- what happens

    @rule(keys=some_keys)
    def buy(self, keys: list[bytes]) -> None:
        self.send(keys)
        self.answer(-1)

    @rule(keys=some_keys)
    def send(self, keys: list[bytes]) -> None:
        self.flying.append((self.ledger.sent(SPACE, keys, len(keys)), keys))
        self.book.append(("sent", tuple(keys), None))
        assert self.flying[-1][0] == len(self.book)

    @precondition(lambda self: self.flying)
    @rule(which=which)
    def answer(self, which: int) -> None:
        request, keys = self.flying.pop(which % len(self.flying))
        vectors = self.drawn(keys)
        self.ledger.done(request, keys, vectors, len(keys), 0.25)
        self.note_done(request, keys, vectors)

    @precondition(lambda self: self.flying)
    @rule(which=which, status=st.sampled_from(["failed", "useless"]))
    def fail(self, which: int, status: str) -> None:
        request, keys = self.flying.pop(which % len(self.flying))
        self.ledger.ended(request, status, 0, 0.0, "on purpose")
        self.book[request - 1] = (status, tuple(keys), "on purpose")

    @rule()
    def reopen(self) -> None:
        self.stack.close()
        self.open()
        self.flying.clear()  # nobody waits for those any more

    @rule()
    def crash(self) -> None:
        self.go_on_in(self.copied())

    @rule(keys=some_keys, moment=st.integers(0, 9))
    def crash_while_an_answer_is_kept(self, keys: list[bytes], moment: int) -> None:
        """Before the `moment`-th of BEGIN, an INSERT per vector, UPDATE and COMMIT is carried out, or after all."""
        self.send(keys)
        request, _ = self.flying.pop()
        vectors, copies, steps = self.drawn(keys), [], []

        def step(_: str) -> None:
            steps.append(1)
            if len(steps) == moment + 1:
                copies.append(self.copied())

        self.database.set_trace_callback(step)
        self.ledger.done(request, keys, vectors, len(keys), 0.25)
        self.database.set_trace_callback(None)
        assert len(steps) == len(keys) + 3
        if not copies:  # all is done
            copies.append(self.copied())
            self.note_done(request, keys, vectors)
        self.go_on_in(copies[0])

    # --- what must hold

    @invariant()
    def nothing_is_lost_overwritten_or_invented(self) -> None:
        assert self.ledger.missing(KEYS) == [row for row, key in enumerate(KEYS) if key not in self.model]
        kept = np.concatenate([*self.ledger.vectors([*self.model], DIMENSIONS), np.empty((0, DIMENSIONS), "<f4")])
        assert [row.tobytes() for row in kept] == [*self.model.values()]

    @invariant()
    def the_book_is_right(self) -> None:
        assert [(row.status, row.keys, row.note) for row in self.ledger.requests()] == self.book

    @invariant()
    def every_row_passes_its_sha256_and_the_file_is_whole(self) -> None:
        self.ledger.require_whole()
        rows = self.database.execute("SELECT key, sha256, vector FROM vectors").fetchall()
        assert len(rows) == len(self.model)
        assert all(hashlib.sha256(key + vector).digest() == sha256 for key, sha256, vector in rows)

    @rule()
    def a_second_program_reads_the_same(self) -> None:
        with Ledger.reading(self.path) as other:
            assert other.missing(KEYS) == self.ledger.missing(KEYS)
            assert other.requests() == self.ledger.requests()

    @precondition(lambda self: self.model)
    @rule(which=which, at=st.integers(0, 4 * DIMENSIONS - 1), bit=st.integers(0, 7))
    def a_flipped_bit_is_never_served(self, which: int, at: int, bit: int) -> None:
        path, key = self.copied(), [*self.model][which % len(self.model)]
        wrong = bytearray(self.model[key])
        wrong[at] ^= 1 << bit
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE vectors SET vector = ? WHERE key = ?", (bytes(wrong), key))
        with Ledger.reading(path) as other, pytest.raises(IntegrityError, match="1 vectors are damaged or gone"):
            list(other.vectors([*self.model], DIMENSIONS))

    # --- how

    def drawn(self, keys: list[bytes]) -> np.ndarray:
        """Vectors that no answer had before."""
        self.bought += 1
        return np.full((len(keys), DIMENSIONS), self.bought, np.float32) + np.arange(DIMENSIONS, dtype=np.float32)

    def note_done(self, request: int, keys: list[bytes], vectors: np.ndarray) -> None:
        self.book[request - 1] = ("done", tuple(keys), None)
        for key, vector in zip(keys, vectors, strict=True):
            self.model.setdefault(key, vector.tobytes())

    def copied(self) -> Path:
        """The ledger's files as they are now, in a place of their own."""
        self.crashes += 1
        folder = Path(self.home.name, str(self.crashes))
        shutil.copytree(self.path.parent, folder)
        return folder / self.path.name

    def go_on_in(self, copy: Path) -> None:
        """Without closing: that would write."""
        self.left_open.append(self.stack)
        self.path = copy
        self.open()
        self.flying.clear()


class LedgerMachineWithoutLog(LedgerMachine):
    """The same on a network file system, where a rollback journal is used."""

    file_system = "nfs"


TestLedger = LedgerMachine.TestCase
TestLedgerWithoutLog = LedgerMachineWithoutLog.TestCase
TestLedger.settings = TestLedgerWithoutLog.settings = settings(
    max_examples=100, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
