"""Texts handed in as jobs, to a real server on this machine, by the real stage or by what it calls."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import openai
import pytest
from faults.buyer import Buyer
from faults.canary import KEY, traces
from hypothesis import given
from hypothesis import strategies as st
from openai_jobs import OpenAIJobs
from openai_server import emptied, first_number, garbled, lengthened, renamed, renumbered, shorn, vectors, zeroed
from project import ROOT, missing

from newsfuse.environment import Environment
from newsfuse.errors import (
    AuthenticationError,
    BusyError,
    DataError,
    NewsfuseError,
    ParamsError,
    PluginError,
    ProviderError,
    QuotaError,
    RefusedTextsError,
    UselessAnswerError,
)
from newsfuse.news import TEXT_VERSION
from newsfuse.paid import jobs
from newsfuse.paid.ledger import Ledger, Request
from newsfuse.paid.lot import Lot
from newsfuse.paid.payer import Employer
from newsfuse.paid.seller import Seller
from newsfuse.paid.space import Space
from newsfuse.paid.supply import supply
from newsfuse.plugin import Embedder, Mode
from newsfuse.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from newsfuse.paid.receipt import Receipt

DIMENSIONS = 8
TEXTS = [f"Headline {number:02} is real news" for number in range(12)]
TOKENS = 6
"""Of each of them, as the estimator and the server count."""
USD_PER_TOKEN = 0.01
"""In batch mode, at NEWSFUSE_USD_PER_MILLION_TOKENS=20000: high, so that a wrong bill shows."""
MODEL = "text-embedding-3-small"
PLUGIN = Registry(ROOT / "plugins", {}).load(Embedder, "openai").build.__globals__
"""What is in plugins/embedders/openai.py, as newsfuse loads it."""
SUBMITTED = ["POST files", "POST batches"]
COLLECTED = ["GET batch", "GET content"]


# what a test needs


@dataclass
class Customer:
    """Calls `supply` as the stage does, with the real plugin, and a ledger of its own."""

    server: OpenAIJobs
    path: Path
    texts: list[str]
    settings: dict[str, object]
    limits: dict[str, object]

    def seller(self) -> Seller:
        registry = Registry(ROOT / "plugins", {})
        embedder = registry.load(Embedder, "openai")
        service = embedder.build((), MODEL, DIMENSIONS, embedder.params())
        assert not callable(service)
        space = Space("openai", service.host, MODEL, DIMENSIONS, TEXT_VERSION)
        return Seller(replace(service, **self.limits), space, "plugins/embedders/openai.py")  # type: ignore[arg-type]

    def lot(self) -> Lot:
        keys = self.seller().space.keys(self.texts)
        return Lot(self.texts, keys, lambda text: f"news.tsv:{text + 1} (N{text})")

    def run(self, mode: Mode = Mode.BATCH, **settings: object) -> Receipt:
        environment = Environment.model_validate({**self.settings, **settings})
        return supply(self.lot(), self.seller(), mode, self.path, environment=environment, employer=Employer())

    def refused(self, kind: type[NewsfuseError], mode: Mode = Mode.BATCH, **settings: object) -> str:
        """What it is told instead."""
        with pytest.raises(kind) as caught:
            self.run(mode, **settings)
        assert type(caught.value) is kind
        assert KEY not in str(caught.value)
        return str(caught.value)

    def waits(self, mode: Mode = Mode.BATCH, **settings: object) -> str:
        return self.refused(BusyError, mode, **settings)

    def rows(self) -> list[Request]:
        with Ledger.reading(self.path) as ledger:
            return ledger.requests()

    def statuses(self) -> list[str]:
        return [row.status for row in self.rows()]

    def bill(self) -> tuple[int, float]:
        """Tokens and dollars that the ledger says were spent."""
        rows = self.rows()
        return sum(row.tokens or 0 for row in rows), round(sum(row.usd or 0.0 for row in rows), 9)

    def has(self) -> list[str]:
        """The texts that have a vector, each of which was found to be its own."""
        with Ledger.reading(self.path) as ledger:
            lot = self.lot()
            absent = {*ledger.missing(lot.keys)}
            here = [text for text in range(len(lot)) if text not in absent]
            found = [*ledger.vectors([lot.keys[text] for text in here], DIMENSIONS)]
        texts = [self.texts[text] for text in here]
        if texts:
            np.testing.assert_array_equal(np.concatenate(found), vectors(texts, DIMENSIONS))
        return texts


@pytest.fixture(scope="module")
def counter() -> Iterator[OpenAIJobs]:
    """One server for all: its host and port are part of every vector's key."""
    with OpenAIJobs() as server:
        yield server


