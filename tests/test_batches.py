"""Batches: every click once, beside articles of its own impression that were not clicked."""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from newsfuse.batches import (
    AHEAD,
    WHOLE,
    WINDOW,
    Batch,
    Clicks,
    Histories,
    Lessons,
    Part,
    distinct,
    numbered,
    prefetched,
    recent,
    shuffled,
)
from newsfuse.behaviors import Behaviors
from newsfuse.csr import offsets

ARTICLE = st.integers(-1, 9)
HISTORIES = st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=4)
SHOWN = st.lists(st.lists(st.tuples(ARTICLE, st.integers(0, 1)), min_size=1, max_size=6), min_size=1, max_size=6)
Shown = list[list[tuple[int, int]]]
TENSORS = ("news", "history", "clicked", "candidates", "shown")


def behave(histories: list[list[int]], shown: Shown, which: list[int] | None = None) -> Behaviors:
    """Impressions that show (article, label) pairs; impression i has history `which[i]`."""
    n = len(shown)
    chosen = which or [number % len(histories) for number in range(n)]
    return Behaviors(
        impressions=pl.Series([str(number) for number in range(n)], dtype=pl.String),
        users=np.zeros(n, dtype=np.int32),
        times=np.zeros(n, dtype="datetime64[s]"),
        history=np.array(chosen, dtype=np.int32),
        history_offsets=offsets(np.array([len(each) for each in histories])),
        history_news=np.array([article for each in histories for article in each], dtype=np.int32),
        candidate_offsets=offsets(np.array([len(each) for each in shown])),
        candidate_news=np.array([article for each in shown for article, _ in each], dtype=np.int32),
        labels=np.array([label for each in shown for _, label in each], dtype=np.int8),
    )


def learnable(shown: Shown) -> list[tuple[int, int]]:
    """(impression, clicked article), in plain Python: known articles, beside an unclicked known one."""
    return [
        (number, article)
        for number, each in enumerate(shown)
        for article, label in each
        if label and article >= 0 and any(other >= 0 and not clicked for other, clicked in each)
    ]


def articles(batch: Batch, cells: torch.Tensor, used: torch.Tensor) -> list[list[int]]:
    """The articles in the used cells of each row."""
    return [batch.news[row[use]].tolist() for row, use in zip(cells, used, strict=True)]


def same(one: Batch, two: Batch) -> bool:
    return one.idle == two.idle and all(torch.equal(getattr(one, name), getattr(two, name)) for name in TENSORS)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@settings(deadline=None)
@given(counts=st.lists(st.integers(0, 8), max_size=6), k=st.integers(0, 5), seed=st.integers(0, 99))
def test_drawn_numbers_are_distinct_below_their_count_and_then_minus_one(counts: list[int], k: int, seed: int) -> None:
    picks = distinct(np.array(counts, dtype=np.int64), k, seed, np.arange(len(counts)))
    assert picks.shape == (len(counts), k)
    for count, row in zip(counts, picks.tolist(), strict=True):
        drawn = row[: min(count, k)]
        assert len(set(drawn)) == len(drawn)
        assert all(0 <= number < count for number in drawn)
        assert row[len(drawn) :] == [-1] * (k - len(drawn))


def test_every_ordered_draw_is_equally_likely() -> None:
    draws = 24_000
    seen = Counter(map(tuple, distinct(np.full(draws, 4), 3, 0, np.arange(draws)).tolist()))
    expected = draws / 24  # 4 * 3 * 2 ordered draws
    chi_square = sum((count - expected) ** 2 / expected for count in seen.values())
    assert len(seen) == 24
    assert chi_square < 60  # of 23 degrees of freedom: passed by chance less than once in 10,000 seeds


@settings(deadline=None)
@given(histories=HISTORIES, most=st.integers(1, 7), data=st.data())
def test_the_latest_clicks_come_first(histories: list[list[int]], most: int, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(histories) - 1), min_size=1))
    behaviors = behave(histories, [[(0, 1)]])
    news, clicked = recent(behaviors, np.array(rows), most)
    latest = [histories[row][::-1][:most] for row in rows]
    assert news.shape == clicked.shape == (len(rows), max(1, *map(len, latest)))
    assert [row[use].tolist() for row, use in zip(news, clicked, strict=True)] == latest
    assert all(use == sorted(use, reverse=True) for use in clicked.tolist())


def test_cells_without_a_click_cost_no_further_article() -> None:
    news, clicked = recent(behave([[3, 4, 5], [7]], [[(0, 1)]]), np.array([0, 1]), 50)
    assert (news.tolist(), clicked.tolist()) == ([[5, 4, 3], [7, 7, 7]], [[True] * 3, [True, False, False]])


