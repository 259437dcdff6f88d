"""Signals while money is in flight: the first one ends the work in good order, the second at once."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STDERR = 2


@contextmanager
def interruptible(stop: Callable[[int], None]) -> Iterator[None]:
    """Call `stop(signal number)` at the first SIGINT or SIGTERM. At the second, end the process.

    At once, without waiting for requests in flight: the ledger is a database that a killed process cannot harm.
    """
    heard: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's signature
        heard.append(number)
        if len(heard) > 1:
            with suppress(OSError):  # nobody may be listening; not sys.stderr, which may be in the middle of a line
                os.write(STDERR, b"stopped at once; what is in the ledger stays\n")
            os._exit(128 + number)
        stop(number)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
