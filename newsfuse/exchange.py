"""Vectors between the ledger and folders: `newsfuse ledger import` and `export`. Nothing is sent, nothing is paid."""

import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from newsfuse.artifact import MANIFEST, verified, writing
from newsfuse.bookkeeping import Holding, holdings, require_room
from newsfuse.embeddings import KIND as EMBED
from newsfuse.embeddings import write_rows
from newsfuse.environment import Environment
from newsfuse.errors import IntegrityError, ParamsError
from newsfuse.paid.ledger import Ledger, checksum, location
from newsfuse.paid.payer import Employer, sole_payer
from newsfuse.paid.space import KEY_BYTES, Space
from newsfuse.terminal import tell

LEDGER = "ledger"
"""The kind of an exported folder, as its manifest has it."""
VECTORS, KEYS = "vectors.npy", "keys"
ROW_BYTES = 256
"""Of a ledger's row beside its vector, generously."""
REQUEST = """
INSERT INTO spend (at, status, space, texts, tokens_estimated, tokens, usd, keys, note)
VALUES (?, 'imported', ?, ?, 0, 0, 0.0, ?, ?)
"""
VECTOR = "INSERT INTO vectors (key, request, sha256, vector) VALUES (?,?,?,?) ON CONFLICT (key) DO NOTHING"


