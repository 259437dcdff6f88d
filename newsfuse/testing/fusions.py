"""What a fusion promises."""

from typing import Any

import torch
from torch import Tensor, nn

from newsfuse.plugin import Fusion
from newsfuse.testing import settings
from newsfuse.testing.contract import Check, breach, leave_out
from newsfuse.testing.modules import (
    gradient,
    require_close,
    require_finite,
    require_gradients,
    require_module,
    require_parity,
    require_rows_stand_alone,
    require_same_after_saving,
    require_same_seed_same_bits,
    require_vectors,
    stirred,
)

DIM, ROWS = 8, 5
NUMBERS = range(1, 5)
"""How many views an article may have."""


def it_can_be_built(plugin: Fusion) -> None:
    """build(dim, start, options) returns a torch.nn.Module, for any number of views: len(start)."""
    for number in NUMBERS:
        require_module(_fusion(plugin, number)[0])


def views_become_one_vector(plugin: Fusion) -> None:
    """forward takes float32 (M, V, dim) and returns float32 (M, dim), or (M, V * dim) where the plugin is `wide`."""
    for number in NUMBERS:
        module, views, width = _fusion(plugin, number)
        of = f"for {number} views (wide={plugin.wide})"
        require_vectors(module.train()(views), ROWS, width, f"{of} in train()")
        require_vectors(module.eval()(views), ROWS, width, f"{of} in eval()")


def every_number_is_finite(plugin: Fusion) -> None:
    """No vector and no gradient has NaN or infinity, not even of views that are zero: an article that says nothing."""
    for number in NUMBERS:
        module, views, _ = _fusion(plugin, number)
        views[0, 0] = 0
        views[1] = 0
        views.requires_grad_()
        for when, working in (("untrained", module.train()), ("with other weights", stirred(module))):
            output = working(views)
            require_finite(output, f"the output {when}")
            require_finite(gradient(output, views), f"the gradient {when}")


def one_article_or_none_is_a_batch_too(plugin: Fusion) -> None:
    """forward takes one article in train() and in eval(), and none in eval()."""
    for number in NUMBERS:
        module, views, width = _fusion(plugin, number)
        require_vectors(module.train()(views[:1]), 1, width, "for one article in train()")
        require_vectors(module.eval()(views[:1]), 1, width, "for one article in eval()")
        require_vectors(module(views[:0]), 0, width, "for no article")


def articles_are_fused_apart(plugin: Fusion) -> None:
    """In eval() the vector of an article depends on the views of that article alone."""
    for number in NUMBERS:
        require_rows_stand_alone(*_fusion(plugin, number)[:2])


def every_parameter_gets_a_gradient(plugin: Fusion) -> None:
    """Training reaches every parameter."""
    for number in NUMBERS[1:]:  # of one view there is nothing to choose
        require_gradients(*_fusion(plugin, number)[:2])


def every_view_is_reached(plugin: Fusion) -> None:
    """Every view of every article gets a gradient, or its encoder would not learn."""
    for number in NUMBERS:
        module, views, _ = _fusion(plugin, number)
        found = gradient(module(views.requires_grad_()), views)
        dead = (~found.any(dim=2)).any(dim=0).nonzero().flatten().tolist()
        if dead:
            remedy = "An untrained fusion must keep some of every view, as `start` says"
            breach(f"of {number} views, no gradient reaches view {dead[0]}", remedy)


def weights_are_shares(plugin: Fusion) -> None:
    """weights(views) is float32 (M, V), no share below zero, each row summing to one, untrained equal to `start`."""
    for number in NUMBERS:
        module, views, _ = _fusion(plugin, number)
        if not hasattr(module, "weights"):
            leave_out("it has no weights()")
        require_vectors(_weights(module, views), ROWS, number, "from weights()")
        if list(module.parameters()):
            start = torch.tensor(_start(number)).expand(ROWS, -1)
            require_close(
                _weights(module, views), start, "untrained weights() are not `start`", "Begin as `start` says"
            )
        shares, one, remedy = _weights(stirred(module), views), torch.ones(ROWS), "End with a softmax over views, dim 1"
        require_close(shares.sum(dim=1), one, "weights() do not sum to one", remedy)
        require_close(shares.clamp(min=0), shares, "weights() below zero", remedy)


def the_same_seed_gives_the_same_numbers(plugin: Fusion) -> None:
    """What is random comes from torch's own generator, which newsfuse seeds."""
    require_same_seed_same_bits(lambda: _build(plugin, 2), _fusion(plugin, 2)[1])


def weights_can_be_saved_and_loaded(plugin: Fusion) -> None:
    """The state dict is all there is to a trained module."""
    module, views, _ = _fusion(plugin, 2)
    torch.manual_seed(1)
    require_same_after_saving(module, _build(plugin, 2), views)


def cpu_and_cuda_agree(plugin: Fusion) -> None:
    """The module can be moved to a GPU and computes the same there."""
    require_parity(*_fusion(plugin, 3)[:2])


CHECKS = (
    *settings.CHECKS,
    Check(it_can_be_built, gate=True),
    Check(views_become_one_vector, gate=True),
    Check(every_number_is_finite, gate=True),
    Check(one_article_or_none_is_a_batch_too),
    Check(articles_are_fused_apart),
    Check(every_parameter_gets_a_gradient),
    Check(every_view_is_reached),
    Check(weights_are_shares),
    Check(the_same_seed_gives_the_same_numbers),
    Check(weights_can_be_saved_and_loaded),
    Check(cpu_and_cuda_agree),
)


def _start(number: int) -> list[float]:
    return [2 * (1 + view) / (number * (number + 1)) for view in range(number)]


def _build(plugin: Fusion, number: int) -> nn.Module:
    return plugin.build(DIM, _start(number), plugin.params())


def _fusion(plugin: Fusion, number: int) -> tuple[nn.Module, Tensor, int]:
    """A module, views of length 1, and the width of what becomes of them."""
    torch.manual_seed(0)
    module = _build(plugin, number)
    views = nn.functional.normalize(torch.randn(ROWS, number, DIM), dim=2)
    return module, views, DIM * number if plugin.wide else DIM


def _weights(module: nn.Module, views: Tensor) -> Tensor:
    weigh: Any = module.weights
    return weigh(views)
