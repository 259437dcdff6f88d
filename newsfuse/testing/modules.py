"""What every module that a plugin builds promises: shapes, rows that stand alone, gradients, weights that load."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any, cast

import torch
from safetensors.torch import load
from torch import Tensor, nn

from newsfuse.checkpoint import packed
from newsfuse.testing.contract import breach, leave_out

STEPS = 3
"""Of training before every parameter must have been reached: a plugin may start some of them at zero."""
RTOL, ATOL = 1e-4, 1e-5
"""How far float32 sums in another order may lie apart."""
GPU = "cuda"
DEVICE_RTOL, DEVICE_ATOL = 1e-2, 1e-3
"""The same between CPU and GPU, where products may be of TF32."""


def require_module(built: object) -> None:
    """What `build` returns is an nn.Module."""
    if not isinstance(built, nn.Module):
        breach(f"build returns {_described(built)}", "Return a torch.nn.Module")


def require_vectors(output: object, rows: int, width: int, when: str) -> None:
    """`output` is float32 (rows, width)."""
    if not isinstance(output, Tensor):
        breach(f"returns {_described(output)} {when}", f"Return a float32 tensor ({rows}, {width})")
    if tuple(output.shape) != (rows, width):
        remedy = f"Return a row for each one asked for: ({rows}, {width})"
        breach(f"returns the shape {tuple(output.shape)} {when}", remedy)
    if output.dtype != torch.float32:
        breach(f"returns {output.dtype} {when}", "Return float32: end with .float()")


def require_finite(values: Tensor, what: str) -> None:
    """No NaN, no infinity."""
    rows = values.detach().flatten(1) if values.ndim > 1 else values.detach().reshape(1, -1)
    bad = (~rows.isfinite()).any(dim=1).nonzero().flatten().tolist()
    if bad:
        remedy = "Look for a division by a length or a sum that can be zero, a log or a softmax of nothing"
        breach(f"row {bad[0]} of {what} is NaN or infinite ({len(bad)} of {len(rows)} rows)", remedy)


@torch.no_grad()
def stirred(module: nn.Module) -> nn.Module:
    """`module` with other weights, as after training: what starts at zero hides what it multiplies."""
    for parameter in module.parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape))
    return module.eval()


def started(module: nn.Module) -> nn.Module:
    """`module` as training gets it: its `start()`, if it has one, has been called."""
    if begin := getattr(module, "start", None):
        begin()
    return module


def require_rows_stand_alone(module: nn.Module, *inputs: Tensor) -> None:
    """Row i of the output depends on row i of the inputs only: not on its neighbours, nor on its place."""
    output = stirred(module)(*inputs)
    rows = torch.arange(len(output))
    others = {
        "when the batch is reversed": rows.flip(0),
        "when it is asked for alone": rows[:1],
        "when it is the only one again": rows[-1:],
        "when others come twice": rows[[0, 1, 1, 0]],
        "when fewer come along": rows[1:4],
    }
    for when, chosen in others.items():
        again = module(*(each[chosen] for each in inputs))
        require_vectors(again, len(chosen), output.shape[1], when)
        if changed := _different(again, output[chosen]):
            remedy = "In eval() a row may depend on its own input alone: look for a mean, softmax or sum over dim 0, a"
            breach(f"row {chosen[changed[0]]} changes {when}", f"{remedy} BatchNorm, or a state in forward")


def require_close(found: Tensor, expected: Tensor, problem: str, remedy: str) -> None:
    """Raise PromiseError(problem, remedy), naming the first row, where the two differ by more than rounding."""
    if rows := _different(found, expected):
        breach(f"{problem} (first in row {rows[0]})", remedy)


def require_gradients(module: nn.Module, *inputs: Tensor) -> None:
    """Every parameter is reached within STEPS steps, and no gradient is NaN or infinite."""
    module.train()
    learned = {name: each for name, each in module.named_parameters() if each.requires_grad}
    if not learned:
        return
    optimiser, wanted, reached = torch.optim.SGD(learned.values(), lr=0.1), torch.randn_like(module(*inputs)), set()
    for _ in range(STEPS):
        optimiser.zero_grad()
        _backward((module(*inputs) * wanted).sum())
        gradients = {name: each.grad for name, each in learned.items() if each.grad is not None}
        for name, gradient in gradients.items():
            require_finite(gradient, f"the gradient of {name}")
        reached |= {name for name, each in gradients.items() if each.any()}
        optimiser.step()
    if missed := [name for name in learned if name not in reached]:
        remedy = "Use each in forward; look for detach(), .data and no_grad(). What shall not learn is a buffer"
        breach(f"no gradient reaches {', '.join(missed)} in {STEPS} steps", remedy)


def gradient(output: Tensor, inputs: Tensor) -> Tensor:
    """Of some sum of the output, with respect to the inputs; zero where none arrives."""
    if not output.requires_grad:
        return torch.zeros_like(inputs)
    torch.manual_seed(1)
    (found,) = torch.autograd.grad((output * torch.randn_like(output)).sum(), inputs, allow_unused=True)
    return torch.zeros_like(inputs) if found is None else found


def require_same_after_saving(first: nn.Module, second: nn.Module, *inputs: Tensor) -> None:
    """`second`, built anew and given the weights of `first`, does what `first` does: they are all that is kept."""
    load_strictly(second, load(packed(stirred(first).state_dict())))
    if not torch.equal(first(*inputs), second.eval()(*inputs)):
        remedy = (
            "What training changes must be an nn.Parameter, a registered buffer or a submodule: nothing else is saved"
        )
        breach("a saved and loaded module returns other numbers than before", remedy)


def load_strictly(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load `weights`. Raises PromiseError where names or shapes differ."""
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        mistakes = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        remedy = "Shapes may depend on a Vocabulary's `size`, not on how many articles there are; register tables "
        breach(f"weights do not load: {mistakes}", f"{remedy}with persistent=False")


