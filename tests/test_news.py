"""News: which articles there are, and what text represents each."""

import logging
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from house import House
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_server import OpenAIServer

from newsfuse.errors import DataError
from newsfuse.news import COLUMNS, News

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r\0"), max_size=10)
ID = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=6)
ROWS = st.lists(st.tuples(ID, *[TEXT] * 7), min_size=1, max_size=12, unique_by=lambda row: row[0])


def row(
    news_id: str, title: str = "A title", abstract: str = "An abstract", category: str = "sports"
) -> tuple[str, ...]:
    return (news_id, category, "golf", title, abstract, "https://example.org", "[]", "[]")


def write(path: Path, *rows: Sequence[str]) -> Path:
    path.write_text("".join("\t".join(each) + "\n" for each in rows), encoding="utf-8", newline="")
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "news.tsv"


def test_articles_are_sorted_by_id(path: Path) -> None:
    news = News.read(write(path, row("N3"), row("N10"), row("N2")))
    assert (len(news), news.ids.to_list()) == (3, ["N10", "N2", "N3"])


def test_an_id_that_a_file_has_twice_is_refused_with_both_lines(path: Path) -> None:
    with pytest.raises(DataError, match=r"news\.tsv:4: news id 'N1' is there already, at line 2;"):
        News.read(write(path, row("N0"), row("N1"), row("N2"), row("N1"), row("N0")))


@pytest.mark.parametrize("news_id", ["", " ", "N 1", " N1", "N1 ", "N\u00a01"])
def test_an_id_that_behaviors_could_not_name_is_refused(path: Path, news_id: str) -> None:
    with pytest.raises(DataError, match=rf"news\.tsv:2: '{news_id}' is no news id; expected one such as N12345"):
        News.read(write(path, row("N1"), row(news_id)))


def test_a_wrong_column_count_is_refused_in_whichever_file_it_is(path: Path, tmp_path: Path) -> None:
    dev = write(tmp_path / "dev.tsv", row("N1"), row("N2")[:-1])
    with pytest.raises(DataError, match=r"dev\.tsv:2: 7 tab-separated columns, expected 8 \(id, category"):
        News.read(write(path, row("N1")), dev)


def test_of_an_article_in_train_and_dev_the_text_of_train_counts(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dev = write(tmp_path / "dev.tsv", row("N1", title="Other"), row("N2"), row("N3"))
    news = News.read(write(path, row("N1"), row("N2")), dev)
    assert news.frame["title"].to_list() == ["A title"] * 3
    assert caplog.messages == [f"{dev}: 1 articles differ from {path}, whose text is used"]


def test_the_same_article_in_train_and_dev_is_no_reason_to_warn(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    News.read(write(path, row("N1")), write(tmp_path / "dev.tsv", row("N1"), row("N2")))
    assert caplog.messages == []


def test_rows_are_minus_one_for_unknown_ids(path: Path) -> None:
    news = News.read(write(path, row("N2"), row("N1")))
    assert news.rows(["N2", "N9", "N1", "", "N2"]).to_list() == [1, -1, 0, -1, 1]
    assert news.rows([]).to_list() == []


def test_a_text_is_a_line_per_field_with_white_space_collapsed(path: Path) -> None:
    news = News.read(write(path, row("N1", " A \u00a0 title ", "An\u2028 abstract")))
    assert news.texts(["title", "abstract"]) == ["A title\nAn abstract"]
    assert news.texts(["abstract"]) == ["An abstract"]


def test_an_empty_field_leaves_no_empty_line(path: Path) -> None:
    news = News.read(write(path, row("N1", title=""), row("N2", abstract=" ")))
    assert news.texts(["title", "abstract"]) == ["An abstract", "A title"]


def test_views_are_texts_side_by_side_and_stand_in_for_each_other(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    news = News.read(write(path, row("N1"), row("N2", title=""), row("N3", abstract=""), row("N4", "", "")))
    texts = news.texts(["title"], ["abstract"])
    pairs = [("A title", "An abstract"), ("An abstract",) * 2, ("A title",) * 2, ("sports golf",) * 2]
    assert list(zip(texts[::2], texts[1::2], strict=True)) == pairs
    assert caplog.messages == ["1 articles have an empty title and abstract; their category stands in"]


def test_the_category_stands_in_for_an_empty_text_with_a_warning(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    news = News.read(write(path, row("N1", "", " "), row("N2"), (*row("N3", "", "", "")[:2], "", "", *row("N3")[4:])))
    assert news.texts(["title"]) == ["sports golf", "A title", "untitled"]
    assert caplog.messages == ["2 articles have an empty title; their category stands in"]


@settings(deadline=None)
@given(rows=ROWS, seed=st.randoms())
def test_valid_rows_are_read_back_whatever_their_order(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], seed: random.Random
) -> None:
    path = tmp_path_factory.getbasetemp() / "news.tsv"
    shuffled = seed.sample(rows, len(rows))
    read = [News.read(write(path, *order)).frame.rows() for order in (rows, shuffled)]
    assert read == [sorted(rows)] * 2


@settings(deadline=None)
@given(rows=ROWS)
def test_no_text_is_ever_blank(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]) -> None:
    news = News.read(write(tmp_path_factory.getbasetemp() / "news.tsv", *rows))
    texts = [*news.texts(["title", "abstract"]), *news.texts(["title"], ["abstract"])]
    assert all(text.strip() for text in texts)


@settings(deadline=None)
@given(content=st.binary() | st.lists(st.sampled_from([b"N1", b"\t" * 7, b"\n", b" ", b'"'])).map(b"".join))
def test_any_bytes_are_news_or_bad_data(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "news.tsv"
    path.write_bytes(content)
    try:
        news = News.read(path)
    except DataError as error:
        assert str(error).startswith(f"{path}:")  # noqa: PT017 - either outcome is right
    else:
        assert news.frame.columns == list(COLUMNS)


def test_nothing_is_sent_to_a_provider_before_the_last_line_was_checked(tmp_path: Path) -> None:
    house = House.build(tmp_path / "house")
    with house.news("dev").open("a", encoding="utf-8") as file:
        file.write("N1\ta line without its other columns\n")
    last = len(house.news("dev").read_text(encoding="utf-8").splitlines())
    with OpenAIServer() as server:
        outcome = house.run("stages.embed", OPENAI_BASE_URL=server.url, OPENAI_API_KEY="sk-test")
        assert server.requests == 0
    assert outcome.code == 3
    assert outcome.text.startswith(f"ERROR: data/tiny/dev/news.tsv:{last}: 2 tab-separated columns, expected 8 (id,")
    assert not house.embeddings.exists()
