"""Another state of the project, as Git and DVC keep it, to read from: nothing is checked out, nothing is computed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from newsfuse.errors import IntegrityError, ParamsError, nearest

if TYPE_CHECKING:
    from dvc.repo import Repo

SHORT = 7
"""Characters of a hash that `dvc exp show` prints."""


@dataclass(frozen=True)
class Revision:
    """An experiment or a commit. Paths count from the root of the project."""

    name: str
    """As the user gave it: an experiment's name, a branch, a tag, a commit."""
    commit: str
    """Its hash."""
    repo: "Repo"
    """Switched to the revision."""

    def text(self, path: str) -> str:
        """A file that Git or DVC keeps.

        Raises ParamsError when it is not there, IntegrityError when it is of a folder that is nowhere.
        """
        try:
            text: str = self.repo.dvcfs.read_text(f"/{path}")  # else from the folder that the user is in
        except OSError as error:
            message = f"'{self.name}': has no {path}"
            raise ParamsError(message) from error
        except Exception as error:  # see `fetch`
            message = f"'{self.name}': its {path} is in neither DVC's cache nor a remote ({error}). {self.remedy}"
            raise IntegrityError(message) from error
        return text

    def fetch(self, folder: str, copy: Path) -> None:
        """Copy a folder that DVC keeps, in its cache or in a remote, to the new folder `copy`.

        Raises ParamsError when the revision has no such folder, IntegrityError when its files are nowhere.
        """
        try:
            exists = self.repo.dvcfs.exists(f"/{folder}")
            if exists:
                self.repo.dvcfs.get(f"/{folder}", str(copy), recursive=True)
        except Exception as error:  # each kind of remote has errors of its own
            message = f"'{self.name}': its {folder} is in neither DVC's cache nor a remote ({error}). {self.remedy}"
            raise IntegrityError(message) from error
        if not exists:
            message = f"'{self.name}': has no {folder}: that stage has not run there. {self.remedy}"
            raise ParamsError(message)

    @property
    def remedy(self) -> str:
        """What to type for its files to be made again."""
        # git knows no experiment's name; dvc exp apply fails where files are missing, which is when this is read
        commit = self.commit[:SHORT] if self.name in _experiments(self.repo) else self.name
        other = "Where that changes dvc.lock, as on another processor, commit it and name that commit"
        return f"Make it again: git checkout {commit} && dvc repro (and back: git checkout -). {other}"


@contextmanager
def opened(name: str, root: Path) -> Iterator[Revision]:
    """The revision that `dvc exp show` prints by this name. Raises ParamsError when there is none."""
    # imported here, which takes half a second: whoever names no revision need not wait
    from dvc.exceptions import NotDvcRepoError  # noqa: PLC0415
    from dvc.repo import Repo  # noqa: PLC0415
    from dvc.scm import NoSCMError, RevError, resolve_rev  # noqa: PLC0415

    try:
        with Repo(str(root)) as repo:
            commit = resolve_rev(repo.scm, name)
            with repo.switch(commit):
                yield Revision(name, commit, repo)
    except RevError as error:
        raise ParamsError(_unknown(name, root)) from error
    except (NotDvcRepoError, NoSCMError) as error:
        message = f"'{name}': {root.resolve()} is no DVC project with Git, in which it could be an experiment"
        raise ParamsError(message) from error


def _unknown(name: str, root: Path) -> str:
    from dvc.repo import Repo  # noqa: PLC0415 - see `opened`

    with Repo(str(root)) as repo:
        known = [*_experiments(repo), *sorted(repo.scm.list_branches()), *sorted(repo.scm.list_tags())]
    if name in known:
        return f"'{name}': several experiments have this name; give the commit that dvc exp show prints"
    return f"'{name}': no experiment, branch, tag or commit.{nearest(name, known)} Known: {', '.join(known)}"


def _experiments(repo: "Repo") -> list[str]:
    from dvc.repo.experiments.utils import exp_refs  # noqa: PLC0415 - see `opened`

    return sorted({reference.name for reference in exp_refs(repo.scm) if reference.name})
