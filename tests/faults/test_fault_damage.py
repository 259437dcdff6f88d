"""A damaged ledger is never written to, never trusted, and rebuilt for nothing by the commands that it names."""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import sys
from contextlib import closing
from signal import SIGKILL
from typing import TYPE_CHECKING

import pytest
from faults import flips
from faults.buyer import BATCH, EMBED, LEDGER, TITLES, Hold

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from faults.book import Measured
    from faults.buyer import Buyer
    from openai_server import OpenAIServer

PAGE = 32_768
HEADER = 100
"""Bytes of the first page before its own header."""
SOME = 100
NEW = ("dev", "N100", "An article that nobody has bought")


def flipped(page: int) -> Callable[[Path], None]:
    """Flip the first byte of a page's header, which says what kind of page it is."""
    offset = PAGE * (page - 1) + (HEADER if page == 1 else 0)

    def damage(ledger: Path) -> None:
        content = bytearray(ledger.read_bytes())
        content[offset] ^= 0xFF
        ledger.write_bytes(content)

    return damage


def cut(share: float) -> Callable[[Path], None]:
    return lambda ledger: os.truncate(ledger, int(share * ledger.stat().st_size))


def foreign_database(ledger: Path) -> None:
    ledger.unlink()
    with closing(sqlite3.connect(ledger)) as database:
        database.executescript("CREATE TABLE bookmarks (url TEXT); INSERT INTO bookmarks VALUES ('https://localhost')")


def foreign_bytes(ledger: Path) -> None:
    ledger.write_bytes(b"%PDF-1.7\n" * 5000)


def remedies(text: str) -> list[str]:
    """The shell commands that a message names, in order."""
    found = re.search(
        r"(?m)Rebuild it for nothing: (mv .+)$|Save its good rows: (\S+ \S+ \S+)\. .*: (newsfuse .+)$", text
    )
    assert found, text
    return [command.replace("<dataset>", "tiny") for command in found.groups() if command]


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("done", "damage"),
    [
        ("a flipped byte in its first page", flipped(1)),
        pytest.param("a flipped byte in the page of requests", flipped(2), marks=slow),
        ("a flipped byte in the page of vectors", flipped(3)),
        pytest.param("a flipped byte in the index of the vectors", flipped(4), marks=slow),
        pytest.param("cut to half", cut(0.5), marks=slow),
        pytest.param("cut to its first 50 bytes", cut(50 / PAGE / 5), marks=slow),
        ("cut to nothing", cut(0)),
        pytest.param("another program's database in its place", foreign_database, marks=slow),
        pytest.param("another program's file in its place", foreign_bytes, marks=slow),
    ],
)  # fmt: skip
def test_a_damaged_ledger_is_left_as_it_is_and_the_named_commands_rebuild_it_for_nothing(
    owner: Buyer, server: OpenAIServer, *, done: str, damage: Callable[[Path], None], measured: Measured
) -> None:
    damage(owner.ledger)
    damaged = owner.ledger.read_bytes()
    owner.add(*NEW)
    outcome = owner.embed()
    assert outcome.code == 7
    assert f"ERROR: {owner.ledger}: " in outcome.text
    assert "Traceback" not in outcome.text
    assert (owner.ledger.read_bytes(), server.requests) == (damaged, 0)

    commands = remedies(outcome.text)
    told = [owner.run("sh", "-c", command) for command in commands]
    assert told[-1].code == 0, told
    assert [each.code for each in told[:-1]] in ([], [7]), told
    assert server.requests == 0
    assert owner.embed().code == 0
    assert owner.wrong() == []
    assert (server.texts, server.twice) == ([NEW[2]], 0)
    named = f"`{'newsfuse ledger verify' if len(commands) > 1 else 'mv'}`, `newsfuse ledger import`"
    measured(
        14,
        f"{done}, one new article; {named} as told, run again",
        code="7, 0",
        requests="0 / 1 (the new text)",
        twice=server.twice,
    )


