"""A world small enough to read: articles with every table that a plugin may ask for, and impressions from lists."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from newsfuse import Inputs
from newsfuse.assembly import Artifacts
from newsfuse.behaviors import Behaviors
from newsfuse.csr import offsets
from newsfuse.embeddings import Embeddings
from newsfuse.entities import Vectors
from newsfuse.graph import RELATIONS, build
from newsfuse.news import COLUMNS, News
from newsfuse.registry import Registry
from newsfuse.vocabularies import Vocabularies
from newsfuse.words import Words

ROOT = Path(__file__).parents[1]
WIDTH = 12
"""Of the embeddings and of the entity vectors."""
EARLY = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14]
"""Rows of the training articles among all: the later ones come between them."""
BARE, UNMENTIONED = 3, 5
"""Rows among the training articles: one that says nothing, by text or by links, and one in no training row."""


@dataclass(frozen=True)
class World:
    """Articles as training and as evaluation see them."""

    train: Inputs
    """12 articles."""
    later: Inputs
    """These and 6 others, with entities, categories and words that training never saw; other row numbers."""
    known: Vocabularies


@cache
def world() -> World:
    rng = np.random.default_rng(0)
    articles = pl.DataFrame([_article(row) for row in range(18)], dict.fromkeys(COLUMNS, pl.String), orient="row")
    news, train = News(articles), News(articles[EARLY])
    vectors = rng.normal(size=(len(news), WIDTH)).astype(np.float32)
    vectors[EARLY[BARE]] = 0
    entities = Vectors(pl.Series([f"Q{number}" for number in range(8)]), rng.normal(size=(8, WIDTH)).astype(np.float32))
    graph = build(news.frame, entities, np.array([[0, 2, 4], [2, 6, 9]]), RELATIONS)
    known = Vocabularies.of(train, np.delete(np.arange(len(train)), UNMENTIONED), graph)
    made = Artifacts(Embeddings(Words(news.ids), vectors), graph)
    return World(made.inputs(train, known, []), made.inputs(news, known, []), known)


def _article(row: int) -> tuple[str, ...]:
    """Later articles have sections and entities of their own beside those of the early ones."""
    if row == EARLY[BARE]:
        return (f"N{row:02}", *[""] * 7)
    new = 0 if row in EARLY else 3
    mentions = [{"WikidataId": f"Q{row % 5}"}, {"WikidataId": f"Q{row % 7 + new}"}]
    return (f"N{row:02}", f"c{row % 3 + new}", f"s{row % 5}", "title", "abstract", "", json.dumps(mentions), "[]")


def plugins() -> Registry:
    return Registry(ROOT / "plugins", {})


Shown = Sequence[tuple[int, int]]
"""(article, label) of each candidate."""


def behave(*impressions: tuple[Sequence[int], Shown]) -> Behaviors:
    """Impressions of (history, oldest click first; what was shown), an hour between each and the next."""
    n = len(impressions)
    histories = sorted({tuple(history) for history, _ in impressions})
    return Behaviors(
        impressions=pl.Series([f"I{number}" for number in range(n)], dtype=pl.String),
        users=np.arange(n, dtype=np.int32),
        times=np.datetime64("2019-11-09T00:00:00", "s") + 3600 * np.arange(n),
        history=np.array([histories.index(tuple(history)) for history, _ in impressions], dtype=np.int32),
        history_offsets=offsets(np.array([len(each) for each in histories], dtype=np.int64)),
        history_news=np.array([article for each in histories for article in each], dtype=np.int32),
        candidate_offsets=offsets(np.array([len(shown) for _, shown in impressions], dtype=np.int64)),
        candidate_news=np.array([article for _, shown in impressions for article, _ in shown], dtype=np.int32),
        labels=np.array([label for _, shown in impressions for _, label in shown], dtype=np.int8),
    )
