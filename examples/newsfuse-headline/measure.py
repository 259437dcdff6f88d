"""What the encoders are worth on the last day of a data set's train, of which nothing was learned and nothing chosen.

    python examples/newsfuse-headline/measure.py data/mind-sample [--seeds 3]

To be run in the root of a newsfuse project, whose params.yaml it follows; dev is not opened. All days but the last are
the training data: the last of these chooses the epoch, as `train` has it.
"""

import argparse
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np

from newsfuse.assembly import Architecture, Artifacts
from newsfuse.behaviors import Behaviors
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
OURS = ("category", "gnn", "llm")
ROWS = (OURS, (*OURS, "headline"), (*OURS, "headline", "abstract"), ("headline",))


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


def row(encoders: Iterable[str], found: list[Ranking]) -> str:
    """A line of the table."""
    means = [each.means() for each in found]
    cells = [cell for metric in ("auc", "ndcg10") for cell in mean_and_sd([each[metric] for each in means])]
    return f"| {' + '.join(encoders)} | {' | '.join(cells)} |"


def mean_and_sd(values: list[float]) -> tuple[str, str]:
    """Of one value there is no standard deviation."""
    return f"{np.mean(values):.4f}", f"{np.std(values, ddof=1):.4f}" if len(values) > 1 else "-"


def main(folder: Path, seeds: int) -> None:
    """Print the table, a row as soon as it is known."""
    params, _ = load(Path())
    registry = Registry(Path("plugins"), {PACKAGE: version(PACKAGE)})
    days = Days.read(folder / "train", params, registry)
    print(f"{len(days.lessons):,} impressions before the last day, {len(days.last):,} of it, {seeds} seeds\n")
    print("| encoders | AUC | sd | nDCG@10 | sd |\n|---|---|---|---|---|")
    for encoders in ROWS:
        wanted = {"encoders": dict.fromkeys(encoders, True)}
        each = [params.model_copy(update={**wanted, "seed": seed}) for seed in range(seeds)]
        print(row(encoders, [ranked(days, settings, registry) for settings in each]), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    logging.disable(logging.WARNING)
    arguments = parser.parse_args()
    main(arguments.data, arguments.seeds)
