"""The key that the whole suite pays with, and the search for it in all that a test leaves behind."""

from __future__ import annotations

import base64
import bz2
import gzip
import lzma
import secrets
import subprocess
import zipfile
import zlib
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

START = b"sk-CANARY"
"""Also all that is left of the key where a server repeats half of it."""
KEY = f"{START.decode()}{secrets.token_hex(16)}"


def encoded(word: bytes) -> Iterator[bytes]:
    """The word in base64 (DVC's queue keeps its tasks so), wherever in a longer text it begins."""
    for offset in range(3):
        text = base64.b64encode(bytes(offset) + word)
        yield text[-(-8 * offset // 6) : (offset + len(word)) * 8 // 6]


NEEDLES = (
    START,
    *encoded(START),
    START.hex().encode(),
    START.hex().upper().encode(),
    START.decode().encode("utf-16-le"),
)
PACKED: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"\x78": zlib.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ": lzma.decompress,
}
"""What a packed file begins with, and how it is unpacked."""


def traces(folder: Path) -> list[str]:
    """Where under `folder` the key, or its beginning, is to be found: files, names, and every object of a Git folder.

    Objects that no ref leads to are among them, and so are those of refs/exps.
    """
    found = [str(path) for path in folder.rglob("*") if shows(path.name.encode())]
    found += [str(path) for path in folder.rglob("*") if path.is_file() and shows(path.read_bytes())]
    return found + [str(git) for git in repositories(folder) if shows(objects(git))]


def shows(content: bytes) -> bool:
    return any(needle in part for part in (content, *unpacked(content)) for needle in NEEDLES)


def unpacked(content: bytes) -> Iterator[bytes]:
    """What a packed file holds, once more packed or not; nothing of another one."""
    parts: list[bytes] = []
    with suppress(OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError):
        parts = [unpack(content) for start, unpack in PACKED.items() if content.startswith(start)]
        if content.startswith(b"PK"):
            with zipfile.ZipFile(BytesIO(content)) as archive:
                parts = [archive.read(member) for member in archive.infolist()]
    for part in parts:
        yield part
        yield from unpacked(part)


def repositories(folder: Path) -> Iterator[Path]:
    return (head.parent for head in folder.rglob("HEAD") if (head.parent / "objects").is_dir())


def objects(git: Path) -> bytes:
    """All objects of a repository, unpacked; `strings` of compressed ones would show nothing."""
    command = ("git", f"--git-dir={git}", "cat-file", "--batch-all-objects", "--batch", "--unordered")
    return subprocess.run(command, capture_output=True, check=True).stdout
