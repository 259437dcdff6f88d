"""Training batches, assembled from flat arrays by array operations alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from newsfuse.behaviors import Behaviors
from newsfuse.csr import lengths, offsets, owners


@dataclass(frozen=True)
class Batch:
    """B clicks, each with its user's history and C - 1 articles that were shown beside it and not clicked."""

    news: Tensor
    """int64 (M,): rows of the distinct articles of the batch."""
    history: Tensor
    """int64 (B, H): positions in `news`, latest click first; of any article of the batch where there is no click."""
    clicked: Tensor
    """bool (B, H): which cells of `history` are clicks."""
    candidates: Tensor
    """int64 (B, C): positions in `news`; column 0 is the clicked article."""
    shown: Tensor
    """bool (B, C): which cells of `candidates` are articles, for impressions with few of them."""

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return Batch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))


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
        """All clicks once, in random order, `size` at a time."""
        order = rng.permutation(len(self))
        for start in range(0, len(order), size):
            yield self.batch(order[start : start + size], negatives=negatives, history=history, rng=rng)

    def batch(self, clicks: np.ndarray, *, negatives: int, history: int, rng: np.random.Generator) -> Batch:
        """The batch of these clicks (row numbers, (B,)), each with up to `negatives` unclicked articles."""
        impressions = self.impression[clicks]
        drawn, shown = self._draw(impressions, negatives, rng)
        candidates = np.column_stack([self.news[clicks], drawn])
        clicked_news, clicked = recent(self.behaviors, self.behaviors.history[impressions], history)
        cells = np.concatenate([clicked_news, candidates], axis=1)
        news, positions = np.unique(cells, return_inverse=True)
        positions = positions.reshape(cells.shape)
        width = clicked.shape[1]
        shown = np.insert(shown, 0, values=True, axis=1)
        arrays = (news.astype(np.int64), positions[:, :width], clicked, positions[:, width:], shown)
        return Batch(*map(torch.from_numpy, arrays))

    def _draw(self, impressions: np.ndarray, negatives: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Unclicked articles (B, negatives) without repetition, and which cells hold one."""
        counts = lengths(self.unclicked_offsets)[impressions]
        picks = distinct(counts, negatives, rng)
        shown = picks >= 0
        return self.unclicked_news[self.unclicked_offsets[impressions][:, None] + np.where(shown, picks, 0)], shown


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
    counts = np.minimum(lengths(behaviors.history_offsets)[histories], most)
    back = np.arange(max(1, counts.max(initial=0)))
    clicked = back < counts[:, None]
    last = behaviors.history_offsets[histories + 1][:, None] - 1
    cells = np.where(clicked, last - back, np.where(counts > 0, last[:, 0], -1)[:, None])
    some = behaviors.history_news if len(behaviors.history_news) else np.zeros(1, dtype=np.int32)
    return some[np.maximum(cells, 0)].astype(np.int64), clicked  # cell -1: no click at all
