"""What an embedder promises. One whose vectors cost something is sent nothing: only its description is checked."""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from newsfuse.plugin import Cost, Embedder, Mode
from newsfuse.service import Service
from newsfuse.testing import settings
from newsfuse.testing.contract import Check, breach, leave_out

CORPUS = [
    "the team won the final of the cup",
    "the team lost the final",
    "prices of bread rise again",
    "prices of bread and of milk fall",
    "a storm closes the harbour",
    "the harbour opens after the storm",
]
STRANGE = ["zebra", "Ünï çødé ✓", "x" * 5000]
"""Texts with words that the corpus has not."""
DIMENSIONS = 4
LIMITS = ("max_inputs", "max_tokens", "max_text_bytes", "max_in_flight", "max_job_texts", "max_job_bytes")
ATOL = 1e-6


def it_can_be_built(plugin: Embedder) -> None:
    """build(corpus, model, dimensions, options) returns a function, or a Service where vectors cost something."""
    built = _build(plugin)
    if plugin.cost is Cost.NOTHING:
        if isinstance(built, Service) or not callable(built):
            breach(f"build returns {built!r}", "Return a function from texts to vectors, or say what it costs")
    elif not isinstance(built, Service):
        breach(f"costs {plugin.cost}, but build returns {built!r}", "Return a newsfuse.Service")


def its_description_makes_sense(plugin: Embedder) -> None:
    """`modes` are newsfuse.Mode, one of them DIRECT; `price_source` says where the prices of `models` are from."""
    if Mode.DIRECT not in plugin.modes or not all(isinstance(mode, Mode) for mode in plugin.modes):
        breach(f"modes is {plugin.modes!r}", "newsfuse.Mode.DIRECT, and Mode.BATCH where it takes jobs")
    if plugin.models and not plugin.price_source:
        breach("it has prices of models, but says not from where", "Fill in price_source: where, and when")


def its_limits_are_positive(plugin: Embedder) -> None:
    """A service's limits are more than zero, its price is zero or more, and its discount is a share."""
    service = _build(plugin)
    if not isinstance(service, Service):
        leave_out("what costs nothing has none")
    if low := [f"{name}={getattr(service, name)}" for name in LIMITS if not getattr(service, name) > 0]:
        breach(f"{', '.join(low)}", "Each is a number of things in one request, at least 1")
    price = service.usd_per_million_tokens
    if price is not None and not 0 <= price < float("inf"):
        breach(f"usd_per_million_tokens is {price}", "Dollars, or None where the price is not known")
    if not 0 <= service.batch_discount <= 1:
        breach(f"batch_discount is {service.batch_discount}", "A share of the price, from 0 to 1")


def each_text_gets_a_vector(plugin: Embedder) -> None:
    """n texts become float32 (n, dimensions), also of more dimensions than the corpus has."""
    for dimensions in (1, DIMENSIONS, 100):
        texts = [*CORPUS, *STRANGE]
        vectors = _embedded(plugin, texts, dimensions)
        if vectors.shape != (len(texts), dimensions) or vectors.dtype != np.float32:
            found = f"{vectors.dtype} {vectors.shape} for {len(texts)} texts and {dimensions} dimensions"
            breach(f"returns {found}", f"Return float32 ({len(texts)}, {dimensions})")
        if not np.isfinite(vectors).all():
            row = int((~np.isfinite(vectors)).any(axis=1).argmax())
            breach(f"the vector of {texts[row]!r:.40} is NaN or infinite", "Divide by no length of zero")


def one_text_is_a_batch_too(plugin: Embedder) -> None:
    """A single text becomes float32 (1, dimensions)."""
    vectors = _embedded(plugin, CORPUS[:1])
    if vectors.shape != (1, DIMENSIONS):
        breach(f"returns the shape {vectors.shape} for one text", f"Return (1, {DIMENSIONS})")


def order_is_kept(plugin: Embedder) -> None:
    """Row i is text i, and different texts get different vectors."""
    vectors, order = _embedded(plugin, CORPUS), [3, 0, 5, 5, 1]
    if not np.allclose(_embedded(plugin, [CORPUS[row] for row in order]), vectors[order], atol=ATOL):
        breach("texts in another order do not get the same vectors", "Row i must be the vector of text i")
    if len(np.unique(vectors, axis=0)) < len(CORPUS):
        breach("different texts get the same vector", "Read the whole text")


def texts_are_embedded_apart(plugin: Embedder) -> None:
    """The vector of a text depends on that text alone, not on those that are embedded with it."""
    if not np.allclose(_embedded(plugin, CORPUS[:1]), _embedded(plugin, CORPUS)[:1], atol=ATOL):
        remedy = "Centre and scale by the corpus that build gets, not by the texts"
        breach("a text gets another vector alone than among others", remedy)


def same_texts_same_bytes(plugin: Embedder) -> None:
    """Built and asked twice, and asked again, it returns the same bytes."""
    first, second = _built(plugin), _built(plugin)
    if len({np.asarray(embed(CORPUS)).tobytes() for embed in (first, first, second)}) > 1:
        breach("the same texts get other vectors the second time", "Give every random generator a fixed seed")


CHECKS = (
    *settings.CHECKS,
    Check(its_description_makes_sense),
    Check(it_can_be_built, gate=True),
    Check(its_limits_are_positive),
    Check(each_text_gets_a_vector, gate=True),
    Check(one_text_is_a_batch_too),
    Check(order_is_kept),
    Check(texts_are_embedded_apart),
    Check(same_texts_same_bytes),
)


def _build(plugin: Embedder, dimensions: int = DIMENSIONS) -> Callable[[Sequence[str]], np.ndarray] | Service:
    corpus = CORPUS if plugin.cost is Cost.NOTHING else []
    return plugin.build(corpus, plugin.default_model, dimensions, plugin.params())


def _embedded(plugin: Embedder, texts: Sequence[str], dimensions: int = DIMENSIONS) -> np.ndarray:
    """By a function that is built anew. Raises NotCheckedError where vectors would cost something."""
    return np.asarray(_built(plugin, dimensions)(texts))


def _built(plugin: Embedder, dimensions: int = DIMENSIONS) -> Callable[[Sequence[str]], np.ndarray]:
    """The function from texts to vectors. Raises NotCheckedError where they would cost something."""
    if plugin.cost is not Cost.NOTHING:
        leave_out(f"a vector costs {plugin.cost}: no text is sent")
    return cast("Callable[[Sequence[str]], np.ndarray]", _build(plugin, dimensions))