def require_same_seed_same_bits(make: Callable[[], nn.Module], *inputs: Tensor) -> None:
    """After torch.manual_seed all numbers repeat, in train() and in eval()."""
    for mode, once, again in zip(("train()", "eval()"), _outputs(make, inputs), _outputs(make, inputs), strict=True):
        if not torch.equal(once, again):
            remedy = "Draw from torch's own generator, which newsfuse seeds; no time, no set order, no numpy or random"
            breach(f"the same seed gives other numbers in {mode}", remedy)


def require_redrawn(module: nn.Module, rows: Tensor) -> None:
    """What is drawn in train() depends on the key of redraw() and on the row. Raises NotCheckedError without one."""
    told = [part for part in module.modules() if hasattr(part, "redraw")]
    if not told:
        leave_out(f"it has no redraw(key){_by_torch(module, rows)}")
    output, again = _redrawn(module, told, rows), _redrawn(module, told, rows)
    if not torch.equal(again, output):
        remedy = "Draw by the key of redraw() alone (newsfuse.chance), not by torch's generator"
        breach("the same key gives other numbers in train()", remedy)
    for chosen in (torch.arange(len(rows)).flip(0), torch.arange(1, 3)):
        alone = _redrawn(module, told, rows[chosen])
        remedy = "Draw for the article's own number (newsfuse.chance), not for its place in the batch"
        require_close(alone, output[chosen], "what is drawn for a row changes with the batch", remedy)


def require_parity(module: nn.Module, *inputs: Tensor) -> None:
    """Output and gradients on a GPU are those of the CPU. Raises NotCheckedError where there is no GPU."""
    if not torch.cuda.is_available():
        leave_out(_no_gpu(module))
    output, gradients = _worked(stirred(module), inputs)
    there, gradients_there = _worked(deepcopy(module).to(GPU), [each.to(GPU) for each in inputs])
    pairs = [("the output", there, output), *((name, gradients_there[name], gradients[name]) for name in gradients)]
    for what, found, expected in pairs:
        if not torch.allclose(found.cpu(), expected, rtol=DEVICE_RTOL, atol=DEVICE_ATOL * float(expected.abs().max())):
            breach(f"{what} differs between CPU and CUDA", "Look for memory that is read before it is set")


def _redrawn(module: nn.Module, told: Iterable[nn.Module], rows: Tensor) -> Tensor:
    """What it makes of the rows in train(), each part that has one told a key of its own."""
    for number, part in enumerate(told):
        cast("Any", part).redraw(number)
    output: Tensor = module.train()(rows).detach()
    return output


def _by_torch(module: nn.Module, rows: Tensor) -> str:
    outputs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        outputs.append(module.train()(rows))
    return "" if torch.equal(*outputs) else ", and draws otherwise in each of several processes"


def _worked(module: nn.Module, inputs: Iterable[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    module.zero_grad()
    output = module(*inputs)
    _backward((output * torch.linspace(-1, 1, output.numel()).reshape(output.shape).to(output.device)).sum())
    gradients = {name: each.grad.cpu() for name, each in module.named_parameters() if each.grad is not None}
    return output.detach(), gradients


def _backward(loss: Tensor) -> None:
    if loss.requires_grad:
        loss.backward()


def _outputs(make: Callable[[], nn.Module], inputs: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    module = make()
    return module.train()(*inputs), module.eval()(*inputs)


def _no_gpu(module: nn.Module) -> str:
    stay = [
        f"{name}.{key}".removeprefix(".")
        for name, part in module.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, Tensor)
    ]
    hint = f"; {', '.join(stay)} would stay on the CPU, being no buffer (register_buffer)" if stay else ""
    return f"there is no GPU here{hint}"


def _different(found: Tensor, expected: Tensor) -> list[int]:
    """The rows in which the two differ by more than rounding."""
    wrong = ~torch.isclose(found, expected, rtol=RTOL, atol=ATOL)
    return wrong[:, None].flatten(1).any(dim=1).nonzero().flatten().tolist()


def _described(value: object) -> str:
    return f"{type(value).__name__} ({value!r:.60})" if value is not None else "None"
