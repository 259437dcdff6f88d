"""Flat lists and numbered words, against plain Python."""

from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsfuse.csr import gather, lengths, offsets, owners
from newsfuse.words import Words

LISTS = st.lists(st.lists(st.integers(0, 99), max_size=4), max_size=6)
WORD = st.text(st.characters(codec="utf-8", exclude_characters="\n"))


def flat(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    counts = np.array([len(each) for each in lists], dtype=np.int64)
    return offsets(counts), np.array([value for each in lists for value in each], dtype=np.int64)


@settings(deadline=None)
@given(lists=LISTS)
def test_offsets_are_running_sums_from_zero(lists: list[list[int]]) -> None:
    begins, _ = flat(lists)
    assert begins.tolist() == [0, *accumulate(len(each) for each in lists)]
    assert begins.dtype == np.int64


def test_offsets_do_not_overflow_the_counts_own_type() -> None:
    begins = offsets(np.array([200, 200], dtype=np.uint8))
    assert (begins.tolist(), begins.dtype.name) == ([0, 200, 400], "int64")


@settings(deadline=None)
@given(lists=LISTS)
def test_lengths_and_owners_say_whose_each_value_is(lists: list[list[int]]) -> None:
    begins, _ = flat(lists)
    assert lengths(begins).tolist() == [len(each) for each in lists]
    assert owners(begins).tolist() == [number for number, each in enumerate(lists) for _ in each]


@settings(deadline=None)
@given(lists=LISTS.filter(bool), data=st.data())
def test_gather_lists_the_values_of_the_rows_asked_for(lists: list[list[int]], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1)))
    begins, values = flat(lists)
    picked = values[gather(begins, np.array(rows, dtype=np.int64))]
    assert picked.tolist() == [value for row in rows for value in lists[row]]


@settings(deadline=None)
@given(words=st.lists(WORD), asked=st.lists(WORD))
def test_known_words_are_numbered_from_one_in_sorted_order(words: list[str], asked: list[str]) -> None:
    known = sorted(set(words))
    expected = [known.index(word) + 1 if word in known else 0 for word in [*words, *asked]]
    numbers = Words.of(words).numbers([*words, *asked])
    assert numbers.tolist() == expected
    assert numbers.dtype == np.int64


def test_no_words_know_nothing() -> None:
    assert Words.of([]).numbers(["a"]).tolist() == [0]
    assert Words.of(["a"]).numbers([]).tolist() == []


@settings(deadline=None)
@given(words=st.lists(WORD))
def test_written_words_are_read_back(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    path, written = tmp_path_factory.getbasetemp() / "words.txt", Words.of(words)
    written.write(path)
    assert Words.read(path).words.to_list() == written.words.to_list()


def test_lookalikes_and_odd_line_separators_are_words_of_their_own(tmp_path: Path) -> None:
    words = ["\u0085", "\u2028", "a", "a ", "e\u0301", "\u00e9", "\U0001f5de", "\x0b", ""]
    Words.of(words).write(tmp_path / "words.txt")
    read = Words.read(tmp_path / "words.txt")
    assert len(read) == len(words)
    assert sorted(read.numbers(words).tolist()) == list(range(1, len(words) + 1))
