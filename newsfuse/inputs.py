"""What encoders may read: tables with one row per article, handed out only to those who asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from newsfuse.errors import PluginError
from newsfuse.plugin import Need

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True)
class Vocabulary:
    """Values known from training, by number: 0 is "unknown", known values count from 1.

    The numbers are the same at training and at evaluation, so `size` rows of weights fit both.
    """

    rows: Tensor
    """int64 (N,): the number of each item's value, 0 where training never saw it."""
    size: int
    """How many numbers there are, the unknown one included."""


@dataclass(frozen=True)
class Neighbours:
    """One relation of the graph, as CSR over all nodes: who sends messages to whom."""

    offsets: Tensor
    """int64 (n_nodes + 1,): node v hears `sources[offsets[v]:offsets[v + 1]]`."""
    sources: Tensor
    """int64 (E,): node numbers."""


@dataclass(frozen=True)
class Graph:
    """The news graph. Nodes are numbered: articles first (node i is article i), then entities, then categories."""

    relations: Mapping[str, Neighbours]
    """By name, in both directions, such as "entity>article" (articles hear entities) and "article>entity"."""
    n_articles: int
    entities: Vocabulary
    """Rows of the entity nodes."""
    categories: Vocabulary
    """Rows of the category nodes."""
    entity_vectors: Tensor
    """float32 (n_entities, W), zeros where the data set has no vector for the entity; W may be 0."""

    @property
    def n_nodes(self) -> int:
        """Articles, entities and categories together."""
        return self.n_articles + len(self.entities.rows) + len(self.categories.rows)


@dataclass(frozen=True)
class Texts:
    """What articles say, as news.tsv has it; "" where it has nothing."""

    titles: tuple[str, ...]
    """N of them: entry i is article i's."""
    abstracts: tuple[str, ...]
    """As many."""


@dataclass(frozen=True)
class Inputs:
    """Tables about N articles; row i of each is article i. Reading an undeclared one raises PluginError."""

    n_articles: int
    tables: Mapping[Need, object]
    reader: str = "newsfuse"
    allowed: frozenset[Need] = field(default=frozenset(Need))

    def only(self, needs: frozenset[Need], reader: str) -> Inputs:
        """The same tables, of which `reader` (named in the error) may open just `needs`."""
        return Inputs(self.n_articles, self.tables, reader, needs)

    @property
    def embeddings(self) -> Tensor:
        """float32 (N, E): the embed stage's vectors."""
        return cast("Tensor", self._table(Need.EMBEDDINGS))

    @property
    def graph(self) -> Graph:
        """The news graph over these articles."""
        return cast("Graph", self._table(Need.GRAPH))

    @property
    def categories(self) -> tuple[Vocabulary, Vocabulary]:
        """Category and subcategory of each article."""
        return cast("tuple[Vocabulary, Vocabulary]", self._table(Need.CATEGORIES))

    @property
    def seen(self) -> Vocabulary:
        """The articles themselves, as training saw them: 0 for one that no training row mentions."""
        return cast("Vocabulary", self._table(Need.SEEN))

    @property
    def texts(self) -> Texts:
        """Title and abstract of each article, in words."""
        return cast("Texts", self._table(Need.TEXTS))

    def _table(self, need: Need) -> object:
        if need not in self.allowed:
            declared = f"declared: {', '.join(sorted(self.allowed)) or 'nothing'}"
            fix = f"add Need.{need.name} to its needs ({declared})"
            message = f"{self.reader} reads inputs.{need} without declaring it: {fix}"
            raise PluginError(message)
        return self.tables[need]
