"""`newsfuse doctor`: what is right and what is wrong with this project."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from newsfuse.stage import guarded


def doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Look over machine, settings, ledger, DVC, disks, data and all that stages made; say what to mend, and how.

    Writes nothing, sends nothing, pays nothing. Exit code 0, or that of the worst failure.
    """
    sys.dont_write_bytecode = True  # of plugins: nothing is written
    from newsfuse.doctor.sheet import tell_all  # noqa: PLC0415 - other commands need not wait for torch

    logging.getLogger("newsfuse").setLevel(logging.ERROR)  # what stages warn of stands in lines of its own
    guarded(lambda: sys.exit(tell_all(Path(), as_json=as_json)), verbose=False)


COMMANDS = (doctor,)
