"""Training: the last days of train say after which epochs a model ranks best, and it then learns from them too."""

import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from newsfuse.batches import Batch
from newsfuse.behaviors import Behaviors
from newsfuse.bookmarks import Bookmarks
from newsfuse.chance import mixed
from newsfuse.epochs import Epoch, best_of
from newsfuse.fit import Fit, fit_sums
from newsfuse.kept import NOTHING, Kept, bookmarked
from newsfuse.learning import BEGINNING, Learner, usable_clicks
from newsfuse.losses import UNSHOWN
from newsfuse.params import Train
from newsfuse.ranking import ranking, unknown_last
from newsfuse.recommender import Recommender
from newsfuse.scoring import Scorer
from newsfuse.split import split
from newsfuse.study import Course, Pass, Study
from newsfuse.team import ALONE, Team
from newsfuse.vocabularies import Vocabularies

log = logging.getLogger(__name__)

VALIDATION = mixed(0)
"""The key of the unclicked articles that validation loss is measured against: the same in every run and epoch."""

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
    team: Team = ALONE,
    bookmarks: Bookmarks | None = None,
) -> tuple[Vocabularies, Recommender, Epoch]:
    """A trained model, what it knows, and the best epoch on validation; `report` hears of every epoch.

    With `settings.refit` the model has learned from all days, in as many epochs as were best without the last ones;
    no figure of the epochs that were reported is of that model, which nothing before dev can judge.
    Goes on from the last of the `bookmarks`, to what it would have come to without a break.
    """
    marks = bookmarks or Bookmarks(None)
    kept = Kept.read(marks.find())
    if kept.epochs:
        log.info("training was interrupted and goes on; epochs of before are told again")
    lessons, validation = split(behaviors)
    known, model = untrained(lessons)
    trainer = Trainer(model, lessons, validation, settings, history=history, seed=seed, team=team, bookmarks=marks)
    best = trainer.fit(report, kept)
    if settings.refit:
        epochs = ", ".join(f"{taken} of {course}" for course, taken in best.taken.items() if taken) or "none"
        log.info("learning again, from all days, for the epochs that were best: %s", epochs)
        known, model = untrained(behaviors)

        def pause(study: Study) -> None:
            if not study.place.batches or marks.due:
                marks.keep(bookmarked(study, trainer.epochs, None))

        learner = Learner(model, behaviors, settings, history=history, seed=seed, team=team, paused=pause)
        learner.repeat(best.taken, kept.standing if kept.again else BEGINNING)
    return known, model, best


class Trainer:
    """Trains a model in place, with validation after each epoch."""

    def __init__(
        self,
        model: Recommender,
        train: Behaviors,
        validation: Behaviors,
        settings: Train,
        *,
        history: int,
        seed: int,
        team: Team = ALONE,
        bookmarks: Bookmarks | None = None,
    ) -> None:
        """As `Learner`. Raises DataError where there is nothing to learn from or to validate with."""
        self.model, self.settings, self.history, self.team = model, settings, history, team
        self.bookmarks = bookmarks or Bookmarks(None)
        self.learner = Learner(model, train, settings, history=history, seed=seed, team=team, paused=self._keep_if_due)
        self.validation, self.unseen = usable_clicks(validation, "validate with"), validation
        self.epochs: list[Epoch] = []
        self.weights: Mapping[str, Tensor] = {}
        """Of the best of them."""

    def fit(self, report: Callable[[Epoch], None], kept: Kept = NOTHING) -> Epoch:
        """Train, tell `report` about every epoch, and leave the model as it was after the best one.

        The untrained model takes part in the choice, so training that helps nothing changes nothing. Each
        course goes on from the best epoch of those before it, so pre-training that helps nothing does not either.
        Epochs that were `kept` are only reported again; where all were, the model is left as it is.
        """
        for epoch in kept.epochs:
            self.epochs.append(epoch)
            report(epoch)
        self.weights = kept.best
        if not self.epochs:
            self._add(self._validated(0, "", None, {}))
            report(self.epochs[0])
        if not kept.again:
            for course, study in self.learner.left(kept.standing):
                self._follow(course, study, report)
        return best_of(self.epochs)

    def _follow(self, course: Course, study: Study, report: Callable[[Epoch], None]) -> None:
        """Until the course ends, or patience; the model is left as it was after the best epoch so far."""
        before = [epoch for epoch in self.epochs if epoch.course != course.name]
        while study.place.epochs < course.epochs and self._waited(before) < self.settings.patience:
            passed = self.learner.epoch(study)
            taken = {**best_of(before).taken, course.name: study.place.epochs}
            self._add(self._validated(len(self.epochs), course.name, passed, taken))
            self.bookmarks.keep(bookmarked(study, self.epochs, self.weights))
            report(self.epochs[-1])  # of which nothing is lost from here on
        self.model.load_state_dict(self.weights)

    def _waited(self, before: Sequence[Epoch]) -> int:
        """How many epochs of the course there were since the best one, if that is of the course, or in all."""
        return len(self.epochs) - max(len(before), best_of(self.epochs).number + 1)

    def _add(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)
        if best_of(self.epochs) is epoch:
            self.weights = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}

    def _keep_if_due(self, study: Study) -> None:
        if self.bookmarks.due:
            self.bookmarks.keep(bookmarked(study, self.epochs, self.weights))

    def _validated(self, number: int, course: str, passed: Pass | None, taken: dict[str, int]) -> Epoch:
        scorer = Scorer.of(self.model, self.unseen.mentioned(), self.history, shown=self.unseen.candidate_news)
        scores = unknown_last(self.team.scores(scorer.candidates, self.unseen))
        auc = ranking(scores, self.unseen.labels, self.unseen.candidate_offsets).means()["auc"]
        return Epoch(
            number,
            course,
            train=passed.fit if passed else None,
            validation=self._validation_fit(scorer),
            validation_auc=self.team.told(auc),
            learning_rate=passed.learning_rate if passed else self.settings.lr,
            clicks_per_s=passed.clicks_per_s if passed else 0,
            weights=scorer.weights,
            taken=taken,
        )

    @torch.inference_mode()
    def _validation_fit(self, scorer: Scorer) -> Fit:
        """By articles that are encoded once: batch by batch, a graph encoder would read most of its graph each time."""
        size, negatives = self.settings.batch_size, self.settings.negatives
        sums = torch.zeros(3, dtype=torch.double)
        for batch in self.validation.batches(
            size, negatives=negatives, history=self.history, key=VALIDATION, part=self.team.part
        ):
            sums += self._sums(scorer, batch.to(scorer.news.device)) * (not batch.idle)
        return Fit.mean(self.team.sum(sums), len(self.validation))

    def _sums(self, scorer: Scorer, batch: Batch) -> Tensor:
        scores = self.model.match(scorer.vectors(batch.news), batch.history, batch.clicked, batch.candidates)
        return fit_sums(scores.masked_fill(~batch.shown, UNSHOWN))
