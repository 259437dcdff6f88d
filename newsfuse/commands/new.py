"""`newsfuse new`: a plugin to begin with."""

from pathlib import Path
from typing import Annotated

import typer

from newsfuse.errors import StorageError
from newsfuse.scaffold.kind import Kind
from newsfuse.stage import guarded


def new(
    kind: Annotated[Kind, typer.Argument(help="What the plugin is.")],
    name: Annotated[str, typer.Argument(help="What params.yaml will call it, such as my_text.")],
    *,
    package: Annotated[
        bool, typer.Option("--package", help="Write newsfuse-NAME/, to install, instead of a file of this project.")
    ] = False,
) -> None:
    """Write a plugin that works and passes every check, to be made your own; print the commands to go on with."""
    guarded(lambda: _write(kind, name, package=package), verbose=False)


def _write(kind: Kind, name: str, *, package: bool) -> None:
    from newsfuse.scaffold import package as packages  # noqa: PLC0415 - other commands need not wait
    from newsfuse.scaffold import plugin_file  # noqa: PLC0415

    write = packages.write if package else plugin_file.write
    try:
        made = write(kind, name, Path())
    except OSError as error:
        message = f"'{name}' could not be written: {error}. Nothing was left behind; make room or mend the permissions"
        raise StorageError(message) from error
    typer.echo("\n".join(["Written:", *(f"  {path}" for path in made.files)]))
    typer.echo("\n".join(["Next:", *(f"  {command}" for command in made.commands)]))
    if made.note:
        typer.echo(made.note)


COMMANDS = (new,)
