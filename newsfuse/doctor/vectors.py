"""The vectors of articles: does each stand beside the id of its own text?

A sha256 tells of a table that was edited, not of one that was written wrongly. So what the embedder makes of the texts
is looked at again: of a bought vector by its key, which is a hash of the text; of a free one by making some anew.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from newsfuse import arrays
from newsfuse.doctor.finding import FIRST, Finding, failure, ok, warning
from newsfuse.doctor.tree import Tree
from newsfuse.doctor.whole import again, currency, folder, settings, wholeness
from newsfuse.embedding import asked_of, fitted
from newsfuse.embeddings import Embeddings
from newsfuse.environment import Environment
from newsfuse.errors import DataError, IntegrityError
from newsfuse.paid.ledger import Ledger, location
from newsfuse.paid.order import Order
from newsfuse.paid.seller import Seller
from newsfuse.paid.space import Space
from newsfuse.params import Params
from newsfuse.plugin import Cost, Embedder
from newsfuse.registry import Registry
from newsfuse.tsv import places
from newsfuse.words import Words, read_lines

STAGE = "embed"
SAMPLE = 1000
"""Articles whose vectors are made anew; the similarities of all of them are a million numbers."""
CORPUS = 5000
"""Articles that an embedder is fitted to for that: lsa takes two seconds for them, and twenty for MIND-small's."""
ALIKE = 0.3
"""How an article's similarities to others must correlate. Right vectors of MIND: .39 to 1; others': up to .12."""
OF_THE_MIDDLE = 0.7
"""The same as a share of the median, where the embedder is fitted to all that the table's was: nothing else differs."""
MOST_UNLIKE = 0.2
"""Share of right vectors below ALIKE, by a fit to some articles: none in MIND, up to 2 % by other settings."""
FEW = 20
"""Articles of which a correlation says little."""
MOST_EMPTY = 0.05
"""Share of vectors of nothing but zeros, as of a text with no known word: none in MIND and EB-NeRD."""


@dataclass(frozen=True)
class Table:
    """The artifact as it lies there, damaged or not."""

    embeddings: Embeddings
    keys: pl.Series | None
    """A line for each vector, where they were bought."""

    @property
    def ids(self) -> pl.Series:
        """Of its rows, in their order."""
        return self.embeddings.ids.words


def vectors(tree: Tree) -> Iterator[Finding]:
    """Whether they are whole, current, there for every article, and each article's own."""
    yield from wholeness(tree, STAGE)
    if not folder(tree, STAGE).is_dir() or tree.params is None or tree.registry is None:
        return
    table = _table(tree)
    yield from _coverage(tree, table)
    asked, made = _asked(tree.params, tree.registry), settings(tree, STAGE)
    if not (yield from currency(tree, STAGE, asked, made, by_settings=True)):
        return
    if table.keys is None:
        yield from _made(tree, tree.params, tree.registry, table)
    else:
        yield from _bought(tree, tree.params, tree.registry, table, table.keys)


