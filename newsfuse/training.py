"""Training: each click against what was shown beside it, until validation stops getting better."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from newsfuse.batches import Batch, Clicks, Histories, Lessons, prefetched
from newsfuse.behaviors import Behaviors
from newsfuse.errors import DataError, NewsfuseError
from newsfuse.params import Train
from newsfuse.ranking import ranking, unknown_last
from newsfuse.recommender import Recommender
from newsfuse.scoring import Scorer

log = logging.getLogger(__name__)

TINY = 1e-6
"""Keeps a gradient of zero from being divided by zero, as in torch's own clipping."""
VALIDATION_SEED = 0
"""The unclicked articles that validation loss is measured against are the same in every run and epoch."""


@dataclass(frozen=True)
class Fit:
    """How well a click stands out from the unclicked articles drawn for it: means over clicks."""

    loss: float
    """Softmax cross-entropy, in nats."""
    auc: float
    """Share of unclicked articles that score below the clicked one, ties counting half."""
    accuracy: float
    """Share of clicks that score above all their unclicked articles."""


@dataclass(frozen=True)
class Epoch:
    """What one pass over the lessons of a course came to. Number 0 is the untrained model."""

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


@dataclass(frozen=True)
class Course:
    """Lessons, and how long to learn from them."""

    name: str
    lessons: Lessons
    epochs: int
    negatives: int


