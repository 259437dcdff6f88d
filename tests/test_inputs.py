"""What encoders may read: the words of the articles."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from newsfuse import Inputs, Need, Texts
from newsfuse.assembly import Artifacts
from newsfuse.errors import PluginError
from newsfuse.news import COLUMNS, News
from newsfuse.vocabularies import Vocabularies


def news(*titles: str) -> News:
    """An article per title, its abstract after it in words; ids from N0."""
    rows = [(f"N{row}", "c", "s", title, f"{title} in full" if title else "", "", "[]", "[]") for row, title in
            enumerate(titles)]  # fmt: skip
    return News(pl.DataFrame(rows, dict.fromkeys(COLUMNS, pl.String), orient="row"))


def inputs(articles: News, *needs: Need) -> Inputs:
    """As a stage makes them for an encoder with these needs."""
    known = Vocabularies.of(articles, np.arange(1), None)
    return Artifacts.read(Path("no such folder"), frozenset(needs)).inputs(articles, known, [])


def test_entry_i_of_the_texts_is_article_i() -> None:
    texts = inputs(news("Rain", "Snow"), Need.TEXTS).texts
    assert texts == Texts(titles=("Rain", "Snow"), abstracts=("Rain in full", "Snow in full"))


def test_an_article_that_says_nothing_has_empty_texts() -> None:
    assert inputs(news("Rain", ""), Need.TEXTS).texts == Texts(("Rain", ""), ("Rain in full", ""))


def test_texts_that_nobody_declares_are_not_loaded() -> None:
    assert Need.TEXTS not in inputs(news("Rain"), Need.CATEGORIES).tables


def test_texts_are_for_those_who_declare_them() -> None:
    tables = inputs(news("Rain"), Need.TEXTS).only(frozenset({Need.SEEN}), "encoder 'mine'")
    expected = (
        r"^encoder 'mine' reads inputs.texts without declaring it: add Need.TEXTS to its needs \(declared: seen\)$"
    )
    with pytest.raises(PluginError, match=expected):
        assert tables.texts
