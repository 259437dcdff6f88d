"""What the encoders are worth on the last day of a data set's train, of which nothing was learned and nothing chosen.

    python examples/newsfuse-headline/measure.py data/mind-sample [--seeds 3]

To be run in the root of a newsfuse project, whose params.yaml it follows; dev is not opened. All days but the last are
the training data: the last of these chooses the epoch, as `train` has it.
"""

import argparse
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np

from newsfuse.assembly import Architecture, Artifacts
from newsfuse.behaviors import Behaviors
from newsfuse.bootstrap import bootstrap
from newsfuse.device import seed_everything
from newsfuse.embeddings import Embeddings
from newsfuse.entities import read_vectors
from newsfuse.graph import build, co_clicks
from newsfuse.news import News
from newsfuse.params import Params, load, options
from newsfuse.plugin import Embedder
from newsfuse.ranking import Ranking, ranking, unknown_last
from newsfuse.recommender import Recommender
from newsfuse.registry import Registry
from newsfuse.scoring import score
from newsfuse.split import split
from newsfuse.training import train
from newsfuse.vocabularies import Vocabularies
from newsfuse.words import Words

PACKAGE = "newsfuse-headline"
METRICS = ("auc", "ndcg10")
OURS = ("category", "gnn", "llm")
PAIRS = ((OURS, (*OURS, "headline")), (("llm",), ("headline",)))
"""Each without and with: the second is compared with the first."""


@dataclass(frozen=True)
class Days:
    """A data set's train, its last day apart."""

    news: News
    artifacts: Artifacts
    lessons: Behaviors
    last: Behaviors

    @classmethod
    def read(cls, folder: Path, params: Params, registry: Registry) -> Self:
        """Of a folder in MIND's layout; vectors are those of lsa."""
        news = News.read(folder / "news.tsv")
        lessons, last = split(Behaviors.read(folder / "behaviors.tsv", news))
        own = options(registry, Embedder, "lsa", params.options)
        texts = news.texts(params.embed.fields)
        embed: Any = registry.load(Embedder, "lsa").build(texts, None, params.embed.dimensions, own)
        entities = read_vectors(*folder.glob("entity_embedding.vec"))
        columns = (lessons.users, lessons.times, lessons.history, lessons.history_offsets, lessons.history_news)
        graph = build(news.frame, entities, co_clicks(*columns), params.graph.relations)
        return cls(news, Artifacts(Embeddings(Words(news.ids), embed(texts)), graph, texts=True), lessons, last)


def ranked(days: Days, params: Params, registry: Registry) -> Ranking:
    """The last day's impressions by a model that learned from the days before it."""

    def untrained(lessons: Behaviors) -> tuple[Vocabularies, Recommender]:
        known = Vocabularies.of(days.news, lessons.mentioned(), days.artifacts.graph)
        seed_everything(params.seed)
        return known, Architecture.of(params).build(registry, days.artifacts.inputs(days.news, known, []))

    most = params.model.history
    _, model, _ = train(untrained, days.lessons, params.train, history=most, seed=params.seed, report=lambda _: None)
    scores = np.where(days.last.candidate_news >= 0, score(model, days.last, most).candidates, np.nan)
    return ranking(unknown_last(scores), days.last.labels, days.last.candidate_offsets)


def row(encoders: Iterable[str], found: list[Ranking], difference: Sequence[str]) -> str:
    """A line of the table."""
    means = [each.means() for each in found]
    cells = [mean_and_sd([each[metric] for each in means]) for metric in METRICS]
    shown = (f"{mean} | {sd} | {more}" for (mean, sd), more in zip(cells, difference, strict=True))
    return f"| {' + '.join(encoders)} | {' | '.join(shown)} |"


def differences(found: list[Ranking], reference: list[Ranking], users: np.ndarray) -> list[str]:
    """Of the means over seeds, by each metric, with what 95 of 100 resamples of the users say."""
    means = [np.stack([seeds(each, metric) for metric in METRICS], axis=1) for each in (found, reference)]
    estimate = bootstrap(means[0] - means[1], users)
    ends = zip(estimate.mean, estimate.low, estimate.high, strict=True)
    return [f"{mean:+.4f} ({low:+.4f} to {high:+.4f})" for mean, low, high in ends]


def seeds(found: list[Ranking], metric: str) -> np.ndarray:
    """float64 (n,): of each impression, the mean over seeds."""
    return np.mean([getattr(each, metric) for each in found], axis=0)


def mean_and_sd(values: list[float]) -> tuple[str, str]:
    """Of one value there is no standard deviation."""
    return f"{np.mean(values):.4f}", f"{np.std(values, ddof=1):.4f}" if len(values) > 1 else "-"


def main(folder: Path, runs: int) -> None:
    """Print the table, a row as soon as it is known."""
    params, _ = load(Path())
    registry = Registry(Path("plugins"), {PACKAGE: version(PACKAGE)})
    days = Days.read(folder / "train", params, registry)
    print(f"{len(days.lessons):,} impressions before the last day, {len(days.last):,} of it, {runs} seeds\n")
    print(
        "| encoders | AUC | sd | difference (95 %) | nDCG@10 | sd | difference (95 %) |\n|---|---|---|---|---|---|---|"
    )
    for without, encoders in PAIRS:
        reference = repeated(days, params, registry, without, runs)
        print(row(without, reference, ["", ""]), flush=True)
        found = repeated(days, params, registry, encoders, runs)
        print(row(encoders, found, differences(found, reference, days.last.users)), flush=True)


def repeated(days: Days, params: Params, registry: Registry, encoders: Iterable[str], runs: int) -> list[Ranking]:
    """With the seeds 0 to runs - 1."""
    settings = params.model_copy(update={"encoders": dict.fromkeys(encoders, True)})
    return [ranked(days, settings.model_copy(update={"seed": seed}), registry) for seed in range(runs)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    logging.disable(logging.WARNING)
    arguments = parser.parse_args()
    main(arguments.data, arguments.seeds)