def test_no_histories_at_all_are_one_empty_column() -> None:
    news, clicked = recent(behave([[]], [[(0, 1)]]), np.array([0, 0]), 50)
    assert (news.shape, clicked.tolist()) == ((2, 1), [[False], [False]])


@settings(deadline=None)
@given(shown=SHOWN)
def test_clicks_are_those_that_can_be_learned_from(shown: Shown) -> None:
    clicks = Clicks.of(behave([[1]], shown))
    assert list(zip(clicks.impression.tolist(), clicks.news.tolist(), strict=True)) == learnable(shown)
    assert len(clicks) == len(learnable(shown))
    unclicked = [clicks.unclicked_news[first:last].tolist() for first, last in pairwise(clicks.unclicked_offsets)]
    assert unclicked == [[article for article, label in each if article >= 0 and not label] for each in shown]


@pytest.mark.parametrize(
    "impression",
    [
        pytest.param([(-1, 1), (2, 0)], id="the clicked article is unknown"),
        pytest.param([(1, 1), (2, 1)], id="everything was clicked"),
        pytest.param([(1, 1), (-1, 0)], id="the unclicked article is unknown"),
        pytest.param([(1, 0), (2, 0)], id="nothing was clicked"),
    ],
)
def test_what_teaches_nothing_is_left_out(impression: list[tuple[int, int]]) -> None:
    clicks = Clicks.of(behave([[1]], [impression, [(3, 1), (4, 0)]]))
    assert (clicks.impression.tolist(), clicks.news.tolist()) == ([1], [3])


@settings(deadline=None)
@given(histories=HISTORIES, shown=SHOWN, negatives=st.integers(1, 6), most=st.integers(1, 4), seed=st.integers(0, 9))
def test_a_batch_points_at_the_articles_of_its_clicks(
    histories: list[list[int]], shown: Shown, negatives: int, most: int, seed: int
) -> None:
    clicks = Clicks.of(behave(histories, shown))
    rows = np.arange(len(clicks))
    batch = clicks.batch(rows, negatives=negatives, history=most, key=seed)
    candidates = articles(batch, batch.candidates, batch.shown)
    read = articles(batch, batch.history, batch.clicked)
    for row, (impression, clicked) in enumerate(learnable(shown)):
        drawn, unclicked = candidates[row][1:], [a for a, label in shown[impression] if a >= 0 and not label]
        assert candidates[row][0] == clicked
        assert len(drawn) == min(negatives, len(unclicked))
        assert not Counter(drawn) - Counter(unclicked)
        assert read[row] == histories[impression % len(histories)][::-1][:most]


@settings(deadline=None)
@given(histories=HISTORIES, shown=SHOWN.filter(learnable))
def test_a_batch_holds_each_article_once_and_nothing_beyond_its_impressions(
    histories: list[list[int]], shown: Shown
) -> None:
    clicks = Clicks.of(behave(histories, shown))
    batch = clicks.batch(np.arange(len(clicks)), negatives=3, history=5, key=0)
    used = {a for row in articles(batch, batch.candidates, batch.shown) for a in row}
    used |= {a for row in articles(batch, batch.history, batch.clicked) for a in row}
    filler = (
        set() if batch.clicked.any(dim=1).all() else {batch.news[batch.history[~batch.clicked.any(dim=1)][0, 0]].item()}
    )
    assert sorted(batch.news.tolist()) == sorted(used | filler)
    assert int(batch.candidates.max()) < len(batch.news)
    assert int(batch.history.max()) < len(batch.news)


MANY: Shown = [[(number % 10, 1), ((number + 3) % 10, 0), ((number + 5) % 10, 0)] for number in range(25)]


def epoch(seed: int, size: int = 4) -> list[Batch]:
    clicks = Clicks.of(behave([[1, 2], [3], []], MANY))
    return list(clicks.batches(size, negatives=1, history=5, key=seed))


def test_an_epoch_has_every_click_once() -> None:
    batches = epoch(seed=0)
    assert sorted(len(batch.candidates) for batch in batches) == [1] + [4] * 6
    clicked = [int(article) for batch in batches for article in batch.news[batch.candidates[:, 0]]]
    assert sorted(clicked) == sorted(number % 10 for number in range(25))


def test_the_same_seed_gives_the_same_batches() -> None:
    for one, two in zip(epoch(seed=3), epoch(seed=3), strict=True):
        assert same(one, two)


def test_another_seed_gives_another_order() -> None:
    one, two = (torch.cat([batch.news[batch.candidates[:, 0]] for batch in epoch(seed)]) for seed in (3, 4))
    assert not torch.equal(one, two)


def test_no_clicks_are_no_batches() -> None:
    clicks = Clicks.of(behave([[1]], [[(1, 0)]]))
    assert list(clicks.batches(4, negatives=1, history=5, key=0)) == []


