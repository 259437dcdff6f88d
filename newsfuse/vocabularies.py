"""What a model knows by name: written down with its weights, so that later data gets the same numbers."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from newsfuse.errors import IntegrityError
from newsfuse.graph import NewsGraph, vocabularies
from newsfuse.news import News
from newsfuse.words import Words


@dataclass(frozen=True)
class Vocabularies:
    """Names that occurred in training. Anything else is unknown to the model."""

    news: Words
    """Articles that a training row mentions."""
    categories: Words
    subcategories: Words
    graph_entities: Words
    graph_categories: Words

    @classmethod
    def of(cls, news: News, mentioned: np.ndarray, graph: NewsGraph | None) -> "Vocabularies":
        """Of training's `news`, of which the rows `mentioned` occur, and the graph if the model has one."""
        frame = news.frame[mentioned]
        nodes = vocabularies(graph, news.ids, news.files) if graph else (Words.of([]), Words.of([]))
        sections = (Words.of(column.filter(column != "")) for column in (frame["category"], frame["subcategory"]))
        return cls(*(Words.of(frame["id"]), *sections, *nodes))

    def require_of(self, news: News) -> None:
        """Raise IntegrityError unless training was on articles that are among these."""
        foreign = self.news.words.filter(news.rows(self.news.words) < 0)
        if len(foreign):
            found = f"{len(foreign)} of the {len(self.news)} articles that the model learned from, first {foreign[0]}"
            where = " and ".join(map(str, news.files)) or "the news"
            again = "dvc repro --force --single-item train"
            message = f"{found}, are not in {where}: it was trained on other news. Train it again: {again}"
            raise IntegrityError(message)

    def write(self, folder: Path) -> None:
        """A text file for each vocabulary."""
        for name in self._names():
            getattr(self, name).write(folder / f"{name}.txt")

    @classmethod
    def read(cls, folder: Path) -> "Vocabularies":
        """What `write` wrote."""
        return cls(*(Words.read(folder / f"{name}.txt") for name in cls._names()))

    @classmethod
    def _names(cls) -> list[str]:
        return [each.name for each in fields(cls)]
