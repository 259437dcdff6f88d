"""docs/faults.md: what the suite measured, as a page."""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE = Path(__file__).parents[2] / "docs/faults.md"
FAULTS = {
    1: "the paying process is killed",
    2: "dvc is killed, its child lives on",
    3: "a signal to stop",
    4: "two experiments pay at once",
    5: "a storm of rate limits",
    6: "the quota is used up",
    7: "the key is refused",
    8: "no key",
    9: "one text that the provider refuses",
    10: "an answer with wrong vectors",
    11: "no answer that can be read",
    12: "a redirect",
    13: "the disk is full",
    14: "the ledger is damaged",
    15: "an artifact is damaged",
    16: "news that a stage has not seen",
    17: "a hostile table",
    18: "a plugin is broken",
    19: "secrets and hostile text",
    20: "other surroundings",
    21: "the budget",
    22: "something is lost or run again",
    23: "a later stage fails",
    24: "training is killed",
}
"""By the numbers under which the design counts them."""
TEXT = """\
# Faults

What happens when something goes wrong: first to money in `embed`, the one stage that may cost any, then to what the
other stages and commands leave behind. The tables are not written by hand: `tests/faults` causes each fault, with the
real stages, real DVC where it has a part, and a test compares this page with what it measured;

    python -m pytest tests/faults --run-slow --write-faults

writes it anew.

## What may cost money

With the real `openai` client, and a server on this machine that counts every text it would bill for. A text counts as
billed as soon as its request has arrived, even if the answer never got through.

- **exit code**: of the stage that met the fault (DVC itself turns every failure into 255), each attempt's if there
  are several: 0 done · 3 bad data · 4 authentication · 5 quota or budget · 6 provider · 7 integrity · 8 disk ·
  9 plugin · 75 try later · 130 interrupted · 137 killed · 143 terminated.
- **requests**: that arrived at the server until the stage ended / from when it was run again until all vectors were
  there.
- **paid twice**: texts billed more than once over the whole story. What is in flight when a process is killed may
  have been billed without an answer, so the bound is the texts in flight, never more.

| fault | what was done | exit code | requests | paid twice |
|---|---|---|---|---|
"""


UNPAID = """
## What costs nothing

Whoever meets such a fault says what was found, where, and what to do, without a traceback; 0 requests in all.

| fault | what was done | exit code | what is left |
|---|---|---|---|
"""
CELL = r"([^|]+)"


@dataclass(frozen=True, order=True)
class Line:
    """Of a table; `fault` is a number of FAULTS, all else as a reader sees it."""

    fault: int
    done: str
    code: str

    def __str__(self) -> str:
        _, *cells = astuple(self)
        return f"| {' | '.join([f'{self.fault} {FAULTS[self.fault]}', *cells])} |\n"


@dataclass(frozen=True, order=True)
class Left(Line):
    """One line of the second table."""

    left: str


@dataclass(frozen=True, order=True)
class Row(Line):
    """One line of the first table."""

    requests: str
    twice: str


def written(rows: Iterable[Row | Left]) -> str:
    """The page."""
    paid, unpaid = (
        [str(row) for row in sorted(each for each in rows if isinstance(each, kind))] for kind in (Row, Left)
    )
    return "".join([TEXT, *paid, UNPAID, *unpaid])


def read(page: str) -> set[Row | Left]:
    """The rows of a page."""
    return {kind(int(fault), *cells) for kind in (Row, Left) for fault, *cells in _lines(page, len(fields(kind)) - 1)}


def _lines(page: str, cells: int) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = re.findall(rf"(?m)^\| (\d+) [^|]*\| {' [|] '.join([CELL] * cells)} \|$", page)
    return found


def cases(rows: Iterable[Row | Left]) -> set[tuple[object, ...]]:
    """What a row is about, without what was measured."""
    return {(type(row), row.fault, row.done) for row in rows}
