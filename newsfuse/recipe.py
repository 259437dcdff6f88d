"""All that decides what training comes to, by name: two runs with the same recipe have the same result."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import newsfuse
from newsfuse.artifact import sha256_of
from newsfuse.params import Params
from newsfuse.team import Team

SECTIONS = ("dataset", "encoders", "fusion", "model", "options", "plugin_packages", "seed", "train", "user_encoder")
"""Of params.yaml: what the train stage depends on."""
CODE = (Path(newsfuse.__file__).parent, Path("plugins"), Path("stages"))


@dataclass(frozen=True)
class Recipe:
    """Settings as they are, files and code by their sha256."""

    parts: Mapping[str, str]

    @classmethod
    def of(cls, params: Params, files: Sequence[Path], team: Team) -> "Recipe":
        """`files`: of those that are there, what they hold counts. `team`: who will train. Raises OSError."""
        settings = params.model_dump(mode="json", include=set(SECTIONS))
        read = {str(path): sha256_of(path) for path in files if path.exists()}
        where = {"processes": str(team.size), "device": team.device.type}
        libraries = {"torch": torch.__version__, "numpy": np.__version__}
        return cls({**dict(_flat(settings)), **read, **where, **libraries, "the code": _sha256_of_code()})

    @property
    def name(self) -> str:
        """16 hexadecimal digits, for a folder."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """What `from_json` reads."""
        return json.dumps(dict(self.parts), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """What `to_json` wrote. Raises ValueError."""
        parts = json.loads(text)
        if not isinstance(parts, dict):
            message = f"{text[:20]!r} is no recipe"
            raise ValueError(message)  # noqa: TRY004 - as of what is no JSON
        return cls(parts)

    def changes(self, other: "Recipe") -> list[str]:
        """Names of what differs, or is in one of the two alone."""
        names = sorted({*self.parts, *other.parts})
        return [name for name in names if self.parts.get(name) != other.parts.get(name)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value)


def _of_code(folder: Path) -> Iterator[Path]:
    """Its files, those included that plugins may keep beside them, without what Python compiles them to."""
    return (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _sha256_of_code() -> str:
    found = hashlib.sha256()
    for folder in CODE:
        for path in sorted(_of_code(folder)):
            found.update(f"{path.relative_to(folder)}\0{sha256_of(path)}\n".encode())
    return found.hexdigest()
