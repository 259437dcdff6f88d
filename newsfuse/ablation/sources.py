"""What the stages read and none of them makes, as a queued run gets it: what Git and DVC track."""

import hashlib
import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from newsfuse.dotted import dotted
from newsfuse.errors import DataError, ParamsError

PIPELINE = Path("dvc.yaml")
WORDS = ("desc", "meta")
"""Of a stage, what changes nothing that it makes."""
FEW = 5
"""Files that a message names."""


@dataclass(frozen=True)
class Sources:
    """The stages of a project's dvc.yaml, and the files that they depend on. Paths count from the project's root."""

    root: Path
    stages: Mapping[str, Any]
    tracked: tuple[str, ...]
    """Files that Git knows, changed or not; of what DVC tracks they are the .dvc files."""

    @classmethod
    def of(cls, root: Path, params: Mapping[str, Any]) -> "Sources":
        """For the settings `params`, as nested as in params.yaml.

        Raises ParamsError for files that Git does not know yet, DataError for data that nobody tracks: a queued run
        would have neither.
        """
        stages = _stages(root)
        read = _read(stages, dict(dotted(params)))
        pointers = {path: _pointers(path) for path in read}
        asked = sorted({*read, *(each for some in pointers.values() for each in some)})
        tracked = _listed(root, asked)
        _refuse_untracked(_listed(root, asked, "--others", "--exclude-standard"))
        for path in read:
            if not any(each == path or each.startswith(f"{path}/") or each in pointers[path] for each in tracked):
                raise DataError(_nowhere(root, path))
        return cls(root, stages, tracked)

    @property
    def identity(self) -> str:
        """A sha256 of all of it, uncommitted changes included, which queued runs have too."""
        files = {path: _sha256(self.root / path) for path in self.tracked}
        stages = {
            name: {key: value for key, value in stage.items() if key not in WORDS}
            for name, stage in self.stages.items()
        }
        return hashlib.sha256(json.dumps([files, stages], sort_keys=True).encode()).hexdigest()


def _stages(root: Path) -> Mapping[str, Any]:
    try:
        stages = yaml.safe_load((root / PIPELINE).read_text(encoding="utf-8"))["stages"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        message = f"{PIPELINE}: has no stages that can be read in {root.resolve()}; run this in the root of a project"
        raise ParamsError(message) from error
    return stages if isinstance(stages, dict) else {}


def _read(stages: Mapping[str, Any], params: Mapping[str, Any]) -> list[str]:
    """Dependencies that are no stage's outs."""
    deps = {_filled(path, params) for stage in stages.values() for path in _paths(stage.get("deps", ()))}
    outs = {_filled(path, params) for stage in stages.values() for path in _paths(stage.get("outs", ()))}
    return sorted(path for path in deps if not outs & {path, *map(str, PurePosixPath(path).parents)})


def _paths(entries: Sequence[str | Mapping[str, Any]]) -> Iterator[str]:
    for entry in entries:
        yield from [entry] if isinstance(entry, str) else entry  # {path: {cache: false}}


def _filled(path: str, params: Mapping[str, Any]) -> str:
    """`data/${dataset}/train` with the setting's value."""
    return re.sub(r"\$\{\s*([^}\s]+)\s*\}", lambda found: str(params.get(found[1], found[0])), path)


def _pointers(path: str) -> list[str]:
    """The .dvc files that a path may be tracked by: data/small/train/news.tsv by data/small/train.dvc."""
    parents = (str(each) for each in PurePosixPath(path).parents if each.name)
    return [f"{each}.dvc" for each in (path, *parents)]


def _listed(root: Path, paths: Sequence[str], *flags: str) -> tuple[str, ...]:
    """The files that Git lists of the paths."""
    command = ["git", "--literal-pathspecs", "ls-files", "-z", *flags, "--", *paths]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603 - a list, no shell
    if done.returncode:
        message = f"{root.resolve()}: is in no DVC project with Git, which alone has experiments"
        raise ParamsError(message)
    return tuple(sorted(name for name in done.stdout.split("\0") if name))


def _refuse_untracked(names: Sequence[str]) -> None:
    if names:
        more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
        found = f"{', '.join(names[:FEW])}{more}: stages read it, and a queued run gets only what Git knows"
        message = f"{found}. Type: git add {shlex.join(names[:FEW])}"
        raise ParamsError(message)


def _nowhere(root: Path, path: str) -> str:
    if not (root / path).exists():
        return f"{path}: is not there, and a stage reads it. For MIND: newsfuse fetch --help"
    folder = PurePosixPath(path).parent if (root / path).is_file() else path
    return f"{path}: neither Git nor DVC tracks it, so that a queued run would not have it. Type: dvc add {folder}"


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""  # deleted, and that not committed yet
