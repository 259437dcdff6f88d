"""A small world to check plugins on: articles with every table that a plugin may ask for."""

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl

from newsfuse.assembly import Artifacts
from newsfuse.embeddings import Embeddings
from newsfuse.entities import Vectors
from newsfuse.graph import RELATIONS, build
from newsfuse.inputs import Inputs
from newsfuse.news import COLUMNS, News
from newsfuse.vocabularies import Vocabularies
from newsfuse.words import Words

WIDTH = 12
"""Of the embeddings and of the entity vectors."""
EARLY = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14]
"""Rows of the training articles among all: the later ones come between them."""
BARE, UNMENTIONED = 3, 5
"""Rows among the training articles: one that says nothing, by text or by links, and one in no training row."""
OLD_WORDS = ["storm", "closes", "harbour", "as", "team", "wins", "Zürich", "café", "naïve", "don't", "3-2", "AI's"]
NEW_WORDS = ["東京", "election", "Ærø", "reopens", "bridge", "Œuvre", "mayor's", "2020", "vaccine", "№1", "Łódź"]
"""What only later articles say, beside the old words."""


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
    """Always the same one; who may write into its tables takes `fresh` ones."""
    rng = np.random.default_rng(0)
    articles = pl.DataFrame([_article(row) for row in range(18)], dict.fromkeys(COLUMNS, pl.String), orient="row")
    news, train = News(articles), News(articles[EARLY])
    vectors = rng.normal(size=(len(news), WIDTH)).astype(np.float32)
    vectors[EARLY[BARE]] = 0
    entities = Vectors(pl.Series([f"Q{number}" for number in range(8)]), rng.normal(size=(8, WIDTH)).astype(np.float32))
    graph = build(news.frame, entities, np.array([[0, 2, 4], [2, 6, 9]]), RELATIONS)
    known = Vocabularies.of(train, np.delete(np.arange(len(train)), UNMENTIONED), graph)
    made = Artifacts(Embeddings(Words(news.ids), vectors), graph, texts=True)
    return World(made.inputs(train, known, []), made.inputs(news, known, []), known)


def fresh(inputs: Inputs) -> Inputs:
    """A copy of the tables, since a faulty plugin may write into them."""
    return deepcopy(inputs)


@cache
def crowd(n: int) -> Inputs:
    """`n` articles with about as many words, entities and links as those of MIND, to measure plugins on."""
    rng = np.random.default_rng(0)
    mentions = rng.integers(0, max(n // 5, 1), (n, 3))
    rows = [_one_of_many(rng, row, mentions[row].tolist()) for row in range(n)]
    news = News(pl.DataFrame(rows, dict.fromkeys(COLUMNS, pl.String), orient="row").sort("id"))
    entities = Words.of(f"Q{number}" for number in np.unique(mentions).tolist()).words
    vectors = Vectors(entities, rng.normal(size=(len(entities), 100)).astype(np.float32))
    graph = build(news.frame, vectors, rng.integers(0, n, (2, 5 * n)), RELATIONS)
    known = Vocabularies.of(news, np.arange(n), graph)
    embeddings = rng.normal(size=(n, 256)).astype(np.float32)
    return Artifacts(Embeddings(Words(news.ids), embeddings), graph, texts=True).inputs(news, known, [])


def _article(row: int) -> tuple[str, ...]:
    """Later articles have sections, entities and words of their own beside those of the early ones."""
    if row == EARLY[BARE]:
        return (f"N{row:02}", *[""] * 7)
    new = 0 if row in EARLY else 3
    mentions = [row % 5, row % 7 + new]
    words = OLD_WORDS if row in EARLY else OLD_WORDS + NEW_WORDS
    rng = np.random.default_rng(row)
    title, abstract = _sentence(rng, words, 5), _sentence(rng, words, 12 * (row % 4 > 0))  # a quarter has no abstract
    return (f"N{row:02}", f"c{row % 3 + new}", f"s{row % 5}", title, abstract, "", _links(mentions), "[]")


def _one_of_many(rng: np.random.Generator, row: int, mentions: Sequence[int]) -> tuple[str, ...]:
    words = [f"word{number}" for number in (20_000 * rng.random(45) ** 3).astype(int)]  # few words are frequent
    sections = (f"c{row % 17}", f"s{row % 250}")
    return (f"N{row}", *sections, " ".join(words[:11]), " ".join(words[11:]), "", _links(mentions), "[]")


def _sentence(rng: np.random.Generator, words: Sequence[str], length: int) -> str:
    return " ".join(rng.choice(words, length).tolist())


def _links(mentions: Sequence[int]) -> str:
    return json.dumps([{"WikidataId": f"Q{number}"} for number in mentions])
