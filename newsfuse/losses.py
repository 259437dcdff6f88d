"""What training makes small: how far a click's score is from standing out among the articles shown beside it."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

UNSHOWN = float("-inf")
"""The score of a cell where no article is. NaN is no such cell: a loss of it has to be NaN."""


class Loss(nn.Module):
    """Of scores (B, C), -inf where no article is, the click in column 0 -> (), a mean."""

    def start(self, scores: Tensor) -> None:
        """Look at the first batch, as `forward` gets it, before the first step."""

    def weight(self, scores: Tensor) -> Tensor:
        """() float32: how many terms `forward` is the mean of."""
        return scores.new_tensor(len(scores), dtype=torch.float32)


class Softmax(Loss):
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


class Binary(Loss):
    """Was this article clicked, whatever was beside it? Cross-entropy of each (He et al. 2017, NeuMF, equation 7).

    Its bias is no part of the model: it is the same for all articles, so that it changes no order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    @torch.no_grad()
    def start(self, scores: Tensor) -> None:
        """Let the mean score stand for the share of clicks: from zero, the bias would need all of training for that."""
        shown = scores[scores != UNSHOWN]
        share = torch.tensor(len(scores) / len(shown), device=scores.device)
        self.bias.copy_(share.logit() - shown.mean())

    def weight(self, scores: Tensor) -> Tensor:
        """() float32: how many articles."""
        return (scores != UNSHOWN).sum(dtype=torch.float32)

    def forward(self, scores: Tensor) -> Tensor:
        """As Softmax, but the mean over articles."""
        shown = scores != UNSHOWN
        target = torch.zeros_like(scores)
        target[:, 0] = 1
        return F.binary_cross_entropy_with_logits((scores + self.bias)[shown], target[shown])


def loss(name: Literal["softmax", "binary"], smoothing: float) -> Loss:
    """By its name in `train.loss`; a new one for each course of lessons, since it may learn itself."""
    return Binary() if name == "binary" else Softmax(smoothing)
