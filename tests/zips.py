"""Archives as MIND has them, and as it does not."""

from __future__ import annotations

import random
import zipfile
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

NEWS = "N1\tsports\tgolf\tA title\tAn abstract\t\t[]\t[]\nN2\tnews\tworld\tAnother\t\t\t[]\t[]\n"
BEHAVIORS = "1\tU1\t11/15/2019 8:55:22 AM\tN1\tN2-1 N1-0\n"
SPLIT = {"news.tsv": NEWS, "behaviors.tsv": BEHAVIORS, "entity_embedding.vec": "Q1\t0.5\n"}
"""The files of a small split."""


def zipped(members: Iterable[tuple[str | zipfile.ZipInfo, str | bytes]], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip file with these members, in this order."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def mind(prefix: str = "", size: int = 0, seed: int = 0) -> bytes:
    """The zip file of a small split, `prefix` before its names; about `size` bytes of it cannot shrink."""
    noise = random.Random(seed).randbytes(size)  # noqa: S311 - no secret
    files: dict[str, str | bytes] = {**SPLIT, "relation_embedding.vec": noise}
    return zipped((prefix + name, content) for name, content in files.items())
