"""From names to a model: the chosen plugins and the tables that they need, put together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from newsfuse import graph as news_graph
from newsfuse.blame import blame
from newsfuse.embeddings import Embeddings
from newsfuse.inputs import Inputs, Texts, Vocabulary
from newsfuse.news import News
from newsfuse.params import Params, options
from newsfuse.plugin import Embedder, Encoder, Fusion, Need, UserEncoder
from newsfuse.recommender import Recommender
from newsfuse.registry import Registry
from newsfuse.vocabularies import Vocabularies
from newsfuse.words import Words


@dataclass(frozen=True)
class Architecture:
    """All that decides a model's shape, apart from the data; written down beside its weights."""

    encoders: tuple[str, ...]
    fusion: str
    user_encoder: str
    dim: int
    dropout: float
    history: int
    options: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, params: Params) -> "Architecture":
        """What params.yaml asks for."""
        chosen = {name for kind, name in params.chosen if kind is not Embedder}
        used = {name: values for name, values in params.options.items() if name in chosen}
        names = (params.chosen_encoders, params.fusion, params.user_encoder)
        return cls(*names, params.model.dim, params.model.dropout, params.model.history, used)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Architecture":
        """What `to_json` made."""
        return cls(**{**values, "encoders": tuple(values["encoders"])})

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists."""
        return asdict(self)

    def needs(self, registry: Registry) -> frozenset[Need]:
        """Every table that one of the encoders declared."""
        return frozenset().union(*(registry.load(Encoder, name).needs for name in self.encoders))

    def build(self, registry: Registry, inputs: Inputs, *, trained: bool = False) -> Recommender:
        """The untrained model over the articles of `inputs`. Raises PluginError naming a plugin that fails.

        `trained`: weights are to be loaded over its own, so nothing is spent on a good start.
        """
        encoders = [registry.load(Encoder, name) for name in self.encoders]
        priors = sum(encoder.prior for encoder in encoders)
        start = [encoder.prior / priors for encoder in encoders]
        fusion = registry.load(Fusion, self.fusion)
        width = self.dim * len(encoders) if fusion.wide else self.dim
        model = Recommender(
            {
                encoder.name: self._part(
                    registry, encoder, inputs.only(encoder.needs, f"encoder '{encoder.name}'"), self.dim
                )
                for encoder in encoders
            },
            self._part(registry, fusion, self.dim, start),
            self._part(registry, registry.load(UserEncoder, self.user_encoder), width, self.history),
            dim=self.dim,
            width=width,
            dropout=self.dropout,
            origins=self._origins(registry),
        )
        if not trained:
            model.start()
        return model

    def _part(self, registry: Registry, plugin: Encoder | Fusion | UserEncoder, *arguments: Any) -> torch.nn.Module:  # noqa: ANN401 - each kind takes its own
        with blame(registry.origin(type(plugin), plugin.name)):
            build: Callable[..., torch.nn.Module] = plugin.build
            return build(*arguments, options(registry, type(plugin), plugin.name, self.options))

    def _origins(self, registry: Registry) -> dict[str, str]:
        encoders = {name: registry.origin(Encoder, name) for name in self.encoders}
        fusion, user_encoder = registry.origin(Fusion, self.fusion), registry.origin(UserEncoder, self.user_encoder)
        return {**encoders, "fusion": fusion, "user_encoder": user_encoder}


@dataclass(frozen=True)
class Artifacts:
    """What earlier stages made, as far as the chosen encoders need it."""

    embeddings: Embeddings | None
    graph: news_graph.NewsGraph | None
    texts: bool = False
    """Whether an encoder reads the words of the articles, which are in the news itself."""

    @classmethod
    def read(cls, data: Path, needs: frozenset[Need]) -> "Artifacts":
        """Verified; nothing that no encoder needs is opened. Raises IntegrityError."""
        return cls(
            Embeddings.read(data / "embeddings") if Need.EMBEDDINGS in needs else None,
            news_graph.read(data / "graph") if Need.GRAPH in needs else None,
            Need.TEXTS in needs,
        )

    def inputs(self, news: News, known: Vocabularies, files: Sequence[Path]) -> Inputs:
        """The tables about `news` (read from `files`, for error messages), joined by news id. Raises DataError."""
        tables: dict[Need, object] = {
            Need.SEEN: _vocabulary(known.news, news, "id"),
            Need.CATEGORIES: (
                _vocabulary(known.categories, news, "category"),
                _vocabulary(known.subcategories, news, "subcategory"),
            ),
        }
        if self.embeddings:
            tables[Need.EMBEDDINGS] = torch.from_numpy(self.embeddings.of(news.ids, files))
        if self.graph:
            tables[Need.GRAPH] = news_graph.tensors(
                self.graph, news.ids, known.graph_entities, known.graph_categories, files
            )
        if self.texts:
            tables[Need.TEXTS] = Texts(*(tuple(news.frame[column]) for column in ("title", "abstract")))
        return Inputs(len(news), tables)


def _vocabulary(words: Words, news: News, column: str) -> Vocabulary:
    return Vocabulary(torch.tensor(words.numbers(news.frame[column])), len(words) + 1)
