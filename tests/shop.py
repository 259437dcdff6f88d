"""A service in this process, and all that it takes to buy from it: no network, no plugin file."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from openai_server import vectors

from newsfuse import Answer, Service
from newsfuse.environment import Environment
from newsfuse.news import TEXT_VERSION
from newsfuse.paid.budget import Budget
from newsfuse.paid.ledger import NEW, Ledger
from newsfuse.paid.lot import Lot
from newsfuse.paid.payer import Employer
from newsfuse.paid.purchase import Purchase
from newsfuse.paid.seller import Seller
from newsfuse.paid.space import Space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from newsfuse.paid.receipt import Receipt

    Reply = Callable[[Sequence[str]], Answer]

DIMENSIONS = 4
ORIGIN = "plugins/embedders/shop.py"
SPACE = Space("shop", "", "clay", DIMENSIONS, TEXT_VERSION)
USD_PER_MILLION_TOKENS = 1e6 / 2**20
"""About one dollar, and no sum of it is rounded."""
TOKENS = 3
"""Of each text of `numbered`, by the estimator and as the shop bills them."""
USD = TOKENS / 2**20
"""Of each text of `numbered`."""


def faithful(texts: Sequence[str]) -> Answer:
    """What was asked for, billed as it was estimated."""
    return Answer(vectors(texts, DIMENSIONS), lot(texts).tokens)


def failing(kind: type[BaseException], *words: object) -> Callable[..., NoReturn]:
    """A reply that raises."""

    def reply(*_: object) -> NoReturn:
        raise kind(*words)

    return reply


def poisoned(kind: type[Exception], *poison: str) -> Reply:
    """A reply that raises where one of the texts is among the `poison`."""

    def reply(texts: Sequence[str]) -> Answer:
        if found := sorted({*texts} & {*poison}):
            message = f"'{found[0]}' is not wanted here"
            raise kind(message)
        return faithful(texts)

    return reply


class Shop:
    """Answers the n-th request with the n-th reply, and with the last one from then on.

    `requests` are the texts of each request, `busiest` is how many were in flight at most,
    `opened` and `closed` count connections.
    """

    def __init__(self, *replies: Reply, delay_s: float = 0.0) -> None:
        self.replies, self.delay_s = replies or (faithful,), delay_s
        self.requests: list[list[str]] = []
        self.flying = self.busiest = self.opened = self.closed = 0
        self.lock = threading.Lock()

    @contextmanager
    def connect(self) -> Iterator[Shop]:
        self.opened += 1
        try:
            yield self
        finally:
            self.closed += 1

    def embed(self, texts: Sequence[str]) -> Answer:
        with self.lock:
            reply = self.replies[min(len(self.requests), len(self.replies) - 1)]
            self.requests.append(list(texts))
            self.flying += 1
            self.busiest = max(self.busiest, self.flying)
        try:
            time.sleep(self.delay_s)
            return reply(texts)
        finally:
            with self.lock:
                self.flying -= 1

    def seller(self, **changes: Any) -> Seller:  # noqa: ANN401 - any field of a Service
        limits = {"max_inputs": 2048, "max_tokens": 300_000, "max_text_bytes": 8191}
        price = {"usd_per_million_tokens": USD_PER_MILLION_TOKENS}
        values: Any = {"connect": self.connect, "host": "", **price, **limits, **changes}
        return Seller(Service(**values), SPACE, ORIGIN)


def numbered(count: int) -> Lot:
    """Texts of ten bytes each."""
    return lot([f"title {number:04}" for number in range(count)])


def lot(texts: Sequence[str]) -> Lot:
    """The i-th text is that of article N<i>, at line i + 1."""
    return Lot(texts, SPACE.keys(texts), lambda text: f"news.tsv:{text + 1} (N{text})")


def buy(
    goods: Lot,
    shop: Shop,
    ledger: Ledger,
    *,
    budget_usd: float = 1.0,
    seller: Seller | None = None,
    employer: Employer | None = None,
    **settings: object,
) -> Receipt:
    """Buy all the goods; `settings` are NEWSFUSE_ variables. One request at a time unless `concurrency` says more."""
    environment = Environment.model_validate({"concurrency": 1, **settings})
    budget = Budget(budget_usd, USD_PER_MILLION_TOKENS)
    chosen, boss = seller or shop.seller(), employer or Employer()
    return Purchase(ledger, shop, chosen, budget=budget, employer=boss, environment=environment).run(goods)


@contextmanager
def quick_ledger() -> Iterator[Ledger]:
    """A ledger that is on no disk."""
    with closing(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)) as database:
        database.executescript(NEW)
        yield Ledger(Path("ledger.sqlite"), database)