class Descent:
    """AdamW with a learning rate that falls to zero in a straight line."""

    def __init__(self, model: nn.Module, settings: Train, steps: int) -> None:
        self.gradients = Gradients(model)
        # fused: one pass over the memory of an embedding table instead of ten
        self.optimiser = AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        self.schedule = LambdaLR(self.optimiser, lambda step: 1 - step / max(1, steps))
        self.clip_norm = settings.clip_norm

    @property
    def rate(self) -> float:
        """The learning rate now."""
        return float(self.schedule.get_last_lr()[0])

    def step(self, loss: Tensor) -> None:
        """Against the gradient of `loss`, its length at most `clip_norm`."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.gradients.clip(self.clip_norm)
        self.optimiser.step()
        self.schedule.step()


class Gradients:
    """The gradients of a model, clipped together; those of embedding tables are computed for the rows of a batch alone.

    Otherwise torch makes a table of zeros at each step, which for 50,000 articles takes twice as long as AdamW.
    """

    def __init__(self, model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.sparse = True
        self.parameters = list(model.parameters())
        self.tables: dict[nn.Parameter, Tensor] = {}
        self.rows: dict[nn.Parameter, Tensor] = {}
        """Those that are not zero in the table."""

    def clip(self, most: float) -> None:
        """Shorten them to the length `most`, if they are longer, and make all of them dense."""
        given = {each: each.grad for each in self.parameters if each.grad is not None}
        sparse = {each: grad.coalesce() for each, grad in given.items() if grad.is_sparse}
        values = [sparse[each].values() if each in sparse else grad for each, grad in given.items()]
        shorter = (most / (get_total_norm(values) + TINY)).clamp(max=1.0)
        for value in values:
            value.mul_(shorter)
        for parameter, grad in sparse.items():
            parameter.grad = self._dense(parameter, grad)

    def _dense(self, parameter: nn.Parameter, grad: Tensor) -> Tensor:
        """In the table that was used before: AdamW is for dense gradients."""
        rows = grad.indices()[0]
        if parameter in self.tables:
            table = self.tables[parameter].index_fill_(0, self.rows[parameter], 0)
        else:
            table = torch.zeros_like(parameter)
        self.tables[parameter], self.rows[parameter] = table.index_copy_(0, rows, grad.values()), rows
        return table


class Trainer:
    """Trains a model in place: softmax cross-entropy over 1 + `negatives` articles (Wu et al. 2019, NRMS)."""

    def __init__(
        self, model: Recommender, train: Behaviors, validation: Behaviors, settings: Train, *, history: int, seed: int
    ) -> None:
        """`history`: how many clicks of a user are read; `seed` orders clicks and draws unclicked articles.

        Raises DataError where there is nothing to learn from or to validate with.
        """
        self.model, self.settings, self.history = model, settings, history
        self.courses = (
            Course("histories", _histories(train, settings), settings.pretrain_epochs, settings.pretrain_negatives),
            Course("impressions", _clicks(train, "learn from"), settings.epochs, settings.negatives),
        )
        self.validation, self.unseen = _clicks(validation, "validate with"), validation
        self.device = model.newcomer.device
        self.rng = np.random.default_rng(seed)

    def fit(self, report: Callable[[Epoch], None]) -> Epoch:
        """Train, tell `report` about every epoch, and leave the model as it was after the best one.

        The untrained model takes part in the choice, so training that helps nothing changes nothing. Each
        course goes on from the best epoch of those before it, so pre-training that helps nothing does not either.
        """
        numbers = count()
        best = self._validate(next(numbers), "", None, rate=self.settings.lr, speed=0)
        report(best)
        for course in self.courses:
            if course.epochs and len(course.lessons):
                best = self._follow(course, best, numbers, report)
        return best

    def _follow(self, course: Course, best: Epoch, numbers: Iterator[int], report: Callable[[Epoch], None]) -> Epoch:
        """The best epoch so far, after which the model is left."""
        weights, waited = self._copy(), 0
        descent = Descent(self.model, self.settings, course.epochs * self._n_batches(course))
        for _, number in zip(range(course.epochs), numbers, strict=False):
            epoch = self._epoch(number, course, descent)
            report(epoch)
            waited += 1
            if epoch.validation_auc > best.validation_auc:
                best, weights, waited = epoch, self._copy(), 0
            if waited == self.settings.patience:
                break
        self.model.load_state_dict(weights)
        return best

    def _batches(self, course: Course) -> Iterator[Batch]:
        size = self.settings.batch_size
        return course.lessons.batches(size, negatives=course.negatives, history=self.history, rng=self.rng)

    def _n_batches(self, course: Course) -> int:
        return -(-len(course.lessons) // self.settings.batch_size)

    def _epoch(self, number: int, course: Course, descent: Descent) -> Epoch:
        self.model.train()
        started, total = time.perf_counter(), len(course.lessons)
        with prefetched(self._batches(course)) as batches:
            shown = track(
                batches, f"epoch {number}", self._n_batches(course), transient=True, disable=not sys.stderr.isatty()
            )
            sums = sum((self._step(batch, descent) for batch in shown), torch.zeros(3, dtype=torch.double))
        speed = total / (time.perf_counter() - started)
        return self._validate(number, course.name, Fit(*(sums / total).tolist()), rate=descent.rate, speed=speed)

    def _step(self, batch: Batch, descent: Descent) -> Tensor:
        scores = self._scores(batch)
        loss = cross_entropy(scores, self.settings.label_smoothing)
        if not torch.isfinite(loss):
            self.model.require_finite(batch.news.to(self.device))
            message = f"the training loss became {loss.item()}; try a smaller train.lr (now {self.settings.lr})"
            raise NewsfuseError(message)
        descent.step(loss)
        return _sums(scores.detach())

    def _scores(self, batch: Batch) -> Tensor:
        """(B, C), -inf where no article is."""
        batch = batch.to(self.device)
        half = self.settings.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            scores = self.model(batch.news, batch.history, batch.clicked, batch.candidates)
        return scores.float().masked_fill(~batch.shown, float("-inf"))

    def _validate(self, number: int, course: str, train: Fit | None, *, rate: float, speed: float) -> Epoch:
        scorer = Scorer.of(self.model, self.unseen.mentioned(), self.history, shown=self.unseen.candidate_news)
        scores = unknown_last(scorer.candidates(self.unseen))
        auc = ranking(scores, self.unseen.labels, self.unseen.candidate_offsets).means()["auc"]
        return Epoch(number, course, train, self._validation_fit(scorer), auc, rate, speed, scorer.weights)

    @torch.inference_mode()
    def _validation_fit(self, scorer: Scorer) -> Fit:
        """By articles that are encoded once: batch by batch, a graph encoder would read most of its graph each time."""
        rng = np.random.default_rng(VALIDATION_SEED)
        batches = self.validation.batches(
            self.settings.batch_size, negatives=self.settings.negatives, history=self.history, rng=rng
        )
        sums = torch.zeros(3, dtype=torch.double)
        for batch in (each.to(self.device) for each in batches):
            scores = self.model.match(scorer.vectors(batch.news), batch.history, batch.clicked, batch.candidates)
            sums += _sums(scores.masked_fill(~batch.shown, float("-inf")))
        return Fit(*(sums / max(1, len(self.validation))).tolist())

    def _copy(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}


def cross_entropy(scores: Tensor, smoothing: float) -> Tensor:
    """Of scores (B, C), -inf where no article is, with the click in column 0: the mean, in nats.

    `smoothing` is the share of the target that all articles of the row have evenly (Szegedy et al. 2016, section 7).
    """
    logs = scores.log_softmax(dim=1)
    shown = scores.isfinite()
    even = logs.masked_fill(~shown, 0).sum(dim=1) / shown.sum(dim=1)
    return -((1 - smoothing) * logs[:, 0] + smoothing * even).mean()


def _histories(behaviors: Behaviors, settings: Train) -> Histories:
    histories = Histories.of(behaviors)
    if settings.pretrain_epochs and not len(histories):
        log.warning("train/behaviors.tsv: nothing to pre-train on: no user comes with a history of two clicks")
    return histories


def _clicks(behaviors: Behaviors, purpose: str) -> Clicks:
    clicks = Clicks.of(behaviors)
    if not len(clicks):
        wanted = "a clicked article and one that is not, both with a line in news.tsv"
        message = f"train/behaviors.tsv: no click to {purpose}: none of {len(behaviors)} impressions has {wanted}"
        raise DataError(message)
    return clicks


def _sums(scores: Tensor) -> Tensor:
    """Loss, AUC and accuracy of each click (column 0) summed over the batch: double (3,)"""
    clicked, others = scores[:, :1], scores[:, 1:]
    drawn = others.isfinite()
    below = ((others < clicked) + 0.5 * (others == clicked)) * drawn
    loss = scores.logsumexp(dim=1) - scores[:, 0]
    best = (others < clicked).all(dim=1)
    return torch.stack([loss.sum(), (below.sum(dim=1) / drawn.sum(dim=1)).sum(), best.sum()]).double().cpu()
