"""Training batches, assembled from flat arrays by array operations alone."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from newsfuse.behaviors import Behaviors
from newsfuse.chance import below, mixed
from newsfuse.csr import gather, lengths, offsets, owners

WINDOW = 64
"""Batches whose clicks are sorted by the length of the history: enough for batches without padding, few enough that
which clicks meet in a batch is still a matter of chance."""
HELD = -1
"""What the click that is held out is drawn by; articles beside it are drawn by their column."""
AHEAD = 4
"""Batches that are ready before the model asks for them."""


@dataclass(frozen=True)
class Part:
    """Of every batch, which clicks a process learns from, where several share the work."""

    number: int = 0
    of: int = 1

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Every `of`-th of the rows: of a batch in which like stands beside like, parts are alike. May be none."""
        return rows[self.number :: self.of]


WHOLE = Part()


@dataclass(frozen=True)
class Batch:
    """B clicks, each with its user's history and C - 1 articles that were not clicked."""

    news: Tensor
    """int64 (M,): rows of the distinct articles of the batch."""
    history: Tensor
    """int64 (B, H): positions in `news`, latest click first; of any article of the batch where there is no click."""
    clicked: Tensor
    """bool (B, H): which cells of `history` are clicks."""
    candidates: Tensor
    """int64 (B, C): positions in `news`; column 0 is the clicked article."""
    shown: Tensor
    """bool (B, C): which cells of `candidates` are articles, for clicks with few unclicked articles."""
    idle: bool = False
    """Whether its click is there to keep step with other processes alone, and nothing is to be learned from it."""

    @classmethod
    def of(cls, read: np.ndarray, clicked: np.ndarray, candidates: np.ndarray, shown: np.ndarray) -> "Batch":
        """From article rows: `read` (B, H), and `candidates` (B, C), which have a click in column 0."""
        news, positions = numbered(np.concatenate([read, candidates], axis=1))
        width = read.shape[1]
        history, candidates = positions[:, :width], positions[:, width:]
        given = torch.from_numpy
        return cls(given(news), given(history), given(clicked), given(candidates), given(shown))

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        behaviour = moved(self.history), moved(self.clicked)
        return Batch(moved(self.news), *behaviour, moved(self.candidates), moved(self.shown), self.idle)


class Lessons(Protocol):
    """What a model learns from: clicks, a batch at a time."""

    def __len__(self) -> int: ...

    def batches(
        self, size: int, *, negatives: int, history: int, key: int, part: Part = WHOLE, start: int = 0
    ) -> Iterator[Batch]:
        """Every click once, `size` at a time, from batch number `start` on; of each batch one part.

        `key` (see newsfuse.chance) decides all that is left to chance: with it, batches are the same wherever and
        however often they are asked for, and a click has the same articles beside it in whatever part it is.
        """

    def longest(self, size: int, *, negatives: int, history: int) -> Batch:
        """A batch as large as any of this size: of the clicks, or all if they are fewer, with the longest histories."""


