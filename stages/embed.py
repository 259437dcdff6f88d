"""embed: the text of every article, of train and of dev, becomes a vector."""

from pathlib import Path

from newsfuse.blame import blame
from newsfuse.embeddings import Embeddings, vectors_of
from newsfuse.news import TEXT_VERSION, News
from newsfuse.params import Params, options
from newsfuse.plugin import Embedder
from newsfuse.registry import Registry
from newsfuse.stage import run
from newsfuse.words import Words


def embed(params: Params, registry: Registry) -> None:
    """Write data/<dataset>/embeddings."""
    data, wanted = Path("data", params.dataset), params.embed
    train = News.read(data / "train" / "news.tsv")
    news = News.read(data / "train" / "news.tsv", data / "dev" / "news.tsv")

    embedder = registry.load(Embedder, wanted.provider)
    origin = registry.origin(Embedder, embedder.name)
    own = options(registry, Embedder, embedder.name, params.options)
    model = wanted.model or embedder.default_model
    with blame(origin):
        to_vectors = embedder.build(train.texts(wanted.fields), model, wanted.dimensions, own)
    vectors = vectors_of(news.texts(wanted.fields), to_vectors, dimensions=wanted.dimensions, origin=origin)

    made_by = {
        **wanted.model_dump(mode="json"),
        "model": model,
        "options": own.model_dump(mode="json"),
        "text": TEXT_VERSION,
    }
    Embeddings(Words(news.ids), vectors).write(data / "embeddings", made_by)


if __name__ == "__main__":
    run(embed)
