"""Zip files of strangers: MIND's four files are taken out of one, and nothing else can come of it.

An archive may name files outside its folder, hold links, or be a bomb (https://en.wikipedia.org/wiki/Zip_bomb), even
one whose members are all the same bytes (https://www.bamsoftware.com/hacks/zipbomb/). Its table of contents is checked
as a whole before anything is unpacked, and nothing can unpack to more than it says there. What is packed once more
inside stays so.
"""

import io
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Self

from newsfuse.artifact import flush
from newsfuse.errors import DataError, IntegrityError, NewsfuseError, StorageError

FILES = ("news.tsv", "behaviors.tsv", "entity_embedding.vec", "relation_embedding.vec")
REQUIRED = FILES[:2]

MOST_MEMBERS = 100
"""MIND's have four, and a few of an archiver's own making."""
MOST_BYTES = 8 << 30
"""Unpacked. MIND-large's training files are below 2 GiB."""
MOST_RATIO = 100
"""Unpacked to packed. MIND's files are at 3 to 8, the worst that deflate does is 1,032."""
MOST_CONTENTS = 1 << 20
"""Bytes of a table of contents, which zipfile reads into memory before it knows how many members there are."""
ORDINARY = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
"""Bits of a member's flags, of which the last two say how: section 4.4.4 of https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT."""
CHUNK = 1 << 18
"""Below MOST_CONTENTS, which bounds every read."""
NAME = re.compile(r"[^\x00-\x1f\x7f\\:]+")
"""No control characters; no backslash or colon, which elsewhere lead to other folders and drives."""


def unpack(archive: Path, folder: Path) -> None:
    """Put MIND's files out of `archive` into `folder`, which is empty: see `placing`.

    Files at the top and files in a folder of their own are both as MIND has them. Raises IntegrityError for an archive
    that is damaged or up to no good, DataError for one without news or behaviors, StorageError.
    """
    with _explained(archive), Sips.open(archive) as file, zipfile.ZipFile(file) as opened:
        require_modest(archive, opened.infolist(), of="MIND", most_members=MOST_MEMBERS, most_bytes=MOST_BYTES)
        members = _members(archive, opened.infolist())
        _require_room(folder, sum(member.file_size for member in members.values()), archive)
        for name, member in members.items():
            with opened.open(member) as source, (folder / name).open("xb") as target:
                shutil.copyfileobj(source, target, CHUNK)  # no more than file_size, and the CRC-32 is checked
        require(folder, archive)


class Sips(io.BufferedReader):
    """A file that is never read in large pieces, whatever its own table of contents says."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises OSError."""
        return cls(io.FileIO(path))

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises BadZipFile for a piece that is too large."""
        if size is not None and size > MOST_CONTENTS:
            message = f"its table of contents has {size:,} bytes, more than the {MOST_CONTENTS:,} allowed"
            raise zipfile.BadZipFile(message)
        return super().read(size)


def require(folder: Path, named: Path) -> None:
    """Raise DataError unless `folder` has news and behaviors; `named` is what the message is about."""
    for name in REQUIRED:
        path = folder / name
        if not path.is_file() or not path.stat().st_size:
            state = "an empty" if path.is_file() else "no"
            message = f"{named}: has {state} {name}; a split of MIND has {' and '.join(REQUIRED)}"
            raise DataError(message)


@contextmanager
def placing(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` to put files into; gets its name once they are all on the disk."""
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)  # of a run that was killed
    draft.mkdir(parents=True)
    try:
        yield draft
        for path in (*draft.iterdir(), draft):
            flush(path)
        draft.rename(folder)
        flush(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def require_modest(
    archive: Path, found: Sequence[zipfile.ZipInfo], *, of: str, most_members: int, most_bytes: int
) -> None:
    """Raise IntegrityError for the first thing that is wrong with a table of contents. `of`: whose archive it is."""
    if len(found) > most_members:
        raise _refusal(archive, f"has {len(found):,} members, more than the {most_members:,} allowed", of)
    total = sum(member.file_size for member in found)
    if total > most_bytes:
        raise _refusal(archive, f"would unpack to {total:,} bytes, more than the {most_bytes:,} allowed", of)
    for member in found:
        if wrong := _fault(member):
            raise _refusal(archive, f"member {member.filename!r} {wrong}", of)
    # so no member can pass for less tightly packed than it is, and none can be the same bytes as others
    packed, there = sum(member.compress_size for member in found), archive.stat().st_size
    if packed > there:
        raise _refusal(archive, f"says that its members are {packed:,} bytes, and is {there:,}", of)


def _members(archive: Path, found: Sequence[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """MIND's files among them, by name. Raises IntegrityError where one is there twice, in whatever letters."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in found:
        name = PurePosixPath(member.filename).name
        known = name.casefold()  # some file systems have one file for both
        if known in FILES and members.setdefault(known, member) is not member:
            twice = f"has {known} twice: {members[known].filename!r} and {member.filename!r}"
            raise _refusal(archive, twice, "MIND")
    return {name: member for name, member in members.items() if PurePosixPath(member.filename).name == name}


def _fault(member: zipfile.ZipInfo) -> str:
    """What is wrong with a member, "" if nothing is."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    parts = member.filename.removesuffix("/").split("/")
    faults = {
        "has a name that no file of MIND has": not NAME.fullmatch(member.filename),
        "has an absolute path": member.filename.startswith("/"),
        "leads out of its folder": ".." in parts,
        "has an empty part in its path": "" in parts or "." in parts,
        "is a link or a device": kind not in {0, stat.S_IFREG, stat.S_IFDIR},
        "is a folder where a file belongs": member.is_dir() and parts[-1] in FILES,
        "is encrypted": member.flag_bits & ENCRYPTED,
        f"is packed by method {member.compress_type}, not by deflate": member.compress_type not in ORDINARY,
        f"unpacks to more than {MOST_RATIO} times its size": member.file_size > MOST_RATIO * member.compress_size,
    }
    return next((fault for fault, found in faults.items() if found), "")


def _refusal(archive: Path, why: str, of: str) -> IntegrityError:
    return IntegrityError(f"{archive}: {why}; {of}'s archives are not so, and nothing was unpacked")


def _require_room(folder: Path, needed: int, archive: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        message = (
            f"{folder}: {archive.name} unpacks to {needed:,} bytes and {free:,} are free. "
            f"Nothing was unpacked, the archive is kept; free {needed - free:,} bytes and run again"
        )
        raise StorageError(message)


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    try:
        yield
    except NewsfuseError:
        raise
    except OSError as error:
        message = (
            f"{archive}: cannot be unpacked: {error.strerror or error}. Nothing was left behind, the archive is kept"
        )
        raise StorageError(message) from error
    # what zipfile raises on damage: a name that is no UTF-8, an unknown version, a bad stream, an end too early
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, zlib.error, EOFError) as error:
        message = f"{archive}: is no zip file, or damaged: {error}"
        raise IntegrityError(message) from error
