"""Scores of every candidate: each article and each distinct history is encoded once."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from newsfuse.batches import recent
from newsfuse.behaviors import Behaviors
from newsfuse.csr import lengths, offsets, owners
from newsfuse.errors import PluginError
from newsfuse.recommender import Recommender

ARTICLES = 1 << 16
"""Encoded at once: (65536, 4, 256) float32 is 270 MB. Not fewer: a graph encoder reads most of its graph each time."""
VALUES = 1 << 22
"""Of clicked articles, in histories of like length, encoded at once: 16 MB. On a quiet machine a quarter of that is
15 % faster, as it stays in a core's cache; on a busy one four times as many steps wait for each other's threads.
"""
IMPRESSIONS = 1 << 12
"""Scored at once: (4096, 1024) float32 of their users are 16 MB."""


@dataclass(frozen=True)
class Scores:
    """What a model makes of some impressions."""

    candidates: np.ndarray
    """float64 (candidates,): a score each; NaN for an article that is not known."""
    weights: dict[str, float]
    """Mean fusion weight of each encoder over the distinct candidate articles; empty where the fusion has none."""


def score(model: Recommender, behaviors: Behaviors, history: int) -> Scores:
    """All candidates of `behaviors`, scored from the latest `history` clicks, on the model's device.

    Raises PluginError naming the plugin that returned NaN or infinity: it is not to pass for an unknown article.
    """
    scorer = Scorer.of(model, behaviors.mentioned(), history, shown=behaviors.candidate_news)
    return Scores(scorer.candidates(behaviors), scorer.weights)


@dataclass(frozen=True)
class Scorer:
    """A model that has encoded some articles and scores any impressions of them."""

    model: Recommender
    history: int
    """How many of the latest clicks are read."""
    news: Tensor
    """int64 (N,): rows of the articles."""
    articles: Tensor
    """(N, D): their vectors."""
    place: np.ndarray
    """int64: which of them an article row is."""
    weights: dict[str, float]
    """As in `Scores`, over the articles that were said to be shown."""

    @classmethod
    @torch.inference_mode()
    def of(cls, model: Recommender, rows: np.ndarray, history: int, *, shown: np.ndarray) -> "Scorer":
        """Encode the articles `rows`: int64 (N,), distinct. `shown`: int, rows of candidates, -1 for unknown ones."""
        model.eval()
        rows, place = placed(rows)
        weighed = torch.zeros(len(rows), dtype=torch.bool)
        weighed[torch.from_numpy(place[shown[shown >= 0]])] = True
        news = torch.from_numpy(rows).to(model.newcomer.device)
        articles, weights = _encoded(model, news, weighed.to(news.device))
        return cls(model, history, news, articles, place, weights)

    @torch.inference_mode()
    def candidates(self, behaviors: Behaviors) -> np.ndarray:
        """float64 (candidates,): as in `Scores`. Raises PluginError as `score` does."""
        users, user_of = self._users(behaviors)
        known = behaviors.candidate_news >= 0
        counts = np.bincount(owners(behaviors.candidate_offsets)[known], minlength=len(behaviors))
        scores = np.full(len(behaviors.candidate_news), np.nan)
        scores[known] = self._scores(users, user_of, offsets(counts), self.place[behaviors.candidate_news[known]])
        if not np.isfinite(scores[known]).all():
            self.model.require_finite(self.news)
            message = f"{self.model.origins['user_encoder']}: the user encoder returned NaN or infinity"
            raise PluginError(message)
        return scores

    def vectors(self, news: Tensor) -> Tensor:
        """Article rows (M,) -> their vectors (M, D)"""
        return self.articles[self._moved(self.place[news.cpu().numpy()])]

    def _users(self, behaviors: Behaviors) -> tuple[Tensor, np.ndarray]:
        """A vector for each distinct history (h, D), and which of them each impression has (n,)."""
        histories, user_of = np.unique(behaviors.history, return_inverse=True)
        users = self.articles.new_empty(len(histories), self.articles.shape[1])
        counts = np.minimum(lengths(behaviors.history_offsets)[histories], self.history)
        for part in alike(counts, max(1, VALUES // self.articles.shape[1])):
            users[self._moved(part)] = self._encoded_users(behaviors, histories[part])
        return users, user_of

    def _encoded_users(self, behaviors: Behaviors, histories: np.ndarray) -> Tensor:
        news, clicked = recent(behaviors, histories, self.history)
        cells, mask = self._moved(self.place[news * clicked]), self._moved(clicked)
        vectors = self.articles.index_select(0, cells.flatten()).view(*cells.shape, -1)
        return self.model.users(vectors if clicked.all() else vectors * mask.unsqueeze(-1), mask)

    def _scores(self, users: Tensor, user_of: np.ndarray, bounds: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Of articles `places[bounds[i]:bounds[i + 1]]` for user `user_of[i]`."""
        scores, theirs, shown = np.empty(len(places)), self._moved(user_of), self._moved(places)
        for part in chunks(len(user_of), IMPRESSIONS):
            starts = bounds[part.start : part.stop + 1]
            own = slice(starts[0], starts[-1])
            some = users.index_select(0, theirs[part])
            found = self.model.score(some, self.articles, self._moved(starts - starts[0]), shown[own])
            scores[own] = found.double().cpu().numpy()
        return scores

    def _moved(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.articles.device)


def placed(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct article rows to encode, int64 (N,): `rows`, or one where there are none; which of them a row is."""
    rows = rows if len(rows) else np.zeros(1, np.int64)  # a history without clicks takes any vector, times zero
    place = np.zeros(rows.max() + 1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    return rows, place


def _encoded(model: Recommender, news: Tensor, weighed: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Vectors of the articles (N, D), and the mean weight of each encoder over those that are `weighed` (N,)."""
    vectors, weights = [], []
    for part in chunks(len(news), ARTICLES):
        views = model.views(news[part])
        vectors.append(model.fuse(views))
        weights.append(model.weights(views[weighed[part]]))
    return torch.cat(vectors), _means(list(model.encoders), weights)


def _means(encoders: list[str], weights: list[Tensor | None]) -> dict[str, float]:
    rows = [each.double() for each in weights if each is not None]
    return dict(zip(encoders, torch.cat(rows).mean(dim=0).tolist(), strict=True)) if rows else {}


def alike(counts: np.ndarray, clicks: int) -> Iterator[np.ndarray]:
    """Numbers of the lists of so many clicks, those of like length together, at most `clicks` in all or one list."""
    longest_first, begin = np.argsort(-counts, kind="stable"), 0
    while begin < len(counts):
        end = begin + max(1, clicks // max(1, int(counts[longest_first[begin]])))
        yield longest_first[begin:end]
        begin = end


def chunks(n: int, size: int) -> Iterator[slice]:
    """0 ... n - 1, `size` at a time; the last may be smaller."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
