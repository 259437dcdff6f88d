"""Concatenation: the views side by side, projected; it has no weights to show."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from newsfuse import Fusion, Options, hookimpl


class Concat(nn.Module):
    """A linear map of all views, which starts as their sum weighted by `start`."""

    def __init__(self, dim: int, start: Sequence[float]) -> None:
        super().__init__()
        self.project = nn.Linear(dim * len(start), dim)
        with torch.no_grad():
            self.project.weight.copy_(torch.cat([share * torch.eye(dim) for share in start], dim=1))
            self.project.bias.zero_()

    def forward(self, views: Tensor) -> Tensor:
        """(M, V, D) -> (M, D)"""
        return self.project(views.flatten(1))


def build(dim: int, start: Sequence[float], options: Options) -> Concat:
    """A Concat of len(start) views."""
    return Concat(dim, start)


@hookimpl
def newsfuse_fusions() -> list[Fusion]:
    """The fusion `concat`."""
    return [Fusion("concat", build)]
