"""A user is the mean of what he or she clicked."""

import torch
from torch import Tensor, nn

from newsfuse import Options, UserEncoder, hookimpl


class Mean(nn.Module):
    """The plain mean of the clicked articles' vectors."""

    def forward(self, history: Tensor, clicked: Tensor) -> Tensor:
        """(B, H, D), bool (B, H) -> (B, D)"""
        share = clicked / clicked.sum(dim=1, keepdim=True)
        return torch.bmm(share.unsqueeze(1), history).squeeze(1)


def build(dim: int, history: int, options: Options) -> Mean:
    """A Mean."""
    return Mean()


@hookimpl
def newsfuse_user_encoders() -> list[UserEncoder]:
    """The user encoder `mean`."""
    return [UserEncoder("mean", build)]
