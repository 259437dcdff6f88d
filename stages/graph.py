"""graph: articles, their entities and categories, and what is read after what, as plain arrays."""

from pathlib import Path

from newsfuse.behaviors import Behaviors
from newsfuse.entities import read_vectors, vector_files
from newsfuse.graph import build, co_clicks, write
from newsfuse.news import News
from newsfuse.params import Params
from newsfuse.registry import Registry
from newsfuse.stage import run


def graph(params: Params, registry: Registry) -> None:  # noqa: ARG001 - every stage is called alike
    """Write data/<dataset>/graph. Of dev it reads the articles, never the clicks."""
    data, relations = Path("data", params.dataset), params.graph.relations
    splits = [data / "train", data / "dev"]
    news = News.read(*(split / "news.tsv" for split in splits))
    clicks = Behaviors.read(data / "train" / "behaviors.tsv", news)
    read_together = co_clicks(clicks.users, clicks.times, clicks.history, clicks.history_offsets, clicks.history_news)
    vectors = read_vectors(*vector_files(splits))
    write(build(news.frame, vectors, read_together, relations), data / "graph", {"relations": sorted(relations)})


if __name__ == "__main__":
    run(graph)
