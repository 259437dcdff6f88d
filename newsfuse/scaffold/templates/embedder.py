"""The embedder `mine`: so far, hashed words, the rare ones counting more.

The embed stage makes a vector of every article's text, once. newsfuse's docs/plugins.md has all that an embedder is
given and must promise, and what one does whose vectors cost something. Whether this one does is tried by

    newsfuse check-plugin mine
"""

from collections.abc import Callable, Sequence

import numpy as np
from pydantic import Field

from newsfuse import Embedder, Options, hookimpl

SEED = 0
"""Of all that is drawn: fixed, so that the same news always gets the same vectors."""


class MineOptions(Options):
    """What `options.mine` in params.yaml may set; all else there is refused."""

    ngrams: int = Field(default=1, ge=1, le=3)
    """Terms are runs of up to this many words. -S +options.mine.ngrams=2 sets it."""


def build(
    corpus: Sequence[str], model: str | None, dimensions: int, options: MineOptions
) -> Callable[[Sequence[str]], np.ndarray]:
    """The function from texts to vectors: TF-IDF, each term added to one of the dimensions (Weinberger et al. 2009).

    `corpus` holds the texts of the training articles, to fit to; `model` is None, as there are none to choose from.
    """
    # imported here, so that stages which only check the settings do not wait for it
    from scipy.sparse import csr_matrix  # noqa: PLC0415
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

    vectoriser = TfidfVectorizer(ngram_range=(1, options.ngrams), sublinear_tf=True, dtype=np.float32).fit(corpus)
    size, rng = len(vectoriser.vocabulary_), np.random.default_rng(SEED)
    # signs, so that terms which meet in a dimension cancel out as often as they add up
    signs, places = rng.choice(np.array([-1, 1], np.float32), size), rng.integers(dimensions, size=size)
    fold = csr_matrix((signs, (np.arange(size), places)), (size, dimensions))

    def embed(texts: Sequence[str]) -> np.ndarray:
        """n texts -> float32 (n, dimensions), in their order, each whatever the others are; all values are finite"""
        return (vectoriser.transform(texts) @ fold).toarray()

    return embed


@hookimpl
def newsfuse_embedders() -> list[Embedder]:
    """The embedder `mine`."""
    return [Embedder("mine", build, MineOptions)]
