"""Ranking metrics of a dev set of MIND-small's size, against a loop over impressions as MIND's own script has it.

    python benchmarks/score.py [impressions]

The loop takes minutes, so it runs on a sample of the impressions; both give seconds per 1,000 impressions. Both give
all four metrics, the loop with scikit-learn's AUC in it. Pooled AUC, which is another figure, stands by itself.
"""

import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from sklearn.metrics import roc_auc_score

from newsfuse.csr import offsets
from newsfuse.ranking import pooled_auc, ranking

IMPRESSIONS, MEAN_CANDIDATES, MEAN_CLICKS, SAMPLE, REPEATS = 73_152, 37, 1.5, 2_000, 5
"""Of MIND-small's dev set."""


def draw(impressions: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels (a click in every impression, and half as many again in some) and offsets."""
    sizes = rng.integers(2, 2 * MEAN_CANDIDATES, size=impressions)
    starts = offsets(sizes)
    labels = (rng.random(starts[-1]) < (MEAN_CLICKS - 1) / MEAN_CANDIDATES).astype(np.int8)
    clicked = rng.integers(sizes)
    labels[starts[:-1] + clicked], labels[starts[:-1] + (clicked + 1) % sizes] = 1, 0
    return rng.standard_normal(starts[-1]), labels, starts


def official(scores: np.ndarray, labels: np.ndarray, starts: np.ndarray) -> list[tuple[float, float, float, float]]:
    """One impression after the other: AUC by scikit-learn, MRR and nDCG from argsort."""
    parts = ((labels[a:b], scores[a:b]) for a, b in pairwise(starts))
    return [(float(roc_auc_score(y, s)), mrr(y, s), ndcg(y, s, 5), ndcg(y, s, 10)) for y, s in parts]


def mrr(labels: np.ndarray, scores: np.ndarray) -> float:
    """Sum of 1 / rank over the clicks, divided by their number."""
    ordered = labels[np.argsort(scores)[::-1]]
    return float((ordered / np.arange(1, len(ordered) + 1)).sum() / ordered.sum())


def ndcg(labels: np.ndarray, scores: np.ndarray, k: int) -> float:
    """DCG of the first k, over that of the best order."""
    discounts = np.log2(np.arange(2, min(k, len(labels)) + 2))
    found, best = labels[np.argsort(scores)[::-1]][:k], np.sort(labels)[::-1][:k]
    return float((found / discounts).sum() / (best / discounts).sum())


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main(impressions: int) -> None:
    """Print the medians of both and their ratio."""
    scores, labels, starts = draw(impressions, np.random.default_rng(0))
    sample = starts[: SAMPLE + 1]
    part = (scores[: sample[-1]], labels[: sample[-1]], sample)
    pairs = [
        (seconds(lambda: ranking(scores, labels, starts)), seconds(lambda: official(*part))) for _ in range(REPEATS)
    ]
    ours = [1000 * pair[0] / impressions for pair in pairs]
    loop = [1000 * pair[1] / SAMPLE for pair in pairs]
    clicks = labels.sum() / impressions
    print(f"{impressions:,} impressions, {starts[-1]:,} candidates, {clicks:.2f} clicks each, median of {REPEATS} runs")
    ours_s, loop_s = statistics.median(ours), statistics.median(loop)
    print(f"newsfuse.ranking {ours_s:.5f} s per 1,000 impressions, all in {impressions / 1000 * ours_s:.3f} s")
    print(f"official loop    {loop_s:.5f} s per 1,000 impressions, {1000 / loop_s:,.0f} impressions/s")
    print(f"ratio            {statistics.median(b / a for a, b in zip(ours, loop, strict=True)):.0f}")
    print(f"difference       {difference(part):.1e} at most, of {SAMPLE:,} impressions and four metrics")
    pooled_s = statistics.median(seconds(lambda: pooled_auc(scores, labels)) for _ in range(REPEATS))
    theirs_s = statistics.median(seconds(lambda: roc_auc_score(labels, scores)) for _ in range(REPEATS))
    print(f"pooled AUC       {pooled_s:.3f} s, by scikit-learn {theirs_s:.3f} s")


def difference(part: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    """The largest between the two ways, of any metric of any impression."""
    found = ranking(*part)
    return float(np.abs(np.column_stack([found.auc, found.mrr, found.ndcg5, found.ndcg10]) - official(*part)).max())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else IMPRESSIONS)
