"""Room for a training step: where memory runs out, the batch size that it suffices for is found and told."""

import gc
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import torch
from torch import Tensor, nn

from newsfuse.errors import ParamsError
from newsfuse.memory import give_back

GIB = 1 << 30
FINENESS = 8
"""The size that is found is less than an eighth below the largest that fits: each try is a step of training. And the
one that is told is an eighth below that: memory is not cut up in the same way every time."""
SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
"""In what PyTorch says where memory runs out and it raises a plain RuntimeError: on a CPU, and in CUDA's libraries."""


@contextmanager
def room(size: int, device: torch.device, rehearsal: Callable[[int], None], *, processes: int = 1) -> Iterator[None]:
    """Answers with a batch size where the block, a step of training on `device` with `size` clicks, runs out of memory.

    `rehearsal(n)` does all of a step with n clicks that takes memory, and changes no weight: see `rehearse`. Of
    several `processes`, which share each batch, it is given what one of them does. Raises ParamsError that says what
    fits. Tensors that the function with the block holds in variables of its own are not freed before: let it call
    another one.
    """
    try:
        yield
    except Exception as error:
        if not ran_out(error):
            raise
        _release(error)
    else:
        return
    own = -(-size // processes)
    found = largest(own, lambda n: _fits(rehearsal, n))
    raise ParamsError(_advice(size, processes * (found - found // FINENESS), device)) from None


def rehearse(module: nn.Module, loss: Callable[[], Tensor]) -> None:
    """A step without a step: forward, backward and as much memory as AdamW takes, all of it thrown away."""
    module.zero_grad(set_to_none=True)
    learned = [each for each in module.parameters() if each.requires_grad]
    # not backward(): in one of several processes that would wait for the gradients of the others
    _gradients = torch.autograd.grad(loss(), learned, allow_unused=True)
    # two moments of each parameter, and a dense gradient where there is none yet
    _kept = [torch.empty_like(each) for each in learned for _ in range(3)]


def ran_out(error: BaseException) -> bool:
    """Whether it says, or follows from an error that says, that there is no memory left."""
    if error.__cause__ is not None and ran_out(error.__cause__):
        return True
    plain = isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
    return plain or isinstance(error, MemoryError | torch.OutOfMemoryError)


def largest(size: int, fits: Callable[[int], bool]) -> int:
    """A number below `size`, which does not fit, that does, and hardly less than the largest; 0 where none does."""
    low, high = size // 2, size
    while low and not fits(low):
        low, high = low // 2, low
    while high - low > max(1, low // FINENESS):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _fits(rehearsal: Callable[[int], None], size: int) -> bool:
    try:
        rehearsal(size)
    except Exception as error:
        if not ran_out(error):
            raise
        _release(error)
        return False
    _free()
    return True


def _release(error: BaseException) -> None:
    """Let go of the tensors that the functions on the way to the error hold."""
    for each in _chain(error):
        traceback.clear_frames(each.__traceback__)
    _free()


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    give_back()


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it came from or in whose handling it arose."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _advice(size: int, found: int, device: torch.device) -> str:
    problem = f"params.yaml: train.batch_size: {size} does not fit in the {_memory(device)}"
    if not found:
        return (
            f"{problem}, and no smaller one does: the model itself is too large. Try a smaller model.dim or fewer "
            "encoders, or NEWSFUSE_DEVICE=cpu"
        )
    return f"{problem}; {found} does: dvc exp run -S train.batch_size={found}"


def _memory(device: torch.device) -> str:
    """Such as "79.1 GiB of NVIDIA H100"."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.total_memory / GIB:.1f} GiB of {properties.name}"
    return f"{psutil.virtual_memory().total / GIB:.1f} GiB of this machine, as far as they are free"
