"""Training: the last days of train say after which epochs a model ranks best, and it then learns from them too."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch import Tensor

from newsfuse.behaviors import Behaviors
from newsfuse.fit import Fit, fit_sums
from newsfuse.learning import Course, Learner, Pass, usable_clicks
from newsfuse.params import Train
from newsfuse.ranking import ranking, unknown_last
from newsfuse.recommender import Recommender
from newsfuse.scoring import Scorer
from newsfuse.split import split
from newsfuse.vocabularies import Vocabularies

log = logging.getLogger(__name__)

VALIDATION_SEED = 0
"""The unclicked articles that validation loss is measured against are the same in every run and epoch."""


@dataclass(frozen=True)
class Epoch:
    """A model after some pass over the lessons of a course. Number 0 is the untrained model."""

    number: int
    course: str
    """"histories" (pre-training), "impressions", or "" for the untrained model."""
    train: Fit | None
    validation: Fit
    validation_auc: float
    """MIND's AUC over all candidates of the validation impressions."""
    learning_rate: float
    """At the end of the epoch."""
    clicks_per_s: float
    """How many were learned from per second; 0 for the untrained model."""
    weights: dict[str, float]
    """Mean fusion weight of each encoder over the validation articles."""
    taken: dict[str, int]
    """How many epochs of each course led to this model, without those that were undone."""


Untrained = Callable[[Behaviors], tuple[Vocabularies, Recommender]]
"""A model that has learned nothing, and what it will know after lessons from these behaviors."""


def train(
    untrained: Untrained,
    behaviors: Behaviors,
    settings: Train,
    *,
    history: int,
    seed: int,
    report: Callable[[Epoch], None],
) -> tuple[Vocabularies, Recommender, Epoch]:
    """A trained model, what it knows, and the best epoch on validation; `report` hears of every epoch.

    With `settings.refit` the model has learned from all days, in as many epochs as were best without the last ones;
    no figure of the epochs that were reported is of that model, which nothing before dev can judge.
    """
    lessons, validation = split(behaviors)
    known, model = untrained(lessons)
    best = Trainer(model, lessons, validation, settings, history=history, seed=seed).fit(report)
    if settings.refit:
        epochs = ", ".join(f"{taken} of {course}" for course, taken in best.taken.items() if taken) or "none"
        log.info("learning again, from all days, for the epochs that were best: %s", epochs)
        known, model = untrained(behaviors)
        Learner(model, behaviors, settings, history=history, seed=seed).repeat(best.taken)
    return known, model, best


class Trainer:
    """Trains a model in place, with validation after each epoch."""

    def __init__(
        self, model: Recommender, train: Behaviors, validation: Behaviors, settings: Train, *, history: int, seed: int
    ) -> None:
        """As `Learner`. Raises DataError where there is nothing to learn from or to validate with."""
        self.model, self.settings, self.history = model, settings, history
        self.learner = Learner(model, train, settings, history=history, seed=seed)
        self.validation, self.unseen = usable_clicks(validation, "validate with"), validation

    def fit(self, report: Callable[[Epoch], None]) -> Epoch:
        """Train, tell `report` about every epoch, and leave the model as it was after the best one.

        The untrained model takes part in the choice, so training that helps nothing changes nothing. Each
        course goes on from the best epoch of those before it, so pre-training that helps nothing does not either.
        """
        numbers = count(1)
        best = self._validated(0, "", None, {})
        report(best)
        for course in self.learner.courses:
            if course.epochs and len(course.lessons):
                best = self._follow(course, best, numbers, report)
        return best

    def _follow(self, course: Course, best: Epoch, numbers: Iterator[int], report: Callable[[Epoch], None]) -> Epoch:
        """The best epoch so far, after which the model is left."""
        weights, before, waited = self._copy(), best.taken, 0
        for taken, passed in enumerate(self.learner.follow(course), 1):
            epoch = self._validated(next(numbers), course.name, passed, {**before, course.name: taken})
            report(epoch)
            waited += 1
            if epoch.validation_auc > best.validation_auc:
                best, weights, waited = epoch, self._copy(), 0
            if waited == self.settings.patience:
                break
        self.model.load_state_dict(weights)
        return best

    def _validated(self, number: int, course: str, passed: Pass | None, taken: dict[str, int]) -> Epoch:
        scorer = Scorer.of(self.model, self.unseen.mentioned(), self.history, shown=self.unseen.candidate_news)
        scores = unknown_last(scorer.candidates(self.unseen))
        return Epoch(
            number,
            course,
            train=passed.fit if passed else None,
            validation=self._validation_fit(scorer),
            validation_auc=ranking(scores, self.unseen.labels, self.unseen.candidate_offsets).means()["auc"],
            learning_rate=passed.learning_rate if passed else self.settings.lr,
            clicks_per_s=passed.clicks_per_s if passed else 0,
            weights=scorer.weights,
            taken=taken,
        )

    @torch.inference_mode()
    def _validation_fit(self, scorer: Scorer) -> Fit:
        """By articles that are encoded once: batch by batch, a graph encoder would read most of its graph each time."""
        rng = np.random.default_rng(VALIDATION_SEED)
        batches = self.validation.batches(
            self.settings.batch_size, negatives=self.settings.negatives, history=self.history, rng=rng
        )
        sums = torch.zeros(3, dtype=torch.double)
        for batch in (each.to(self.learner.device) for each in batches):
            scores = self.model.match(scorer.vectors(batch.news), batch.history, batch.clicked, batch.candidates)
            sums += fit_sums(scores.masked_fill(~batch.shown, float("-inf")))
        return Fit.mean(sums, len(self.validation))

    def _copy(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
