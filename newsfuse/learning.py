"""Learning: each click against what was shown beside it, a course of lessons after the other."""

import logging
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from newsfuse.batches import Batch, Clicks, Histories, Lessons, prefetched
from newsfuse.behaviors import Behaviors
from newsfuse.descent import Descent
from newsfuse.errors import DataError, NewsfuseError
from newsfuse.fit import Fit, fit_sums
from newsfuse.losses import loss
from newsfuse.memory import give_back
from newsfuse.params import Train
from newsfuse.recommender import Recommender

log = logging.getLogger(__name__)

TIDY = 512
"""Batches after which freed memory is given back, which takes as long as one or two of them."""


@dataclass(frozen=True)
class Pass:
    """What one pass over the lessons of a course came to."""

    fit: Fit
    learning_rate: float
    """At its end."""
    clicks_per_s: float


@dataclass(frozen=True)
class Course:
    """Lessons, and how long to learn from them."""

    name: str
    lessons: Lessons
    epochs: int
    negatives: int


class Learner:
    """A model that learns from 1 + `negatives` articles at a time."""

    def __init__(self, model: Recommender, behaviors: Behaviors, settings: Train, *, history: int, seed: int) -> None:
        """`history`: how many clicks of a user are read; `seed` orders clicks and draws unclicked articles.

        Raises DataError where there is nothing to learn from.
        """
        self.model, self.settings, self.history = model, settings, history
        self.courses = (
            Course("histories", _histories(behaviors, settings), settings.pretrain_epochs, settings.pretrain_negatives),
            Course("impressions", usable_clicks(behaviors, "learn from"), settings.epochs, settings.negatives),
        )
        self.device = model.newcomer.device
        self.rng = np.random.default_rng(seed)

    def follow(self, course: Course) -> Iterator[Pass]:
        """Each epoch of a course when it is done, and the next one only when it is asked for."""
        lost = self._loss().to(self.device)
        learning = nn.ModuleList([self.model, lost])
        descent = Descent(learning, self.settings, course.epochs * self._n_batches(course))
        for number in range(1, course.epochs + 1):
            yield self._epoch(f"{course.name}, epoch {number}", course, lost, descent)

    def repeat(self, taken: Mapping[str, int]) -> None:
        """So many epochs of each course, with the learning rate that the whole course would have had."""
        for course in self.courses:
            deque(islice(self.follow(course), taken.get(course.name, 0)), maxlen=0)

    def _loss(self) -> nn.Module:
        return loss(self.settings.loss, self.settings.label_smoothing)

    def _batches(self, course: Course) -> Iterator[Batch]:
        size = self.settings.batch_size
        return course.lessons.batches(size, negatives=course.negatives, history=self.history, rng=self.rng)

    def _n_batches(self, course: Course) -> int:
        return -(-len(course.lessons) // self.settings.batch_size)

    def _epoch(self, name: str, course: Course, lost: nn.Module, descent: Descent) -> Pass:
        self.model.train()
        started, total = time.perf_counter(), len(course.lessons)
        with prefetched(self._batches(course)) as batches:
            hidden = not sys.stderr.isatty()
            shown = track(batches, name, self._n_batches(course), transient=True, disable=hidden)
            sums = torch.zeros(3, dtype=torch.double)
            for number, batch in enumerate(shown, 1):
                sums += self._step(batch, lost, descent)
                if number % TIDY == 0:
                    give_back()
        give_back()
        speed = total / (time.perf_counter() - started)
        return Pass(Fit.mean(sums, total), descent.rate, speed)

    def _step(self, batch: Batch, lost: nn.Module, descent: Descent) -> Tensor:
        scores = self._scores(batch)
        height = lost(scores)
        if not torch.isfinite(height):
            self.model.require_finite(*self._asked(batch))
            message = f"the training loss became {height.item()}; try a smaller train.lr (now {self.settings.lr})"
            raise NewsfuseError(message)
        try:
            descent.step(height)
        except Exception as error:
            self.model.require_backward(error, *self._asked(batch))
            raise
        return fit_sums(scores.detach())

    def _asked(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """What the parts of the model were given for it."""
        batch = batch.to(self.device)
        return batch.news, batch.history, batch.clicked

    def _scores(self, batch: Batch) -> Tensor:
        """(B, C), -inf where no article is."""
        batch = batch.to(self.device)
        half = self.settings.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            scores = self.model(batch.news, batch.history, batch.clicked, batch.candidates)
        return scores.float().masked_fill(~batch.shown, float("-inf"))


def _histories(behaviors: Behaviors, settings: Train) -> Histories:
    histories = Histories.of(behaviors)
    if settings.pretrain_epochs and not len(histories):
        log.warning("train/behaviors.tsv: nothing to pre-train on: no user comes with a history of two clicks")
    return histories


def usable_clicks(behaviors: Behaviors, purpose: str) -> Clicks:
    """Of `behaviors`, for a `purpose` that the error tells. Raises DataError where there is none."""
    clicks = Clicks.of(behaviors)
    if not len(clicks):
        wanted = "a clicked article and one that is not, both with a line in news.tsv"
        message = f"train/behaviors.tsv: no click to {purpose}: none of {len(behaviors)} impressions has {wanted}"
        raise DataError(message)
    return clicks
