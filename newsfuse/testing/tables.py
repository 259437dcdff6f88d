"""Tables under watch: which are read, and whether somebody wrote into one."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor

from newsfuse.plugin import Need


class Watched(Mapping[Need, object]):
    """Tables that note which of them are read."""

    def __init__(self, tables: Mapping[Need, object]) -> None:
        self.tables = tables
        self.read: set[Need] = set()

    def __getitem__(self, need: Need) -> object:
        self.read.add(need)
        return self.tables[need]

    def __iter__(self) -> Iterator[Need]:
        return iter(self.tables)

    def __len__(self) -> int:
        return len(self.tables)


def differ(found: object, given: object) -> bool:
    """Whether a tensor inside one table is not what it is in the other, which was made alike."""
    return any(not torch.equal(*pair) for pair in zip(_tensors(found), _tensors(given), strict=True))


def _tensors(table: object) -> Iterator[Tensor]:
    """All tensors inside a table, in a fixed order."""
    if isinstance(table, Tensor):
        yield table
    parts: list[object] = []
    if is_dataclass(table):
        parts = [getattr(table, each.name) for each in fields(table)]
    elif isinstance(table, Mapping):
        parts = list(table.values())
    elif isinstance(table, tuple):
        parts = list(table)
    for part in parts:
        yield from _tensors(part)
