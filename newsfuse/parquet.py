"""Parquet files: those that others wrote, of which columns are read in batches; and tables of our own."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from newsfuse.errors import DataError, nearest


@dataclass(frozen=True)
class Kind:
    """What the values of a column are."""

    words: str
    """For a user: what is expected."""
    fits: Callable[[object], bool]
    """Whether a polars data type is of this kind."""
    read_as: pl.DataType
    """All the types that fit become this one."""


TEXT = Kind("text", lambda found: found == pl.String, pl.String())
TIME = Kind("dates with times", lambda found: isinstance(found, pl.Datetime), pl.Datetime("us"))
NUMBER = Kind("whole numbers", lambda found: isinstance(found, pl.DataType) and found.is_integer(), pl.Int64())


def lists(of: Kind) -> Kind:
    """Lists of another kind."""
    return Kind(
        f"lists of {of.words}",
        lambda found: isinstance(found, pl.List) and of.fits(found.inner),
        pl.List(of.read_as),
    )


def batches(path: Path, columns: Mapping[str, Kind], *, rows: int) -> Iterator[pl.DataFrame]:
    """The columns, at most so many rows at a time, with the row's number from 1 as `line`.

    Raises DataError when the file is missing, no parquet file, damaged, or lacks a column of that kind.
    """
    try:
        _check(path, columns, pl.read_parquet_schema(path))
        frame = pl.scan_parquet(path, glob=False, row_index_name="line", row_index_offset=1)
        wanted = [pl.col(name).cast(kind.read_as) for name, kind in columns.items()]
        yield from frame.select("line", *wanted).collect_batches(chunk_size=rows)
    except FileNotFoundError as error:
        message = f"{path}: not found"
        raise DataError(message) from error
    except pl.exceptions.PolarsError as error:
        message = f"{path}: not readable as a parquet file ({error}). Fetch it again"
        raise DataError(message) from error


def write(path: Path, table: pl.DataFrame) -> None:
    """Write a table. Raises OSError."""
    try:
        table.write_parquet(path)
    except pl.exceptions.ComputeError as error:  # which polars makes of a full disk
        raise OSError(str(error)) from error


def _check(path: Path, columns: Mapping[str, Kind], found: Mapping[str, pl.DataType]) -> None:
    for name, kind in columns.items():
        if name not in found:
            close = nearest(name, list(found))
            message = f"{path}: no column '{name}' ({kind.words}).{close} Found: {', '.join(found) or 'none'}"
            raise DataError(message)
        if not kind.fits(found[name]):
            message = f"{path}: column '{name}' has the type {found[name]}; expected {kind.words}"
            raise DataError(message)
