"""Learning: each click against what was shown beside it, a course of lessons after the other."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from newsfuse.batches import Clicks, Histories
from newsfuse.behaviors import Behaviors
from newsfuse.errors import DataError
from newsfuse.losses import Loss, loss
from newsfuse.params import Train
from newsfuse.recommender import Recommender
from newsfuse.study import Course, Pass, Place, Study
from newsfuse.team import ALONE, Team

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standing:
    """Where in the courses a model stands."""

    course: int = 0
    place: Place = field(default_factory=Place)
    state: Mapping[str, Tensor] | None = None
    """Of the study, None where nothing was learned yet."""


BEGINNING = Standing()


class Learner:
    """A model that learns from 1 + `negatives` articles at a time."""

    def __init__(
        self,
        model: Recommender,
        behaviors: Behaviors,
        settings: Train,
        *,
        history: int,
        seed: int,
        team: Team = ALONE,
        paused: Callable[[Study], None] = lambda _: None,
    ) -> None:
        """`history`: how many clicks of a user are read; `seed` orders clicks and draws unclicked articles.

        `team` shares every batch; `paused` is called between batches, and may keep the state of the study.
        Raises DataError where there is nothing to learn from.
        """
        self.model, self.settings, self.history = model, settings, history
        self.seed, self.team, self.paused = seed, team, paused
        histories, clicks = _histories(behaviors, settings), usable_clicks(behaviors, "learn from")
        self.courses = (
            Course(0, "histories", histories, settings.pretrain_epochs, settings.pretrain_negatives),
            Course(1, "impressions", clicks, settings.epochs, settings.negatives),
        )

    def left(self, standing: Standing = BEGINNING) -> Iterator[tuple[Course, Study]]:
        """The courses that there is something to learn in, from where the model stands on."""
        for course in self.courses[standing.course :]:
            if course.epochs and len(course.lessons):
                study = self._study(course)
                if course.number == standing.course and standing.state is not None:
                    study.resume(standing.state, standing.place)
                yield course, study

    def repeat(self, taken: Mapping[str, int], standing: Standing = BEGINNING) -> None:
        """So many epochs of each course, with the learning rate that the whole course would have had."""
        for course, study in self.left(standing):
            while study.place.epochs < taken.get(course.name, 0):
                self.epoch(study)
                self.paused(study)

    def epoch(self, study: Study) -> Pass:
        """What is left of an epoch of a course."""
        return study.epoch(lambda: self.paused(study))

    def _study(self, course: Course) -> Study:
        lost, settings = self._lost(), self.settings
        return Study(self.model, course, lost, settings, history=self.history, seed=self.seed, team=self.team)

    def _lost(self) -> Loss:
        return loss(self.settings.loss, self.settings.label_smoothing)


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
