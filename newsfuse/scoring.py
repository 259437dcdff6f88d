"""Scores of every candidate: each article and each distinct history is encoded once."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from newsfuse.batches import recent
from newsfuse.behaviors import Behaviors
from newsfuse.csr import owners
from newsfuse.errors import PluginError
from newsfuse.recommender import Recommender

HISTORIES = 1024
"""Encoded at once: (1024, 50, 256) float32 is 50 MB."""
PAIRS = 1 << 17
"""Candidates scored at once: two (131072, 256) float32 tables are 270 MB."""


@dataclass(frozen=True)
class Scores:
    """What a model makes of some impressions."""

    candidates: np.ndarray
    """float64 (candidates,): a score each; NaN for an article that is not known."""
    weights: dict[str, float]
    """Mean fusion weight of each encoder over the distinct candidate articles; empty where the fusion has none."""


@torch.inference_mode()
def score(model: Recommender, behaviors: Behaviors, history: int) -> Scores:
    """All candidates of `behaviors`, scored from the latest `history` clicks, on the model's device.

    Raises PluginError naming the plugin that returned NaN or infinity: it is not to pass for an unknown article.
    """
    model.eval()
    needed = behaviors.mentioned()
    news = torch.from_numpy(needed).to(model.newcomer.device)
    views = model.views(news)
    articles = model.fuse(views)
    position = np.zeros(needed.max(initial=0) + 1, dtype=np.int64)
    position[needed] = np.arange(len(needed))
    users, user_of = _users(model, behaviors, history, articles, position)
    owner = user_of[owners(behaviors.candidate_offsets)]
    known = behaviors.candidate_news >= 0
    scores = np.full(len(known), np.nan)
    scores[known] = _dot(model, users, owner[known], articles, position[behaviors.candidate_news[known]])
    if not np.isfinite(scores[known]).all():
        model.require_finite(news)
        message = f"{model.origins['user_encoder']}: the user encoder returned NaN or infinity"
        raise PluginError(message)
    shown = np.unique(position[behaviors.candidate_news[known]])
    return Scores(scores, _mean_weights(model, views, shown))


def _users(
    model: Recommender, behaviors: Behaviors, most: int, articles: Tensor, position: np.ndarray
) -> tuple[Tensor, np.ndarray]:
    """A vector for each distinct history (h, D), and which of them each impression has (n,)."""
    histories, user_of = np.unique(behaviors.history, return_inverse=True)
    encoded = []
    for part in _chunks(len(histories), HISTORIES):
        news, clicked = (
            torch.from_numpy(array).to(articles.device) for array in _recent(behaviors, histories[part], most, position)
        )
        encoded.append(model.users(articles[news] * clicked.unsqueeze(-1), clicked))
    return torch.cat(encoded), user_of


def _recent(
    behaviors: Behaviors, histories: np.ndarray, most: int, position: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    news, clicked = recent(behaviors, histories, most)
    return position[np.where(clicked, news, 0)] * clicked, clicked


def _dot(model: Recommender, users: Tensor, owner: np.ndarray, articles: Tensor, news: np.ndarray) -> np.ndarray:
    scores = np.empty(len(owner))
    for part in _chunks(len(owner), PAIRS):
        scores[part] = model.score(users[owner[part]], articles[news[part]]).double().cpu().numpy()
    return scores


def _mean_weights(model: Recommender, views: Tensor, rows: np.ndarray) -> dict[str, float]:
    weights = model.weights(views[torch.from_numpy(rows)])
    return {} if weights is None else dict(zip(model.encoders, weights.double().mean(dim=0).tolist(), strict=True))


def _chunks(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
