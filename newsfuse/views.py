"""What the encoders make of some articles, computed once and fused as often as anybody likes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from newsfuse.recommender import Recommender
from newsfuse.scoring import ARTICLES, Scorer, chunks, placed

FUSED = 1 << 13
"""Articles fused at once: their views, of which one is exchanged, are 33 MB for (8192, 4, 256) float32."""


@dataclass(frozen=True)
class Views:
    """The views of N articles, on the model's device: 270 MB for 65,536 articles, 4 encoders and 256 values."""

    model: Recommender
    news: Tensor
    """int64 (N,): rows of the articles."""
    place: np.ndarray
    """int64: which of them an article row is."""
    values: Tensor
    """float32 (N, V, D), views in the order of the encoders' names."""

    @classmethod
    @torch.inference_mode()
    def of(cls, model: Recommender, rows: np.ndarray) -> "Views":
        """Encode the articles `rows`: int64 (N,), distinct. Raises PluginError for an encoder that fails."""
        model.eval()
        rows, place = placed(rows)
        news = torch.from_numpy(rows).to(model.newcomer.device)
        values = model.newcomer.new_empty(len(rows), len(model.encoders), model.dim)
        for part in chunks(len(rows), ARTICLES):
            values[part] = model.views(news[part])
        return cls(model, news, place, values)

    @torch.inference_mode()
    def weights(self, rows: np.ndarray) -> np.ndarray | None:
        """float64 (n, V): how much of each view of the articles `rows` the fusion keeps; None where it has no weights.

        `rows`: int64 (n,), some of those that were encoded.
        """
        places, found = torch.from_numpy(self.place[rows]).to(self.news.device), []
        for part in chunks(len(rows), FUSED):
            weights = self.model.weights(self.values[places[part]])
            if weights is None:
                return None
            found.append(weights.double().cpu().numpy())
        return np.concatenate([np.empty((0, self.values.shape[1])), *found])

    @torch.inference_mode()
    def scorer(self, history: int) -> Scorer:
        """Scores impressions of these articles. `history`: how many of the latest clicks are read."""
        return self._scorer(self._fused(self.values.__getitem__), history)

    @torch.inference_mode()
    def scorer_without(self, encoder: str, history: int) -> Scorer:
        """Scores impressions of these articles as if `encoder` said of each of them what it says on average.

        The view of every article becomes the mean of that view over all N articles: what the encoder adds to all
        alike, which ranks nothing, stays. Fusion, users and scores are computed anew, so that a fusion may give the
        others the weight that the view has lost. `history`: how many of the latest clicks are read.
        """
        number = list(self.model.encoders).index(encoder)
        mean = self.values[:, number].mean(dim=0)
        if len(self.model.encoders) == 1:
            # fused once, not for each: a product of matrices may round equal rows in two ways, which would end ties
            return self._scorer(self.model.fuse(mean[None, None]).expand(len(self.news), -1), history)
        return self._scorer(self._fused(lambda part: self._with(part, number, mean)), history)

    def _fused(self, views: Callable[[slice], Tensor]) -> Tensor:
        """(N, W): the articles, of the views that `views` has of some of them."""
        articles = self.values.new_empty(len(self.news), self.model.width)
        for part in chunks(len(self.news), FUSED):
            articles[part] = self.model.fuse(views(part))
        return articles

    def _scorer(self, articles: Tensor, history: int) -> Scorer:
        return Scorer(self.model, history, self.news, articles, self.place, {})

    def _with(self, part: slice, number: int, view: Tensor) -> Tensor:
        """(M, V, D): the views of some articles, view `number` of each exchanged for `view` (D,)."""
        views = self.values[part].clone()
        views[:, number] = view
        return views
