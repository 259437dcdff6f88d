"""`newsfuse show`: the experiments there are."""

from pathlib import Path
from typing import Annotated

import typer

from newsfuse.stage import guarded


def show(
    *,
    all_commits: Annotated[
        bool, typer.Option("--all-commits", "-A", help="Also other commits with results, and their experiments.")
    ] = False,
    sort: Annotated[str, typer.Option(help="A metric, from best to worst, or a setting.")] = "auc",
    md: Annotated[bool, typer.Option("--md", help="A Markdown table, nothing shortened.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="All digits and full names, separated by commas.")] = False,
) -> None:
    """List experiments: the settings that differ, AUC, nDCG@10, dollars and minutes. Best first."""
    from newsfuse.show import show as print_table  # noqa: PLC0415 - other commands need not wait for polars

    if md and csv:
        message = "one of --md and --csv"
        raise typer.BadParameter(message)
    form = "md" if md else "csv" if csv else "table"
    guarded(lambda: print_table(Path(), all_commits=all_commits, sort=sort, form=form), verbose=False)


COMMANDS = (show,)
