"""How far a download is: a bar on a terminal, a plain line now and then in a log."""

import logging
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

EVERY_S = 10.0
log = logging.getLogger(__name__)


class Meter:
    """Told how many bytes are there; shows it at its own pace."""

    def __init__(self, name: str, console: Console | None = None) -> None:
        self._name = name
        # not what rich thinks, for whom FORCE_COLOR makes every log a terminal
        self._console = console or Console(stderr=True, force_terminal=sys.stderr.isatty())
        self._told = time.monotonic()
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), *columns, console=self._console, transient=True
        )
        self._task = self._bar.add_task(name, total=None)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def show(self, done: int, total: int | None) -> None:
        """So many bytes of `total` are there; None where nobody said how many there are."""
        if self._console.is_terminal:
            self._bar.update(self._task, completed=done, total=total)
        elif time.monotonic() - self._told >= EVERY_S:
            self._told = time.monotonic()
            log.info("%s: %s", self._name, f"{done:,} of {total:,} bytes" if total else f"{done:,} bytes")
