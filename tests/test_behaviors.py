"""Behaviors: impressions, histories and clicks as flat arrays."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsfuse.behaviors import Behaviors
from newsfuse.errors import DataError
from newsfuse.news import News

TIME = "11/15/2019 8:55:22 AM"
ARTICLES = [f"N{number}" for number in range(6)]
IDS = st.sampled_from([*ARTICLES, "unknown"])
ROW = st.tuples(
    st.text("abc", min_size=1, max_size=2),
    st.lists(IDS, max_size=5),
    st.lists(st.tuples(IDS, st.integers(0, 1)), min_size=1, max_size=5),
)


def make_news(folder: Path, ids: list[str]) -> News:
    path = folder / "news.tsv"
    path.write_text(
        "".join(f"{news_id}\tsports\tgolf\tTitle\tText\turl\t[]\t[]\n" for news_id in ids), encoding="utf-8"
    )
    return News.read(path)


@pytest.fixture
def news(tmp_path: Path) -> News:
    return make_news(tmp_path, ARTICLES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "behaviors.tsv"


def line(user: str = "U1", time: str = TIME, history: str = "N1 N2", candidates: str = "N3-1 N4-0") -> str:
    return f"7\t{user}\t{time}\t{history}\t{candidates}\n"


def read(path: Path, news: News, *lines: str) -> Behaviors:
    path.write_text("".join(lines), encoding="utf-8", newline="")
    return Behaviors.read(path, news)


def ids(news: News, rows: np.ndarray) -> list[str]:
    return [news.ids[int(row)] if row >= 0 else "?" for row in rows]


def lists(offsets: np.ndarray, values: list[str]) -> list[list[str]]:
    return [values[first:last] for first, last in pairwise(offsets.tolist())]


def histories(behaviors: Behaviors, news: News) -> list[list[str]]:
    """The history of each impression."""
    distinct = lists(behaviors.history_offsets, ids(news, behaviors.history_news))
    return [distinct[number] for number in behaviors.history]


def candidates(behaviors: Behaviors, news: News) -> list[list[str]]:
    """The candidates of each impression, labelled as in the file."""
    labelled = [
        f"{each}-{label}" for each, label in zip(ids(news, behaviors.candidate_news), behaviors.labels, strict=True)
    ]
    return lists(behaviors.candidate_offsets, labelled)


def test_a_line_is_read_as_it_stands(path: Path, news: News) -> None:
    behaviors = read(path, news, line(history="N2 N1 N2"))
    assert behaviors.impressions.to_list() == ["7"]
    assert behaviors.times.tolist() == [np.datetime64("2019-11-15T08:55:22").item()]
    assert histories(behaviors, news) == [["N2", "N1", "N2"]]
    assert candidates(behaviors, news) == [["N3-1", "N4-0"]]


@pytest.mark.parametrize(
    ("time", "expected"),
    [("1/2/2020 12:00:00 AM", "2020-01-02T00:00:00"), ("12/31/2019 12:59:59 PM", "2019-12-31T12:59:59")],
)
def test_twelve_o_clock_is_midnight_or_noon(path: Path, news: News, time: str, expected: str) -> None:
    assert read(path, news, line(time=time)).times.tolist() == [np.datetime64(expected).item()]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        pytest.param(line(candidates="N3-1 N4"), "candidate 'N4' has no label of 0 or 1", id="no label"),
        pytest.param(line(candidates="N3-2"), "candidate 'N3-2' has no label of 0 or 1", id="label 2"),
        pytest.param(line(candidates="N3-01"), "candidate 'N3-01' has no label of 0 or 1", id="label 01"),
        pytest.param(line(candidates="N3-"), "candidate 'N3-' has no label of 0 or 1", id="empty label"),
        pytest.param(line(candidates="-1"), "candidate '-1' has no label of 0 or 1", id="label without an id"),
        pytest.param(line(candidates=""), "an impression without candidates", id="no candidates"),
        pytest.param(line(candidates="  "), "an impression without candidates", id="blank candidates"),
        pytest.param(line(time=""), "'' is no time; expected month/day/year", id="no time"),
        pytest.param(line(time="2019-11-15 08:55:22"), "'2019-11-15 08:55:22' is no time", id="ISO time"),
        pytest.param(line(time="11/15/2019 13:55:22 PM"), "'11/15/2019 13:55:22 PM' is no time", id="hour 13"),
        pytest.param(line(time="2/30/2019 8:55:22 AM"), "'2/30/2019 8:55:22 AM' is no time", id="30 February"),
        pytest.param(line(time=TIME + " x"), f"'{TIME} x' is no time", id="text after the time"),
        pytest.param(line(user=" "), "' ' is no user id; expected one without spaces", id="no user"),
        pytest.param(line()[1:], "'' is no impression id; expected one without spaces", id="no impression id"),
        pytest.param("\n", "1 tab-separated columns, expected 5", id="blank line"),
        pytest.param(line()[:-1] + "\t\n", "6 tab-separated columns, expected 5", id="extra column"),
        pytest.param(line()[:-1] + "\r\n", "contains a carriage return", id="CRLF"),
        pytest.param(line(user="\0"), "contains a NUL byte", id="NUL"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(path: Path, news: News, wrong: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(path, news, line(), line(history=""), wrong, line())
    assert str(caught.value).startswith(f"{path}:3: {message}")


def test_a_missing_file_is_bad_data(path: Path, news: News) -> None:
    with pytest.raises(DataError, match=r"behaviors\.tsv: cannot be read"):
        Behaviors.read(path, news)


def test_unknown_articles_leave_histories_and_are_told(
    path: Path, news: News, caplog: pytest.LogCaptureFixture
) -> None:
    behaviors = read(path, news, line(history="N1 X1 N2 X2"), line(history="X1"))
    assert histories(behaviors, news) == [["N1", "N2"], []]
    message = "3 clicks in histories are of articles without a line in news.tsv (such as X1): left out of them"
    assert caplog.messages == [f"{path}: {message}"]


def test_unknown_candidates_stay_as_minus_one_and_are_told(
    path: Path, news: News, caplog: pytest.LogCaptureFixture
) -> None:
    behaviors = read(path, news, line(candidates="N1-0 X1-1 N2-0"))
    assert (behaviors.candidate_news.tolist(), behaviors.labels.tolist()) == ([1, -1, 2], [0, 1, 0])
    policy = "rank last in evaluation, unused in training"
    found = "1 candidates are of articles without a line in news.tsv (such as X1)"
    assert caplog.messages == [f"{path}: {found}: {policy}"]


def test_an_impression_without_a_click_is_kept(path: Path, news: News) -> None:
    behaviors = read(path, news, line(candidates="N1-0 N2-0"))
    assert candidates(behaviors, news) == [["N1-0", "N2-0"]]


def test_an_empty_history_is_empty(path: Path, news: News) -> None:
    behaviors = read(path, news, line(history=""), line(history="N1"))
    assert histories(behaviors, news) == [[], ["N1"]]


def test_equal_histories_are_stored_once(path: Path, news: News) -> None:
    behaviors = read(path, news, line(), line(history=""), line(), line(history="N2 N1"))
    assert behaviors.history_news.tolist() == [1, 2, 2, 1]
    assert behaviors.history[0] == behaviors.history[2]


def test_an_id_may_contain_a_dash(path: Path, tmp_path: Path) -> None:
    news = make_news(tmp_path, ["a-1", "a"])
    assert candidates(read(path, news, line(history="", candidates="a-1-0 a-1")), news) == [["a-1-0", "a-1"]]


def test_each_user_has_a_number(path: Path, news: News) -> None:
    behaviors = read(path, news, line("U9"), line("U1"), line("U9"))
    assert behaviors.users.tolist() == [1, 0, 1]


def test_taken_impressions_are_whole_and_in_the_order_asked_for(path: Path, news: News) -> None:
    lines = line("a"), line("b", history="", candidates="N5-0"), line("c", history="N3", candidates="N1-0 N2-1")
    behaviors = read(path, news, *lines)
    taken = behaviors.take(np.array([2, 1, 2]))
    assert histories(taken, news) == [["N3"], [], ["N3"]]
    assert candidates(taken, news) == [["N1-0", "N2-1"], ["N5-0"], ["N1-0", "N2-1"]]
    assert taken.users.tolist() == [2, 1, 2]


def test_none_taken_is_none(path: Path, news: News) -> None:
    taken = read(path, news, line()).take(np.array([], dtype=np.int64))
    assert (len(taken), taken.candidate_news.tolist(), taken.mentioned().tolist()) == (0, [], [])


def test_mentioned_are_the_articles_of_the_taken_impressions_alone(path: Path, news: News) -> None:
    behaviors = read(path, news, line(history="N0", candidates="N3-1 X-0"), line(history="N5", candidates="N4-1"))
    assert ids(news, behaviors.take(np.array([0])).mentioned()) == ["N0", "N3"]


@settings(deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=8), seed=st.randoms())
def test_valid_rows_are_read_back_whatever_the_order_of_the_news(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, list[str], list[tuple[str, int]]]],
    seed: random.Random,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    lines = [
        line(user, history=" ".join(history), candidates=" ".join(f"{news_id}-{label}" for news_id, label in shown))
        for user, history, shown in rows
    ]
    news = make_news(folder, seed.sample(ARTICLES, len(ARTICLES)))
    behaviors = read(folder / "behaviors.tsv", news, *lines)
    assert histories(behaviors, news) == [[each for each in history if each != "unknown"] for _, history, _ in rows]
    expected = [[f"{'?' if each == 'unknown' else each}-{label}" for each, label in shown] for _, _, shown in rows]
    assert candidates(behaviors, news) == expected
    users = [user for user, _, _ in rows]
    assert [sorted(set(users))[number] for number in behaviors.users] == users


PIECES = [b"7\tU\t", TIME.encode(), b"1/1/0000 1:00:00 AM", b"\t", b"N1-1", b"N1", b" ", b"\n", b"-", b"0", b"\xc2\xa0"]


@settings(deadline=None)
@given(content=st.binary() | st.lists(st.sampled_from(PIECES)).map(b"".join))
def test_any_bytes_are_behaviors_or_bad_data(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    refuse_or_read(tmp_path_factory.getbasetemp(), content)


@settings(deadline=None)
@given(fields=st.tuples(*[st.text(max_size=12)] * 5), time=st.sampled_from([TIME, ""]))
def test_any_fields_are_behaviors_or_bad_data(
    tmp_path_factory: pytest.TempPathFactory, fields: tuple[str, ...], time: str
) -> None:
    impression, user, noise, history, shown = fields
    content = "\t".join((impression, user, time or noise, history, shown))
    refuse_or_read(tmp_path_factory.getbasetemp(), content.encode())


def refuse_or_read(folder: Path, content: bytes) -> None:
    path = folder / "behaviors.tsv"
    path.write_bytes(content)
    news = make_news(folder, ARTICLES)
    try:
        behaviors = Behaviors.read(path, news)
    except DataError as error:
        assert str(error).startswith(f"{path}:")  # noqa: PT017 - either outcome is right
    else:
        assert len(behaviors) == content.rstrip(b"\n").count(b"\n") + 1
