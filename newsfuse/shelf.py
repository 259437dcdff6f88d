"""Parsed behaviors, kept in the project by what the file holds, so that it is parsed once."""

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from filelock import FileLock, Timeout

from newsfuse import arrays, csr, parsed, tsv, words
from newsfuse.artifact import verified, writing
from newsfuse.environment import Environment
from newsfuse.errors import IntegrityError, StorageError
from newsfuse.parsed import Parsed
from newsfuse.root import project_root
from newsfuse.words import read_lines, write_lines

KIND = "behaviors"
FOLDER = Path(".newsfuse", "parsed")
SMALLEST = 1 << 20
"""Bytes of a file that is worth it: a smaller one is parsed in the time that looking it up takes."""
PIECE = 1 << 20
"""Bytes of a file that are hashed at once."""
MEGABYTE = 10**6
OVERHEAD = 4096
"""Bytes of an artifact beside its arrays: their headers and the manifest."""
TEXTS, ARRAYS = ("ids", "impressions"), tuple(each.name for each in fields(Parsed) if each.type == np.ndarray)
LOOKED_UP = ("history_ids", "candidate_ids")
"""Arrays that become others as soon as they are there: mapped instead of read."""

log = logging.getLogger(__name__)


def parsed_behaviors(path: Path, *, labelled: bool | None) -> Parsed:
    """What `Parsed.read` gives, from the project's shelf if that has it, which has it from then on.

    Raises DataError as that does. Nothing that is wrong with the shelf is an error: the file is parsed anew then.
    """
    shelf = Shelf.of_project()
    if shelf is None or not _worth_it(path):
        return Parsed.read(path, labelled=labelled)
    found = shelf.find(path)
    if found is not None and labelled in {None, found.labelled}:
        return found
    heard = Heard()
    fresh = Parsed.read(path, labelled=labelled, digest=heard)
    shelf.keep(heard, fresh)
    return fresh


def _worth_it(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK) and path.stat().st_size >= SMALLEST


class Heard:
    """The size of what was parsed, and the sha256 of the sha256s of its pieces, which two cores compute at once."""

    def __init__(self) -> None:
        self.size, self._pieces, self._open = 0, b"", hashlib.sha256()

    def update(self, data: bytes) -> None:
        """Take more bytes in."""
        view = memoryview(data)
        while view:
            part = view[: PIECE - self.size % PIECE]
            self._open.update(part)
            self.size, view = self.size + len(part), view[len(part) :]
            if self.size % PIECE == 0:
                self._pieces, self._open = self._pieces + self._open.digest(), hashlib.sha256()

    @property
    def sha256(self) -> str:
        """In hexadecimal."""
        last = self._open.digest() if self.size % PIECE else b""
        return hashlib.sha256(self._pieces + last).hexdigest()


def sha256_of(path: Path, pool: Executor) -> str:
    """The same of a file. Raises OSError."""
    with path.open("rb") as file:
        starts = range(0, path.stat().st_size, PIECE)
        pieces = pool.map(lambda start: hashlib.sha256(os.pread(file.fileno(), PIECE, start)).digest(), starts)
        return hashlib.sha256(b"".join(pieces)).hexdigest()


