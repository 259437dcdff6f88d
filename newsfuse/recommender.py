"""The model: views of an article are fused, clicked articles make a user, dot products make scores."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from newsfuse.blame import blame
from newsfuse.errors import PluginError

SCALE = 10.0
"""Where the learned scale of the cosine starts: enough for a softmax over cosines to have a peak."""


class Recommender(nn.Module):
    """Encoders -> fusion -> user encoder -> scale * user . article.

    Every view is brought to length 1 before fusion, so that no view outweighs others by being
    long, and so is the fused article. A user without clicks gets a learned default vector.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        fusion: nn.Module,
        user_encoder: nn.Module,
        *,
        dim: int,
        dropout: float,
        origins: Mapping[str, str],
    ) -> None:
        """`origins` says, for error messages, where each encoder, "fusion" and "user_encoder" came from."""
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion
        self.user_encoder = user_encoder
        self.dim = dim
        self.dropout = nn.Dropout(dropout)
        self.newcomer = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(SCALE).log())
        self.origins = dict(origins)

    def views(self, news: Tensor) -> Tensor:
        """Article rows (M,) -> (M, V, D), views in the order of their names. Raises PluginError for a wrong shape."""
        return torch.stack([self._view(name, news) for name in self.encoders], dim=1)

    def articles(self, news: Tensor) -> Tensor:
        """Article rows (M,) -> (M, D), length 1"""
        return self.fuse(self.views(news))

    def fuse(self, views: Tensor) -> Tensor:
        """(M, V, D) -> (M, D), length 1"""
        with blame(self.origins["fusion"]):
            fused = _shaped(self.fusion(self.dropout(views)), (len(views), self.dim))
        return _unit(fused)

    def weights(self, views: Tensor) -> Tensor | None:
        """(M, V, D) -> (M, V): how much of each view the fusion keeps; None where it has no weights."""
        weights = getattr(self.fusion, "weights", None)
        return None if weights is None else weights(views)

    def users(self, history: Tensor, clicked: Tensor) -> Tensor:
        """Clicked articles (B, H, D), latest first, and which cells are clicks (B, H) -> (B, D)"""
        anything = clicked.any(dim=1, keepdim=True)
        # a plugin may rely on a first click; what it makes of an empty history is thrown away
        safe = torch.cat([clicked[:, :1] | ~anything, clicked[:, 1:]], dim=1)
        with blame(self.origins["user_encoder"]):
            users = _shaped(self.user_encoder(history, safe), (len(history), self.dim))
        return torch.where(anything, users, self.newcomer)

    def forward(self, news: Tensor, history: Tensor, clicked: Tensor, candidates: Tensor) -> Tensor:
        """Rows of the batch's distinct articles (M,); positions in them (B, H) and (B, C) -> scores (B, C)"""
        articles = self.articles(news)
        users = self.users(articles[history] * clicked.unsqueeze(-1), clicked)
        return self.score(users.unsqueeze(1), articles[candidates])

    def score(self, users: Tensor, articles: Tensor) -> Tensor:
        """(..., D), (..., D) -> (...)"""
        return self.log_scale.exp() * (users * articles).sum(dim=-1)

    def _view(self, name: str, news: Tensor) -> Tensor:
        with blame(self.origins[name]):
            view = _shaped(self.encoders[name](news), (len(news), self.dim))
        return _unit(view.float())

    def require_finite(self, news: Tensor) -> None:
        """Raise PluginError naming the encoder, or else the fusion, whose vectors are not all finite numbers."""
        for name in self.encoders:
            if not torch.isfinite(self._view(name, news)).all():
                message = f"{self.origins[name]}: encoder '{name}' returned NaN or infinity"
                raise PluginError(message)
        if not torch.isfinite(self.articles(news)).all():
            message = f"{self.origins['fusion']}: the fusion returned NaN or infinity"
            raise PluginError(message)


def _unit(vectors: Tensor) -> Tensor:
    """(M, D) -> (M, D), length 1; zeros, which point nowhere, stay zeros and pass on no gradient."""
    # F.normalize's gradient at zero is 1e12 times that of others: one such article would drown a batch
    return F.normalize(vectors, dim=1).masked_fill(~vectors.any(dim=1, keepdim=True), 0)


def _shaped(output: Tensor, shape: Sequence[int]) -> Tensor:
    if tuple(output.shape) != tuple(shape):
        message = f"returned shape {tuple(output.shape)}, expected {tuple(shape)}"
        raise ValueError(message)
    return output
