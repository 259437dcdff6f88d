"""Chance that can be repeated: the same to the last bit for numpy and torch, even, and of each key its own."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from newsfuse.chance import _bits, _finished, below, drawn_by, fraction, happens, mixed

KEYS = st.integers(0, 2**63 - 1)
NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20)
MANY = np.arange(100_000)


def both(numbers: list[int]) -> tuple[np.ndarray, torch.Tensor]:
    array = np.array(numbers, dtype=np.int64)
    return array, torch.from_numpy(array.copy())


def test_words_are_those_of_splitmix64() -> None:
    """Of seed 1234567, as in the known answers that go with its published implementations."""
    golden = 0x9E3779B97F4A7C15
    words = [_finished((1234567 + number * golden) % 2**64) for number in range(1, 4)]
    assert words == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@settings(deadline=None)
@given(key=KEYS, numbers=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=9))
def test_arrays_are_hashed_as_integers_are(key: int, numbers: list[int]) -> None:
    golden = 0x9E3779B97F4A7C15
    words = [_finished((number * golden + _finished(key)) % 2**64) >> 32 for number in numbers]
    assert _bits(key, np.array(numbers, dtype=np.int64)).tolist() == words


@settings(deadline=None)
@given(key=KEYS, numbers=NUMBERS, count=st.integers(0, 2**31 - 1), share=st.floats(0, 1))
def test_numpy_and_torch_draw_the_same_to_the_last_bit(key: int, numbers: list[int], count: int, share: float) -> None:
    array, tensor = both(numbers)
    pairs = [
        (below(key, array, count), below(key, tensor, count)),
        (below(key, array, np.full_like(array, count)), below(key, tensor, torch.full_like(tensor, count))),
        (happens(key, array, share), happens(key, tensor, share)),
        (fraction(key, array), fraction(key, tensor)),
    ]
    for drawn, by_torch in pairs:
        assert drawn.dtype == by_torch.numpy().dtype
        assert drawn.tobytes() == by_torch.numpy().tobytes()


@settings(deadline=None)
@given(key=KEYS, numbers=NUMBERS, count=st.integers(1, 2**31 - 1), share=st.floats(0, 1))
def test_what_is_drawn_is_within_bounds(key: int, numbers: list[int], count: int, share: float) -> None:
    array = np.array(numbers, dtype=np.int64)
    assert all(0 <= number < count for number in below(key, array, count).tolist())
    assert all(0 <= number < 1 for number in fraction(key, array).tolist())
    assert not below(key, array, 0).any()
    assert not happens(key, array, 0.0).any()
    assert happens(key, array, 1.0).all()


@settings(deadline=None)
@given(key=KEYS, numbers=st.lists(st.integers(0, 99), min_size=1, max_size=9), data=st.data())
def test_a_number_has_its_draw_in_whatever_company(key: int, numbers: list[int], data: st.DataObject) -> None:
    array = np.array(numbers, dtype=np.int64)
    chosen = data.draw(st.permutations(range(len(numbers))))
    assert np.array_equal(below(key, array[chosen], 1000), below(key, array, 1000)[chosen])


@pytest.mark.parametrize("key", [0, 1, 2, 2**62])
@pytest.mark.parametrize("count", [2, 7, 100])
def test_all_numbers_are_drawn_equally_often(key: int, count: int) -> None:
    assert chisquare(np.bincount(below(key, MANY, count), minlength=count)).pvalue > 1e-4


def test_the_evenness_itself_is_that_of_chance() -> None:
    """Draws that are too even are no chance either: chi-squares of 500 keys are spread as they ought to be."""
    found = [chisquare(np.bincount(below(mixed(key), MANY[:2000], 20), minlength=20)).pvalue for key in range(500)]
    assert kstest(found, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_is_kept(share: float) -> None:
    assert happens(3, MANY, share).mean() == pytest.approx(share, abs=0.005)
    assert fraction(3, MANY).mean() == pytest.approx(0.5, abs=0.003)


def test_draws_of_neighbours_and_of_neighbouring_keys_have_nothing_to_do_with_each_other() -> None:
    """Correlations of 100,000 pairs: their deviation is .003."""
    draws = np.stack([fraction(key, MANY) for key in (0, 1, 2, mixed(0), mixed(1), mixed(0, 1), mixed(1, 0))])
    between = np.corrcoef(draws)[np.triu_indices(len(draws), 1)]
    within = [np.corrcoef(draw[lag:], draw[:-lag])[0, 1] for draw in draws for lag in (1, 2, 64)]
    assert np.abs([*between, *within]).max() < 0.015


def test_keys_are_told_apart_by_what_they_are_for_and_in_which_order() -> None:
    numbers = range(-2, 30)
    keys = {mixed(one, two) for one in numbers for two in numbers} | {mixed(one) for one in numbers}
    assert len(keys) == len(numbers) ** 2 + len(numbers)
    assert all(0 <= key < 2**63 for key in keys)


def test_a_key_is_the_same_in_every_process() -> None:
    code = "import numpy as n; from newsfuse.chance import *; print(mixed(5, -1), below(mixed(5, -1), n.arange(4), 99))"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs == [f"{mixed(5, -1)} {below(mixed(5, -1), np.arange(4), 99)}\n"] * 2


def test_without_a_key_one_is_drawn_by_torchs_own_generator() -> None:
    torch.manual_seed(1)
    once, another = drawn_by(None), drawn_by(None)
    torch.manual_seed(1)
    assert drawn_by(None) == once != another
    assert drawn_by(7) == 7
    assert drawn_by(0) == 0
