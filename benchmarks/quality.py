"""How well the defaults of params.yaml rank a data set's dev, beside simple scorers of the same impressions.

    python benchmarks/quality.py data/mind-sample [--embeddings FOLDER] [--dim 384] [--seeds 3] [--no-ablation]

Vectors are those of FOLDER, an artifact of the embed stage, or else of lsa, fitted to train. Each seed trains on train
(its last day chooses the epoch) and scores dev once. Intervals are of a bootstrap over users.
"""

import argparse
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from newsfuse.assembly import Architecture, Artifacts
from newsfuse.baselines import baselines, history_means
from newsfuse.behaviors import Behaviors
from newsfuse.csr import owners
from newsfuse.device import seed_everything
from newsfuse.embeddings import Embeddings
from newsfuse.entities import read_vectors
from newsfuse.graph import NewsGraph, build, co_clicks
from newsfuse.news import News
from newsfuse.params import Params, load, options
from newsfuse.plugin import Embedder
from newsfuse.ranking import METRICS, Ranking, ranking, unknown_last
from newsfuse.recommender import Recommender
from newsfuse.registry import Registry
from newsfuse.scoring import score
from newsfuse.training import train
from newsfuse.vocabularies import Vocabularies
from newsfuse.words import Words

RESAMPLES = 2000
TITLES = {
    "random": "random",
    "popularity": "click rate in train",
    "category": "category share of history",
    "tfidf": "TF-IDF cosine",
    "cosine": "cosine of the vectors",
}
"""Of the scorers that need no training, in the order of the table."""


@dataclass(frozen=True)
class Data:
    """A data set, read once. Row i of every table is article i of `news`."""

    news: News
    train: Behaviors
    dev: Behaviors
    vectors: np.ndarray
    """float32 (N, E)."""
    artifacts: Artifacts

    @classmethod
    def read(cls, folder: Path, embeddings: Path | None, params: Params, registry: Registry) -> "Data":
        """Of a folder in MIND's layout."""
        files = [folder / part / "news.tsv" for part in ("train", "dev")]
        news, corpus = News.read(*files), News.read(files[0])
        train, dev = (Behaviors.read(folder / part / "behaviors.tsv", news) for part in ("train", "dev"))
        vectors = Embeddings.read(embeddings) if embeddings else lsa(news, corpus, params, registry)
        artifacts = Artifacts(vectors, graph(folder, news, train, params), texts=True)
        return cls(news, train, dev, vectors.of(news.ids, files), artifacts)


def lsa(news: News, corpus: News, params: Params, registry: Registry) -> Embeddings:
    """Fitted to `corpus`."""
    plugin, wanted = registry.load(Embedder, "lsa"), params.embed
    own = options(registry, Embedder, "lsa", params.options)
    embed: Any = plugin.build(corpus.texts(wanted.fields), None, wanted.dimensions, own)
    return Embeddings(Words(news.ids), embed(news.texts(wanted.fields)))


def graph(folder: Path, news: News, train: Behaviors, params: Params) -> NewsGraph:
    """As the graph stage makes it."""
    files = (folder / part / "entity_embedding.vec" for part in ("train", "dev"))
    vectors = read_vectors(*(path for path in files if path.exists()))
    pairs = co_clicks(train.users, train.times, train.history, train.history_offsets, train.history_news)
    return build(news.frame, vectors, pairs, params.graph.relations)


def trained(data: Data, params: Params, registry: Registry) -> np.ndarray:
    """Scores of dev's candidates by a model that `params` describe."""

    def untrained(lessons: Behaviors) -> tuple[Vocabularies, Recommender]:
        known = Vocabularies.of(data.news, lessons.mentioned(), data.artifacts.graph)
        seed_everything(params.seed)
        return known, Architecture.of(params).build(registry, data.artifacts.inputs(data.news, known, []))

    most = params.model.history
    _, model, _ = train(untrained, data.train, params.train, history=most, seed=params.seed, report=lambda _: None)
    return score(model, data.dev, most).candidates


def tfidf(data: Data, params: Params) -> Any:  # noqa: ANN401 - a sparse matrix, which scipy does not type
    """Words of title and abstract, fitted to all articles: (N, words)"""
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - of one baseline

    texts = data.news.texts(params.embed.fields)
    return TfidfVectorizer(sublinear_tf=True, min_df=2, dtype=np.float32).fit_transform(texts)


