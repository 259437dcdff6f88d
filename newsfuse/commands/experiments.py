"""`newsfuse compare` and `newsfuse ensemble`: what is made of several runs."""

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


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="Runs as for ensemble, the reference first; runs that differ in their seed: late=one,two."),
    ],
    *,
    slices: Annotated[bool, typer.Option("--slices", help="Show the AUC of slices of dev too.")] = False,
    md: Annotated[Path | None, typer.Option(help="Write Markdown; - is standard output.")] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write CSV: all metrics of all slices; - is standard output.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page of HTML; - is standard output.")] = None,
) -> None:
    """Show which run ranks better, by how much, and whether that is more than noise; and what each cost."""
    from newsfuse.compare import compare as show  # noqa: PLC0415 - other commands need not wait for polars

    files = {form: path for form, path in {"md": md, "csv": csv, "html": html}.items() if path}
    guarded(lambda: show(runs, Path(), files, by_slice=slices), verbose=False)


COMMANDS = (compare, ensemble)
