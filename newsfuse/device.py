"""Where the model computes: CUDA if there is a GPU, else the CPU; NEWSFUSE_DEVICE overrides."""

import os

import torch

from newsfuse.environment import Environment
from newsfuse.errors import ParamsError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""The environment variable that lets cuBLAS repeat itself, read when CUDA is first used."""


def device() -> torch.device:
    """The device to use; of several processes on one machine each has a GPU of its own.

    Raises ParamsError for a wrong NEWSFUSE_DEVICE, cuda where there is none, and fewer GPUs than processes.
    """
    choice: str = Environment.read().device
    if choice == "cuda" and not torch.cuda.is_available():
        found = f"cuda is asked for, but PyTorch {torch.__version__} finds no CUDA device"
        message = f"NEWSFUSE_DEVICE: {found}. Use cpu, or install with: make run TORCH=cuda"
        raise ParamsError(message)
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    return _own_gpu() if choice == "cuda" else torch.device(choice)


def _own_gpu() -> torch.device:
    """The GPU of this process, from now on its current one: by LOCAL_RANK where it is one of several."""
    if "LOCAL_RANK" not in os.environ:
        return torch.device("cuda")
    number, processes = int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus = torch.cuda.device_count()
    if gpus < max(processes, number + 1):
        found = f"{processes} processes were started on this machine, and PyTorch finds {gpus} GPU{'s' * (gpus != 1)}"
        fix = f"Set train.processes (or torchrun's --nproc-per-node) to {gpus}, or NEWSFUSE_DEVICE=cpu"
        message = f"NEWSFUSE_DEVICE: each process needs a GPU of its own: {found}. {fix}"
        raise ParamsError(message)
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def seed_everything(seed: int) -> None:
    """Make what follows repeatable: torch's generators (initial weights) and its algorithms.

    Where CUDA has no algorithm that sums in the same order every time PyTorch says so once, and the last bits of what
    is trained there may differ from run to run.
    """
    os.environ.setdefault(WORKSPACE, ":4096:8")
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    # it would also fill every new tensor, to show who reads what nobody wrote: a twentieth of training
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
