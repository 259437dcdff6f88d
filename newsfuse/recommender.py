"""The model: views of an article are fused, clicked articles make a user, dot products make scores."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial

import torch
from torch import Tensor, nn

from newsfuse.blame import blame, homes, is_its_own, owner, told
from newsfuse.chance import below, drawn_by, happens, mixed
from newsfuse.errors import NewsfuseError, PluginError
from newsfuse.products import products

SCALE = 10.0
"""Where the learned scale of the cosine starts: enough for a softmax over cosines to have a peak."""


TABLE = 1 << 20
"""Values of the table that dropout reads: 4 MB, which stays in a core's cache."""


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
        Raises PluginError for a part that is no module.
        """
        super().__init__()
        for name, part in {**encoders, "fusion": fusion, "user_encoder": user_encoder}.items():
            _require_module(part, origins[name])
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
                with blame(self.origins[name], begin):
                    begin()

    def redraw(self, key: int) -> None:
        """What is left to chance in training is drawn by this key from now on: see newsfuse.chance.

        Of a plugin's modules those are told that have such a method themselves, each with a key of its own.
        """
        for number, (name, module) in enumerate(self.named_modules()):
            if name and (again := getattr(module, "redraw", None)):
                again(mixed(key, number))

    def views(self, news: Tensor) -> Tensor:
        """Article rows (M,) -> (M, V, D), views in the order of their names. Raises PluginError for a wrong shape."""
        return torch.stack([self._view(name, news) for name in self.encoders], dim=1)

    def articles(self, news: Tensor) -> Tensor:
        """Article rows (M,) -> (M, W), length 1"""
        return self.fuse(self.dropout(self.views(news), news))

    def fuse(self, views: Tensor) -> Tensor:
        """(M, V, D) -> (M, W), length 1"""
        with blame(self.origins["fusion"], self.fusion):
            fused = _shaped(self.fusion(views), (len(views), self.width), views.device)
        return _unit(fused)

    def weights(self, views: Tensor) -> Tensor | None:
        """(M, V, D) -> (M, V): how much of each view the fusion keeps; None where it has no weights."""
        weights = getattr(self.fusion, "weights", None)
        if weights is None:
            return None
        with blame(self.origins["fusion"], weights):
            return _shaped(weights(views), views.shape[:2], views.device)

    def users(self, history: Tensor, clicked: Tensor) -> Tensor:
        """Clicked articles (B, H, W), latest first, and which cells are clicks (B, H) -> (B, W)"""
        anything = clicked.any(dim=1, keepdim=True)
        # a plugin may rely on a first click; what it makes of an empty history is thrown away
        safe = torch.cat([clicked[:, :1] | ~anything, clicked[:, 1:]], dim=1)
        with blame(self.origins["user_encoder"], self.user_encoder):
            users = _shaped(self.user_encoder(history, safe), (len(history), self.width), history.device)
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
        with blame(self.origins[name], self.encoders[name]):
            view = _shaped(self.encoders[name](news), (len(news), self.dim), news.device)
        return _unit(view.float())

    def require_finite(self, news: Tensor, *behaviour: Tensor) -> None:
        """Raise PluginError naming the plugin that makes scores of these articles NaN or infinite, if one does.

        `behaviour`: `history` and `clicked` as of `forward`, or nothing: then user encoders are not asked. Raises
        NewsfuseError where training has driven the model's own weights out of bounds, whatever plugins return then.
        """
        self._require_finite_weights()
        with torch.no_grad():
            for part, again in self._parts(news, *behaviour):
                if not torch.isfinite(again()).all():
                    message = f"{self.origins[part]}: {_called(part)} returned NaN or infinity"
                    raise PluginError(message)

    def require_backward(self, error: Exception, news: Tensor, history: Tensor, clicked: Tensor) -> None:
        """Raise PluginError naming the plugin that let the backward pass of `forward` fail with `error`, if one did."""
        parts = {**self.encoders, "fusion": self.fusion, "user_encoder": self.user_encoder}
        modules = {name: {type(each).__module__ for each in part.modules()} for name, part in parts.items()}
        origin = owner(error, {self.origins[name]: homes(theirs) for name, theirs in modules.items()})
        if origin and is_its_own(error):
            message = f"{origin}: {told(error)}"
            raise PluginError(message) from error
        for name, again in self._parts(news, history, clicked):
            with blame(self.origins[name], parts[name]):
                again().sum().backward()

    def _parts(self, news: Tensor, *behaviour: Tensor) -> Iterator[tuple[str, Callable[[], Tensor]]]:
        """Each part by itself, in the order of their work, by its name in `origins`."""
        for name in self.encoders:
            yield name, partial(self._view, name, news)
        views = self.views(news).detach().requires_grad_()
        yield "fusion", partial(self.fuse, views)
        if behaviour:
            history, clicked = behaviour
            yield "user_encoder", partial(self.users, self.fuse(views).detach().requires_grad_()[history], clicked)

    def _require_finite_weights(self) -> None:
        own = (self.newcomer, self.everyone, self.log_scale.exp())
        parts = {"user_encoder": self.user_encoder, "fusion": self.fusion, **self.encoders}
        broken = [name for name, part in parts.items() if not _is_finite(*part.parameters())]
        if not _is_finite(*own):
            message = "training has made the model's weights NaN or infinite; try a smaller train.lr"
            raise NewsfuseError(message)
        if broken:
            name = broken[0]  # the last in the flow: those before it were given its gradient
            message = f"{self.origins[name]}: {_called(name)} has weights that became NaN or infinite in training"
            raise PluginError(message)


class Dropout(nn.Module):
    """As nn.Dropout, but what an article loses depends on the article and the training step alone.

    So it is the same in whatever batch of whatever process the article is. Each reads its own window of one random
    table, which takes a third of the time that drawing anew would.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.key: int | None = None

    def redraw(self, key: int) -> None:
        """Other windows from now on."""
        self.key = key

    def forward(self, values: Tensor, news: Tensor) -> Tensor:
        """(M, ...), article rows (M,): in training about `share` of the values become zero, and the others larger"""
        if not (self.training and self.share):
            return values
        windows = _kept(self.share, values.device).unfold(0, values.shape[1:].numel(), 1)
        return values * windows[below(drawn_by(self.key), news, len(windows))].view(values.shape)


