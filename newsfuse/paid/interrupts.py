"""Signals while money is in flight: the first one ends the work in good order, the second at once."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from newsfuse.signals import heard_by

STDERR = 2
SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def interruptible(stop: Callable[[int], None]) -> Iterator[None]:
    """Call `stop(signal number)` at the first SIGINT, SIGTERM or SIGHUP. At the second, end the process.

    At once, without waiting for requests in flight: the ledger is a database that a killed process cannot harm.
    """
    heard: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's signature
        heard.append(number)
        if len(heard) > 1:
            with suppress(OSError):  # nobody may be listening; not sys.stderr, which may be in the middle of a line
                cursor = SHOW_CURSOR if os.isatty(STDERR) else b""  # the bar has hidden it
                os.write(STDERR, cursor + b"stopped at once; what is in the ledger stays\n")
            os._exit(128 + number)
        stop(number)

    with heard_by(handle):
        yield
