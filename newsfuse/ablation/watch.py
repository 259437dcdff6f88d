"""Waits for experiments in DVC's queue: keeps a worker at them, and shows how far they are in one line."""

import logging
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status

from newsfuse.ablation.queue import Queue
from newsfuse.errors import BusyError

POLL_S = 1.0
START_S = 15.0
"""How long a worker may take to be there, on a busy machine; one that has nothing to do ends after 10 s."""
STARTS = 3
"""After so many, none of whose workers took a run, another would take none either."""
log = logging.getLogger(__name__)


def watch(queue: Queue, names: Iterable[str], *, workers: int, before: int) -> None:
    """Return when none of the experiments waits or runs any more.

    `before`: how many others count as done. Raises BusyError where no worker can be started, or none stays.
    """
    watched, starter = set(names), Starter(queue, workers)
    with Progress(len(watched), before) as progress:
        starter.start()
        started = time.monotonic()
        while pending := queue.pending() & watched:
            progress.show(queue, watched - pending)
            time.sleep(POLL_S)
            if time.monotonic() - started > START_S and not queue.has_worker():
                queue.forget_abandoned(watched)
                if queue.waiting() & watched:  # it stopped as these came, or was killed
                    starter.start()
                    started = time.monotonic()
        progress.show(queue, watched)


class Starter:
    """Starts workers, and gives up where they end at once."""

    def __init__(self, queue: Queue, workers: int) -> None:
        self._queue, self._workers = queue, workers
        self._left, self._vain = set[str](), 0

    def start(self) -> None:
        """Raises BusyError where no worker can be started, or the last ones took nothing out of the queue."""
        waiting = self._queue.waiting()  # all: those of others come first
        self._vain = self._vain + 1 if self._left and self._left <= waiting else 0
        if self._vain == STARTS:
            message = "the queue's worker ends at once; see why: dvc queue start --verbose"
            raise BusyError(message)
        self._left = waiting
        self._queue.start(self._workers)


class Progress:
    """A line on a terminal that changes; in a log a line for each run that ends."""

    def __init__(self, total: int, before: int) -> None:
        self._total, self._before = total, before
        self._start, self._ended, self._failed, self._since = time.monotonic(), -1, 0, 0.0
        # not what rich thinks, for whom FORCE_COLOR makes every log a terminal
        console = Console(stderr=True, force_terminal=sys.stderr.isatty())
        self._status = Status("", console=console) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._status:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()

    def show(self, queue: Queue, ended: set[str]) -> None:
        """These have ended, well or not."""
        is_news = len(ended) != self._ended
        if is_news:
            self._ended, self._failed = len(ended), len(queue.failures(ended))
            self._since = time.monotonic() - self._start
        if self._status:
            self._status.update(self._line())
        elif is_news:
            log.info("%s", self._line())

    def _line(self) -> str:
        done = self._before + self._ended - self._failed
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{done} of {self._before + self._total} done{failed}{self._left()}"

    def _left(self) -> str:
        """By the mean of those that ended, none of which may have yet."""
        if not self._ended or self._ended == self._total:
            return ""
        at_the_end = self._since / self._ended * self._total
        left_s = max(at_the_end - (time.monotonic() - self._start), 0)
        return f", about {max(left_s / 60, 0.1):.1f} minutes left"
