"""The door to the ledger: make sure that every text has its vector, paying for those that have none."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

from newsfuse.blame import blame
from newsfuse.environment import Environment
from newsfuse.errors import AuthenticationError, StorageError
from newsfuse.paid.budget import Budget
from newsfuse.paid.jobs import Haul, Jobs, divided, on_order
from newsfuse.paid.ledger import PAGE_BYTES, Ledger
from newsfuse.paid.lot import Lot
from newsfuse.paid.payer import Employer, sole_payer
from newsfuse.paid.purchase import Purchase
from newsfuse.paid.receipt import Receipt
from newsfuse.paid.seller import Seller
from newsfuse.plugin import Mode
from newsfuse.service import Connection, Desk

ROW_BYTES = 256
"""Of a ledger's row beside its vector, generously."""
PAGES_PER_TEXT, MOST_PAGES = 6, 1000
"""SQLite writes whole pages, to the log and to several trees: a few texts need more room than they are long."""
log = logging.getLogger(__name__)


def supply(
    lot: Lot, seller: Seller, mode: Mode, path: Path, *, environment: Environment, employer: Employer
) -> Receipt:
    """Every text of the lot has its vector in the ledger at `path` when this returns.

    Nothing missing: no key is needed and no connection opened. Else all that can be known to be
    wrong is found before the first request: price, budget, key, a damaged ledger, a full disk.
    Whatever the mode, jobs that have ended are collected. Raises NewsfuseError, of whatever kind.
    """
    with Ledger.reading(path) as ledger:
        missing = lot.at(ledger.missing(lot.keys))
        _, to_pay = divided(missing, on_order(ledger, seller.space))
    if not len(missing):
        return Receipt(len(lot))
    log.info("%s: %d texts, of which %d have no vector yet", seller.space, len(lot), len(missing))
    budget = seller.budget(environment, mode)
    budget.require(to_pay.tokens)
    with _connected(seller, missing, budget) as connection, sole_payer(path, employer), Ledger.writing(path) as ledger:
        missing = lot.at(ledger.missing(lot.keys))  # another run may have bought them while we waited for it
        if not len(missing):
            return Receipt(len(lot))
        ledger.require_whole()
        _require_disk(path, missing, seller.space.dimensions)
        bills = _served(missing, mode, ledger, connection, seller, employer=employer, environment=environment)
        return _receipt(len(lot), len(missing), bills)


def _served(
    missing: Lot,
    mode: Mode,
    ledger: Ledger,
    connection: Connection,
    seller: Seller,
    *,
    employer: Employer,
    environment: Environment,
) -> Sequence[Haul | Receipt]:
    """Get all that is missing -> what that took. Raises BusyError while some of it is on order."""
    jobs = Jobs(ledger, cast("Desk", connection), seller, employer=employer, environment=environment)
    bills: list[Haul | Receipt] = [*jobs.collect()]
    at_once, by_jobs = jobs.shared_out(missing.at(ledger.missing(missing.keys)), mode)
    if len(at_once):
        budget = seller.budget(environment, Mode.DIRECT)
        budget.require(at_once.tokens)
        purchase = Purchase(ledger, connection, seller, budget=budget, employer=employer, environment=environment)
        bills.append(purchase.run(at_once))
    if len(by_jobs):
        jobs.hand_in(by_jobs)
    return bills


def _receipt(texts: int, paid: int, bills: Sequence[Haul | Receipt]) -> Receipt:
    requests, tokens = sum(bill.requests for bill in bills), sum(bill.tokens for bill in bills)
    return Receipt(texts, paid, requests, tokens, sum(bill.usd for bill in bills))


@contextmanager
def _connected(seller: Seller, missing: Lot, budget: Budget) -> Iterator[Connection]:
    with ExitStack() as stack:
        try:
            with blame(seller.origin):
                connection = stack.enter_context(seller.service.connect())
        except AuthenticationError as error:
            cost = f"about {missing.tokens:,} tokens, ${budget.forecast_usd(missing.tokens):.4f}"
            message = f"{error}. {len(missing):,} texts have no vectors yet: {cost}. Nothing was sent"
            raise AuthenticationError(message) from error
        yield connection


def _require_disk(path: Path, missing: Lot, dimensions: int) -> None:
    needed = 2 * len(missing) * (4 * dimensions + ROW_BYTES)  # in the log, then in the file
    needed += min(MOST_PAGES, PAGES_PER_TEXT * len(missing)) * PAGE_BYTES
    if (free := shutil.disk_usage(path.parent).free) < needed:
        found = f"{path.parent}: {free / 1e6:,.1f} MB are free, {needed / 1e6:,.1f} MB are needed; nothing was paid"
        message = f"{found}. Free some space, or put the ledger elsewhere: export NEWSFUSE_LEDGER=..."
        raise StorageError(message)
