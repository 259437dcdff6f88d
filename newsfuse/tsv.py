"""Tab-separated files without header or quoting, as MIND has them, read strictly."""

import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from newsfuse.errors import DataError

TAB, NEWLINE = 9, 10
BOM = b"\xef\xbb\xbf"


def read_tsv(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """All rows as text; quotes are text, an empty field is "". Row i is line i + 1 of the file.

    Raises DataError, naming file and line, unless every line has exactly these columns in UTF-8.
    """
    _check(path, columns)
    return pl.read_csv(
        path,
        has_header=False,
        separator="\t",
        quote_char=None,
        schema=dict.fromkeys(columns, pl.String),
        empty_string_is_null=False,
        glob=False,
    )


def refuse(path: Path, frame: pl.DataFrame, wrong: pl.Expr, because: pl.Expr) -> None:
    """Raise DataError for the first row for which `wrong` holds, in the words of `because`.

    A frame with a column `line` says itself which line a row came from.
    """
    bad = (frame if "line" in frame.columns else frame.with_row_index("line", 1)).filter(wrong).head(1)
    if len(bad):
        line, reason = bad.select(pl.col("line"), because.alias("reason")).row(0)
        message = f"{path}:{line}: {reason}"
        raise DataError(message)


def line_of(path: Path, news_id: str) -> int:
    """The line that starts with `news_id`, 0 if there is none. Slow: for error messages only."""
    start = news_id.encode() + b"\t"
    with path.open("rb") as file:
        return next((number for number, line in enumerate(file, 1) if line.startswith(start)), 0)


def places(news_id: str, paths: Iterable[Path]) -> Iterator[str]:
    """`path:line (news id)` for each of the files that has the article. Slow: for error messages only."""
    return (f"{path}:{line} ({news_id})" for path in paths if (line := line_of(path, news_id)))


def _check(path: Path, columns: Sequence[str]) -> None:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            _check_bytes(path, text)
            _check_columns(path, text, columns)
    except ValueError as error:  # mmap refuses an empty file
        message = f"{path}:1: the file is empty; expected a line per row with {len(columns)} tab-separated columns"
        raise DataError(message) from error
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}"
        raise DataError(message) from error


def _check_bytes(path: Path, text: mmap.mmap) -> None:
    if text[:3] == BOM:
        message = (
            f"{path}:1: starts with a byte order mark; save it as plain UTF-8 (sed -i '1s/^\\xEF\\xBB\\xBF//' {path})"
        )
        raise DataError(message)
    for byte, name in (
        (b"\r", "a carriage return; save it with Unix line ends (sed -i 's/\\r$//')"),
        (b"\0", "a NUL byte"),
    ):
        if (found := text.find(byte)) >= 0:
            message = f"{path}:{_line(text, found)}: contains {name}"
            raise DataError(message)
    try:
        str(text, "utf-8")
    except UnicodeDecodeError as error:
        message = f"{path}:{_line(text, error.start)}: not UTF-8 ({error.reason})"
        raise DataError(message) from error


def _check_columns(path: Path, text: mmap.mmap, columns: Sequence[str]) -> None:
    data = np.frombuffer(text, dtype=np.uint8)
    tabs_before = np.searchsorted(np.flatnonzero(data == TAB), _line_ends(data))
    found = np.diff(tabs_before, prepend=0) + 1
    del data  # an array over a memory map keeps it from being closed
    wrong = np.flatnonzero(found != len(columns))
    if len(wrong):
        expected = f"expected {len(columns)} ({', '.join(columns)})"
        message = f"{path}:{wrong[0] + 1}: {found[wrong[0]]} tab-separated columns, {expected}"
        raise DataError(message)


def _line_ends(data: np.ndarray) -> np.ndarray:
    ends = np.flatnonzero(data == NEWLINE)
    return ends if data[-1] == NEWLINE else np.append(ends, len(data))


def _line(text: mmap.mmap, position: int) -> int:
    return text[:position].count(b"\n") + 1