@dataclass(frozen=True)
class Parcel:
    """A folder with vectors and their keys, verified."""

    folder: Path
    space: Space
    keys: Sequence[bytes]
    """One for each row; a key may come several times."""

    @classmethod
    def read(cls, folder: Path) -> "Parcel":
        """The folder, if it holds what the embed stage or `hand_out` wrote. Raises IntegrityError, ParamsError."""
        kind = _kind(folder)
        try:
            settings = verified(folder, kind=kind)
        except IntegrityError as error:
            # that remedy is to make it again, which would be paid for if the ledger is lost
            found = str(error).partition(" Make it again:")[0]
            message = f"{found} Nothing was imported. Fetch a whole one: dvc checkout --force, dvc pull, a backup"
            raise IntegrityError(message) from error
        if not (folder / KEYS).exists():
            made_by = settings.get("provider")
            message = f"{folder}: '{made_by}' made it for nothing and without keys, so there is nothing to import"
            raise ParamsError(message)
        parcel = cls(folder, _space(folder, settings), _keys(folder / KEYS))
        parcel.require_shape()
        return parcel

    def require_shape(self) -> None:
        """Raise IntegrityError unless there is a vector of the right length for each key.

        A row of the array may be several vectors: those of an article's views, side by side.
        """
        path, shape = self.folder / VECTORS, (len(self.keys), self.space.dimensions)
        with path.open("rb") as file:
            found = _header(file, path)
            n_bytes = path.stat().st_size - file.tell()
        if len(found[0]) == len(shape) and found[0][0] and not len(self.keys) % found[0][0]:
            views = len(self.keys) // found[0][0]
            shape = (found[0][0], views * self.space.dimensions)
        if found != (shape, False, np.dtype("<f4")) or n_bytes != 4 * math.prod(shape):
            message = f"{path}: holds {found[2]} {found[0]} in {n_bytes:,} bytes, expected float32 {shape}"
            raise IntegrityError(message)

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, vector as stored) of each row. Never holds more than one."""
        n_bytes = 4 * self.space.dimensions
        path = self.folder / VECTORS
        with path.open("rb") as file:
            _header(file, path)
            for key in self.keys:
                yield key, file.read(n_bytes)


# --- import


def take_in(folders: Sequence[Path]) -> None:
    """Put the vectors of all folders into the ledger; a key that has a vector keeps that one.

    All folders are verified before anything is written. Raises ParamsError, IntegrityError, StorageError.
    """
    parcels = [Parcel.read(each) for folder in folders for each in _unpacked(folder)]
    path = location(Environment.read())
    with sole_payer(path, Employer()), Ledger.writing(path) as ledger:
        ledger.require_whole()
        for parcel in parcels:
            new = _import(ledger, parcel)
            distinct = len(set(parcel.keys))
            tell(f"{parcel.folder}: {new:,} of {distinct:,} vectors are new ({parcel.space})")
    tell(f"{path}: imported, for nothing. See what is left to pay: newsfuse plan")


def _unpacked(folder: Path) -> Sequence[Path]:
    """The folder, or its sub-folders if `hand_out` wrote it."""
    within = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    return [folder] if (folder / MANIFEST).exists() or not within else within


def _import(ledger: Ledger, parcel: Parcel) -> int:
    """How many vectors were new; they come in one transaction, as one request that cost nothing."""
    new = {parcel.keys[position] for position in ledger.missing(parcel.keys)}
    if not new:
        return 0
    require_room(
        ledger.path.parent, 2 * len(new) * (4 * parcel.space.dimensions + ROW_BYTES)
    )  # in the log, in the file
    note = f"{len(new)} vectors of {parcel.folder}"
    values = (_now(), parcel.space.to_json(), len(new), b"".join(sorted(new)), note)
    with ledger.transaction() as database:
        request = database.execute(REQUEST, values).lastrowid
        rows = ((key, request, checksum(key, vector), vector) for key, vector in parcel.rows())
        database.executemany(VECTOR, rows)
    return len(new)


# --- export


def hand_out(folder: Path) -> None:
    """Write all vectors of the ledger to a new folder, a sub-folder for each space; whole or not at all.

    Takes no lock: what is paid meanwhile is not in it. Raises ParamsError, IntegrityError, StorageError.
    """
    path, folder = location(Environment.read()), folder.absolute()
    _require_new(folder)
    with Ledger.reading(path) as ledger:
        found = holdings(ledger)
        if not found:
            message = f"{path}: {'holds no vectors' if path.exists() else 'is not there'}, so nothing was exported"
            raise ParamsError(message)
        draft = folder.with_name(f".{folder.name}.draft")
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            require_room(draft, sum(len(each.keys) * (4 * each.space.dimensions + ROW_BYTES) for each in found))
            for holding in found:
                _export(ledger, holding, draft / _name(holding.space))
            draft.replace(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    for holding in found:
        tell(f"{folder / _name(holding.space)}: {len(holding.keys):,} vectors ({holding.space})")


def _require_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        message = f"{folder}: is there already. Name a folder that is not; export never writes over anything"
        raise ParamsError(message)


def _name(space: Space) -> str:
    """Of the sub-folder: for a reader, and with a hash because two spaces may differ in their options alone."""
    words = re.sub(r"[^A-Za-z0-9.]+", "-", f"{space.provider} {space.model} {space.dimensions}").strip("-.")
    return f"{words[:100]}-{hashlib.sha256(space.to_json().encode()).hexdigest()[:8]}"


def _export(ledger: Ledger, holding: Holding, folder: Path) -> None:
    shape = (len(holding.keys), holding.space.dimensions)
    with writing(folder, kind=LEDGER, settings=holding.space.to_dict()) as draft:
        write_rows(draft, shape, holding.keys, ledger.vectors(holding.keys, holding.space.dimensions))


# --- a folder's files


def _kind(folder: Path) -> str:
    """What the manifest says the folder is; the embed stage's if it does not say. Raises ParamsError."""
    if not (folder / MANIFEST).is_file():
        found = "holds no " + MANIFEST if folder.is_dir() else "no such folder"
        message = f"{folder}: {found}; expected data/<dataset>/embeddings, or what newsfuse ledger export wrote"
        raise ParamsError(message)
    with suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["kind"] == LEDGER:
            return LEDGER
    return EMBED


def _space(folder: Path, settings: Mapping[str, Any]) -> Space:
    try:
        return Space(**{field.name: settings[field.name] for field in fields(Space)})
    except KeyError as error:
        message = f"{folder / MANIFEST}: says no {error}, so it cannot be told which vectors these are"
        raise IntegrityError(message) from error


def _keys(path: Path) -> list[bytes]:
    try:
        keys = [bytes.fromhex(line) for line in path.read_text(encoding="utf-8").split()]
    except ValueError as error:
        message = f"{path}: not a key of {2 * KEY_BYTES} hexadecimal digits a line ({error})"
        raise IntegrityError(message) from error
    if wrong := [number for number, key in enumerate(keys, 1) if len(key) != KEY_BYTES]:
        message = f"{path}:{wrong[0]}: no key, expected {2 * KEY_BYTES} hexadecimal digits"
        raise IntegrityError(message)
    return keys


def _header(file: BinaryIO, path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, Fortran order, type) of an array, the file then being at its first number. Raises IntegrityError."""
    try:
        np.lib.format.read_magic(file)
        return np.lib.format.read_array_header_1_0(file)
    except ValueError as error:
        message = f"{path}: no array of numpy's: {error}"
        raise IntegrityError(message) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
