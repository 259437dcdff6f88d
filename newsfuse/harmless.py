"""Text of the data that does no harm where a plot shows it.

DVC writes what is in the CSV files of plots into a script of its HTML page as it is: a category called `</script>` ends
that script, and what follows is live. Without a `<` nothing in a script can end it or begin a comment
(https://html.spec.whatwg.org/multipage/scripting.html#restrictions-for-contents-of-script-elements). And whoever opens
the same file in a spreadsheet would have it work out a category called `=1+1`, or run what stands there
(https://owasp.org/www-community/attacks/CSV_Injection).
"""

import json
from pathlib import Path

import polars as pl
import polars.selectors as cs

from newsfuse.artifact import write_text
from newsfuse.formulas import is_formula

ESCAPED = frozenset('<"\\')
"""Beside what cannot be printed: what ends a script, and what JSON's notation needs for itself."""


def harmless(text: str) -> str:
    r"""`text` in JSON's notation of strings, with `<` as `\u003c` and no control, format or separator character.

    Nor does it begin as a formula does. Other letters of any language stay as they are. `plain` is the way back.
    """
    noted = [char if char.isprintable() and char not in ESCAPED else _noted(char) for char in text]
    if is_formula(text):
        noted[0] = _code(text[0])
    return "".join(noted)


def plain(text: str) -> str:
    """What `harmless` made `text` of; other text, as older versions wrote it, stays as it is."""
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text


def write_csv(path: Path, table: pl.DataFrame) -> None:
    """A table that DVC draws: its text harmless, NaN left empty; there whole or not at all. Raises StorageError."""
    text = cs.string().map_elements(harmless, pl.String)
    write_text(path, table.with_columns(text, cs.float().fill_nan(None)).write_csv())


def _noted(char: str) -> str:
    return _code(char) if char == "<" else json.dumps(char)[1:-1]


def _code(char: str) -> str:
    return f"\\u{ord(char):04x}"
