"""newsfuse: what each source of information about a news article is worth."""

import pluggy

from newsfuse.inputs import Graph, Inputs, Neighbours, Vocabulary
from newsfuse.plugin import Embedder, Encoder, Fusion, Need, Options, UserEncoder

__version__ = "0.1.0"

hookimpl = pluggy.HookimplMarker("newsfuse")
"""Marks a function of a plugin module as the implementation of a newsfuse hook."""

__all__ = [
    "Embedder",
    "Encoder",
    "Fusion",
    "Graph",
    "Inputs",
    "Need",
    "Neighbours",
    "Options",
    "UserEncoder",
    "Vocabulary",
    "hookimpl",
]