@cache
def _kept(share: float, device: torch.device) -> Tensor:
    """float32 (TABLE,): zeros and, where a value is kept, what it grows by. Made by the first step of training."""
    return ~happens(0, torch.arange(TABLE, device=device), share) / (1 - share)


def _unit(vectors: Tensor) -> Tensor:
    """(M, D) -> (M, D), length 1; zeros, which point nowhere, stay zeros and pass on no gradient."""
    # F.normalize's gradient at zero is 1e12 times that of others: one such article would drown a batch
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    # times the reciprocal: of a division two more tables would be made for the gradient
    return vectors * lengths.masked_fill(lengths == 0, float("inf")).reciprocal()


def _shaped(output: Tensor, shape: Sequence[int], device: torch.device) -> Tensor:
    if not isinstance(output, Tensor):
        message = f"returned {type(output).__name__}, expected a tensor of shape {tuple(shape)}"
        raise TypeError(message)
    if tuple(output.shape) != tuple(shape):
        message = f"returned shape {tuple(output.shape)}, expected {tuple(shape)}"
        raise ValueError(message)
    if output.device != device:
        message = f"returned a tensor on {output.device}, expected one on {device}: register tables as buffers"
        raise ValueError(message)
    return output


def _require_module(part: object, origin: str) -> None:
    if not isinstance(part, nn.Module):
        message = f"{origin}: build returned {type(part).__name__}, expected a torch.nn.Module"
        raise PluginError(message)


def _called(part: str) -> str:
    return {"fusion": "the fusion", "user_encoder": "the user encoder"}.get(part, f"encoder '{part}'")


def _is_finite(*tensors: Tensor) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
