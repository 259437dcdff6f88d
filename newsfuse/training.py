"""Training: each click against what was shown beside it, until validation stops getting better."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torch.optim.lr_scheduler import LambdaLR

from newsfuse.batches import Batch, Clicks
from newsfuse.behaviors import Behaviors
from newsfuse.errors import DataError, NewsfuseError
from newsfuse.params import Train
from newsfuse.ranking import ranking, unknown_last
from newsfuse.recommender import Recommender
from newsfuse.scoring import score

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
    """What one pass over the training clicks came to. Number 0 is the untrained model."""

    number: int
    train: Fit | None
    validation: Fit
    validation_auc: float
    """MIND's AUC over all candidates of the validation impressions."""
    learning_rate: float
    """At the end of the epoch."""
    impressions_per_s: float
    """Clicks trained on per second; 0 for the untrained model."""
    weights: dict[str, float]
    """Mean fusion weight of each encoder over the validation articles."""


class Trainer:
    """Trains a model in place: softmax cross-entropy over 1 + `negatives` articles (Wu et al. 2019, NRMS)."""

    def __init__(
        self, model: Recommender, train: Behaviors, validation: Behaviors, settings: Train, *, history: int, seed: int
    ) -> None:
        """`history`: how many clicks of a user are read; `seed` orders clicks and draws unclicked articles.

        Raises DataError where there is nothing to learn from or to validate with.
        """
        self.model, self.settings, self.history = model, settings, history
        self.train, self.validation = _clicks(train, "learn from"), _clicks(validation, "validate with")
        self.unseen = validation
        self.device = model.newcomer.device
        self.rng = np.random.default_rng(seed)
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        self.steps = settings.epochs * -(-len(self.train) // settings.batch_size)
        self.schedule = LambdaLR(self.optimiser, lambda step: 1 - step / max(1, self.steps))

    def fit(self, report: Callable[[Epoch], None]) -> Epoch:
        """Train, tell `report` about every epoch, and leave the model as it was after the best one.

        The untrained model takes part in the choice: training that helps nothing changes nothing.
        """
        best = self._validate(0, None, 0.0)
        report(best)
        weights = self._copy()
        for number in range(1, self.settings.epochs + 1):
            epoch = self._epoch(number)
            report(epoch)
            if epoch.validation_auc > best.validation_auc:
                best, weights = epoch, self._copy()
            elif number - best.number >= self.settings.patience:
                break
        self.model.load_state_dict(weights)
        return best

    def _epoch(self, number: int) -> Epoch:
        self.model.train()
        started = time.perf_counter()
        batches = self.train.batches(
            self.settings.batch_size, negatives=self.settings.negatives, history=self.history, rng=self.rng
        )
        total = -(-len(self.train) // self.settings.batch_size)
        progress = track(batches, f"epoch {number}", total, transient=True, disable=not sys.stderr.isatty())
        sums = sum((self._step(batch) for batch in progress), torch.zeros(3, dtype=torch.double))
        seconds = time.perf_counter() - started
        return self._validate(number, Fit(*(sums / len(self.train)).tolist()), len(self.train) / seconds)

    def _step(self, batch: Batch) -> Tensor:
        scores, loss = self._forward(batch)
        if not torch.isfinite(loss):
            self.model.require_finite(batch.news.to(self.device))
            message = f"the training loss became {loss.item()}; try a smaller train.lr (now {self.settings.lr})"
            raise NewsfuseError(message)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimiser.step()
        self.schedule.step()
        return _sums(scores.detach())

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores (B, C), -inf where no article is, and their mean loss."""
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            scores = self.model(batch.news, batch.history, batch.clicked, batch.candidates)
        scores = scores.float().masked_fill(~batch.shown, float("-inf"))
        return scores, F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=self.device))

    def _validate(self, number: int, train: Fit | None, speed: float) -> Epoch:
        scored = score(self.model, self.unseen, self.history)
        auc = ranking(unknown_last(scored.candidates), self.unseen.labels, self.unseen.candidate_offsets).means()["auc"]
        rate = float(self.schedule.get_last_lr()[0])
        return Epoch(number, train, self._validation_fit(), auc, rate, speed, scored.weights)

    @torch.inference_mode()
    def _validation_fit(self) -> Fit:
        self.model.eval()
        rng = np.random.default_rng(VALIDATION_SEED)
        batches = self.validation.batches(
            self.settings.batch_size, negatives=self.settings.negatives, history=self.history, rng=rng
        )
        sums = sum((_sums(self._forward(batch)[0]) for batch in batches), torch.zeros(3, dtype=torch.double))
        return Fit(*(sums / max(1, len(self.validation))).tolist())

    def _copy(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}


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
