"""The news graph: articles, the entities they mention, their categories, and what is read after what."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from newsfuse import arrays, artifact
from newsfuse.csr import gather, lengths, offsets
from newsfuse.entities import Vectors, entity_links
from newsfuse.errors import DataError
from newsfuse.inputs import Graph, Neighbours, Vocabulary
from newsfuse.tsv import places
from newsfuse.words import Words

RELATIONS = ("entity", "category", "co_click")
KIND = "graph"
ARRAYS = "graph.npz"
NODES = ("articles", "entities", "categories")
FIRST = 3
"""How many unknown articles an error message names."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewsGraph:
    """Nodes of three kinds, each numbered from 0, and the edges between them."""

    articles: Words
    """News ids, those of train and dev."""
    entities: Words
    """Wikidata ids that some article mentions."""
    categories: Words
    """Both `sports` and `sports/tennis` are nodes, so that rare subcategories lean on their category."""
    edges: Mapping[str, np.ndarray]
    """int32 (2, E) by relation, distinct pairs, sorted: "entity" (article, entity), "category"
    (article, category), "co_click" (article, article), the smaller number first."""
    entity_vectors: np.ndarray
    """float32 (len(entities), W), zeros for an entity without a vector; W = 0 if there are none."""


def co_clicks(
    users: np.ndarray, times: np.ndarray, history: np.ndarray, history_offsets: np.ndarray, history_news: np.ndarray
) -> np.ndarray:
    """Which two articles some user clicked one after the other: int32 (2, E), distinct, smaller row first.

    Takes the arrays of the TRAINING behaviors. Only the history that a user brings to his or her
    first impression counts: those clicks were made before any row that the model learns from. A later
    history contains clicks that are labels of earlier rows (of training rows, and of the validation
    day), and an edge made from it would tell the model the answer. Nothing of dev is read.
    """
    rows = _first_histories(users, times, history, lengths(history_offsets))
    cells = gather(history_offsets, rows)
    reader = np.repeat(rows, lengths(history_offsets)[rows])
    news = history_news[cells]
    consecutive = (reader[1:] == reader[:-1]) & (news[1:] != news[:-1])
    return _undirected(np.stack([news[:-1], news[1:]])[:, consecutive])


def build(news: pl.DataFrame, vectors: Vectors, co_clicks: np.ndarray, relations: Sequence[str]) -> NewsGraph:
    """The graph of the articles `news` (a row each; order does not matter), with only these relations.

    `co_clicks`: int (2, E), pairs of rows of `news`. `relations`: some of RELATIONS.
    """
    articles, ordered = Words.of(news["id"]), news.sort("id")
    entities = categories = Words.of([])
    edges: dict[str, np.ndarray] = {}
    if "entity" in relations:
        edges["entity"], entities = _entity_edges(ordered)
    if "category" in relations:
        edges["category"], categories = _category_edges(ordered)
    if "co_click" in relations:
        places = articles.numbers(news["id"]) - 1
        edges["co_click"] = _undirected(places[co_clicks])
    return NewsGraph(articles, entities, categories, edges, vectors.of(entities))


def write(graph: NewsGraph, folder: Path, settings: Mapping[str, Any]) -> None:
    """Put the graph into `folder`: plain arrays, and a text file per kind of node. Same graph, same bytes."""
    # numpy dates the members of an npz 1 January 1980, so the archive has no time in it (tested)
    edges = {f"edges_{relation}": pairs for relation, pairs in sorted(graph.edges.items())}
    with artifact.writing(folder, kind=KIND, settings=settings) as draft:
        arrays.save_all(draft / ARRAYS, {"entity_vectors": graph.entity_vectors, **edges})
        for kind in NODES:
            getattr(graph, kind).write(draft / f"{kind}.txt")


def read(folder: Path) -> NewsGraph:
    """What `write` wrote. Raises IntegrityError for a damaged or incomplete folder."""
    artifact.verified(folder, kind=KIND)
    articles, entities, categories = (Words.read(folder / f"{kind}.txt") for kind in NODES)
    found = arrays.load_all(folder / ARRAYS, needed="entity_vectors")
    edges = {name.removeprefix("edges_"): pairs for name, pairs in found.items() if name.startswith("edges_")}
    return NewsGraph(articles, entities, categories, edges, found["entity_vectors"])


def vocabularies(graph: NewsGraph, ids: pl.Series, files: Sequence[Path] = ()) -> tuple[Words, Words]:
    """The entities and categories that the articles `ids` are linked to: what training on them knows.

    Raises DataError as `tensors` does.
    """
    part = _part(graph, ids, files)
    return Words(graph.entities.words.gather(part.entities)), Words(graph.categories.words.gather(part.categories))


def tensors(graph: NewsGraph, ids: pl.Series, entities: Words, categories: Words, files: Sequence[Path] = ()) -> Graph:
    """The part of the graph that the articles `ids` see, as tensors; node i is article `ids[i]`.

    Other articles are left out with their edges, and so are entities and categories that none of
    `ids` is linked to: nobody would hear them. `entities` and `categories` are those that training
    knew and number the rows of weights; others get number 0.
    Relations: "entity>article" (articles hear entities), "article>entity", "category>article",
    "article>category", and "co_click" (articles hear articles, both ways).

    Raises DataError when the graph does not know some of `ids`, naming the first ones and where in the news `files`
    they stand.
    """
    part = _part(graph, ids, files)
    return Graph(
        relations=_relations(part, len(ids)),
        n_articles=len(ids),
        entities=_vocabulary(graph.entities, part.entities, entities),
        categories=_vocabulary(graph.categories, part.categories, categories),
        entity_vectors=torch.from_numpy(graph.entity_vectors[part.entities]),
    )


