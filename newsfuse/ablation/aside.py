"""The user's uncommitted changes, which DVC puts aside in Git's stash while it queues a run, and then back."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from newsfuse.errors import BusyError, IntegrityError, ParamsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scmrepo.git import Git


def refuse_unready(root: Path) -> None:
    """Find out in time that DVC could not put the changes of the project at `root` aside, or not back.

    Raises ParamsError while a merge is not resolved, BusyError while another Git works in the repository.
    """
    # of the whole repository, of which a project may be a folder
    listed = _git(root, "ls-files", "--unmerged", "-z", "--", ":/").split("\0")
    unmerged = sorted({entry.partition("\t")[2] for entry in listed if entry})
    if unmerged:
        message = f"{', '.join(unmerged)}: a merge is not resolved, and no run can be made of that. Resolve it first"
        raise ParamsError(message)
    lock = root / _git(root, "rev-parse", "--git-path", "index.lock").rstrip("\n")
    if lock.exists():
        message = f"{lock}: another Git works here, or was killed. Try again later; if none runs, remove that file"
        raise BusyError(message)


@contextmanager
def told(name: str, scm: Git) -> Iterator[None]:
    """What goes wrong as DVC queues `name` is told, and how to get changes back that stay aside.

    Raises BusyError while another command of DVC works in the project, IntegrityError where DVC or Git cannot.
    """
    from dvc.exceptions import DvcException  # noqa: PLC0415 - half a second, as in newsfuse.revisions
    from dvc.lock import LockError  # noqa: PLC0415 - see above
    from pygit2 import GitError  # noqa: PLC0415 - see above
    from scmrepo.exceptions import SCMError  # noqa: PLC0415 - see above

    stashed = len(scm.stash)
    try:
        yield
    except LockError as error:
        message = f"'{name}' cannot be queued while another command of DVC works here. Try again later: {error}"
        raise BusyError(message) from error
    except (DvcException, SCMError, GitError) as error:  # DVC lets the last two through
        # they come of changes that Git cannot put aside and back
        hint = "" if isinstance(error, DvcException) else " Commit your changes, and try again."
        message = f"'{name}' cannot be queued: {str(error).rstrip('.')}.{_way_back(len(scm.stash) - stashed) or hint}"
        raise IntegrityError(message) from error


def _way_back(entries: int) -> str:
    """Where so many came to the stash, the user's changes first; DVC may have put those of a run on top."""
    if entries < 1:
        return ""
    command = f"git stash pop --index{f' {entries - 1}' if entries > 1 else ''}"
    # the reset, since Git puts nothing back over files that were put back, or not put aside, in part
    return (
        " Your uncommitted changes are put aside, in Git's stash."
        f" To get them back, before you edit anything: git reset --hard && {command}"
    )


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(  # noqa: S603 - our own arguments, no shell
        ["git", *arguments],  # noqa: S607 - the git that DVC uses as well
        cwd=root, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
