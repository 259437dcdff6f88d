"""Embedding: the texts of articles become an artifact of vectors, made on the spot or bought through the ledger."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from newsfuse.blame import blame
from newsfuse.embeddings import Embeddings, vectors_of, write_bought
from newsfuse.environment import Environment
from newsfuse.news import TEXT_VERSION, News
from newsfuse.paid.ledger import Ledger, location
from newsfuse.paid.order import Order
from newsfuse.paid.payer import Employer
from newsfuse.paid.receipt import Receipt
from newsfuse.paid.seller import Seller
from newsfuse.paid.supply import supply
from newsfuse.params import Params, options
from newsfuse.plugin import Cost, Embedder
from newsfuse.registry import Registry
from newsfuse.words import Words

Embed = Callable[[Sequence[str]], np.ndarray]


def embed_news(
    params: Params, registry: Registry, files: Sequence[Path], folder: Path, *, corpus: Path, employer: Employer
) -> Receipt:
    """Write the artifact `folder`: vectors for the articles of `files`, by the embedder that `params` choose.

    One that costs nothing is fitted to the articles of `corpus`; the others go through the ledger, which may
    cost money. Returns what it cost. Raises NewsfuseError, of whatever kind.
    """
    news = News.read(*files)
    if registry.load(Embedder, params.embed.provider).cost is Cost.NOTHING:
        return _made(params, registry, news, News.read(corpus), folder)
    return _bought(params, registry, news, files, folder, employer=employer)


def fitted(params: Params, registry: Registry, corpus: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """float32 (len(texts), dimensions): by the chosen embedder, one that costs nothing, fitted to `corpus`.

    Raises PluginError, as `vectors_of`.
    """
    wanted, origin = params.embed, registry.origin(Embedder, params.embed.provider)
    embedder = registry.load(Embedder, wanted.provider)
    own, model = options(registry, Embedder, embedder.name, params.options), wanted.model or embedder.default_model
    with blame(origin):
        to_vectors = cast("Embed", embedder.build(corpus, model, wanted.dimensions, own))
    return vectors_of(texts, to_vectors, dimensions=wanted.dimensions, origin=origin)


def asked_of(params: Params, registry: Registry) -> dict[str, object]:
    """All that decides the vectors of an embedder, as the manifest of those that cost nothing has it."""
    embedder = registry.load(Embedder, params.embed.provider)
    own = options(registry, Embedder, embedder.name, params.options).model_dump(mode="json")
    model = params.embed.model or embedder.default_model
    return {**_asked(params), "model": model, "options": own, "text": TEXT_VERSION}


def _made(params: Params, registry: Registry, news: News, corpus: News, folder: Path) -> Receipt:
    fields = params.embed.texts
    texts = news.texts(*fields)
    vectors = fitted(params, registry, corpus.texts(*fields), texts).reshape(len(news), -1)
    Embeddings(Words(news.ids), vectors, len(fields)).write(folder, asked_of(params, registry))
    return Receipt(len(set(texts)))


def _bought(
    params: Params, registry: Registry, news: News, files: Sequence[Path], folder: Path, *, employer: Employer
) -> Receipt:
    """What the ledger has is not asked for again."""
    environment, seller = Environment.read(), Seller.of(params, registry)
    order, path = Order.of(news, params.embed.texts, seller, files), location(environment)
    receipt = supply(order.lot, seller, params.embed.mode, path, environment=environment, employer=employer)
    with Ledger.reading(path) as ledger:
        vectors = ledger.vectors(order.keys, params.embed.dimensions)
        write_bought(folder, Words(news.ids), order.keys, vectors, {**_asked(params), **seller.space.to_dict()})
    return receipt


def _asked(params: Params) -> dict[str, object]:
    """What params.yaml asks for that decides a vector: how it is asked for does not."""
    return params.embed.model_dump(mode="json", exclude={"mode"})
