"""Data sets that DVC tracks: queued and `--temp` experiments see no others."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from newsfuse.errors import BusyError, ParamsError, StorageError
from newsfuse.root import enclosing
from newsfuse.terminal import tell

BUSY = re.compile(r"Unable to acquire lock|is busy, it is being blocked by|index\.lock'")
"""What dvc says while another one has the project, or a stage the data, and git while another one has its index."""


def require_root(folder: Path) -> None:
    """Raise ParamsError where `folder`, data/<dataset>, is in a DVC project but not where its stages look for data."""
    root = _root(folder)
    if root and folder.resolve().parent != root / "data":
        message = (
            f"{folder}: the project's root is {root}, and stages read its data/. Go there: cd {shlex.quote(str(root))}"
        )
        raise ParamsError(message)


def track(folders: Sequence[Path]) -> None:
    """`dvc add` the folders in the DVC project that holds them and stage what Git is to know; say what was done.

    Says what to type where no project holds them. Raises BusyError while another dvc or git is at work, StorageError
    when they fail otherwise: the data is there then, and the message has the command that is left to type.
    """
    root = _root(folders[0])
    if root is None:
        tell(f"Not in a DVC project: experiments need the data tracked. There, type: {shlex.join(_dvc_add(folders))}")
        return
    names = [folder.resolve().relative_to(root) for folder in folders]
    _must(root, [sys.executable, "-m", *_dvc_add(names)], shlex.join(_dvc_add(names)))
    files = list(_for_git(root, names))
    if any((folder / ".git").exists() for folder in (root, *root.parents)):
        # dvc does not: an experiment starts from what Git knows, and untracked files are not in it
        _must(root, ["git", "add", "--", *files], shlex.join(["git", "add", *files]))
    tell(f"Tracked by DVC, to be committed: {' '.join(files)}")


def _root(folder: Path) -> Path | None:
    return enclosing(folder.resolve().parent)


def _dvc_add(folders: Sequence[Path]) -> list[str]:
    return ["dvc", "add", *map(str, folders)]  # not --quiet, which hides errors too


def _for_git(root: Path, names: Sequence[Path]) -> Iterator[str]:
    """The files by which dvc remembers the folders."""
    for name in names:
        yield f"{name}.dvc"
    for parent in dict.fromkeys(name.parent for name in names):
        if (root / parent / ".gitignore").exists():
            yield str(parent / ".gitignore")


def _must(root: Path, command: Sequence[str], typed: str) -> None:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603 - a list, no shell
    if done.returncode:
        said, then = (done.stderr or done.stdout).strip(), f"In {root}, type: {typed}"
        if BUSY.search(said):
            message = f"{said}\nThe data is there but not tracked: another command is at it. Wait for its end. {then}"
            raise BusyError(message)
        message = f"{said}\nThe data is there but not tracked. {then}"
        raise StorageError(message)
