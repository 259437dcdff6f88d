"""The embed stage with a fault at its n-th operation, for n = 1, 2, 3, ... until a run gets through without it.

SQLite's own method (https://www.sqlite.org/testing.html), with the real stage, plugin, client and a real server on this
machine. An operation is a file or a folder that is created, written, cut, flushed, renamed or removed, or a connection
that is opened, written to or read from. A run that buys 7 texts in 3 requests has 140 of them with a write-ahead log
(74 are writes), 185 without (101 writes), and 37 of them until a ledger is there: by five kinds of fault, that is 1,486
points with SQLite 3.40. Every 17th is tried, and all of them with --run-slow.

Whatever happens, `crash.bench.check_after_fault` holds, and then a plain run mends it all: `check_repair`.
"""

from __future__ import annotations

import errno
import random
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import pytest

pytest.register_assert_rewrite("crash.bench")  # its asserts tell as much as those of a test

from crash.bench import (  # noqa: E402 - see the line above
    FAIL_FROM_THEN_ON,
    FAIL_ONCE,
    FILES,
    HERE,
    KILL,
    KINDS,
    TEAR,
    TEXTS,
    Bench,
    Fault,
    Kept,
    Outcome,
    check_after_fault,
    check_repair,
    kept,
    opened,
)
from crash.power import Disk, recorded  # noqa: E402

from newsfuse.errors import NewsfuseError  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALL = frozenset(KINDS)
GROWING = frozenset({"create", "mkdir", "write"})
FAULTS = {
    "one operation fails": Fault(ALL, FAIL_ONCE, errno.EIO),
    "the disk fails from then on": Fault(FILES, FAIL_FROM_THEN_ON, errno.EIO),
    "the disk is full from then on": Fault(GROWING, FAIL_FROM_THEN_ON, errno.ENOSPC),
    "killed": Fault(ALL, KILL),
    "killed half way through a write": Fault(frozenset({"write"}), TEAR),
}
THINNED = [pytest.param(17, id="every 17th"), pytest.param(1, id="each", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.platform != "linux":
        pytest.skip("LD_PRELOAD and /proc are Linux's")
    if not (compiler := shutil.which("cc")):
        pytest.skip("no C compiler is installed (cc)")
    made = tmp_path_factory.mktemp("shim") / "fail_nth.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", made, HERE / "fail_nth.c", "-ldl"], check=True)
    return made


