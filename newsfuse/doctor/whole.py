"""An artifact as files: there, as its stage wrote it, and of the data and settings that are here now."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from newsfuse.artifact import MANIFEST, verified
from newsfuse.doctor.finding import Finding, Level, ok, warning
from newsfuse.doctor.tree import Tree
from newsfuse.errors import IntegrityError, NewsfuseError
from newsfuse.times import FOLDERS

REPRO = "dvc repro"
FIRST = 3
"""How many of a kind a line names."""


def folder(tree: Tree, stage: str) -> Path:
    """What the stage makes."""
    return tree.data / FOLDERS[stage]


def wholeness(tree: Tree, stage: str) -> Iterator[Finding]:
    """Whether it is there, every file as its manifest says."""
    path = folder(tree, stage)
    if not path.is_dir():
        yield ok(f"{path}: not made yet ({REPRO})")
        return
    try:
        verified(path, kind=stage)
    except IntegrityError as error:
        yield of(error)
    else:
        yield ok(f"{path}: every file has the sha256 of its manifest")


def of(error: NewsfuseError) -> Finding:
    """What an error says, which has the remedy in it."""
    return Finding(Level.FAILURE, str(error), exit_code=error.exit_code)


def settings(tree: Tree, stage: str) -> Mapping[str, Any]:
    """Those that made it, by its manifest; {} where that cannot be read. Not verified."""
    try:
        found = json.loads((folder(tree, stage) / MANIFEST).read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def currency(tree: Tree, stage: str, asked: Mapping[str, Any], made: Mapping[str, Any]) -> Iterator[Finding]:
    """Nothing where what made the artifact is what is asked for now, of the same files; else what has changed."""
    if others := sorted(name for name in asked if _text(made.get(name)) != _text(asked[name])):
        told = ", ".join(f"{name} {_text(made.get(name))}, now {_text(asked[name])}" for name in others[:FIRST])
        yield warning(
            f"{folder(tree, stage)}: made with other settings ({told}), so its contents are not compared", REPRO
        )
    if changed := tree.lock.changed(stage) if tree.lock.made(stage, folder(tree, stage)) else []:
        more = f" and {len(changed) - FIRST} more" if len(changed) > FIRST else ""
        told = f"{', '.join(changed[:FIRST])}{more} changed since {stage} ran"
        yield warning(f"{folder(tree, stage)}: out of date ({told}), so its contents are not compared", REPRO)


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def again(tree: Tree, stage: str) -> str:
    """What makes the artifact anew, whatever DVC believes: it trusts what its cache has."""
    return f'rm -rf {folder(tree, stage)} && chmod -R u+w "$(dvc cache dir)" && {REPRO} --force --single-item {stage}'
