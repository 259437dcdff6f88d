"""What a model's scores on dev are worth: MIND's metrics, overall and for warm and cold candidates."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from newsfuse.artifact import writing
from newsfuse.behaviors import Behaviors
from newsfuse.csr import owners
from newsfuse.ranking import is_constant, pooled_auc, ranking, ranks, subset, unknown_last
from newsfuse.submission import write_predictions

KIND = "evaluate"
DECIMALS = 6
"""In metrics.json: a thousandth of the noise between two seeds."""


@dataclass(frozen=True)
class Evaluation:
    """Scored impressions. An article without a line in news.tsv has no score (NaN)."""

    behaviors: Behaviors
    scores: np.ndarray
    """float64 (candidates,)."""
    warm: np.ndarray
    """bool (candidates,): a training row mentions the article."""

    @property
    def known(self) -> np.ndarray:
        """bool (candidates,): which candidates have a score."""
        return ~np.isnan(self.scores)

    @property
    def full_scores(self) -> np.ndarray:
        """float64 (candidates,): unknown candidates below all others, alike among themselves."""
        return unknown_last(self.scores)

    def metrics(self, *, drop_unknown: bool) -> dict[str, float]:
        """AUC, MRR, nDCG@5 and nDCG@10 for all, warm and cold candidates, in one flat dict sorted by name.

        Means over impressions. A slice keeps, of every impression, the candidates of its sort; an
        impression without a click (AUC: or without an unclicked candidate) counts in no mean.
        `pooled_auc` is no such mean, and not MIND's AUC: see `newsfuse.ranking.pooled_auc`.
        """
        among = self.known if drop_unknown else np.ones(len(self.scores), dtype=bool)
        slices = {"": among, "warm_": among & self.warm, "cold_": among & ~self.warm}
        flat = {prefix + name: value for prefix, keep in slices.items() for name, value in self._means(keep).items()}
        flat |= {
            "pooled_auc": pooled_auc(self.full_scores[among], self.behaviors.labels[among]),
            "impressions": len(self.behaviors),
            "cold_share": float((~self.warm).mean()),
            "constant": int(self.is_constant),
        }
        return {name: round(value, DECIMALS) for name, value in sorted(flat.items()) if not np.isnan(value)}

    @property
    def is_constant(self) -> bool:
        """Whether the model ranks nothing: in every impression all candidates have one score."""
        return is_constant(self.full_scores, self.behaviors.candidate_offsets)

    def write(self, folder: Path, news_ids: pl.Series, settings: Mapping[str, Any]) -> None:
        """`scores.parquet`, a row per candidate, and MIND's submission, `prediction.txt`. `news_ids`: by row."""
        offsets = self.behaviors.candidate_offsets
        with writing(folder, kind=KIND, settings=settings) as draft:
            self._table(news_ids).write_parquet(draft / "scores.parquet")
            write_predictions(
                draft / "prediction.txt", self.behaviors.impressions, ranks(self.full_scores, offsets), offsets
            )

    def _means(self, keep: np.ndarray) -> dict[str, float]:
        return ranking(*subset(self.full_scores, self.behaviors.labels, self.behaviors.candidate_offsets, keep)).means()

    def _table(self, news_ids: pl.Series) -> pl.DataFrame:
        owner, rows = owners(self.behaviors.candidate_offsets), pl.Series(self.behaviors.candidate_news)
        return pl.DataFrame(
            {
                "impression": self.behaviors.impressions.gather(owner),
                "user": self.behaviors.users[owner],
                "news": news_ids.gather(rows.set(rows < 0, None)),
                "clicked": self.behaviors.labels,
                "score": pl.Series(self.scores, nan_to_null=True),
                "warm": self.warm,
            }
        )
