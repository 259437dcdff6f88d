"""Training batches assembled where the model is, of arrays that live there: equal to those of newsfuse.batches.

So no batch crosses from the host to the device, and what takes a core of the CPU some milliseconds takes a GPU a few
launches. What is moved for a batch is the row numbers of its clicks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from newsfuse.batches import WHOLE, Batch, Clicks, Histories, Lessons, Part, assembled, shuffled
from newsfuse.chance import below, mixed


def lessons_on(lessons: Lessons, device: torch.device) -> Lessons:
    """The lessons as batches for a model on this device are assembled fastest: on a CPU by numpy, as they are."""
    return lessons if device.type == "cpu" else resident(lessons, device)


def resident(lessons: Lessons, device: torch.device) -> Lessons:
    """The same batches, assembled on this device. Other lessons than ours stay as they are."""
    if isinstance(lessons, Clicks):
        return ResidentClicks.of(lessons, device)
    if isinstance(lessons, Histories):
        return ResidentHistories.of(lessons, device)
    return lessons


@dataclass(frozen=True)
class ResidentClicks:
    """The arrays of Clicks on a device, of the types that they have there: for MIND-large some 500 MB."""

    clicks: Clicks
    """The same on the host, which orders them."""
    rows: int
    """Article rows are less than this."""
    impression: Tensor
    news: Tensor
    unclicked_offsets: Tensor
    unclicked_news: Tensor
    history: Tensor
    history_offsets: Tensor
    history_news: Tensor

    @classmethod
    def of(cls, clicks: Clicks, device: torch.device) -> "ResidentClicks":
        """A copy on the device."""
        behaviors = clicks.behaviors
        own = (clicks.impression, clicks.news, clicks.unclicked_offsets, clicks.unclicked_news)
        arrays = (*own, behaviors.history, behaviors.history_offsets, behaviors.history_news)
        rows = _rows(clicks.news, clicks.unclicked_news, behaviors.history_news)
        return cls(clicks, rows, *(_moved(array, device) for array in arrays))

    def __len__(self) -> int:
        return len(self.clicks)

    def batches(
        self, size: int, *, negatives: int, history: int, key: int, part: Part = WHOLE, start: int = 0
    ) -> Iterator[Batch]:
        """As Clicks."""
        assemble = partial(self._batch, negatives=negatives, history=history, key=key)
        return assembled(self.clicks.order(size, history, key), part, start, assemble)

    def longest(self, size: int, *, negatives: int, history: int) -> Batch:
        """As Clicks."""
        return self.clicks.longest(size, negatives=negatives, history=history).to(self.news.device)

    def _batch(self, clicks: np.ndarray, *, negatives: int, history: int, key: int) -> Batch:
        own = _moved(clicks, self.news.device)
        impressions = self.impression[own]
        drawn, shown = self._draw(own, impressions, negatives, key)
        histories = self.history[impressions].long()
        ends = self.history_offsets[histories + 1]
        read, clicked = _latest(self.history_news, self.history_offsets[histories], ends, history)
        return _batch(self.news[own], read, clicked, drawn, shown, rows=self.rows)

    def _draw(self, clicks: Tensor, impressions: Tensor, negatives: int, key: int) -> tuple[Tensor, Tensor]:
        """As Clicks: unclicked articles (B, negatives), and which cells hold one."""
        starts = self.unclicked_offsets[impressions]
        picks = _distinct(self.unclicked_offsets[impressions + 1] - starts, negatives, key, clicks)
        shown = picks >= 0
        return self.unclicked_news[starts.unsqueeze(1) + picks.clamp(min=0)].long(), shown


@dataclass(frozen=True)
class ResidentHistories:
    """The arrays of Histories on a device."""

    histories: Histories
    """The same on the host, which orders them."""
    rows: int
    """Article rows are less than this."""
    offsets: Tensor
    news: Tensor

    @classmethod
    def of(cls, histories: Histories, device: torch.device) -> "ResidentHistories":
        """A copy on the device."""
        arrays = (histories.offsets, histories.news)
        return cls(histories, _rows(histories.news), *(_moved(array, device) for array in arrays))

    def __len__(self) -> int:
        return len(self.histories)

    def batches(
        self, size: int, *, negatives: int, history: int, key: int, part: Part = WHOLE, start: int = 0
    ) -> Iterator[Batch]:
        """As Histories."""
        before = self.histories.before(key)
        order = shuffled(np.minimum(before, history), size, key)
        there = _moved(before, self.news.device)
        return assembled(
            order, part, start, partial(self._batch, before=there, negatives=negatives, history=history, key=key)
        )

    def longest(self, size: int, *, negatives: int, history: int) -> Batch:
        """As Histories."""
        return self.histories.longest(size, negatives=negatives, history=history).to(self.news.device)

    def _batch(self, histories: np.ndarray, *, before: Tensor, negatives: int, history: int, key: int) -> Batch:
        own = _moved(histories, self.news.device)
        starts = self.offsets[own]
        ends = starts + before[own]
        held = self.news[ends].long()
        read, clicked = _latest(self.news, starts, ends, history)
        columns = [below(mixed(key, column), own, len(self.news)) for column in range(negatives)]
        drawn = self.news[torch.stack(columns, dim=1)].long()
        was_read = ((drawn.unsqueeze(2) == read.unsqueeze(1)) & clicked.unsqueeze(1)).any(dim=2)
        return _batch(held, read, clicked, drawn, (drawn != held.unsqueeze(1)) & ~was_read, rows=self.rows)


def _batch(held: Tensor, read: Tensor, clicked: Tensor, drawn: Tensor, shown: Tensor, *, rows: int) -> Batch:
    """As Batch.of, of the click (B,) and what was drawn beside it (B, C - 1)."""
    news, positions = _numbered(torch.cat([read, held.unsqueeze(1), drawn], dim=1), rows)
    width = read.shape[1]
    return Batch(news, positions[:, :width], clicked, positions[:, width:], F.pad(shown, (1, 0), value=True))


def _numbered(values: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """As newsfuse.batches.numbered, of int64 values less than `rows`."""
    flat = values.flatten()
    places = torch.arange(len(flat), device=values.device)
    # not table[flat] = places: on a GPU any of equal numbers might remain
    table = places.new_zeros(rows).scatter_reduce_(0, flat, places, "amax")
    distinct = flat[table[flat] == places]
    table[distinct] = torch.arange(len(distinct), device=values.device)
    return distinct, table[flat].view(values.shape)


def _distinct(counts: Tensor, k: int, key: int, rows: Tensor) -> Tensor:
    """As newsfuse.batches.distinct."""
    picks = torch.full((len(counts), k), -1, device=counts.device)
    for column in range(k):
        left = (counts - column).clamp(min=0)
        pick = below(mixed(key, column), rows, left)
        for earlier in picks[:, :column].sort(dim=1).values.unbind(dim=1):
            pick += (pick >= earlier) & (earlier >= 0)
        picks[:, column] = torch.where(left > 0, pick, -1)
    return picks


def _latest(news: Tensor, starts: Tensor, ends: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """As newsfuse.batches.latest."""
    counts = (ends - starts).clamp(max=most)
    back = torch.arange(max(1, int(counts.max())), device=news.device)
    clicked = back < counts.unsqueeze(1)
    last = ends.unsqueeze(1) - 1
    cells = torch.where(clicked, last - back, torch.where(counts.unsqueeze(1) > 0, last, -1))
    some = news if len(news) else news.new_zeros(1)
    return some[cells.clamp(min=0)].long(), clicked


def _moved(array: np.ndarray, device: torch.device) -> Tensor:
    # arrays of the shelf are mapped from files that nobody may write to, which torch warns about
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)


def _rows(*arrays: np.ndarray) -> int:
    return 1 + max(int(array.max(initial=0)) for array in arrays)
