"""Buying from a service in this process: what is asked, how often, what is kept, and how it ends."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_server import vectors
from shop import DIMENSIONS, ORIGIN, TOKENS, USD, Shop, buy, failing, faithful, numbered, poisoned, quick_ledger

from newsfuse import Allowance, Answer
from newsfuse.errors import (
    AuthenticationError,
    BusyError,
    DataError,
    NewsfuseError,
    PluginError,
    ProviderError,
    QuotaError,
    RefusedTextsError,
    StorageError,
    TransientError,
    UselessAnswerError,
)
from newsfuse.paid.ledger import Ledger
from newsfuse.paid.pace import Pace
from newsfuse.paid.payer import Employer
from newsfuse.paid.purchase import MAX_INPUTS, Purchase
from newsfuse.paid.receipt import Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from newsfuse.paid.ledger import Request
    from newsfuse.paid.lot import Lot

ROOT = Path(__file__).parents[1]
TRANSIENT = failing(TransientError, "overloaded", 0.001)
USELESS = failing(UselessAnswerError, "short", 0.001)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with quick_ledger() as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("newsfuse.paid.patience.BACKOFF_S", 0.001)


def refused(kind: type[NewsfuseError], goods: Lot, shop: Shop, ledger: Ledger, **how: Any) -> str:  # noqa: ANN401
    with pytest.raises(NewsfuseError) as caught:
        buy(goods, shop, ledger, **how)
    assert type(caught.value) is kind
    return str(caught.value)


def statuses(ledger: Ledger) -> list[str]:
    return [request.status for request in ledger.requests()]


def stored(ledger: Ledger, goods: Lot) -> np.ndarray:
    return np.concatenate(list(ledger.vectors(goods.keys, DIMENSIONS)))


# what is bought


@pytest.mark.parametrize("concurrency", [1, 3])
def test_every_text_is_bought_once_and_the_receipt_says_so(ledger: Ledger, concurrency: int) -> None:
    goods, shop = numbered(50), Shop()
    receipt = buy(goods, shop, ledger, max_inputs=8, concurrency=concurrency)
    assert receipt == Receipt(50, 50, 7, 50 * TOKENS, 50 * USD)
    assert sorted(map(len, shop.requests)) == [2, 8, 8, 8, 8, 8, 8]
    assert sorted(text for request in shop.requests for text in request) == list(goods.texts)
    np.testing.assert_array_equal(stored(ledger, goods), vectors(goods.texts, DIMENSIONS))


def test_texts_go_out_in_their_order(ledger: Ledger) -> None:
    goods, shop = numbered(20), Shop()
    buy(goods, shop, ledger, max_inputs=7)
    assert [text for request in shop.requests for text in request] == list(goods.texts)


@pytest.mark.parametrize(
    ("setting", "limits", "largest"),
    [
        ({}, {}, MAX_INPUTS),
        ({"max_inputs": 600}, {}, 600),
        ({"max_inputs": 600}, {"max_inputs": 32}, 32),
        ({}, {"max_inputs": 32}, 32),
        ({}, {"max_tokens": 100}, 10),  # ten bytes each, which bound their tokens from above
    ],
)
def test_a_request_is_as_large_as_service_and_user_allow(
    ledger: Ledger, setting: dict[str, Any], limits: dict[str, int], largest: int
) -> None:
    shop = Shop()
    buy(numbered(700), shop, ledger, seller=shop.seller(**limits), **setting)
    assert max(map(len, shop.requests)) == largest
    assert len(shop.requests) == math.ceil(700 / largest)


def test_a_server_that_does_not_tell_what_it_bills_is_paid_by_the_estimate(ledger: Ledger) -> None:
    shop = Shop(lambda texts: Answer(vectors(texts, DIMENSIONS)))
    assert buy(numbered(4), shop, ledger) == Receipt(4, 4, 1, 4 * TOKENS, 4 * USD)


def test_what_is_billed_is_what_the_receipt_and_the_book_say(ledger: Ledger) -> None:
    shop = Shop(lambda texts: Answer(vectors(texts, DIMENSIONS), 1024))
    assert buy(numbered(4), shop, ledger, max_inputs=2) == Receipt(4, 4, 2, 2048, 2 / 1024)
    assert [each.tokens_estimated for each in ledger.requests()] == [2 * TOKENS] * 2
    assert [(each.tokens, each.usd) for each in ledger.requests()] == [(1024, 1 / 1024)] * 2


# several at once


def test_as_many_requests_are_in_flight_as_allowed_and_never_more(ledger: Ledger) -> None:
    together = threading.Barrier(5)

    def reply(texts: Sequence[str]) -> Answer:
        together.wait(10)
        return faithful(texts)

    shop = Shop(faithful, reply)  # the first one goes alone
    buy(numbered(41), shop, ledger, max_inputs=1, concurrency=5)
    assert shop.busiest == 5
    assert len(shop.requests) == 41


def test_a_service_may_want_fewer_requests_at_once(ledger: Ledger) -> None:
    shop = Shop(delay_s=0.005)
    buy(numbered(20), shop, ledger, seller=shop.seller(max_in_flight=1), max_inputs=1, concurrency=8)
    assert shop.busiest == 1


def test_more_workers_than_requests_do_no_harm(ledger: Ledger) -> None:
    shop = Shop()
    assert buy(numbered(3), shop, ledger, concurrency=64).requests == 1


@pytest.mark.parametrize("kind", [AuthenticationError, QuotaError, ProviderError])
def test_what_cannot_heal_takes_one_request_however_many_are_allowed(ledger: Ledger, kind: type[NewsfuseError]) -> None:
    shop = Shop(failing(kind, "no"), delay_s=0.01)
    message = refused(kind, numbered(200), shop, ledger, max_inputs=1, concurrency=8)
    assert len(shop.requests) == 1
    assert message == (
        "no. 0 texts are paid and kept ($0.0000 was spent), 200 are left (about $0.0006); run again to continue"
    )


def test_a_storm_of_requests_to_slow_down_ends_with_every_text_bought_once(ledger: Ledger) -> None:
    goods, shop = numbered(40), Shop(faithful, *[TRANSIENT] * 12, faithful)
    receipt = buy(goods, shop, ledger, max_inputs=1, concurrency=8, retries=12)
    assert (receipt.requests, receipt.paid, receipt.tokens) == (52, 40, 40 * TOKENS)
    assert statuses(ledger).count("failed") == 12
    assert stored(ledger, goods).shape == (40, DIMENSIONS)


# asking again


def test_what_may_heal_is_asked_again(ledger: Ledger) -> None:
    shop = Shop(TRANSIENT, TRANSIENT, faithful)
    assert buy(numbered(4), shop, ledger).requests == 3
    assert statuses(ledger) == ["failed", "failed", "done"]
    assert [(each.tokens, each.usd, each.note) for each in ledger.requests("failed")] == [
        (0, 0.0, "TransientError: overloaded")
    ] * 2


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_patience_ends_after_as_many_retries_as_the_user_allows(ledger: Ledger, retries: int) -> None:
    shop = Shop(TRANSIENT)
    message = refused(ProviderError, numbered(4), shop, ledger, retries=retries)
    assert len(shop.requests) == retries + 1
    assert message.startswith(f"overloaded. Gave up after {retries + 1} requests. 0 texts are paid and kept")


@pytest.mark.parametrize(
    ("replies", "requests"),
    [
        ([USELESS], 2),
        ([TRANSIENT, USELESS, TRANSIENT, USELESS], 4),
        ([TRANSIENT, TRANSIENT, TRANSIENT, TRANSIENT, TRANSIENT, USELESS], 6),
    ],
)
def test_a_useless_answer_gets_one_second_chance(
    ledger: Ledger, replies: list[Callable[[Sequence[str]], Answer]], requests: int
) -> None:
    shop = Shop(*replies)
    message = refused(ProviderError, numbered(4), shop, ledger)
    assert len(shop.requests) == requests
    assert message.startswith(f"short. Gave up after {requests} requests. ")


def test_a_useless_answer_may_have_been_billed_and_is_counted(ledger: Ledger) -> None:
    shop = Shop(USELESS, faithful)
    assert buy(numbered(4), shop, ledger) == Receipt(4, 4, 2, 8 * TOKENS, 8 * USD)
    useless, done = ledger.requests()
    assert (useless.status, useless.tokens) == ("useless", 4 * TOKENS)
    assert useless.usd == 4 * USD
    assert useless.note == "UselessAnswerError: short"
    assert done.status == "done"


def test_every_batch_has_its_own_patience(ledger: Ledger) -> None:
    shop = Shop(USELESS, faithful, USELESS, faithful)
    assert buy(numbered(2), shop, ledger, max_inputs=1).requests == 4


def waits(monkeypatch: pytest.MonkeyPatch, ledger: Ledger, hint_s: float | None, retries: int = 5) -> list[float]:
    """The pauses between requests, in seconds, instead of pausing."""
    slept: list[float] = []
    monkeypatch.setattr("newsfuse.paid.patience.BACKOFF_S", 1.0)
    monkeypatch.setattr(Purchase, "_sleep", lambda _, seconds: slept.append(seconds))
    monkeypatch.setattr(Pace, "_pause", lambda *_: None)
    refused(ProviderError, numbered(1), Shop(failing(TransientError, "later", hint_s)), ledger, retries=retries)
    return slept


@pytest.mark.parametrize(("hint_s", "wait_s"), [(7.0, 7.0), (0.25, 0.25), (60.0, 60.0), (3600.0, 60.0)])
def test_the_pause_is_what_the_provider_asks_for_up_to_a_minute(
    monkeypatch: pytest.MonkeyPatch, ledger: Ledger, hint_s: float, wait_s: float
) -> None:
    assert waits(monkeypatch, ledger, hint_s) == [wait_s] * 5


@pytest.mark.parametrize("hint_s", [None, 0.0])
def test_without_a_hint_the_pauses_double_with_some_chance_up_to_a_minute(
    monkeypatch: pytest.MonkeyPatch, ledger: Ledger, hint_s: float | None
) -> None:
    slept = waits(monkeypatch, ledger, hint_s, retries=9)
    for base, wait_s in zip((1, 2, 4, 8, 16, 32, 60, 60, 60), slept, strict=True):
        assert base <= wait_s <= min(base + 1, 60)
    assert len(set(slept[:6])) == 6


def test_the_pace_learns_from_every_answer(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    learnt: list[object] = []
    monkeypatch.setattr(Pace, "throttled", lambda _, wait_s: learnt.append(wait_s))
    monkeypatch.setattr(Pace, "answered", lambda _, answer, tokens: learnt.append((answer.requests, tokens)))
    monkeypatch.setattr(Purchase, "_sleep", lambda *_: None)
    room = Allowance(7, 1.0)
    shop = Shop(
        failing(TransientError, "slower", 7.0),
        failing(TransientError, "broken"),
        USELESS,
        lambda texts: Answer(vectors(texts, DIMENSIONS), requests=room),
    )
    buy(numbered(3), shop, ledger, max_inputs=2)
    assert learnt == [7.0, None, (room, 2 * TOKENS), (room, TOKENS)]  # what is useless is no matter of speed


# texts that the provider refuses


@pytest.mark.parametrize("count", range(1, 65))
def test_a_refused_text_is_found_within_twice_the_logarithm_and_the_others_are_kept(count: int) -> None:
    goods, employer = numbered(count), Employer()
    for position in range(count):
        with quick_ledger() as ledger:
            shop = Shop(poisoned(RefusedTextsError, goods.texts[position]))
            message = refused(RefusedTextsError, goods, shop, ledger, employer=employer)
            assert len(shop.requests) <= 2 * math.log2(count) + 1
            assert ledger.missing(goods.keys) == [position]
        assert message.startswith(
            f"the provider refuses 1 texts: news.tsv:{position + 1} (N{position}): "
            f"'{goods.texts[position]}' is not wanted here. Change or remove them. {count - 1} texts are paid and kept"
        )


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 16), st.sets(st.integers(0, 39), max_size=5))
def test_whatever_texts_are_refused_all_others_are_bought_once(count: int, inputs: int, bad: set[int]) -> None:
    goods = numbered(count)
    places = sorted(position for position in bad if position < count)
    poison = [goods.texts[position] for position in places]
    shop = Shop(poisoned(RefusedTextsError, *poison))
    with quick_ledger() as ledger:
        with contextlib.suppress(RefusedTextsError):
            buy(goods, shop, ledger, max_inputs=inputs, concurrency=4)
            assert not poison
        assert ledger.missing(goods.keys) == places
        good = [text for request in shop.requests if not {*request} & {*poison} for text in request]
        assert sorted(good) == sorted({*goods.texts} - {*poison})
        for text in poison:  # to be sure that it was this one, it was asked alone
            assert [text] in shop.requests


def test_a_request_that_was_only_too_large_is_halved_and_all_is_bought(ledger: Ledger) -> None:
    def reply(texts: Sequence[str]) -> Answer:
        return faithful(texts) if len(texts) <= 10 else failing(RefusedTextsError, "too large")(texts)

    goods, shop = numbered(40), Shop(reply)
    assert buy(goods, shop, ledger).paid == 40
    bought = [text for request in shop.requests if len(request) <= 10 for text in request]
    assert sorted(bought) == list(goods.texts)


def test_the_message_names_three_refused_texts_and_how_many_more(ledger: Ledger) -> None:
    goods = numbered(20)
    shop = Shop(poisoned(RefusedTextsError, *(goods.texts[at] for at in (2, 3, 5, 7, 11))))
    message = refused(RefusedTextsError, goods, shop, ledger)
    assert message.startswith("the provider refuses 5 texts: news.tsv:3 (N2): 'title 0002' is not wanted here; ")
    assert "; news.tsv:4 (N3): " in message
    assert "; news.tsv:6 (N5): 'title 0005' is not wanted here and 2 more. Change or remove them. 15 texts" in message
    assert "N7" not in message
    assert RefusedTextsError.exit_code == DataError.exit_code == 3


def test_ten_refused_texts_are_rather_a_wrong_setting_and_stop_the_run(ledger: Ledger) -> None:
    goods, shop = numbered(512), Shop(failing(RefusedTextsError, "what is this?"))
    message = refused(RefusedTextsError, goods, shop, ledger)
    assert message.startswith("the provider refuses 10 texts: ")
    assert "So many refusals suggest a wrong setting (embed.model, the server). Change or remove them" in message
    assert sum(len(request) == 1 for request in shop.requests) == 10
    assert len(shop.requests) < 30
    assert set(statuses(ledger)) == {"failed"}


def test_refused_texts_cost_nothing(ledger: Ledger) -> None:
    goods = numbered(2)
    refused(RefusedTextsError, goods, Shop(poisoned(RefusedTextsError, goods.texts[0])), ledger)
    assert [(each.status, each.texts, each.tokens, each.usd) for each in ledger.requests()] == [
        ("failed", 2, 0, 0.0),
        ("failed", 1, 0, 0.0),
        ("done", 1, TOKENS, USD),
    ]


# a plugin that breaks its contract


def answering(values: object) -> Callable[[Sequence[str]], Answer]:
    return lambda _: Answer(values)  # type: ignore[arg-type]


WHOLE = np.ones((3, DIMENSIONS), np.float32)


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (answering(WHOLE[:2]), "TypeError: returned float32 (2, 4), expected finite float32 (3, 4)"),
        (answering(WHOLE[:, :3]), "TypeError: returned float32 (3, 3), expected"),
        (answering(WHOLE.astype(np.float64)), "TypeError: returned float64 (3, 4), expected"),
        (answering(WHOLE * np.nan), "TypeError: returned float32 (3, 4), expected finite"),
        (answering(WHOLE.tolist()), "TypeError: returned float64 (3, 4), expected"),
        (answering([["a"] * DIMENSIONS] * 3), "TypeError: returned <U1 (3, 4), expected"),
        (answering(None), "TypeError: returned object (), expected"),
        (lambda _: None, "AttributeError: "),
        (lambda _: Answer(WHOLE, -1), "TypeError: billed -1 tokens, expected a count or None"),
        (lambda _: Answer(WHOLE, 2**63), "TypeError: billed 9223372036854775808 tokens, expected"),
        (lambda _: Answer(WHOLE, np.int64(9)), "TypeError: billed np.int64(9) tokens, expected"),  # type: ignore[arg-type]
        (failing(KeyError, "data"), "KeyError: 'data'"),
    ],
)
def test_a_plugin_that_breaks_its_contract_is_named_and_asked_once(
    ledger: Ledger, reply: Callable[[Sequence[str]], Answer], told: str
) -> None:
    goods, shop = numbered(3), Shop(reply)
    message = refused(PluginError, goods, shop, ledger)
    assert message.startswith(f"{ORIGIN}: {told}")
    assert len(shop.requests) == 1
    assert ledger.missing(goods.keys) == [0, 1, 2]
    (request,) = ledger.requests()  # it may have been billed
    assert (request.status, request.tokens) == ("useless", 3 * TOKENS)


# how it ends


def test_an_error_says_what_is_kept_what_is_left_and_what_was_spent(ledger: Ledger) -> None:
    shop = Shop(faithful, faithful, failing(QuotaError, "the month's quota is used up"))
    message = refused(QuotaError, numbered(5000), shop, ledger)
    kept, left = 2 * MAX_INPUTS, 5000 - 2 * MAX_INPUTS
    assert message == (
        f"the month's quota is used up. {kept:,} texts are paid and kept (${kept * USD:.4f} was spent), "
        f"{left:,} are left (about ${left * USD:.4f}); run again to continue"
    )
    assert len(shop.requests) == 3
    assert statuses(ledger) == ["done", "done", "failed"]


def test_a_run_after_a_failed_one_asks_only_for_what_is_left(ledger: Ledger) -> None:
    goods = numbered(30)
    refused(ProviderError, goods, Shop(faithful, failing(ProviderError, "no")), ledger, max_inputs=10)
    left = goods.at(ledger.missing(goods.keys))
    shop = Shop()
    assert buy(left, shop, ledger, max_inputs=10).paid == 20
    assert [text for request in shop.requests for text in request] == list(goods.texts[10:])


def test_usage_far_above_the_estimate_stops_before_the_budget_is_passed(ledger: Ledger) -> None:
    shop = Shop(lambda texts: Answer(vectors(texts, DIMENSIONS), 20 * TOKENS))
    message = refused(QuotaError, numbered(100), shop, ledger, max_inputs=10, budget_usd=100 * USD)
    assert len(shop.requests) == 5  # twice the estimate: half of the texts
    assert message.startswith("$0.0003 is spent, and the next request would go above the budget of $0.000286102: ")
    assert "50 texts are paid and kept ($0.0003 was spent), 50 are left (about $0.0003)" in message


def test_a_run_that_costs_exactly_its_budget_is_finished(ledger: Ledger) -> None:
    assert buy(numbered(97), Shop(), ledger, max_inputs=3, concurrency=8, budget_usd=97 * USD).paid == 97


def storage_failing(ledger: Ledger, method: str, number: int) -> Ledger:
    """That ledger, but for the n-th call of `method`."""
    real, count = getattr(ledger, method), iter(range(1, 1000))

    def call(*values: Any) -> Any:  # noqa: ANN401
        if next(count) == number:
            message = "the disk is full"
            raise StorageError(message)
        return real(*values)

    setattr(ledger, method, call)
    return ledger


@pytest.mark.parametrize(
    ("method", "number", "requests"),
    [("sent", 1, 0), ("sent", 3, 2), ("done", 1, 1), ("done", 3, 3), ("ended", 1, 1)],
)
def test_nothing_is_asked_for_once_the_ledger_cannot_be_written(
    ledger: Ledger, method: str, number: int, requests: int
) -> None:
    shop = Shop(TRANSIENT) if method == "ended" else Shop()
    broken = storage_failing(ledger, method, number)
    message = refused(StorageError, numbered(30), shop, broken, max_inputs=3)
    assert message.startswith("the disk is full. ")
    assert len(shop.requests) == requests


def test_nothing_is_asked_for_once_the_employer_is_gone(ledger: Ledger) -> None:
    shop, employer = Shop(), Employer()
    gone = iter([False, False, True])
    employer.gone = lambda: next(gone)  # type: ignore[method-assign]
    message = refused(BusyError, numbered(30), shop, ledger, employer=employer, max_inputs=3)
    assert len(shop.requests) == 2
    assert message.startswith("the program that started this one is gone, so no further request is sent. 6 texts")


# the order of writes


def seen_inside(path: Path, goods: Lot, **how: object) -> list[tuple[list[Request], int]]:
    """What somebody else reads in the ledger at `path` while a request is under way, for each request."""
    shop, seen = Shop(), []
    embed = shop.embed

    def looking(texts: Sequence[str]) -> Answer:
        with Ledger.reading(path) as other:
            seen.append((other.requests(), len(goods) - len(other.missing(goods.keys))))
        return embed(texts)

    shop.embed = looking  # type: ignore[method-assign]
    with Ledger.writing(path) as ledger:
        buy(goods, shop, ledger, **how)  # type: ignore[arg-type]
    return seen


def test_a_request_is_in_the_book_before_it_is_sent_and_what_it_brought_before_the_next(tmp_path: Path) -> None:
    goods = numbered(20)
    for number, (book, kept) in enumerate(seen_inside(tmp_path / "ledger.sqlite", goods, max_inputs=4)):
        assert [each.status for each in book] == ["done"] * number + ["sent"]
        assert book[-1].keys == tuple(goods.keys[4 * number : 4 * number + 4])
        assert (book[-1].texts, book[-1].tokens_estimated) == (4, 4 * TOKENS)
        assert kept == 4 * number
        assert sqlite_is_durable(tmp_path / "ledger.sqlite")


def sqlite_is_durable(path: Path) -> bool:
    """Whether the rows are in the files, and not only in somebody's memory."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        return bool(database.execute("SELECT count(*) FROM spend").fetchone()[0])


