"""docs/faults.md says what was measured. These tests run after all others of this folder."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
from faults.book import BOOK, LAST, LEFT_OUT
from faults.page import FAULTS, PAGE, Left, Row, cases, read, written

TESTS = {path for path in Path(__file__).parent.glob("test_fault_*.py") if path.name != LAST}


def everything_ran(request: pytest.FixtureRequest) -> bool:
    """Whether each test that measures something was chosen, and did."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    measuring = [item for item in items if {"measured", "observed"} & {*item.fixturenames}]
    narrowed = any("::" in argument for argument in request.config.args) or request.config.stash[LEFT_OUT]
    measured = request.config.stash[BOOK]
    return not narrowed and {item.path for item in measuring} == TESTS and all(i.nodeid in measured for i in measuring)


def test_the_page_shows_what_was_measured(request: pytest.FixtureRequest) -> None:
    measured, whole = list(chain(*request.config.stash[BOOK].values())), everything_ran(request)
    assert len(cases(measured)) == len(measured), "two rows about the same"
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    others = set() if whole else {row for row in read(page) if not cases([row]) & cases(measured)}
    wanted = written({*measured, *others})
    if request.config.getoption("--write-faults"):
        PAGE.write_text(wanted, encoding="utf-8")
    else:
        assert page == wanted, "out of date; write it anew: python -m pytest tests/faults --run-slow --write-faults"


def test_a_page_can_be_read_back() -> None:
    paid = {Row(1, "a kill", "137, 0", "1 / 3", "≤ 3 (in flight)"), Row(22, "`dvc repro`", "0", "0", "0")}
    rows = paid | {Left(17, "a pipe", "3", "nothing"), Left(13, "a kill", "8, 0", "no `x`, no half")}
    assert read(written(rows)) == rows


def test_every_fault_has_a_row() -> None:
    assert {int(row.fault) for row in read(PAGE.read_text(encoding="utf-8"))} == set(FAULTS)
