"""Late fusion: the views stay side by side, so that each is compared only with itself."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from newsfuse import Fusion, Options, hookimpl


class Late(nn.Module):
    """Each view times the square root of its share, so that a dot product is the weighted sum of the views' own.

    The shares are the same for all articles, learned, and begin at `start`.
    """

    def __init__(self, start: Sequence[float]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(start).log())

    def weights(self, views: Tensor) -> Tensor:
        """(M, V, D) -> (M, V)"""
        return self.bias.softmax(dim=0).expand(len(views), -1)

    def forward(self, views: Tensor) -> Tensor:
        """(M, V, D) -> (M, V * D)"""
        return (self.bias.softmax(dim=0).sqrt().unsqueeze(-1) * views).flatten(1)


def build(dim: int, start: Sequence[float], options: Options) -> Late:
    """A Late of len(start) views."""
    return Late(start)


@hookimpl
def newsfuse_fusions() -> list[Fusion]:
    """The fusion `late`."""
    return [Fusion("late", build, wide=True)]
