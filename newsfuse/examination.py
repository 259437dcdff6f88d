"""Whether a submission is what the competition takes: prediction.zip, read as somebody else's."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile

import numpy as np
import polars as pl

from newsfuse import csr
from newsfuse.errors import DataError
from newsfuse.parsed import COLUMNS
from newsfuse.submission import MEMBER
from newsfuse.tsv import blocks, refuse

PART = 1 << 15
"""Lines compared at once."""
BLOCK_BYTES = 1 << 22
"""Of text unpacked at once."""
LONGEST = 1 << 24
"""Bytes of a line: more than a million candidates. An archive may unpack to anything."""


def examine(archive: Path, behaviors: Path, name: Path | None = None) -> int:
    """The number of impressions, where `archive` ranks every candidate of every line of `behaviors`, in that order.

    `name`: what messages call the archive. Raises DataError, naming archive, member and line, for the first thing that
    is wrong: a line is missing, is one too many, is another impression's, or does not have the ranks 1 to the number of
    its candidates, each once. Some lines are in memory at a time, never all.
    """
    text, impressions = (name or archive) / MEMBER, 0
    with _opened(archive, name or archive) as file:
        found = Lines(text, file)
        for first, frame in blocks(behaviors, COLUMNS, lines=PART):
            lines = found.take(len(frame))
            _compare(text, _expected(first, frame.head(len(lines))).with_columns(text=lines), behaviors)
            if len(lines) < len(frame):
                _refuse_short(text, first + len(lines), frame["impression"][len(lines)], behaviors)
            impressions += len(lines)
        if len(found.take(1)):
            message = f"{text}:{impressions + 1}: a line too many: {behaviors} has {impressions} impressions"
            raise DataError(message)
    return impressions


class Lines:
    """The lines of an unpacked file, so many at a time."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        """`path` is the file's name in messages."""
        self._path, self._file = path, file
        self._rest, self._waiting, self._ended = b"", pl.Series([], dtype=pl.String), False

    def take(self, n: int) -> pl.Series:
        """The next n lines, fewer where the file ends. Raises DataError."""
        parts = [self._waiting]
        while sum(map(len, parts)) < n and not self._ended:
            parts.append(self._block())
        lines = pl.concat(parts)
        self._waiting = lines[n:]
        return lines[:n]

    def _block(self) -> pl.Series:
        block = self._read()
        self._ended = not block
        whole, end, self._rest = (self._rest + block).rpartition(b"\n")
        if self._ended:  # the last line may lack its end
            whole, end, self._rest = self._rest, self._rest, b""
        if len(self._rest) > LONGEST:
            message = f"{self._path}: has a line of more than {LONGEST:,} bytes; expected such as `1 [3,1,2]`"
            raise DataError(message)
        return self._split(whole) if end else pl.Series([], dtype=pl.String)

    def _read(self) -> bytes:
        try:
            return self._file.read(BLOCK_BYTES)
        except (BadZipFile, EOFError, zlib.error) as error:
            message = f"{self._path}: is damaged ({error}). Write it again: newsfuse submission"
            raise DataError(message) from error

    def _split(self, text: bytes) -> pl.Series:
        try:
            words = text.decode()
        except UnicodeDecodeError as error:
            message = f"{self._path}: is not UTF-8 ({error.reason}); expected such as `1 [3,1,2]`"
            raise DataError(message) from error
        return pl.Series([words]).str.split("\n").explode()


@contextmanager
def _opened(archive: Path, name: Path) -> Iterator[IO[bytes]]:
    try:
        with ZipFile(archive) as unpacked:
            names = unpacked.namelist()
            if names.count(MEMBER) != 1:
                message = f"{name}: holds {', '.join(names[:5]) or 'nothing'}; expected {MEMBER}, in no folder"
                raise DataError(message)
            with unpacked.open(MEMBER) as file:
                yield file
    except (BadZipFile, NotImplementedError, RuntimeError) as error:  # RuntimeError: encrypted
        message = f"{name}: is no archive that can be read ({error}). Write it again: newsfuse submission"
        raise DataError(message) from error
    except OSError as error:
        message = f"{name}: cannot be read: {error.strerror or error}"
        raise DataError(message) from error


def _expected(first: int, frame: pl.DataFrame) -> pl.DataFrame:
    """(line, impression, n): the number of candidates of each."""
    count = pl.col("candidates").str.count_matches("[^ ]+")
    return frame.with_row_index("line", first).select("line", "impression", count.alias("n"))


def _compare(path: Path, frame: pl.DataFrame, behaviors: Path) -> None:
    """`frame`: (line, impression, n, text)."""
    word = pl.col("text").str.splitn(" ", 2).struct
    frame = frame.with_columns(id=word.field("field_0"), ranks=word.field("field_1").fill_null(""))
    listed = pl.col("ranks").str.starts_with("[") & pl.col("ranks").str.ends_with("]")
    shape = pl.format("'{}' is no line of a submission; expected such as `1 [3,1,2]`", _short("text"))
    refuse(path, frame, ~listed, shape)
    other = pl.format(
        "impression '{}', but line {} of {} has '{}'; expected every impression once and in the order of that file",
        _short("id"), "line", pl.lit(str(behaviors)), "impression",
    )  # fmt: skip
    refuse(path, frame, pl.col("id") != pl.col("impression"), other)
    frame = frame.with_columns(found=pl.col("ranks").str.count_matches(",", literal=True) + 1)
    wanted = pl.format("{} ranks for {} candidates; expected one for each", "found", "n")
    refuse(path, frame, pl.col("found") != pl.col("n"), wanted)
    plain = pl.format("{} are not the ranks 1 to {}, each once and nothing else", _short("ranks"), "n")
    refuse(path, frame, pl.lit(pl.Series(~_permutations(frame["ranks"], frame["n"].to_numpy()))), plain)


def _permutations(lists: pl.Series, counts: np.ndarray) -> np.ndarray:
    """bool (n,): whether each text, such as "[3,1,2]", is a permutation of 1 to its count, which is that of its words.

    Right numbers in other words, such as "[03,1,2]", make a longer text than those of JSON: so the length is compared.
    """
    ends = csr.offsets(counts)
    ranks = lists.str.slice(1, lists.str.len_bytes() - 2).str.split(",").explode().cast(pl.UInt32, strict=False)
    rank, owner = ranks.fill_null(0).to_numpy().astype(np.int64), csr.owners(ends)
    there = (rank >= 1) & (rank <= counts[owner])
    seen = np.zeros(len(rank), dtype=bool)
    seen[ends[owner[there]] + rank[there] - 1] = True
    digits = csr.offsets(np.char.str_len(np.arange(1, counts.max(initial=0) + 1).astype(str)))
    plain = lists.str.len_bytes().to_numpy() == digits[counts] + counts + 1
    return np.asarray((np.add.reduceat(seen.view(np.int8), ends[:-1], dtype=np.int64) == counts) & plain)


def _short(column: str) -> pl.Expr:
    text = pl.col(column)
    return pl.when(text.str.len_chars() > 40).then(pl.format("{}...", text.str.head(40))).otherwise(text)  # noqa: PLR2004 - a glimpse


def _refuse_short(path: Path, line: int, impression: str, behaviors: Path) -> None:
    message = f"{path}:{line}: the file ends, but impression '{impression}' of {behaviors}:{line} has no ranks yet"
    raise DataError(message)
