"""Where the model computes: CUDA if there is a GPU, else the CPU; NEWSFUSE_DEVICE overrides."""

import os

import torch

from newsfuse.errors import ParamsError

VARIABLE = "NEWSFUSE_DEVICE"
CHOICES = ("auto", "cpu", "cuda")


def device() -> torch.device:
    """The device to use. Raises ParamsError for a wrong NEWSFUSE_DEVICE, or cuda where there is none."""
    choice = os.environ.get(VARIABLE, "auto")
    if choice not in CHOICES:
        message = f"{VARIABLE}: {choice!r} is not one of {', '.join(CHOICES)}"
        raise ParamsError(message)
    if choice == "cuda" and not torch.cuda.is_available():
        found = f"cuda is asked for, but PyTorch {torch.__version__} finds no CUDA device"
        message = f"{VARIABLE}: {found}. Use cpu, or install with: make run TORCH=cuda"
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
