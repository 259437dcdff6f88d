"""`newsfuse synth`: where data sets come from."""

from pathlib import Path
from typing import Annotated

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


COMMANDS = (synth,)
