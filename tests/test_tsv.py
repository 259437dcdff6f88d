"""Hostile files: each is refused with file:line, or read exactly as it stands."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsfuse.errors import DataError
from newsfuse.tsv import line_of, read_tsv, refuse

COLUMNS = ("a", "b", "c")
GOOD = b"1\t2\t3\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.tsv"


def refusal(path: Path, content: bytes) -> str:
    """What a user is told about `content`, without the folder."""
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_tsv(path, COLUMNS)
    assert caught.value.exit_code == 3
    return str(caught.value).replace(f"{path.parent}/", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(
            GOOD + b"1\t2\n", "table.tsv:2: 2 tab-separated columns, expected 3 (a, b, c)", id="missing column"
        ),
        pytest.param(GOOD * 2 + b"1\t2\t3\t4\n", "table.tsv:3: 4 tab-separated columns", id="extra column"),
        pytest.param(GOOD + b"1\t2", "table.tsv:2: 2 tab-separated columns", id="short last line without newline"),
        pytest.param(GOOD + b"\n" + GOOD, "table.tsv:2: 1 tab-separated columns", id="blank line in the middle"),
        pytest.param(GOOD + b"\n", "table.tsv:2: 1 tab-separated columns", id="blank line at the end"),
        pytest.param(b"\n" + GOOD, "table.tsv:1: 1 tab-separated columns", id="blank line at the start"),
        pytest.param(b"", "table.tsv:1: the file is empty", id="empty file"),
        pytest.param(b"\xef\xbb\xbf" + GOOD, "table.tsv:1: starts with a byte order mark", id="BOM"),
        pytest.param(GOOD + b"1\t2\t3\r\n", "table.tsv:2: contains a carriage return", id="CRLF"),
        pytest.param(GOOD + b"1\t2\r3\t3\n", "table.tsv:2: contains a carriage return", id="lone CR"),
        pytest.param(GOOD * 3 + b"1\t\0\t3\n", "table.tsv:4: contains a NUL byte", id="NUL"),
        pytest.param(GOOD + b"1\t\xff\t3\n", "table.tsv:2: not UTF-8", id="bad UTF-8"),
        pytest.param(GOOD + b"1\t\xed\xa0\x80\t3\n", "table.tsv:2: not UTF-8", id="half a surrogate pair"),
        pytest.param(GOOD * 2 + b"1\t2\t\xe2\x82", "table.tsv:3: not UTF-8", id="ends inside a character"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(path: Path, content: bytes, message: str) -> None:
    assert refusal(path, content).startswith(message)


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(DataError, match=r"table\.tsv: cannot be read: No such file"):
        read_tsv(path, COLUMNS)


def test_a_folder_in_place_of_a_file_is_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(DataError, match=r"table\.tsv: cannot be read: Is a directory"):
        read_tsv(path, COLUMNS)


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        pytest.param(b'"1\t2"\t"\n', [('"1', '2"', '"')], id="quotes are text"),
        pytest.param(b"1\t2\t3\n4\t5\t6", [("1", "2", "3"), ("4", "5", "6")], id="no final newline"),
        pytest.param(b"\t\t\n", [("", "", "")], id="empty fields are empty text"),
        pytest.param(b"#1\tnull\tNA\n", [("#1", "null", "NA")], id="nothing is a comment or a missing value"),
        pytest.param(b" 1 \t0x2\t3.0\n", [(" 1 ", "0x2", "3.0")], id="nothing is trimmed or a number"),
        pytest.param(
            "\u2028\t\u0085\t\x0b\n".encode(), [("\u2028", "\u0085", "\x0b")], id="only a newline ends a line"
        ),
    ],
)
def test_fields_are_read_as_they_stand(path: Path, content: bytes, rows: list[tuple[str, ...]]) -> None:
    path.write_bytes(content)
    assert read_tsv(path, COLUMNS).rows() == rows


def test_a_line_of_ten_megabytes_is_read(path: Path) -> None:
    path.write_bytes(GOOD + b"1\t" + b"x" * 10_000_000 + b"\t3\n" + GOOD)
    assert read_tsv(path, COLUMNS)["b"].str.len_bytes().to_list() == [1, 10_000_000, 1]


def test_a_name_that_looks_like_a_pattern_is_just_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b"other\tother\tother\n")
    path = tmp_path / "[a]*.tsv"
    path.write_bytes(GOOD)
    assert read_tsv(path, COLUMNS).rows() == [("1", "2", "3")]


@settings(deadline=None)
@given(content=st.binary() | st.lists(st.sampled_from([b"\t", b"\n", b"x", b'"', b"\xc3", b"\r"])).map(b"".join))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.tsv"
    path.write_bytes(content)
    try:
        frame = read_tsv(path, COLUMNS)
    except DataError as error:
        assert str(error).startswith(f"{path}:")  # noqa: PT017 - either outcome is right
    else:
        assert "".join("\t".join(row) + "\n" for row in frame.rows()).encode().rstrip(b"\n") == content.rstrip(b"\n")


FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r\0"), max_size=8)


@settings(deadline=None)
@given(rows=st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]) -> None:
    if rows[0][0].startswith("\ufeff"):
        rows = [("", *rows[0][1:]), *rows[1:]]
    path = tmp_path_factory.getbasetemp() / "rows.tsv"
    path.write_bytes("".join("\t".join(row) + "\n" for row in rows).encode())
    assert read_tsv(path, COLUMNS).rows() == rows


def test_refuse_names_the_first_wrong_row(path: Path) -> None:
    frame = pl.DataFrame({"a": ["x", "bad", "worse"]})
    with pytest.raises(DataError, match=r"table\.tsv:2: not bad"):
        refuse(path, frame, pl.col("a") != "x", pl.format("not {}", pl.col("a")))


def test_refuse_trusts_a_frame_that_knows_its_lines(path: Path) -> None:
    frame = pl.DataFrame({"a": ["x", "bad"], "line": [7, 9]})
    with pytest.raises(DataError, match=r"table\.tsv:9: wrong"):
        refuse(path, frame, pl.col("a") == "bad", pl.lit("wrong"))


def test_refuse_lets_a_right_frame_pass(path: Path) -> None:
    refuse(path, pl.DataFrame({"a": ["x"]}), pl.col("a") == "y", pl.lit("wrong"))


def test_the_line_of_an_article_is_that_of_the_whole_id(path: Path) -> None:
    path.write_bytes(b"N12\tx\nN1\ty\n")
    assert (line_of(path, "N1"), line_of(path, "N12"), line_of(path, "N")) == (2, 1, 0)
