"""What a report is made of: sections of notes, tables, charts and examples. How they look is the template's business.

Text may be anything that data can hold. It is made legible and escaped when the page is rendered, nowhere before.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from newsfuse.errors import printable

LONGEST = 600
"""Characters of one text that are shown: the page stays small whatever a title is."""


class AbsentError(Exception):
    """What a section would show is not there; the message is a sentence that the page has in its place."""


@dataclass(frozen=True)
class Figure:
    """A number as it is read, and how far it may be trusted."""

    value: str
    interval: str = ""


Cell = str | Figure
"""Of a table: text stands left, figures right."""


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True)
class Table:
    """Rows under named columns."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


@dataclass(frozen=True)
class Chart:
    """A drawing in two widths, of which the page shows the one that fits. Each is an <svg> element."""

    kind: ClassVar[str] = "chart"
    caption: str
    wide: str
    narrow: str


@dataclass(frozen=True)
class Candidate:
    """An article as an impression showed it."""

    rank: int
    clicked: bool
    headline: str
    """Or the article's id, where the headline is not known."""
    remarks: Sequence[str]
    """Category, score, warm or cold."""
    weights: Sequence[str]
    """Of each encoder, where known."""


@dataclass(frozen=True)
class Example:
    """An impression and the candidates worth a look, best first."""

    kind: ClassVar[str] = "example"
    title: str
    candidates: Sequence[Candidate]


Block = Note | Table | Chart | Example


@dataclass(frozen=True)
class Section:
    """A part of the page under one heading."""

    title: str
    lead: str
    """A sentence on how to read it."""
    blocks: Sequence[Block]


def present(*parts: Callable[[], Iterable[Block]]) -> list[Block]:
    """The blocks of all parts; a part whose input is missing has a sentence in its place, the same one only once."""
    blocks: list[Block] = []
    for part in parts:
        try:
            blocks += part()
        except AbsentError as absent:
            note = Note(str(absent))
            blocks += [] if note in blocks else [note]
    return blocks


def number(value: float | None, digits: int = 4) -> str:
    """A figure's text; a dash where it is not defined."""
    return "–" if value is None or value != value else f"{value:,.{digits}f}"  # noqa: PLR0124, RUF001 - NaN; a dash


def between(low: float | None, high: float | None, digits: int = 4) -> str:
    """An interval's text, nothing where it is not known."""
    if low is None or high is None or low != low or high != high:  # noqa: PLR0124 - NaN
        return ""
    return f"{number(low, digits)} to {number(high, digits)}"


def legible(text: str) -> str:
    """On one line, not too long; control characters and marks that turn the reading direction are shown, not obeyed."""
    line = " ".join(text[:LONGEST].split())
    return printable(f"{line}…" if len(text) > LONGEST else line)
