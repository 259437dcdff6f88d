"""`newsfuse plugins` and `check-plugin`: which there are, and whether one keeps its promises."""

from pathlib import Path
from typing import Annotated

import typer

from newsfuse.scaffold.kind import Kind
from newsfuse.stage import guarded


def plugins(verbose: Annotated[bool, typer.Option(help="Show where a broken plugin fails.")] = False) -> None:  # noqa: FBT002 - typer's way
    """List the plugins of this project: where each comes from, its settings, what it needs."""
    from newsfuse.catalogue import show  # noqa: PLC0415 - other commands need not wait for torch

    guarded(lambda: show(Path()), verbose=verbose)


def check_plugin(
    name: Annotated[str, typer.Argument(help="A plugin's name, here or in an installed package, or a .py file.")],
    *,
    kind: Annotated[Kind | None, typer.Option(help="Where several kinds have one of that name.")] = None,
) -> None:
    """Put a plugin to every promise of its kind: a line for each, and what to do about a broken one. Exit code 9."""
    from newsfuse.registry import FOLDERS  # noqa: PLC0415 - other commands need not wait for torch
    from newsfuse.testing.sheet import check  # noqa: PLC0415

    kinds = tuple(each for each, folder in FOLDERS.items() if kind in {None, folder.removesuffix("s")})
    guarded(lambda: check(name, kinds, Path()), verbose=False)


COMMANDS = (plugins, check_plugin)
