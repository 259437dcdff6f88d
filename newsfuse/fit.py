"""How well clicks stand out from what was shown beside them."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fit:
    """How well a click stands out from the unclicked articles drawn for it: means over clicks."""

    loss: float
    """Softmax cross-entropy, in nats."""
    auc: float
    """Share of unclicked articles that score below the clicked one, ties counting half."""
    accuracy: float
    """Share of clicks that score above all their unclicked articles."""

    @classmethod
    def mean(cls, sums: Tensor, clicks: int) -> Self:
        """Of what `fit_sums` found in all batches."""
        return cls(*(sums / max(1, clicks)).tolist())


def fit_sums(scores: Tensor) -> Tensor:
    """Loss, AUC and accuracy of each click (column 0 of (B, C), -inf where no article is), summed: double (3,)"""
    clicked, others = scores[:, :1], scores[:, 1:]
    drawn = others.isfinite()
    below = ((others < clicked) + 0.5 * (others == clicked)) * drawn
    loss = scores.logsumexp(dim=1) - scores[:, 0]
    best = (others < clicked).all(dim=1)
    return torch.stack([loss.sum(), (below.sum(dim=1) / drawn.sum(dim=1)).sum(), best.sum()]).double().cpu()
