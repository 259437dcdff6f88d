"""Text of the data that does no harm where a plot shows it.

DVC writes what is in the CSV files of plots into a script of its HTML page as it is: a category called `</script>` ends
that script, and what follows is live. Without a `<` nothing in a script can end it or begin a comment
(https://html.spec.whatwg.org/multipage/scripting.html#restrictions-for-contents-of-script-elements).
"""

import json
from pathlib import Path

import polars as pl
import polars.selectors as cs

from newsfuse.artifact import write_text

ESCAPED = frozenset('<"\\')
"""Beside what cannot be printed: what ends a script, and what JSON's notation needs for itself."""


def harmless(text: str) -> str:
    r"""`text` in JSON's notation of strings, with `<` as `\u003c` and no control, format or separator character.

    Other letters of any language stay as they are. `plain` is the way back.
    """
    return "".join(char if char.isprintable() and char not in ESCAPED else _noted(char) for char in text)


def plain(text: str) -> str:
    """What `harmless` made `text` of; other text, as older versions wrote it, stays as it is."""
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text


def write_csv(path: Path, table: pl.DataFrame) -> None:
    """A table that DVC draws: its text harmless, NaN left empty; there whole or not at all. Raises OSError."""
    text = cs.string().map_elements(harmless, pl.String)
    write_text(path, table.with_columns(text, cs.float().fill_nan(None)).write_csv())


def _noted(char: str) -> str:
    return "\\u003c" if char == "<" else json.dumps(char)[1:-1]
