"""What else dev's scores say of a model: its ROC curve, its calibration, and how certain its metrics are.

Tables for plots. Scores are logits whose only meaning is against other candidates of the same impression, so nothing
here compares a score with one of another impression.
"""

from pathlib import Path

import numpy as np
import polars as pl

from newsfuse import csr
from newsfuse.bootstrap import FEWER_RESAMPLES, bootstrap
from newsfuse.evaluation import DECIMALS, Evaluation
from newsfuse.harmless import write_csv
from newsfuse.ranking import METRICS, Ranking, ranks

POINTS = 101
"""Of the ROC curve: one for each hundredth of the unclicked candidates."""
BINS = 10
"""Of the calibration: 10 is usual, and each has a tenth of the candidates."""


def write(folder: Path, evaluation: Evaluation) -> None:
    """`roc.csv`, `calibration.csv` and `intervals.csv` in `folder`. Raises OSError."""
    scored, ranked = evaluation.subset(evaluation.among), evaluation.ranking(evaluation.among)
    tables = {
        "roc": roc(*scored),
        "calibration": calibration(*scored),
        "intervals": intervals(ranked, evaluation.behaviors.users),
    }
    for name, each in tables.items():
        write_csv(folder / f"{name}.csv", each.with_columns(pl.col(pl.Float64).round(DECIMALS)))


def roc(scores: np.ndarray, labels: np.ndarray, offsets: np.ndarray) -> pl.DataFrame:
    """The mean of the ROC curves of all impressions: `fpr` and `tpr`, POINTS + 1 rows from (0, 0) to (1, 1).

    `tpr`: which share of an impression's clicks is found when `fpr` of its unclicked candidates are let through, a
    plain mean over the impressions that have both (vertical averaging: Fawcett, An introduction to ROC analysis,
    Pattern Recognition Letters 27, 2006; across ties the curve is a straight line). So the area below it is the AUC
    of metrics.json, which that of the pooled scores is not. Arguments as for `newsfuse.ranking.ranking`. No rows
    where no impression has both.
    """
    ahead, up_to, weight = _clicks(scores, labels, offsets)
    if not len(weight):
        return pl.DataFrame(schema={"fpr": pl.Float64, "tpr": pl.Float64})
    fpr = np.arange(POINTS) / (POINTS - 1)
    tpr = [float(weight @ _found(share, ahead, up_to)) for share in fpr]
    return pl.DataFrame({"fpr": [0.0, *fpr], "tpr": [0.0, *tpr]})


def calibration(scores: np.ndarray, labels: np.ndarray, offsets: np.ndarray) -> pl.DataFrame:
    """How many clicks candidates get, against how many they should: `predicted`, `observed`, `candidates`.

    The predicted share of a candidate is the softmax over its impression's scores, which is the chance of being the
    clicked one that training's loss gives it; the observed one is its clicks over those of the impression. Both are
    averaged in BINS parts of as many candidates each, by the predicted share (adaptive binning: Nguyen and O'Connor,
    Posterior calibration and exploratory analysis for natural language processing models, EMNLP 2015); of equal
    widths, the first would have nearly all. Impressions without a click say nothing and are left out. Arguments as
    for `newsfuse.ranking.ranking`.
    """
    predicted, observed = _shares(scores, labels, offsets)
    order = np.argsort(predicted, kind="stable")
    starts = np.unique(np.arange(BINS) * len(order) // BINS)[: len(order)]
    candidates = np.diff([*starts, len(order)])
    means = [np.add.reduceat(share[order], starts) / candidates for share in (predicted, observed)]
    return pl.DataFrame({"predicted": means[0], "observed": means[1], "candidates": candidates})


def intervals(ranked: Ranking, users: np.ndarray) -> pl.DataFrame:
    """`metric`, `mean`, `low` and `high`: MIND's metrics with 95 % intervals over users.

    `users`: (n,), whose impression each of the n in `ranked` is. See `newsfuse.bootstrap`.
    """
    values = np.column_stack([getattr(ranked, name) for name in METRICS])
    found = bootstrap(values, users, resamples=FEWER_RESAMPLES)
    return pl.DataFrame({"metric": list(METRICS.values()), "mean": found.mean, "low": found.low, "high": found.high})


def _clicks(scores: np.ndarray, labels: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each set of tied candidates that has a click, float64 each.

    Which share of its impression's unclicked candidates is ahead of it, which ahead or in it, and its weight: the
    clicks it has of its impression's, over the number of impressions. An impression that lacks one sort is left out.
    """
    order, owner = _order(scores, offsets), csr.owners(offsets)
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(scores[order]) != 0) | (owner[1:] != owner[:-1])
    ties = np.append(np.flatnonzero(first), len(order))
    clicks, others = csr.offsets(labels[order] == 1), csr.offsets(labels[order] != 1)
    of, clicked, unclicked = owner[ties[:-1]], np.diff(clicks[offsets]), np.diff(others[offsets])
    both = (clicked > 0) & (unclicked > 0)
    kept = np.flatnonzero((np.diff(clicks[ties]) > 0) & both[of])
    of, start = of[kept], others[offsets[:-1]][of[kept]]
    ahead, up_to = ((others[ties[kept + end]] - start) / unclicked[of] for end in (0, 1))
    return ahead, up_to, np.diff(clicks[ties])[kept] / clicked[of] / both.sum()


def _order(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """int64 (candidates,): candidates of each impression best first, impression after impression."""
    order = np.empty(len(scores), np.int64)
    order[np.repeat(offsets[:-1], csr.lengths(offsets)) + ranks(scores, offsets) - 1] = np.arange(len(scores))
    return order


def _found(share: float, ahead: np.ndarray, up_to: np.ndarray) -> np.ndarray:
    """float64 in [0, 1]: which part of each set of ties is let through with `share` of the unclicked candidates."""
    width = up_to - ahead
    part = np.divide(share - ahead, width, out=(share >= ahead).astype(np.float64), where=width > 0)
    return np.clip(part, 0, 1)


def _shares(scores: np.ndarray, labels: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and observed share, float64 each, of the candidates of the impressions that have a click."""
    clicked = np.diff(csr.offsets(labels == 1)[offsets])
    rows = np.flatnonzero(clicked)
    if not len(rows):
        return np.empty(0), np.empty(0)
    cells, counts = csr.gather(offsets, rows), csr.lengths(offsets)[rows]
    starts = csr.offsets(counts)[:-1]
    odds = np.exp(scores[cells] - np.repeat(np.maximum.reduceat(scores[cells], starts), counts))
    return odds / np.repeat(np.add.reduceat(odds, starts), counts), labels[cells] / np.repeat(clicked[rows], counts)
