"""MIND's submission file: the rank of every candidate of every impression, as text."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from newsfuse import csr

CHUNK = 1 << 17
"""Impressions turned into text at once: some 5 million ranks, .5 GB; MIND-large's test set has 2.4 million."""


def write_predictions(
    path: Path, impression_ids: Sequence[str] | pl.Series, ranks: np.ndarray, offsets: np.ndarray
) -> None:
    """Write `prediction.txt`: a line per impression, such as `1 [3,1,2]` where the second of three candidates is best.

    `impression_ids`: (n,), written in this order; `ranks`: int64 (candidates,), as `newsfuse.ranking.ranks` gives them;
    `offsets`: int64 (n + 1,). The file is there whole or not at all. Raises ValueError when the arrays do not belong
    together, OSError when the file cannot be written.

    The format is that which MIND's own script reads, https://github.com/msnews/MIND/blob/master/evaluate.py: it
    splits a line at white space, so there is none inside the brackets. It scores ranks and not scores, so that ties,
    half a pair each in our AUC, have been settled before it sees them.
    """
    ids = pl.Series("impression", impression_ids, dtype=pl.String)
    _check(len(ids), len(ranks), offsets)
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("wb") as file:
            for lines in _lines(ids, ranks, offsets):
                lines.write_csv(file, include_header=False, quote_style="never")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _lines(ids: pl.Series, ranks: np.ndarray, offsets: np.ndarray) -> Iterator[pl.DataFrame]:
    """Lines in one column, a chunk of impressions at a time."""
    for start in range(0, len(ids), CHUNK):
        ends = offsets[start : start + CHUNK + 1]
        lists = _joined(ranks[ends[0] : ends[-1]], csr.lengths(ends))
        yield pl.DataFrame([ids[start : start + CHUNK], lists]).select(pl.format("{} [{}]", "impression", "ranks"))


def _joined(ranks: np.ndarray, lengths: np.ndarray) -> pl.Series:
    """Ranks of each impression with commas between them, "" for an impression without candidates."""
    rows = pl.DataFrame({"row": np.arange(len(lengths))})
    flat = pl.DataFrame({"row": pl.Series(np.repeat(np.arange(len(lengths)), lengths)).set_sorted(), "ranks": ranks})
    lists = flat.group_by("row", maintain_order=True).agg(pl.col("ranks").cast(pl.String).str.join(","))
    return rows.join(lists, on="row", how="left", maintain_order="left")["ranks"].fill_null("")


def _check(impressions: int, candidates: int, offsets: np.ndarray) -> None:
    if len(offsets) != impressions + 1 or offsets[0] != 0 or offsets[-1] != candidates:
        expected = f"{impressions} impression ids need {impressions + 1} offsets that rise from 0 to {candidates}"
        message = f"{expected}, the number of ranks; found {len(offsets)} from {offsets[0]} to {offsets[-1]}"
        raise ValueError(message)
