"""A user is the mean of what he or she clicked."""

from torch import Tensor, nn

from newsfuse import Options, UserEncoder, hookimpl


class Mean(nn.Module):
    """The plain mean of the clicked articles' vectors."""

    def forward(self, history: Tensor, clicked: Tensor) -> Tensor:
        """(B, H, D), bool (B, H) -> (B, D)"""
        kept = history * clicked.unsqueeze(-1)
        return kept.sum(dim=1) / clicked.sum(dim=1, keepdim=True)


def build(dim: int, history: int, options: Options) -> Mean:
    """A Mean."""
    return Mean()


@hookimpl
def newsfuse_user_encoders() -> list[UserEncoder]:
    """The user encoder `mean`."""
    return [UserEncoder("mean", build)]
