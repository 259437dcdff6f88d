"""Known strings and their numbers: article ids, categories, entities."""

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
        known = pl.DataFrame({"word": self.words, "number": np.arange(1, len(self) + 1)})
        asked = pl.DataFrame({"word": pl.Series(values, dtype=pl.String)})
        found = asked.join(known, on="word", how="left", maintain_order="left")
        return found["number"].fill_null(0).cast(pl.Int64).to_numpy()

    def write(self, path: Path) -> None:
        """One word a line, in UTF-8."""
        path.write_text("".join(f"{word}\n" for word in self.words), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Words":
        """What `write` wrote."""
        return cls(pl.Series("word", path.read_text(encoding="utf-8").split("\n")[:-1], dtype=pl.String))
