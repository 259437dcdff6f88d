"""How a stage is run: settings checked first, mistakes told in words, the exit code by the kind of mistake."""

import argparse
import contextlib
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from newsfuse import times
from newsfuse.errors import NewsfuseError, StorageError, printable
from newsfuse.params import Params, load
from newsfuse.registry import Registry

INTERRUPTED, TERMINATED = 130, 143


class Printable(logging.Formatter):
    """Log lines in which no data can hide control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return printable(super().format(record))


def log_printably() -> None:
    """Log warnings to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(Printable("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def log_stage() -> None:
    """Log what a stage has to say, beside warnings."""
    log_printably()
    logging.getLogger("newsfuse").setLevel(logging.INFO)


def run(recipe: Callable[[Params, Registry], None]) -> None:
    """Call `recipe` with the checked params.yaml of the current folder and its plugins; exits on any mistake."""
    parser = argparse.ArgumentParser(prog=f"python -m stages.{recipe.__name__}", description=recipe.__doc__)
    parser.add_argument("--verbose", action="store_true", help="show where an error arose")
    verbose = parser.parse_args().verbose
    log_stage()
    signal.signal(signal.SIGTERM, _terminate)
    guarded(lambda: _timed(recipe, *load(Path())), verbose=verbose)


def _timed(recipe: Callable[[Params, Registry], None], params: Params, registry: Registry) -> None:
    start = time.monotonic()
    recipe(params, registry)
    if os.environ.get("RANK", "0") == "0":  # of several processes that torchrun started, one makes the artifact
        times.note(recipe.__name__, Path("data", params.dataset), time.monotonic() - start)


def guarded(work: Callable[[], None], *, verbose: bool) -> None:
    """Do the work; a mistake that a user can mend becomes one message and an exit code, without a traceback."""
    try:
        work()
    except NewsfuseError as error:
        _tell(error, verbose=verbose)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OSError as error:
        _tell(error, verbose=verbose)
        sys.exit(StorageError.exit_code)


def _tell(error: Exception, *, verbose: bool) -> None:
    if verbose:
        traceback.print_exception(error)
    with contextlib.suppress(OSError):  # whoever read our words is gone; the exit code is still read
        print(f"ERROR: {printable(str(error))}", file=sys.stderr, flush=True)  # noqa: T201 - what the user is meant to read


def _terminate(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's signature
    sys.exit(TERMINATED)
