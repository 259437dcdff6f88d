"""The model: views of an article are fused, clicked articles make a user, dot products make scores."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from newsfuse.blame import blame
from newsfuse.errors import PluginError
from newsfuse.products import products

SCALE = 10.0
"""Where the learned scale of the cosine starts: enough for a softmax over cosines to have a peak."""


class Recommender(nn.Module):
    """Encoders -> fusion -> user encoder -> scale * user . article.

    Every view is brought to length 1 before fusion, so that no view outweighs others by being
    long, and so is the fused article (W values, which is D unless the fusion keeps views apart).
    A user without clicks gets a learned default vector. To every user is added one learned vector,
    zero at first: what everybody likes, so that an article has an appeal of its own.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        fusion: nn.Module,
        user_encoder: nn.Module,
        *,
        dim: int,
        width: int,
        dropout: float,
        origins: Mapping[str, str],
    ) -> None:
        """`dim`: D, of a view; `width`: W, of a fused article.

        `origins` says, for error messages, where each encoder, "fusion" and "user_encoder" came from.
        """
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion
        self.user_encoder = user_encoder
        self.dim, self.width = dim, width
        self.dropout = Dropout(dropout)
        self.newcomer = nn.Parameter(torch.randn(width) * width**-0.5)
        self.everyone = nn.Parameter(torch.zeros(width))
        self.log_scale = nn.Parameter(torch.tensor(SCALE).log())
        self.origins = dict(origins)

    def start(self) -> None:
        """Let each encoder that asks for it look at its articles before the first lesson."""
        for name, encoder in self.encoders.items():
            if begin := getattr(encoder, "start", None):
                with blame(self.origins[name]):
                    begin()

    def views(self, news: Tensor) -> Tensor:
        """Article rows (M,) -> (M, V, D), views in the order of their names. Raises PluginError for a wrong shape."""
        return torch.stack([self._view(name, news) for name in self.encoders], dim=1)

    def articles(self, news: Tensor) -> Tensor:
        """Article rows (M,) -> (M, W), length 1"""
        return self.fuse(self.views(news))

    def fuse(self, views: Tensor) -> Tensor:
        """(M, V, D) -> (M, W), length 1"""
        with blame(self.origins["fusion"]):
            fused = _shaped(self.fusion(self.dropout(views)), (len(views), self.width))
        return _unit(fused)

    def weights(self, views: Tensor) -> Tensor | None:
        """(M, V, D) -> (M, V): how much of each view the fusion keeps; None where it has no weights."""
        weights = getattr(self.fusion, "weights", None)
        return None if weights is None else weights(views)

    def users(self, history: Tensor, clicked: Tensor) -> Tensor:
        """Clicked articles (B, H, W), latest first, and which cells are clicks (B, H) -> (B, W)"""
        anything = clicked.any(dim=1, keepdim=True)
        # a plugin may rely on a first click; what it makes of an empty history is thrown away
        safe = torch.cat([clicked[:, :1] | ~anything, clicked[:, 1:]], dim=1)
        with blame(self.origins["user_encoder"]):
            users = _shaped(self.user_encoder(history, safe), (len(history), self.width))
        return torch.where(anything, users, self.newcomer) + self.everyone

    def forward(self, news: Tensor, history: Tensor, clicked: Tensor, candidates: Tensor) -> Tensor:
        """Rows of the batch's distinct articles (M,); positions in them (B, H) and (B, C) -> scores (B, C)"""
        return self.match(self.articles(news), history, clicked, candidates)

    def match(self, articles: Tensor, history: Tensor, clicked: Tensor, candidates: Tensor) -> Tensor:
        """The same of articles that are encoded already (M, W)."""
        users = self.users(articles[history], clicked)
        # a product of matrices: the elementwise one would be written to memory, and its gradient as well
        return self.log_scale.exp() * torch.bmm(articles[candidates], users.unsqueeze(2)).squeeze(2)

    def score(self, users: Tensor, articles: Tensor, offsets: Tensor, places: Tensor) -> Tensor:
        """Users (n, W), articles (m, W) -> scores (p,): of `articles[places[offsets[i]:offsets[i + 1]]]` for user i.

        Without gradient.
        """
        return self.log_scale.exp() * products(users, articles, offsets, places)

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


class Dropout(nn.Module):
    """As nn.Dropout, with 16 random bits for a value: torch draws more for each, which was a quarter of training."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        """Of any shape; in training about `share` of them become zero, and the others larger by as much."""
        if not (self.training and self.share):
            return values
        n = values.numel()
        bits = torch.empty(-(-n // 4), dtype=torch.int64, device=values.device).random_(-(2**63), None)
        kept = bits.view(torch.int16)[:n].view(values.shape) >= round(self.share * 2**16) - 2**15
        return values * (kept / (1 - self.share))


def _unit(vectors: Tensor) -> Tensor:
    """(M, D) -> (M, D), length 1; zeros, which point nowhere, stay zeros and pass on no gradient."""
    # F.normalize's gradient at zero is 1e12 times that of others: one such article would drown a batch
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    # times the reciprocal: of a division two more tables would be made for the gradient
    return vectors * lengths.masked_fill(lengths == 0, float("inf")).reciprocal()


def _shaped(output: Tensor, shape: Sequence[int]) -> Tensor:
    if tuple(output.shape) != tuple(shape):
        message = f"returned shape {tuple(output.shape)}, expected {tuple(shape)}"
        raise ValueError(message)
    return output
