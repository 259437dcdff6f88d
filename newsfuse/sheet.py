"""A table of words, and the forms it is printed and written in. Whatever its cells hold stays text in each of them."""

import csv
import html
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from newsfuse.errors import printable
from newsfuse.formulas import is_formula

STYLE = """\
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .5rem 0; }
th, td { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8886; text-align: left; white-space: nowrap; }
.number { text-align: right; }
"""
GAP = 2
"""Columns of the terminal between two of a table."""


@dataclass(frozen=True)
class Sheet:
    """A title, the names of the columns, and rows of cells. The first `names` columns are words, the others figures."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int

    def table(self) -> Table:
        """For a terminal, without the title: what does not fit into a cell goes on below, and nothing is cut."""
        table = grid()
        for number, name in enumerate(self.head):
            # the widest column gives way first: in a terminal of 80 that is one of names, and figures stay whole
            table.add_column(name, justify="left" if number < self.names else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*map(printable, row))
        return table

    def markdown(self) -> str:
        """The title and the table, as GitHub has them."""
        words = [number < self.names for number in range(len(self.head))]
        return f"{_marked(self.title)}\n\n{markdown_table(self.head, self.rows, words)}"

    def html(self) -> str:
        """A `table` element."""
        head = "".join(self._cell("th", number, cell) for number, cell in enumerate(self.head))
        rows = ["".join(self._cell("td", number, cell) for number, cell in enumerate(row)) for row in self.rows]
        body = "\n".join(f"<tr>{row}</tr>" for row in rows)
        caption = f"<caption>{html.escape(printable(self.title))}</caption>"
        table = f"{caption}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>"
        return f"<div><table>\n{table}\n</table></div>\n"

    def _cell(self, tag: str, number: int, cell: str) -> str:
        kind = ' class="number"' if number >= self.names else ""
        return f"<{tag}{kind}>{html.escape(printable(cell))}</{tag}>"


def grid() -> Table:
    """A table for a terminal, without columns yet."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0), show_edge=False)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[bool]) -> str:
    """A table as GitHub has it. `words`: which columns hold words, and stand left; figures stand right."""
    lines = [_row(map(_marked, head)), _row("---" if is_word else "---:" for is_word in words)]
    return "\n".join([*lines, *(_row(map(_marked, row)) for row in rows)]) + "\n"


def markdown(sheets: Sequence[Sheet], words: Sequence[str]) -> str:
    """The sheets, and the sentences below them."""
    return "\n".join([*(sheet.markdown() for sheet in sheets), *(f"{_marked(sentence)}\n" for sentence in words)])


def page(title: str, sheets: Sequence[Sheet], words: Sequence[str]) -> str:
    """A whole HTML page that loads nothing."""
    head = f'<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n<style>\n{STYLE}</style>'
    body = "".join(
        [*(sheet.html() for sheet in sheets), *(f"<p>{html.escape(printable(each))}</p>\n" for each in words)]
    )
    head += f"\n<title>{html.escape(printable(title))}</title>"
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}</body>\n</html>\n'


def comma_separated(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """CSV (RFC 4180 with Unix line ends). What a spreadsheet would take for a formula has a ' before it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_harmless, head))
    writer.writerows([_harmless(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue()


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _marked(text: str) -> str:
    """`text` with all that Markdown or HTML would make something of escaped, on one line."""
    escaped = html.escape(printable(text).replace("\n", " "), quote=False)
    return re.sub(r"([\\`*_{}\[\]|~#@])", r"\\\1", escaped)


def _harmless(text: str) -> str:
    text = printable(text)
    return f"'{text}" if is_formula(text) else text
