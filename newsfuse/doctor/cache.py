"""DVC and Git: what keeps experiments, and where."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dvc.config import Config, ConfigError

from newsfuse.doctor.finding import Finding, failure, ok, warning
from newsfuse.doctor.tree import Tree
from newsfuse.errors import ParamsError
from newsfuse.root import enclosing

INSIDE = Path(".dvc", "cache")


def dvc(tree: Tree) -> Iterator[Finding]:
    """Whether there is a DVC project with Git, its cache, and where else what it makes is kept. Asks no remote."""
    root = enclosing(tree.root.absolute())
    if root is None:
        yield failure(
            ParamsError, f"{tree.root.absolute()}: no DVC project, so no stage can be run", "git init; dvc init"
        )
        return
    if not any((each / ".git").exists() for each in (root, *root.parents)):
        yield warning(f"{root}: no Git repository, so there can be no experiments", "git init")
    config = _config(root)
    yield _kept(location(root, config))
    yield _remotes(config)


def _config(root: Path) -> Mapping[str, Any]:
    """DVC's settings, the user's own included. Raises ParamsError."""
    try:
        found: Mapping[str, Any] = Config(str(root / ".dvc"))
    except ConfigError as error:
        message = f"{root / '.dvc' / 'config'}: DVC cannot use it: {error}. See it: dvc config --list --show-origin"
        raise ParamsError(message) from error
    return found


def location(root: Path, config: Mapping[str, Any] | None = None) -> Path:
    """Where DVC's cache is."""
    chosen = (config or _config(root)).get("cache", {}).get("dir")
    return Path(chosen) if chosen else root / INSIDE  # DVC makes it absolute


def _kept(cache: Path) -> Finding:
    nearest = next(each for each in (cache, *cache.parents) if each.exists())
    if not os.access(nearest, os.W_OK):
        found = f"{cache}: DVC's cache may not be written here, so no stage can keep what it makes"
        return warning(found, 'mend its permissions, or: dvc cache dir --local "$HOME/dvc-cache"')
    if not cache.exists():
        return ok(f"{cache}: DVC's cache is not made yet")
    return ok(f"{cache}: DVC's cache, writable")


def _remotes(config: Mapping[str, Any]) -> Finding:
    remotes, default = sorted(config.get("remote", {})), config.get("core", {}).get("remote")
    if not remotes:
        return ok("no DVC remote: what stages make is kept on this machine alone (dvc remote add)")
    chosen = f", {default} by default" if default else ", none of them by default"
    return ok(f"DVC remotes: {', '.join(remotes)}{chosen} (not asked)")
