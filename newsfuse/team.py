"""Processes that train one model together, each on its part of every batch."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from newsfuse.batches import Part
from newsfuse.behaviors import Behaviors

CPU = torch.device("cpu")
MEETING = "TEAM_MEETING"
"""The environment variable by which processes of one machine that are started here are told where to meet."""


@dataclass(frozen=True)
class Team:
    """Who works together: `size` processes, of which this one is number `rank`. Of one process nothing is exchanged."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU
    """Where what is exchanged has to be."""

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    @property
    def part(self) -> Part:
        """What this process does of a batch."""
        return Part(self.rank, self.size)

    def own(self, n: int) -> np.ndarray:
        """int64: the numbers from 0 to n - 1 that this process does of n things, as many as any other or one less."""
        return np.arange(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def wrapped(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module, whose gradients will be the mean over processes."""
        if self.size == 1:
            return module
        # a plugin need not use all its parameters in every batch
        return DistributedDataParallel(module, find_unused_parameters=True)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes, of any shape."""
        if self.size == 1:
            return values
        total = values.to(self.device, copy=True)
        distributed.all_reduce(total)
        return total.to(values.device)

    def told(self, value: float) -> float:
        """The first process's value: what all are to decide by."""
        if self.size == 1:
            return value
        first = torch.tensor(value, dtype=torch.double, device=self.device)
        distributed.broadcast(first, src=0)
        return first.item()

    def joined(self, rows: Tensor) -> Tensor:
        """The rows of all processes, those of the first process first; they may differ in number alone."""
        if self.size == 1:
            return rows
        own = rows.to(self.device)
        counts = self._gathered(torch.tensor([len(own)], device=self.device))
        longest = max(int(count) for count in counts)
        padded = own.new_zeros(longest, *own.shape[1:])
        padded[: len(own)] = own
        parts = self._gathered(padded)
        return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)]).to(rows.device)

    def scores(self, candidates: Callable[[Behaviors], np.ndarray], behaviors: Behaviors) -> np.ndarray:
        """float64: what `candidates` gives for `behaviors`, each process having scored its share of impressions."""
        if self.size == 1:
            return candidates(behaviors)
        own = candidates(behaviors.take(self.own(len(behaviors))))
        return self.joined(torch.from_numpy(own)).numpy()

    def _gathered(self, values: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(values) for _ in range(self.size)]
        distributed.all_gather(parts, values)
        return parts


ALONE = Team()


def members() -> int:
    """How many processes somebody, such as torchrun, started to work together; 1 where nobody did."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def started_together() -> bool:
    """Whether somebody, such as torchrun, started this process, with others or as the only one of its team."""
    return "WORLD_SIZE" in os.environ


@contextmanager
def team(device: torch.device) -> Iterator[Team]:
    """The processes that were started together, met; each computes on its `device`.

    They find each other by a file where that is named by MEETING, else as torchrun's variables say (MASTER_ADDR and
    its like). With CUDA they speak by NCCL, else by Gloo.
    """
    if members() == 1:
        yield Team(device=device)
        return
    backend, rank = "nccl" if device.type == "cuda" else "gloo", int(os.environ["RANK"])
    distributed.init_process_group(backend, os.environ.get(MEETING, "env://"), rank=rank, world_size=members())
    yield Team(distributed.get_rank(), distributed.get_world_size(), device)
    # not after an error: the others would hear of a closed connection before anybody could say why
    distributed.destroy_process_group()
