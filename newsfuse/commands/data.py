"""`newsfuse synth`, `fetch` and `import`: where data sets come from."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from newsfuse.stage import guarded


def synth(
    folder: Annotated[Path, typer.Argument(help="Where train/ and dev/ are written.")],
    news: Annotated[int, typer.Option(min=100, help="Distinct articles, train and dev together.")] = 500,
    impressions: Annotated[int, typer.Option(min=100, help="Impressions, train and dev together.")] = 2000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Make a synthetic data set in MIND's format. data/tiny is `newsfuse synth data/tiny`."""
    from newsfuse.synth import synth as write  # noqa: PLC0415 - other commands need not wait for numpy

    guarded(lambda: write(folder, news=news, impressions=impressions, seed=seed), verbose=False)


bundles = typer.Typer(help="Turn other public data sets into MIND's layout, below data/.", no_args_is_help=True)


@bundles.callback()
def _bundles() -> None:
    """Without this, typer would make the only command of a group the group itself."""


def _name(given: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", given):  # as params.yaml has it
        message = f"'{given}' is no name of a data set; expected letters, digits, '.', '_' and '-'"
        raise typer.BadParameter(message)
    return given


@bundles.command()
def ebnerd(
    path: Annotated[Path, typer.Argument(help="The folder of a bundle as unzipped, or its zip file.")],
    name: Annotated[str, typer.Option(callback=_name, help="The data set's name: data/<name> is written.")] = "ebnerd",
    history: Annotated[int, typer.Option(min=1, help="Latest clicks of a user that are kept.")] = 50,
) -> None:
    """Import a bundle of EB-NeRD (demo, small, large or test) as parquet, and have DVC track it."""
    from newsfuse.ebnerd import take_in  # noqa: PLC0415 - other commands need not wait for polars

    guarded(lambda: take_in(path, Path("data", name), history=history), verbose=False)


def fetch(
    dataset: Annotated[Literal["demo", "small", "large"], typer.Argument(help="Which MIND.")],
    zips: Annotated[list[Path] | None, typer.Argument(help="With --from-zip: the archives.")] = None,
    *,
    from_zip: Annotated[
        bool, typer.Option("--from-zip", help="Take archives that are here, download nothing.")
    ] = False,
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="You have read Microsoft's licence and accept it.")
    ] = False,
) -> None:
    """Download MIND to data/<name>/train and dev, and have DVC track them. Run again, it goes on where it stopped."""
    from newsfuse.fetching.fetch import fetch as get  # noqa: PLC0415 - other commands need not wait for requests

    if from_zip != bool(zips):
        example = f"newsfuse fetch {dataset} --from-zip MIND{dataset}_train.zip MIND{dataset}_dev.zip"
        raise typer.BadParameter("archives and --from-zip go together: " + example)
    guarded(lambda: get(dataset, zips or [], accepted=accept_license), verbose=False)


COMMANDS = (synth, fetch)
