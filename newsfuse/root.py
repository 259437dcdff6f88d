"""Where a project keeps what is neither code nor data: beside the DVC project, shared by its experiments."""

import os
from pathlib import Path


def project_root() -> Path | None:
    """The root of the DVC project that the current folder is in, None where there is none.

    DVC sets DVC_ROOT for its stages: in an experiment's copy of the project it is the project that was copied.
    """
    if root := os.environ.get("DVC_ROOT"):
        return Path(root)
    return enclosing(Path.cwd())


def enclosing(folder: Path) -> Path | None:
    """The root of the DVC project that `folder`, an absolute path, is in or is; None where there is none."""
    return next((each for each in (folder, *folder.parents) if (each / ".dvc").is_dir()), None)