@pytest.fixture(scope="module")
def bench(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with opened(tmp_path_factory.mktemp("bench"), shim) as made:
        yield made


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_the_shim_sees_what_the_stage_does(bench: Bench, journal: str, tmp_path: Path) -> None:
    """Else no sweep would mean anything: a Python with SQLite inside of it, say, could escape."""
    bench.clear()
    outcome = bench.run(journal=journal, record=tmp_path / "record")
    assert outcome.code == 0, outcome.told
    assert [kind for kind in KINDS if not outcome.counted[kind]] == (["truncate"] if journal == "DELETE" else [])
    assert 100 < sum(outcome.counted.values()) < 300
    log = bench.folder / ".newsfuse" / f"ledger.sqlite-{'wal' if journal == 'WAL' else 'journal'}"
    seen = {(each.kind, each.path) for each in recorded(tmp_path / "record")}
    assert {("write", str(log)), ("sync", str(log)), ("send", "127.0.0.1")} <= seen


@pytest.mark.parametrize("every", THINNED)
@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
@pytest.mark.parametrize("name", FAULTS)
def test_whatever_operation_fails_the_next_run_pays_only_for_what_was_not_kept(
    bench: Bench, name: str, journal: str, every: int
) -> None:
    assert sweep(bench, name, every, journal=journal) == []


@pytest.mark.parametrize("every", THINNED)
@pytest.mark.parametrize("name", FAULTS)
def test_whatever_fails_while_the_ledger_is_made_the_next_run_makes_it(bench: Bench, name: str, every: int) -> None:
    assert sweep(bench, name, max(1, every // 3), recipe="create") == []


def sweep(bench: Bench, name: str, every: int, *, journal: str = "WAL", recipe: str = "embed") -> list[str]:
    """What went wrong, with the operation at which it did."""
    wrong = []
    for nth in count(1 + 3 * list(FAULTS).index(name) % every, every):  # not the same ones for all faults
        bench.clear()
        fault = replace(FAULTS[name], nth=nth)
        outcome = bench.run(fault, journal=journal, recipe=recipe)
        try:
            check_end(bench, fault, outcome)
            check_repair(bench, check_after_fault(bench, outcome), journal=journal)
        except (AssertionError, NewsfuseError, sqlite3.Error) as error:
            wrong.append(f"{nth}, {outcome.fired}: {type(error).__name__}: {error}\n{outcome.told}")
        if not outcome.fired:
            return wrong
    raise AssertionError


def check_end(bench: Bench, fault: Fault, outcome: Outcome) -> None:
    """By the right exit code, in words, and with nothing half done where that can be helped."""
    if fault.action in {KILL, TEAR}:
        assert outcome.code == (-9 if outcome.fired else 0)
        return
    assert outcome.code in {0, 8}, outcome.told
    assert (outcome.code == 8) == ("ERROR: " in outcome.told), outcome.told
    if outcome.fired.partition(" ")[0] not in FILES:  # a connection that breaks is tried again
        assert outcome.code == 0, outcome.told
    if (fault.action, fault.errno) != (FAIL_FROM_THEN_ON, errno.EIO):  # then nothing can be removed
        assert [*bench.folder.rglob(".*.draft")] == []


@pytest.mark.parametrize(
    "every", [pytest.param(29, id="every 29th"), pytest.param(2, id="each 2nd", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_a_run_that_is_killed_while_it_mends_what_a_killed_one_left_can_be_mended(
    bench: Bench, journal: str, every: int
) -> None:
    for nth in count(20, every):
        bench.clear()
        first = bench.run(replace(FAULTS["killed"], nth=nth), journal=journal)
        before = check_after_fault(bench, first)
        second = bench.run(replace(FAULTS["killed"], nth=1 + nth * 7 % 97), journal=journal)
        after = bench.kept()
        assert before.vectors.items() <= after.vectors.items(), (first.fired, second.fired)
        assert {*second.billed} <= TEXTS - before.vectors.keys(), (first.fired, second.fired)
        assert len(second.billed) - len(after.vectors.keys() - before.vectors.keys()) <= 3
        check_repair(bench, after, journal=journal)
        if not first.fired:
            return


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_a_power_cut_at_any_moment_loses_at_most_what_was_in_flight(
    bench: Bench, journal: str, seed: int, tmp_path: Path
) -> None:
    """At each operation, up to five states in which the disk may be found: about 200 of them differ."""
    bench.clear()
    assert bench.run(journal=journal, record=tmp_path / "record").code == 0
    whole, chance, sent = bench.kept(), random.Random(seed), 0  # noqa: S311 - a test that can be run again
    disk, requests = Disk(bench.folder / ".newsfuse"), [texts for _, texts in whole.requests]
    for operation in recorded(tmp_path / "record"):
        disk.apply(operation)
        sent += operation.kind == "send" and operation.data.startswith(b"{")
        for state in disk.cuts(chance):
            check_cut(found(tmp_path / "cut", state), whole, requests[:sent])
    for state in disk.cuts(chance):
        assert found(tmp_path / "cut", state) == whole


def found(folder: Path, state: dict[str, bytes] | None) -> Kept:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in (state or {}).items():
        (folder / name).write_bytes(content)
    return kept(folder / "ledger.sqlite")


def check_cut(now: Kept, whole: Kept, sent: list[list[str]]) -> None:
    """Each request is in the book before it is sent, and what it brought is kept before the next one is."""
    assert [texts for _, texts in now.requests[: len(sent)]] == sent
    assert now.vectors.items() <= whole.vectors.items()
    assert {text for texts in sent[:-1] for text in texts} <= now.vectors.keys()
