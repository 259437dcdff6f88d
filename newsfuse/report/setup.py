"""The section on what was run: commit, settings, plugins, data, cost."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from newsfuse import __version__
from newsfuse.report.evidence import STAGES, Evidence, flattened
from newsfuse.report.section import AbsentError, Block, Cell, Figure, Note, Section, Table, number, present
from newsfuse.terminal import dollars
from newsfuse.times import minutes

SHOWN_HASH = 12
"""Characters of a hash: enough to tell two apart by eye."""


def setup(evidence: Evidence, root: Path) -> Section:
    """What was run. `root`: the project, where times are noted."""
    lead = "All that decides the figures. The same commit, settings and data give the same figures."
    blocks = present(
        lambda: _identity(evidence, root),
        lambda: _cost(evidence),
        lambda: _settings(evidence),
        lambda: _plugins(evidence),
        lambda: _data(evidence),
    )
    return Section("What was run", lead, blocks)


def _identity(evidence: Evidence, root: Path) -> Iterator[Block]:
    rows: list[Sequence[Cell]] = [
        ("run", evidence.name),
        ("Git revision", evidence.commit or "not known: no commit"),
        ("page written by", f"newsfuse {__version__}"),
    ]
    taken = minutes(lambda path: evidence.text(path, ""), root) if evidence.commit else None
    yield Table(("", ""), [*rows, ("minutes", _taken(taken))])


def _taken(minutes: float | None) -> str:
    return "not known on this machine" if minutes is None else number(minutes, 1)


def _cost(evidence: Evidence) -> Iterator[Block]:
    cost = evidence.mapping("metrics/embed.json", "embed")
    rows = [(name, Figure(_amount(name, value))) for name, value in cost.items()]
    yield Table(("embedding", ""), rows, "What the run that finished the embeddings bought and paid")


def _amount(name: str, value: object) -> str:
    if not isinstance(value, int | float):
        return str(value)
    return dollars(value) if name == "dollars" else f"{value:,}"


def _settings(evidence: Evidence) -> Iterator[Block]:
    rows = list(flattened(evidence.params).items())
    yield Table(("setting", "value"), rows, "params.yaml")
    if changed := _changed(evidence):
        names = ", ".join(changed)
        yield Note(f"The figures were made with other values of: {names}. Run dvc repro to bring both together.")


def _changed(evidence: Evidence) -> list[str]:
    """Settings that are no longer those with which the stages ran."""
    try:
        used = [stage.get("params", {}).get("params.yaml", {}) for stage in evidence.stages]
    except AbsentError:
        return []
    now = flattened(evidence.params)
    return sorted({name for each in used for name in _differing(each, now)})


def _differing(used: Mapping[str, Any], now: Mapping[str, str]) -> Iterator[str]:
    """Settings with another value, or none, on either side. `used`: those, or groups of those, that a stage reads."""
    groups, was = tuple(f"{name}." for name in used), flattened(used)
    read = {name: value for name, value in now.items() if name in used or name.startswith(groups)}
    yield from (name for name in was.keys() | read.keys() if was.get(name) != read.get(name))


def _plugins(evidence: Evidence) -> Iterator[Block]:
    params = evidence.params
    chosen = [
        ("embedders", evidence.group("embed").get("provider", "")),
        *(("encoders", name) for name in evidence.encoders),
        ("fusions", params.get("fusion", "")),
        ("user_encoders", params.get("user_encoder", "")),
    ]
    packages = ", ".join(f"{name} {version}" for name, version in evidence.group("plugin_packages").items())
    rows = [(folder.removesuffix("s").replace("_", " "), str(name), *_origin(evidence, folder, str(name), packages))
            for folder, name in chosen]  # fmt: skip
    yield Table(("kind", "plugin", "from", "version"), rows, "Plugins. The version of a file is the hash of its text")


def _origin(evidence: Evidence, folder: str, name: str, packages: str) -> tuple[str, str]:
    path = f"plugins/{folder}/{name}.py"
    try:
        text = evidence.text(path, "")
    except AbsentError:
        return "a package", packages or "not known"
    return path, hashlib.sha256(text.encode()).hexdigest()[:SHOWN_HASH]


def _data(evidence: Evidence) -> Iterator[Block]:
    prefix = f"data/{evidence.dataset}/"
    entries = {path: entry for path, entry in sorted(evidence.locked.items()) if path.startswith(prefix)}
    rows = [
        (path, each.get("md5", "")[:SHOWN_HASH], Figure(f"{each.get('size', 0):,}")) for path, each in entries.items()
    ]
    yield Table(("path", "hash", "bytes"), rows, "Data, read and made, as dvc.lock has it")
    missing = {folder: stage for folder, stage in STAGES.items() if f"{prefix}{folder}" not in entries}
    for folder, stage in missing.items():
        yield Note(f"{prefix}{folder} is not there. The {stage} stage makes it: dvc repro {stage}.")
