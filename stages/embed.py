"""embed: the text of every article, of train and of dev, becomes a vector; the only stage that may cost money."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from newsfuse.artifact import write_text
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
from newsfuse.stage import run
from newsfuse.words import Words

EMPLOYER = Employer()
"""Looked up before anything slow: dvc may be killed at any time."""
Embed = Callable[[Sequence[str]], np.ndarray]


def embed(params: Params, registry: Registry) -> None:
    """Write data/<dataset>/embeddings and metrics/embed.json."""
    data = Path("data", params.dataset)
    files = [data / split / "news.tsv" for split in ("train", "dev")]
    news = News.read(*files)
    if registry.load(Embedder, params.embed.provider).cost is Cost.NOTHING:
        receipt = made(params, registry, news, News.read(files[0]), data / "embeddings")
    else:
        receipt = bought(params, registry, news, files, data / "embeddings")
    write_text(Path("metrics/embed.json"), receipt.to_json())


def made(params: Params, registry: Registry, news: News, corpus: News, folder: Path) -> Receipt:
    """By an embedder that is fitted to the texts of train, and costs nothing."""
    wanted, origin = params.embed, registry.origin(Embedder, params.embed.provider)
    embedder = registry.load(Embedder, wanted.provider)
    own, model = options(registry, Embedder, embedder.name, params.options), wanted.model or embedder.default_model
    with blame(origin):
        to_vectors = cast("Embed", embedder.build(corpus.texts(wanted.fields), model, wanted.dimensions, own))
    texts = news.texts(wanted.fields)
    vectors = vectors_of(texts, to_vectors, dimensions=wanted.dimensions, origin=origin)
    made_by = {"model": model, "options": own.model_dump(mode="json"), "text": TEXT_VERSION}
    Embeddings(Words(news.ids), vectors).write(folder, {**asked(params), **made_by})
    return Receipt(len(set(texts)))


def bought(params: Params, registry: Registry, news: News, files: list[Path], folder: Path) -> Receipt:
    """By a service, through the ledger: what it has is not asked for again."""
    environment, seller = Environment.read(), Seller.of(params, registry)
    order, path = Order.of(news, params.embed.fields, seller, files), location(environment)
    receipt = supply(order.lot, seller, params.embed.mode, path, environment=environment, employer=EMPLOYER)
    with Ledger.reading(path) as ledger:
        vectors = ledger.vectors(order.keys, params.embed.dimensions)
        write_bought(folder, Words(news.ids), order.keys, vectors, {**asked(params), **seller.space.to_dict()})
    return receipt


def asked(params: Params) -> dict[str, object]:
    """What params.yaml asks for that decides a vector: how it is asked for does not."""
    return params.embed.model_dump(mode="json", exclude={"mode"})


if __name__ == "__main__":
    run(embed)
