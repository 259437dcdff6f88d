"""Training batches, assembled from flat arrays by array operations alone."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from newsfuse.behaviors import Behaviors
from newsfuse.csr import gather, lengths, offsets, owners

WINDOW = 64
"""Batches whose clicks are sorted by the length of the history: enough for batches without padding, few enough that
which clicks meet in a batch is still a matter of chance."""
AHEAD = 4
"""Batches that are ready before the model asks for them."""


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

    @classmethod
    def of(cls, read: np.ndarray, clicked: np.ndarray, candidates: np.ndarray, shown: np.ndarray) -> "Batch":
        """From article rows: `read` (B, H), and `candidates` (B, C), which have a click in column 0."""
        news, positions = numbered(np.concatenate([read, candidates], axis=1))
        width = read.shape[1]
        arrays = (news, positions[:, :width], clicked, positions[:, width:], shown)
        return cls(*map(torch.from_numpy, arrays))

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return Batch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))


class Lessons(Protocol):
    """What a model learns from: clicks, a batch at a time."""

    def __len__(self) -> int: ...

    def batches(self, size: int, *, negatives: int, history: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Every click once, `size` at a time."""


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

    def batches(self, size: int, *, negatives: int, history: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All clicks once, in random order, `size` at a time, those of a batch with histories of like length."""
        counts = lengths(self.behaviors.history_offsets)[self.behaviors.history[self.impression]]
        for clicks in shuffled(np.minimum(counts, history), size, rng):
            yield self.batch(clicks, negatives=negatives, history=history, rng=rng)

    def batch(self, clicks: np.ndarray, *, negatives: int, history: int, rng: np.random.Generator) -> Batch:
        """The batch of these clicks (row numbers, (B,)), each with up to `negatives` unclicked articles."""
        impressions = self.impression[clicks]
        drawn, shown = self._draw(impressions, negatives, rng)
        read, clicked = recent(self.behaviors, self.behaviors.history[impressions], history)
        candidates = np.column_stack([self.news[clicks], drawn])
        return Batch.of(read, clicked, candidates, np.insert(shown, 0, values=True, axis=1))

    def _draw(self, impressions: np.ndarray, negatives: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Unclicked articles (B, negatives) without repetition, and which cells hold one."""
        counts = lengths(self.unclicked_offsets)[impressions]
        picks = distinct(counts, negatives, rng)
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

    def batches(self, size: int, *, negatives: int, history: int, rng: np.random.Generator) -> Iterator[Batch]:
        """A click of each history, in random order, `size` at a time, those of a batch with as much before them."""
        before = np.floor(rng.random(len(self)) * (lengths(self.offsets) - 1)).astype(np.int64) + 1
        for rows in shuffled(np.minimum(before, history), size, rng):
            yield self._batch(self.offsets[rows], before[rows], negatives=negatives, history=history, rng=rng)

    def _batch(
        self, starts: np.ndarray, before: np.ndarray, *, negatives: int, history: int, rng: np.random.Generator
    ) -> Batch:
        held = self.news[starts + before]
        read, clicked = latest(self.news, starts, starts + before, history)
        drawn = self.news[rng.integers(len(self.news), size=(len(starts), negatives))]
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


def shuffled(lengths: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """0 ... n - 1 once, `size` at a time (the last may be smaller), at random, but those of a batch of like length.

    Within each WINDOW batches of a random order numbers are sorted by `lengths` (n,), and then the batches are
    shuffled: otherwise most of what is computed would be padding.
    """
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


def distinct(counts: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """int64 (B, k): for each row k distinct numbers below counts[row], uniformly; -1 past the counts[row]-th.

    The j-th number is drawn among the counts - j that are left, and then counted past the earlier
    ones in ascending order: one pass per column instead of a shuffle per row.
    """
    picks = np.full((len(counts), k), -1, dtype=np.int64)
    for column in range(k):
        left = np.maximum(counts - column, 0)
        pick = np.floor(rng.random(len(counts)) * left).astype(np.int64)
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