@pytest.fixture
def server(counter: OpenAIJobs) -> OpenAIJobs:
    """As if nobody had ever come."""
    counter.forget()
    return counter


@pytest.fixture
def customer(server: OpenAIJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Customer:
    """Wants TEXTS, by requests of three; asks again at once."""
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("newsfuse.paid.patience.BACKOFF_S", 0.001)
    settings: dict[str, object] = {"max_inputs": 3, "usd_per_million_tokens": 20_000, "retries": 2}
    return Customer(server, tmp_path / "ledger.sqlite", TEXTS, {**settings, "budget_usd": 10}, {})


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Buyer:
    """For copying only."""
    if reason := missing():
        pytest.skip(reason)
    buyer = Buyer.opened(tmp_path_factory.mktemp("jobs") / "a project")  # the space breaks what does not quote
    buyer.edit("params.yaml", "mode: direct", "mode: batch")
    buyer.commit()
    return buyer


@pytest.fixture
def buyer(opened: Buyer, server: OpenAIJobs, tmp_path: Path) -> Iterator[Buyer]:
    """The test's own project, in batch mode, four requests of three texts. It must leave no trace of the key."""
    yield opened.copy(tmp_path / "a project").at(server)
    assert traces(tmp_path) == []


# the flow, by the real stage


def test_a_job_is_handed_in_waited_for_and_collected(buyer: Buyer, server: OpenAIJobs) -> None:
    first = buyer.embed()
    assert first.code == 75
    assert "12 texts were handed in, for about $0.0000. Open jobs: batch_0 (validating). " in first.text
    assert "Run dvc repro again later: it looks, and collects what is done" in first.text
    server.start(done=1)
    second = buyer.embed()
    assert second.code == 75
    assert "ERROR: Open jobs: batch_0 (in_progress, 1 of 4 requests done). " in second.text
    server.work()
    third = buyer.embed()
    assert third.code == 0, third.text
    assert "batch_0: completed, 12 of its 12 texts are paid and kept" in third.text
    assert server.calls == [*SUBMITTED, "GET batch", *COLLECTED]
    assert (server.billed, server.twice, server.requests) == (12, 0, 0)
    assert buyer.receipt() | {"dollars": None} == {
        "texts": 12, "paid": 12, "reused": 0, "requests": 4, "tokens": 108, "dollars": None
    }  # fmt: skip
    assert buyer.wrong() == []


def test_the_artifact_is_the_same_to_the_byte_as_in_direct_mode_and_the_bill_is_half(
    buyer: Buyer, server: OpenAIJobs, tmp_path: Path
) -> None:
    dear = {"NEWSFUSE_USD_PER_MILLION_TOKENS": "1000"}
    direct = buyer.copy(tmp_path / "direct")
    direct.edit("params.yaml", "mode: batch", "mode: direct")
    assert direct.embed(**dear).code == 0
    assert buyer.embed(**dear).code == 75
    server.work()
    assert buyer.embed(**dear).code == 0
    assert buyer.artifact() == direct.artifact()
    assert direct.receipt() == {"texts": 12, "paid": 12, "reused": 0, "requests": 4, "tokens": 108, "dollars": 0.108}
    assert buyer.receipt() == {**direct.receipt(), "dollars": 0.054}


def test_dvc_stops_until_the_job_is_done_and_then_goes_on(buyer: Buyer, server: OpenAIJobs) -> None:
    waiting = buyer.run("dvc", "repro", "embed")
    assert waiting.code == 255
    assert "Open jobs: batch_0" in waiting.text
    server.work()
    assert buyer.dvc("repro", "embed").ran == ["embed"]
    assert buyer.dvc("repro", "embed").ran == []
    assert (server.twice, server.references) == (0, ["batch_0"])


@pytest.mark.parametrize(
    ("moment", "call", "codes"),
    [
        ("arrived", "POST files", [137, 75, 0]),
        ("handled", "POST batches", [137, 0]),
        ("handled", "half content", [75, 137, 0]),
    ],
)
def test_a_killed_run_is_taken_up_where_it_was(
    buyer: Buyer, server: OpenAIJobs, moment: str, call: str, codes: list[int]
) -> None:
    killed: list[str] = []
    running: list[int] = []
    ends: list[int] = []

    def strike(name: str) -> None:
        if name == call and not killed:
            killed.append(name)
            os.kill(running[-1], signal.SIGKILL)

    setattr(server, moment, strike)
    while len(ends) < len(codes):
        run = buyer.begin("python", "-m", "stages.embed")
        running.append(run.process.pid)
        ends.append(run.ended().code)
        server.work()
    assert (ends, killed) == (codes, [call])
    assert (server.twice, server.billed, server.references) == (0, 12, ["batch_0"])
    assert buyer.wrong() == []


def test_a_refused_text_is_named_by_file_and_line_and_the_others_are_kept(buyer: Buyer, server: OpenAIJobs) -> None:
    server.poison, server.mode = "Article 05", "poisonous"
    assert buyer.embed().code == 75
    server.work()
    outcome = buyer.embed()
    assert outcome.code == 3
    assert "the provider refuses 1 texts: data/tiny/train/news.tsv:5 (N5): " in outcome.text
    assert (buyer.kept(), server.billed, server.twice, server.references) == (11, 11, 0, ["batch_0"])


def test_a_free_embedder_has_no_batch_mode(opened: Buyer, tmp_path: Path) -> None:
    free = opened.copy(tmp_path / "a project")
    free.edit("params.yaml", "provider: openai", "provider: lsa")
    outcome = free.stage("embed")
    assert outcome.code == 2
    assert "ERROR: params.yaml: embed.mode: 'lsa' has no mode 'batch'. Known: direct" in outcome.text


def test_two_projects_with_one_ledger_pay_once(buyer: Buyer, server: OpenAIJobs, tmp_path: Path) -> None:
    other = buyer.copy(tmp_path / "another")
    shared = {"NEWSFUSE_LEDGER": str(tmp_path / "shared.sqlite")}
    other.add("dev", "N99", "What only the other has")
    assert buyer.embed(**shared).code == 75
    assert other.embed(**shared).code == 75
    assert [len(batch.texts) for batch in server.batches] == [12, 1]
    server.work()
    assert other.embed(**shared).code == 0
    assert buyer.embed(**shared).code == 0
    assert (server.billed, server.twice) == (13, 0)
    assert (buyer.wrong(), other.wrong()) == ([], [])


# handing in


def test_a_job_is_written_down_before_anything_is_sent(customer: Customer, server: OpenAIJobs) -> None:
    seen = []

    def look(call: str) -> None:
        with closing(sqlite3.connect(customer.path)) as database:
            seen.append((call, *database.execute("SELECT status, texts, length(reference) FROM spend").fetchone()))

    server.arrived = look
    customer.waits()
    assert seen == [(call, "handing in", 12, 32) for call in SUBMITTED]
    (row,) = customer.rows()
    assert (row.status, row.reference, row.keys) == ("handed in", "batch_0", tuple(customer.lot().keys))


def test_what_is_handed_in_is_what_would_have_been_asked(customer: Customer, server: OpenAIJobs) -> None:
    customer.texts = ["Straße", '"quoted" \\ and\u2028broken', "雨 in Oslo", "four"]
    customer.waits()
    ticket, lines = server.batches[0].ticket, server.batches[0].lines
    assert (ticket["endpoint"], ticket["completion_window"]) == ("/v1/embeddings", "24h")
    assert [len(value) for value in ticket["metadata"].values()] == [32]
    asked = {"model": MODEL, "dimensions": DIMENSIONS, "encoding_format": "base64"}
    assert [line["body"] for line in lines] == [
        {"input": customer.texts[:3], **asked},
        {"input": customer.texts[3:], **asked},
    ]
    assert [(line["custom_id"], line["method"]) for line in lines] == [("0-3", "POST"), ("3-4", "POST")]
    server.work()
    customer.run()
    assert customer.has() == customer.texts


def test_sixty_four_texts_go_into_one_request_unless_told_otherwise(customer: Customer, server: OpenAIJobs) -> None:
    customer.texts = [f"Headline {number}" for number in range(130)]
    customer.waits(max_inputs=None)
    assert [len(line["body"]["input"]) for line in server.batches[0].lines] == [64, 64, 2]


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        ({"max_job_texts": 5}, [5, 5, 2]),
        ({"max_job_bytes": 100}, [4, 4, 4]),
        ({"max_tokens": 50}, [12]),
    ],
)
def test_every_limit_of_a_job_is_kept(
    customer: Customer, server: OpenAIJobs, limits: dict[str, object], sizes: list[int]
) -> None:
    customer.limits = limits
    customer.waits()
    assert [len(batch.texts) for batch in server.batches] == sizes
    requests = [line["body"]["input"] for batch in server.batches for line in batch.lines]
    assert [text for texts in requests for text in texts] == TEXTS
    assert max(len("".join(texts)) for texts in requests) == (48 if "max_tokens" in limits else 72)
    server.work()
    assert customer.run().paid == 12
    assert (customer.has(), server.twice) == (TEXTS, 0)


