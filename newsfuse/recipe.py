"""All that decides what training comes to, by name: two runs with the same recipe have the same result."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import newsfuse
from newsfuse.params import Params

SECTIONS = ("dataset", "encoders", "fusion", "model", "options", "plugin_packages", "seed", "train", "user_encoder")
"""Of params.yaml: what the train stage depends on."""
CODE = (Path(newsfuse.__file__).parent, Path("plugins"))


@dataclass(frozen=True)
class Recipe:
    """Settings as they are, files and code by their sha256."""

    parts: Mapping[str, str]

    @classmethod
    def of(cls, params: Params, files: Sequence[Path]) -> "Recipe":
        """`files`: of those that are there, what they hold counts. Raises OSError."""
        settings = params.model_dump(mode="json", include=set(SECTIONS))
        read = {str(path): _sha256(path) for path in files if path.exists()}
        return cls({**dict(_flat(settings)), **read, "the code": _sha256_of_code(), "torch": torch.__version__})

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
        return cls(json.loads(text))

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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_code() -> str:
    found = hashlib.sha256()
    for folder in CODE:
        for path in sorted(folder.rglob("*.py")):
            found.update(f"{path.relative_to(folder)}\0{_sha256(path)}\n".encode())
    return found.hexdigest()
