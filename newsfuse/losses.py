"""What training makes small: how far a click's score is from standing out among the articles shown beside it."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

UNSHOWN = float("-inf")
"""The score of a cell where no article is. NaN is no such cell: a loss of it has to be NaN."""


class Softmax(nn.Module):
    """Which article of the row was clicked? Cross-entropy of a softmax (Wu et al. 2019, NRMS, section 2.3)."""

    def __init__(self, smoothing: float) -> None:
        """`smoothing`: share of the target that all articles of a row have evenly (Szegedy et al. 2016, section 7)."""
        super().__init__()
        self.smoothing = smoothing

    def forward(self, scores: Tensor) -> Tensor:
        """(B, C), -inf where no article is, the click in column 0 -> (), the mean over rows, in nats"""
        logs = scores.log_softmax(dim=1)
        shown = scores != UNSHOWN
        even = logs.masked_fill(~shown, 0).sum(dim=1) / shown.sum(dim=1)
        return -((1 - self.smoothing) * logs[:, 0] + self.smoothing * even).mean()


class Binary(nn.Module):
    """Was this article clicked, whatever was beside it? Cross-entropy of each (He et al. 2017, NeuMF, equation 7).

    Its bias is no part of the model: it is the same for all articles, so that it changes no order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))
        self.started = False

    def forward(self, scores: Tensor) -> Tensor:
        """As Softmax, but the mean over articles."""
        shown = scores != UNSHOWN
        if not self.started:
            self._start(scores.detach()[shown], len(scores))
        target = torch.zeros_like(scores)
        target[:, 0] = 1
        return F.binary_cross_entropy_with_logits((scores + self.bias)[shown], target[shown])

    @torch.no_grad()
    def _start(self, scores: Tensor, clicks: int) -> None:
        """Let the mean score stand for the share of clicks: from zero, the bias would need all of training for that."""
        share = torch.tensor(clicks / len(scores), device=scores.device)
        self.bias.copy_(share.logit() - scores.mean())
        self.started = True


def loss(name: Literal["softmax", "binary"], smoothing: float) -> nn.Module:
    """By its name in `train.loss`; a new one for each course of lessons, since it may learn itself."""
    return Binary() if name == "binary" else Softmax(smoothing)
