"""The texts of a data set, each once, as they are offered to a service."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shop import SPACE, Shop, lot
from small import ROOT

from newsfuse.environment import Environment
from newsfuse.errors import ParamsError, PluginError
from newsfuse.news import COLUMNS, TEXT_VERSION, News
from newsfuse.paid.order import Order, shortened
from newsfuse.paid.seller import Seller
from newsfuse.paid.space import Space
from newsfuse.params import Embed, Params, load
from newsfuse.plugin import Mode
from newsfuse.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from newsfuse.paid.lot import Lot

FIELDS = ("title", "abstract")
title = st.text("aé雨 ", max_size=4)
characters = st.text(st.characters(codec="utf-8"), max_size=30)


def news(titles: Sequence[str]) -> News:
    """Articles N00, N01, ... with nothing but titles, and a category for those that have none."""
    rows = [(f"N{row:02}", "sports", "golf", title, "", "", "[]", "[]") for row, title in enumerate(titles)]
    return News(pl.DataFrame(rows, dict.fromkeys(COLUMNS, pl.String), orient="row"))


def ordered(articles: News, files: Sequence[Path] = (), max_text_bytes: int = 8191) -> Order:
    return Order.of(articles, [FIELDS], Shop().seller(max_text_bytes=max_text_bytes), files)


PLUGIN = """
from newsfuse import Cost, Embedder, Options, Service, hookimpl

class MyOptions(Options):
    prompt: str = ""

def build(corpus, model, dimensions, options):
    {body}

@hookimpl
def newsfuse_embedders():
    return [Embedder("mine", build, MyOptions, default_model={model}, cost=Cost.TIME)]
