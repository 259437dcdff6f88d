"""Buying vectors: several requests in flight, each one's vectors kept before the next is sent."""

import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

import tenacity

from newsfuse.blame import blame
from newsfuse.environment import Environment
from newsfuse.errors import (
    InterruptedRunError,
    NewsfuseError,
    PluginError,
    RefusedTextsError,
    TransientError,
    UselessAnswerError,
)
from newsfuse.paid.answers import require_usable
from newsfuse.paid.budget import Budget
from newsfuse.paid.interrupts import interruptible
from newsfuse.paid.ledger import Ledger
from newsfuse.paid.lot import Lot
from newsfuse.paid.pace import Pace
from newsfuse.paid.packing import packed
from newsfuse.paid.patience import failure, give_up, pause_s
from newsfuse.paid.payer import Employer
from newsfuse.paid.progress import Progress
from newsfuse.paid.receipt import Receipt
from newsfuse.paid.seller import Seller
from newsfuse.service import Connection

MAX_INPUTS = 512
"""Texts in one request, where more are allowed: fewer are lost when a run is killed, and it is hardly slower."""
USELESS_ANSWERS = 2
"""Each may have been billed, so they get one second chance and not five."""
MOST_REFUSED = 10
"""Texts a provider may refuse before the fault is rather in the settings."""
TICK_S = 0.2
"""How long a signal may go unnoticed."""


class StoppedError(NewsfuseError):
    """A worker was asked to end; the reason is elsewhere."""


