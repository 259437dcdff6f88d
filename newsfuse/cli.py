"""The `newsfuse` command. Stages are DVC's business; this is for what stands beside them."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from newsfuse import Mode, __version__
from newsfuse.stage import guarded, log_printably

app = typer.Typer(
    help="What each source of information about a news article is worth.", no_args_is_help=True, add_completion=False
)
ledger = typer.Typer(
    help="The ledger: every vector that was ever paid for. None of these commands sends anything.", no_args_is_help=True
)
app.add_typer(ledger, name="ledger")


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        typer.echo(f"newsfuse {__version__}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[  # noqa: ARG001 - its callback has it
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What each source of information about a news article is worth."""
    log_printably()
    logging.getLogger("newsfuse").setLevel(logging.INFO)


@app.command()
def synth(
    folder: Annotated[Path, typer.Argument(help="Where train/ and dev/ are written.")],
    news: Annotated[int, typer.Option(min=100, help="Distinct articles, train and dev together.")] = 500,
    impressions: Annotated[int, typer.Option(min=100, help="Impressions, train and dev together.")] = 2000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Make a synthetic data set in MIND's format. data/tiny is `newsfuse synth data/tiny`."""
    from newsfuse.synth import synth as write  # noqa: PLC0415 - other commands need not wait for numpy

    guarded(lambda: write(folder, news=news, impressions=impressions, seed=seed), verbose=False)


@app.command()
def plugins(verbose: Annotated[bool, typer.Option(help="Show where a broken plugin fails.")] = False) -> None:  # noqa: FBT002 - typer's way
    """List the plugins of this project: where each comes from, its settings, what it needs."""
    from newsfuse.catalogue import show  # noqa: PLC0415 - other commands need not wait for torch

    guarded(lambda: show(Path()), verbose=verbose)


@app.command(name="plan")
def cost(
    files: Annotated[list[Path] | None, typer.Argument(help="news.tsv files, instead of the data set's own.")] = None,
    *,
    provider: Annotated[str | None, typer.Option(help="Another embedder than params.yaml's.")] = None,
    model: Annotated[str | None, typer.Option(help="Another model than params.yaml's.")] = None,
    dimensions: Annotated[int | None, typer.Option(min=1, help="Another length of the vectors.")] = None,
    mode: Annotated[Mode | None, typer.Option(help="At once, or within a day at another price.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="A row for each embedder and model there is.")] = False,
) -> None:
    """Show what the embed stage would cost: texts, already paid, to pay, tokens, dollars. Sends and writes nothing."""
    from newsfuse import plan  # noqa: PLC0415 - other commands need not wait for numpy

    wish = plan.Wish(provider, model, dimensions, mode)
    guarded(lambda: plan.plan(wish, files or [], compare=compare), verbose=False)


@ledger.command()
def status(
    requests: Annotated[int, typer.Option(min=0, help="Also list so many of the latest requests.")] = 0,
) -> None:
    """Show where the ledger is, what it holds and what was spent. Works while another process pays."""
    from newsfuse import bookkeeping  # noqa: PLC0415 - other commands need not wait for numpy

    guarded(lambda: bookkeeping.status(latest=requests), verbose=False)


@ledger.command()
def verify(
    *,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Also where the file says that a newer newsfuse wrote it.")
    ] = False,
) -> None:
    """Check every vector, and set bad ones aside; out of a damaged file, save all good ones (exit code 7)."""
    from newsfuse import bookkeeping  # noqa: PLC0415 - see above

    guarded(lambda: bookkeeping.verify(rebuild=rebuild), verbose=False)


@ledger.command(name="import")
def take_in(
    folders: Annotated[list[Path], typer.Argument(help="data/<dataset>/embeddings, or what `export` wrote.")],
) -> None:
    """Put the vectors of embeddings or of an export into the ledger: a lost ledger is rebuilt for nothing."""
    from newsfuse import exchange  # noqa: PLC0415 - see above

    guarded(lambda: exchange.take_in(folders), verbose=False)


@ledger.command(name="export")
def hand_out(folder: Annotated[Path, typer.Argument(help="A new folder.")]) -> None:
    """Write all vectors to a folder, for a backup or for another ledger's `import`."""
    from newsfuse import exchange  # noqa: PLC0415 - see above

    guarded(lambda: exchange.hand_out(folder), verbose=False)


@ledger.command()
def compact(
    *,
    drop_quarantined: Annotated[
        bool, typer.Option("--drop-quarantined", help="Also delete the bad rows that `verify` set aside.")
    ] = False,
) -> None:
    """Give unused space in the ledger's file back to the disk. Nothing that was paid for is dropped."""
    from newsfuse import bookkeeping  # noqa: PLC0415 - see above

    guarded(lambda: bookkeeping.compact(drop_quarantined=drop_quarantined), verbose=False)


@ledger.command(name="give-up")
def give_up(job: Annotated[str, typer.Argument(help="Its name, as `newsfuse ledger status` shows it.")]) -> None:
    """Forget an open job that the provider knows no more, so that its texts may be bought again."""
    from newsfuse import bookkeeping  # noqa: PLC0415 - see above

    guarded(lambda: bookkeeping.give_up(job), verbose=False)


if __name__ == "__main__":
    app()
