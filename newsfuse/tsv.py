"""Tab-separated files without header or quoting, as MIND has them, read strictly."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import polars as pl

from newsfuse.errors import DataError

TAB, NEWLINE = 9, 10
BOM = b"\xef\xbb\xbf"
BLOCK_BYTES = 1 << 23
"""Read at once, up to the end of a line: some five times that while they are taken apart."""


class Digest(Protocol):
    """What hashlib makes."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes in."""


def read_tsv(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """All rows as text; quotes are text, an empty field is "". Row i is line i + 1 of the file.

    Raises DataError, naming file and line, unless every line has exactly these columns in UTF-8.
    """
    return pl.concat([frame for _, frame in blocks(path, columns)])


def blocks(
    path: Path, columns: Sequence[str], *, lines: int | None = None, digest: Digest | None = None
) -> Iterator[tuple[int, pl.DataFrame]]:
    """The same, so many lines at a time (else BLOCK_BYTES): the number of the first one, and the rows.

    `digest` hears the bytes as they are read. Raises DataError as soon as it comes to a wrong line.
    """
    line = 1
    with opened(path) as file:
        while text := _read(path, file, lines):
            if digest:
                digest.update(text)
            _check_bytes(path, line, text)
            _check_columns(path, line, text, columns)
            frame = _frame(text, columns)
            yield line, frame
            line += len(frame)
    if line == 1:
        message = f"{path}:1: the file is empty; expected a line per row with {len(columns)} tab-separated columns"
        raise DataError(message)


def opened(path: Path) -> BinaryIO:
    """A file of the data set, to be read. Raises DataError for what is not there, or is no file."""
    if path.exists() and not path.is_file() and not path.is_dir():  # a pipe would be waited for, for ever
        message = f"{path}: cannot be read: it is a pipe, a socket or a device; expected a file"
        raise DataError(message)
    try:
        return path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from error


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


def _read(path: Path, file: BinaryIO, lines: int | None) -> bytes:
    try:
        return b"".join(islice(file, lines)) if lines else file.read(BLOCK_BYTES) + file.readline()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read: {error.strerror}")


def _frame(text: bytes, columns: Sequence[str]) -> pl.DataFrame:
    return pl.read_csv(
        text,
        has_header=False,
        separator="\t",
        quote_char=None,
        schema=dict.fromkeys(columns, pl.String),
        empty_string_is_null=False,
    )


def _check_bytes(path: Path, line: int, text: bytes) -> None:
    if line == 1 and text.startswith(BOM):
        message = (
            f"{path}:1: starts with a byte order mark; save it as plain UTF-8 (sed -i '1s/^\\xEF\\xBB\\xBF//' {path})"
        )
        raise DataError(message)
    for byte, name in (
        (b"\r", "a carriage return; save it with Unix line ends (sed -i 's/\\r$//')"),
        (b"\0", "a NUL byte"),
    ):
        if (found := text.find(byte)) >= 0:
            message = f"{path}:{line + _lines(text, found)}: contains {name}"
            raise DataError(message)
    if text.isascii():
        return
    try:
        text.decode()
    except UnicodeDecodeError as error:
        message = f"{path}:{line + _lines(text, error.start)}: not UTF-8 ({error.reason})"
        raise DataError(message) from error


def _check_columns(path: Path, line: int, text: bytes, columns: Sequence[str]) -> None:
    data = np.frombuffer(text, dtype=np.uint8)
    tabs_before = np.searchsorted(np.flatnonzero(data == TAB), _line_ends(data))
    found = np.diff(tabs_before, prepend=0) + 1
    wrong = np.flatnonzero(found != len(columns))
    if len(wrong):
        expected = f"expected {len(columns)} ({', '.join(columns)})"
        message = f"{path}:{line + wrong[0]}: {found[wrong[0]]} tab-separated columns, {expected}"
        raise DataError(message)


def _line_ends(data: np.ndarray) -> np.ndarray:
    ends = np.flatnonzero(data == NEWLINE)
    return ends if data[-1] == NEWLINE else np.append(ends, len(data))


def _lines(text: bytes, end: int) -> int:
    return text.count(b"\n", 0, end)
