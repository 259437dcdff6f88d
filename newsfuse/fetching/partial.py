"""A download that is not finished: what there is of it, and of which file on which server it is a part."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from newsfuse.artifact import write_text


@dataclass(frozen=True)
class Origin:
    """The file that a part belongs to."""

    url: str
    total: int | None
    """Its bytes, where the server says."""
    validator: str | None
    """What the server calls this version of it: https://www.rfc-editor.org/rfc/rfc9110#section-8.8."""

    @classmethod
    def of(cls, url: str, total: int | None, headers: Mapping[str, str]) -> Self:
        """A weak tag (W/...) does not promise equal bytes, nor can it be sent back in If-Range."""
        tag = headers.get("ETag", "")
        return cls(url, total, tag if tag.startswith('"') else headers.get("Last-Modified"))


@dataclass(frozen=True)
class Partial:
    """`path` beside a note, .json, of where it comes from."""

    path: Path

    @classmethod
    def of(cls, target: Path) -> Self:
        """The one that is to become `target`."""
        return cls(target.with_name(f"{target.name}.part"))

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def origin(self, url: str) -> Origin | None:
        """What it is a part of, None unless it is one of the file at `url`."""
        with suppress(OSError, ValueError, TypeError, AttributeError):  # an unreadable note is none: start over
            origin = Origin(**json.loads(self._note.read_text(encoding="utf-8")))
            if origin.url == url and self.size:
                return origin
        return None

    def begin(self, origin: Origin) -> None:
        """Start over, as a part of this file. Raises OSError."""
        self.discard()
        write_text(self._note, json.dumps(asdict(origin), indent=1) + "\n")

    def discard(self) -> None:
        """Forget it, the note first: without it a part is not gone on with. Raises OSError."""
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    @property
    def _note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")
