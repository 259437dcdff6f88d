"""The `newsfuse` command. Stages are DVC's business; this is for what stands beside them."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from newsfuse import Mode, __version__
from newsfuse.commands import ablate, data, doctor, experiments, ledger, new, plugins, report, results, show
from newsfuse.stage import guarded, log_printably

app = typer.Typer(
    help="What each source of information about a news article is worth.", no_args_is_help=True, add_completion=False
)
app.add_typer(data.bundles, name="import")
app.add_typer(ledger.app, name="ledger")
for module in (ablate, data, doctor, experiments, new, plugins, report, results, show):
    for command in module.COMMANDS:
        app.command()(command)


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


if __name__ == "__main__":
    app()
