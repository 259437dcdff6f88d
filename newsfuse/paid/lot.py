"""Texts to be embedded: each once, with its key and its place in the data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

BYTES_PER_TOKEN = 4
"""The estimator: the provider's own rule of thumb for English. What is billed comes back exact."""


@dataclass(frozen=True)
class Lot:
    """Distinct texts."""

    texts: Sequence[str]
    keys: Sequence[bytes]
    place: Callable[[int], str]
    """Where the i-th text comes from, for a reader: file:line (news id). Slow."""

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def sizes(self) -> np.ndarray:
        """int64 (n,): UTF-8 bytes of each text, which no byte-level tokeniser's count exceeds."""
        return pl.Series(self.texts, dtype=pl.String).str.len_bytes().cast(pl.Int64).to_numpy()

    @property
    def tokens(self) -> int:
        """About how many tokens the texts are, all together."""
        return int(-(-self.sizes // BYTES_PER_TOKEN).sum())

    def part(self, start: int, stop: int) -> "Lot":
        """The texts from `start` up to `stop`."""
        return Lot(self.texts[start:stop], self.keys[start:stop], lambda position: self.place(start + position))

    def at(self, positions: Sequence[int]) -> "Lot":
        """The texts at these positions."""
        texts, keys = [self.texts[each] for each in positions], [self.keys[each] for each in positions]
        return Lot(texts, keys, lambda position: self.place(positions[position]))
