"""Hostile tables: each is refused with its file and line before anything is sent, or counted by a stated policy."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from house import House
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_server import OpenAIServer
from project import ROOT

from newsfuse.behaviors import Behaviors
from newsfuse.entities import entity_links, read_vectors
from newsfuse.errors import DataError
from newsfuse.news import News

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from faults.book import Observed
    from project import Outcome

slow = pytest.mark.slow
TINY = "data/tiny"
NEWS, CLICKS, VECTORS = "news.tsv", "behaviors.tsv", "entity_embedding.vec"
AFRESH = {NEWS: "embed", CLICKS: "graph", VECTORS: "graph"}
"""Which stage reads a file of train first."""


@dataclass(frozen=True)
class Hostile:
    """What is done to a good file, and what a user is told after `path:`."""

    change: Callable[[bytes], bytes]
    told: str


def line(number: int, change: Callable[[list[bytes]], list[bytes]]) -> Callable[[bytes], bytes]:
    """Change the fields of one line, the first being 1."""

    def changed(content: bytes) -> bytes:
        lines = content.split(b"\n")
        lines[number - 1] = b"\t".join(change(lines[number - 1].split(b"\t")))
        return b"\n".join(lines)

    return changed


def cell(number: int, column: int, value: bytes) -> Callable[[bytes], bytes]:
    """Put a value into one cell."""
    return line(number, lambda fields: [*fields[:column], value, *(fields[column + 1 :] if column + 1 else [])])


def repeated(number: int) -> Callable[[bytes], bytes]:
    """A line once more, at the end."""
    return lambda content: content + content.split(b"\n")[number - 1] + b"\n"


ANY = {
    "a column too few": Hostile(line(2, lambda fields: fields[:-1]), "2: "),
    "a column too many": Hostile(line(3, lambda fields: [*fields, b"x"]), "3: "),
    "a byte order mark": Hostile(lambda content: b"\xef\xbb\xbf" + content, "1: starts with a byte order mark"),
    "DOS line ends": Hostile(lambda content: content.replace(b"\n", b"\r\n"), "1: contains a carriage return"),
    "a lone CR": Hostile(line(2, lambda fields: [fields[0] + b"\r", *fields[1:]]), "2: contains a carriage return"),
    "a NUL": Hostile(line(2, lambda fields: [fields[0] + b"\0", *fields[1:]]), "2: contains a NUL byte"),
    "bad UTF-8": Hostile(line(2, lambda fields: [fields[0] + b"\xff", *fields[1:]]), "2: not UTF-8"),
    "a blank line": Hostile(lambda content: b"\n" + content, "1: 1 tab-separated columns, expected "),
    "an empty file": Hostile(lambda _: b"", "1: the file is empty"),
    "a zip archive": Hostile(lambda _: b"PK\x03\x04\n", "1: 1 tab-separated columns, expected "),
}
OF_NEWS = {
    "an id twice": Hostile(repeated(1), "{last}: news id '"),
    "an empty id": Hostile(cell(2, 0, b""), "2: '' is no news id"),
    "an id with a space": Hostile(cell(2, 0, b"N 1"), "2: 'N 1' is no news id"),
}
OF_CLICKS = {
    "a label that is neither 0 nor 1": Hostile(cell(2, 4, b"N1-0 N2-2"), "2: candidate 'N2-2' has no label of 0 or 1"),
    "a negative label": Hostile(cell(2, 4, b"N1--1"), "2: candidate 'N1--1' has no label of 0 or 1"),
    "a huge label": Hostile(cell(2, 4, b"N1-" + b"9" * 30), f"2: candidate 'N1-{'9' * 30}' has no label of 0 or 1"),
    "no candidates": Hostile(cell(2, 4, b""), "2: an impression without candidates"),
    "no time": Hostile(cell(2, 2, b""), "2: '' is no time"),
    "another form of time": Hostile(cell(2, 2, b"2019-11-15T08:55:22"), "2: '2019-11-15T08:55:22' is no time"),
    "month 13": Hostile(cell(2, 2, b"13/15/2019 8:55:22 AM"), "2: '13/15/2019 8:55:22 AM' is no time"),
    "a year of two digits": Hostile(cell(2, 2, b"11/15/19 8:55:22 AM"), "2: '11/15/19 8:55:22 AM' is no time"),
    "a negative year": Hostile(cell(2, 2, b"1/1/-5 1:00:00 AM"), "2: '1/1/-5 1:00:00 AM' is no time"),
    "a huge year": Hostile(cell(2, 2, b"1/1/99999999999 1:00:00 AM"), "2: '1/1/99999999999 1:00:00 AM' is no time"),
    "no user": Hostile(cell(2, 1, b""), "2: '' is no user id"),
    "no impression id": Hostile(cell(2, 0, b""), "2: '' is no impression id"),
}
OF_VECTORS = {
    "a number too few": Hostile(line(2, lambda fields: fields[:5]), "2: "),
    "an entity twice": Hostile(repeated(1), "{last}: entity '"),
    "no id": Hostile(cell(2, 0, b""), "2: the entity id is empty"),
    "a word for a number": Hostile(cell(2, 1, b"much"), "2: 'much' is no finite number"),
    "a number for which float32 has no room": Hostile(cell(2, 1, b"-1e39"), "2: '-1e39' is no finite number"),
    "NaN": Hostile(cell(2, 1, b"nan"), "2: 'nan' is no finite number"),
    "bad UTF-8": Hostile(cell(2, 0, b"Q\xff"), "2: not UTF-8"),
    "an empty file": Hostile(lambda _: b"", "1: the file is empty"),
}
CORPUS = {NEWS: ANY | OF_NEWS, CLICKS: ANY | OF_CLICKS, VECTORS: OF_VECTORS}
GOOD = {name: (ROOT / TINY / "train" / name).read_bytes() for name in CORPUS}
UNKNOWN = "rank last in evaluation, unused in training"
SHORT = {name: b"\n".join(content.split(b"\n")[:4]) + b"\n" for name, content in GOOD.items()}
"""Four lines of each file, that mutations are likely to meet something that matters."""


def read(path: Path) -> object:
    """The whole of it, as stages read it."""
    if path.name == VECTORS:
        return read_vectors(path)
    if path.name == CLICKS:
        return Behaviors.read(path, News.read(ROOT / TINY / "train" / NEWS))
    news = News.read(path)
    return news.texts(["title"], ["abstract"]), entity_links(news.frame)


def refusal(path: Path, content: bytes, told: str) -> str:
    """What a user has to be told about this content of the file."""
    return f"{path}:{told.format(last=len(content.splitlines()))}"


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in CORPUS.items() for case in cases])
def test_every_hostile_file_is_refused_by_its_line(tmp_path: Path, name: str, case: str) -> None:
    hostile = CORPUS[name][case]
    content, path = hostile.change(GOOD[name]), tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).startswith(refusal(path, content, hostile.told)), caught.value


def mutations(content: bytes) -> st.SearchStrategy[bytes]:
    """The content with some bytes changed, put in, taken out, or cut off."""
    place = st.integers(0, len(content))
    steering = st.sampled_from(
        [b"\t", b"\n", b" ", b"-", b"\r", b"\0", b"\xff", b"\xc3", b'"', b"[", b"{", b"-1", b"9" * 40]
    )
    edits = st.lists(st.tuples(place, st.integers(0, 3), steering | st.binary(max_size=3)), max_size=6)

    def mutated(edits: list[tuple[int, int, bytes]]) -> bytes:
        result = content
        for start, gone, new in edits:
            result = result[:start] + new + result[start + gone :]
        return result

    return edits.map(mutated)


@settings(deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", CORPUS)
def test_whatever_bytes_change_a_file_is_read_or_refused_with_a_line(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data.draw(mutations(SHORT[name])))
    try:
        found = read(path)
    except DataError as error:
        number = str(error).removeprefix(f"{path}:").partition(":")[0]
        assert 1 <= int(number) <= path.read_bytes().count(b"\n") + 1  # noqa: PT017 - either outcome is right
    else:
        assert found


# through the real stages


@pytest.fixture
def house(tmp_path: Path) -> House:
    """With the shipped data, whole."""
    house = House.build(tmp_path / "house")
    for split in ("train", "dev"):
        for name in (CLICKS, VECTORS):
            shutil.copy(ROOT / TINY / split / name, house.root / TINY / split / name)
    return house


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


def stage(house: House, name: str, server: OpenAIServer) -> Outcome:
    """Told no traceback, and nothing of what it makes is left."""
    outcome = house.run(f"stages.{name}", OPENAI_BASE_URL=server.url, OPENAI_API_KEY="sk-test")
    assert "Traceback" not in outcome.text
    assert outcome.code == 0 or not (house.root / TINY / {"embed": "embeddings"}.get(name, name)).exists()
    return outcome


def refused(house: House, name: str, server: OpenAIServer, content: bytes, told: str) -> None:
    path = Path(TINY, "train", name)
    (house.root / path).write_bytes(content)
    outcome = stage(house, AFRESH[name], server)
    assert outcome.code == 3, outcome.text
    assert f"ERROR: {refusal(path, content, told)}" in outcome.text
    (house.root / path).write_bytes(GOOD[name])


@pytest.mark.parametrize("name", [NEWS, pytest.param(CLICKS, marks=slow), pytest.param(VECTORS, marks=slow)])
def test_a_stage_refuses_before_anything_is_sent_or_written(
    house: House, server: OpenAIServer, name: str, observed: Observed
) -> None:
    for hostile in [*CORPUS[name].values()][::4]:
        refused(house, name, server, hostile.change(GOOD[name]), hostile.told)
    assert server.requests == 0
    done = f"{len(CORPUS[name])} kinds of bad `{name}`: {', '.join(CORPUS[name])}"
    observed(17, done, code=3, left="nothing: file and line are told")


def test_news_that_is_bad_in_its_last_line_alone_is_not_paid_for(house: House, server: OpenAIServer) -> None:
    content = GOOD[NEWS] + b"N1\tnews"
    refused(house, NEWS, server, content, "{last}: 2 tab-separated columns, expected 8")
    assert server.requests == 0


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_loop(path: Path) -> None:
    path.symlink_to(path.name)


def nowhere(path: Path) -> None:
    path.symlink_to("nothing is called so")


NO_FILES = {
    "a folder": (a_folder, "Is a directory"),
    "a pipe": (a_pipe, "it is a pipe, a socket or a device; expected a file"),
    "a link to itself": (a_loop, "Too many levels of symbolic links"),
    "a link to nowhere": (nowhere, "No such file or directory"),
}


@pytest.mark.parametrize("name", [NEWS, pytest.param(CLICKS, marks=slow), pytest.param(VECTORS, marks=slow)])
def test_what_is_no_file_is_refused_and_never_waited_for(
    house: House, server: OpenAIServer, name: str, observed: Observed
) -> None:
    for make, told in NO_FILES.values():
        path = Path(TINY, "train", name)
        (house.root / path).unlink()
        make(house.root / path)
        outcome = stage(house, AFRESH[name], server)
        assert (outcome.code, f"ERROR: {path}: cannot be read: {told}" in outcome.text) == (3, True), outcome.text
        path = house.root / path
        path.rmdir() if path.is_dir() else path.unlink()
        path.write_bytes(GOOD[name])
    assert server.requests == 0
    observed(17, f"in place of `{name}` {', '.join(NO_FILES)}", code=3, left="nothing: the file is told")


@pytest.mark.parametrize("name", [NEWS, pytest.param(CLICKS, marks=slow), pytest.param(VECTORS, marks=slow)])
def test_a_file_that_may_not_be_read_is_refused(house: House, server: OpenAIServer, name: str) -> None:
    path = Path(TINY, "train", name)
    (house.root / path).chmod(0)
    words: list[str] = []
    if os.geteuid() == 0:  # root may read anything, unless that right is taken away
        if not shutil.which("setpriv"):
            pytest.skip("root may read any file here")
        words = [
            "setpriv",
            "--bounding-set=-dac_override,-dac_read_search",
            "--inh-caps=-dac_override,-dac_read_search",
        ]
    command = [*words, "python", "-m", f"stages.{AFRESH[name]}"]
    account = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-test"}
    done = subprocess.run(
        command, cwd=house.root, env={**house.environment(), **account}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, server.requests) == (3, 0), done.stderr
    assert f"ERROR: {path}: cannot be read: Permission denied" in done.stderr
    assert "Traceback" not in done.stderr


# what is read, counted and told


def test_what_docs_data_promises_to_count_is_counted_and_the_rest_is_read_as_it_stands(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    news, clicks = tmp_path / NEWS, tmp_path / CLICKS
    texts = [("N1", "", ""), ("N2", '"A "quote', "x" * 10_000_000), ("N3", "C", "")]
    rows = "".join(f"{one}\tsports\tgolf\t{title}\t{abstract}\turl\t{{broken\t[]\n" for one, title, abstract in texts)
    news.write_text(rows.removesuffix("\n"), encoding="utf-8")  # the last line may lack its end
    time = "11/15/2019 8:55:22 AM"
    clicks.write_text(
        f"1\tU1\t{time}\tN1 X1 N2\tN1-0 N2-0\n"  # nobody clicked; a history with an unknown article
        f"1\tU1\t{time}\t\tN3-1 X2-0 N3-0\n",  # the same id; no history; an unknown candidate; an article twice
        encoding="utf-8",
    )
    articles = News.read(news)
    assert articles.texts(["title", "abstract"])[0] == "sports golf"
    _, broken = entity_links(articles.frame)
    behaviors = Behaviors.read(clicks, articles)
    assert (broken, len(behaviors), behaviors.candidate_news.tolist()) == (3, 2, [0, 1, 2, -1, 2])
    assert behaviors.labels.tolist() == [0, 0, 1, 0, 0]
    assert [message.split(": ", 1)[-1] for message in caplog.messages] == [
        "1 articles have an empty title and abstract; their category stands in",
        "1 clicks in histories are of articles without a line in news.tsv (such as X1): left out of them",
        f"1 candidates are of articles without a line in news.tsv (such as X2): {UNKNOWN}",
    ]
    with pytest.raises(DataError, match=rf"^{clicks}:2: impression id '1' is there already, at line 1; "):
        behaviors.require_distinct(clicks)


def test_broken_entities_are_counted_by_the_graph_stage_and_told(house: House, server: OpenAIServer) -> None:
    path = house.news("train")
    path.write_bytes(cell(2, 6, b'[{"WikidataId": "Q1"')(GOOD[NEWS]))
    outcome = stage(house, "graph", server)
    assert outcome.code == 0, outcome.text
    before = entity_links(News.read(*(ROOT / TINY / split / NEWS for split in ("train", "dev"))).frame)[1]
    assert f"WARNING: {before + 1} of " in outcome.text
    assert "articles have entities that are not valid JSON; those count as none" in outcome.text


def test_entities_nested_without_end_are_no_entities() -> None:
    one = News.read(ROOT / TINY / "train" / NEWS).frame.head(1).with_columns(abstract_entities=pl.lit("[]"))
    for text in ("[" * 10**5, "[" * 10**5 + "]" * 10**5, '[{"a":' * 10**5, "\\", '["\\ud800"]', "1e999", "[1e999"):
        links, broken = entity_links(one.with_columns(title_entities=pl.lit(text)))
        assert (len(links), broken) == (0, 1), text[:20]