@dataclass(frozen=True)
class Clicks:
    """Every click that can be learned from: one of a known article, in an impression with an unclicked one."""

    behaviors: Behaviors
    impression: np.ndarray
    """int64 (clicks,): row of the impression."""
    news: np.ndarray
    """int32 (clicks,): row of the clicked article."""
    unclicked_offsets: np.ndarray
    """int64 (impressions + 1,): CSR of the known articles that were shown and not clicked."""
    unclicked_news: np.ndarray
    """int32."""

    @classmethod
    def of(cls, behaviors: Behaviors) -> "Clicks":
        """Sort the candidates of all impressions into clicked and unclicked ones."""
        owner, known = owners(behaviors.candidate_offsets), behaviors.candidate_news >= 0
        unclicked, clicked = known & (behaviors.labels == 0), known & (behaviors.labels == 1)
        counts = np.bincount(owner[unclicked], minlength=len(behaviors))
        usable = clicked & (counts[owner] > 0)
        news = behaviors.candidate_news
        return cls(behaviors, owner[usable], news[usable], offsets(counts), news[unclicked])

    def __len__(self) -> int:
        return len(self.impression)

    def batches(
        self, size: int, *, negatives: int, history: int, key: int, part: Part = WHOLE, start: int = 0
    ) -> Iterator[Batch]:
        """All clicks once, in random order, `size` at a time, those of a batch with histories of like length."""
        assemble = partial(self.batch, negatives=negatives, history=history, key=key)
        return assembled(self.order(size, history, key), part, start, assemble)

    def longest(self, size: int, *, negatives: int, history: int) -> Batch:
        """See Lessons."""
        return self.batch(_longest(self.read(history), size), negatives=negatives, history=history, key=0)

    def order(self, size: int, history: int, key: int) -> Iterator[np.ndarray]:
        """Row numbers of all clicks once, int64, a batch at a time."""
        return shuffled(self.read(history), size, key)

    def read(self, history: int) -> np.ndarray:
        """int (clicks,): how many of the latest `history` clicks the user of each has."""
        counts = lengths(self.behaviors.history_offsets)[self.behaviors.history[self.impression]]
        return np.minimum(counts, history)

    def batch(self, clicks: np.ndarray, *, negatives: int, history: int, key: int) -> Batch:
        """The batch of these clicks (row numbers, (B,)), each with up to `negatives` unclicked articles."""
        impressions = self.impression[clicks]
        drawn, shown = self._draw(clicks, negatives, key)
        read, clicked = recent(self.behaviors, self.behaviors.history[impressions], history)
        candidates = np.column_stack([self.news[clicks], drawn])
        return Batch.of(read, clicked, candidates, np.insert(shown, 0, values=True, axis=1))

    def _draw(self, clicks: np.ndarray, negatives: int, key: int) -> tuple[np.ndarray, np.ndarray]:
        """Unclicked articles (B, negatives) without repetition, and which cells hold one."""
        impressions = self.impression[clicks]
        counts = lengths(self.unclicked_offsets)[impressions]
        picks = distinct(counts, negatives, key, clicks)
        shown = picks >= 0
        return self.unclicked_news[self.unclicked_offsets[impressions][:, None] + np.where(shown, picks, 0)], shown


@dataclass(frozen=True)
class Histories:
    """What users had read before the first impression that is learned from: lessons that need no impressions.

    Of each history one click is held out, at random, and to be found among articles that are drawn from all
    clicks of all histories; what the user read before it is the history. Later histories are left
    out, as they contain clicks that are labels of impressions.
    """

    offsets: np.ndarray
    """int64 (users + 1,): CSR of the histories of at least two clicks."""
    news: np.ndarray
    """int32: rows of the clicked articles, the oldest click of a history first."""

    @classmethod
    def of(cls, behaviors: Behaviors) -> "Histories":
        """The history that each user brings to his or her first impression."""
        counts = lengths(behaviors.history_offsets)
        # of several impressions in one second the shortest history is the earliest
        order = np.lexsort((counts[behaviors.history], behaviors.times, behaviors.users))
        first = behaviors.history[order][np.diff(behaviors.users[order], prepend=-1) != 0]
        rows = first[counts[first] > 1]
        return cls(offsets(counts[rows]), behaviors.history_news[gather(behaviors.history_offsets, rows)])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def batches(
        self, size: int, *, negatives: int, history: int, key: int, part: Part = WHOLE, start: int = 0
    ) -> Iterator[Batch]:
        """A click of each history, in random order, `size` at a time, those of a batch with as much before them."""
        before = self.before(key)
        assemble = partial(self.batch, before=before, negatives=negatives, history=history, key=key)
        return assembled(shuffled(np.minimum(before, history), size, key), part, start, assemble)

    def longest(self, size: int, *, negatives: int, history: int) -> Batch:
        """See Lessons."""
        before = lengths(self.offsets) - 1
        rows = _longest(np.minimum(before, history), size)
        return self.batch(rows, before=before, negatives=negatives, history=history, key=0)

    def before(self, key: int) -> np.ndarray:
        """int64 (histories,): how many clicks of each come before the one that is held out, at least one."""
        return below(mixed(key, HELD), np.arange(len(self)), lengths(self.offsets) - 1) + 1

    def batch(self, rows: np.ndarray, *, before: np.ndarray, negatives: int, history: int, key: int) -> Batch:
        """The batch of these histories (row numbers, (B,)); `before` as above."""
        starts = self.offsets[rows]
        ends = starts + before[rows]
        held = self.news[ends]
        read, clicked = latest(self.news, starts, ends, history)
        columns = [below(mixed(key, column), rows, len(self.news)) for column in range(negatives)]
        drawn = self.news[np.stack(columns, axis=1)]
        candidates = np.column_stack([held, drawn])
        # an article that this user read is no example of what he or she passes by
        shown = (drawn != held[:, None]) & ~((drawn[:, :, None] == read[:, None, :]) & clicked[:, None, :]).any(axis=2)
        return Batch.of(read, clicked, candidates, np.insert(shown, 0, values=True, axis=1))


