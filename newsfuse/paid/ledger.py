"""The ledger: every vector that was ever paid for, and every request, in one SQLite file.

Its promises rest on the order of its writes. A request is written down before it is sent; its
vectors and the word that it is done are one transaction, on disk before the next request is sent;
the first vector of a key stays. So a crash at any moment loses at most what was in flight.
"""

import contextlib
import hashlib
import logging
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any, Self

import numpy as np
import psutil

from newsfuse.artifact import flush
from newsfuse.environment import Environment
from newsfuse.errors import BusyError, IntegrityError, NewsfuseError, StorageError
from newsfuse.paid.space import KEY_BYTES, Space
from newsfuse.root import enclosing, project_root

APPLICATION_ID = 0x6E667573
"""In the file's header (https://www.sqlite.org/fileformat2.html, offset 68): "nfus"."""
SCHEMA = 1
"""In the file's header, offset 60."""
HANDING_IN, HANDED_IN = "handing in", "handed in"
"""The states of a job that nobody has collected yet: before it has the provider's name, and after."""
PAGE_BYTES = 32_768
"""Five vectors of 1,536 numbers to a page; with SQLite's 4,096 each vector would fill two pages and a half."""
CHUNK = 512
"""Rows read at a time."""
REMOTE = ("nfs", "cifs", "smb", "9p", "afs", "fuse", "vboxsf", "virtiofs", "lustre", "ceph")
"""File systems on which a WAL's shared memory may not be shared: https://www.sqlite.org/wal.html."""
TABLES = """
CREATE TABLE spend (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,           -- when it was sent, UTC
    status TEXT NOT NULL,       -- sent, done, failed, useless, imported; of a job also handing in, handed in, given up
    space TEXT NOT NULL,        -- JSON: provider, host, model, dimensions, ...
    texts INTEGER NOT NULL,
    tokens_estimated INTEGER NOT NULL,
    tokens INTEGER,             -- billed
    usd REAL,
    keys BLOB NOT NULL,         -- of its texts, 32 bytes each
    reference TEXT,             -- the provider's name of a job; ours while it is being handed in
    note TEXT                   -- what went wrong
);
CREATE TABLE vectors (
    key BLOB PRIMARY KEY,
    request INTEGER NOT NULL REFERENCES spend (id),
    sha256 BLOB NOT NULL,       -- of key and vector
    vector BLOB NOT NULL        -- float32, little-endian
);
CREATE TABLE quarantine (       -- rows of vectors that did not pass their sha256
    key BLOB, request INTEGER, sha256 BLOB, vector BLOB
);
"""

log = logging.getLogger(__name__)


class NewerLedgerError(IntegrityError):
    """A ledger that a newer newsfuse wrote: whole, as far as this one can tell."""


def location(environment: Environment) -> Path:
    """NEWSFUSE_LEDGER, else .newsfuse/ledger.sqlite, from the root of the DVC project.

    DVC sets DVC_ROOT for its stages: in an experiment's copy of the project it is the project that
    was copied, so that all share one ledger, which also outlives the copy.
    """
    root = project_root() or Path.cwd()
    path = root / (environment.ledger or Path(".newsfuse", "ledger.sqlite")).expanduser()
    return path.resolve()  # the lock lies beside it: two links to one ledger must not have a lock each


def project(folder: Path) -> Path:
    """The root of the DVC project that `folder` is in; `folder` itself where there is none."""
    return enclosing(folder) or folder


@dataclass(frozen=True)
class Request:
    """One line of the spend table."""

    id: int
    at: str
    status: str
    space: Space
    texts: int
    tokens_estimated: int
    tokens: int | None
    usd: float | None
    keys: tuple[bytes, ...]
    reference: str | None
    note: str | None


