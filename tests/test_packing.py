"""Cutting texts into requests."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsfuse.paid.packing import packed

sizes_of_texts = st.lists(st.integers(0, 12), max_size=40)
limits = {"inputs": st.integers(1, 6), "tokens": st.integers(1, 30)}


def cuts(sizes: list[int], inputs: int, tokens: int) -> list[tuple[int, int]]:
    return list(packed(np.array(sizes, dtype=np.int64), max_inputs=inputs, max_tokens=tokens))


@given(sizes=sizes_of_texts, **limits)
def test_requests_follow_each_other_without_gap_or_repeat(sizes: list[int], inputs: int, tokens: int) -> None:
    positions = [position for start, stop in cuts(sizes, inputs, tokens) for position in range(start, stop)]
    assert positions == list(range(len(sizes)))


@given(sizes=sizes_of_texts, **limits)
def test_no_request_is_empty_or_above_a_limit(sizes: list[int], inputs: int, tokens: int) -> None:
    for start, stop in cuts(sizes, inputs, tokens):
        assert 1 <= stop - start <= inputs
        assert sum(sizes[start:stop]) <= tokens or stop - start == 1


@given(sizes=sizes_of_texts, **limits)
def test_every_request_is_as_full_as_it_may_be(sizes: list[int], inputs: int, tokens: int) -> None:
    for start, stop in cuts(sizes, inputs, tokens)[:-1]:
        assert stop - start == inputs or sum(sizes[start : stop + 1]) > tokens


@pytest.mark.parametrize(
    ("sizes", "inputs", "tokens", "expected"),
    [
        ([], 3, 10, []),
        ([1] * 7, 3, 10, [(0, 3), (3, 6), (6, 7)]),
        ([4, 6, 1], 3, 10, [(0, 2), (2, 3)]),  # exactly full
        ([4, 7, 3], 3, 10, [(0, 1), (1, 3)]),
        ([1, 99, 1], 3, 10, [(0, 1), (1, 2), (2, 3)]),  # too large for any request: the provider shall say so
        ([8000] * 40, 2048, 300_000, [(0, 37), (37, 40)]),
        ([1] * 4097, 2048, 300_000, [(0, 2048), (2048, 4096), (4096, 4097)]),
    ],
)
def test_examples(sizes: list[int], inputs: int, tokens: int, expected: list[tuple[int, int]]) -> None:
    assert cuts(sizes, inputs, tokens) == expected


def test_sizes_of_a_narrow_type_do_not_overflow() -> None:
    sizes = np.full(300, 255, dtype=np.uint8)
    assert list(packed(sizes, max_inputs=1000, max_tokens=255 * 200)) == [(0, 200), (200, 300)]
