"""The words of some texts and the sub-words of these words, as numbers of buckets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl

WORD = r"[\pL\pN]+"
LONGEST = 24
"""Letters of a word that are read, the marks of its ends among them."""
BASIS, PRIME = np.uint64(14695981039346656037), np.uint64(1099511628211)
"""Of FNV-1a, 64 bits: a hash that numpy can compute letter by letter, the same in every run and on every machine."""
MIX = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: Knuth's multiplicative hashing, The Art of Computer Programming 3, section 6.4."""


@dataclass(frozen=True)
class Subwords:
    """Texts as lists of words, words as lists of sub-words; both lists lie one after the other, as CSR."""

    text_offsets: np.ndarray
    """int64 (N + 1,): text i has the words `text_words[text_offsets[i]:text_offsets[i + 1]]`."""
    text_words: np.ndarray
    """int64: numbers of words, in the order of the text."""
    word_offsets: np.ndarray
    """int64 (W + 1,): word w has the sub-words in `buckets[word_offsets[w]:word_offsets[w + 1]]`."""
    buckets: np.ndarray
    """int64, less than the number of buckets; a word as a whole is one of its sub-words."""

    @classmethod
    def of(cls, texts: Sequence[str], shortest: int, longest: int, n_buckets: int) -> Self:
        """Sub-words are runs of `shortest` to `longest` letters of a word between marks of its ends, and the word.

        Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information", section 3.2: "<where>" has the
        3-letter runs "<wh", "whe", "her", "ere" and "re>" (https://arxiv.org/abs/1607.04606).
        """
        found = pl.Series(texts, dtype=pl.String).str.to_lowercase().str.extract_all(WORD)
        text_words = found.explode(empty_as_null=False)
        words = text_words.unique().sort()
        hashes, owners = _hashed(words.to_list(), shortest, longest)
        order = np.argsort(owners, kind="stable")
        return cls(
            _offsets(found.list.len().to_numpy()),
            words.search_sorted(text_words).to_numpy().astype(np.int64),
            _offsets(np.bincount(owners, minlength=len(words))),
            _bucket(hashes[order], n_buckets),
        )


def _hashed(words: list[str], shortest: int, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """The hash of each word and then of each run of letters, and the number of the word that it belongs to."""
    letters = _letters(words)
    hashes, owners = [_fnv(letters)], [np.arange(len(words))]
    for n in range(shortest, longest + 1):
        runs = np.lib.stride_tricks.sliding_window_view(letters, n, axis=1)
        owner, place = np.nonzero(runs[:, :, -1])
        hashes.append(_fnv(runs[owner, place]))
        owners.append(owner)
    return np.concatenate(hashes), np.concatenate(owners)


def _letters(words: list[str]) -> np.ndarray:
    """uint64 (W, LONGEST): the code points of "<word>", zeros after its end."""
    marked = np.array([f"<{word[: LONGEST - 2]}>" for word in words], dtype=f"U{LONGEST}")
    return marked.view(np.uint32).reshape(len(words), LONGEST).astype(np.uint64)


def _fnv(letters: np.ndarray) -> np.ndarray:
    """(n, L) -> (n,): zeros do not count."""
    hashes = np.full(len(letters), BASIS)
    for column in letters.T:
        hashes = np.where(column > 0, (hashes ^ column) * PRIME, hashes)
    return hashes


def _bucket(hashes: np.ndarray, n_buckets: int) -> np.ndarray:
    # FNV hardly mixes the last letters into its high bits: words that differ in them alone would fill buckets unevenly
    mixed = (hashes ^ (hashes >> np.uint64(32))) * MIX
    return ((mixed >> np.uint64(32)) % np.uint64(n_buckets)).astype(np.int64)


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
