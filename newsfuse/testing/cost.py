"""What a plugin's module takes to work through 10,000 articles, forwards and backwards: seconds, and memory."""

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from newsfuse.plugin import Encoder, Fusion, UserEncoder
from newsfuse.testing.modules import started
from newsfuse.testing.world import crowd

ARTICLES = 10_000
DIM, VIEWS, HISTORY = 256, 4, 50
REPEATS, ENOUGH_S = 3, 1.0
"""How often a module works through them to be timed; a slow one just until so many seconds are spent."""
MB = 1e6

T = TypeVar("T")
Module = Encoder | Fusion | UserEncoder


@dataclass(frozen=True)
class Bill:
    """What one plugin takes, on the CPU, with its default settings and vectors of 256 values."""

    build_s: float
    """To build the module, `start()` included."""
    work_s: float
    """Forward and backward over 10,000 articles in one call, in train(); the fastest of up to three."""
    peak_mb: float
    """The most memory (in millions of bytes) that torch tensors made by that call held at any one time, those that
    are kept for the gradient included. The module itself, its tables, and what numpy or a library of its own
    take are not counted, so that it is the same number in every run and on every computer."""


@cache
def bill(plugin: Module) -> Bill:
    """Build and run the plugin: an encoder on articles, a fusion on views, a user encoder on users of 50 clicks."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inputs = _inputs(plugin)
        build_s, module = _timed(lambda: _build(plugin).train())
        with Peak() as peak:  # which also warms up
            _work(module, inputs)
        seconds = [_timed(lambda: _work(module, inputs))[0]]
        while len(seconds) < REPEATS and sum(seconds) < ENOUGH_S:
            seconds.append(_timed(lambda: _work(module, inputs))[0])
    return Bill(build_s, min(seconds), peak.most / MB)


def it_works_through_ten_thousand_articles(plugin: Module) -> None:
    """Built over 10,000 articles, the module takes all of them in one call and a gradient comes back."""
    bill(plugin)


class Peak(TorchDispatchMode):
    """While active, counts the bytes of tensors that are made and not yet freed; `most` is the largest count."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = self._held = 0
        self._alive: dict[int, int] = {}
        """Bytes by address."""

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: object,  # noqa: ARG002 - torch's signature
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operation returns
        """Called by torch for every operation, those of the backward pass included."""
        given = {each.untyped_storage().data_ptr() for each in _tensors((args, kwargs))}
        made = function(*args, **(kwargs or {}))
        for tensor in _tensors(made):
            if tensor.untyped_storage().data_ptr() not in given:  # else it is a view, or changed in place
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        address = storage.data_ptr()
        if address and address not in self._alive:
            self._alive[address] = storage.nbytes()
            self._held += storage.nbytes()
            self.most = max(self.most, self._held)
            weakref.finalize(storage, self._free, address)

    def _free(self, address: int) -> None:
        self._held -= self._alive.pop(address)


def _tensors(values: object) -> list[Tensor]:
    return [each for each in tree_leaves(values) if isinstance(each, Tensor)]


def _build(plugin: Module) -> nn.Module:
    options = plugin.params()
    if isinstance(plugin, Encoder):
        inputs = crowd(ARTICLES).only(plugin.needs, f"encoder '{plugin.name}'")
        return started(plugin.build(inputs, DIM, options))
    if isinstance(plugin, Fusion):
        return plugin.build(DIM, [1 / VIEWS] * VIEWS, options)
    return plugin.build(DIM, HISTORY, options)


def _inputs(plugin: Module) -> tuple[Tensor, ...]:
    if isinstance(plugin, Encoder):
        crowd(ARTICLES)  # made before the clock starts
        return (torch.arange(ARTICLES),)
    if isinstance(plugin, Fusion):
        return (nn.functional.normalize(torch.randn(ARTICLES, VIEWS, DIM), dim=2).requires_grad_(),)
    users = ARTICLES // HISTORY
    clicked = torch.arange(HISTORY) < torch.randint(1, HISTORY + 1, (users, 1))
    return torch.randn(users, HISTORY, DIM, requires_grad=True), clicked


def _work(module: nn.Module, inputs: Sequence[Tensor]) -> None:
    module.zero_grad()
    for each in inputs:
        each.grad = None
    output = module(*inputs)
    if output.requires_grad:
        output.sum().backward()


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    done = work()
    return time.perf_counter() - start, done
