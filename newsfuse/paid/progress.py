"""How far the buying is: a bar on a terminal, plain lines every few seconds in a log."""

import logging
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

EVERY_S = 5.0
SAFE = "safe to interrupt"
STOPPING = "stopping: what is in flight is finished and kept; a second Ctrl-C would lose it"
log = logging.getLogger(__name__)


class Progress:
    """Told now and then how much is done; shows it at its own pace."""

    def __init__(self, total: int, forecast_usd: float, console: Console | None = None) -> None:
        self._total, self._forecast_usd = total, forecast_usd
        # not what rich thinks, for whom FORCE_COLOR makes every log a terminal
        self._console = console or Console(stderr=True, force_terminal=sys.stderr.isatty())
        self._stopping = False
        self._start = self._told = time.monotonic()
        self._bar = Bar(BarColumn(), TextColumn("{task.description}"), console=self._console, transient=True)
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def show(self, done: int, usd: float, retries: int, *, stopping: bool = False) -> None:
        """So many texts are paid and kept, for so many dollars, after so many second attempts."""
        now = time.monotonic()
        due = now - self._told >= EVERY_S or stopping > self._stopping  # that we stop is told at once
        self._stopping = stopping
        safe = STOPPING if stopping else SAFE
        if self._console.is_terminal:
            told = f"{self._line(done, usd, retries, now)}\n{safe}"  # two lines: 80 columns would cut one
            self._bar.update(self._task, completed=done, description=told)
        elif due:
            self._told = now
            log.info("%s, %s", self._line(done, usd, retries, now), safe)

    def _line(self, done: int, usd: float, retries: int, now: float) -> str:
        rate = done / max(now - self._start, 1e-9)
        forecast = usd / done * self._total if done else self._forecast_usd
        money = f"${usd:.4f} of about ${forecast:.4f}"
        return f"{done:,}/{self._total:,} texts, {money}, {rate:,.0f} texts/s, {retries} retries"