class Purchase:
    """One run's buying. `run` is the whole of it."""

    def __init__(
        self,
        ledger: Ledger,
        connection: Connection,
        seller: Seller,
        *,
        budget: Budget,
        employer: Employer,
        environment: Environment,
    ) -> None:
        self._ledger, self._connection, self._budget, self._employer = ledger, connection, budget, employer
        self._seller, service = seller, seller.service
        self._attempts = 1 + environment.retries
        self._workers = min(environment.concurrency, service.max_in_flight)
        self._max_inputs = min(environment.max_inputs or MAX_INPUTS, service.max_inputs)
        self._max_tokens = service.max_tokens
        self._stopped = threading.Event()
        self._pace = Pace(self._workers, self._stopped.is_set)
        self._lock = threading.Lock()  # over all that follows, the ledger and the budget
        self._failure: BaseException | None = None
        self._refused: list[str] = []
        self._waiting: deque[Lot] = deque()
        self._kept = self._requests = self._retries = self._lost = 0

    def run(self, lot: Lot) -> Receipt:
        """Buy every text of the lot. Raises NewsfuseError, saying what is kept and what is left."""
        self._lot = lot
        cuts = packed(lot.sizes, max_inputs=self._max_inputs, max_tokens=self._max_tokens)
        self._waiting.extend(lot.part(*cut) for cut in cuts)
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(self._workers)]
        with interruptible(self._interrupt), Progress(len(lot), self._budget.forecast_usd(lot.tokens)) as progress:
            for worker in workers:
                worker.start()
            while any(worker.is_alive() for worker in workers):
                workers = [worker for worker in workers if worker.is_alive()] or workers[:1]
                workers[0].join(TICK_S)
                progress.show(self._kept, self._budget.usd, self._retries, stopping=self._stopped.is_set())
        if self._failure or self._refused:
            self._raise()
        return Receipt(len(lot), self._kept, self._requests, self._budget.tokens, self._budget.usd)

    # --- one worker

    def _work(self) -> None:
        try:
            with suppress(StoppedError):
                while lot := self._next():
                    self._buy(lot)
        finally:
            self._pace.leave()

    def _next(self) -> Lot | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting and not self._stopped.is_set() else None

    def _buy(self, lot: Lot) -> bool:
        """Buy a lot, or what the provider does not refuse of it -> whether that is all; any other failure stops all."""
        try:
            self._patiently(lot)
        except RefusedTextsError as error:
            self._narrow_down(lot, error)
            return False
        except StoppedError:
            raise
        except BaseException as error:
            self._stop(error)
            raise StoppedError from error
        return True

    def _narrow_down(self, lot: Lot, error: RefusedTextsError) -> None:
        """Halve a refused lot until what is refused stands alone: for one text of n, at most 2 log2(n) + 1 requests."""
        if len(lot) == 1:
            self._note_refused(f"{lot.place(0)}: {error}")
            return
        middle = len(lot) // 2
        second = lot.part(middle, len(lot))
        if self._buy(lot.part(0, middle)) and len(second) > 1:
            self._narrow_down(second, error)  # the fault is in there, so it need not be asked for as a whole
        else:
            self._buy(second)

    def _patiently(self, lot: Lot) -> None:
        """Ask until it works, what failed cannot heal, or patience ends."""
        tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=self._patience(),
            wait=pause_s,
            sleep=self._sleep,
            before_sleep=self._count_retry,
            retry_error_callback=give_up,
        )(self._ask, lot)

    def _ask(self, lot: Lot) -> None:
        """One request: written down, sent, checked, kept."""
        with self._pace.turn():
            estimate = lot.tokens
            with self._lock:
                self._require_leave()
                self._budget.promise(estimate)
                request = self._ledger.sent(self._seller.space, lot.keys, estimate)
                self._requests += 1
            try:
                with blame(self._seller.origin):
                    answer = self._connection.embed(lot.texts)
                    require_usable(answer, (len(lot), self._seller.space.dimensions))
            except BaseException as error:
                self._note_failure(lot, request, estimate, error)
                raise
            with self._lock:
                billed = estimate if answer.tokens is None else answer.tokens
                usd = self._budget.settle(estimate, billed)
                self._lost += len(lot)
                self._ledger.done(request, lot.keys, answer.vectors, billed, usd)
                self._lost -= len(lot)
                self._kept += len(lot)
        self._pace.answered(answer, estimate)

    def _require_leave(self) -> None:
        if self._stopped.is_set():
            raise StoppedError
        self._employer.require()

    def _note_failure(self, lot: Lot, request: int, estimate: int, error: BaseException) -> None:
        useless = isinstance(error, UselessAnswerError | PluginError)  # it may be billed, and is better counted
        if isinstance(error, TransientError) and not useless:
            self._pace.throttled(error.wait_s)
        with self._lock:
            usd = self._budget.settle(estimate, None) if useless else self._budget.release(estimate)
            status, tokens = ("useless", estimate) if useless else ("failed", 0)
            self._lost += len(lot) if useless else 0
            self._ledger.ended(request, status, tokens, usd, f"{type(error).__name__}: {error}")

    def _note_refused(self, told: str) -> None:
        with self._lock:
            self._refused.append(told)
            if len(self._refused) >= MOST_REFUSED:
                self._stopped.set()

    # --- patience

    def _patience(self) -> Callable[[tenacity.RetryCallState], bool]:
        useless = 0

        def stop(state: tenacity.RetryCallState) -> bool:
            nonlocal useless
            useless += isinstance(failure(state), UselessAnswerError)
            return useless >= USELESS_ANSWERS or state.attempt_number >= self._attempts

        return stop

    def _sleep(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise StoppedError

    def _count_retry(self, _: tenacity.RetryCallState) -> None:
        with self._lock:
            self._retries += 1

    # --- the end

    def _interrupt(self, signum: int) -> None:
        name = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}.get(signal.Signals(signum), "hung up")
        self._stop(InterruptedRunError(name, signum))

    def _stop(self, error: BaseException) -> None:
        # without the lock: a signal handler runs in the middle of anything. The first reason is the one to tell
        if self._failure is None:
            self._failure = error
        self._stopped.set()

    def _raise(self) -> NoReturn:
        error = self._failure or RefusedTextsError(_refusals(self._refused))
        if isinstance(error, NewsfuseError):
            error.args = (f"{error}. {self._state()}",)
        raise error

    def _state(self) -> str:
        left = len(self._lot) - self._kept
        cost = self._budget.forecast_usd(self._lot.tokens) * left / len(self._lot)
        kept = f"{self._kept:,} texts are paid and kept (${self._budget.usd:.4f} was spent)"
        lost = f", {self._lost:,} more may have been billed for nothing" if self._lost else ""
        return f"{kept}{lost}, {left:,} are left (about ${cost:.4f}); run again to continue"


def _refusals(places: Sequence[str]) -> str:
    shown = "; ".join(places[:3])
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""  # noqa: PLR2004 - as many as are shown
    many = ". So many refusals suggest a wrong setting (embed.model, the server)" if len(places) >= MOST_REFUSED else ""
    return f"the provider refuses {len(places)} texts: {shown}{more}{many}. Change or remove them"
