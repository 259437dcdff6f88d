"""Strings and their numbers: known article ids, categories, entities; or any, as they come."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Words:
    """Sorted, distinct strings; the i-th has the number i + 1, and 0 means unknown."""

    words: pl.Series

    @classmethod
    def of(cls, values: pl.Series | Iterable[str]) -> "Words":
        """The distinct ones of `values`."""
        return cls(pl.Series("word", values, dtype=pl.String).drop_nulls().unique().sort())

    def __len__(self) -> int:
        return len(self.words)

    def numbers(self, values: pl.Series | Iterable[str]) -> np.ndarray:
        """int64 (len(values),): the number of each value, 0 where it is not known."""
        known = pl.DataFrame({"word": self.words, "number": pl.int_range(1, len(self) + 1, eager=True)})
        asked = pl.DataFrame({"word": pl.Series(values, dtype=pl.String)})
        found = asked.join(known, on="word", how="left", maintain_order="left")
        return found["number"].fill_null(0).cast(pl.Int64).to_numpy()

    def write(self, path: Path) -> None:
        """One word a line, in UTF-8."""
        write_lines(path, self.words)

    @classmethod
    def read(cls, path: Path) -> "Words":
        """What `write` wrote."""
        return cls(read_lines(path).alias("word"))


class Numbering:
    """A number for each string, from 1 on as they come; "" has the number 0."""

    def __init__(self) -> None:
        # a series, and not its type alone, since polars forgets the numbers of a type that no series has any more
        self._nothing = pl.Series([""], dtype=pl.Categorical(pl.Categories.random()))
        self._numbered = 1

    def __len__(self) -> int:
        return self._numbered

    def of(self, values: pl.Series) -> np.ndarray:
        """uint32 (len(values),): the same number for the same string, in every call."""
        numbers = values.cast(self._nothing.dtype).to_physical().to_numpy()
        self._numbered = max(self._numbered, int(numbers.max(initial=0)) + 1)
        return numbers

    def words(self, start: int = 0) -> pl.Series:
        """The string with each number, from the number `start` on."""
        numbers = pl.Series(np.arange(start, len(self), dtype=np.uint32))
        return numbers.cat.to(self._nothing.dtype).cast(pl.String)


def write_lines(path: Path, lines: pl.Series) -> None:
    """One string a line, in UTF-8. Raises OSError."""
    path.write_bytes(f"{lines.str.join(chr(10)).item()}\n".encode() if len(lines) else b"")


def read_lines(path: Path) -> pl.Series:
    """What `write_lines` wrote. Raises OSError, UnicodeDecodeError."""
    text = path.read_bytes().decode()
    return pl.Series([text], dtype=pl.String).str.strip_suffix("\n").str.split("\n").explode() if text else _none()


def _none() -> pl.Series:
    return pl.Series([], dtype=pl.String)