# signals

PROGRAM = """
import os, sys, time
from pathlib import Path
from shop import Shop, buy, failing, faithful, numbered
from newsfuse.errors import TransientError
from newsfuse.paid.ledger import Ledger
from newsfuse.stage import guarded

def reply(texts):
    os.write(1, b"asked\\n")
    time.sleep({delay_s})
    return faithful(texts)

def main():
    with Ledger.writing(Path(sys.argv[1])) as ledger:
        buy(numbered(60), Shop({replies}), ledger, max_inputs=2, concurrency=3)

guarded(main, verbose=False)
"""


class Buyer:
    """A process that buys 60 texts, two at a time, and prints a line for every request."""

    def __init__(self, path: Path, replies: str = "reply", delay_s: float = 0.5) -> None:
        program = PROGRAM.format(replies=replies, delay_s=delay_s)
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        self.path = path
        self.popen = subprocess.Popen(
            [sys.executable, "-c", program, str(path)], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def asked(self, times: int) -> None:
        """Wait until it has sent so many requests."""
        assert self.popen.stdout
        for _ in range(times):
            assert self.popen.stdout.readline() == "asked\n"

    def signal(self, number: signal.Signals) -> float:
        self.popen.send_signal(number)
        return time.monotonic()

    def ended(self) -> tuple[int, int, str]:
        """Its exit code, how many more requests it sent, and what it said."""
        out, err = self.popen.communicate(timeout=20)
        return self.popen.returncode, out.count("asked"), err

    def book(self) -> tuple[list[str], int]:
        """The status of every request, and how many of the texts have a vector."""
        with Ledger.reading(self.path) as ledger:
            ledger.require_whole()
            return statuses(ledger), 60 - len(ledger.missing(numbered(60).keys))


@pytest.fixture
def buyer(tmp_path: Path) -> Iterator[Callable[..., Buyer]]:
    """Starts buyers, and leaves none behind."""
    started: list[Buyer] = []

    def start(**how: Any) -> Buyer:  # noqa: ANN401
        started.append(Buyer(tmp_path / "ledger.sqlite", **how))
        return started[-1]

    yield start
    for each in started:
        each.popen.kill()
        each.popen.communicate()


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "hung up")],
)
def test_the_first_signal_finishes_what_is_in_flight_and_keeps_it(
    buyer: Callable[..., Buyer], number: signal.Signals, code: int, word: str
) -> None:
    buying = buyer()
    buying.asked(4)  # one alone, then three at once
    buying.signal(number)
    ended, more, said = buying.ended()
    assert (ended, more) == (code, 0)
    assert said == (
        f"ERROR: {word}. 8 texts are paid and kept ($0.0000 was spent), 52 are left (about $0.0001); "
        "run again to continue\n"
    )
    assert buying.book() == (["done"] * 4, 8)


