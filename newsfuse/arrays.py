"""Arrays of numbers on disk, as numpy has them: .npy one, .npz several. Nothing else is written, and nothing else read.

numpy's format may hold Python objects too, and to read those is to run what the file says. But its header names the
type and the size, so that whatever is not numbers, or is not as long as it says, is refused before it is read.
"""

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from newsfuse.errors import IntegrityError

NUMBERS = frozenset("biufM")
"""Kinds of types: truth values, whole numbers with and without sign, floats, moments."""
SUFFIX = ".npy"


@dataclass(frozen=True)
class Header:
    """What an array says of itself."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def n_bytes(self) -> int:
        """Of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def save(path: Path, array: np.ndarray) -> None:
    """A .npy file. Raises TypeError for what is not numbers, OSError."""
    _require_numbers(array)
    np.save(path, array)


def save_all(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A .npz file, by name. Same arrays in the same order, same bytes. Raises TypeError, OSError."""
    for array in arrays.values():
        _require_numbers(array)
    np.savez(path, **arrays)  # type: ignore[arg-type] # mypy takes any of them for the one flag that savez has


def load(path: Path, *, mapped: bool = False) -> np.ndarray:
    """What `save` wrote; `mapped`: read-only and from the disk as needed. Raises IntegrityError, OSError."""
    with _explained(path), path.open("rb") as file:
        _require_whole(header(file), path.stat().st_size - file.tell())
        found: np.ndarray = np.load(path, mmap_mode="r" if mapped else None)
        return found


def load_all(path: Path, *, needed: str) -> dict[str, np.ndarray]:
    """What `save_all` wrote. Raises IntegrityError, also where there is none that is called `needed`, and OSError."""
    with _explained(path), zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            _require_plain(archive, member)
        if f"{needed}{SUFFIX}" not in archive.namelist():
            message = f"it lacks '{needed}'"
            raise ValueError(message)
        with np.load(path) as arrays:
            return dict(arrays)


def header(file: IO[bytes]) -> Header:
    """Of the array that begins here; the file is at its first number then. Raises ValueError."""
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return Header(shape, dtype)


def _require_plain(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise ValueError unless a member is an array as it stands: what is not packed cannot be a bomb."""
    if not member.filename.endswith(SUFFIX) or member.compress_type != zipfile.ZIP_STORED:
        message = f"'{member.filename}' is not an unpacked array"
        raise ValueError(message)
    with archive.open(member) as file:
        _require_whole(header(file), member.file_size - file.tell())


def _require_whole(found: Header, n_bytes: int) -> None:
    """Raise ValueError unless these are numbers, and as many as it says."""
    if found.dtype.kind not in NUMBERS:
        message = f"it holds {found.dtype}, not numbers"
        raise ValueError(message)
    if found.n_bytes != n_bytes:
        message = f"{found.dtype} {found.shape} would be {found.n_bytes:,} bytes, found {n_bytes:,}"
        raise ValueError(message)


def _require_numbers(array: np.ndarray) -> None:
    if array.dtype.kind not in NUMBERS:
        message = f"an array of {array.dtype} is not one of numbers"
        raise TypeError(message)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    # what numpy and zipfile raise on damage
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        remedy = f"newsfuse did not write it. Remove {path.parent} and make it again: dvc repro"
        message = f"{path}: no array that newsfuse reads: {error}. {remedy}"
        raise IntegrityError(message) from error
