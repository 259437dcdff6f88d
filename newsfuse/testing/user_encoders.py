"""What a user encoder promises."""

import torch
from torch import Tensor, nn

from newsfuse.plugin import UserEncoder
from newsfuse.testing import settings
from newsfuse.testing.contract import Check, breach
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

DIM, HISTORY, ROWS = 8, 6, 5
SHORT = 2
"""Clicks of which a history is short."""


def it_can_be_built(plugin: UserEncoder) -> None:
    """build(dim, history, options) returns a torch.nn.Module, for any `dim`."""
    require_module(_user_encoder(plugin)[0])


def histories_become_users(plugin: UserEncoder) -> None:
    """forward takes float32 (B, H, dim) and bool (B, H), H from 1 to `history`, and returns float32 (B, dim)."""
    for clicks in range(1, HISTORY + 1):
        module, history, clicked = _user_encoder(plugin, clicks)
        require_vectors(module.train()(history, clicked), ROWS, DIM, f"for {clicks} clicks in train()")
        require_vectors(module.eval()(history, clicked), ROWS, DIM, f"for {clicks} clicks in eval()")


def every_number_is_finite(plugin: UserEncoder) -> None:
    """No user and no gradient has NaN or infinity, not even of clicked articles that say nothing: vectors of zeros."""
    module, history, clicked = _user_encoder(plugin)
    history[:2] = 0
    history.requires_grad_()
    for when, working in (("untrained", module.train()), ("with other weights", stirred(module))):
        output = working(history, clicked)
        require_finite(output, f"the output {when}")
        require_finite(gradient(output, history), f"the gradient {when}")


def one_user_is_a_batch_too(plugin: UserEncoder) -> None:
    """forward takes a single user with a single click, in train() and in eval()."""
    module, history, clicked = _user_encoder(plugin)
    require_vectors(module.train()(history[:1, :1], clicked[:1, :1]), 1, DIM, "for one user in train()")
    require_vectors(module.eval()(history[:1, :1], clicked[:1, :1]), 1, DIM, "for one user in eval()")


def users_are_encoded_apart(plugin: UserEncoder) -> None:
    """In eval() the vector of a user depends on the clicks of that user alone."""
    for clicks in (1, HISTORY):
        require_rows_stand_alone(*_user_encoder(plugin, clicks))


def unclicked_cells_mean_nothing(plugin: UserEncoder) -> None:
    """What stands in a cell that is no click changes nothing, nor do columns of such cells, as for an empty history."""
    module, history, clicked = _user_encoder(plugin)
    output = stirred(module)(history, clicked)
    other = torch.where(clicked.unsqueeze(-1), history, 100 * torch.randn(history.shape))
    remedy = "Mask by `clicked` before every softmax, sum and mean over the clicks"
    require_close(module(other, clicked), output, "users change with what stands in unclicked cells", remedy)
    short = clicked.sum(dim=1) <= SHORT
    fewer = module(history[short, :SHORT], clicked[short, :SHORT])
    require_close(fewer, output[short], "users change with the number of empty columns", remedy)


def clicks_mean_something(plugin: UserEncoder) -> None:
    """Every click gets a gradient, and no other cell does."""
    module, history, clicked = _user_encoder(plugin)
    found = gradient(stirred(module)(history.requires_grad_(), clicked), history)
    reached = found.any(dim=2)
    if (clicked & ~reached).any():
        breach("some clicks change nothing", "Let every clicked article have a part in the user")
    if (reached & ~clicked).any():
        breach("cells that are no clicks get a gradient", "Mask by `clicked`")


def every_parameter_gets_a_gradient(plugin: UserEncoder) -> None:
    """Training reaches every parameter."""
    require_gradients(*_user_encoder(plugin))


def the_same_seed_gives_the_same_numbers(plugin: UserEncoder) -> None:
    """What is random comes from torch's own generator, which newsfuse seeds."""
    require_same_seed_same_bits(lambda: _build(plugin), *_user_encoder(plugin)[1:])


def weights_can_be_saved_and_loaded(plugin: UserEncoder) -> None:
    """The state dict is all there is to a trained module."""
    module, history, clicked = _user_encoder(plugin)
    torch.manual_seed(1)
    require_same_after_saving(module, _build(plugin), history, clicked)


def cpu_and_cuda_agree(plugin: UserEncoder) -> None:
    """The module can be moved to a GPU and computes the same there."""
    require_parity(*_user_encoder(plugin))


CHECKS = (
    *settings.CHECKS,
    Check(it_can_be_built, gate=True),
    Check(histories_become_users, gate=True),
    Check(every_number_is_finite, gate=True),
    Check(one_user_is_a_batch_too),
    Check(users_are_encoded_apart),
    Check(unclicked_cells_mean_nothing),
    Check(clicks_mean_something),
    Check(every_parameter_gets_a_gradient),
    Check(the_same_seed_gives_the_same_numbers),
    Check(weights_can_be_saved_and_loaded),
    Check(cpu_and_cuda_agree),
)


def _build(plugin: UserEncoder) -> nn.Module:
    return plugin.build(DIM, HISTORY, plugin.params())


def _user_encoder(plugin: UserEncoder, clicks: int = HISTORY) -> tuple[nn.Module, Tensor, Tensor]:
    """A module and histories of 1 to `clicks` clicks."""
    torch.manual_seed(0)
    module = _build(plugin)
    counts = torch.linspace(1, clicks, ROWS).long()
    return module, torch.randn(ROWS, clicks, DIM), torch.arange(clicks) < counts[:, None]
