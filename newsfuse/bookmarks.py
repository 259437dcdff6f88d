"""Where interrupted training goes on: all that a model has become so far, kept in the project outside of DVC's outs."""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors.torch import load_file
from torch import Tensor

from newsfuse.artifact import verified, write_text, writing
from newsfuse.checkpoint import packed
from newsfuse.environment import Environment
from newsfuse.errors import IntegrityError, StorageError
from newsfuse.recipe import Recipe
from newsfuse.root import project_root
from newsfuse.team import ALONE, Team

KIND = "bookmark"
FOLDER = Path(".newsfuse", "training")
RECIPE, STATE = "recipe.json", "state.safetensors"
NUMBERS = "[0-9]" * 6
KEPT = 3
"""How many interrupted trainings are remembered; to older ones nobody is likely to come back."""
NAMED = 3
"""How many changes a message names."""
MINUTE_S = 60

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bookmark:
    """A state of training."""

    tensors: Mapping[str, Tensor]
    notes: Mapping[str, Any]
    """What else there is to know, as JSON has it."""


class Bookmarks:
    """The bookmarks of one training: the last one that is whole counts, and all go when training has ended."""

    def __init__(self, folder: Path | None, minutes: float = 0, team: Team = ALONE) -> None:
        """`folder`: of this training, None where nothing is kept; `minutes`: see `due`.

        Of a team the first process alone writes; all of them read.
        """
        self.folder, self.minutes, self.team = folder, minutes, team
        self._number, self._kept_at = 0, time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last one is so many minutes old that the next one should not wait for the end of the epoch."""
        return self.minutes > 0 and time.monotonic() - self._kept_at > self.minutes * MINUTE_S

    def find(self) -> Bookmark | None:
        """The last one. Raises IntegrityError where a process cannot read what the first one has found."""
        self._number = int(self.team.told(self._last() if self.team.leads else 0))
        if not self._number:
            return None
        path = self._path(self._number)
        notes = verified(path, kind=KIND)
        # copies: the file is mapped, and would stay on the disk as long as anybody looked at it
        tensors = {name: tensor.clone() for name, tensor in load_file(path / STATE).items()}
        return Bookmark(tensors, notes)

    def keep(self, bookmark: Bookmark) -> None:
        """Write it, and then remove those before it. What cannot be kept is a warning: training goes on without it."""
        self._kept_at = time.monotonic()
        if self.folder is None or not self.team.leads:
            return
        before, self._number = self._all(), self._number + 1
        try:
            with writing(self._path(self._number), kind=KIND, settings=bookmark.notes) as draft:
                (draft / STATE).write_bytes(packed({name: each.cpu() for name, each in bookmark.tensors.items()}))
        except (StorageError, MemoryError) as error:
            log.warning("no bookmark, training goes on without it: %s", error)
        else:
            _remove(before)

    def drop(self) -> None:
        """Training has ended: nothing is left of its bookmarks."""
        if self.folder and self.team.leads:
            _remove([self.folder])

    def _last(self) -> int:
        """Its number, 0 where there is none; a damaged one is told and thrown away, as if it had not been written."""
        for path in reversed(self._all()):
            try:
                verified(path, kind=KIND)
            except IntegrityError:
                log.warning("%s: a damaged bookmark, which is not used", path)
                _remove([path])
            else:
                return int(path.name)
        return 0

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob(NUMBERS)) if self.folder else []

    def _path(self, number: int) -> Path:
        return (self.folder or Path()) / f"{number:06}"


@contextmanager
def bookmarks(recipe: Recipe, team: Team) -> Iterator[Bookmarks]:
    """Those of the training of this recipe, in whatever copy of the project it runs; none outside of a DVC project.

    Says so where training of the same data set was interrupted that had another recipe.
    """
    root, minutes = project_root(), Environment.read().bookmark_minutes
    folder = root / FOLDER / recipe.name if root else None
    if folder is None or not team.leads:
        yield Bookmarks(folder, minutes, team)
        return
    _tell_others(folder, recipe)
    lock = FileLock(folder / "lock", blocking=False)
    try:
        yield Bookmarks(folder if _locked(lock, folder, recipe) else None, minutes, team)
    finally:
        if lock.is_locked and not any(folder.glob(NUMBERS)):
            _remove([folder])  # else runs that come to nothing would push out those that can go on
        lock.release()


def _locked(lock: FileLock, folder: Path, recipe: Recipe) -> bool:
    """Whether this run, and no other, keeps bookmarks in the folder from now on."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        write_text(folder / RECIPE, recipe.to_json())
    except Timeout:
        log.info("%s: another run trains the same; this one keeps no bookmarks", folder)
    except (OSError, StorageError) as error:
        log.warning("%s: no bookmarks can be kept: %s", folder, error)
        lock.release()
    return lock.is_locked


def _tell_others(folder: Path, recipe: Recipe) -> None:
    """Of interrupted training with other recipes: what differs from the latest one; the oldest ones are removed."""
    others = sorted((each for each in folder.parent.glob("*") if each != folder), key=_age_s)
    for each in others[KEPT:]:
        with _unused(each) as free:
            _remove([each] if free else [])
    if any(folder.glob(NUMBERS)):
        return
    for other in others[:KEPT]:
        with _unused(other) as free:
            was = _recipe(other) if free and any(other.glob(NUMBERS)) else None
        if was and was.parts.get("dataset") == recipe.parts["dataset"]:
            changes = recipe.changes(was)
            more = ", ..." if len(changes) > NAMED else ""
            changed = ", ".join(changes[:NAMED]) + more
            log.info("training starts over: the one that was interrupted differs in %s", changed)
            return


def _recipe(folder: Path) -> Recipe | None:
    try:
        return Recipe.from_json((folder / RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@contextmanager
def _unused(folder: Path) -> Iterator[bool]:
    """Whether no run keeps bookmarks there, and none will while this lasts."""
    lock = FileLock(folder / "lock", blocking=False)
    try:
        lock.acquire()
    except (Timeout, OSError):
        yield False
    else:
        yield True
        lock.release()


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:  # another run has ended, and removed it
        return float("inf")


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