def test_a_batch_moves_as_a_whole() -> None:
    batch = epoch(seed=0)[0].to(torch.device("meta"))
    assert {getattr(batch, name).device.type for name in TENSORS} == {"meta"}


@settings(deadline=None)
@given(values=st.lists(st.integers(0, 50), max_size=60))
def test_articles_are_numbered_as_they_would_be_by_sorting(values: list[int]) -> None:
    distinct_values, places = numbered(np.array(values, dtype=np.int64).reshape(-1, 1))
    assert sorted(distinct_values.tolist()) == sorted(set(values))
    assert distinct_values[places].ravel().tolist() == values


# --- batches of like length


@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 50), max_size=300), size=st.integers(1, 7), seed=st.integers(0, 9))
def test_every_number_is_in_one_batch_of_full_size_but_for_the_last(lengths: list[int], size: int, seed: int) -> None:
    batches = list(shuffled(np.array(lengths, dtype=np.int64), size, seed))
    assert sorted(number for batch in batches for number in batch.tolist()) == list(range(len(lengths)))
    left = [len(lengths) % size] if len(lengths) % size else []
    assert sorted(map(len, batches)) == [*left, *[size] * (len(lengths) // size)]


def test_little_of_a_batch_is_padding(rng: np.random.Generator) -> None:
    lengths = rng.integers(1, 51, size=20_000)
    cells = sum(lengths[batch].max() * len(batch) for batch in shuffled(lengths, 32, 0))
    assert lengths.sum() / cells > 0.95
    assert lengths.sum() / (20_000 * 50) < 0.52  # without sorting


def test_short_and_long_batches_come_in_no_order(rng: np.random.Generator) -> None:
    lengths = rng.integers(1, 51, size=32 * WINDOW)
    means = [lengths[batch].mean() for batch in shuffled(lengths, 32, 0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


# --- batches made ahead


def some_batches() -> Iterator[Batch]:
    return Clicks.of(behave([[1, 2], [3], []], MANY)).batches(4, negatives=1, history=5, key=7)


def test_batches_made_ahead_are_the_same() -> None:
    with prefetched(some_batches()) as made:
        for one, two in zip(made, some_batches(), strict=True):
            assert same(one, two)


def test_only_a_few_batches_are_made_ahead() -> None:
    made = []

    def endless() -> Iterator[Batch]:
        while True:
            made.append(1)
            yield next(some_batches())

    with prefetched(endless()) as batches:
        assert len(list(islice(batches, 3))) == 3
    assert len(made) <= 3 + AHEAD


def test_what_goes_wrong_in_the_thread_is_told() -> None:
    def failing() -> Iterator[Batch]:
        yield from islice(some_batches(), 2)
        message = "no more"
        raise OSError(message)

    with prefetched(failing()) as batches:
        assert len(list(islice(batches, 2))) == 2
        with pytest.raises(OSError, match="no more"):
            next(batches)


def test_a_loop_that_is_left_leaves_no_thread() -> None:
    before = threading.active_count()

    def leave() -> None:
        with prefetched(some_batches()) as batches:
            next(batches)
            assert threading.active_count() == before + 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert threading.active_count() == before


# --- histories


def held_out(histories: list[list[int]], *, negatives: int, most: int, seed: int) -> Batch:
    shown: Shown = [[(0, 1), (1, 0)]] * len(histories)
    behaviors = replace(behave(histories, shown), users=np.arange(len(histories), dtype=np.int32))
    (batch,) = Histories.of(behaviors).batches(len(histories), negatives=negatives, history=most, key=seed)
    return batch


@settings(deadline=None)
@given(
    histories=st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=6), min_size=1, max_size=5),
    negatives=st.integers(1, 6),
    most=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_a_click_is_held_out_and_what_was_read_before_it_is_the_history(
    histories: list[list[int]], negatives: int, most: int, seed: int
) -> None:
    batch = held_out(histories, negatives=negatives, most=most, seed=seed)
    read, candidates = articles(batch, batch.history, batch.clicked), articles(batch, batch.candidates, batch.shown)
    everything = {article for history in histories for article in history}
    assert batch.candidates.shape == (len(histories), 1 + negatives)
    for row, (held, *drawn) in zip(read, candidates, strict=True):
        pasts = [h[:place][::-1][:most] for h in histories for place in range(1, len(h)) if h[place] == held]
        assert row in pasts
        assert set(drawn) <= everything - {held} - set(row)


def test_any_click_but_the_first_may_be_held_out() -> None:
    held = Counter(
        int(b.news[b.candidates[0, 0]])
        for b in (held_out([[1, 2, 3, 4]], negatives=1, most=9, seed=s) for s in range(300))
    )
    assert set(held) == {2, 3, 4}
    assert min(held.values()) > 60


def test_popular_articles_are_drawn_more_often() -> None:
    """Else the model would learn who is popular instead of who is alike."""
    batches = [held_out([[1, 1, 1, 1, 1, 1, 2], [8, 9]], negatives=40, most=9, seed=seed) for seed in range(30)]
    drawn = Counter(
        article
        for batch in batches
        for row in articles(batch, batch.candidates, batch.shown)
        if row[0] == 9
        for article in row[1:]
    )
    assert drawn[1] / drawn[2] == pytest.approx(6, rel=0.3)


def test_only_the_first_history_of_a_user_counts() -> None:
    """A later one contains clicks that are labels of impressions."""
    behaviors = behave([[1, 2], [1, 2, 3], [1, 2, 3, 4], [5, 6]], [[(0, 1), (1, 0)]] * 5, which=[2, 1, 0, 3, 3])
    times = np.array([3, 2, 1, 1, 2], dtype="datetime64[s]")
    histories = Histories.of(replace(behaviors, users=np.array([7, 7, 7, 8, 8], dtype=np.int32), times=times))
    assert (histories.offsets.tolist(), histories.news.tolist()) == ([0, 2, 4], [1, 2, 5, 6])


def test_of_two_impressions_in_one_second_the_shorter_history_is_the_first() -> None:
    behaviors = behave([[1, 2, 3], [1, 2]], [[(0, 1), (1, 0)]] * 2, which=[0, 1])
    assert Histories.of(behaviors).news.tolist() == [1, 2]


def test_histories_of_less_than_two_clicks_teach_nothing() -> None:
    behaviors = replace(behave([[1], []], [[(0, 1), (1, 0)]] * 2), users=np.arange(2, dtype=np.int32))
    histories = Histories.of(behaviors)
    assert len(histories) == 0
    assert list(histories.batches(4, negatives=1, history=5, key=0)) == []


# --- parts of a batch, for several processes, and passes that go on where they were left


def read_first(histories: list[list[int]], shown: Shown) -> Histories:
    behaviors = behave(histories, shown)
    return Histories.of(replace(behaviors, users=np.arange(len(shown), dtype=np.int32)))


def told(batch: Batch) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Of each click: what was read, and the candidates, as articles."""
    read, candidates = articles(batch, batch.history, batch.clicked), articles(batch, batch.candidates, batch.shown)
    return [(tuple(one), tuple(other)) for one, other in zip(read, candidates, strict=True)]


LESSONS = st.builds(lambda histories, shown: Clicks.of(behave(histories, shown)), HISTORIES, SHOWN) | st.builds(
    read_first, HISTORIES, SHOWN
)


@settings(deadline=None)
@given(lessons=LESSONS, size=st.integers(1, 5), of=st.integers(1, 4), key=st.integers(0, 9))
def test_the_parts_of_a_batch_are_its_clicks_each_with_the_same_candidates(
    lessons: Lessons, size: int, of: int, key: int
) -> None:
    def passed(part: Part) -> list[Batch]:
        return list(lessons.batches(size, negatives=2, history=3, key=key, part=part))

    whole, parts = passed(WHOLE), [passed(Part(number, of)) for number in range(of)]
    assert {len(part) for part in parts} == {len(whole)}  # equal work: nobody is waited for in vain
    for batch, *own in zip(whole, *parts, strict=True):
        clicks = told(batch)
        assert not batch.idle
        assert [told(each) for each in own if not each.idle] == [
            clicks[number::of] for number in range(of) if clicks[number::of]
        ]
        assert [told(each) for each in own if each.idle] == [clicks[:1]] * max(0, of - len(clicks))


@settings(deadline=None)
@given(lessons=LESSONS, size=st.integers(1, 5), start=st.integers(0, 6), number=st.integers(0, 1))
def test_a_pass_goes_on_where_an_unbroken_one_would_be(lessons: Lessons, size: int, start: int, number: int) -> None:
    def passed(start: int) -> list[Batch]:
        return list(lessons.batches(size, negatives=2, history=3, key=5, part=Part(number, 2), start=start))

    for one, two in zip(passed(start), passed(0)[start:], strict=True):
        assert same(one, two)


def test_an_idle_batch_stays_idle_on_another_device() -> None:
    (batch,) = Clicks.of(behave([[1]], [[(1, 1), (2, 0)]])).batches(4, negatives=1, history=5, key=0, part=Part(1, 2))
    assert batch.idle
    assert batch.to(torch.device("meta")).idle


def test_parts_of_a_large_batch_read_about_as_much() -> None:
    """Who has the longer histories would be waited for at every step."""
    lengths = np.random.default_rng(0).integers(1, 51, size=20_000)
    batches = list(shuffled(lengths, 64, 0))[:-1]
    cells = np.array([[lengths[Part(number, 4).take(batch)].sum() for number in range(4)] for batch in batches])
    assert (cells.max(axis=1) / cells.mean(axis=1)).mean() < 1.05
