"""The fusion `mine`: so far, the weighted mean of the views, with learned weights.

A view is the vector that an encoder makes of an article. newsfuse's docs/plugins.md has all that a fusion is given
and must promise. Whether this one does is tried by

    newsfuse check-plugin mine
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from newsfuse import Fusion, Options, hookimpl


class MineOptions(Options):
    """What `options.mine` in params.yaml may set; all else there is refused."""

    learn: bool = True
    """Whether training moves the weights. -S +options.mine.learn=false sets it."""


class Mine(nn.Module):
    """The weighted mean of the views, with the same weights for all articles."""

    def __init__(self, start: Sequence[float], *, learn: bool) -> None:
        """`start`: how much of each of the V views the untrained model keeps; they sum to one"""
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(start).log(), requires_grad=learn)

    def weights(self, views: Tensor) -> Tensor:
        """float32 (M, V, dim) -> (M, V), rows sum to one: what newsfuse reports; a fusion that weighs nothing has none

        Before training they are `start`.
        """
        return self.bias.softmax(dim=0).expand(len(views), -1)

    def forward(self, views: Tensor) -> Tensor:
        """float32 (M, V, dim), every view of length 1 -> (M, dim); of a Fusion with wide=True, (M, V * dim)

        Row i is of article i alone, and every view of it counts. All values are finite, and a gradient reaches every
        parameter.
        """
        return (self.weights(views).unsqueeze(-1) * views).sum(dim=1)


def build(dim: int, start: Sequence[float], options: MineOptions) -> nn.Module:
    """The module, for len(start) views in the alphabetical order of their encoders; any number must do."""
    return Mine(start, learn=options.learn)


@hookimpl
def newsfuse_fusions() -> list[Fusion]:
    """The fusion `mine`."""
    return [Fusion("mine", build, MineOptions)]
