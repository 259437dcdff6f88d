"""`newsfuse ensemble`: what is made of several runs."""

from pathlib import Path
from typing import Annotated

import typer

from newsfuse.stage import guarded


def ensemble(
    runs: Annotated[
        list[str],
        typer.Argument(help="'workspace', names or commits that dvc exp show prints, or predictions folders."),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to write, instead of data/<dataset>/ensemble.")] = None,
) -> None:
    """Rank by the mean of several runs' scores, each run's first made comparable within every impression."""
    from newsfuse.ensemble import ensemble as combine  # noqa: PLC0415 - other commands need not wait for polars

    guarded(lambda: combine(runs, Path(), out), verbose=False)


COMMANDS = (ensemble,)