@dataclass(frozen=True)
class _Part:
    """Edges of some articles, all ends numbered anew; `entities` and `categories` are the nodes left (old numbers)."""

    edges: dict[str, np.ndarray]
    entities: np.ndarray
    categories: np.ndarray


def _part(graph: NewsGraph, ids: pl.Series, files: Sequence[Path]) -> _Part:
    place = np.full(len(graph.articles), -1)
    place[_rows(graph, ids, files)] = np.arange(len(ids))
    edges, linked = {}, dict.fromkeys(("entity", "category"), np.zeros(0, dtype=np.int64))
    for name, (articles, others) in graph.edges.items():
        if name == "co_click":
            edges[name] = _kept(place[articles], place[others])
        else:
            kept = _kept(place[articles], others)
            linked[name], numbers = np.unique(kept[1], return_inverse=True)
            edges[name] = np.stack([kept[0], numbers])
    return _Part(edges, linked["entity"], linked["category"])


def _rows(graph: NewsGraph, ids: pl.Series, files: Sequence[Path]) -> np.ndarray:
    rows = graph.articles.numbers(ids) - 1
    if len(unknown := ids.filter(rows < 0)):
        raise DataError(_unknown(unknown, len(ids), files))
    return rows


def _unknown(ids: pl.Series, n: int, files: Sequence[Path]) -> str:
    first = ids.head(FIRST)
    some = ", ".join(place for news_id in first for place in places(news_id, files)) or ", ".join(first)
    cause = "it is older than the news. Make it: dvc repro graph (without `frozen: true` in dvc.yaml)"
    return f"the news graph does not know {len(ids)} of {n} articles, first {some}: {cause}"


def _kept(articles: np.ndarray, others: np.ndarray) -> np.ndarray:
    kept = (articles >= 0) & (others >= 0)
    return np.stack([articles[kept], others[kept]])


def _relations(part: _Part, n_articles: int) -> dict[str, Neighbours]:
    starts = {"co_click": 0, "entity": n_articles, "category": n_articles + len(part.entities)}
    n_nodes = starts["category"] + len(part.categories)
    relations = {}
    for name, (articles, numbers) in part.edges.items():
        others = numbers + starts[name]
        if name == "co_click":
            ends = np.concatenate([articles, others]), np.concatenate([others, articles])
            relations[name] = _neighbours(*ends, n_nodes)
        else:
            relations[f"article>{name}"] = _neighbours(articles, others, n_nodes)
            relations[f"{name}>article"] = _neighbours(others, articles, n_nodes)
    return relations


def _neighbours(sources: np.ndarray, targets: np.ndarray, n_nodes: int) -> Neighbours:
    order = np.lexsort((sources, targets))
    starts = offsets(np.bincount(targets, minlength=n_nodes))
    return Neighbours(torch.from_numpy(starts), torch.from_numpy(sources[order].astype(np.int64)))


def _vocabulary(nodes: Words, linked: np.ndarray, known: Words) -> Vocabulary:
    return Vocabulary(torch.tensor(known.numbers(nodes.words.gather(linked))), len(known) + 1)


def _first_histories(users: np.ndarray, times: np.ndarray, history: np.ndarray, clicks: np.ndarray) -> np.ndarray:
    """int: the distinct histories that users had at their first impressions."""
    # of several impressions in one second the shortest history is the earliest
    order = np.lexsort((history, clicks[history], times, users))
    first = np.diff(users[order], prepend=-1) != 0
    return np.unique(history[order][first])


def _undirected(pairs: np.ndarray) -> np.ndarray:
    """int32 (2, E): the distinct pairs, the smaller number first, sorted."""
    return _distinct(np.sort(pairs, axis=0))


def _distinct(pairs: np.ndarray) -> np.ndarray:
    """int32 (2, E): the distinct columns of `pairs`, sorted."""
    first, second = pairs.astype(np.int64)
    n = int(second.max(initial=0)) + 1
    return np.stack(np.divmod(np.unique(first * n + second), n)).astype(np.int32)


def _entity_edges(news: pl.DataFrame) -> tuple[np.ndarray, Words]:
    links, broken = entity_links(news)
    if broken:
        log.warning("%d of %d articles have entities that are not valid JSON; those count as none", broken, len(news))
    return _edges(links, "entity")


def _category_edges(news: pl.DataFrame) -> tuple[np.ndarray, Words]:
    row = pl.int_range(pl.len(), dtype=pl.Int32).alias("article")
    category, both = pl.col("category"), pl.concat_str("category", "subcategory", separator="/")
    broad = news.select(row, category.alias("name"))
    narrow = news.select(row, both.alias("name"), "subcategory").filter(pl.col("subcategory") != "").drop("subcategory")
    return _edges(pl.concat([broad, narrow]).filter(pl.col("name") != ""), "name")


def _edges(links: pl.DataFrame, column: str) -> tuple[np.ndarray, Words]:
    words = Words.of(links[column])
    return _distinct(np.stack([links["article"].to_numpy(), words.numbers(links[column]) - 1])), words
