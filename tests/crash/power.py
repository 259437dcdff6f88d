"""What a disk may hold after a power cut, worked out from a record of what a program did to it.

SQLite's crash tests do the same (https://www.sqlite.org/testing.html, section 3.3). What was synced is there. What was
not may be there or not, in part and out of order, sector by sector; names come and go in order, but may come late.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

SECTOR = 512
UNRECORDED = "-shm"
"""A WAL's shared memory is written through a memory map, and means nothing once nobody has it open."""


@dataclass(frozen=True)
class Operation:
    """A line of the record that fail_nth.c writes."""

    kind: str
    path: str
    to: str
    at: int
    data: bytes


def recorded(record: Path) -> Iterator[Operation]:
    with record.open("rb") as file:
        while line := file.readline():
            kind, path, to, at, length = line.decode().rstrip("\n").split("\t")
            yield Operation(kind, path, to, int(at), file.read(int(length)))


@dataclass
class File:
    """Content that is surely on the disk, and changes since: (offset, bytes), or (size, None) for a truncation."""

    safe: bytes = b""
    changes: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        self.safe, self.changes = changed(self.safe, self.changes), []

    def after_cut(self, chance: random.Random | None) -> bytes:
        """The bytes that are found: without `chance` only what is sure."""
        return changed(self.safe, [each for each in self._sectors() if chance.random() < 0.5] if chance else [])

    def _sectors(self) -> Iterator[tuple[int, bytes | None]]:
        for at, data in self.changes:
            if data is None:
                yield at, None
            else:
                yield from ((at + each, data[each : each + SECTOR]) for each in range(0, len(data), SECTOR))


def changed(content: bytes, changes: list[tuple[int, bytes | None]]) -> bytes:
    result = bytearray(content)
    for at, data in changes:
        result.extend(bytes(max(0, at - len(result))))
        result[at : len(result) if data is None else at + len(data)] = data or b""
    return bytes(result)


class Disk:
    """The files of one folder, which itself is there for sure only once the folder above it was synced."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sure = str(folder), False
        self._names: list[dict[str, File]] = [{}]
        """What the folder's names stood for, from the last time it was synced until now."""

    def apply(self, operation: Operation) -> None:
        if operation.kind == "sync" and operation.path == self.folder:
            del self._names[:-1]
        elif operation.kind == "sync" and operation.path == str(Path(self.folder).parent):
            self.sure = True
        elif operation.path.startswith(f"{self.folder}/"):
            self._apply(operation, Path(operation.path).name)

    def _apply(self, operation: Operation, name: str) -> None:
        now = self._names[-1]
        if operation.kind == "create":
            self._names.append({**now, name: File()})
        elif operation.kind == "unlink":
            self._names.append({each: file for each, file in now.items() if each != name})
        elif operation.kind == "rename":
            rest = {each: file for each, file in now.items() if each != name}
            self._names.append({**rest, Path(operation.to).name: now[name]})
        elif operation.kind == "sync":
            now[name].sync()
        else:
            now[name].changes.append((operation.at, operation.data if operation.kind == "write" else None))

    def cuts(self, chance: random.Random) -> Iterator[dict[str, bytes] | None]:
        """Some of the states in which the folder may be found if the power fails now; None: it is not there."""
        if not self.sure:
            yield None
        for names in (self._names[0], self._names[-1]):  # all names late, or none, and what was not synced is lost
            yield {name: file.after_cut(None) for name, file in names.items()}
        for _ in range(2):
            names = chance.choice(self._names)
            yield {name: _noise(name, chance) or file.after_cut(chance) for name, file in names.items()}


def _noise(name: str, chance: random.Random) -> bytes:
    return chance.randbytes(32_768) if name.endswith(UNRECORDED) else b""
