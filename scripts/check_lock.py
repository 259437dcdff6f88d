"""Whether this machine made what the commit says it should: docs/determinism.md.

`make check-lock` runs it, after `dvc repro` of the shipped params.yaml. It compares the outs of embed and graph with
the committed dvc.lock, by their hashes, and what train and evaluate measured with reference.json, within a tolerance.
It ends with
0: all of it is as it should be;
1: something is not, and is named;
2: there is nothing to compare: dvc.lock or a file of metrics is missing, or was made with other files or settings.

`python scripts/check_lock.py --write` makes reference.json anew, for whoever commits dvc.lock after `dvc repro`.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

SAME, DIFFERENT, NOTHING = 0, 1, 2
ANYWHERE = ("embed", "graph")
"""The stages whose outs are the same on any machine."""
REFERENCE = Path(__file__).with_name("reference.json")
TOLERANCES = {
    "metrics/train/metrics.json": {"best.validation_auc": 0.002},
    "metrics/evaluate/metrics.json": {
        "impressions": 0,
        "random_auc": 0,
        "popularity_auc": 0,
        "category_auc": 0,
        "cosine_auc": 0.0005,
        "auc": 0.002,
        "mrr": 0.002,
        "ndcg5": 0.002,
        "ndcg10": 0.002,
    },
}
"""By how much a figure may differ, either way, by the file of metrics that it is in."""


class NothingToCompareError(Exception):
    """Something is not there, or is about something else; the message says what."""


def check(root: Path, reference: Path) -> list[str]:
    """What is not as it should be, a line each. Raises NothingToCompareError."""
    committed, made = stages(of_head(root), "HEAD:dvc.lock"), stages(read(root / "dvc.lock", "dvc repro"), "dvc.lock")
    return [*differing_outs(committed, made), *differing_figures(wanted(reference), figures(root))]


def of_head(root: Path) -> str:
    """dvc.lock as it is committed."""
    shown = subprocess.run(  # noqa: S603 - git, in the folder at hand
        ["git", "show", "HEAD:dvc.lock"],  # noqa: S607 - whichever git the user has
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if shown.returncode:
        message = f"{root}: git shows no committed dvc.lock: {shown.stderr.strip()}"
        raise NothingToCompareError(message)
    return shown.stdout


def stages(text: str, name: str) -> Mapping[str, Any]:
    """The stages of a dvc.lock, those of ANYWHERE among them. Raises NothingToCompareError."""
    try:
        found = mapping(mapping(yaml.safe_load(text)).get("stages"))
    except yaml.YAMLError as error:
        message = f"{name}: is no YAML: {str(error).splitlines()[-1].strip()}. Make it: dvc repro"
        raise NothingToCompareError(message) from error
    if missing := [stage for stage in ANYWHERE if not {"deps", "outs"} <= mapping(found.get(stage)).keys()]:
        message = f"{name}: has no {', '.join(missing)}: run dvc repro"
        raise NothingToCompareError(message)
    return found


def mapping(value: object) -> Mapping[str, Any]:
    """A value that should be one; an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def differing_outs(committed: Mapping[str, Any], made: Mapping[str, Any]) -> Iterator[str]:
    """A line for every out of ANYWHERE with another hash. Raises NothingToCompareError for one made of other things."""
    for stage in ANYWHERE:
        before, now = committed[stage], made[stage]
        old, new = hashes(before["deps"]), hashes(now["deps"])
        changed = [path for path in sorted({*old, *new}) if old.get(path) != new.get(path)]
        changed += ["params.yaml"] * (before.get("params") != now.get("params"))
        if changed:
            message = f"dvc.lock: {stage} was made with another {', '.join(changed)} than the commit has it"
            raise NothingToCompareError(message)
        for path, md5 in hashes(before["outs"]).items():
            if (found := hashes(now["outs"]).get(path)) != md5:
                yield f"{path}: its md5 is {found}, expected {md5} as in the committed dvc.lock"


def hashes(entries: list[dict[str, Any]]) -> dict[str, str]:
    """The md5 of deps or outs by path."""
    return {entry["path"]: entry["md5"] for entry in entries}


def differing_figures(expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """A line for every figure that is further from its reference than its tolerance."""
    for path, tolerances in TOLERANCES.items():
        for name, tolerance in tolerances.items():
            wanted, is_ = expected[path][name], found[path][name]
            if not abs(is_ - wanted) <= tolerance:  # so that NaN differs
                yield f"{path}: {name} is {is_}, expected {wanted} ± {tolerance} as in {REFERENCE.name}"


def figures(root: Path) -> dict[str, dict[str, float]]:
    """Those that have a tolerance, as they were measured here. Raises NothingToCompareError."""
    found: dict[str, dict[str, float]] = {}
    for path, tolerances in TOLERANCES.items():
        metrics = parsed(root / path, "dvc repro")
        found[path] = {name: figure(metrics, name.split("."), path, "dvc repro") for name in tolerances}
    return found


def wanted(reference: Path) -> dict[str, dict[str, float]]:
    """The same as they should be. Raises NothingToCompareError."""
    remedy = "python scripts/check_lock.py --write"
    expected, name = parsed(reference, remedy), reference.name
    return {
        path: {each: figure(mapping(expected.get(path)), [each], f"{name}: {path}", remedy) for each in tolerances}
        for path, tolerances in TOLERANCES.items()
    }


def figure(metrics: Mapping[str, Any], keys: Sequence[str], path: str, remedy: str) -> float:
    """The figure under these keys, each within the one before. Raises NothingToCompareError."""
    value: Any = metrics
    for key in keys:
        value = mapping(value).get(key)
    if type(value) not in {int, float}:
        message = f"{path}: has no {'.'.join(keys)}: run {remedy}"
        raise NothingToCompareError(message)
    return float(value)


def parsed(path: Path, remedy: str) -> Mapping[str, Any]:
    """The object of a file of JSON. Raises NothingToCompareError."""
    text = read(path, remedy)
    try:
        return mapping(json.loads(text))
    except ValueError as error:
        message = f"{path}: is no JSON: {error}. Make it: {remedy}"
        raise NothingToCompareError(message) from error


def read(path: Path, remedy: str) -> str:
    """The text of a file. Raises NothingToCompareError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error.reason
        message = f"{path}: cannot be read: {why}. Make it: {remedy}"
        raise NothingToCompareError(message) from error


def main() -> int:
    """Check, or write with --write; returns the exit code."""
    root = Path.cwd()
    try:
        if "--write" in sys.argv[1:]:
            REFERENCE.write_text(json.dumps(figures(root), indent=1) + "\n", encoding="utf-8")
            return SAME
        differences = check(root, REFERENCE)
    except NothingToCompareError as error:
        print(error, file=sys.stderr)
        return NOTHING
    print(
        "\n".join(differences)
        or "embed and graph are those of the committed dvc.lock; the figures those of reference.json"
    )
    return DIFFERENT if differences else SAME


if __name__ == "__main__":
    sys.exit(main())
