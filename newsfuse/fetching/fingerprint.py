"""What tells a file from any other: its size and a digest; and the fingerprints that a project remembers."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newsfuse.artifact import write_text
from newsfuse.errors import IntegrityError

FILE = "archives.json"
"""In a data set's folder and in Git: {name of an archive: {"bytes": ..., "sha256": ...}}."""


@dataclass(frozen=True)
class Fingerprint:
    """Of a file."""

    bytes: int
    algorithm: str
    """As hashlib names it."""
    digest: str
    """In hexadecimal."""

    @classmethod
    def of(cls, path: Path, algorithm: str = "sha256") -> "Fingerprint":
        """That of a file. Raises OSError."""
        with path.open("rb") as file:
            # md5 is what others have recorded: it tells damage, and https tells forgery
            digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
        return cls(path.stat().st_size, algorithm, digest.hexdigest())

    def __str__(self) -> str:
        """As a reader compares it."""
        return f"{self.bytes:,} bytes with {self.algorithm} {self.digest}"


def recall(folder: Path, name: str) -> Fingerprint | None:
    """What the data set in `folder` remembers of the archive `name`. Raises IntegrityError where that is unreadable."""
    entry = _entries(folder).get(name)
    return Fingerprint(entry["bytes"], "sha256", entry["sha256"]) if entry else None


def remember(folder: Path, name: str, fingerprint: Fingerprint) -> None:
    """Note the sha256 of an archive. Raises IntegrityError, OSError."""
    entry = {"bytes": fingerprint.bytes, fingerprint.algorithm: fingerprint.digest}
    entries = {**_entries(folder), name: entry}
    write_text(folder / FILE, json.dumps(entries, indent=1, sort_keys=True) + "\n")


def _entries(folder: Path) -> Mapping[str, dict[str, Any]]:
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        entries: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        for entry in entries.values():
            int(entry["bytes"]), str(entry["sha256"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        expected = 'expected {"<archive>": {"bytes": ..., "sha256": "..."}}'
        message = f"{path}: cannot be read ({error}); {expected}. Bring it back: git checkout {path}"
        raise IntegrityError(message) from error
    return entries
