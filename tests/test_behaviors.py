"""Behaviors: impressions, histories and clicks as flat arrays."""

import random
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsfuse import parsed, tsv
from newsfuse.behaviors import Behaviors
from newsfuse.errors import DataError
from newsfuse.news import COLUMNS, News

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
        pytest.param(line()[:-1] + "\r" + line(), "contains a carriage return", id="lone CR"),
        pytest.param(line(user="\0"), "contains a NUL byte", id="NUL"),
        pytest.param(line(user="\udcff"), "not UTF-8", id="bad UTF-8"),
        pytest.param(line(user="U 1"), "'U 1' is no user id; expected one without spaces", id="a space in a user"),
        pytest.param(line(candidates="N1-0\u00a0N2-1 N3"), "candidate 'N3' has no label", id="a space that is none"),
        pytest.param(line(candidates="N1-1  N2 "), "candidate 'N2' has no label", id="after two spaces"),
    ],
)
@pytest.mark.parametrize("block", [1, 60, 1 << 23])  # 60: two lines
def test_a_wrong_line_is_refused_with_its_number_whichever_block_it_is_in(  # noqa: PLR0917 - a case
    path: Path, news: News, monkeypatch: pytest.MonkeyPatch, wrong: str, message: str, block: int
) -> None:
    monkeypatch.setattr(tsv, "BLOCK_BYTES", block)
    monkeypatch.setattr(parsed, "BLOCK", min(block, 2))
    path.write_bytes((line() + line(history="") + wrong + line()).encode(errors="surrogateescape"))
    for attempt in (lambda: Behaviors.read(path, news), lambda: list(Behaviors.parts(path, news, impressions=4))):
        with pytest.raises(DataError) as caught:
            attempt()
        assert str(caught.value).startswith(f"{path}:3: {message}")


def test_a_byte_order_mark_is_refused(path: Path, news: News) -> None:
    with pytest.raises(DataError, match=r"behaviors\.tsv:1: starts with a byte order mark; save it as plain UTF-8"):
        read(path, news, "\ufeff", line())


def test_an_empty_file_is_refused(path: Path, news: News) -> None:
    for attempt in (lambda: read(path, news), lambda: list(Behaviors.parts(path, news))):
        with pytest.raises(DataError, match=r"behaviors\.tsv:1: the file is empty; expected a line per row with 5"):
            attempt()


def test_the_last_line_may_lack_its_newline(path: Path, news: News) -> None:
    assert candidates(read(path, news, line(), line()[:-1]), news) == [["N3-1", "N4-0"]] * 2


def test_repeated_spaces_are_one(path: Path, news: News) -> None:
    behaviors = read(path, news, line(history=" N1  N2 ", candidates="  N3-1 N4-0   "), line(history="  "))
    assert histories(behaviors, news) == [["N1", "N2"], []]
    assert candidates(behaviors, news) == [["N3-1", "N4-0"]] * 2


def test_an_article_shown_twice_is_two_candidates(path: Path, news: News) -> None:
    assert candidates(read(path, news, line(candidates="N1-0 N1-1 N1-0")), news) == [["N1-0", "N1-1", "N1-0"]]


def test_quotes_are_text(path: Path, tmp_path: Path) -> None:
    news = make_news(tmp_path, ['"N1', 'N2"'])
    behaviors = read(path, news, line('"U', history='"N1', candidates='N2"-1 "N1-0'), line('U"'))
    assert (len(behaviors), histories(behaviors, news)[0]) == (2, ['"N1'])
    assert candidates(behaviors, news)[0] == ['N2"-1', '"N1-0']


def test_a_line_of_ten_megabytes_is_read(path: Path, news: News) -> None:
    behaviors = read(path, news, line(), line(history="N1 N2 " * 1_000_000, candidates="N3-0 " * 1_000_000), line())
    assert np.diff(behaviors.candidate_offsets).tolist() == [2, 1_000_000, 2]
    assert np.diff(behaviors.history_offsets)[behaviors.history].tolist() == [2, 2_000_000, 2]


@pytest.mark.parametrize("labelled", [False, None])
def test_candidates_without_labels_are_read_as_unclicked(path: Path, news: News, *, labelled: bool | None) -> None:
    path.write_text(line(candidates="N3 N4") + line(candidates="N1"), encoding="utf-8")
    behaviors = Behaviors.read(path, news, labelled=labelled)
    assert candidates(behaviors, news) == [["N3-0", "N4-0"], ["N1-0"]]


def test_labels_are_noticed_by_the_first_impression(path: Path, news: News) -> None:
    path.write_text(line() + line(candidates="N1-0"), encoding="utf-8")
    assert candidates(Behaviors.read(path, news, labelled=None), news) == [["N3-1", "N4-0"], ["N1-0"]]


