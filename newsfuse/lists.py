"""Lists of articles, such as the ten that rank highest in an impression, and what they are like beyond accuracy.

Definitions are those of the papers named with each; all but coverage and popularity lift are means over the lists for
which they are defined.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import rel_entr

from newsfuse import csr
from newsfuse.behaviors import Behaviors
from newsfuse.ranking import ranks, unknown_last

LENGTH = 10
ALPHA = 0.01
"""Share of the history's distribution that is mixed into that of the list: against zeros (Steck 2018)."""
CELLS = 1 << 22
"""Of a table of lists by categories, or by values of a vector, that are in memory at once."""


@dataclass(frozen=True)
class Lists:
    """n lists of articles, in CSR: list i is `news[offsets[i]:offsets[i + 1]]`. A list may be empty."""

    offsets: np.ndarray
    """int64 (n + 1,)."""
    news: np.ndarray
    """int, rows of articles."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def best(cls, scores: np.ndarray, behaviors: Behaviors, length: int = LENGTH) -> "Lists":
        """The known candidates of each impression that rank highest, at most `length` of them.

        `scores`: float64 (candidates,), NaN for an article that is not known.
        """
        bounds = behaviors.candidate_offsets
        kept = (ranks(unknown_last(scores), bounds) <= length) & (behaviors.candidate_news >= 0)
        return cls(csr.offsets(kept)[bounds], behaviors.candidate_news[kept])

    @classmethod
    def histories(cls, behaviors: Behaviors) -> "Lists":
        """All that the user of each impression had clicked before it."""
        counts = csr.lengths(behaviors.history_offsets)[behaviors.history]
        return cls(
            csr.offsets(counts), behaviors.history_news[csr.gather(behaviors.history_offsets, behaviors.history)]
        )

    def means(self, values: np.ndarray) -> np.ndarray:
        """float64 (n,): of `values` (N,), a number by article row, over the articles of a list; NaN of an empty one."""
        owner, counts = csr.owners(self.offsets), csr.lengths(self.offsets)
        return _ratio(np.bincount(owner, values[self.news], len(self)), counts)

    def parts(self, width: int) -> Iterator[slice]:
        """Consecutive lists, so many that a table of them with `width` columns has no more than CELLS cells."""
        size = max(1, CELLS // max(1, width))
        return (slice(start, min(start + size, len(self))) for start in range(0, len(self), size))

    def counts(self, part: slice, categories: np.ndarray, n: int) -> np.ndarray:
        """float64 (lists of the part, n): how many articles of each category are in each list."""
        bounds = self.offsets[part.start : part.stop + 1]
        cells = csr.owners(bounds) * n + categories[self.news[bounds[0] : bounds[-1]]]
        return np.bincount(cells, minlength=(len(bounds) - 1) * n).reshape(-1, n).astype(np.float64)


@dataclass(frozen=True)
class Popularity:
    """How often articles were clicked in train."""

    clicks: np.ndarray
    """int64 (N,)."""
    users: np.ndarray
    """int64 (N,): how many different users clicked each article."""
    all_users: int

    @classmethod
    def of(cls, train: Behaviors, n: int) -> "Popularity":
        """Counted over the impressions of train, not over the histories, which are older."""
        clicked = (train.labels == 1) & (train.candidate_news >= 0)
        news, user = train.candidate_news[clicked], train.users[csr.owners(train.candidate_offsets)[clicked]]
        distinct = np.unique(user.astype(np.int64) * n + news)
        return cls(np.bincount(news, minlength=n), np.bincount(distinct % n, minlength=n), len(np.unique(train.users)))


def metrics(
    scores: np.ndarray, train: Behaviors, dev: Behaviors, categories: np.ndarray, vectors: np.ndarray | None
) -> dict[str, float]:
    """What the ten best-ranked candidates of dev's impressions are like; NaN where that is not defined.

    `scores`: float64 (candidates,), NaN for an article that is not known; `categories`: int64 (N,), a number by article
    row; `vectors`: float32 (N, E), without which there is no vector diversity. Of train, clicks are counted.
    """
    popularity = Popularity.of(train, len(categories))
    best, histories = Lists.best(scores, dev), Lists.histories(dev)
    found = {
        "coverage10": coverage(best, dev.candidate_news),
        "diversity10": diversity(best, categories),
        "novelty10": novelty(best, popularity),
        "popularity_lift10": popularity_lift(best, histories, popularity),
        "calibration10": calibration(best, histories, categories),
    }
    return found if vectors is None else found | {"vector_diversity10": vector_diversity(best, vectors)}


def coverage(lists: Lists, candidates: np.ndarray) -> float:
    """Distinct articles in the lists over distinct candidate articles, in [0, 1].

    Catalogue coverage (Ge, Delgado-Battenfeld, Jannach 2010, Beyond accuracy: evaluating recommender systems by
    coverage and serendipity); the catalogue is what could be shown: the known articles among `candidates`,
    int (candidates,), -1 for an unknown one.
    """
    return _over(len(np.unique(lists.news)), len(np.unique(candidates[candidates >= 0])))


def diversity(lists: Lists, categories: np.ndarray) -> float:
    """Share of the pairs of a list that differ in their category, in [0, 1]: mean over lists of two or more.

    Intra-list diversity, the mean distance of a list's pairs (Castells, Hurley, Vargas 2015, Novelty and diversity in
    recommender systems, section 26.3; Ziegler et al. 2005 has its opposite), where two categories are 0 or 1 apart.
    """
    n = _how_many(categories)
    same = [(each * (each - 1)).sum(axis=1) for each in (lists.counts(part, categories, n) for part in lists.parts(n))]
    sizes = csr.lengths(lists.offsets)
    return _mean(1 - _ratio(_joined(same), sizes * (sizes - 1)))


def vector_diversity(lists: Lists, vectors: np.ndarray) -> float:
    """1 - cosine of the pairs of a list, in [0, 2]: mean over the pairs, then over lists of two or more.

    Intra-list diversity, as `diversity`. `vectors`: float32 (N, E), of which one of zeros has the cosine 0 with all.
    """
    norms = np.linalg.norm(vectors, axis=1)
    unit, square = vectors / np.where(norms == 0, 1, norms)[:, None], norms > 0
    ones = np.ones(len(lists.news), np.float32)
    member = csr_matrix((ones, lists.news, lists.offsets), shape=(len(lists), len(vectors)))
    # the sum of all pairs' products is the square of the sum, less the squares
    squares = [((member[part] @ unit).astype(np.float64) ** 2).sum(axis=1) for part in lists.parts(vectors.shape[1])]
    products = _joined(squares) - np.bincount(csr.owners(lists.offsets), square[lists.news], len(lists))
    sizes = csr.lengths(lists.offsets)
    return _mean(1 - _ratio(products, sizes * (sizes - 1)))


def novelty(lists: Lists, popularity: Popularity) -> float:
    """Bits of surprise at an article: mean over a list, then over lists.

    Self-information, -log2 of the share of users who clicked the article (Zhou et al. 2010, Solving the apparent
    diversity-accuracy dilemma of recommender systems, PNAS 107; Castells, Hurley, Vargas 2015, section 26.3). We add
    one user who did and one who did not (add-one smoothing), as most articles of dev were clicked by nobody in train.
    """
    return _mean(lists.means(-np.log2((popularity.users + 1) / (popularity.all_users + 2))))


def popularity_lift(lists: Lists, histories: Lists, popularity: Popularity) -> float:
    """How much more popular the lists are than what their users clicked before: .5 means half as popular again.

    GAP of the lists over GAP of the histories, less 1 (Abdollahpouri, Mansoury, Burke, Mobasher 2020, The connection
    between popularity bias, calibration, and fairness in recommendation), of all users as one group. GAP is the mean
    over users of the mean popularity of their articles; here over impressions, and popularity is the number of clicks
    in train. Impressions without a history, or without a list, count in neither. NaN where the second GAP is 0.
    """
    shown, read = lists.means(popularity.clicks), histories.means(popularity.clicks)
    both = ~np.isnan(shown) & ~np.isnan(read)
    return _over(shown[both].sum(), read[both].sum()) - 1


def calibration(lists: Lists, histories: Lists, categories: np.ndarray) -> float:
    """How far the categories of a list are from those of its user's history: 0 is calibrated, in nats.

    Kullback-Leibler divergence of the list's distribution q from the history's p, sum of p log(p / q~) with
    q~ = (1 - alpha) q + alpha p (Steck 2018, Calibrated recommendations; all articles weigh the same): mean over the
    impressions that have both a history and a list.
    """
    n, found = _how_many(categories), []
    for part in lists.parts(n):
        p, q = (_shares(each.counts(part, categories, n)) for each in (histories, lists))
        found.append(rel_entr(p, (1 - ALPHA) * q + ALPHA * p).sum(axis=1))
    return _mean(_joined(found))


def _shares(counts: np.ndarray) -> np.ndarray:
    """Rows that sum to one; NaN where there was nothing."""
    sums = counts.sum(axis=1, keepdims=True)
    return np.asarray(counts / np.where(sums == 0, np.nan, sums))


def _how_many(categories: np.ndarray) -> int:
    return int(categories.max(initial=0)) + 1


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)


def _over(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else float("nan")


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
