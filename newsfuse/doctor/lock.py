"""dvc.lock: what each stage read when it last ran."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

FILE = "dvc.lock"
FOLDER_HASH = ".dir"
"""End of the md5 of a folder, which is one of a list in DVC's own format."""


@dataclass(frozen=True)
class Lock:
    """The stages that have run."""

    root: Path
    stages: Mapping[str, Any]

    @classmethod
    def read(cls, root: Path) -> "Lock":
        """That of the project; an empty one where there is none that can be read."""
        try:
            found = yaml.safe_load((root / FILE).read_text(encoding="utf-8"))
            stages = found["stages"]
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
            stages = {}
        return cls(root, stages if isinstance(stages, dict) else {})

    def made(self, stage: str, out: Path) -> bool:
        """Whether `out` is what the stage made when it last ran, and not that of another data set."""
        return out.relative_to(self.root).as_posix() in self._md5s(stage, "outs")

    def changed(self, stage: str) -> list[str]:
        """Files that are not what they were when the stage last ran. Of folders nothing is known."""
        deps = self._md5s(stage, "deps").items()
        return [path for path, md5 in deps if not md5.endswith(FOLDER_HASH) and self._md5(path) != md5]

    def _md5s(self, stage: str, kind: str) -> Mapping[str, str]:
        try:
            return {each["path"]: each["md5"] for each in self.stages[stage][kind] if "md5" in each}
        except (KeyError, TypeError):  # nothing that DVC wrote: what is not known has not changed
            return {}

    def params(self, stage: str) -> Mapping[str, Any]:
        """Settings of params.yaml that the stage ran with; {} where none are known."""
        try:
            return {**self.stages[stage]["params"]["params.yaml"]}
        except (KeyError, TypeError):
            return {}

    def _md5(self, path: str) -> str:
        """Of a file; "" where there is none."""
        if path not in self._known:
            self._known[path] = _md5(self.root / path)
        return self._known[path]

    @cached_property
    def _known(self) -> dict[str, str]:
        return {}


def _md5(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError:
        return ""
