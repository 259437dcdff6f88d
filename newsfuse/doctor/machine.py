"""What the project runs on: versions, where the model computes, DGL or what stands in for it."""

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module, metadata
from pathlib import Path

import torch
from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement

from newsfuse import __version__
from newsfuse.device import device
from newsfuse.doctor.finding import FIRST, Finding, failure, ok, warning
from newsfuse.doctor.tree import Tree
from newsfuse.errors import ParamsError

CONSTRAINTS = "constraints.txt"
SHOWN = ("torch", "dvc", "polars", "numpy")
PROGRAMS = ("dvc", "git")


def versions(tree: Tree) -> Iterator[Finding]:
    """Python's and newsfuse's own, of what it needs, and how they compare with constraints.txt."""
    shown = [f"{name} {installed(name) or 'not installed'}" for name in SHOWN]
    yield ok(", ".join([f"Python {platform.python_version()}", f"newsfuse {__version__}", *shown]))
    if absent := [each for each in _needed() if installed(each.name) is None]:
        names = ", ".join(each.name for each in absent)
        install = " ".join(f"'{each.name}{each.specifier}'" for each in absent)
        yield failure(ParamsError, f"newsfuse needs {names}: not installed", f"pip install {install}")
    if absent_programs := [name for name in PROGRAMS if not shutil.which(name)]:
        found = f"{' and '.join(absent_programs)}: not on the PATH; stages are run by dvc, experiments need git"
        yield failure(ParamsError, found, "install it, or: source .venv/bin/activate")
    yield from _compared(tree.root / CONSTRAINTS)


def _needed() -> list[Requirement]:
    """What newsfuse asks for, without extras, and without DGL, for which torch stands in."""
    try:
        lines = metadata.requires("newsfuse") or []
    except metadata.PackageNotFoundError:  # run from a folder, not installed
        return []
    found = [Requirement(line) for line in lines]
    return [each for each in found if each.name != "dgl" and _applies(each.marker)]


def _applies(marker: Marker | None) -> bool:
    return marker is None or marker.evaluate({"extra": ""})


def _compared(path: Path) -> Iterator[Finding]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        yield ok(f"no {CONSTRAINTS} to compare versions with")
        return
    pins = [each for line in lines for each in _pin(line) if installed(each.name)]
    others = [each for each in pins if not each.specifier.contains(str(installed(each.name)), prereleases=True)]
    if others:
        yield _differing(others, len(pins))
    else:
        yield ok(f"{len(pins)} installed packages are those of {CONSTRAINTS}")


def _differing(others: Sequence[Requirement], pinned: int) -> Finding:
    first = ", ".join(
        f"{each.name} {installed(each.name)} ({CONSTRAINTS}: {each.specifier})" for each in others[:FIRST]
    )
    more = f" and {len(others) - FIRST} more" if len(others) > FIRST else ""
    found = f"{len(others)} of {pinned} packages are other versions than newsfuse was tested with: {first}{more}"
    return warning(found, f"pip install {' '.join(f'{each.name}{each.specifier}' for each in others)}")


def _pin(line: str) -> Iterator[Requirement]:
    with suppress(InvalidRequirement):  # a comment, an option of pip
        pin = Requirement(line.partition(" #")[0])
        if _applies(pin.marker):
            yield pin


def installed(name: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def computing(tree: Tree) -> Iterator[Finding]:  # noqa: ARG001 - every check is called alike
    """Where the model computes. Raises ParamsError for a device that is asked for and not there."""
    chosen = device()
    if chosen.type == "cuda":
        yield ok(f"the model computes on cuda: {torch.cuda.get_device_name(chosen)}")
    elif torch.cuda.is_available():
        yield ok(f"the model computes on cpu, as NEWSFUSE_DEVICE says; {torch.cuda.get_device_name()} is there as well")
    elif torch.version.cuda is None and shutil.which("nvidia-smi"):
        found = f"the model computes on cpu: there is an NVIDIA driver, but PyTorch {torch.__version__} is without CUDA"
        yield warning(found, "make run TORCH=cuda; in a container, take its variant for a GPU: docs/image.md")
    else:
        yield ok(f"the model computes on cpu ({torch.get_num_threads()} threads): PyTorch finds no CUDA device")


def graphs(tree: Tree) -> Iterator[Finding]:
    """Whether DGL averages neighbours, or torch in its place; both give the same."""
    try:
        where = device()
    except ParamsError:  # told by `computing`
        return
    os.environ.setdefault("DGLBACKEND", "pytorch")  # without it, importing dgl writes to the home folder
    try:
        dgl = import_module("dgl")
        dgl.graph(([0], [0])).to(where)
    # dgl has an error class of its own, and a wrong build of it raises whatever its loader does
    except Exception as error:  # noqa: BLE001
        reason = str(error).partition("\n")[0]
        yield _without_dgl(
            tree, "not installed" if installed("dgl") is None else f"does not work on {where} ({reason})"
        )
    else:
        yield ok(f"DGL {dgl.__version__} works on {where.type}; the gnn encoder averages neighbours with it")


def _without_dgl(tree: Tree, why: str) -> Finding:
    options = tree.params.options.get("gnn", {}) if tree.params else {}
    if options.get("backend") == "dgl" and tree.params and "gnn" in tree.params.chosen_encoders:
        found = f"DGL: {why}, and params.yaml asks for it: options.gnn.backend is dgl"
        return failure(ParamsError, found, "dvc exp run -S options.gnn.backend=auto")
    return ok(f"DGL: {why}; the gnn encoder averages neighbours with torch, which gives the same")
