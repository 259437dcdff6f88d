"""Signals that end a program, heard by somebody else for a while."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)
"""A closed terminal; not on Windows."""


@contextmanager
def heard_by(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let `handle` hear SIGINT, SIGTERM and SIGHUP instead of whoever hears them now."""
    # nohup has SIGHUP ignored, and means it
    heeded = INTERRUPTS if signal.getsignal(HANGUP) is signal.SIG_IGN else {*INTERRUPTS, HANGUP}
    before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
