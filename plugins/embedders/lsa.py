"""Latent semantic analysis: TF-IDF and a truncated SVD. Free, offline, in seconds, the same on any machine."""

from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
from pydantic import Field

from newsfuse import Embedder, Options, hookimpl
from newsfuse.exact import Sparse, right_singular

SEED = 0
"""Of the randomised SVD: fixed, so that the same news always gets the same vectors."""
COMMON, FEW = 0.05, 100
"""Words of more than this share of the training articles say little, unless those are no more than FEW articles."""
WEIGHT, ELEMENT = 2.0**16, 2.0**20
"""What weights of terms, and elements of a text's vector of length 1, are multiplied with to become whole numbers."""


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

    Nothing is summed but whole numbers, so neither the processor nor its threads change a bit: docs/decisions/0017.
    """
    counters = _counters(options, len(corpus))
    counts = [each.fit_transform(corpus) for each in counters]
    rarities = [_rarity(each) for each in counts]
    terms = _beside(map(_tf_idf, counts, rarities))
    rank = min(dimensions, *terms.matrix.shape)
    values, vectors = right_singular(terms, rank, SEED)
    # singular values are ELEMENT times what they would be of vectors of length 1, and so is what `embed` multiplies
    vectors /= (np.sqrt(np.where(values == 0, ELEMENT, values) / ELEMENT) * ELEMENT).astype(np.float32)

    def embed(texts: Sequence[str]) -> np.ndarray:
        """(len(texts), dimensions) float32; columns past the rank of the corpus are zero"""
        counts = [each.transform(texts) for each in counters]
        return np.pad(_beside(map(_tf_idf, counts, rarities)) @ vectors, ((0, 0), (0, dimensions - rank)))

    return embed


def _counters(options: LsaOptions, articles: int) -> list[Any]:
    """Counters of words and, beside them, of parts of words."""
    # imported here, so that stages which only check lsa's settings do not wait for it
    from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415

    least = min(options.min_articles, articles)
    most = max(FEW, least, round(COMMON * articles))
    words = CountVectorizer(ngram_range=(1, options.ngrams), min_df=least, max_df=most)
    width = (options.characters, options.characters)
    return (
        [words, CountVectorizer(analyzer="char_wb", ngram_range=width, min_df=least)] if options.characters else [words]
    )


def _rarity(counts: Any) -> np.ndarray:  # noqa: ANN401 - sparse, which scipy does not type
    """(texts, terms) -> (terms,): inverse document frequency, as if one more text had every term."""
    texts, terms = counts.shape
    return 1 + _logarithms(np.array([1 + texts])) - _logarithms(1 + np.bincount(counts.indices, minlength=terms))


def _tf_idf(counts: Any, rarity: np.ndarray) -> Any:  # noqa: ANN401 - see above
    """(texts, terms): ELEMENT times vectors of length 1, or of zeros, in whole numbers."""
    weights = np.rint((1 + _logarithms(counts.data)) * rarity[counts.indices] * WEIGHT).astype(np.int64)
    found = counts.copy()
    found.data = weights * weights
    lengths = np.sqrt(np.asarray(found.sum(axis=1)).ravel().astype(np.float64))
    found.data = np.rint(weights / np.repeat(lengths, np.diff(counts.indptr)) * ELEMENT)
    return found


def _logarithms(numbers: np.ndarray) -> np.ndarray:
    """Natural logarithms of integers. Those of the processor and its libraries differ in their last bits."""
    distinct, places = np.unique(numbers, return_inverse=True)
    with localcontext(prec=30):
        return np.array([float(Decimal(number).ln()) for number in distinct.tolist()], dtype=np.float64)[places]


def _beside(matrices: Any) -> Sparse:  # noqa: ANN401 - see above
    """All terms of a text in one row: as both kinds have length 1, both count the same."""
    from scipy.sparse import hstack  # noqa: PLC0415 - see above

    return Sparse.of(hstack(list(matrices), format="csr"))


@hookimpl
def newsfuse_embedders() -> list[Embedder]:
    """The embedder `lsa`."""
    return [Embedder("lsa", build, LsaOptions)]
