"""Attention fusion: each view is scored by itself, and the scores share out the weight."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from newsfuse import Fusion, Options, hookimpl


class Attention(nn.Module):
    """Additive attention over views, as NAML has it (Wu et al. 2019, section 3.1), plus a bias per view.

    The query starts at zero and the biases at `start`, so the weights start there too.
    """

    def __init__(self, dim: int, start: Sequence[float]) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, dim)
        self.query = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.tensor(start).log())

    def weights(self, views: Tensor) -> Tensor:
        """(M, V, D) -> (M, V)"""
        return (torch.tanh(self.hidden(views)) @ self.query + self.bias).softmax(dim=1)

    def forward(self, views: Tensor) -> Tensor:
        """(M, V, D) -> (M, D)"""
        return (self.weights(views).unsqueeze(-1) * views).sum(dim=1)


def build(dim: int, start: Sequence[float], options: Options) -> Attention:
    """An Attention over len(start) views."""
    return Attention(dim, start)


@hookimpl
def newsfuse_fusions() -> list[Fusion]:
    """The fusion `attention`."""
    return [Fusion("attention", build)]
