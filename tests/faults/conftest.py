"""What the fault suite shares: a buyer, a server that bills, and the book of what was measured."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from faults.book import BOOK, LAST, LEFT_OUT, Measured, Observed
from faults.buyer import ARTIFACT, Buyer
from faults.canary import traces
from faults.page import Left, Row
from openai_server import OpenAIServer
from project import missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def pytest_configure(config: pytest.Config) -> None:
    config.stash[BOOK], config.stash[LEFT_OUT] = {}, []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name == LAST)


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        item.config.stash[LEFT_OUT].append(item.nodeid)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    book = request.config.stash[BOOK]

    def write(fault: int, done: str, *, code: int | str, requests: int | str, twice: int | str) -> None:
        row = Row(fault, done, str(code), str(requests), str(twice))
        book.setdefault(request.node.nodeid, []).append(row)

    return write


@pytest.fixture
def observed(request: pytest.FixtureRequest) -> Observed:
    book = request.config.stash[BOOK]

    def write(fault: int, done: str, *, code: int | str, left: str) -> None:
        book.setdefault(request.node.nodeid, []).append(Left(fault, done, str(code), left))

    return write


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Buyer:
    """For copying only."""
    if reason := missing():
        pytest.skip(reason)
    return Buyer.opened(tmp_path_factory.mktemp("buyer") / "a project")  # the space breaks what does not quote


@pytest.fixture(scope="session")
def shop() -> Iterator[OpenAIServer]:
    """One server for all: its host and port are part of every vector's key."""
    with OpenAIServer() as server:
        yield server


@pytest.fixture(scope="session")
def satisfied(opened: Buyer, shop: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> Buyer:
    """One that has bought all it needs, by the stage and without any trouble; for copying only."""
    buyer = opened.copy(tmp_path_factory.mktemp("satisfied") / "a project").at(shop)
    outcome = buyer.embed()
    assert outcome.code == 0, outcome.text
    assert buyer.wrong() == []
    return buyer


@pytest.fixture(scope="session")
def everything(shop: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> Buyer:
    """The whole pipeline of the shipped data, run by DVC and committed; of a model that learned nothing. To be copied.

    With the graph, since it is an input that may be damaged or stale too.
    """
    if reason := missing():
        pytest.skip(reason)
    buyer = Buyer.bare(tmp_path_factory.mktemp("pipeline") / "a project").at(shop).under(NEWSFUSE_MAX_INPUTS="512")
    for setting in ("epochs", "pretrain_epochs", "cold_mask"):
        buyer.edit("params.yaml", rf"(?m)^  {setting}: [\d.]+", f"  {setting}: 0")
    buyer.edit("params.yaml", "refit: true", "refit: false")
    buyer.dvc("repro")
    buyer.commit()
    return buyer


@pytest.fixture
def whole(everything: Buyer, server: OpenAIServer, tmp_path: Path) -> Buyer:
    """The test's own, in which every stage has run."""
    return everything.copy(tmp_path / "a project")


@pytest.fixture
def server(shop: OpenAIServer, satisfied: Buyer) -> OpenAIServer:
    """As if nobody had ever bought anything there."""
    shop.forget()
    return shop


@pytest.fixture
def buyer(opened: Buyer, server: OpenAIServer, tmp_path: Path) -> Buyer:
    """The test's own, with nothing bought yet."""
    return opened.copy(tmp_path / "a project").at(server)


@pytest.fixture
def owner(satisfied: Buyer, server: OpenAIServer, tmp_path: Path) -> Buyer:
    """The test's own, with everything bought."""
    return satisfied.copy(tmp_path / "a project")


@pytest.fixture
def reproduced(owner: Buyer, server: OpenAIServer) -> Buyer:
    """The test's own, in which DVC has run embed, and committed; the ledger had everything."""
    owner.dvc("repro", "embed")
    owner.commit()
    assert server.requests == 0
    return owner


@pytest.fixture
def unbroken(satisfied: Buyer) -> dict[str, str]:
    """The artifact as it is when nothing goes wrong."""
    return satisfied.hashes(ARTIFACT)


@pytest.fixture(autouse=True)
def no_trace_of_the_key(tmp_path: Path) -> Iterator[None]:
    """Whatever a test did: neither the key nor what would take a terminal over is in anything that it left."""
    yield
    assert traces(tmp_path) == []
    printed = {page: page.read_text(encoding="utf-8") for page in tmp_path.glob("printed/*")}
    assert [
        str(page) for page, text in printed.items() if not text.replace("\n", "").replace("\t", "").isprintable()
    ] == []


@pytest.fixture(autouse=True)
def default_interrupt() -> Iterator[None]:
    """A program started in the background may have been told to ignore Ctrl-C, and its children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
