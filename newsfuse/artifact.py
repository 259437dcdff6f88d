"""A stage's output folder: written whole or not at all, and verified before anybody uses it."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import Any

from newsfuse.errors import IntegrityError, StorageError

SCHEMA = 1
MANIFEST = "manifest.json"
SEAL, UNSEALED = "sha256", {"schema", "kind", "settings", "files"}
DISTRUST = 'chmod -R u+w "$(dvc cache dir)"'
"""DVC trusts objects of its cache that are read-only: a damaged one would be served again at the next checkout."""
STAGES = ("embed", "graph", "train", "evaluate")
"""Kinds of artifacts that DVC makes, each by the stage of that name."""


@contextmanager
def writing(folder: Path, *, kind: str, settings: Mapping[str, Any]) -> Iterator[Path]:
    """A new folder beside `folder` to put files into; takes `folder`'s place once they are all there.

    A manifest with the sha256 of each file, the `settings` that made them and the sha256 of all this is added. It
    holds no time and no host name, so that the same work gives the same bytes. Raises StorageError.
    """
    draft = folder.with_name(f".{folder.name}.draft")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        there = sorted(draft.iterdir())
        files = {path.name: {"sha256": sha256_of(path), "bytes": path.stat().st_size} for path in there}
        manifest = _sealed({"schema": SCHEMA, "kind": kind, "settings": dict(settings), "files": files})
        (draft / MANIFEST).write_text(_text(manifest), encoding="utf-8")
        for path in draft.iterdir():
            flush(path)
        flush(draft)
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)
        flush(folder.parent)
    except OSError as error:
        raise unwritten(folder, error, "Nothing was left behind") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """A text file that is there whole or not at all. Raises StorageError."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        flush(draft)
        draft.replace(path)
    except OSError as error:
        raise unwritten(path, error, "What was there is as it was") from error
    finally:
        with suppress(OSError):  # of a folder that is none, say: it was told above
            draft.unlink()


def verified(folder: Path, *, kind: str) -> dict[str, Any]:
    """The manifest's settings, once every file of the artifact was found whole. Raises IntegrityError."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        hashes = {name: file["sha256"] for name, file in manifest["files"].items()}
        found = (manifest["schema"], manifest["kind"])
        settings: dict[str, Any] = manifest["settings"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{folder}: no readable {MANIFEST} ({error}). {_remedy(folder, kind)}"
        raise IntegrityError(message) from error
    if found != (SCHEMA, kind):
        wanted = f"expected {kind!r} of schema {SCHEMA}"
        message = f"{folder}: holds {found[1]!r} of schema {found[0]}, {wanted}. {_remedy(folder, kind)}"
        raise IntegrityError(message)
    if not _is_whole(manifest):
        message = f"{folder / MANIFEST}: damaged (its sha256 is not the one in it). {_remedy(folder, kind)}"
        raise IntegrityError(message)
    for name, sha256 in hashes.items():
        path = folder / name
        if not path.is_file() or sha256_of(path) != sha256:
            message = f"{path}: missing or damaged (its sha256 is not the one in {MANIFEST}). {_remedy(folder, kind)}"
            raise IntegrityError(message)
    return settings


def _remedy(folder: Path, kind: str) -> str:
    if kind not in STAGES:
        return f"Make it again: rm -rf {quote(str(folder))}, and run what wrote it"
    # not forced: a whole one in the cache needs neither a ledger nor hours
    return f"Should the same come again, DVC has kept it so: add --force. Make it again: {again(folder, kind)}"


def again(folder: Path, stage: str, *, force: bool = False) -> str:
    """The command that makes a stage's artifact once more; `force`: even where DVC's cache has one as it was."""
    return f"rm -rf {quote(str(folder))} && {DISTRUST} && dvc repro{' --force' * force} --single-item {stage}"


def _sealed(content: dict[str, Any]) -> dict[str, Any]:
    """With the sha256 of its text, as it will be read, beside it."""
    read = json.loads(_text(content))
    return {**read, SEAL: _seal(read)}


def _is_whole(manifest: dict[str, Any]) -> bool:
    """Whether it is as it was written. Older ones have no sha256 of their own, and nothing else then."""
    if manifest.keys() == UNSEALED:
        return True
    return bool(manifest.get(SEAL) == _seal({name: value for name, value in manifest.items() if name != SEAL}))


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text(content).encode()).hexdigest()


def _text(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=1, sort_keys=True) + "\n"


def unwritten(path: Path, error: OSError, left: str) -> StorageError:
    """What to raise: `path` could not be written, and what is `left` of it."""
    remedy = f"{left}; free some space or mend the permissions and run again"
    return StorageError(f"{path}: could not be written: {error.strerror or error}. {remedy}")


def sha256_of(path: Path) -> str:
    """Of a file, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
