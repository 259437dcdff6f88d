"""Which checks each kind of plugin is put to, and the functions that an author calls."""

from collections.abc import Iterator, Mapping, Sequence

import torch

from newsfuse.plugin import Embedder, Encoder, Fusion, Plugin, UserEncoder
from newsfuse.registry import noun
from newsfuse.testing import embedders, encoders, fusions, user_encoders
from newsfuse.testing.contract import Check, ContractError, Result, examine, require

CHECKS: Mapping[type[Plugin], tuple[Check, ...]] = {
    Embedder: embedders.CHECKS,
    Encoder: encoders.CHECKS,
    Fusion: fusions.CHECKS,
    UserEncoder: user_encoders.CHECKS,
}


def check_encoder(plugin: Encoder) -> None:
    """Put an encoder to all checks of its kind. Raises ContractError, which lists every promise that it breaks."""
    __tracebackhide__ = True  # pytest then shows the caller's line
    _check(plugin, Encoder)


def check_fusion(plugin: Fusion) -> None:
    """Put a fusion to all checks of its kind. Raises ContractError, which lists every promise that it breaks."""
    __tracebackhide__ = True
    _check(plugin, Fusion)


def check_user_encoder(plugin: UserEncoder) -> None:
    """Put a user encoder to all checks of its kind. Raises ContractError, which lists every promise that it breaks."""
    __tracebackhide__ = True
    _check(plugin, UserEncoder)


def check_embedder(plugin: Embedder) -> None:
    """Put an embedder to all checks of its kind. Raises ContractError, which lists every promise that it breaks.

    One whose vectors cost time or money is not asked for any: only its description is checked.
    """
    __tracebackhide__ = True
    _check(plugin, Embedder)


def results(plugin: Plugin, more: Sequence[Check] = ()) -> Iterator[Result]:
    """A result for each check of the plugin's kind and then for `more`; torch's random state is left as it was."""
    with torch.random.fork_rng():
        yield from examine(plugin, (*CHECKS[kind_of(plugin)], *more))


def title(plugin: Plugin) -> str:
    """Such as "user encoder 'mean'"."""
    return f"{noun(kind_of(plugin))} '{plugin.name}'"


def kind_of(plugin: Plugin) -> type[Plugin]:
    """Which of the four it is."""
    return next(each for each in CHECKS if isinstance(plugin, each))


def _check(plugin: Plugin, wanted: type[Plugin]) -> None:
    __tracebackhide__ = True
    if not isinstance(plugin, wanted):
        message = f"expected a newsfuse.{wanted.__name__}, found {plugin!r}"
        raise ContractError(message)
    require(results(plugin), title(plugin))
