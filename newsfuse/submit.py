"""`newsfuse submission`: prediction.zip is made, of dev or of test, and never handed over unchecked."""

import json
from collections.abc import Iterator
from pathlib import Path
from shlex import join, quote

from newsfuse.artifact import MANIFEST, verified
from newsfuse.errors import DataError, IntegrityError
from newsfuse.examination import examine
from newsfuse.params import load
from newsfuse.runs import KINDS, setting
from newsfuse.submission import MEMBER, lines, write_zip
from newsfuse.terminal import tell

BLOCK_BYTES = 1 << 22
"""Of text copied at once."""
DEV, TEST = "dev", "test"


def submit(split: str, out: Path, source: Path | None, root: Path) -> None:
    """Write the archive `out` and check it against the split's behaviors.tsv.

    `source`: for dev a folder with predictions (data/<dataset>/predictions unless given), for test one with a model
    (data/<dataset>/model). Raises NewsfuseError.
    """
    behaviors = _behaviors(split, root)
    own = behaviors.parents[1] / "predictions"
    folder = source or own
    text = _predicted(folder, own=folder.resolve() == own.resolve()) if split == DEV else _ranked(source, root)
    impressions = 0

    def check(draft: Path) -> None:
        nonlocal impressions
        impressions = examine(draft, behaviors, out)

    write_zip(out, text, check)
    tell(f"Written: {out}, {impressions:,} impressions, checked against {behaviors}")


def check(archive: Path, behaviors: Path | None, split: str, root: Path) -> None:
    """Say that the archive is fit to be handed in. Raises DataError, naming the line that is not."""
    behaviors = behaviors or _behaviors(split, root)
    tell(f"Valid: {archive}, {examine(archive, behaviors):,} impressions as in {behaviors}")


def _behaviors(split: str, root: Path) -> Path:
    return root / "data" / setting(root, "dataset") / split / "behaviors.tsv"


def _predicted(folder: Path, *, own: bool) -> Iterator[bytes]:
    """The prediction.txt of a run or of an ensemble, as it is; `own`: of the evaluate stage's folder."""
    if not (folder / MANIFEST).is_file():
        message = f"{folder}: holds no predictions. Make them: dvc repro evaluate"
        raise DataError(message)
    _require_whole(folder, own=own)
    with (folder / MEMBER).open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def _require_whole(folder: Path, *, own: bool) -> None:
    kind, runs = _told(folder)
    if kind not in KINDS:
        message = f"{folder}: holds '{kind}'; expected predictions, of kind {' or '.join(KINDS)}"
        raise DataError(message)
    try:
        verified(folder, kind=kind)
    except IntegrityError as error:
        if own:
            raise
        # those of an ensemble or a copy are made by no stage
        found = str(error).partition(": ")[0]
        ensemble = f"rm -rf {quote(str(folder))} && newsfuse ensemble {join(runs)} --out {quote(str(folder))}"
        remedy = f"Make it again: {ensemble}" if runs else "Copy it again, or make it again, with what wrote it"
        message = f"{found}: missing or damaged: {MANIFEST} says otherwise. {remedy}"
        raise IntegrityError(message) from error


def _told(folder: Path) -> tuple[str, list[str]]:
    """What the manifest says: its kind, and the runs that an ensemble is of. A run's, and none, if it says nothing."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return str(manifest["kind"]), list(manifest["settings"].get("runs", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return KINDS[0], []


def _ranked(model: Path | None, root: Path) -> Iterator[bytes]:
    from newsfuse.paid.payer import Employer  # noqa: PLC0415 - dev, and a check, need no torch
    from newsfuse.testset import TestSet  # noqa: PLC0415

    employer, (params, registry) = Employer(), load(root)
    data = root / "data" / params.dataset
    return lines(TestSet.of(data).ranked(params, registry, model or data / "model", employer))
