"""`newsfuse ledger ...`: what stands in the ledger."""

from pathlib import Path
from typing import Annotated

import typer

from newsfuse.stage import guarded

app = typer.Typer(
    help="The ledger: every vector that was ever paid for. None of these commands sends anything.", no_args_is_help=True
)


@app.command()
def status(
    requests: Annotated[int, typer.Option(min=0, help="Also list so many of the latest requests.")] = 0,
) -> None:
    """Show where the ledger is, what it holds and what was spent. Works while another process pays."""
    from newsfuse import bookkeeping  # noqa: PLC0415 - other commands need not wait for numpy

    guarded(lambda: bookkeeping.status(latest=requests), verbose=False)


@app.command()
def verify(
    *,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Also where the file says that a newer newsfuse wrote it.")
    ] = False,
) -> None:
    """Check every vector, and set bad ones aside; out of a damaged file, save all good ones (exit code 7)."""
    from newsfuse import bookkeeping  # noqa: PLC0415 - other commands need not wait for numpy

    guarded(lambda: bookkeeping.verify(rebuild=rebuild), verbose=False)


@app.command(name="import")
def take_in(
    folders: Annotated[list[Path], typer.Argument(help="data/<dataset>/embeddings, or what `export` wrote.")],
) -> None:
    """Put the vectors of embeddings or of an export into the ledger: a lost ledger is rebuilt for nothing."""
    from newsfuse import exchange  # noqa: PLC0415 - other commands need not wait for numpy

    guarded(lambda: exchange.take_in(folders), verbose=False)


@app.command(name="export")
def hand_out(folder: Annotated[Path, typer.Argument(help="A new folder.")]) -> None:
    """Write all vectors to a folder, for a backup or for another ledger's `import`."""
    from newsfuse import exchange  # noqa: PLC0415 - other commands need not wait for numpy

    guarded(lambda: exchange.hand_out(folder), verbose=False)


@app.command()
def compact(
    *,
    drop_quarantined: Annotated[
        bool, typer.Option("--drop-quarantined", help="Also delete the bad rows that `verify` set aside.")
    ] = False,
) -> None:
    """Give unused space in the ledger's file back to the disk. Nothing that was paid for is dropped."""
    from newsfuse import bookkeeping  # noqa: PLC0415 - other commands need not wait for numpy

    guarded(lambda: bookkeeping.compact(drop_quarantined=drop_quarantined), verbose=False)


@app.command(name="give-up")
def give_up(job: Annotated[str, typer.Argument(help="Its name, as `newsfuse ledger status` shows it.")]) -> None:
    """Forget an open job that the provider knows no more, so that its texts may be bought again."""
    from newsfuse import bookkeeping  # noqa: PLC0415 - other commands need not wait for numpy

    guarded(lambda: bookkeeping.give_up(job), verbose=False)
