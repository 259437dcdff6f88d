"""The news graph, made once more from what is here and compared: a second or two, and no doubt is left."""

from collections.abc import Iterator

import numpy as np
import polars as pl

from newsfuse.doctor.finding import FIRST, Finding, failure, ok
from newsfuse.doctor.tree import Tree
from newsfuse.doctor.whole import again, currency, folder, settings, usable
from newsfuse.entities import Vectors
from newsfuse.errors import IntegrityError
from newsfuse.graph import NewsGraph, build, co_clicks, read
from newsfuse.tsv import places

STAGE = "graph"


def graph(tree: Tree) -> Iterator[Finding]:
    """Whether it is whole, current, and about the articles that are here."""
    if not (yield from usable(tree, STAGE)) or (params := tree.params) is None:
        return
    asked = {"relations": sorted(params.graph.relations)}
    if (yield from currency(tree, STAGE, asked, settings(tree, STAGE))):
        yield from _compared(tree, read(folder(tree, STAGE)), _anew(tree))


def _anew(tree: Tree) -> NewsGraph:
    """As the stage makes it, but for the entities' vectors."""
    relations, pairs = settings(tree, STAGE)["relations"], np.zeros((2, 0), np.int32)
    if "co_click" in relations:
        train = tree.behaviors("train", tree.news)
        pairs = co_clicks(train.users, train.times, train.history, train.history_offsets, train.history_news)
    none = Vectors(pl.Series([], dtype=pl.String), np.zeros((0, 0), np.float32))
    return build(tree.news.frame, none, pairs, relations)


def _compared(tree: Tree, found: NewsGraph, fresh: NewsGraph) -> Iterator[Finding]:
    path, ids = folder(tree, STAGE), fresh.articles.words
    if not found.articles.words.equals(ids):
        there = found.articles.words
        wrong = pl.concat([ids.filter(~ids.is_in(there.implode())), there.filter(~there.is_in(ids.implode()))])
        told = f"{len(wrong):,} articles are in one of it and news.tsv only" if len(wrong) else "ids are out of order"
        first = ", ".join((wrong if len(wrong) else there.filter(there != ids)).head(FIRST))
        yield failure(IntegrityError, f"{path}: {told}, first {first}", again(tree, STAGE))
        return
    wrong_rows = sorted({row for name in fresh.edges for row in _differing(found, fresh, name)})
    if wrong_rows:
        first = ", ".join(_place(tree, ids[row]) for row in wrong_rows[:FIRST])
        told = f"{len(wrong_rows):,} of {len(ids):,} articles have other neighbours than the data gives them"
        yield failure(IntegrityError, f"{path}: {told}, first {first}", again(tree, STAGE))
    else:
        edges = ", ".join(f"{pairs.shape[1]:,} of {name}" for name, pairs in sorted(found.edges.items()))
        yield ok(f"{path}: {len(ids):,} articles, edges as the data gives them: {edges or 'none'}")


def _differing(found: NewsGraph, fresh: NewsGraph, relation: str) -> set[int]:
    """Rows of articles at one end of an edge that only one of the graphs has."""
    there = _named(found, relation, found.edges.get(relation, np.zeros((2, 0), np.int32)))
    right = _named(fresh, relation, fresh.edges[relation])
    ends = ["article", "other"]
    only = there.join(right, on=ends, how="anti"), right.join(there, on=ends, how="anti")
    return set(pl.concat(only)["article"].to_list())


def _named(graph: NewsGraph, relation: str, edges: np.ndarray) -> pl.DataFrame:
    """Edges by the row of the article and the name of what is at the other end."""
    nodes = {"entity": graph.entities, "category": graph.categories}.get(relation, graph.articles)
    return pl.DataFrame({"article": edges[0], "other": nodes.words.gather(edges[1])})


def _place(tree: Tree, news_id: str) -> str:
    return next(places(news_id, tree.news_files), news_id)