class Ledger:
    """An open ledger. Not thread-safe by itself; one process at a time may write (`payer`)."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self.path, self._database = path, database

    @classmethod
    @contextlib.contextmanager
    def reading(cls, path: Path) -> Iterator[Self]:
        """The ledger at `path`, for reading; an empty one where there is none. Raises IntegrityError, StorageError."""
        with explained(path), contextlib.closing(_connect(path, "ro") if path.exists() else _empty()) as database:
            yield cls(path, database)

    @classmethod
    @contextlib.contextmanager
    def writing(cls, path: Path) -> Iterator[Self]:
        """The ledger at `path`, made if need be. Only for the holder of `sole_payer`.

        Raises IntegrityError for a file that is damaged or not ours, which is never written to; StorageError.
        """
        if not path.exists():
            _create(path)
        if not path.stat().st_mode & stat.S_IWUSR or not os.access(path, os.W_OK):
            message = f"{path}: the ledger is read-only, so nothing may be paid. Allow it: chmod u+w {quote(str(path))}"
            raise IntegrityError(message)
        with explained(path), contextlib.closing(_connect(path, "rw")) as database:
            _set_journal(path, database)
            yield cls(path, database)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and on disk at the end. Raises IntegrityError, StorageError."""
        with explained(self.path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
                    self._database.execute("ROLLBACK")
                raise

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Positions of the keys that have no vector."""
        with explained(self.path):
            known = {row[0] for part in _parts(keys) for row in self._rows("SELECT key FROM vectors", part)}
        return [position for position, key in enumerate(keys) if key not in known]

    def vectors(self, keys: Sequence[bytes], dimensions: int) -> Iterator[np.ndarray]:
        """The vectors of all `keys`, in order, as float32 (up to CHUNK, dimensions) at a time.

        Raises IntegrityError for a vector that is missing or does not pass its sha256.
        """
        for part in _parts(keys):
            with explained(self.path):
                rows = self._rows("SELECT key, sha256, vector FROM vectors", part)
                found = {key: vector for key, sha256, vector in rows if checksum(key, vector) == sha256}
            whole = {key: vector for key, vector in found.items() if len(vector) == 4 * dimensions}
            if bad := sum(key not in whole for key in part):
                message = f"{self.path}: {bad} vectors are damaged or gone. {REMEDY}"
                raise IntegrityError(message)
            yield np.frombuffer(b"".join(whole[key] for key in part), "<f4").reshape(len(part), dimensions)

    def _rows(self, select: str, keys: Sequence[bytes]) -> sqlite3.Cursor:
        marks = ",".join("?" * len(keys))
        return self._database.execute(f"{select} WHERE key IN ({marks})", keys)

    def sent(
        self,
        space: Space,
        keys: Sequence[bytes],
        tokens_estimated: int,
        *,
        status: str = "sent",
        reference: str | None = None,
    ) -> int:
        """Write down a request that is about to be sent -> its number."""
        values = (_now(), status, space.to_json(), len(keys), tokens_estimated, b"".join(keys), reference)
        with self.transaction() as database:
            done = database.execute(
                "INSERT INTO spend (at, status, space, texts, tokens_estimated, keys, reference)"
                " VALUES (?,?,?,?,?,?,?)",
                values,
            )
        return int(done.lastrowid or 0)

    def done(self, request: int, keys: Sequence[bytes], vectors: np.ndarray, tokens: int, usd: float) -> None:
        """Keep what a request brought, in one transaction."""
        with self.transaction() as database:
            keep(database, request, keys, vectors)
            settle(database, request, "done", tokens, usd)

    def ended(self, request: int, status: str, tokens: int, usd: float, note: str) -> None:
        """Write down that a request brought no vectors, and why."""
        with self.transaction() as database:
            settle(database, request, status, tokens, usd, note=note)

    def refer(self, request: int, reference: str) -> None:
        """Write down the provider's name for a job, which is handed in by that."""
        with self.transaction() as database:
            database.execute("UPDATE spend SET status = ?, reference = ? WHERE id = ?", (HANDED_IN, reference, request))

    def requests(self, *statuses: str) -> list[Request]:
        """The spend table, oldest first; of some statuses, or all."""
        columns = "id, at, status, space, texts, tokens_estimated, tokens, usd, keys, reference, note"
        chosen = f"WHERE status IN ({','.join('?' * len(statuses))})" if statuses else ""
        with explained(self.path):
            query = f"SELECT {columns} FROM spend {chosen} ORDER BY id"  # noqa: S608 - ours
            rows = self._database.execute(query, statuses).fetchall()
        try:
            return [_request(*row) for row in rows]
        except (ValueError, TypeError) as error:  # a flipped bit in a space's JSON
            message = f"{self.path}: the ledger is damaged ({error}). {REMEDY}"
            raise IntegrityError(message) from error

    def query(self, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """The answer to a question that only newsfuse.bookkeeping asks. Raises IntegrityError, StorageError."""
        with explained(self.path):
            yield from self._database.execute(sql, values)

    def require_whole(self) -> None:
        """Raise IntegrityError unless SQLite finds its structure whole: a lost key would be paid for again."""
        with explained(self.path):
            found = [row[0] for row in self._database.execute("PRAGMA integrity_check(3)")]
        if found != ["ok"]:
            message = f"{self.path}: the ledger is damaged ({'; '.join(found)[:200]}). {REMEDY}"
            raise IntegrityError(message)


NEW = f"""
PRAGMA page_size = {PAGE_BYTES};
BEGIN;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA};
{TABLES}
COMMIT;
"""
REMEDY = (
    "Nothing in it was changed. Save its good rows: newsfuse ledger verify. "
    "Then rebuild the rest for nothing from what was made with it: newsfuse ledger import data/<dataset>/embeddings"
)


def keep(database: sqlite3.Connection, request: int, keys: Sequence[bytes], vectors: np.ndarray) -> None:
    """Keep float32 (len(keys), dimensions), as part of a transaction. A key that has a vector keeps that one."""
    rows = [row.tobytes() for row in vectors.astype("<f4", copy=False)]
    database.executemany(
        "INSERT INTO vectors (key, request, sha256, vector) VALUES (?,?,?,?) ON CONFLICT (key) DO NOTHING",
        ((key, request, checksum(key, row), row) for key, row in zip(keys, rows, strict=True)),
    )


def settle(
    database: sqlite3.Connection, request: int, status: str, tokens: int, usd: float, *, note: str | None = None
) -> None:
    """Write down what has become of a request, as part of a transaction."""
    values = (status, tokens, usd, note, request)
    database.execute("UPDATE spend SET status = ?, tokens = ?, usd = ?, note = ? WHERE id = ?", values)


def checksum(key: bytes, vector: bytes) -> bytes:
    """sha256 of a row: a vector under a wrong key is as bad as a wrong vector."""
    return hashlib.sha256(key + vector).digest()


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, by its result codes (https://www.sqlite.org/rescode.html)."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter where a message quotes a damaged schema
        raise _explanation(path, error) from error


def _explanation(path: Path, error: sqlite3.Error | UnicodeDecodeError) -> NewsfuseError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
        return StorageError(f"{path}: could not be written or read: {error}. Free some space and run again")
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return StorageError(f"{path}: may not be opened or written: {error}. Mend the permissions and run again")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return BusyError(f"{path}: another program holds the file ({error}). Run again when it is done")
    return IntegrityError(f"{path}: the ledger is damaged ({error}). {REMEDY}")


def _check_header(path: Path) -> None:
    """By the bytes, before SQLite sees the file: it would fill an empty one, and may write to any other."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}"
        raise StorageError(message) from error
    application, version = (int.from_bytes(header[at : at + 4], "big") for at in (68, 60))
    if len(header) == 100 and application == APPLICATION_ID and version > SCHEMA:  # noqa: PLR2004 - bytes of the header
        message = (
            f"{path}: was written by a newer newsfuse (schema {version}, this one knows {SCHEMA}). Update newsfuse"
        )
        raise NewerLedgerError(message)
    if not header.startswith(b"SQLite format 3\0") or application != APPLICATION_ID:
        found = "is empty" if not header else "is no ledger of newsfuse, or its first page is damaged"
        rebuild = f"mv {quote(str(path))} {quote(f'{path}.broken')} && newsfuse ledger import data/<dataset>/embeddings"
        message = f"{path}: {found}. It was not changed. Rebuild it for nothing: {rebuild}"
        raise IntegrityError(message)


def _create(path: Path) -> None:
    """Under another name first: a file with the ledger's name is a ledger, whenever we are interrupted."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with explained(draft), contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as database:
        database.executescript(NEW)
    draft.replace(path)
    flush(path.parent)


def _empty() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.executescript(NEW)
    return database


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    _check_header(path)
    if path.with_name(f"{path.name}-journal").exists():
        mode = "rw"  # whoever comes first after a crash rolls back what it left half done
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    database = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10, check_same_thread=False)
    try:
        database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.Error as error:
        database.close()
        # a WAL needs a file beside it, which a read-only folder does not allow; without a WAL nothing can change
        may_heal = mode == "ro" and isinstance(error, sqlite3.OperationalError)
        if not may_heal or path.with_name(f"{path.name}-wal").exists():
            raise
        database = sqlite3.connect(f"{uri}&immutable=1", uri=True, isolation_level=None, check_same_thread=False)
    return database


def _set_journal(path: Path, database: sqlite3.Connection) -> None:
    kind = _file_system(path)
    mode = "DELETE" if kind.startswith(REMOTE) else "WAL"
    (found,) = database.execute(f"PRAGMA journal_mode = {mode}").fetchone()
    if found.upper() != "WAL":
        log.info("%s: on %s, so a rollback journal is used instead of a write-ahead log", path, kind or "this disk")
    # without a WAL, FULL may lose the last transaction in a power cut: https://www.sqlite.org/pragma.html, synchronous
    database.execute(f"PRAGMA synchronous = {'FULL' if found.upper() == 'WAL' else 'EXTRA'}")


def _file_system(path: Path) -> str:
    """The type of the file system that holds `path`, such as ext4 or nfs4; "" if the machine does not say."""
    resolved = path.resolve()
    mounts = [each for each in psutil.disk_partitions(all=True) if resolved.is_relative_to(each.mountpoint)]
    return max(mounts, key=lambda each: len(each.mountpoint)).fstype if mounts else ""


def _request(*values: object) -> Request:
    row = dict(zip(Request.__dataclass_fields__, values, strict=True))
    joined = bytes(row["keys"]) if isinstance(row["keys"], bytes) else b""
    keys = tuple(joined[start : start + KEY_BYTES] for start in range(0, len(joined), KEY_BYTES))
    return Request(**{**row, "space": Space.from_json(str(row["space"])), "keys": keys})  # type: ignore[arg-type]


def _parts(keys: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    return (keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