@dataclass(frozen=True)
class Shelf:
    """A folder with an artifact per parsed file; of more than `most_bytes` those not used for longest go."""

    folder: Path
    most_bytes: int

    @classmethod
    def of_project(cls) -> "Shelf | None":
        """That of the DVC project; None outside of one, or where NEWSFUSE_CACHE_MB is 0."""
        root, most_mb = project_root(), Environment.read().cache_mb
        return cls(root / FOLDER, most_mb * MEGABYTE) if root and most_mb else None

    def find(self, path: Path) -> Parsed | None:
        """What this file was parsed to, every array compared with its own sha256; None if it is not here."""
        same_size = list(self.folder.glob(f"{path.stat().st_size}-{_parser()[:8]}-*"))
        if not same_size:
            return None
        with ThreadPoolExecutor(2) as pool:
            loading = {entry.name: pool.submit(_load, entry) for entry in same_size}
            sha256 = sha256_of(path, pool)
        entry = self._entry(path.stat().st_size, sha256)
        return _checked(loading[entry.name], entry, sha256, path) if entry.name in loading else None

    def keep(self, heard: Heard, fresh: Parsed) -> None:
        """Put it on the shelf; says so if that cannot be done."""
        entry = self._entry(heard.size, heard.sha256)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock", blocking=False):
                if self._make_room(_size(fresh), entry):
                    _save(entry, heard.sha256, fresh)
        except Timeout:
            log.info("%s: another run is writing here; what this one parsed is not kept", self.folder)
        except (StorageError, OSError) as error:
            log.info("A parsed file could not be kept, the next run will parse it again: %s", error)

    def _entry(self, size: int, sha256: str) -> Path:
        return self.folder / f"{size}-{_parser()[:8]}-{sha256[:32]}"

    def _make_room(self, needed: int, entry: Path) -> bool:
        """Remove what a killed run left and what was used longest ago; whether `needed` bytes may be kept."""
        for left in self.folder.glob(".*.draft"):
            shutil.rmtree(left, ignore_errors=True)
        room = self.most_bytes - needed
        if room < 0:
            found = "%s: a parsed file of %d MB is not kept: NEWSFUSE_CACHE_MB allows %d"
            log.info(found, self.folder, needed // MEGABYTE, self.most_bytes // MEGABYTE)
            return False
        others = [each for each in self._entries() if each != entry]
        for each in sorted(others, key=lambda each: each.stat().st_mtime_ns, reverse=True):
            room -= sum(file.stat().st_size for file in each.iterdir())
            if room < 0:
                shutil.rmtree(each, ignore_errors=True)
        return True

    def _entries(self) -> Iterator[Path]:
        return (each for each in self.folder.iterdir() if each.is_dir())


def _checked(loading: Future[tuple[Parsed, Mapping[str, Any]]], entry: Path, sha256: str, path: Path) -> Parsed | None:
    try:
        found, settings = loading.result()
        wrong = settings != _settings(sha256, found)
    except (IntegrityError, OSError, ValueError, EOFError, KeyError, TypeError):
        wrong = True
    if wrong:
        log.warning("%s: the parsed copy is damaged or not ours; %s is parsed anew", entry, path)
        return None
    with contextlib.suppress(OSError):  # a read-only shelf serves as well
        os.utime(entry)
    return found


def _save(entry: Path, sha256: str, fresh: Parsed) -> None:
    with writing(entry, kind=KIND, settings=_settings(sha256, fresh)) as draft:
        for name in TEXTS:
            write_lines(draft / f"{name}.txt", getattr(fresh, name))
        for name in ARRAYS:
            arrays.save(draft / f"{name}.npy", getattr(fresh, name))


def _load(entry: Path) -> tuple[Parsed, Mapping[str, Any]]:
    settings = verified(entry, kind=KIND)
    found: dict[str, Any] = {name: read_lines(entry / f"{name}.txt") for name in TEXTS}
    found |= {name: arrays.load(entry / f"{name}.npy", mapped=name in LOOKED_UP) for name in ARRAYS}
    return Parsed(labelled=settings["labelled"], **found), settings


def _settings(sha256: str, content: Parsed) -> dict[str, Any]:
    return {"sha256": sha256, "parser": _parser(), "labelled": content.labelled}


@cache
def _parser() -> str:
    """The sha256 of what parses: nobody has to remember to raise a number when its code changes."""
    sources = [Path(str(module.__file__)).read_bytes() for module in (csr, parsed, tsv, words)]
    return hashlib.sha256(b"\0".join([*sources, Path(__file__).read_bytes(), pl.__version__.encode()])).hexdigest()


def _size(fresh: Parsed) -> int:
    texts: int = sum(int(getattr(fresh, name).str.len_bytes().sum()) + len(getattr(fresh, name)) for name in TEXTS)
    numbers: int = sum(getattr(fresh, name).nbytes for name in ARRAYS)
    return texts + numbers + OVERHEAD