@contextmanager
def prefetched(batches: Iterator[Batch]) -> Iterator[Iterator[Batch]]:
    """The same batches, assembled by a thread while the model computes; it ends with the block."""
    with ThreadPoolExecutor(1, "batches") as thread:
        ready = deque(thread.submit(next, batches, None) for _ in range(AHEAD))

        def one_after_the_other() -> Iterator[Batch]:
            while batch := ready.popleft().result():
                ready.append(thread.submit(next, batches, None))
                yield batch

        yield one_after_the_other()


def assembled(
    order: Iterator[np.ndarray], part: Part, start: int, assemble: Callable[[np.ndarray], Batch]
) -> Iterator[Batch]:
    """A part of each batch of rows, from number `start` on; where it has none, an idle batch."""
    for rows in islice(order, start, None):
        own = part.take(rows)
        yield assemble(own) if len(own) else replace(assemble(rows[:1]), idle=True)


def shuffled(lengths: np.ndarray, size: int, key: int) -> Iterator[np.ndarray]:
    """0 ... n - 1 once, `size` at a time (the last may be smaller), at random, but those of a batch of like length.

    Within each WINDOW batches of a random order numbers are sorted by `lengths` (n,), and then the batches are
    shuffled: otherwise most of what is computed would be padding.
    """
    rng = np.random.default_rng(key)
    order = rng.permutation(len(lengths))
    windows = (order[start : start + WINDOW * size] for start in range(0, len(order), WINDOW * size))
    order = np.concatenate([order[:0], *(window[np.argsort(lengths[window], kind="stable")] for window in windows)])
    for number in rng.permutation(-(-len(order) // size)):
        yield order[number * size : (number + 1) * size]


def numbered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct numbers (M,) int64 in `values`, all >= 0, and where among them each value is (as `values`).

    `np.unique` sorts, which takes ten times as long; this writes to a table with a place for every number.
    """
    flat = values.ravel()
    table = np.empty(flat.max(initial=-1) + 1, dtype=np.int64)
    places = np.arange(len(flat))
    table[flat] = places  # of equal numbers the last remains
    distinct = flat[table[flat] == places]
    table[distinct] = np.arange(len(distinct))
    return distinct.astype(np.int64), table[flat].reshape(values.shape)


def distinct(counts: np.ndarray, k: int, key: int, rows: np.ndarray) -> np.ndarray:
    """int64 (B, k): for each row k distinct numbers below its count, uniformly; -1 past the count-th.

    `counts` and `rows`, which tell what is drawn for (see newsfuse.chance): int64 (B,).

    The j-th number is drawn among the counts - j that are left, and then counted past the earlier
    ones in ascending order: one pass per column instead of a shuffle per row.
    """
    picks = np.full((len(counts), k), -1, dtype=np.int64)
    for column in range(k):
        left = np.maximum(counts - column, 0)
        pick = below(mixed(key, column), rows, left)
        for earlier in np.sort(picks[:, :column], axis=1).T:
            pick += (pick >= earlier) & (earlier >= 0)
        picks[:, column] = np.where(left > 0, pick, -1)
    return picks


def recent(behaviors: Behaviors, histories: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The latest clicks of each history: article rows int64 (B, H), latest first, and which cells are clicks.

    H is the longest of them, at least 1 and at most `most`. Cells without a click repeat an article
    of the row (row 0 of the table where there is none), so that they cost no further encoding.
    """
    starts, ends = behaviors.history_offsets[histories], behaviors.history_offsets[histories + 1]
    return latest(behaviors.history_news, starts, ends, most)


def latest(news: np.ndarray, starts: np.ndarray, ends: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """As `recent`, of the lists `news[starts[i]:ends[i]]`."""
    counts = np.minimum(ends - starts, most)
    back = np.arange(max(1, counts.max(initial=0)))
    clicked = back < counts[:, None]
    last = ends[:, None] - 1
    cells = np.where(clicked, last - back, np.where(counts > 0, last[:, 0], -1)[:, None])
    some = news if len(news) else np.zeros(1, dtype=np.int32)
    return some[np.maximum(cells, 0)].astype(np.int64), clicked  # cell -1: no click at all


def _longest(counts: np.ndarray, size: int) -> np.ndarray:
    """int64 (size,), or fewer: where the largest of the counts are."""
    return np.argsort(-counts, kind="stable")[:size]
