"""Latent semantic analysis: TF-IDF and a truncated SVD. Free, offline, and in seconds."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from newsfuse import Embedder, Options, hookimpl

SEED = 0
"""Of the randomised SVD: fixed, so that the same news always gets the same vectors."""
COMMON, FEW = 0.05, 100
"""Words of more than this share of the training articles say little, unless those are no more than FEW articles."""


class LsaOptions(Options):
    """Settings of the lsa embedder."""

    ngrams: int = Field(default=2, ge=1, le=3)
    """Terms are runs of up to this many words."""
    characters: int = Field(default=4, ge=0, le=8)
    """Parts of words of this many characters are terms as well, as compounds and endings need them; 0: they are not."""
    min_articles: int = Field(default=2, ge=1)
    """Terms of fewer training articles than this are left out."""


def build(
    corpus: Sequence[str],
    model: str | None,
    dimensions: int,
    options: LsaOptions,
) -> Callable[[Sequence[str]], np.ndarray]:
    """An LSA of the training articles (Deerwester et al. 1990), sublinear in term counts; unseen terms are ignored.

    Dimensions are weighted by the square root of their singular values instead of the values
    themselves (Caron 2001: an exponent below 1 keeps the first few topics from drowning the rest).
    Cosine with the mean of the history then ranks better: docs/decisions/0003 has the figures.
    """
    # imported here, so that stages which only check lsa's settings do not wait for it
    from scipy.sparse import hstack  # noqa: PLC0415
    from sklearn.decomposition import TruncatedSVD  # noqa: PLC0415
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    vectorisers = _vectorisers(options, len(corpus))
    # with several threads BLAS adds in another order, and other machines would get other vectors
    with threadpool_limits(1):
        terms = hstack([each.fit_transform(corpus) for each in vectorisers], format="csr")
        rank = min(dimensions, *terms.shape)
        svd = TruncatedSVD(rank, random_state=SEED).fit(terms)
    spread = np.sqrt(np.maximum(svd.singular_values_, np.finfo(np.float32).tiny))

    def embed(texts: Sequence[str]) -> np.ndarray:
        """(len(texts), dimensions) float32; columns past the rank of the corpus are zero"""
        with threadpool_limits(1):
            terms = hstack([each.transform(texts) for each in vectorisers], format="csr")
            vectors = svd.transform(terms) / spread
        return np.pad(vectors, ((0, 0), (0, dimensions - rank))).astype(np.float32)

    return embed


def _vectorisers(options: LsaOptions, articles: int) -> list[Any]:
    """TF-IDF of words and, beside it, of parts of words: each has length 1, so both count the same."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - see above

    least = min(options.min_articles, articles)
    most = max(FEW, least, round(COMMON * articles))
    same = {"sublinear_tf": True, "min_df": least, "dtype": np.float32}
    words = TfidfVectorizer(ngram_range=(1, options.ngrams), max_df=most, **same)
    width = (options.characters, options.characters)
    return [words, TfidfVectorizer(analyzer="char_wb", ngram_range=width, **same)] if options.characters else [words]


@hookimpl
def newsfuse_embedders() -> list[Embedder]:
    """The embedder `lsa`."""
    return [Embedder("lsa", build, LsaOptions)]
