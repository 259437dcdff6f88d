"""How long each stage took when its artifact was first made: noted beside the project, in no out of it.

Not a metric: it is never the same twice, and would make equal runs differ in dvc.lock. See docs/decisions.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from newsfuse.artifact import MANIFEST
from newsfuse.errors import NewsfuseError
from newsfuse.root import project_root

FILE = Path(".newsfuse", "times.jsonl")
FOLDERS = {"embed": "embeddings", "graph": "graph", "train": "model", "evaluate": "predictions"}
"""What each stage makes, in data/<dataset>."""

log = logging.getLogger(__name__)


def note(stage: str, data: Path, seconds: float) -> None:
    """Remember that `stage` took so long to make what is now in `data`, a folder of a data set.

    Nothing where no project is. A file that cannot be written is a warning: the artifact is there all the same.
    """
    root = project_root()
    if root is None or stage not in FOLDERS:
        return
    try:
        artifact = _identity((data / FOLDERS[stage] / MANIFEST).read_text(encoding="utf-8"))
        line = json.dumps({"stage": stage, "artifact": artifact, "seconds": round(seconds, 3)})
        _append(root / FILE, line)
    except OSError as error:
        log.warning("%s: how long %s took could not be noted: %s", FILE, stage, error.strerror or error)


def _append(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        was_cut_short = size and os.pread(descriptor, 1, size - 1) != b"\n"
        # one write: experiments run side by side
        os.write(descriptor, ("\n" * bool(was_cut_short) + line + "\n").encode())
    finally:
        os.close(descriptor)


def minutes(text: Callable[[str], str], root: Path | None = None) -> float | None:
    """How many minutes the stages of a state of the project took, together; None where that of any is not known.

    `text` reads a file of that state, by its path in the project, as `Revision.text` does. What it raises
    (NewsfuseError, OSError) means that the file is not there. `root`: of the project, else that of the current folder.
    """
    root = root or project_root()
    if root is None:
        return None
    try:
        dataset = yaml.safe_load(text("params.yaml"))["dataset"]
        made = [(stage, _identity(text(f"data/{dataset}/{name}/{MANIFEST}"))) for stage, name in FOLDERS.items()]
    except (NewsfuseError, OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None
    known = noted(root)
    return sum(known[each] for each in made) / 60 if known.keys() >= set(made) else None


def noted(root: Path) -> Mapping[tuple[str, str], float]:
    """Seconds by stage and artifact. The first note of an artifact counts: making it again may find work done."""
    try:
        lines = (root / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return dict(reversed([each for line in lines for each in _parsed(line)]))


def _parsed(line: str) -> Iterator[tuple[tuple[str, str], float]]:
    """What a line says; nothing where it is damaged, as after a full disk."""
    try:
        said: dict[str, Any] = json.loads(line)
        yield (str(said["stage"]), str(said["artifact"])), float(said["seconds"])
    except (ValueError, KeyError, TypeError):
        return


def _identity(manifest: str) -> str:
    """The sha256 of an artifact's manifest, which holds those of its files."""
    return hashlib.sha256(manifest.encode()).hexdigest()
