"""Scorers that learn nothing: what a model has to beat on the same impressions."""

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

from newsfuse import csr
from newsfuse.behaviors import Behaviors
from newsfuse.products import products

PRIOR = 20
"""Showings that count as much as the mean click rate does, in the click rate of an article."""
IMPRESSIONS = 1 << 12
"""Whose users are in memory at once: (4096, 1536) float32 are 25 MB."""


def baselines(
    train: Behaviors, dev: Behaviors, categories: np.ndarray, vectors: np.ndarray | None, *, history: int, seed: int
) -> dict[str, np.ndarray]:
    """Scores of dev's candidates by each baseline: float64 (candidates,), NaN for an article that is not known.

    `categories`: int64 (N,), a number by article row; `vectors`: float32 (N, E), without which there is no cosine;
    `history`: how many of the latest clicks are read. Of train, clicks and showings are counted.
    """
    found = {
        "random": at_random(dev, seed),
        "popularity": click_rates(train, len(categories))[dev.candidate_news],
        "category": category_shares(dev, categories, history),
    }
    if vectors is not None:
        found["cosine"] = cosines(dev, vectors, history)
    return {name: np.where(dev.candidate_news >= 0, scores, np.nan) for name, scores in found.items()}


def at_random(behaviors: Behaviors, seed: int) -> np.ndarray:
    """float64 (candidates,): evenly from [0, 1), whatever the order of the impressions in the file."""
    impression = (
        behaviors.impressions.rank("dense").to_numpy().astype(np.int64)[csr.owners(behaviors.candidate_offsets)]
    )
    # in the order of ids, so that the same draw falls to the same candidate
    order = np.lexsort((behaviors.candidate_news, impression))
    scores = np.empty(len(order))
    scores[order] = np.random.default_rng(seed).random(len(order))
    return scores


def click_rates(train: Behaviors, n: int) -> np.ndarray:
    """float64 (n,): the share of its showings in `train` at which each article was clicked.

    Smoothed towards the mean rate by PRIOR showings at that rate, so that an article that was never shown has it.
    """
    known = train.candidate_news >= 0
    shown = np.bincount(train.candidate_news[known], minlength=n)
    clicks = np.bincount(train.candidate_news[known], train.labels[known], n)
    mean = clicks.sum() / max(1, shown.sum())
    return np.asarray((clicks + PRIOR * mean) / (shown + PRIOR))


def category_shares(behaviors: Behaviors, categories: np.ndarray, history: int) -> np.ndarray:
    """float64 (candidates,): the share of the user's latest clicks with the candidate's category; 0 without a click."""
    one_hot = csr_matrix((np.ones(len(categories)), (np.arange(len(categories)), categories)))
    shares = history_means(behaviors, len(categories), history) @ one_hot
    owner = behaviors.history[csr.owners(behaviors.candidate_offsets)]
    return np.asarray(shares[owner, categories[behaviors.candidate_news]]).ravel()


def cosines(behaviors: Behaviors, vectors: np.ndarray, history: int) -> np.ndarray:
    """float64 (candidates,): of each candidate with the mean of the user's latest clicks, all of length 1 before.

    0 where the user has no click; anything for candidate -1.
    """
    articles, found = _unit(torch.from_numpy(vectors)), np.empty(len(behaviors.candidate_news))
    means, bounds = history_means(behaviors, len(vectors), history), behaviors.candidate_offsets
    places = torch.from_numpy(np.where(behaviors.candidate_news < 0, 0, behaviors.candidate_news).astype(np.int64))
    for start in range(0, len(behaviors), IMPRESSIONS):
        part = bounds[start : start + IMPRESSIONS + 1]
        own = _unit(torch.from_numpy(means[behaviors.history[start : start + IMPRESSIONS]] @ articles.numpy()))
        starts, shown = torch.from_numpy(part - part[0]), places[part[0] : part[-1]]
        found[part[0] : part[-1]] = products(own, articles, starts, shown).double().numpy()
    return found


def history_means(behaviors: Behaviors, n: int, history: int) -> Any:  # noqa: ANN401 - sparse, which scipy does not type
    """float32 (histories, n), sparse: times a table of n articles, the mean over each history's latest clicks."""
    counts = np.minimum(csr.lengths(behaviors.history_offsets), history)
    owner, ends = csr.owners(behaviors.history_offsets), behaviors.history_offsets[1:]
    latest = np.arange(len(behaviors.history_news)) >= (ends - counts)[owner]
    weights = (1 / np.maximum(counts, 1)).astype(np.float32)[owner[latest]]
    news = behaviors.history_news[latest]
    return csr_matrix((weights, news, csr.offsets(counts)), shape=(len(counts), n))


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """(n, E) -> (n, E), length 1; zeros stay zeros."""
    return torch.nn.functional.normalize(vectors, dim=1)
