"""Cutting texts into requests."""

from collections.abc import Iterator

import numpy as np


def packed(sizes: np.ndarray, *, max_inputs: int, max_tokens: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of each request, in order and without gaps, each as full as a request may be.

    `sizes` (n,) are tokens of each text or an upper bound of them. A text of more than `max_tokens`
    gets a request of its own. One step per request, not per text.
    """
    ends = np.cumsum(sizes, dtype=np.int64)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        fitting = int(np.searchsorted(ends, before + max_tokens, side="right"))
        stop = max(start + 1, min(start + max_inputs, fitting))
        yield start, stop
        start = stop
