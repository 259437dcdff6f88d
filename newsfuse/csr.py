"""Lists of different lengths in flat arrays: list i is `values[offsets[i]:offsets[i + 1]]`."""

import numpy as np
import polars as pl


def offsets(counts: np.ndarray) -> np.ndarray:
    """int64 (n + 1,): where each of the n lists of `counts` values begins, and where the last ends."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def runs(values: pl.Series) -> np.ndarray:
    """int64 (n + 1,): the n stretches of equal neighbours in `values`."""
    return offsets(values.rle().struct.field("len").to_numpy())


def lengths(offsets: np.ndarray) -> np.ndarray:
    """int64 (n,): how many values each list has."""
    return np.asarray(np.diff(offsets))


def owners(offsets: np.ndarray) -> np.ndarray:
    """int64 (len(values),): the number of the list that each value belongs to."""
    return np.repeat(np.arange(len(offsets) - 1), lengths(offsets))


def gather(offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """int64: the positions of all values of the lists `rows`, list after list."""
    counts = lengths(offsets)[rows]
    ends = np.cumsum(counts)
    shifts = np.repeat(offsets[rows] - (ends - counts), counts)
    return np.asarray(np.arange(len(shifts)) + shifts)
