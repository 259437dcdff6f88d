"""What each encoder is worth to a trained model: the weight that the fusion gives it, and the AUC lost without it.

A weight says how much of a view is kept, not what it is good for: a view may be the same for all articles, or say what
another one says too, or be noise. So beside it stands what happens to the ranking when the view of every article is
replaced by its mean over articles, which can be asked of every fusion alike: removing a feature by its mean (Covert,
Lundberg and Lee, Explaining by Removing, JMLR 22(209), 2021). Permuting views among articles, as Breiman does (Random
Forests, Machine Learning 45, 2001, section 10), would put noise in their place, and depend on chance.

The model is not trained again. What is lost is what *this* model owes to the view; another, trained without it, may
make up for it by the others.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from newsfuse import csr
from newsfuse.behaviors import Behaviors
from newsfuse.bootstrap import FEWER_RESAMPLES, bootstrap
from newsfuse.evaluation import DECIMALS, Evaluation
from newsfuse.harmless import write_csv
from newsfuse.slices import HISTORY
from newsfuse.views import Views

WEIGHT = "weight_"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Explanation:
    """Tables that say what each encoder of a model is worth on some impressions."""

    articles: pl.DataFrame
    """A row per distinct candidate article: news, category (null where it has none), warm, shown
    (how often), and weight_<encoder> of each encoder."""
    weights: pl.DataFrame
    """encoder, group, value, weight, articles: mean weights of groups of articles; no row if there are no weights."""
    lost: pl.DataFrame
    """encoder, auc_lost, low, high: the AUC lost without it, and the ends of its 95 % interval; null if undefined."""

    @property
    def metrics(self) -> dict[str, float]:
        """`weight_<encoder>`, the mean over articles, and `lost_<encoder>`, the AUC lost, for metrics.json."""
        overall = self.weights.filter(pl.col("group") == "all")
        weights = {f"{WEIGHT}{encoder}": weight for encoder, weight in overall["encoder", "weight"].iter_rows()}
        defined = self.lost.drop_nulls("auc_lost")
        return weights | {f"lost_{encoder}": lost for encoder, lost in defined["encoder", "auc_lost"].iter_rows()}

    def write(self, folder: Path) -> None:
        """`weights.csv` and `lost.csv`, for DVC to draw. Raises StorageError."""
        for name, table in (("weights", self.weights), ("lost", self.lost)):
            write_csv(folder / f"{name}.csv", table)


def explain(views: Views, evaluation: Evaluation, history: int) -> Explanation:
    """What each encoder of a model is worth on the impressions that it was evaluated on.

    `views`: of all articles that these mention; `history`: how many of the latest clicks are read. No encoder is run;
    for each of them articles are fused, and users and candidates scored, once more. Raises PluginError naming the
    plugin that fails or returns NaN or infinity.
    """
    rows, fusion = _shown(evaluation.behaviors), views.model.origins["fusion"]
    articles = _articles(views, evaluation, rows)
    weights = _weights(articles, _groups(articles, _histories(evaluation.behaviors, rows)))
    if weights.is_empty():
        log.info("%s has no weights to show: what counts is the AUC lost without each encoder", fusion)
    return Explanation(articles, weights, _lost(views, evaluation, history))


def _shown(behaviors: Behaviors) -> np.ndarray:
    """int64 (n,): the rows of the distinct candidate articles, sorted."""
    return np.unique(behaviors.candidate_news[behaviors.candidate_news >= 0]).astype(np.int64)


def _articles(views: Views, evaluation: Evaluation, rows: np.ndarray) -> pl.DataFrame:
    """`Explanation.articles`, of the article rows `rows` (n,)."""
    candidates = evaluation.behaviors.candidate_news
    shown = np.bincount(candidates[candidates >= 0], minlength=len(evaluation.news))[rows]
    told = evaluation.news.select(pl.col("id").alias("news"), pl.col("category").replace("", None))[rows]
    names, weights = [f"{WEIGHT}{encoder}" for encoder in views.model.encoders], views.weights(rows)
    columns = {} if weights is None else dict(zip(names, weights.T, strict=True))
    return told.hstack(pl.DataFrame({"warm": evaluation.seen[rows], "shown": shown, **columns}))


def _histories(behaviors: Behaviors, rows: np.ndarray) -> np.ndarray:
    """int64 (4, n): how often each of the article rows `rows` was shown to users of each length of HISTORY."""
    clicks = csr.lengths(behaviors.history_offsets)[behaviors.history]
    group = np.searchsorted([fewest for fewest, _ in HISTORY.values()], clicks, side="right") - 1
    known = behaviors.candidate_news >= 0
    cells = np.searchsorted(rows, behaviors.candidate_news[known])
    cells += len(rows) * group[csr.owners(behaviors.candidate_offsets)[known]]
    return np.bincount(cells, minlength=len(HISTORY) * len(rows)).reshape(len(HISTORY), len(rows))


def _groups(articles: pl.DataFrame, histories: np.ndarray) -> pl.DataFrame:
    """group, value, article, times: who is in which group, by row of `articles`, and how often each counts there."""
    once = articles.select("category", "warm", article=pl.int_range(pl.len()), times=pl.lit(1, pl.Int64))
    number, article = np.nonzero(histories)
    value = pl.Series(list(HISTORY))[number]
    warm = pl.when("warm").then(pl.lit("warm")).otherwise(pl.lit("cold"))
    parts = {
        "all": once.with_columns(value=pl.lit("all")),
        "category": once.with_columns(value=pl.col("category")).sort("value"),
        "warm": once.with_columns(value=warm).sort("value"),
        "history": pl.DataFrame({"value": value, "article": article, "times": histories[number, article]}),
    }
    return pl.concat(
        part.select(pl.lit(name).alias("group"), "value", "article", "times") for name, part in parts.items()
    )


def _weights(articles: pl.DataFrame, groups: pl.DataFrame) -> pl.DataFrame:
    """`Explanation.weights`."""
    names = [name for name in articles.columns if name.startswith(WEIGHT)]
    mean = (pl.col(names) * pl.col("times")).sum() / pl.col("times").sum()
    members = groups.hstack(articles[groups["article"]].select(names))
    means = members.group_by("group", "value", maintain_order=True).agg(mean, articles=pl.len().cast(pl.Int64))
    long = means.unpivot(names, index=["group", "value", "articles"], variable_name="encoder", value_name="weight")
    encoder, weight = pl.col("encoder").str.strip_prefix(WEIGHT), pl.col("weight").cast(pl.Float64).round(DECIMALS)
    return long.select(encoder, "group", "value", weight, "articles")


def _lost(views: Views, evaluation: Evaluation, history: int) -> pl.DataFrame:
    """`Explanation.lost`."""
    encoders, behaviors, of_all = list(views.model.encoders), evaluation.behaviors, _auc(evaluation)
    without = (views.scorer_without(encoder, history).candidates(behaviors) for encoder in encoders)
    lost = np.column_stack([of_all - _auc(replace(evaluation, scores=scores)) for scores in without])
    found = bootstrap(lost, behaviors.users, resamples=FEWER_RESAMPLES)
    table = {"encoder": encoders, "auc_lost": found.mean, "low": found.low, "high": found.high}
    return pl.DataFrame(table, nan_to_null=True).with_columns(pl.col("auc_lost", "low", "high").round(DECIMALS))


def _auc(evaluation: Evaluation) -> np.ndarray:
    """float64 (n,): of each impression, NaN where undefined."""
    return evaluation.ranking(evaluation.among).auc