def sparse_cosine(rows: Any, behaviors: Behaviors, history: int) -> np.ndarray:  # noqa: ANN401 - see above
    """Of each candidate with the mean of the latest clicks; `rows` (N, words) have length 1, sparse. 0 without a click.

    Not divided by the length of the mean, which is the same for all candidates of an impression.
    """
    means = history_means(behaviors, rows.shape[0], history) @ rows
    owner = behaviors.history[owners(behaviors.candidate_offsets)]
    return np.asarray(means[owner].multiply(rows[behaviors.candidate_news]).sum(axis=1)).ravel()


def simple(data: Data, params: Params, seed: int) -> dict[str, np.ndarray]:
    """Scores of dev's candidates by scorers that need no training."""
    most, categories = params.model.history, data.news.frame["category"].rank("dense").to_numpy().astype(np.int64) - 1
    found = baselines(data.train, data.dev, categories, data.vectors, history=most, seed=seed)
    found["tfidf"] = sparse_cosine(tfidf(data, params), data.dev, most)
    return {title: found[name] for name, title in TITLES.items()}


def ranked(scores: np.ndarray, dev: Behaviors) -> Ranking:
    """Metrics of each impression, articles without a line in news.tsv last."""
    scores = np.where(dev.candidate_news >= 0, scores, np.nan)
    return ranking(unknown_last(scores), dev.labels, dev.candidate_offsets)


def interval(values: np.ndarray, users: np.ndarray) -> tuple[float, float]:
    """95 % of the means of `values` (n,), NaN where undefined, over users drawn with replacement."""
    defined = ~np.isnan(values)
    _, user = np.unique(users[defined], return_inverse=True)
    sums, counts = np.bincount(user, values[defined]), np.bincount(user)
    rng = np.random.default_rng(0)
    drawn = (rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums))) for _ in range(RESAMPLES))
    low, high = np.quantile([(times @ sums) / (times @ counts) for times in drawn], [0.025, 0.975])
    return float(low), float(high)


def row(name: str, found: list[Ranking], users: np.ndarray) -> str:
    """A line of the table: means over seeds, the AUC's spread over them, and its interval over users."""
    means = np.array([[each.means()[metric] for metric in METRICS] for each in found])
    low, high = interval(np.mean([each.auc for each in found], axis=0), users)
    spread = f"{means[:, 0].std(ddof=1):.4f}" if len(found) > 1 else "-"
    cells = [f"{value:.4f}" for value in means.mean(axis=0)]
    return f"| {name} | {cells[0]} | {low:.3f} to {high:.3f} | {spread} | {' | '.join(cells[1:])} |"


def with_(params: Params, seed: int, encoders: Mapping[str, bool], dim: int | None) -> Params:
    """The same settings but for these."""
    model = params.model.model_copy(update={"dim": dim or params.model.dim})
    return params.model_copy(update={"seed": seed, "encoders": dict(encoders), "model": model})


def main(arguments: argparse.Namespace) -> None:
    """Print the table, a row as soon as it is known."""
    params, registry = load(Path())
    data = Data.read(arguments.data, arguments.embeddings, params, registry)
    users, seeds = data.dev.users, range(arguments.seeds)
    print(
        f"{arguments.data.name}: {len(data.dev):,} impressions of {len(np.unique(users)):,} users, {len(seeds)} seeds"
    )
    print("\n| scorer | AUC | 95 % interval | spread | MRR | nDCG@5 | nDCG@10 |\n|---|---|---|---|---|---|---|")
    for name, scores in simple(data, params, 0).items():
        print(row(name, [ranked(scores, data.dev)], users), flush=True)
    chosen = params.chosen_encoders
    for name, encoders in {" + ".join(chosen): chosen, **({} if arguments.no_ablation else alone(params))}.items():
        start = time.perf_counter()
        wanted = (with_(params, seed, dict.fromkeys(encoders, True), arguments.dim) for seed in seeds)
        found = [ranked(trained(data, each, registry), data.dev) for each in wanted]
        print(row(f"**{name}**" if encoders == chosen else name, found, users), flush=True)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)


def alone(params: Params) -> dict[str, tuple[str, ...]]:
    """Each encoder by itself, and all that there are together."""
    names = sorted(params.encoders)
    return {**{f"{name} alone": (name,) for name in names}, " + ".join(names): tuple(names)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--embeddings", type=Path)
    parser.add_argument("--dim", type=int, help="model.dim, if not that of params.yaml")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--no-ablation", action="store_true")
    logging.disable(logging.WARNING)
    main(parser.parse_args())
