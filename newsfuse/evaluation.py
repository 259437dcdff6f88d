"""What a model's scores on dev are worth: MIND's metrics, overall and for slices of the candidates."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from newsfuse import csr, parquet
from newsfuse.artifact import writing
from newsfuse.behaviors import Behaviors
from newsfuse.ranking import METRICS, Ranking, is_constant, pooled_auc, ranking, ranks, subset, unknown_last
from newsfuse.slices import Slice, sliced
from newsfuse.submission import write_predictions

KIND = "evaluate"
DECIMALS = 6
"""In metrics.json: a thousandth of the noise between two seeds."""
BRIEF = ("auc", "ndcg10")
"""Of what is measured beside the model: a column each is enough in a table of experiments."""
OF_SLICES = {"all": tuple(METRICS), "article": tuple(METRICS), "history": ("auc",)}
"""Which metrics of which slices stand in metrics.json; categories and hours are too many for it."""

COLUMNS: dict[str, type[pl.DataType]] = {
    "name": pl.String,
    "slice": pl.String,
    "value": pl.String,
    "metric": pl.String,
    "mean": pl.Float64,
    "impressions": pl.Int64,
    "candidates": pl.Int64,
}
"""Of the table of slices."""


@dataclass(frozen=True)
class Evaluation:
    """Scored impressions. An article without a line in news.tsv has no score (NaN)."""

    behaviors: Behaviors
    scores: np.ndarray
    """float64 (candidates,)."""
    seen: np.ndarray
    """bool (N,): whether a training row mentions the article, by row."""
    news: pl.DataFrame
    """id and category of each article, by row."""
    drop_unknown: bool
    """Whether candidates without a score count in no metric; else they rank last."""

    @cached_property
    def warm(self) -> np.ndarray:
        """bool (candidates,): which candidates are known and were seen in training."""
        return (self.behaviors.candidate_news >= 0) & self.seen[self.behaviors.candidate_news]

    @property
    def known(self) -> np.ndarray:
        """bool (candidates,): which candidates have a score."""
        return ~np.isnan(self.scores)

    @cached_property
    def full_scores(self) -> np.ndarray:
        """float64 (candidates,): unknown candidates below all others, alike among themselves."""
        return unknown_last(self.scores)

    @cached_property
    def among(self) -> np.ndarray:
        """bool (candidates,): which candidates count."""
        return self.known if self.drop_unknown else np.ones(len(self.scores), dtype=bool)

    @property
    def categories(self) -> np.ndarray:
        """int64 (N,): a number for the category of each article, by row; having none counts as one."""
        return self.news["category"].rank("dense").to_numpy().astype(np.int64) - 1

    def metrics(self) -> dict[str, float]:
        """AUC, MRR, nDCG@5 and nDCG@10 for all, warm and cold candidates, and AUC by length of history, in a flat dict.

        Means over impressions, NaN where a metric is defined in none. `pooled_auc` is no such mean, and not MIND's
        AUC: see `newsfuse.ranking.pooled_auc`.
        """
        means = self.slices.select("name", "slice", "metric", "mean").iter_rows()
        return {
            **{prefix + metric: mean for prefix, kind, metric, mean in means if metric in OF_SLICES.get(kind, ())},
            "pooled_auc": pooled_auc(self.full_scores[self.among], self.behaviors.labels[self.among]),
            "impressions": len(self.behaviors),
            "cold_share": float((~self.warm).mean()),
            "constant": int(self.is_constant),
        }

    def brief(self, others: Mapping[str, np.ndarray]) -> dict[str, float]:
        """{name_auc, name_ndcg10} of other scores of the same candidates: float64 (candidates,), NaN where unknown."""
        means = {name: replace(self, scores=scores).ranking(self.among).means() for name, scores in others.items()}
        return {f"{name}_{metric}": found[metric] for name, found in means.items() for metric in BRIEF}

    def ranking(self, keep: np.ndarray) -> Ranking:
        """MIND's metrics of each impression among the candidates `keep`: bool (candidates,)."""
        return ranking(*self.subset(keep))

    def subset(self, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores, labels and offsets of these candidates, as `ranking` takes them."""
        return subset(self.full_scores, self.behaviors.labels, self.behaviors.candidate_offsets, keep)

    @cached_property
    def slices(self) -> pl.DataFrame:
        """name, slice, value, metric, mean, impressions, candidates: a row for each slice and metric, all of dev first.

        `name` begins the names of its metrics, such as history_1_5_; `impressions`: in which the metric is defined,
        over which `mean` is taken; `candidates`: how many the slice keeps. What is defined nowhere is left out.
        """
        everything = Slice("", "all", "all", np.ones(len(self.scores), dtype=bool))
        rows = [row for each in (everything, *sliced(self.table)) for row in self._rows(each)]
        table = pl.DataFrame(rows, COLUMNS, orient="row")
        return table.filter(pl.col("mean").is_not_nan()).with_columns(pl.col("mean").round(DECIMALS))

    @property
    def is_constant(self) -> bool:
        """Whether the model ranks nothing: in every impression all candidates have one score."""
        return is_constant(self.full_scores, self.behaviors.candidate_offsets)

    def write(self, folder: Path, settings: Mapping[str, Any], articles: pl.DataFrame) -> None:
        """`scores.parquet`, a row per candidate, MIND's submission, `prediction.txt`, and `articles.parquet`."""
        offsets = self.behaviors.candidate_offsets
        with writing(folder, kind=KIND, settings=settings) as draft:
            parquet.write(draft / "scores.parquet", self.table)
            parquet.write(draft / "articles.parquet", articles)
            write_predictions(
                draft / "prediction.txt", self.behaviors.impressions, ranks(self.full_scores, offsets), offsets
            )

    @cached_property
    def table(self) -> pl.DataFrame:
        """A row per candidate, those of an impression side by side.

        impression, user, news, clicked, score, warm, category (of the article; null where it has none), history (clicks
        of the user before the impression) and hour (of the day, of the impression). An unknown article has neither a
        name, nor a score, nor a category.
        """
        owner, rows = csr.owners(self.behaviors.candidate_offsets), pl.Series(self.behaviors.candidate_news)
        news = self.news.select("id", pl.col("category").replace("", None))[rows.set(rows < 0, None)]
        clicks = csr.lengths(self.behaviors.history_offsets)[self.behaviors.history]
        return pl.DataFrame(
            {
                "impression": self.behaviors.impressions.gather(owner),
                "user": self.behaviors.users[owner],
                "news": news["id"],
                "clicked": self.behaviors.labels,
                "score": pl.Series(self.scores, nan_to_null=True),
                "warm": self.warm,
                "category": news["category"],
                "history": clicks.astype(np.int32)[owner],
                "hour": _hours(self.behaviors.times)[owner],
            }
        )

    def _rows(self, part: Slice) -> list[tuple[str, str, str, str, float, int, int]]:
        keep = self.among & part.mask
        found, prefix = self.ranking(keep), f"{part.name}_" if part.name else ""
        defined = {name: int((~np.isnan(values)).sum()) for name, values in vars(found).items()}
        label, n = (prefix, part.kind, part.value), int(keep.sum())
        return [(*label, name, mean, defined[name], n) for name, mean in found.means().items()]


def rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """Sorted by name, to DECIMALS digits, without what is not defined (NaN). Whole numbers stay whole numbers."""
    return {name: round(value, DECIMALS) for name, value in sorted(metrics.items()) if not np.isnan(value)}


def _hours(times: np.ndarray) -> np.ndarray:
    """datetime64[s] (n,) -> int8 (n,): the hour of the day."""
    return (times.astype("datetime64[h]").astype(np.int64) % 24).astype(np.int8)
