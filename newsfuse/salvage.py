"""Good rows out of a damaged ledger: every page is read by its bytes, whatever has become of the others.

SQLite finds a page through other pages, and gives up where one of those is damaged. But we know what
a row must look like, and every vector has a sha256, so each page that holds rows is read by itself:
https://www.sqlite.org/fileformat2.html sections 1.6, 2.1 and 4. The damaged file is only ever read.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import TypeAdapter

from newsfuse.paid.ledger import CHUNK, HANDED_IN, HANDING_IN, PAGE_BYTES, Ledger, Request, checksum
from newsfuse.paid.space import KEY_BYTES, Space

MAGIC = b"SQLite format 3\0"
LEAF = 0x0D
"""The first byte of a page that holds rows of a table."""
LOG_HEADER, FRAME_HEADER = 32, 24
INTEGERS = (0, 1, 2, 3, 4, 6, 8)
"""Bytes of an integer, by its serial type."""
FLOAT, ZERO, ONE, FIRST_BLOB = 7, 8, 9, 12
UNREADABLE = (LookupError, ValueError, struct.error)
SIZES = {512 << power for power in range(7)}
"""Bytes of a page, as the header says them."""
Columns = tuple[Any, ...]

COLUMNS = [field.name for field in fields(Request)]
UNSETTLED = ("sent", HANDING_IN, HANDED_IN)
"""The states that a request goes through before its last one, in this order."""
NOTE = "saved from a damaged ledger; which request brought these vectors is lost"
checked = TypeAdapter(Request)


@dataclass(frozen=True)
class Rescue:
    """What was saved."""

    vectors: int
    requests: int
    bad: int
    """Rows that do not pass their sha256: in the new ledger's quarantine."""


def rescue(damaged: Path, new: Path) -> Rescue:
    """Make a ledger at `new` of all good rows of the damaged one and of its log. Raises StorageError."""
    new.unlink(missing_ok=True)
    requests: dict[int, Request] = {}
    with opened(damaged) as pages, Ledger.writing(new) as ledger:
        found = pages.rows()
        while part := list(islice(found, CHUNK)):
            for request in filter(None, (sound(rowid, *columns[1:]) for rowid, columns in part)):
                # the file and its log may have a row in several states
                requests[request.id] = max(requests.get(request.id, request), request, key=_progress)
            _keep_vectors(ledger, [columns for _, columns in part if _is_row(columns)])
        _keep_requests(ledger, requests.values())
        _adopt_orphans(ledger)
        ((vectors, bad),) = ledger.query("SELECT (SELECT count(*) FROM vectors), (SELECT count(*) FROM quarantine)")
    return Rescue(vectors, len(requests), bad)


def sound(*values: object) -> Request | None:
    """A row of the spend table, None if it is not what such a row can be."""
    if len(values) != len(COLUMNS):
        return None
    row = dict(zip(COLUMNS, values, strict=True))
    with suppress(ValueError, TypeError):
        joined = bytes(row["keys"]) if isinstance(row["keys"], bytes) else b""
        keys = [joined[start : start + KEY_BYTES] for start in range(0, len(joined), KEY_BYTES)]
        request = checked.validate_python({**row, "keys": keys, "space": Space.from_json(str(row["space"])).to_dict()})
        return request if len(joined) == KEY_BYTES * request.texts else None
    return None


def _progress(request: Request) -> int:
    return UNSETTLED.index(request.status) if request.status in UNSETTLED else len(UNSETTLED)


def passes(key: bytes | None, sha256: bytes | None, vector: bytes | None) -> bool:
    """Whether a row of the vectors table is what was once paid for."""
    if key is None or vector is None or len(key) != KEY_BYTES or len(vector) % 4:
        return False
    return checksum(key, vector) == sha256


def _is_row(columns: Columns) -> bool:
    return [type(value) for value in columns] == [bytes, int, bytes, bytes]


def _keep_vectors(ledger: Ledger, rows: Sequence[Columns]) -> None:
    good = [passes(key, sha256, vector) for key, _, sha256, vector in rows]
    with ledger.transaction() as database:
        insert = "INSERT INTO vectors (key, request, sha256, vector) VALUES (?,?,?,?) ON CONFLICT (key) DO NOTHING"
        database.executemany(insert, [row for row, passes in zip(rows, good, strict=True) if passes])
        insert = "INSERT INTO quarantine (key, request, sha256, vector) VALUES (?,?,?,?)"
        database.executemany(insert, [row for row, passes in zip(rows, good, strict=True) if not passes])


def _keep_requests(ledger: Ledger, requests: Iterable[Request]) -> None:
    with ledger.transaction() as database:
        marks = ",".join("?" * len(COLUMNS))
        insert = f"INSERT INTO spend ({','.join(COLUMNS)}) VALUES ({marks})"  # noqa: S608 - our own names
        database.executemany(insert, (_values(request) for request in requests))
        # what was bad in one state of a page and good in another, or bad in two
        database.execute("DELETE FROM quarantine WHERE key IN (SELECT key FROM vectors)")
        once = "SELECT min(rowid) FROM quarantine GROUP BY key, sha256, vector"
        database.execute(f"DELETE FROM quarantine WHERE rowid NOT IN ({once})")  # noqa: S608 - ours


def _values(request: Request) -> list[object]:
    special = {"space": request.space.to_json(), "keys": b"".join(request.keys)}
    return [special.get(name, getattr(request, name)) for name in COLUMNS]


def unknown(dimensions: int) -> Space:
    """Stands in for a space that is lost. What a vector is found by is its key, which still holds the true one."""
    return Space("unknown", "", "unknown", dimensions, 0)


