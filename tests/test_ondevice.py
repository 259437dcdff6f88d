"""Batches that are assembled on a device are those that numpy assembles, tensor by tensor."""

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_batches import LESSONS, MANY, TENSORS, behave, read_first

from newsfuse.batches import Clicks, Lessons, Part, distinct
from newsfuse.ondevice import _distinct, lessons_on, resident

CPU = torch.device("cpu")


HOW = st.fixed_dictionaries(
    {
        "negatives": st.integers(1, 4),
        "history": st.integers(1, 4),
        "key": st.integers(0, 2**63 - 1),
        "part": st.builds(Part, st.integers(0, 2), st.just(3)),
        "start": st.integers(0, 3),
    }
)


@settings(deadline=None)
@given(lessons=LESSONS, size=st.integers(1, 5), how=HOW)
def test_batches_are_equal_to_those_of_numpy(lessons: Lessons, size: int, how: dict[str, Any]) -> None:
    there = resident(lessons, CPU)
    assert len(there) == len(lessons)
    for by_numpy, by_torch in zip(lessons.batches(size, **how), there.batches(size, **how), strict=True):
        assert by_numpy.idle == by_torch.idle
        for name in TENSORS:
            expected, found = getattr(by_numpy, name), getattr(by_torch, name)
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected), name


@settings(deadline=None)
@given(counts=st.lists(st.integers(0, 12), min_size=1, max_size=30), k=st.integers(0, 8), key=st.integers(0, 99))
def test_distinct_numbers_are_those_of_numpy(counts: list[int], k: int, key: int) -> None:
    """Of longer lists than the batches above have."""
    array, rows = np.array(counts, dtype=np.int64), np.arange(len(counts))
    found = _distinct(torch.from_numpy(array), k, key, torch.from_numpy(rows))
    assert np.array_equal(found.numpy(), distinct(array, k, key, rows))


@pytest.mark.parametrize("lessons", [Clicks.of(behave([[1, 2], [3]], MANY)), read_first([[1, 2], [3, 4, 5]], MANY)])
def test_on_a_cpu_numpy_assembles_batches_as_it_is_faster_there(lessons: Lessons) -> None:
    assert lessons_on(lessons, CPU) is lessons


def test_on_any_other_device_they_are_assembled_there() -> None:
    clicks = Clicks.of(behave([[1, 2], [3], []], MANY))
    there = lessons_on(clicks, torch.device("meta"))
    assert {value.device.type for value in vars(there).values() if isinstance(value, torch.Tensor)} == {"meta"}
    assert there is not clicks


class Foreign:
    """Lessons of somebody else."""

    def __len__(self) -> int:
        return 0

    def batches(self, *_arguments: object, **_settings: object) -> None:
        raise NotImplementedError


def test_other_lessons_stay_as_they_are() -> None:
    foreign = Foreign()
    assert lessons_on(foreign, torch.device("meta")) is foreign  # type: ignore[arg-type, comparison-overlap]


def test_arrays_that_may_not_be_written_to_are_left_alone() -> None:
    """As those that are mapped from the shelf."""
    clicks = Clicks.of(behave([[1, 2], [3], []], MANY))
    for array in (clicks.news, clicks.behaviors.history_news, clicks.behaviors.history):
        array.flags.writeable = False
    before = clicks.news.copy()
    assert len(list(islice(resident(clicks, CPU).batches(4, negatives=1, history=5, key=0), 3))) == 3
    assert np.array_equal(clicks.news, before)
