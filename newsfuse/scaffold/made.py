"""What `newsfuse new` made, and where that may be."""

from dataclasses import dataclass
from pathlib import Path

from newsfuse.errors import ParamsError
from newsfuse.scaffold.kind import Kind


@dataclass(frozen=True)
class Made:
    """New files, the commands to go on with, and what to know before, if anything."""

    files: tuple[Path, ...]
    commands: tuple[str, ...]
    note: str = ""


def is_project(root: Path) -> bool:
    """Whether `root` is the root of a newsfuse project."""
    return (root / "params.yaml").is_file() and (root / "plugins").is_dir()


def require_free(path: Path) -> None:
    """Raise ParamsError where `path` is there already, or a broken link in its place."""
    if path.exists() or path.is_symlink():
        message = f"{path}: is there already and is left as it is. Choose another name, or move it away"
        raise ParamsError(message)


def plugin_path(root: Path, kind: Kind, name: str) -> Path:
    """Where the project at `root` looks for a plugin."""
    return root / "plugins" / kind.folder / f"{name}.py"


def commit_note(name: str, path: Path) -> str:
    """What to do with a new file in plugins/: DVC's queue copies what Git knows, and nothing else (3.67).

    And HEAD has results to compare with only if the dvc.lock that says which they are was committed on this machine.
    """
    command = f"git add {path} dvc.lock && git commit -m 'Add {name}'"
    return f"The queue sees what Git knows, and HEAD is what was committed. So, best first:\n  {command}"