def _table(tree: Tree) -> Table:
    """Raises IntegrityError for files that are no such table."""
    path, made = folder(tree, STAGE), settings(tree, STAGE)
    try:
        ids, found = read_lines(path / "ids.txt"), arrays.load(path / "vectors.npy", mapped=True)
        keys = read_lines(path / "keys") if (path / "keys").exists() else None
        width = int(made.get("dimensions", found.shape[1]))
    except (OSError, ValueError, IndexError) as error:
        message = f"{path}: cannot be read ({error}). Make it again: {again(tree, STAGE)}"
        raise IntegrityError(message) from error
    if len(ids) != len(found) or (keys is not None and len(keys) * width != found.size):
        rows = f"{len(ids)} ids, {len(found)} vectors{'' if keys is None else f', {len(keys)} keys'}"
        message = f"{path}: {rows}, which do not belong together. Make it again: {again(tree, STAGE)}"
        raise IntegrityError(message)
    return Table(Embeddings(Words(ids), found, found.shape[1] // width), keys)


def _asked(params: Params, registry: Registry) -> Mapping[str, Any]:
    """What the manifest of vectors has that params.yaml decides."""
    asked = asked_of(params, registry)
    if registry.load(Embedder, params.embed.provider).cost is not Cost.NOTHING:
        asked["model"] = asked["model"] or ""
    return asked


def _coverage(tree: Tree, table: Table) -> Iterator[Finding]:
    """Raises DataError, which names the first articles without a vector."""
    path, ids = folder(tree, STAGE), tree.news.ids
    if table.ids.is_duplicated().any():
        first = ", ".join(table.ids.filter(table.ids.is_duplicated()).unique(maintain_order=True).head(FIRST))
        yield failure(IntegrityError, f"{path}: ids that are there twice, first {first}", again(tree, STAGE))
        return
    missing = ids.filter(table.embeddings.ids.numbers(ids) == 0)
    if len(missing):
        first = ", ".join(place for news_id in missing.head(FIRST) for place in places(news_id, tree.news_files))
        told = f"{path}: {len(missing):,} of {len(ids):,} articles have no vector, first {first}"
        yield failure(DataError, told, "dvc repro embed (without `frozen: true` in dvc.yaml)")
    else:
        yield ok(f"{path}: each of {len(ids):,} articles has a vector")
    yield from _sense(tree, table)


def _sense(tree: Tree, table: Table) -> Iterator[Finding]:
    path, found = folder(tree, STAGE), np.asarray(table.embeddings.vectors)
    if not np.isfinite(found).all():
        bad = table.ids.filter(pl.Series(~np.isfinite(found).all(axis=1)))
        told = f"{path}: {len(bad):,} vectors with values that are no numbers, first {', '.join(bad.head(FIRST))}"
        yield failure(IntegrityError, told, again(tree, STAGE))
        return
    empty = ~found.any(axis=1)
    if empty.mean() > MOST_EMPTY:
        first = ", ".join(table.ids.filter(pl.Series(empty)).head(FIRST))
        told = f"{path}: {empty.mean():.1%} of the vectors are nothing but zeros, first {first}"
        yield warning(told, "see whether these articles have texts; more fields: -S 'embed.fields=[title,abstract]'")
    elif len(found) > 1 and (found == found[0]).all():
        yield failure(IntegrityError, f"{path}: all vectors are the same, so they say nothing", again(tree, STAGE))


def _known(tree: Tree, table: Table) -> np.ndarray:
    """int64: the rows of the table whose article is there."""
    return np.flatnonzero(Words(tree.news.ids).numbers(table.ids) > 0)


def _wrong(tree: Tree, ids: Sequence[str], of_how_many: int, what: str) -> Finding:
    """A failure that names the first articles, and where they stand."""
    first = ", ".join(next(places(news_id, tree.news_files), news_id) for news_id in ids[:FIRST])
    told = f"{folder(tree, STAGE)}: {len(ids):,} of {of_how_many:,} articles have {what}, first {first}"
    return failure(IntegrityError, told, again(tree, STAGE))


# --- made here, for nothing


def _made(tree: Tree, params: Params, registry: Registry, table: Table) -> Iterator[Finding]:
    rows = _spread(_known(tree, table), SAMPLE)
    if len(rows) < FEW:
        yield ok(f"{folder(tree, STAGE)}: too few articles to tell by similarities whose vectors they are")
        return
    fresh = _fresh(tree, params, registry, table.ids.gather(rows))
    found = np.asarray(table.embeddings.vectors[rows])
    alike = agreement(found, fresh)
    partly = len(tree.train_news) > CORPUS
    limit = ALIKE if partly else max(ALIKE, OF_THE_MIDDLE * float(np.median(alike)))
    # a text may have no term of a fit to others
    unlike = (alike < limit) & (fresh.any(axis=1) if partly else True)
    wrong = table.ids.gather(rows[unlike]).to_list()
    if wrong and partly and not _is_shuffled(found, fresh, alike, unlike):
        told = f"{len(wrong):,} of {len(rows):,} articles have a vector of little likeness to what their text gives"
        yield warning(f"{folder(tree, STAGE)}: {told}, such as {', '.join(wrong[:FIRST])}", again(tree, STAGE))
    elif wrong:
        yield _wrong(tree, wrong, len(rows), "the vector of another text (ids and vectors are shuffled)")
    else:
        told = f"as similar to each other as {params.embed.provider} makes them anew"
        yield ok(f"{folder(tree, STAGE)}: {len(rows):,} vectors are those of their articles, {told}")


def _is_shuffled(found: np.ndarray, fresh: np.ndarray, alike: np.ndarray, unlike: np.ndarray) -> bool:
    """Whether many are `unlike`, and no more alike than the vectors of others are."""
    others = agreement(np.roll(found, 1, axis=0), fresh)
    return bool(unlike.mean() > MOST_UNLIKE and np.median(alike[unlike]) < np.quantile(others, 0.9))


def _fresh(tree: Tree, params: Params, registry: Registry, ids: pl.Series) -> np.ndarray:
    """float32 (len(ids), views * dimensions): by the same embedder, fitted to some of train's articles."""
    views = params.embed.texts
    corpus = replace(tree.train_news, frame=tree.train_news.frame[_spread(np.arange(len(tree.train_news)), CORPUS)])
    asked = replace(tree.news, frame=tree.news.frame[tree.news.rows(ids)])
    return fitted(params, registry, corpus.texts(*views), asked.texts(*views)).reshape(len(ids), -1)


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the rows, evenly spread and always the same."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def agreement(found: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """float64 (n,): how each row's similarities to all others correlate in two tables of vectors, (n, W) each.

    Not the vectors themselves are compared: a fit to other articles, or the last digits of another processor, turn
    and mirror the whole space, and leave what is near to what. 1 where a row is zeros in both.
    """
    left, right = (_similarities(table) for table in (found, fresh))
    both_empty = ~found.any(axis=1) & ~fresh.any(axis=1)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    correlation = (left * right).sum(axis=1) / np.where(lengths == 0, 1, lengths)
    return np.where(both_empty, 1.0, correlation)


def _similarities(table: np.ndarray) -> np.ndarray:
    """float64 (n, n): cosines without those of each with itself, each row's mean taken away."""
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    unit = table / np.where(lengths == 0, 1, lengths)
    cosines = (unit @ unit.T).astype(np.float64)
    np.fill_diagonal(cosines, 0)
    return cosines - cosines.mean(axis=1, keepdims=True)


# --- bought, or made through the ledger


def _bought(tree: Tree, params: Params, registry: Registry, table: Table, keys: pl.Series) -> Iterator[Finding]:
    rows = _known(tree, table)
    expected = _keys(tree, params, registry, table.ids.gather(rows))
    found = keys.to_numpy().reshape(len(table.ids), -1)[rows]
    wrong = (found != expected).any(axis=1)
    if wrong.any():
        yield _other_keys(tree, table.ids.gather(rows[wrong]).to_list(), found[wrong], expected)
        return
    yield ok(f"{folder(tree, STAGE)}: {len(rows):,} articles have the keys of their texts")
    yield from _as_paid(tree, table, _spread(rows, SAMPLE), keys)


def _keys(tree: Tree, params: Params, registry: Registry, ids: pl.Series) -> np.ndarray:
    """(len(ids), views): of the articles' texts, in the space that the manifest names."""
    made, seller = settings(tree, STAGE), Seller.of(params, registry)
    space = Space(*(made[name] for name in Space.__dataclass_fields__))
    asked = replace(tree.news, frame=tree.news.frame[tree.news.rows(ids)])
    order = Order.of(asked, params.embed.texts, replace(seller, space=space), tree.news_files)
    return np.array([key.hex() for key in order.keys], dtype=object).reshape(len(ids), -1)


def _other_keys(tree: Tree, ids: Sequence[str], found: np.ndarray, expected: np.ndarray) -> Finding:
    if np.isin(found.astype(str), expected.astype(str)).any():
        return _wrong(tree, ids, len(expected), "the vector of another article's text (ids and vectors are shuffled)")
    return _wrong(tree, ids, len(expected), "the vector of a text that they do not have any more")


def _as_paid(tree: Tree, table: Table, rows: np.ndarray, keys: pl.Series) -> Iterator[Finding]:
    """Whether vectors are what the ledger has under their keys; nothing where it has none of them."""
    path, views = location(Environment.read()), table.embeddings.views
    of_rows = [bytes.fromhex(key) for row in rows for key in keys[int(row) * views : (int(row) + 1) * views]]
    width = table.embeddings.vectors.shape[1] // views
    with Ledger.reading(path) as ledger:
        if missing := len(ledger.missing(of_rows)):
            yield ok(f"{path}: has {len(of_rows) - missing:,} of {len(of_rows):,} vectors that were looked up there")
            return
        paid = np.concatenate(list(ledger.vectors(of_rows, width)))
    wrong = (np.asarray(table.embeddings.vectors[rows]).reshape(-1, width) != paid).any(axis=1)
    if wrong.any():
        ids = table.ids.gather(rows[wrong.reshape(-1, views).any(axis=1)]).to_list()
        yield _wrong(tree, ids, len(rows), "another vector than the ledger has for their text")
    else:
        yield ok(f"{folder(tree, STAGE)}: {len(rows):,} vectors are those of the ledger")