@pytest.mark.parametrize(
    ("labelled", "first", "second", "message"),
    [
        (None, "N3-1 N4-0", "N1-0 N2", "2: candidate 'N2' has no label of 0 or 1"),
        (None, "N3 N4", "N1 N2-1", "2: candidate 'N2-1' has a label; expected none in this file, such as N123"),
        (None, "N3-1 N4", "N1 N2", "1: candidate 'N3-1' has a label; expected none"),
        (False, "N3-1 N4-0", "N1 N2", "1: candidate 'N3-1' has a label; expected none"),
        (True, "N3-1", "N1", "2: candidate 'N1' has no label of 0 or 1"),
    ],
)
def test_a_file_has_labels_throughout_or_not_at_all(
    path: Path, news: News, *, labelled: bool | None, first: str, second: str, message: str
) -> None:
    path.write_text(line(candidates=first) + line(candidates=second), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        Behaviors.read(path, news, labelled=labelled)
    assert str(caught.value).startswith(f"{path}:{message}")


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


def test_more_articles_than_two_bytes_count_are_kept_apart(path: Path) -> None:
    many = [f"N{number:05}" for number in range((1 << 16) + 2)]
    news = News(pl.DataFrame([(each, *[""] * 7) for each in many], dict.fromkeys(COLUMNS, pl.String), orient="row"))
    behaviors = read(path, news, line(history=" ".join(many), candidates=" ".join(f"{each}-0" for each in many)))
    assert behaviors.candidate_news.tolist() == behaviors.history_news.tolist() == list(range(len(many)))


def test_parts_have_the_impressions_asked_for_in_their_order(path: Path, news: News) -> None:
    path.write_text("".join(line(f"U{number}") for number in range(5)), encoding="utf-8")
    assert [len(part) for part in Behaviors.parts(path, news, impressions=2)] == [2, 2, 1]
    assert [len(part) for part in Behaviors.parts(path, news, impressions=5)] == [5]


def test_parts_before_a_wrong_line_come_first(path: Path, news: News) -> None:
    path.write_text(line() + line() + line(candidates="N1"), encoding="utf-8")
    parts = Behaviors.parts(path, news, impressions=1)
    assert [len(next(parts)), len(next(parts))] == [1, 1]
    with pytest.raises(DataError, match=r"behaviors\.tsv:3: candidate 'N1' has no label"):
        next(parts)


def test_parts_agree_on_labels(path: Path, news: News) -> None:
    path.write_text(line(candidates="N1") + line(candidates="N1-0"), encoding="utf-8")
    with pytest.raises(DataError, match=r"behaviors\.tsv:2: candidate 'N1-0' has a label"):
        list(Behaviors.parts(path, news, labelled=None, impressions=1))


def test_parts_tell_of_unknown_articles_once(path: Path, news: News, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(line(history="X1") + line() + line(history="X2 X2", candidates="X3-0"), encoding="utf-8")
    list(Behaviors.parts(path, news, impressions=1))
    found = [message.partition(" are of articles without a line in news.tsv (such as ") for message in caplog.messages]
    assert [(what, which[:2]) for what, _, which in found] == [
        (f"{path}: 3 clicks in histories", "X1"),
        (f"{path}: 1 candidates", "X3"),
    ]


@pytest.mark.parametrize("impressions", [0, -1])
def test_a_part_has_an_impression_at_least(path: Path, news: News, impressions: int) -> None:
    path.write_text(line(), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{impressions} impressions in a part"):
        next(Behaviors.parts(path, news, impressions=impressions))


@settings(deadline=None)
@given(
    rows=st.lists(ROW, min_size=1, max_size=8),
    block=st.integers(1, 200),
    few=st.integers(1, 3),
    impressions=st.integers(1, 9),
)
def test_how_much_is_read_at_once_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, list[str], list[tuple[str, int]]]],
    block: int,
    few: int,
    impressions: int,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    lines = [
        line(user, history=" ".join(history), candidates=" ".join(f"{news_id}-{label}" for news_id, label in shown))
        for user, history, shown in rows
    ]
    news = make_news(folder, ARTICLES)
    whole = read(folder / "behaviors.tsv", news, *lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tsv, "BLOCK_BYTES", block)
        patch.setattr(parsed, "BLOCK", few)
        again = Behaviors.read(folder / "behaviors.tsv", news)
        parts = list(Behaviors.parts(folder / "behaviors.tsv", news, impressions=impressions))
    assert all(np.array_equal(getattr(again, each.name), getattr(whole, each.name)) for each in fields(whole))
    assert [each for part in parts for each in histories(part, news)] == histories(whole, news)
    assert [each for part in parts for each in candidates(part, news)] == candidates(whole, news)
    assert [each for part in parts for each in part.impressions] == whole.impressions.to_list()


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
