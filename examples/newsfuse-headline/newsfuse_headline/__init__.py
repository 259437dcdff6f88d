"""Encoders "headline" and "abstract": they read an article's own words, and learn what its sub-words are worth."""

from functools import partial
from typing import Literal

from pydantic import Field

from newsfuse import Encoder, Inputs, Need, Options, hookimpl
from newsfuse_headline.bag import Bag
from newsfuse_headline.subwords import LONGEST, Subwords


class BagOptions(Options):
    """`options.headline` and `options.abstract` of params.yaml."""

    buckets: int = Field(default=2**15, ge=1)
    """Rows of weights; sub-words share one by chance. Memory and time of training grow with it."""
    shortest: int = Field(default=4, ge=1, le=LONGEST)
    """Letters of the shortest sub-word, the marks of a word's ends among them."""
    longest: int = Field(default=6, ge=1, le=LONGEST)
    """Letters of the longest; less than `shortest`: whole words only."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the words that a training step leaves out."""


def build(text: Literal["titles", "abstracts"], inputs: Inputs, dim: int, options: BagOptions) -> Bag:
    """A Bag over the titles or the abstracts."""
    texts = getattr(inputs.texts, text)
    subwords = Subwords.of(texts, options.shortest, options.longest, options.buckets)
    return Bag(subwords, options.buckets, dim, options.dropout)


@hookimpl
def newsfuse_encoders() -> list[Encoder]:
    """Title and abstract as two views. Untrained, titles rank as well as `category` and `gnn`: hence their prior."""
    needs = frozenset({Need.TEXTS})
    return [
        Encoder("headline", partial(build, "titles"), BagOptions, needs, prior=0.5),
        Encoder("abstract", partial(build, "abstracts"), BagOptions, needs, prior=0.1),
    ]