def _adopt_orphans(ledger: Ledger) -> None:
    """Vectors whose request was lost get another one, or they would pass for those of the next request."""
    orphans = "SELECT key, length(vector) / 4 FROM vectors WHERE request NOT IN (SELECT id FROM spend)"
    found = list(ledger.query(orphans))
    for dimensions in sorted({size for _, size in found}):
        keys = [key for key, size in found if size == dimensions]
        request = ledger.sent(unknown(dimensions), keys, 0, status="imported")
        ledger.ended(request, "imported", 0, 0.0, NOTE)
        with ledger.transaction() as database:
            database.executemany("UPDATE vectors SET request = ? WHERE key = ?", ((request, key) for key in keys))


# --- pages


@dataclass(frozen=True)
class Place:
    """Where a page begins."""

    file: BinaryIO
    offset: int


@contextmanager
def opened(path: Path) -> Iterator["Pages"]:
    """The pages of a database and of its write-ahead log. Raises OSError."""
    log = path.with_name(f"{path.name}-wal")
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        size = _page_bytes(file.read(100))
        offsets = range(0, path.stat().st_size, size)
        places = [(number, Place(file, offset)) for number, offset in enumerate(offsets, 1)]
        if log.exists():
            places += _frames(stack.enter_context(log.open("rb")), log.stat().st_size, size)
        yield Pages(size, places)


def _page_bytes(header: bytes) -> int:
    size = int.from_bytes(header[16:18], "big")
    return size if header.startswith(MAGIC) and size in SIZES else PAGE_BYTES


def _frames(log: BinaryIO, n_bytes: int, size: int) -> Iterator[tuple[int, Place]]:
    for offset in range(LOG_HEADER, n_bytes, FRAME_HEADER + size):
        log.seek(offset)
        yield int.from_bytes(log.read(4), "big"), Place(log, offset + FRAME_HEADER)


class Pages:
    """All pages of a database and then all of its log, where a page may come again: (its number, where it begins)."""

    def __init__(self, size: int, places: Sequence[tuple[int, Place]]) -> None:
        self._size, self._places, self._latest = size, places, dict(places)

    def rows(self) -> Iterator[tuple[int, Columns]]:
        """(rowid, columns) of each row of each page that can be read: a row may come several times, or be garbage."""
        for _, place in self._places:
            page = self._read(place)
            for cell in _cells(page) if page[0] == LEAF else ():
                with suppress(*UNREADABLE):
                    yield self._row(page, cell)

    def _read(self, place: Place) -> bytes:
        place.file.seek(place.offset)
        return place.file.read(self._size).ljust(self._size, b"\0")  # the last page may be cut off

    def _row(self, page: bytes, cell: int) -> tuple[int, Columns]:
        n_bytes, at = _varint(page, cell)
        rowid, at = _varint(page, at)
        if n_bytes > self._size * len(self._places):  # of garbage: a chain of pages may go round in circles
            message = "a row longer than the file"
            raise ValueError(message)
        here = self._local(n_bytes)
        payload = page[at : at + here] + self._overflow(page[at + here : at + here + 4], n_bytes - here)
        return rowid, tuple(_columns(payload))

    def _local(self, n_bytes: int) -> int:
        """Bytes of a row that are in its own page: section 1.6."""
        most, least = self._size - 35, (self._size - 12) * 32 // 255 - 23
        rest = least + (n_bytes - least) % (self._size - 4)
        return n_bytes if n_bytes <= most else rest if rest <= most else least

    def _overflow(self, number: bytes, n_bytes: int) -> bytes:
        """The rest of a row: a chain of pages, each of which begins with the number of the next."""
        parts = []
        while n_bytes > 0:
            page = self._read(self._latest[int.from_bytes(number, "big")])
            parts.append(page[4 : 4 + n_bytes])
            number, n_bytes = page[:4], n_bytes - (self._size - 4)
        return b"".join(parts)


def _cells(page: bytes) -> Iterable[int]:
    """Where the rows of a page begin: section 1.6."""
    n_cells = min(int.from_bytes(page[3:5], "big"), (len(page) - 8) // 2)
    return struct.unpack_from(f">{n_cells}H", page, 8)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, where it ends): section 1.6, big-endian groups of seven bits, of a ninth byte all eight."""
    value = 0
    for byte in data[at : at + 8]:
        at, value = at + 1, value << 7 | byte & 0x7F
        if byte < 0x80:  # noqa: PLR2004 - the highest bit says that more follow
            return value, at
    return value << 8 | data[at], at + 1


def _columns(payload: bytes) -> Iterator[Any]:
    """The values of a record: section 2.1. Raises what is in UNREADABLE."""
    end, at = _varint(payload, 0)
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    for kind in kinds:
        n_bytes = _width(kind)
        yield _value(kind, payload[at : at + n_bytes])
        at += n_bytes
    if at != len(payload):
        message = "a record of another length than it says"
        raise ValueError(message)


def _width(kind: int) -> int:
    return INTEGERS[kind] if kind < FLOAT else 8 if kind == FLOAT else max(0, kind - FIRST_BLOB) // 2


def _value(kind: int, data: bytes) -> int | float | bytes | str | None:
    if kind >= FIRST_BLOB:
        return data.decode() if kind % 2 else data
    if kind in {ZERO, ONE}:
        return kind - ZERO
    if kind == FLOAT:
        return float(struct.unpack(">d", data)[0])
    return int.from_bytes(data, "big", signed=True) if kind else None
