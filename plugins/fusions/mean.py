"""Plain average: every view counts the same, and nothing is learned."""

from collections.abc import Sequence

from torch import Tensor, nn

from newsfuse import Fusion, Options, hookimpl


class Mean(nn.Module):
    """The mean of the views; `start` has no say here."""

    def weights(self, views: Tensor) -> Tensor:
        """(M, V, D) -> (M, V)"""
        return views.new_full(views.shape[:2], 1 / views.shape[1])

    def forward(self, views: Tensor) -> Tensor:
        """(M, V, D) -> (M, D)"""
        return views.mean(dim=1)


def build(dim: int, start: Sequence[float], options: Options) -> Mean:
    """A Mean."""
    return Mean()


@hookimpl
def newsfuse_fusions() -> list[Fusion]:
    """The fusion `mean`."""
    return [Fusion("mean", build)]
