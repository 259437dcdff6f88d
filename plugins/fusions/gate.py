"""Gated fusion: all views together decide how much of each to keep."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from newsfuse import Fusion, Options, hookimpl


class Gate(nn.Module):
    """A softmax over views, computed from all of them side by side (Arevalo et al. 2017, GMU, with a softmax).

    The gate's weights start at zero and its biases at `start`, so the weights start there too.
    """

    def __init__(self, dim: int, start: Sequence[float]) -> None:
        super().__init__()
        self.gate = nn.Linear(dim * len(start), len(start))
        with torch.no_grad():
            self.gate.weight.zero_()
            self.gate.bias.copy_(torch.tensor(start).log())

    def weights(self, views: Tensor) -> Tensor:
        """(M, V, D) -> (M, V)"""
        return self.gate(views.flatten(1)).softmax(dim=1)

    def forward(self, views: Tensor) -> Tensor:
        """(M, V, D) -> (M, D)"""
        return (self.weights(views).unsqueeze(-1) * views).sum(dim=1)


def build(dim: int, start: Sequence[float], options: Options) -> Gate:
    """A Gate over len(start) views."""
    return Gate(dim, start)


@hookimpl
def newsfuse_fusions() -> list[Fusion]:
    """The fusion `gate`."""
    return [Fusion("gate", build)]
