"""MIND's ranking metrics, for all impressions at once.

Impressions are flat arrays in CSR: the candidates of impression i are `scores[offsets[i]:offsets[i + 1]]`.
The definitions are those of MIND's own script, https://github.com/msnews/MIND/blob/master/evaluate.py, which
computes each metric per impression and then takes plain means. We differ where it fails: an impression in which a
metric is undefined has NaN there and counts in no mean.
"""

from dataclasses import dataclass, fields

import numpy as np

from newsfuse import csr


@dataclass(frozen=True)
class Ranking:
    """How well each of n impressions is ranked: float64 (n,) in [0, 1], NaN where undefined."""

    auc: np.ndarray
    """Share of (clicked, unclicked) pairs in the right order, ties counting half; needs one of each."""
    mrr: np.ndarray
    """Mean of 1 / rank over the clicked candidates; needs a click."""
    ndcg5: np.ndarray
    """nDCG@5: sum of 1 / log2(rank + 1) over the clicks of rank <= 5, over the best such sum; needs a click."""
    ndcg10: np.ndarray
    """nDCG@10, likewise."""

    def take(self, rows: np.ndarray) -> "Ranking":
        """Only the impressions `rows`: int64 (m,), or bool (n,)."""
        return Ranking(*(getattr(self, field.name)[rows] for field in fields(self)))

    def means(self) -> dict[str, float]:
        """{auc, mrr, ndcg5, ndcg10}: mean of each over the impressions where it is defined; NaN if there are none."""
        return {field.name: _mean(getattr(self, field.name)) for field in fields(self)}


def ranking(scores: np.ndarray, labels: np.ndarray, offsets: np.ndarray) -> Ranking:
    """Metrics of n impressions.

    `scores`: float64 (candidates,); `labels`: int8 or bool (candidates,), 1 where clicked, so that nDCG's gain
    2^label - 1 is the label itself; `offsets`: int64 (n + 1,). Raises ValueError for a NaN score, or when the arrays
    do not belong together.

    AUC is that of scikit-learn's `roc_auc_score`, from the mean rank of tied candidates (Mann-Whitney U). MRR and
    nDCG are of the order that `ranks` gives, in which ties are settled.
    """
    _check(len(labels), "labels", offsets)
    order = _order(scores, offsets)
    clicks = np.flatnonzero(labels[order] == 1)
    owner = np.searchsorted(offsets, clicks, side="right") - 1
    clicked = np.bincount(owner, minlength=len(offsets) - 1)
    rank = clicks - offsets[owner] + 1
    tied_rank = _middles(scores[order], offsets, clicks) - offsets[owner] + 1
    return Ranking(
        auc=_auc(tied_rank, owner, clicked, csr.lengths(offsets) - clicked),
        mrr=_ratio(np.bincount(owner, 1 / rank, len(clicked)), clicked),
        ndcg5=_ndcg(rank, owner, clicked, 5),
        ndcg10=_ndcg(rank, owner, clicked, 10),
    )


def ranks(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """int64 (candidates,): the rank of each candidate in its impression, 1 for the best.

    Of equal scores the later candidate comes first, as MIND's `argsort(score)[::-1]` has it. We take that argsort
    as stable: numpy's default sort is not past 16 elements, where the script's order of ties is an accident of
    the machine. Raises ValueError for a NaN score, or when the arrays do not belong together.
    """
    order, result = _order(scores, offsets), np.empty(len(scores), np.int64)
    result[order] = np.arange(len(scores)) - np.repeat(offsets[:-1], csr.lengths(offsets)) + 1
    return result


def subset(
    scores: np.ndarray, labels: np.ndarray, offsets: np.ndarray, keep: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scores, labels, offsets) of the same impressions with only the candidates that `keep` marks.

    `keep`: bool (candidates,). An impression may end up empty, where no metric is defined. What is dropped may be NaN.
    """
    return scores[keep], labels[keep], csr.offsets(keep)[offsets]


def unknown_last(scores: np.ndarray) -> np.ndarray:
    """float64 (candidates,): candidates without a score (NaN) below all others, alike among themselves."""
    return np.where(np.isnan(scores), -np.finfo(np.float64).max, scores)


def is_constant(scores: np.ndarray, offsets: np.ndarray) -> bool:
    """Whether in every impression all candidates have one score. Raises ValueError as `ranks` does."""
    _check_scores(scores, offsets)
    owner = csr.owners(offsets)
    return bool(((scores[1:] == scores[:-1]) | (owner[1:] != owner[:-1])).all())


def _order(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """int64 (candidates,): candidates of each impression best first, impression after impression."""
    _check_scores(scores, offsets)
    lengths, order = csr.lengths(offsets), np.empty(len(scores), np.int64)
    # a block for each length, of which MIND has a few hundred: eight times as fast as a lexsort of everything
    for length in np.unique(lengths):
        cells = offsets[:-1][lengths == length, None] + np.arange(length)
        best_first = np.argsort(scores[cells], axis=1, kind="stable")[:, ::-1]
        order[cells] = np.take_along_axis(cells, best_first, axis=1)
    return order


def _auc(tied_rank: np.ndarray, owner: np.ndarray, clicked: np.ndarray, unclicked: np.ndarray) -> np.ndarray:
    """`tied_rank` and `owner` are of clicks, the others of impressions."""
    # clicks ahead of everything would have ranks that sum up to clicked * (clicked + 1) / 2: the rest are pairs lost
    lost = np.bincount(owner, tied_rank, len(clicked)) - clicked * (clicked + 1) / 2
    pairs = clicked * unclicked
    return _ratio(pairs - lost, pairs)


def _middles(ordered: np.ndarray, offsets: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """float64 (cells,): for each of `cells`, the mean position of the candidates that are tied with it."""
    first = np.ones(len(ordered) + 1, dtype=bool)
    first[1:-1] = ordered[1:] != ordered[:-1]
    first[offsets] = True
    ties = np.flatnonzero(first)  # offsets of runs of equal scores
    run = np.searchsorted(ties, cells, side="right")
    return np.asarray((ties[run - 1] + ties[run] - 1) / 2)


def _ndcg(rank: np.ndarray, owner: np.ndarray, clicked: np.ndarray, k: int) -> np.ndarray:
    gains = np.where(rank <= k, 1 / np.log2(rank + 1), 0)
    # both sums run from the best rank down, so that a perfect order gives 1 to the last bit
    best = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(1, k + 1) + 1))])
    return _ratio(np.bincount(owner, gains, len(clicked)), best[np.minimum(clicked, k)])


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """NaN where the denominator is 0."""
    ratio = np.full(len(denominator), np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _check_scores(scores: np.ndarray, offsets: np.ndarray) -> None:
    _check(len(scores), "scores", offsets)
    if (missing := np.isnan(scores)).any():
        message = f"candidate {missing.argmax()} has the score NaN ({missing.sum()} in all), which has no rank"
        raise ValueError(message)


def _check(found: int, what: str, offsets: np.ndarray) -> None:
    if offsets[0] != 0 or offsets[-1] != found or (csr.lengths(offsets) < 0).any():
        expected = f"{found} {what} need offsets that rise from 0 to {found}"
        message = f"{expected}, found {len(offsets)} from {offsets[0]} to {offsets[-1]}"
        raise ValueError(message)
