"""The validation split: what comes last in time."""

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from newsfuse.behaviors import Behaviors
from newsfuse.news import News
from newsfuse.split import is_validation, split

START = np.datetime64("2019-11-09T00:00:00", "s")
DAY = 24 * 60 * 60


def at(*seconds: int) -> np.ndarray:
    return START + np.array(seconds, dtype="timedelta64[s]")


def test_the_last_calendar_day_validates() -> None:
    times = at(0, 3 * DAY, DAY, 3 * DAY - 1, 4 * DAY - 1)
    assert is_validation(times).tolist() == [False, True, False, False, True]


def test_a_day_is_a_calendar_day_not_24_hours() -> None:
    assert is_validation(at(DAY - 1, DAY)).tolist() == [False, True]


def test_a_last_day_of_a_few_impressions_takes_the_day_before_it_along() -> None:
    times = at(*range(80), *(2 * DAY + second for second in range(15)), *(3 * DAY + second for second in range(5)))
    assert is_validation(times).tolist() == [False] * 80 + [True] * 20


def test_the_first_day_is_never_for_validation() -> None:
    assert is_validation(at(*range(99), DAY)).tolist() == [False] * 99 + [True]


def test_of_a_single_day_the_latest_tenth_validates() -> None:
    order = np.random.default_rng(0).permutation(1000)
    late = is_validation(at(*order.tolist()))
    assert sorted(order[late].tolist()) == list(range(900, 1000))


@settings(deadline=None)
@given(seconds=st.lists(st.integers(0, 3 * DAY), min_size=1, max_size=50))
def test_the_two_parts_never_overlap_in_time(seconds: list[int]) -> None:
    times = at(*seconds)
    late = is_validation(times)
    assert late.all() or not late.any() or times[~late].max() < times[late].min()


@settings(deadline=None)
@given(seconds=st.lists(st.integers(0, 3 * DAY), min_size=2, max_size=50, unique=True))
def test_neither_part_is_empty_where_the_times_differ(seconds: list[int]) -> None:
    late = is_validation(at(*seconds))
    assert late.any()
    assert not late.all()


def test_impressions_go_to_one_part_each_with_their_own_candidates(tmp_path: Path) -> None:
    news = tmp_path / "news.tsv"
    news.write_text("".join(f"N{number}\tc\ts\tt\ta\tu\t[]\t[]\n" for number in range(4)), encoding="utf-8")
    path = tmp_path / "behaviors.tsv"
    lines = [f"{number}\tU\t11/{day}/2019 8:00:00 AM\tN0\tN{number}-1\n" for number, day in enumerate((10, 13, 11, 13))]
    path.write_text("".join(lines), encoding="utf-8")
    lessons, validation = split(Behaviors.read(path, News.read(news)))
    assert (lessons.impressions.to_list(), lessons.candidate_news.tolist()) == (["0", "2"], [0, 2])
    assert (validation.impressions.to_list(), validation.candidate_news.tolist()) == (["1", "3"], [1, 3])
