"""The user encoder `mine`: so far, the mean of the clicks, the latest counting most.

It sees an article as the fusion left it. newsfuse's docs/plugins.md has all that a user encoder is given and must
promise. Whether this one does is tried by

    newsfuse check-plugin mine
"""

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from newsfuse import Options, UserEncoder, hookimpl


class MineOptions(Options):
    """What `options.mine` in params.yaml may set; all else there is refused."""

    half_life: float = Field(default=20, gt=0)
    """Clicks until one counts half, at first. -S +options.mine.half_life=5 sets it."""


class Mine(nn.Module):
    """The weighted mean of the clicks, with a learned weight for each place in the history."""

    def __init__(self, history: int, half_life: float) -> None:
        """`history`: how many clicks there are at most"""
        super().__init__()
        self.place = nn.Parameter(-math.log(2) / half_life * torch.arange(history))

    def forward(self, history: Tensor, clicked: Tensor) -> Tensor:
        """float32 (B, H, dim), bool (B, H) -> (B, dim), where H may be less than the most there are

        Row i is of user i alone. Column 0 is the latest click. Every row has a click; what stands in cells without
        one means nothing. All values are finite, and a gradient reaches every parameter.
        """
        scores = self.place[: history.shape[1]].expand(len(history), -1)
        weights = scores.masked_fill(~clicked, float("-inf")).softmax(dim=1)
        return torch.bmm(weights.unsqueeze(1), history).squeeze(1)


def build(dim: int, history: int, options: MineOptions) -> nn.Module:
    """The module, for up to `history` clicks; an article has `dim` values, and so has the user."""
    return Mine(history, options.half_life)


@hookimpl
def newsfuse_user_encoders() -> list[UserEncoder]:
    """The user encoder `mine`."""
    return [UserEncoder("mine", build, MineOptions)]
