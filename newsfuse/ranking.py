"""MIND's ranking metrics, for all impressions at once.

Impressions are flat arrays in CSR: the candidates of impression i are `scores[offsets[i]:offsets[i + 1]]`.
The definitions are those of MIND's own script, https://github.com/msnews/MIND/blob/master/evaluate.py, which
computes each metric per impression and then takes plain means. We differ where it fails: an impression in which a
metric is undefined has NaN there and counts in no mean.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from newsfuse import csr

METRICS = {"auc": "AUC", "mrr": "MRR", "ndcg5": "nDCG@5", "ndcg10": "nDCG@10"}
"""Names of the fields of Ranking in print, in their order."""
BLOCK = 1 << 17
"""Candidates compared at once: a megabyte of scores, which stays in a core's cache (measured, .017 s against .036)."""
MANY = 16
"""Clicks of one impression from which sorting its candidates is cheaper than counting those ahead of each click."""


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
    _check_scores(scores, offsets)
    clicks = np.flatnonzero(labels == 1)
    owner = np.searchsorted(offsets, clicks, side="right") - 1
    clicked = np.bincount(owner, minlength=len(offsets) - 1)
    rank, tied_rank = _of_clicks(scores, offsets, clicks, owner, many=clicked[owner] > MANY)
    return Ranking(
        auc=_auc(tied_rank, owner, clicked, csr.lengths(offsets) - clicked),
        mrr=_ratio(np.bincount(owner, 1 / rank, len(clicked)), clicked),
        ndcg5=_ndcg(rank, owner, clicked, 5),
        ndcg10=_ndcg(rank, owner, clicked, 10),
    )


def pooled_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """The AUC of all candidates of all impressions in one heap: not MIND's metric, and no mean of anything.

    It also asks whether a score means the same in one impression as in another, which ranking within impressions
    never needs, so it is another figure than `ranking(...).means()["auc"]`, on MIND a lower one. It is here so that
    results of projects that report it can be compared. `scores`, `labels`: (candidates,) as for `ranking`. Equal to
    scikit-learn's `roc_auc_score(labels, scores)`; NaN unless there is both a click and an unclicked candidate.
    """
    ordered, clicks = np.sort(scores), np.sort(scores[labels == 1])  # looking up in order is five times as fast
    below, up_to = (np.searchsorted(ordered, clicks, side=side).sum() for side in ("left", "right"))
    # the mean rank from below of a tied candidate is (below + 1 + up_to) / 2: Mann-Whitney U from the sum of ranks
    won = (below + up_to + len(clicks)) / 2 - len(clicks) * (len(clicks) + 1) / 2
    pairs = len(clicks) * (len(scores) - len(clicks))
    return float(won / pairs) if pairs else float("nan")


def ranks(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """int64 (candidates,): the rank of each candidate in its impression, 1 for the best.

    Of equal scores the later candidate comes first, as MIND's `argsort(score)[::-1]` has it. We take that argsort
    as stable: numpy's default sort is not, from 17 elements on or, where the processor has AVX2, from 4 on, and the
    script's order of ties is an accident of the machine (docs/decisions/0012-ties-and-pooled-auc.md). Raises
    ValueError for a NaN score, or when the arrays do not belong together.
    """
    _check_scores(scores, offsets)
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
    lengths, order = csr.lengths(offsets), np.empty(len(scores), np.int64)
    # a block for each length, of which MIND has a few hundred: eight times as fast as a lexsort of everything
    for length in np.unique(lengths):
        cells = offsets[:-1][lengths == length, None] + np.arange(length)
        best_first = np.argsort(scores[cells], axis=1, kind="stable")[:, ::-1]
        order[cells] = np.take_along_axis(cells, best_first, axis=1)
    return order


def _of_clicks(
    scores: np.ndarray, offsets: np.ndarray, clicks: np.ndarray, owner: np.ndarray, *, many: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each click, its rank with ties settled (int64) and the mean rank of its ties (float64).

    `owner`: whose it is; `many`: bool (clicks,), whether that impression has so many that it is better sorted.
    """
    rank, tied_rank = np.empty(len(clicks), np.int64), np.empty(len(clicks))
    for way, own in ((_counted, ~many), (_sorted, many)):
        rank[own], tied_rank[own] = way(scores, offsets, clicks[own], owner[own])
    return rank, tied_rank


def _counted(
    scores: np.ndarray, offsets: np.ndarray, clicks: np.ndarray, owner: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`_of_clicks` without a sort: of each click, count the candidates of its impression that are ahead of it."""
    sizes = csr.lengths(offsets)[owner]
    starts, (above, level, later) = csr.offsets(sizes), np.zeros((3, len(clicks)), np.int64)
    for part in _blocks(starts):
        cells, begins = csr.gather(offsets, owner[part]), starts[part] - starts[part.start]
        theirs, own = scores[cells], np.repeat(scores[clicks[part]], sizes[part])
        above[part] = _sums(theirs > own, begins)
        level[part] = _sums(theirs >= own, begins) - above[part]
        if (level[part] > 1).any():  # more than the click itself
            later[part] = _sums((theirs == own) & (cells > np.repeat(clicks[part], sizes[part])), begins)
    return above + later + 1, above + (level + 1) / 2


def _blocks(starts: np.ndarray) -> Iterator[slice]:
    """Consecutive lists of about BLOCK values together, at least one list; `starts` are their offsets."""
    n, begin = len(starts) - 1, 0
    while begin < n:
        end = max(begin + 1, int(np.searchsorted(starts, starts[begin] + BLOCK, side="right")) - 1)
        yield slice(begin, end)
        begin = end


def _sums(flags: np.ndarray, begins: np.ndarray) -> np.ndarray:
    return np.add.reduceat(flags.view(np.int8), begins, dtype=np.int32)


def _sorted(
    scores: np.ndarray, offsets: np.ndarray, clicks: np.ndarray, owner: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`_of_clicks` by sorting the candidates of those impressions."""
    rows, row = np.unique(owner, return_inverse=True)
    cells, own_offsets = csr.gather(offsets, rows), csr.offsets(csr.lengths(offsets)[rows])
    order, place = _order(scores[cells], own_offsets), np.empty(len(cells), np.int64)
    place[order] = np.arange(len(cells))
    places, start = place[np.searchsorted(cells, clicks)], own_offsets[row]
    return places - start + 1, _middles(scores[cells][order], own_offsets, places) - start + 1


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
