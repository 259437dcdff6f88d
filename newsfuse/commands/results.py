"""`newsfuse submission`: what is handed in."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from newsfuse.stage import guarded


class Split(StrEnum):
    """What there may be to rank."""

    DEV = "dev"
    TEST = "test"


def submission(
    *,
    split: Annotated[Split, typer.Option(help="dev: as evaluated. test: scored now, by the model.")] = Split.TEST,
    out: Annotated[Path, typer.Option(help="The archive to write.")] = Path("prediction.zip"),
    source: Annotated[
        Path | None,
        typer.Option("--from", help="dev: another folder of predictions, as an ensemble's. test: of a model."),
    ] = None,
    check: Annotated[Path | None, typer.Option(help="Write nothing, check this archive.")] = None,
    behaviors: Annotated[Path | None, typer.Option(help="What --check compares with, instead of the split's.")] = None,
) -> None:
    """Write prediction.zip as MIND's competition takes it, and check it line by line."""
    from newsfuse import submit  # noqa: PLC0415 - other commands need not wait for polars

    if behaviors and not check:
        message = "goes with --check only"
        raise typer.BadParameter(message, param_hint="--behaviors")
    if check:
        guarded(lambda: submit.check(check, behaviors, split, Path()), verbose=False)
    else:
        guarded(lambda: submit.submit(split, out, source, Path()), verbose=False)


COMMANDS = (submission,)
