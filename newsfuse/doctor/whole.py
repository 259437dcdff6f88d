"""An artifact as files: there, as its stage wrote it, and of the data and settings that are here now."""

import json
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from newsfuse import artifact
from newsfuse.artifact import MANIFEST, verified
from newsfuse.doctor.finding import FIRST, Finding, Level, ok, warning
from newsfuse.doctor.tree import Tree
from newsfuse.errors import IntegrityError, NewsfuseError
from newsfuse.times import FOLDERS

REPRO = "dvc repro"
CONTENTS = ("data/", "plugins/")
"""Where what decides the contents of an artifact is; newsfuse's own files have seldom changed what comes of it."""


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


def usable(tree: Tree, stage: str) -> Generator[Finding, None, bool]:
    """What `wholeness` finds -> whether the artifact is there to be looked into."""
    found = list(wholeness(tree, stage))
    yield from found
    return not any(each.exit_code for each in found) and folder(tree, stage).is_dir()


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


def currency(
    tree: Tree, stage: str, asked: Mapping[str, Any], made: Mapping[str, Any], *, by_settings: bool = False
) -> Generator[Finding, None, bool]:
    """What has changed since the stage ran, by settings and files -> whether its contents can be compared all the same.

    `by_settings`: what they are compared with depends on those that are asked for.
    """
    path = folder(tree, stage)
    others = sorted(name for name in asked if _plain(made.get(name)) != _plain(asked[name]))
    changed = tree.lock.changed(stage) if tree.lock.made(stage, path) else []
    comparable = not (others and by_settings) and not any(each.startswith(CONTENTS) for each in changed)
    end = "" if comparable else ", so its contents are not compared"
    if others:
        told = (f"{name} {_text(made.get(name))}, now {_text(asked[name])}" for name in others)
        yield warning(f"{path}: made with other settings ({_first(*told)}){end}", REPRO)
    if changed:
        yield warning(f"{path}: out of date ({_first(*changed)} changed since {stage} ran){end}", REPRO)
    return comparable


def _first(*each: str) -> str:
    more = f" and {len(each) - FIRST} more" if len(each) > FIRST else ""
    return f"{', '.join(each[:FIRST])}{more}"


def _plain(value: object) -> object:
    return json.loads(_text(value))  # a tuple is a list there, and 0 is 0.0


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def again(tree: Tree, stage: str) -> str:
    """What makes the artifact anew, whatever DVC believes: it trusts what its cache has."""
    return artifact.again(folder(tree, stage), stage, force=True)
