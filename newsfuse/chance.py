"""Chance that can be repeated: what is drawn depends on what it is drawn for, not on who draws it, where or when.

So a click has the same unclicked articles beside it in one process or in many, on a CPU or on CUDA, and in training
that was interrupted and goes on. Numbers are hashed by the finaliser of SplitMix64 (Steele, Lea, Flood 2014, figure
16), which needs no more than integer arithmetic: the same to the last bit for numpy and for torch.
"""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Numbers = TypeVar("Numbers", np.ndarray, Tensor)
"""int64, of any shape."""

GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
WORD, HALF = (1 << 64) - 1, (1 << 32) - 1


def mixed(*of: int) -> int:
    """A key, 0 to 2^63 - 1, for these numbers in this order; that of other numbers has nothing to do with it."""
    key = 0
    for number in of:
        key = _finished(key ^ _finished((number + GOLDEN) & WORD))
    return key >> 1


def drawn_by(key: int | None) -> int:
    """The key, or one from torch's own generator for a module that was never told any."""
    return int(torch.randint(1 << 62, ())) if key is None else key


def below(key: int, numbers: Numbers, counts: Numbers | int) -> Numbers:
    """int64: for each of the `numbers` one of 0 ... counts - 1, evenly; 0 where the count is 0. Counts < 2^31."""
    # the upper half of a 64-bit product (Lemire 2019): no number is favoured by more than counts / 2^32
    return (_bits(key, numbers) * counts) >> 32


def happens(key: int, numbers: Numbers, share: float) -> Numbers:
    """bool: for each of the `numbers`, whether what happens to such a share of all numbers happens to it."""
    return _bits(key, numbers) < round(share * (HALF + 1))


def fraction(key: int, numbers: Numbers) -> Numbers:
    """float64: for each of the `numbers` something from 0 to 1, 1 excluded."""
    bits = _bits(key, numbers)
    return (bits.astype(np.float64) if isinstance(bits, np.ndarray) else bits.double()) / (HALF + 1)


def _bits(key: int, numbers: Numbers) -> Numbers:
    """int64, 0 to 2^32 - 1: the upper half of SplitMix64's finaliser of key + golden ratio * number."""
    # int64 stands for uint64, which torch cannot multiply: products wrap around alike, shifts must not carry the sign
    word = numbers * _signed(GOLDEN) + _signed(_finished(key))
    word = (word ^ _shifted(word, 30)) * _signed(FIRST)
    word = (word ^ _shifted(word, 27)) * _signed(SECOND)
    return _shifted(word ^ _shifted(word, 31), 32)


def _shifted(word: Numbers, bits: int) -> Numbers:
    return (word >> bits) & (WORD >> bits)


def _finished(word: int) -> int:
    word = ((word ^ (word >> 30)) * FIRST) & WORD
    word = ((word ^ (word >> 27)) * SECOND) & WORD
    return word ^ (word >> 31)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
