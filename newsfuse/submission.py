"""MIND's submission file: the rank of every candidate of every impression, as text.

The format is that which MIND's own script reads, https://github.com/msnews/MIND/blob/master/evaluate.py: it splits a
line at white space, so there is none inside the brackets. It scores ranks and not scores, so that ties, half a pair
each in our AUC, have been settled before it sees them.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import polars as pl

from newsfuse import csr
from newsfuse.artifact import flush
from newsfuse.errors import StorageError

CHUNK = 1 << 14
"""Impressions turned into text at once: some 60 MB; MIND-large's test set has 2.4 million."""
MEMBER = "prediction.txt"
"""What the competition looks for in the archive."""
LEVEL = 3
"""Of compression: a sixth of the time of the usual 6, for an archive that is 7 % larger (measured)."""

Ranked = tuple[Sequence[str] | pl.Series, np.ndarray, np.ndarray]
"""Impression ids (n,); ranks int64 (candidates,), as `newsfuse.ranking.ranks` gives them; offsets int64 (n + 1,)."""


def write_predictions(
    path: Path, impression_ids: Sequence[str] | pl.Series, ranks: np.ndarray, offsets: np.ndarray
) -> None:
    """Write `prediction.txt`: a line per impression, such as `1 [3,1,2]` where the second of three candidates is best.

    `impression_ids`: (n,), written in this order; `ranks`: int64 (candidates,), as `newsfuse.ranking.ranks` gives them;
    `offsets`: int64 (n + 1,). The file is there whole or not at all. Raises ValueError when the arrays do not belong
    together, OSError when the file cannot be written.
    """
    ids = _ids(impression_ids, ranks, offsets)
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("wb") as file:
            file.writelines(_texts(ids, ranks, offsets))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def lines(parts: Iterable[Ranked]) -> Iterator[bytes]:
    """The text of `prediction.txt`, some lines at a time. Raises ValueError as `write_predictions` does."""
    for ids, ranks, offsets in parts:
        yield from _texts(_ids(ids, ranks, offsets), ranks, offsets)


def write_zip(path: Path, text: Iterable[bytes], check: Callable[[Path], None]) -> None:
    """Write an archive with `prediction.txt`, whose bytes come in parts: no more than a part is in memory.

    The archive is given to `check` before it takes the name `path`: it is there whole and checked, or not at all.
    Same text, same bytes. Raises StorageError, and what `check` raises.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        _pack(draft, text)
        check(draft)
        flush(draft)
        draft.replace(path)
    except OSError as error:
        message = f"{path}: could not be written: {error.strerror or error}. Nothing was left behind"
        raise StorageError(message) from error
    finally:
        draft.unlink(missing_ok=True)


def _pack(path: Path, text: Iterable[bytes]) -> None:
    # a member that is opened by its name, unlike one that is written at once, has no time in it (tested)
    archive = ZipFile(path, "w", ZIP_DEFLATED, compresslevel=LEVEL)
    with archive, archive.open(MEMBER, "w", force_zip64=True) as file:
        file.writelines(text)


def _ids(impression_ids: Sequence[str] | pl.Series, ranks: np.ndarray, offsets: np.ndarray) -> pl.Series:
    ids = pl.Series("impression", impression_ids, dtype=pl.String)
    if len(offsets) != len(ids) + 1 or offsets[0] != 0 or offsets[-1] != len(ranks):
        expected = f"{len(ids)} impression ids need {len(ids) + 1} offsets that rise from 0 to {len(ranks)}"
        message = f"{expected}, the number of ranks; found {len(offsets)} from {offsets[0]} to {offsets[-1]}"
        raise ValueError(message)
    return ids


def _texts(ids: pl.Series, ranks: np.ndarray, offsets: np.ndarray) -> Iterator[bytes]:
    """Lines, a chunk of impressions at a time."""
    for start in range(0, len(ids), CHUNK):
        ends = offsets[start : start + CHUNK + 1]
        lists = _joined(ranks[ends[0] : ends[-1]], csr.lengths(ends))
        frame = pl.DataFrame([ids[start : start + CHUNK], lists]).select(pl.format("{} [{}]", "impression", "ranks"))
        yield frame.write_csv(include_header=False, quote_style="never").encode()


def _joined(ranks: np.ndarray, lengths: np.ndarray) -> pl.Series:
    """Ranks of each impression with commas between them, "" for an impression without candidates."""
    rows = pl.DataFrame({"row": np.arange(len(lengths))})
    flat = pl.DataFrame({"row": pl.Series(np.repeat(np.arange(len(lengths)), lengths)).set_sorted(), "ranks": ranks})
    lists = flat.group_by("row", maintain_order=True).agg(pl.col("ranks").cast(pl.String).str.join(","))
    return rows.join(lists, on="row", how="left", maintain_order="left")["ranks"].fill_null("")
