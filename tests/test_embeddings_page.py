"""docs/embeddings.md says what is so: its commands print what it shows, its tables are the code's."""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from house import House
from openai_server import OpenAIServer, vectors
from project import FOREIGN, ROOT

from newsfuse import Answer, Mode
from newsfuse.embeddings import write_bought
from newsfuse.environment import Environment
from newsfuse.news import News
from newsfuse.paid.ledger import PAGE_BYTES, Ledger
from newsfuse.paid.order import Order
from newsfuse.paid.payer import Employer
from newsfuse.paid.seller import Seller
from newsfuse.paid.supply import supply
from newsfuse.params import load
from newsfuse.words import Words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PAGE = ROOT / "docs/embeddings.md"
WHERE = "/home/you/news"
"""Where the page's project is said to be."""
STEPS = re.compile(r"(?:^<!-- ([^>]*) -->\n)?^```console\n\$ newsfuse (.*)\n((?:.*\n)*?)```$", re.MULTILINE)


def bought(house: House) -> None:
    """What the stage does with a key, but for OpenAI, whose part a stand-in plays: its name is in the page."""
    house.choose(provider="openai", dimensions=1536)
    params, registry = load(Path())
    seller, files = Seller.of(params, registry), [house.news("train"), house.news("dev")]
    news = News.read(*files)
    order = Order.of(news, params.embed.texts, seller, files)
    service = replace(seller.service, connect=lambda: nullcontext(StandIn()))
    supply(
        order.lot, replace(seller, service=service), Mode.DIRECT, house.ledger,
        environment=Environment(), employer=Employer(),
    )  # fmt: skip
    with Ledger.reading(house.ledger) as ledger:
        found = ledger.vectors(order.keys, 1536)
        write_bought(house.embeddings, Words(news.ids), order.keys, found, seller.space.to_dict())


class StandIn:
    """Answers at once, and bills as OpenAIServer does."""

    def embed(self, texts: Sequence[str]) -> Answer:
        bill = OpenAIServer().answer({"input": texts, "model": "any", "dimensions": 1})["usage"]["total_tokens"]
        return Answer(vectors(texts, 1536), bill)


def damaged(house: House) -> None:
    """The header and the last two pages of vectors are lost."""
    data = bytearray(house.ledger.read_bytes())
    data[:100] = bytes(100)
    data[-2 * PAGE_BYTES :] = bytes(2 * PAGE_BYTES)
    house.ledger.write_bytes(data)


HAPPENINGS = {"a project in which nothing was bought yet": lambda _: None, "bought": bought, "damaged": damaged}


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        monkeypatch.delenv(name)
    house = House.build(tmp_path / "news")
    house.choose(provider="lsa", dimensions=256)
    monkeypatch.chdir(house.root)
    return house


def walked(house: House, page: str) -> Iterator[tuple[str, str, str]]:
    """(command, what the page shows, what it prints) in the order in which a reader comes to them."""
    for happening, words, shown in STEPS.findall(page):
        if happening:
            HAPPENINGS[happening](house)
        printed = house.newsfuse(*words.split(), COLUMNS="100").text
        yield (
            words,
            shown,
            "".join(f"{line.rstrip()}\n" for line in printed.replace(str(house.root), WHERE).splitlines()),
        )


def test_the_commands_of_the_page_print_what_it_shows(house: House) -> None:
    page = PAGE.read_text(encoding="utf-8")
    steps = list(walked(house, page))
    assert len(steps) == page.count("$ newsfuse ")
    assert [(words, weighed(shown)) for words, shown, _ in steps] == [
        (words, weighed(found)) for words, _, found in steps
    ]


def weighed(text: str) -> str:
    """The text without sizes of files, in which versions of SQLite may differ."""
    return re.sub(r"[\d,.]+ (MB|bytes)", r"... \1", text)


def test_every_variable_is_in_the_page_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `NEWSFUSE_(\w+)` \| ([^|]*) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(rows) == {name.upper() for name in Environment.model_fields}
    for name, field in Environment.model_fields.items():
        assert field.default is None or rows[name.upper()] == str(field.default)


def test_every_command_and_option_is_in_the_page(house: House) -> None:
    page = PAGE.read_text(encoding="utf-8")
    commands = re.findall(r"^│ ([a-z][a-z-]*) ", house.newsfuse("ledger", "--help").text, re.MULTILINE)
    assert commands == ["status", "verify", "import", "export", "compact", "give-up"]
    for words in ([], *([command] for command in commands)):
        text = house.newsfuse(*(["ledger", *words] if words else ["plan"]), "--help").text
        for option in set(re.findall(r"--[a-z-]+", text)) - {"--help"}:
            assert f"{option}" in page, option
    for command in commands:
        assert f"\n### {command}\n" in page
