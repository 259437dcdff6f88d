"""What a plugin is: a name, its settings, what it needs, and how to build it.

This module imports nothing heavy, so that listing plugins costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from torch import nn

    from newsfuse.inputs import Inputs
    from newsfuse.service import Service


class Cost(StrEnum):
    """What embedding a text again would cost. All but NOTHING is kept in the ledger, and so is never done twice."""

    NOTHING = "nothing"
    TIME = "time"
    MONEY = "money"


class Mode(StrEnum):
    """How vectors are asked for: at once, or by a job that the provider works off within a day."""

    DIRECT = "direct"
    BATCH = "batch"


class Need(StrEnum):
    """A table about articles that an encoder may ask for; nothing else is loaded for it."""

    EMBEDDINGS = "embeddings"
    GRAPH = "graph"
    CATEGORIES = "categories"
    SEEN = "seen"
    TEXTS = "texts"


class Options(BaseModel):
    """Base of a plugin's settings: read from `options.<plugin name>` in params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Embedder:
    """Texts to vectors.

    `build(corpus, model, dimensions, options)` returns, where `cost` is NOTHING, a function from a
    list of texts to a float32 array (len(texts), dimensions), order kept; `corpus` holds the texts
    of the training articles, for embedders that are fitted. At any other cost it returns a
    `Service`, `corpus` is empty, and vectors go through the ledger: see newsfuse.service.
    `model` is `embed.model` or else `default_model`; an embedder whose `default_model` is None has
    no models to choose from. `modes` are the values of `embed.mode` that it knows. `models` are
    those whose price it knows, and `price_source` says from where and when.
    """

    name: str
    build: Callable[[Sequence[str], str | None, int, Any], Callable[[Sequence[str]], np.ndarray] | Service]
    params: type[Options] = Options
    default_model: str | None = None
    cost: Cost = Cost.NOTHING
    modes: frozenset[Mode] = frozenset({Mode.DIRECT})
    models: tuple[str, ...] = ()
    price_source: str = ""


@dataclass(frozen=True)
class Encoder:
    """Article to vector.

    `build(inputs, dim, options)` returns a module with `forward(news: int64 (M,)) -> (M, dim)`.
    The length of the vectors does not matter (the model normalises every view), their direction does.
    If the module has a method `start()`, it is called once before training, and never on a trained model.
    `prior` is the view's weight in the fusion before training, relative to the other views: 1 for
    a view that means something untrained, little for one that starts from random numbers.
    """

    name: str
    build: Callable[[Inputs, int, Any], nn.Module]
    params: type[Options] = Options
    needs: frozenset[Need] = frozenset()
    prior: float = 0.1


@dataclass(frozen=True)
class Fusion:
    """Several views of an article to one vector.

    `build(dim, start, options)` returns a module with `forward(views: (M, V, dim)) -> (M, dim)`
    and, where it weighs views, `weights(views) -> (M, V)`, rows summing to one. `start` (V floats
    that sum to one) is how much of each view an untrained model should keep. A `wide` fusion keeps
    the views apart: its forward returns (M, V * dim), and the user encoder is built for that width.
    """

    name: str
    build: Callable[[int, Sequence[float], Any], nn.Module]
    params: type[Options] = Options
    wide: bool = False


@dataclass(frozen=True)
class UserEncoder:
    """Clicked articles to a user.

    `build(dim, history, options)` returns a module with
    `forward(history: (B, H, dim), clicked: bool (B, H)) -> (B, dim)`, H <= `history`.
    Column 0 is the latest click; every row has at least one click; unclicked cells mean nothing.
    """

    name: str
    build: Callable[[int, int, Any], nn.Module]
    params: type[Options] = Options


Plugin = Embedder | Encoder | Fusion | UserEncoder