"""


def chosen(folder: Path, body: str, model: str | None = None, **options: str) -> Seller:
    """The seller of an embedder with that body of `build`."""
    (folder / "embedders").mkdir()
    (folder / "embedders" / "mine.py").write_text(PLUGIN.format(body=body, model=repr(model)), encoding="utf-8")
    return Seller.of(wanting("mine", **options), Registry(folder, {}))


def wanting(provider: str, **options: str) -> Params:
    """The shipped params.yaml with another embedder."""
    shipped, _ = load(ROOT)
    embed = Embed(provider=provider, dimensions=8, fields=("title",))
    return shipped.model_copy(update={"embed": embed, "options": {provider: options}})


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """train/news.tsv with N0 to N3, dev/news.tsv with N3 to N5."""
    paths = []
    for split, numbers in (("train", (2, 0, 1, 3)), ("dev", (4, 3, 5))):
        paths.append(tmp_path / f"{split}.tsv")
        title = ("same", "wanted and long", "same", "雨雨雨", "same", "wanted")
        lines = (f"N{number}\tc\ts\t{title[number]}\t\t\t[]\t[]\n" for number in numbers)
        paths[-1].write_text("".join(lines), encoding="utf-8")
    return paths


# a lot


def test_a_lot_knows_the_bytes_of_its_texts_and_about_how_many_tokens_they_are() -> None:
    some = lot(["abcd", "abcde", "é雨", ""])
    assert len(some) == 4
    np.testing.assert_array_equal(some.sizes, [4, 5, 5, 0])
    assert some.sizes.dtype == np.int64
    assert some.tokens == 1 + 2 + 2 + 0


def test_an_empty_lot_is_nothing() -> None:
    assert (len(lot([])), lot([]).tokens, lot([]).sizes.tolist()) == (0, 0, [])


@given(st.lists(characters, max_size=8), st.data())
def test_a_part_of_a_lot_has_its_texts_keys_and_places(texts: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(texts)))
    stop = data.draw(st.integers(start, len(texts)))
    whole = lot(texts)
    assert same(whole.part(start, stop), whole, range(start, stop))


@given(st.lists(characters, min_size=1, max_size=8), st.data())
def test_so_have_chosen_texts_of_a_lot_and_parts_of_those(texts: list[str], data: st.DataObject) -> None:
    positions = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1))
    whole = lot(texts)
    chosen = whole.at(positions)
    assert same(chosen, whole, positions)
    assert same(chosen.part(1, len(positions)).at([0]) if len(positions) > 1 else chosen.at([]), whole, positions[1:2])


def same(some: Lot, whole: Lot, positions: Sequence[int]) -> bool:
    expected = [(whole.texts[at], whole.keys[at], whole.place(at)) for at in positions]
    return [(some.texts[at], some.keys[at], some.place(at)) for at in range(len(some))] == expected


# an order


@given(st.lists(title, min_size=1, max_size=12))
def test_every_article_finds_its_own_text_and_no_text_is_there_twice(titles: list[str]) -> None:
    articles = news(titles)
    texts, order = articles.texts(FIELDS), ordered(articles)
    assert [order.lot.texts[row] for row in order.rows] == texts
    assert sorted(order.lot.texts) == sorted(set(texts))
    assert order.lot.keys == SPACE.keys(order.lot.texts)
    assert order.keys == SPACE.keys(texts)


def test_the_texts_are_in_an_order_of_their_own_whatever_the_ids_are() -> None:
    titles = ["b", "a", "c", "a"]
    assert list(ordered(news(titles)).lot.texts) == list(ordered(news(titles[::-1])).lot.texts) == ["a", "b", "c"]


def test_a_place_is_file_line_and_id_of_the_first_article_with_the_text(files: list[Path]) -> None:
    train, dev = files
    order = ordered(News.read(*files), files)
    places = dict(zip(order.lot.texts, map(order.lot.place, range(len(order.lot))), strict=True))
    assert places == {
        "same": f"{train}:2 (N0)",
        "wanted and long": f"{train}:3 (N1)",
        "雨雨雨": f"{train}:4 (N3)",  # in both files; the first one's text is used
        "wanted": f"{dev}:3 (N5)",
    }


def test_texts_that_are_too_long_are_cut_at_whole_characters_and_told_with_the_first_place(
    files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        order = ordered(News.read(*files), files, max_text_bytes=8)
    assert caplog.messages == [
        f"2 of 6 texts are longer than 8 bytes and are cut there, first {files[0]}:3 (N1)",
    ]
    assert list(order.lot.texts) == ["same", "wanted", "wanted a", "雨雨"]
    assert order.keys == SPACE.keys(["same", "wanted a", "same", "雨雨", "same", "wanted"])


def test_texts_that_are_the_same_once_cut_are_one_text() -> None:
    order = ordered(news(["wanted a", "wanted b", "wanted"]), max_text_bytes=6)
    assert list(order.lot.texts) == ["wanted"]
    assert order.rows.tolist() == [0, 0, 0]


def test_texts_of_just_the_length_that_is_read_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    order = ordered(news(["雨雨", "123456"]), max_text_bytes=6)
    assert list(order.lot.texts) == ["123456", "雨雨"]
    assert caplog.messages == []


@given(characters, st.integers(1, 40))
def test_a_cut_text_is_the_longest_start_that_fits(text: str, n_bytes: int) -> None:
    cut = shortened(text, n_bytes)
    assert text.startswith(cut)
    assert len(cut.encode()) <= n_bytes
    assert cut == text or len(text[: len(cut) + 1].encode()) > n_bytes


# a seller


def test_the_space_of_a_seller_is_all_that_decides_a_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8080/v1")
    seller = Seller.of(wanting("openai"), Registry(ROOT / "plugins", {}))
    assert seller.space == Space("openai", "localhost:8080", "text-embedding-3-small", 8, TEXT_VERSION, {})
    assert seller.origin == "plugins/embedders/openai.py"
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert Seller.of(wanting("openai"), Registry(ROOT / "plugins", {})).space.host == ""


SERVICE = "return Service(print, 'box', None, 2, 3, 4)"


def test_the_space_has_the_plugins_settings_and_its_model_if_it_has_any(tmp_path: Path) -> None:
    seller = chosen(tmp_path, SERVICE, prompt="query: ")
    assert seller.space == Space("mine", "box", "", 8, TEXT_VERSION, {"prompt": "query: "})


def test_a_plugin_that_costs_something_and_offers_no_service_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        PluginError, match=r"^plugins/embedders/mine\.py: its cost is time, so build must return a"
    ) as caught:
        chosen(tmp_path, "return len")
    assert "found <built-in function len>" in str(caught.value)


def test_a_plugin_whose_build_fails_is_named_with_the_line(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"^plugins/embedders/mine\.py: KeyError: 'x' \(.*/mine\.py:8\)$"):
        chosen(tmp_path, "return {}['x']")


def test_a_batch_is_budgeted_at_its_share_of_the_price() -> None:
    seller, environment = Shop().seller(batch_discount=0.25), Environment(budget_usd=7.0)
    assert seller.budget(environment, Mode.DIRECT).forecast_usd(2**20) == 1.0
    assert seller.budget(environment, Mode.BATCH).forecast_usd(2**20) == 0.25
    assert seller.budget(environment, Mode.DIRECT).limit_usd == 7.0


def test_a_seller_without_a_known_price_is_named_unless_the_user_says_one() -> None:
    seller = Shop().seller(usd_per_million_tokens=None)
    with pytest.raises(ParamsError, match=r"^the price of shop, clay, 4 dimensions is not known"):
        seller.budget(Environment(), Mode.DIRECT)
    said = Environment(usd_per_million_tokens=3.0)
    assert seller.budget(said, Mode.DIRECT).forecast_usd(1_000_000) == 3.0
