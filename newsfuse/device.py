"""Where the model computes: CUDA if there is a GPU, else the CPU; NEWSFUSE_DEVICE overrides."""

import torch

from newsfuse.environment import Environment
from newsfuse.errors import ParamsError


def device() -> torch.device:
    """The device to use. Raises ParamsError for a wrong NEWSFUSE_DEVICE, or cuda where there is none."""
    choice: str = Environment.read().device
    if choice == "cuda" and not torch.cuda.is_available():
        found = f"cuda is asked for, but PyTorch {torch.__version__} finds no CUDA device"
        message = f"NEWSFUSE_DEVICE: {found}. Use cpu, or install with: make run TORCH=cuda"
        raise ParamsError(message)
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(choice)


def seed_everything(seed: int) -> None:
    """Make what follows repeatable: torch's generators (initial weights, dropout) and its algorithms on the CPU.

    CUDA keeps its fast algorithms: a few of its sums depend on the order of threads.
    """
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    # it would also fill every new tensor, to show who reads what nobody wrote: a twentieth of training
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