def test_the_limits_are_the_providers_own(customer: Customer) -> None:
    service = customer.seller().service
    assert (service.max_job_texts, service.max_job_bytes) == (50_000, 8_000_000)
    assert customer.seller().budget(Environment(), Mode.BATCH).usd_per_token == pytest.approx(0.01e-6)


def test_the_budget_is_looked_at_first_and_counts_half_the_price(customer: Customer, server: OpenAIJobs) -> None:
    cost = len(TEXTS) * TOKENS * USD_PER_TOKEN
    message = customer.refused(QuotaError, budget_usd=0.99 * cost)
    assert f"about ${cost:.4f} for 72 tokens is above the budget" in message
    assert (server.calls, customer.path.exists()) == ([], False)
    customer.waits(budget_usd=1.01 * cost)


def test_what_is_on_order_needs_no_budget_any_more(customer: Customer, server: OpenAIJobs) -> None:
    customer.waits()
    customer.waits(budget_usd=0)
    server.work()
    assert customer.run(budget_usd=0).usd == pytest.approx(12 * TOKENS * USD_PER_TOKEN)


def test_without_a_key_nothing_is_sent(customer: Customer, server: OpenAIJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "12 texts have no vectors yet: about 72 tokens, $0.7200" in customer.refused(AuthenticationError)
    assert (server.calls, customer.path.exists()) == ([], False)


def test_where_nothing_is_missing_nobody_is_asked(
    customer: Customer, server: OpenAIJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer.waits()
    server.work()
    customer.run()
    server.calls.clear()
    monkeypatch.delenv("OPENAI_API_KEY")
    receipt = customer.run()
    assert (receipt.texts, receipt.paid, receipt.usd, server.calls) == (12, 0, 0.0, [])


def test_only_what_is_not_on_order_is_handed_in(customer: Customer, server: OpenAIJobs) -> None:
    customer.texts = TEXTS[:7]
    customer.waits()
    customer.texts = TEXTS
    message = customer.waits()
    assert message.startswith("5 texts were handed in, for about $0.3000. Open jobs: batch_0 (validating), batch_1 ")
    assert [batch.texts for batch in server.batches] == [TEXTS[:7], TEXTS[7:]]


def test_a_job_is_collected_whatever_the_news_are_by_then(customer: Customer, server: OpenAIJobs) -> None:
    customer.waits()
    server.work()
    customer.texts = ["Something else", TEXTS[3]]
    customer.waits()
    customer.texts = TEXTS
    assert customer.has() == TEXTS
    assert [batch.texts for batch in server.batches[1:]] == [["Something else"]]


def test_jobs_of_other_settings_are_left_alone(customer: Customer, server: OpenAIJobs) -> None:
    customer.waits()
    with Ledger.writing(customer.path) as ledger, ledger.transaction() as database:
        other = replace(customer.seller().space, model="another")
        database.execute("UPDATE spend SET space = ?", (other.to_json(),))
    customer.waits()
    assert server.calls == [*SUBMITTED, *SUBMITTED]
    assert customer.statuses() == ["handed in", "handed in"]


def test_nothing_is_handed_in_for_a_program_that_is_gone(
    customer: Customer, server: OpenAIJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newsfuse.paid.payer.Employer.gone", lambda _: True)
    assert "the program that started this one is gone" in customer.waits()
    assert (server.calls, customer.rows()) == ([], [])


@given(st.lists(st.binary(max_size=5)))
def test_a_file_has_the_same_lines_in_whatever_pieces_it_comes(pieces: list[bytes]) -> None:
    lines = [line for line in b"".join(pieces).split(b"\n") if line.strip()]
    assert [*PLUGIN["split"](pieces)] == lines


def test_a_model_of_one_size_is_not_told_its_dimensions_in_a_job_either() -> None:
    client = PLUGIN["Client"](None, None, "text-embedding-ada-002", 1536)
    assert json.loads(client.line(range(1), ["one"]))["body"].keys() == {"input", "model", "encoding_format"}


# crashes


class KilledError(BaseException):
    """The program dies here."""


@contextmanager
def death_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Die before or after the n-th of all requests and transactions; the list has how many there were."""
    steps = [0]

    def count() -> None:
        steps[0] += 1
        if steps[0] == step:
            raise KilledError

    def send(self: Any, *args: Any, **named: Any) -> Any:  # noqa: ANN401 - as the method that it stands for
        count()
        answer = super(openai.DefaultHttpxClient, self).send(*args, **named)
        count()
        return answer

    transaction = Ledger.transaction

    @contextmanager
    def counted(self: Ledger) -> Iterator[sqlite3.Connection]:
        count()
        with transaction(self) as database:
            yield database
        count()

    with monkeypatch.context() as patch:
        patch.setattr(openai.DefaultHttpxClient, "send", send)
        patch.setattr(Ledger, "transaction", counted)
        yield steps


def test_whatever_step_a_run_dies_at_no_text_is_bought_twice(
    customer: Customer, server: OpenAIJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer.limits = {"max_job_texts": 7}
    step = died = 0
    while died == step:
        step += 1
        server.forget()
        customer.path = tmp_path / f"{step}.sqlite"
        with death_at(step, monkeypatch) as steps:
            died += lived_through(customer, server)
        assert (server.billed, server.twice, len(server.batches)) == (12, 0, 2), step
        assert (customer.has(), {*customer.statuses()} - {"failed"}) == (TEXTS, {"done"}), step
        assert customer.bill() == (12 * TOKENS, 12 * TOKENS * USD_PER_TOKEN), step
    assert steps[0] == step - 1 == 2 * (2 * 2 + 2 * 2 + 2 * 2 + 2)


def lived_through(customer: Customer, server: OpenAIJobs) -> int:
    """Run until all is there; how often it died."""
    deaths = 0
    for _ in range(9):
        try:
            customer.run()
        except KilledError:
            deaths += 1
        except BusyError:
            server.work()
        else:
            return deaths
    pytest.fail("it does not come to an end")


@pytest.mark.parametrize("fault", ["server_error", "rate_limited", "reset", "html"])
@pytest.mark.parametrize("late", ["", "late "])
def test_handing_in_is_tried_again_without_a_second_batch(
    customer: Customer, server: OpenAIJobs, fault: str, late: str
) -> None:
    server.faults = {"POST batches": [late + fault]}
    customer.waits()
    again = ["GET batches"] if late else ["GET batches", *SUBMITTED]
    assert (server.calls, len(server.batches)) == ([*SUBMITTED, *again], 1)


def test_an_upload_is_tried_again(customer: Customer, server: OpenAIJobs) -> None:
    server.faults = {"POST files": ["late reset"]}
    customer.waits()
    assert server.calls == ["POST files", "GET batches", *SUBMITTED]


def test_a_batch_that_was_made_unheard_is_found_on_whatever_page_it_is(customer: Customer, server: OpenAIJobs) -> None:
    server.faults = {"POST batches": ["late reset"], "GET batches": ["server_error"] * 2}
    assert "Gave up after 3 requests" in customer.refused(ProviderError)
    for _ in range(5):
        server.batches.append(replace(server.batches[0], ticket={"id": f"batch_x{len(server.batches)}"}))
    server.page = 2
    server.calls.clear()
    message = customer.waits()
    server.page = 100
    assert "Open jobs: batch_0 (validating)" in message
    assert server.calls == ["GET batches"] * 3
    assert [(row.status, row.reference) for row in customer.rows()] == [("handed in", "batch_0")]


def test_what_the_provider_never_heard_of_is_handed_in_again(customer: Customer, server: OpenAIJobs) -> None:
    server.faults = {"POST files": ["reset"] * 3}
    assert "Gave up after 3 requests" in customer.refused(ProviderError)
    customer.waits()
    assert (len(server.batches), customer.statuses()) == (1, ["failed", "handed in"])


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("unauthorized", AuthenticationError), ("insufficient_quota", QuotaError), ("not_found", ProviderError)],
)
@pytest.mark.parametrize("call", SUBMITTED)
def test_a_refused_job_is_not_waited_for(
    customer: Customer, server: OpenAIJobs, call: str, fault: str, kind: type[NewsfuseError]
) -> None:
    server.faults = {call: [fault]}
    customer.refused(kind)
    assert (customer.statuses(), customer.bill()) == (["failed"], (0, 0.0))
    assert customer.run(Mode.DIRECT).paid == 12


def test_a_server_without_a_batch_api_is_told_so(customer: Customer, server: OpenAIJobs) -> None:
    server.faults = {"POST files": ["not_found"]}
    assert "Where a server has no Batch API, buy at once: embed.mode=direct" in customer.refused(ProviderError)


# jobs that end otherwise


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_a_job_that_ends_early_keeps_what_is_done_and_the_rest_is_handed_in_again(
    customer: Customer, server: OpenAIJobs, status: str
) -> None:
    customer.waits()
    server.work(status, lines=2)
    assert customer.waits().startswith("6 texts were handed in, for about $0.3600. Open jobs: batch_1 (validating). ")
    assert customer.has() == TEXTS[:6]
    assert server.batches[1].texts == TEXTS[6:]
    assert (customer.statuses(), customer.bill()[0]) == (["done", "handed in"], 6 * TOKENS)
    assert "TransientError" in str(customer.rows()[0].note)
    server.work()
    receipt = customer.run()
    assert (receipt.paid, receipt.requests, receipt.tokens) == (6, 2, 6 * TOKENS)
    assert (customer.has(), server.billed, server.twice) == (TEXTS, 12, 0)


def test_a_job_of_which_nothing_was_done_costs_nothing(customer: Customer, server: OpenAIJobs) -> None:
    customer.waits()
    server.work("expired", lines=0)
    customer.waits()
    assert (customer.statuses(), customer.bill(), server.billed) == (["failed", "handed in"], (0, 0.0), 0)


def test_a_job_for_which_too_much_is_waiting_is_handed_in_again(customer: Customer, server: OpenAIJobs) -> None:
    customer.waits()
    server.fail("token_limit_exceeded", "Enqueued token limit reached for the model. Limit: 3,000,000")
    assert "12 texts were handed in" in customer.waits()
    assert [len(batch.texts) for batch in server.batches] == [12, 12]
    assert "Enqueued token limit reached" in str(customer.rows()[0].note)


@pytest.mark.parametrize(
    ("code", "kind"), [("billing_hard_limit_reached", QuotaError), ("model_not_found", ProviderError)]
)
def test_a_job_that_fails_for_good_is_not_handed_in_again_by_itself(
    customer: Customer, server: OpenAIJobs, code: str, kind: type[NewsfuseError]
) -> None:
    customer.waits()
    server.fail(code, f"No. Signed, {KEY}")
    message = customer.refused(kind)
    assert f"batch_0: {server.host} did not accept batch_0: No. Signed, (key)" in message
    assert "0 of its 12 texts are paid and kept ($0.0000); run again to continue" in message
    assert (len(server.batches), customer.statuses()) == (1, ["failed"])
    customer.waits()
    assert len(server.batches) == 2


def test_a_job_that_is_complete_without_a_file_is_waited_for(customer: Customer, server: OpenAIJobs) -> None:
    customer.waits()
    server.work()
    name, server.batches[0].ticket["output_file_id"] = server.batches[0].ticket["output_file_id"], None
    assert "batch_0 (completed, 4 of 4 requests done)" in customer.waits()
    server.batches[0].ticket["output_file_id"] = name
    customer.run()
    assert (customer.has(), server.twice) == (TEXTS, 0)


def test_a_file_with_fewer_answers_than_were_given_is_not_believed(customer: Customer, server: OpenAIJobs) -> None:
    customer.waits()
    server.work()
    name = server.batches[0].ticket["output_file_id"]
    whole = server.files[name]
    server.files[name] = b"\n".join(whole.splitlines()[:3])
    assert "4 requests of batch_0 were answered, its files hold 3" in customer.refused(ProviderError)
    assert (customer.has(), customer.statuses()) == ([], ["handed in"])
    server.files[name] = whole
    customer.run()
    assert (customer.has(), server.twice) == (TEXTS, 0)


@pytest.mark.parametrize("call", COLLECTED)
@pytest.mark.parametrize("fault", ["server_error", "rate_limited", "reset"])
def test_looking_and_collecting_are_tried_again(customer: Customer, server: OpenAIJobs, call: str, fault: str) -> None:
    customer.waits()
    server.work()
    server.faults = {call: [fault, fault]}
    assert customer.run().paid == 12
    assert (customer.has(), server.calls.count(call)) == (TEXTS, 3)


def test_a_download_that_breaks_off_is_begun_again(customer: Customer, server: OpenAIJobs) -> None:
    customer.waits()
    server.work()
    breaks = [ConnectionResetError, ConnectionResetError]

    def break_off(call: str) -> None:
        if call == "half content" and breaks:
            raise breaks.pop()

    server.handled = break_off
    assert customer.run().paid == 12
    assert (customer.has(), server.calls.count("GET content"), customer.bill()[0]) == (TEXTS, 3, 12 * TOKENS)


def test_a_job_stays_open_while_the_provider_cannot_be_reached(customer: Customer, server: OpenAIJobs) -> None:
    customer.waits()
    server.faults = {"GET batch": ["server_error"] * 3}
    assert "Gave up after 3 requests" in customer.refused(ProviderError)
    assert customer.statuses() == ["handed in"]


def test_a_job_that_the_provider_does_not_know_is_bought_again_only_when_it_was_given_up(
    customer: Customer, server: OpenAIJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer.waits()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    message = customer.refused(ProviderError)
    assert "No batch found with that id." in message
    assert "This is about the job batch_0 (12 texts, handed in at 20" in message
    assert "Use the key that it was handed in with" in message
    assert message.endswith("forget it: newsfuse ledger give-up batch_0")
    with pytest.raises(ParamsError, match=r"no open job is called 'batch_1'\. Open: batch_0$"):
        jobs.give_up(customer.path, "batch_1")
    jobs.give_up(customer.path, "batch_0")
    customer.waits()
    assert customer.statuses() == ["given up", "handed in"]


# answers that are no answers


@pytest.mark.parametrize(
    ("altered", "words"),
    [
        (shorn, "provider returned 2 vectors for 3 texts"),
        (emptied, "provider returned 0 vectors for 3 texts"),
        (renumbered, "provider's 3 vectors are not numbered 0 to 2"),
        (first_number(np.nan), "vector 2 is not finite"),
        (first_number(np.inf), "vector 2 is not finite"),
        (zeroed, "vector 2 is all zero"),
        (lengthened, "vector 2 has 16 numbers, asked were 8"),
        (renamed, "answered with model 'text-embedding-3-tiny', asked was 'text-embedding-3-small'"),
        (garbled, "vector 2 is neither base64"),
    ],
)
def test_a_useless_answer_is_told_and_nothing_of_it_is_kept(
    customer: Customer, server: OpenAIJobs, altered: Callable[[dict[str, Any], dict[str, Any]], None], words: str
) -> None:
    customer.waits()
    server.altered = altered
    server.work()
    message = customer.refused(UselessAnswerError)
    assert words in message
    assert "9 of its 12 texts are paid and kept" in message
    assert (customer.has(), customer.statuses(), len(server.batches)) == (TEXTS[:9], ["done"], 1)
    assert customer.bill()[0] == 12 * TOKENS  # it may be billed, and is better counted


def test_after_a_job_that_was_paid_for_nothing_no_other_is_handed_in(customer: Customer, server: OpenAIJobs) -> None:
    customer.texts = TEXTS[:3]
    customer.waits()
    server.altered = shorn
    server.work()
    customer.refused(UselessAnswerError)
    assert "was paid for and brought nothing" in customer.refused(ProviderError)
    assert len(server.batches) == 1
    customer.run(Mode.DIRECT)
    assert customer.has() == TEXTS[:3]


def test_a_job_of_useless_answers_alone_is_called_so(customer: Customer, server: OpenAIJobs) -> None:
    customer.texts = TEXTS[:3]
    customer.waits()
    server.altered = shorn
    server.work()
    customer.refused(UselessAnswerError)
    assert (customer.statuses(), customer.bill()[0]) == (["useless"], 3 * TOKENS)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("<html>", "the answer is no line of results"),
        ('{"custom_id": "mine", "response": null}', "an answer to a request that was not made: 'mine'"),
    ],
)
def test_a_line_that_cannot_be_told_is_an_error_and_the_others_are_kept(
    customer: Customer, server: OpenAIJobs, line: str, words: str
) -> None:
    customer.waits()
    server.work()
    name = server.batches[0].ticket["output_file_id"]
    lines = server.files[name].splitlines()
    server.files[name] = b"\n".join([*lines[:2], line.encode(), *lines[3:]])
    assert words in customer.refused(UselessAnswerError)
    assert customer.has() == TEXTS[:3] + TEXTS[6:]


@pytest.mark.parametrize("custom_id", ["0-3", "2-5", "9-15", "12-12"])
def test_one_answer_more_changes_nothing(
    customer: Customer, server: OpenAIJobs, custom_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    customer.waits()
    server.work()
    name = server.batches[0].ticket["output_file_id"]
    more = json.loads(server.files[name].splitlines()[0]) | {"custom_id": custom_id}
    server.files[name] += json.dumps(more).encode() + b"\n\n"
    customer.run()
    assert customer.has() == TEXTS
    assert customer.bill()[0] == 12 * TOKENS


def test_a_vector_that_is_there_stays(customer: Customer, server: OpenAIJobs) -> None:
    customer.waits()
    first = np.ones((1, DIMENSIONS), np.float32)
    with Ledger.writing(customer.path) as ledger:
        key = customer.lot().keys[0]
        ledger.done(ledger.sent(customer.seller().space, [key], 1), [key], first, 1, 0.0)
    server.work()
    customer.run()
    with Ledger.reading(customer.path) as ledger:
        np.testing.assert_array_equal(next(ledger.vectors([key], DIMENSIONS)), first)


def test_a_plugin_that_gives_something_else_than_vectors_is_blamed_and_the_job_stays_open(
    customer: Customer, server: OpenAIJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer.waits()
    server.work()
    monkeypatch.setattr("newsfuse.paid.jobs.require_usable", lambda *_: (_ for _ in ()).throw(TypeError("no vectors")))
    customer.refused(PluginError)
    assert (customer.has(), customer.statuses()) == ([], ["handed in"])


# refused texts


def test_of_refused_requests_only_the_texts_to_blame_are_left(customer: Customer, server: OpenAIJobs) -> None:
    customer.waits()
    server.poison, server.mode = "Headline 04", "poisonous"
    server.work()
    message = customer.refused(RefusedTextsError)
    assert message.startswith("the provider refuses 1 texts: news.tsv:5 (N4): ")
    assert (customer.has(), server.twice) == ([*TEXTS[:4], *TEXTS[5:]], 0)
    assert customer.bill() == (11 * TOKENS, (9 + 2 * 2) * TOKENS * USD_PER_TOKEN)
    assert len(server.batches) == 1


def test_a_refused_text_that_is_gone_from_the_news_is_not_asked_for(customer: Customer, server: OpenAIJobs) -> None:
    customer.waits()
    server.poison = "Headline 04"
    server.work()
    customer.texts = [*TEXTS[:3], *TEXTS[6:]]
    assert customer.run().paid == 9
    assert server.requests == 0


def test_many_refused_requests_are_not_looked_into(
    customer: Customer, server: OpenAIJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MOST_REFUSED", 3)
    customer.waits()
    server.poison = "Headline"
    server.work()
    message = customer.refused(DataError)
    assert "batch_0: the provider refuses 4 of 4 requests, the first with: " in message
    assert "So many refusals suggest a wrong setting (embed.model, the server)" in message
    assert (server.requests, len(server.batches)) == (0, 1)


# the other mode


def test_direct_mode_does_not_buy_what_is_on_order(customer: Customer, server: OpenAIJobs) -> None:
    customer.texts = TEXTS[:7]
    customer.waits()
    customer.texts = TEXTS
    message = customer.waits(Mode.DIRECT)
    assert message.startswith("7 of 12 texts without a vector are on order: batch_0 (validating). ")
    assert "or cancel it at the provider first: what it has done by then is kept" in message
    assert server.requests == 0


def test_direct_mode_buys_what_is_not_on_order(customer: Customer, server: OpenAIJobs) -> None:
    customer.texts = TEXTS[:7]
    customer.waits()
    customer.texts = TEXTS[7:]
    assert customer.run(Mode.DIRECT).paid == 5
    assert (server.texts, customer.statuses()[0]) == (TEXTS[7:], "handed in")


def test_direct_mode_collects_a_cancelled_job_and_buys_the_rest(customer: Customer, server: OpenAIJobs) -> None:
    customer.waits()
    server.work("cancelled", lines=1)
    receipt = customer.run(Mode.DIRECT)
    assert (receipt.paid, receipt.requests, receipt.tokens) == (12, 4, 12 * TOKENS)
    assert receipt.usd == pytest.approx((3 + 2 * 9) * TOKENS * USD_PER_TOKEN)
    assert (customer.has(), server.twice) == (TEXTS, 0)


# nobody learns the key


@pytest.mark.parametrize("mode", ["unauthorized", "forbidden", "not_found", "redirect", "html", "reset"])
@pytest.mark.parametrize("call", [*SUBMITTED, *COLLECTED])
def test_no_failure_shows_the_key_and_every_one_is_told(
    customer: Customer, server: OpenAIJobs, call: str, mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if call in COLLECTED:
        customer.waits()
        server.work()
    server.faults = {call: [mode] * 9}
    told = ""
    try:
        customer.run()
    except NewsfuseError as error:
        told = f"{error.exit_code}: {error!r}"
    assert told[:2] in {"", "4:", "5:", "6:", "75"}
    assert KEY not in f"{told}{customer.rows()}{capfd.readouterr()}"
