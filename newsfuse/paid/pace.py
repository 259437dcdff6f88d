"""How many requests may be in flight, and from when on: learnt from what the server answers."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from newsfuse.service import Allowance, Answer

LONGEST_WAIT_S = 60.0
"""Limits are per minute: after that much waiting a new window has begun, whatever a header says."""


class Pace:
    """Until a request has been answered well, one thread asks alone: what is wrong is found out once, not eight times.

    Then `most` go at once. A request to slow down halves that and holds everybody back for as long
    as the server asked; every good answer raises it by one (additive increase, multiplicative
    decrease: Chiu and Jain 1989, as in TCP).
    """

    def __init__(self, most: int, stopped: Callable[[], bool]) -> None:
        self.most, self._stopped = most, stopped
        self._limit, self._flying, self._resume_at = 1, 0, 0.0
        self._throttled = self._proved = False
        self._scout: int | None = None
        """The thread that asks alone."""
        self._turn = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until one more request may be in flight, or all is stopped."""
        me = threading.get_ident()
        with self._turn:
            while not self._stopped() and (wait_s := self._wait_s(me)):
                self._turn.wait(wait_s)
            self._flying += 1
        try:
            yield
        finally:
            with self._turn:
                self._flying -= 1
                self._turn.notify_all()

    def leave(self) -> None:
        """Say that this thread asks no more: if it went alone without success, another has to."""
        with self._turn:
            if self._scout == threading.get_ident():
                self._scout = None
            self._turn.notify_all()

    def _wait_s(self, me: int) -> float:
        """Seconds until looking again makes sense, 0 to go."""
        if (early_s := self._resume_at - time.monotonic()) > 0:
            return min(early_s, 0.2)  # not longer than a signal may go unnoticed
        self._scout = self._scout or me
        alone = self._scout != me and not self._proved
        return 0.2 if alone or self._flying >= self._limit else 0.0

    def answered(self, answer: Answer, next_tokens: int) -> None:
        """Learn from a good answer: one more at once, and a pause where the window has no room for another request."""
        with self._turn:
            self._proved = True
            self._limit = min(self.most, self._limit + 1) if self._throttled else self.most
            self._hold_back(answer.requests, self._flying + 1)
            self._hold_back(answer.budget, next_tokens)
            self._turn.notify_all()

    def throttled(self, wait_s: float | None) -> None:
        """Learn from a refusal: half as many at once, and none before `wait_s` has passed."""
        with self._turn:
            self._throttled = True
            self._limit = max(1, self._limit // 2)
            self._pause(wait_s or 0.0)

    def _hold_back(self, allowance: Allowance | None, needed: int) -> None:
        if allowance and allowance.left < needed:
            self._pause(allowance.reset_s)

    def _pause(self, seconds: float) -> None:
        self._resume_at = max(self._resume_at, time.monotonic() + min(seconds, LONGEST_WAIT_S))
