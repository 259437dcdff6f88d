"""newsfuse: what each source of information about a news article is worth."""

import pluggy

from newsfuse.inputs import Graph, Inputs, Neighbours, Texts, Vocabulary
from newsfuse.plugin import Cost, Embedder, Encoder, Fusion, Mode, Need, Options, UserEncoder
from newsfuse.service import Allowance, Answer, Service

__version__ = "0.1.0"

hookimpl = pluggy.HookimplMarker("newsfuse")
"""Marks a function of a plugin module as the implementation of a newsfuse hook."""

__all__ = [
    "Allowance",
    "Answer",
    "Cost",
    "Embedder",
    "Encoder",
    "Fusion",
    "Graph",
    "Inputs",
    "Mode",
    "Need",
    "Neighbours",
    "Options",
    "Service",
    "Texts",
    "UserEncoder",
    "Vocabulary",
    "hookimpl",
]
