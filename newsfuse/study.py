"""A course of lessons under way: step by step, alone or in a team, and from where it was interrupted."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from rich.progress import track
from torch import Tensor, nn

from newsfuse.batches import Batch, Lessons, prefetched
from newsfuse.chance import mixed
from newsfuse.descent import Descent
from newsfuse.errors import NewsfuseError
from newsfuse.fit import Fit, fit_sums
from newsfuse.losses import UNSHOWN, Loss
from newsfuse.memory import give_back
from newsfuse.ondevice import lessons_on
from newsfuse.params import Train
from newsfuse.recommender import Recommender
from newsfuse.room import ran_out, rehearse, room
from newsfuse.team import ALONE, Team

TIDY = 512
"""Batches after which freed memory is given back, which takes as long as one or two of them."""


@dataclass(frozen=True)
class Course:
    """Lessons, and how long to learn from them."""

    number: int
    name: str
    lessons: Lessons
    epochs: int
    negatives: int


@dataclass(frozen=True)
class Pass:
    """What one pass over the lessons of a course came to."""

    fit: Fit
    learning_rate: float
    """At its end."""
    clicks_per_s: float


@dataclass(frozen=True)
class Place:
    """How far into a course: whole epochs, and what there was of the next one."""

    epochs: int = 0
    batches: int = 0
    sums: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Of `fit_sums` over these batches."""
    seconds: float = 0.0
    """That they took."""


class Lesson(nn.Module):
    """A model and its loss in one forward pass, as processes that share a batch need it."""

    def __init__(self, model: Recommender, lost: Loss, *, mixed_precision: bool) -> None:
        """`mixed_precision`: whether the model computes in bfloat16 where that is safe."""
        super().__init__()
        self.model, self.lost, self.mixed_precision = model, lost, mixed_precision

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores (B, C), -inf where no article is, and their loss ()"""
        scores = self.scores(batch)
        return scores, self.lost(scores)

    def scores(self, batch: Batch) -> Tensor:
        """The scores alone."""
        with torch.autocast(batch.news.device.type, torch.bfloat16, enabled=self.mixed_precision):
            scores = self.model(batch.news, batch.history, batch.clicked, batch.candidates)
        return scores.float().masked_fill(~batch.shown, UNSHOWN)


class Study:
    """A model on a course."""

    def __init__(
        self,
        model: Recommender,
        course: Course,
        lost: Loss,
        settings: Train,
        *,
        history: int,
        seed: int,
        team: Team = ALONE,
    ) -> None:
        """`lost`: what is to become small; `history`: how many clicks are read; `seed`: what is left to chance."""
        self.model, self.course, self.settings = model, course, settings
        self.history, self.seed, self.team = history, seed, team
        self.device = model.newcomer.device
        self.lessons = lessons_on(course.lessons, self.device)
        self.n_batches = -(-len(course.lessons) // settings.batch_size)
        self.lost = lost.to(self.device)
        self.lesson = Lesson(model, self.lost, mixed_precision=settings.precision == "bfloat16")
        self.descent = Descent(self.lesson, settings, course.epochs * self.n_batches, sparse=team.size == 1)
        self.shared = team.wrapped(self.lesson)
        self.place = Place()

    def state(self) -> dict[str, Tensor]:
        """All that changes as the model learns: its weights, those of the loss, what AdamW remembers."""
        parts = {"model": self.model.state_dict(), "loss": self.lost.state_dict(), "descent": self.descent.state()}
        return {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}

    def resume(self, state: Mapping[str, Tensor], place: Place) -> None:
        """Go on at `place`, where all was as `state` has it."""
        self.model.load_state_dict(part_of(state, "model"))
        self.lost.load_state_dict(part_of(state, "loss"))
        self.descent.resume(part_of(state, "descent"), place.epochs * self.n_batches + place.batches)
        self.place = place

    def epoch(self, paused: Callable[[], None]) -> Pass:
        """What is left of the epoch; `paused` is called between batches, when `state` belongs to `place`."""
        self.model.train()
        began = time.perf_counter() - self.place.seconds
        with prefetched(self._batches()) as batches:
            for batch in self._with_bar(batches):
                with room(self.settings.batch_size, self.device, self._rehearse, processes=self.team.size):
                    sums = self._learned(batch.to(self.device))
                self._advance(sums, time.perf_counter() - began)
                if self.place.batches < self.n_batches:
                    paused()
        give_back()
        sums, total = torch.tensor(self.place.sums, dtype=torch.double), len(self.course.lessons)
        self.place = Place(self.place.epochs + 1)
        return Pass(Fit.mean(sums, total), self.descent.rate, total / (time.perf_counter() - began))

    def _batches(self) -> Iterator[Batch]:
        return self.lessons.batches(
            self.settings.batch_size,
            negatives=self.course.negatives,
            history=self.history,
            key=self._key(),
            part=self.team.part,
            start=self.place.batches,
        )

    def _key(self) -> int:
        """Of the epoch."""
        return mixed(self.seed, self.course.number, self.place.epochs)

    def _with_bar(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same, with a bar on the terminal while they last."""
        name, left = f"{self.course.name}, epoch {self.place.epochs + 1}", self.n_batches - self.place.batches
        hidden = not (sys.stderr.isatty() and self.team.leads)
        return iter(track(batches, name, left, transient=True, disable=hidden))

    def _advance(self, sums: Tensor, seconds: float) -> None:
        total = torch.tensor(self.place.sums, dtype=torch.double) + sums.cpu()
        number = self.place.batches + 1
        self.place = replace(self.place, batches=number, sums=tuple(total.tolist()), seconds=seconds)
        if number % TIDY == 0:
            give_back()

    def _learned(self, batch: Batch) -> Tensor:
        """A step; what `fit_sums` makes of the scores before it, of all processes."""
        # of a batch's own, so that whoever goes on from here draws the same
        key = mixed(self._key(), self.place.batches)
        self.model.redraw(key)
        torch.manual_seed(mixed(key, self.team.rank))
        if not self.descent.taken:
            self._start(batch)
        scores, height = self.shared(batch)
        self._require_finite(height, batch)
        try:
            self.descent.step(self._weighed(height, batch, scores))
        except Exception as error:
            if not ran_out(error):
                self.model.require_backward(error, batch.news, batch.history, batch.clicked)
            raise
        return self.team.sum(fit_sums(scores.detach()) * (not batch.idle))

    def _rehearse(self, size: int) -> None:
        """What such a batch takes, of the longest histories that there are."""
        batch = self.lessons.longest(size, negatives=self.course.negatives, history=self.history).to(self.device)
        rehearse(self.lesson, lambda: self.lesson(batch)[1])

    @torch.no_grad()
    def _start(self, batch: Batch) -> None:
        scores = self.lesson.scores(batch)
        self.lost.start(self.team.joined(scores[:0] if batch.idle else scores))

    def _require_finite(self, height: Tensor, batch: Batch) -> None:
        if not torch.isfinite(height):
            self.model.require_finite(batch.news, batch.history, batch.clicked)
            message = f"the training loss became {height.item()}; try a smaller train.lr (now {self.settings.lr})"
            raise NewsfuseError(message)

    def _weighed(self, height: Tensor, batch: Batch, scores: Tensor) -> Tensor:
        """A loss whose mean over processes is that of the whole batch."""
        if self.team.size == 1:
            return height
        weight = self.lost.weight(scores.detach()) * (not batch.idle)
        return height * (weight * self.team.size / self.team.sum(weight))


def part_of(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Of names such as part/name those of one part, without it."""
    return {name.removeprefix(f"{part}/"): value for name, value in state.items() if name.startswith(f"{part}/")}
