"""The door to the ledger: what is looked at, and in which order, before anything is paid."""

from __future__ import annotations

import logging
import shutil
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from openai_server import vectors
from shop import DIMENSIONS, ORIGIN, SPACE, TOKENS, USD, Shop, buy, failing, numbered

from newsfuse.environment import Environment
from newsfuse.errors import (
    AuthenticationError,
    IntegrityError,
    NewsfuseError,
    ParamsError,
    PluginError,
    ProviderError,
    QuotaError,
    StorageError,
)
from newsfuse.paid.ledger import Ledger
from newsfuse.paid.payer import Employer, sole_payer
from newsfuse.paid.receipt import Receipt
from newsfuse.paid.supply import ROW_BYTES, supply
from newsfuse.plugin import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from newsfuse.paid.lot import Lot
    from newsfuse.paid.seller import Seller

GOODS = numbered(10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "ledger.sqlite"


@pytest.fixture
def half(path: Path) -> Path:
    """A ledger with the first five of the goods."""
    with sole_payer(path, Employer()), Ledger.writing(path) as ledger:
        buy(GOODS.part(0, 5), Shop(), ledger)
    return path


def supplied(path: Path, shop: Shop, goods: Lot = GOODS, seller: Seller | None = None, **settings: object) -> Receipt:
    environment = Environment.model_validate(settings)
    return supply(goods, seller or shop.seller(), Mode.DIRECT, path, environment=environment, employer=Employer())


def refused(kind: type[NewsfuseError], work: Callable[[], object]) -> str:
    with pytest.raises(NewsfuseError) as caught:
        work()
    assert type(caught.value) is kind
    return str(caught.value)


# nothing to pay


@pytest.fixture
def no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants the right to pay would have to wait for somebody else, for ever."""
    monkeypatch.setattr("newsfuse.paid.supply.sole_payer", failing(AssertionError, "nobody should wait"))


@pytest.mark.usefixtures("no_lock")
def test_what_is_there_needs_no_connection_no_price_no_budget_and_no_lock(half: Path) -> None:
    shop = Shop(failing(ProviderError, "nobody should ask"))
    seller = shop.seller(usd_per_million_tokens=None)
    before = half.read_bytes()
    assert supplied(half, shop, GOODS.part(0, 5), seller, budget_usd=0.0) == Receipt(5)
    assert (shop.opened, shop.requests) == (0, [])
    assert half.read_bytes() == before


def test_no_texts_at_all_need_no_ledger(path: Path) -> None:
    assert supplied(path, Shop(), numbered(0)) == Receipt(0)
    assert not path.parent.exists()


# something to pay


def test_all_is_bought_where_there_is_no_ledger_yet(path: Path) -> None:
    shop = Shop()
    assert supplied(path, shop) == Receipt(10, 10, 1, 10 * TOKENS, 10 * USD)
    assert (shop.opened, shop.closed) == (1, 1)
    with Ledger.reading(path) as ledger:
        (found,) = ledger.vectors(GOODS.keys, DIMENSIONS)
    np.testing.assert_array_equal(found, vectors(GOODS.texts, DIMENSIONS))


def test_only_what_is_missing_is_bought_budgeted_and_billed(half: Path, caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    with caplog.at_level(logging.INFO):
        receipt = supplied(half, shop, budget_usd=5 * USD)
    assert receipt == Receipt(10, 5, 1, 5 * TOKENS, 5 * USD)
    assert shop.requests == [list(GOODS.texts[5:])]
    assert caplog.messages == [f"{SPACE}: 10 texts, of which 5 have no vector yet"]


def test_a_second_run_pays_nothing(path: Path) -> None:
    shop = Shop()
    supplied(path, shop)
    assert supplied(path, shop) == Receipt(10)
    assert (shop.opened, len(shop.requests)) == (1, 1)


# what is found before the first request, and in which order


def test_work_above_the_budget_is_refused_before_a_connection_is_opened(path: Path) -> None:
    shop = Shop()
    message = refused(QuotaError, lambda: supplied(path, shop, budget_usd=9 * USD))
    assert "for 30 tokens is above the budget of $2.57492e-05; nothing was sent" in message
    assert shop.opened == 0
    assert not path.parent.exists()


def test_an_unknown_price_is_refused_before_a_connection_is_opened(path: Path) -> None:
    shop = Shop()
    seller = shop.seller(usd_per_million_tokens=None)
    assert "NEWSFUSE_USD_PER_MILLION_TOKENS" in refused(ParamsError, lambda: supplied(path, shop, seller=seller))
    assert shop.opened == 0
    assert supplied(path, shop, seller=seller, usd_per_million_tokens=1e8 / 2**20).usd == 1000 * USD


def unconnected(error: Exception) -> Seller:
    """A seller whose connection cannot be opened."""

    def connect() -> Shop:
        raise error

    return Shop().seller(connect=connect)


@pytest.mark.usefixtures("no_lock")
def test_without_a_key_one_learns_what_is_missing_and_what_it_costs(half: Path) -> None:
    seller = unconnected(AuthenticationError("OPENAI_API_KEY is not set. Export a key, or use a free embedder"))
    message = refused(AuthenticationError, lambda: supplied(half, Shop(), seller=seller))
    assert message == (
        "OPENAI_API_KEY is not set. Export a key, or use a free embedder. 5 texts have no vectors yet: "
        f"about {5 * TOKENS} tokens, $0.0000. Nothing was sent"
    )


def test_another_failure_to_connect_is_told_as_it_is(path: Path) -> None:
    message = refused(ParamsError, lambda: supplied(path, Shop(), seller=unconnected(ParamsError("no such model"))))
    assert message == "no such model"
    assert not path.parent.exists()


def test_a_plugin_that_breaks_while_connecting_is_named(path: Path) -> None:
    message = refused(PluginError, lambda: supplied(path, Shop(), seller=unconnected(KeyError("model"))))
    assert message.startswith(f"{ORIGIN}: KeyError: 'model' (")


def test_a_damaged_ledger_is_found_before_the_first_request(half: Path) -> None:
    with Ledger.writing(half) as ledger:  # so many that the keys of GOODS are not on the damaged page
        buy(numbered(2010).part(10, 2010), Shop(), ledger)
        with ledger.transaction() as database:
            index = "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_vectors_1'"
            (page,) = database.execute(index).fetchone()
            (size,) = database.execute("PRAGMA page_size").fetchone()
    content = bytearray(half.read_bytes())
    content[page * size - 8] ^= 0xFF  # in a key: SQLite reads over it
    half.write_bytes(content)
    shop = Shop()
    message = refused(IntegrityError, lambda: supplied(half, shop))
    assert message.startswith(f"{half}: the ledger is damaged (")
    assert shop.requests == []
    assert half.read_bytes() == content


class Usage(NamedTuple):
    free: int


@pytest.mark.parametrize("spare", [0, -1])
def test_a_disk_too_full_is_found_before_the_first_request(
    half: Path, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    needed = 2 * 5 * (4 * DIMENSIONS + ROW_BYTES) + 6 * 5 * 32768
    asked: list[Path] = []

    def disk_usage(folder: Path) -> Usage:
        asked.append(folder)
        return Usage(needed + spare)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    shop = Shop()
    if spare < 0:
        message = refused(StorageError, lambda: supplied(half, shop))
        assert message == (
            f"{half.parent}: 1.0 MB are free, 1.0 MB are needed; nothing was paid. "
            "Free some space, or put the ledger elsewhere: export NEWSFUSE_LEDGER=..."
        )
        assert shop.requests == []
        assert shop.closed == 1
    else:
        assert supplied(half, shop).paid == 5
    assert asked == [half.parent]


# two at once


@contextmanager
def somebody_pays(path: Path, goods: Lot, until: threading.Event) -> Iterator[None]:
    """Somebody else holds the right to pay, and buys the goods once `until` is set."""
    holding = threading.Event()

    def pay() -> None:
        with sole_payer(path, Employer()):
            holding.set()
            until.wait(10)
            with Ledger.writing(path) as ledger:
                request = ledger.sent(SPACE, goods.keys, goods.tokens)
                ledger.done(request, goods.keys, vectors(goods.texts, DIMENSIONS), goods.tokens, 0.0)

    other = threading.Thread(target=pay)
    other.start()
    assert holding.wait(10)
    yield
    other.join(10)


@pytest.mark.parametrize("bought", [10, 7])
def test_whoever_waited_finds_the_work_done_and_pays_only_the_rest(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, bought: int
) -> None:
    shop, waiting = Shop(), threading.Event()

    def holder(_: Path) -> str:
        waiting.set()
        return "somebody"

    monkeypatch.setattr("newsfuse.paid.payer._holder", holder)
    with caplog.at_level(logging.INFO), somebody_pays(path, GOODS.part(0, bought), waiting):
        receipt = supplied(path, shop)
    assert waiting.is_set()
    assert "waiting for somebody, which pays from the same ledger" in caplog.messages
    left = 10 - bought
    assert (receipt.texts, receipt.paid, receipt.tokens) == (10, left, left * TOKENS)
    assert shop.requests == ([list(GOODS.texts[bought:])] if left else [])
    with Ledger.reading(path) as ledger:
        assert sum(each.texts for each in ledger.requests("done")) == 10
    assert (shop.opened, shop.closed) == (1, 1)
