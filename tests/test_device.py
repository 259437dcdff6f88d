"""NEWSFUSE_DEVICE, and which GPU a process has."""

import os

import pytest
import torch

from newsfuse.device import WORKSPACE, device, seed_everything
from newsfuse.errors import ParamsError


class Machine:
    """One with so many GPUs, of which a process may be one of several."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        self.current: list[int] = []
        for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "NEWSFUSE_DEVICE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(torch.cuda, "set_device", self.current.append)

    def has(self, gpus: int) -> None:
        self.patch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        self.patch.setattr(torch.cuda, "device_count", lambda: gpus)

    def starts(self, rank: int, of: int, choice: str = "auto") -> None:
        self.patch.setenv("LOCAL_RANK", str(rank))
        self.patch.setenv("LOCAL_WORLD_SIZE", str(of))
        self.patch.setenv("NEWSFUSE_DEVICE", choice)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.mark.parametrize(("choice", "gpus", "found"), [("auto", 0, "cpu"), ("auto", 1, "cuda"), ("cpu", 1, "cpu")])
def test_a_gpu_is_used_where_there_is_one_unless_asked_otherwise(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, choice: str, gpus: int, found: str
) -> None:
    machine.has(gpus)
    monkeypatch.setenv("NEWSFUSE_DEVICE", choice)
    assert device() == torch.device(found)
    assert machine.current == []


def test_cuda_where_there_is_none_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.has(0)
    monkeypatch.setenv("NEWSFUSE_DEVICE", "cuda")
    with pytest.raises(ParamsError, match=r"NEWSFUSE_DEVICE: cuda is asked for, but PyTorch .* finds no CUDA device"):
        device()


@pytest.mark.parametrize("choice", ["auto", "cuda"])
@pytest.mark.parametrize("rank", [0, 3])
def test_each_of_several_processes_has_a_gpu_of_its_own(machine: Machine, choice: str, rank: int) -> None:
    machine.has(4)
    machine.starts(rank, 4, choice)
    assert device() == torch.device("cuda", rank)
    assert machine.current == [rank]


@pytest.mark.parametrize(("gpus", "found"), [(1, "1 GPU"), (3, "3 GPUs")])
def test_more_processes_than_gpus_are_refused_by_every_one_of_them(machine: Machine, gpus: int, found: str) -> None:
    machine.has(gpus)
    for rank in range(4):
        machine.starts(rank, 4)
        with pytest.raises(
            ParamsError, match=rf"4 processes were started .* finds {found}\. Set train\.processes .* {gpus}"
        ):
            device()


def test_processes_without_gpus_compute_on_the_cpu(machine: Machine) -> None:
    machine.has(0)
    machine.starts(1, 2)
    assert device() == torch.device("cpu")
    machine.has(1)
    machine.starts(1, 2, "cpu")
    assert device() == torch.device("cpu")


def test_the_matrix_products_of_cuda_can_repeat_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    seed_everything(0)
    assert os.environ[WORKSPACE] == ":4096:8"
    monkeypatch.setenv(WORKSPACE, ":16:8")
    seed_everything(0)
    assert os.environ[WORKSPACE] == ":16:8"
