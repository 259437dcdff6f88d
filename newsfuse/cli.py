"""The `newsfuse` command. Stages are DVC's business; this is for what stands beside them."""

from pathlib import Path
from typing import Annotated

import typer

from newsfuse import __version__
from newsfuse.stage import guarded

app = typer.Typer(
    help="What each source of information about a news article is worth.", no_args_is_help=True, add_completion=False
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        typer.echo(f"newsfuse {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[  # noqa: FBT002 - typer's way
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What each source of information about a news article is worth."""


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


if __name__ == "__main__":
    app()