def test_no_flipped_byte_gives_a_wrong_vector_or_a_second_payment(
    owner: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured
) -> None:
    content = owner.ledger.read_bytes()
    headers = [start + at for start in range(0, len(content), PAGE) for at in range(8)] + list(range(8, HEADER + 8))
    used = [offset for offset, byte in enumerate(content) if byte]
    offsets = sorted({*headers, *random.Random(0).sample(used, SOME)})  # noqa: S311 - no secret
    outcome = owner.run(sys.executable, flips.__file__, *map(str, offsets))
    assert outcome.code == 0, outcome.text
    found = [json.loads(line) for line in outcome.text.splitlines() if line.startswith("{")]
    assert [each["offset"] for each in found] == offsets
    assert [each for each in found if not each["untouched"]] == []
    assert {each["code"] for each in found} == {0, 7}
    assert {each["vectors"] for each in found if each["code"] == 0} == {unbroken["vectors.npy"]}
    assert {each["vectors"] for each in found if each["code"] == 7} == {None}
    assert server.requests == 0
    done = f"each byte of every page's header and {SOME} others flipped, one at a time; all vectors paid"
    measured(14, done, code="0 (right vectors) or 7", requests=0, twice=0)


def test_a_ledger_of_a_newer_version_is_left_to_that(owner: Buyer, server: OpenAIServer, measured: Measured) -> None:
    content = bytearray(owner.ledger.read_bytes())
    content[60:64] = (2).to_bytes(4, "big")
    owner.ledger.write_bytes(content)
    owner.add(*NEW)
    outcome = owner.embed()
    assert outcome.code == 7
    newer = "was written by a newer newsfuse (schema 2, this one knows 1). Update newsfuse"
    assert f"ERROR: {owner.ledger}: {newer}" in outcome.text
    assert (owner.ledger.read_bytes(), server.requests) == (bytes(content), 0)
    measured(14, "a newer schema, one new article", code=7, requests=0, twice=0)


@slow
def test_a_read_only_ledger_may_be_read(
    owner: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured
) -> None:
    owner.ledger.chmod(0o444)
    owner.without_outs()
    assert owner.embed().code == 0
    assert owner.artifact() == unbroken
    owner.add(*NEW)
    outcome = owner.embed()
    assert outcome.code == 7  # even for root, who could write to it
    assert f"ERROR: {owner.ledger}: the ledger is read-only, so nothing may be paid." in outcome.text
    assert server.requests == 0
    allow = re.search(r"Allow it: (chmod .+)$", outcome.text, re.MULTILINE)
    assert allow
    owner.must("sh", "-c", allow[1])
    assert owner.embed().code == 0
    assert (server.texts, server.twice) == ([NEW[2]], 0)
    measured(
        14,
        "mode 0444: nothing missing; one new article; `chmod u+w` as told, run again",
        code="0, 7, 0",
        requests="0 / 0 / 1",
        twice=0,
    )


@slow
def test_a_damaged_log_loses_no_more_than_what_is_in_it(
    buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured
) -> None:
    server.before = hold = Hold(4)
    running = buyer.begin(*EMBED)
    hold.wait()
    running.send(SIGKILL)
    assert running.ended().code == 137
    hold.release()
    log = buyer.root / f"{LEDGER}-wal"
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 0xFF
    log.write_bytes(content)
    left = buyer.kept()
    lost, flying = 3 * BATCH - left, BATCH
    assert lost
    assert buyer.embed().code == 0
    assert buyer.artifact() == unbroken
    assert server.billed == 4 * BATCH + len(TITLES) - left
    assert server.twice == lost + flying
    done = "SIGKILL in the fourth request, then a flipped byte in the middle of the write-ahead log; run again"
    twice = f"{server.twice} ({lost} lost with the log, {flying} in flight)"
    measured(14, done, code="137, 0", requests=f"4 / {server.requests - 4}", twice=twice)


@slow
def test_in_dvc_repro_which_deletes_the_artifact_first_a_checkout_brings_it_back(
    reproduced: Buyer, server: OpenAIServer, measured: Measured
) -> None:
    cut(0)(reproduced.ledger)
    reproduced.add(*NEW)
    outcome = reproduced.run("dvc", "repro", "embed")
    assert outcome.code == 255
    assert "exited with 7" in outcome.text
    (command,) = remedies(outcome.text)
    reproduced.must("sh", "-c", f"dvc checkout embed && {command}")
    assert server.requests == 0
    assert reproduced.dvc("repro", "embed").ran == ["embed"]
    assert reproduced.wrong() == []
    assert (server.texts, server.twice) == ([NEW[2]], 0)
    done = "cut to nothing, one new article, `dvc repro`; `dvc checkout embed`, then as told, `dvc repro`"
    measured(14, done, code="7, 0", requests="0 / 1 (the new text)", twice=0)
