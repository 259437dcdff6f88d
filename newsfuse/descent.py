"""A step against the gradient: AdamW, its learning rate, and gradients that are clipped together."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import AdamW

from newsfuse.params import Train

TINY = 1e-6
"""Keeps a gradient of zero from being divided by zero, as in torch's own clipping."""


class Descent:
    """AdamW with a learning rate that falls to zero in a straight line."""

    def __init__(self, model: nn.Module, settings: Train, steps: int, *, sparse: bool = True) -> None:
        """`sparse`: as of Gradients."""
        self.gradients = Gradients(model, sparse=sparse)
        self.parameters = list(model.parameters())
        # fused: one pass over the memory of an embedding table instead of ten
        self.optimiser = AdamW(self.parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        self.lr, self.steps, self.clip_norm = settings.lr, steps, settings.clip_norm
        self.taken = 0

    @property
    def rate(self) -> float:
        """The learning rate now."""
        return self.lr * (1 - self.taken / max(1, self.steps))

    def step(self, loss: Tensor) -> None:
        """Against the gradient of `loss`, its length at most `clip_norm`."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.gradients.clip(self.clip_norm)
        (group,) = self.optimiser.param_groups
        group["lr"] = self.rate
        self.optimiser.step()
        self.taken += 1

    def state(self) -> dict[str, Tensor]:
        """What AdamW remembers of each parameter, by names of its own."""
        kept = ((number, self.optimiser.state[each]) for number, each in enumerate(self.parameters))
        return {f"{number}.{name}": value for number, values in kept for name, value in values.items()}

    def resume(self, state: Mapping[str, Tensor], taken: int) -> None:
        """Go on after `taken` steps, with the memory that `state` was then."""
        for key, value in state.items():
            number, name = key.split(".")
            parameter = self.parameters[int(number)]
            # laid out in memory as the parameter is, which the fused AdamW relies on
            like = parameter.detach() if value.shape == parameter.shape else value
            own = torch.empty_like(like, dtype=value.dtype, device=parameter.device)
            self.optimiser.state[parameter][name] = own.copy_(value)
        self.taken = taken


class Gradients:
    """The gradients of a model, clipped together; those of embedding tables are computed for the rows of a batch alone.

    Otherwise torch makes a table of zeros at each step, which for 50,000 articles takes twice as long as AdamW.
    """

    def __init__(self, model: nn.Module, *, sparse: bool = True) -> None:
        """`sparse`: whether tables have such gradients; those that processes exchange cannot be."""
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.sparse = sparse
        self.parameters = list(model.parameters())
        self.tables: dict[nn.Parameter, Tensor] = {}
        self.rows: dict[nn.Parameter, Tensor] = {}
        """Those that are not zero in the table."""

    def clip(self, most: float) -> None:
        """Shorten them to the length `most`, if they are longer, and make all of them dense."""
        given = {each: each.grad for each in self.parameters if each.grad is not None}
        sparse = {each: grad.coalesce() for each, grad in given.items() if grad.is_sparse}
        values = [sparse[each].values() if each in sparse else grad for each, grad in given.items()]
        # a gradient that is no number must not make all others none: whose it is would be lost
        shorter = (most / (get_total_norm(values) + TINY)).clamp(max=1.0).nan_to_num(1.0)
        for value in values:
            value.mul_(shorter)
        for parameter, grad in sparse.items():
            parameter.grad = self._dense(parameter, grad)

    def _dense(self, parameter: nn.Parameter, grad: Tensor) -> Tensor:
        """In the table that was used before: AdamW is for dense gradients."""
        rows = grad.indices()[0]
        if parameter in self.tables:
            table = self.tables[parameter].index_fill_(0, self.rows[parameter], 0)
        else:
            table = torch.zeros_like(parameter)
        self.tables[parameter], self.rows[parameter] = table.index_copy_(0, rows, grad.values()), rows
        return table