@pytest.mark.parametrize(
    ("first", "second", "code"), [(signal.SIGINT, signal.SIGINT, 130), (signal.SIGINT, signal.SIGTERM, 143)]
)
def test_the_second_signal_ends_at_once_and_the_ledger_is_whole(
    buyer: Callable[..., Buyer], first: signal.Signals, second: signal.Signals, code: int
) -> None:
    buying = buyer(replies="faithful, reply", delay_s=30.0)
    buying.asked(3)
    buying.signal(first)
    time.sleep(0.3)
    assert buying.popen.poll() is None
    start = buying.signal(second)
    ended, _, said = buying.ended()
    assert time.monotonic() - start < 5
    assert (ended, said) == (code, "stopped at once; what is in the ledger stays\n")
    assert buying.book() == (["done"] + ["sent"] * 3, 2)


def test_the_second_signal_ends_at_once_though_nobody_listens_any_more(buyer: Callable[..., Buyer]) -> None:
    buying = buyer(replies="faithful, reply", delay_s=30.0)
    buying.asked(3)
    assert buying.popen.stderr
    buying.popen.stderr.close()  # as after `2>&1 | head`
    buying.signal(signal.SIGINT)
    time.sleep(0.3)
    buying.signal(signal.SIGINT)
    assert buying.popen.wait(5) == 130


def test_a_signal_ends_a_long_wait(buyer: Callable[..., Buyer]) -> None:
    buying = buyer(
        replies="reply, lambda texts: failing(TransientError, reply(texts) and 'later', 60.0)(texts)", delay_s=0
    )
    buying.asked(2)
    time.sleep(0.3)
    start = buying.signal(signal.SIGINT)
    ended, _, said = buying.ended()
    assert time.monotonic() - start < 3
    assert ended == 130
    assert said.startswith("ERROR: interrupted. 2 texts are paid and kept")


def test_signals_mean_after_a_purchase_what_they_meant_before(ledger: Ledger) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    buy(numbered(1), Shop(), ledger)
    refused(ProviderError, numbered(1), Shop(failing(ProviderError, "no")), ledger)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
