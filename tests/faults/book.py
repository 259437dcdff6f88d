"""The book in which the tests of this folder write down what they measured."""

from __future__ import annotations

from typing import Protocol

import pytest
from faults.page import Left, Row

BOOK = pytest.StashKey[dict[str, list[Row | Left]]]()
"""What each test measured, by the test's name."""
LEFT_OUT = pytest.StashKey[list[str]]()
"""Tests that were not chosen."""
LAST = "test_fault_page.py"
"""The tests that read the book."""


class Measured(Protocol):
    """Writes a row into the book."""

    def __call__(self, fault: int, done: str, *, code: int | str, requests: int | str, twice: int | str) -> None: ...


class Observed(Protocol):
    """Writes a row of what costs nothing into the book."""

    def __call__(self, fault: int, done: str, *, code: int | str, left: str) -> None: ...
