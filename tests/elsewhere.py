"""A second device that every machine has: it computes as the CPU does, but refuses tensors of the CPU, as a GPU would.

What would fail on CUDA because one tensor was left on the CPU fails here as well, and so does what asks a tensor of the
device for a numpy array. PyTorch knows it by the dispatch key that is reserved for devices of others; each operation
is done on the tensor inside. It has no kernels, no streams and no memory of its own: rounding, order of threads and
lack of memory are those of the CPU.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NoReturn, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "elsewhere"
OWN_PROCESS = "TESTS_ELSEWHERE"
"""A variable that says that no test of this process knows PyTorch without the device, or did a backward pass before."""
Operation = Any
"""One of PyTorch's, which have no type of their own."""
CROSSES = {"copy_", "_to_copy"}
"""What may meet tensors of both."""


class There(Tensor):
    """A tensor that is on the device."""

    inner: Tensor  # type: ignore[assignment] # its name in PyTorch is that of an old function

    @staticmethod
    def __new__(cls: type["There"], inner: Tensor) -> "There":  # noqa: PYI034 - Self is not known to a static method
        """`inner`: on the CPU."""
        layout: dict[str, Any] = {"dtype": inner.dtype, "layout": inner.layout, "device": f"{NAME}:0"}
        if inner.layout == torch.strided:
            layout |= {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, inner.shape, **layout)  # noqa: SLF001
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Operation, _types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever the operation returns
        return done(func, *args, **(kwargs or {}))

    def tolist(self) -> Any:  # noqa: ANN401 - as Tensor has it
        return self.inner.tolist()

    def numpy(self, *, force: bool = False) -> NoReturn:  # noqa: ARG002 - as Tensor has it
        message = f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() to copy it first"
        raise TypeError(message)

    def new_tensor(self, data: Any, dtype: torch.dtype | None = None) -> Tensor:  # type: ignore[override] # noqa: ANN401 - as Tensor has it
        return torch.tensor(data, dtype=dtype or self.dtype).to(self.device)

    def __repr__(self) -> str:  # type: ignore[override]
        return f"There({self.inner!r})"


class Memory:
    """Of the device: as much as there is, unless a test makes it small."""

    most: int | None = None
    """Bytes that one result may take."""

    @classmethod
    def take(cls, made: Any, given: Sequence[Tensor]) -> None:  # noqa: ANN401 - a result of an operation
        """Raises torch.OutOfMemoryError for one that is too large. Views of what was `given` take nothing."""
        if cls.most is None:
            return
        held = {_storage(each).data_ptr() for each in given if each.layout == torch.strided}
        results = [each for each in tree_leaves(made) if isinstance(each, Tensor) and each.layout == torch.strided]
        taken = sum(_storage(each).nbytes() for each in results if _storage(each).data_ptr() not in held)
        if taken > cls.most:
            message = f"{NAME} out of memory: {taken} bytes"
            raise torch.OutOfMemoryError(message)


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return (tensor.inner if isinstance(tensor, There) else tensor).untyped_storage()


def done(func: Operation, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - any operation of PyTorch
    """What the operation makes of the tensors inside. Raises RuntimeError where it meets one of the CPU."""
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    there = [each for each in tensors if isinstance(each, There)]
    name = func.overloadpacket.__name__
    if there and name not in CROSSES and any(each.dim() for each in tensors if not isinstance(each, There)):
        message = f"{func} meets tensors on {NAME} and on the CPU"
        raise RuntimeError(message)
    made = func(*tree_map(_inside, args), **tree_map(_inside, kwargs))
    Memory.take(made, tensors)
    if not _is_made_there(name, args, kwargs, there):
        return tree_map(lambda each: each.clone() if isinstance(each, Tensor) and there else each, made)
    known = {id(each.inner): each for each in there}  # operations in place return what they were given
    return tree_map(lambda each: _outside(each, known), made)


def _is_made_there(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], there: list[There]) -> bool:
    if name == "copy_":
        return isinstance(args[0], There)
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"]).type == NAME
    return bool(there)


def _inside(value: Any) -> Any:  # noqa: ANN401 - an argument of an operation
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.inner if isinstance(value, There) else value


def _outside(value: Any, known: dict[int, There]) -> Any:  # noqa: ANN401 - a result of an operation
    if not isinstance(value, Tensor):
        return value
    return known[id(value)] if id(value) in known else There(value)


class Backend(_DummyBackendModule):
    """What PyTorch asks of a kind of device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


@cache
def elsewhere() -> torch.device:
    """The device, made when it is first asked for; there is no way to unmake it in this process."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    _made.append(torch.library.Library("_", "IMPL"))
    _made[0].fallback(done, "PrivateUse1")
    vars(torch)["tensor"] = _tensor
    return torch.device(NAME, 0)


class Ungraded:
    """A way into torch.inference_mode, and out, that makes no tensors of a kind that There cannot be."""

    def __enter__(self) -> None:
        self.held = torch.no_grad()
        self.held.__enter__()

    def __exit__(self, *error: object) -> None:
        self.held.__exit__(*error)


def _tensor(*args: Any, device: torch.device | str | None = None, _own: Any = torch.tensor, **kwargs: Any) -> Tensor:  # noqa: ANN401 - as torch.tensor has it
    """torch.tensor, which PyTorch cannot do on a device that is written in Python."""
    if device is not None and torch.device(device).type == NAME:
        return cast("Tensor", _own(*args, **kwargs).to(device))
    return cast("Tensor", _own(*args, device=device, **kwargs))


_made: list[torch.library.Library] = []
"""What PyTorch would forget with the last reference to it."""
