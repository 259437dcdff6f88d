"""The news graph and what it is made of: entities, their vectors, categories, co-clicks."""

import json
import logging
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from newsfuse import graph as graphs
from newsfuse.entities import Vectors, entity_links, read_vectors
from newsfuse.errors import DataError, IntegrityError
from newsfuse.graph import NewsGraph
from newsfuse.inputs import Neighbours
from newsfuse.words import Words

NO_CLICKS = np.zeros((2, 0), dtype=np.int32)
SETTINGS = {"relations": ["category", "co_click", "entity"]}


def entities(*ids: str) -> str:
    return json.dumps([{"Label": f'a "{name}"', "WikidataId": name, "OccurrenceOffsets": [0]} for name in ids])


def news(*rows: tuple[str, str, str, str, str]) -> pl.DataFrame:
    """Rows of id, category, subcategory, title entities, abstract entities."""
    columns = ["id", "category", "subcategory", "title_entities", "abstract_entities"]
    return pl.DataFrame(list(rows), schema=dict.fromkeys(columns, pl.String), orient="row")


@pytest.fixture
def frame() -> pl.DataFrame:
    return news(
        ("N1", "sports", "tennis", entities("Q2", "Q1"), entities("Q2")),
        ("N2", "sports", "golf", "", entities("Q3")),
        ("N3", "finance", "", "[]", "[]"),
    )


@pytest.fixture
def vectors() -> Vectors:
    return Vectors(pl.Series(["Q3", "Q9", "Q1"]), np.array([[3, 3], [9, 9], [1, 1]], dtype=np.float32))


@pytest.fixture
def graph(frame: pl.DataFrame, vectors: Vectors) -> NewsGraph:
    return graphs.build(frame, vectors, np.array([[2, 0], [0, 1]]), graphs.RELATIONS)


def heard(neighbours: Neighbours) -> list[list[int]]:
    """For each node, whom it hears."""
    ends = neighbours.offsets.tolist()
    return [neighbours.sources[first:last].tolist() for first, last in pairwise(ends)]


def test_the_graph_of_three_articles_is_the_one_worked_out_by_hand(graph: NewsGraph) -> None:
    assert list(graph.articles.words) == ["N1", "N2", "N3"]
    assert list(graph.entities.words) == ["Q1", "Q2", "Q3"]
    assert list(graph.categories.words) == ["finance", "sports", "sports/golf", "sports/tennis"]
    assert graph.edges["entity"].T.tolist() == [[0, 0], [0, 1], [1, 2]]
    assert graph.edges["category"].T.tolist() == [[0, 1], [0, 3], [1, 1], [1, 2], [2, 0]]
    assert graph.edges["co_click"].T.tolist() == [[0, 1], [0, 2]]
    assert {pairs.dtype for pairs in graph.edges.values()} == {np.dtype(np.int32)}
    assert graph.entity_vectors.tolist() == [[1, 1], [0, 0], [3, 3]]


def test_only_the_chosen_relations_are_made(frame: pl.DataFrame, vectors: Vectors) -> None:
    graph = graphs.build(frame, vectors, NO_CLICKS, ["category"])
    assert list(graph.edges) == ["category"]
    assert len(graph.entities) == 0
    assert not graphs.build(frame, vectors, NO_CLICKS, []).edges


def test_broken_entities_are_counted_and_cost_only_that_list(caplog: pytest.LogCaptureFixture) -> None:
    frame = news(
        ("N1", "a", "", '[{"WikidataId": "Q1"', entities("Q2")),
        ("N2", "a", "", '{"WikidataId": "Q3"}', "not JSON"),
        ("N3", "a", "", '[{"WikidataId": null}, 7]', '[{"Label": "\\"WikidataId\\": \\"Q4\\""}]'),
        ("N4", "a", "", "  ", '[ {"WikidataId" : "Q5"} ]'),
    )
    links, broken = entity_links(frame)
    assert links.rows() == [(0, "Q2"), (3, "Q5")]
    assert broken == 2
    with caplog.at_level(logging.WARNING):
        graphs.build(frame, read_vectors(), NO_CLICKS, ["entity"])
    assert "2 of 4 articles" in caplog.text


def test_shuffled_news_rows_give_the_same_bytes(
    frame: pl.DataFrame, vectors: Vectors, graph: NewsGraph, tmp_path: Path
) -> None:
    shuffled = frame[[2, 0, 1]]
    clicks = np.array([[1, 2], [0, 1]])  # the same pairs by their new rows, turned round
    graphs.write(graph, tmp_path / "one", SETTINGS)
    graphs.write(graphs.build(shuffled, vectors, clicks, graphs.RELATIONS), tmp_path / "two", SETTINGS)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_the_archive_holds_no_time(graph: NewsGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs.write(graph, tmp_path / "one", SETTINGS)
    monkeypatch.setattr("time.time", lambda: 2e9)
    graphs.write(graph, tmp_path / "two", SETTINGS)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_a_graph_is_read_as_it_was_written(graph: NewsGraph, tmp_path: Path) -> None:
    graphs.write(graph, tmp_path / "graph", SETTINGS)
    read = graphs.read(tmp_path / "graph")
    for kind in graphs.NODES:
        assert getattr(read, kind).words.equals(getattr(graph, kind).words)
    assert sorted(read.edges) == sorted(graph.edges)
    assert all(np.array_equal(read.edges[name], graph.edges[name]) for name in graph.edges)
    assert np.array_equal(read.entity_vectors, graph.entity_vectors)


def test_an_empty_graph_survives_writing_and_reading(frame: pl.DataFrame, tmp_path: Path) -> None:
    graphs.write(graphs.build(frame, read_vectors(), NO_CLICKS, []), tmp_path / "graph", {})
    read = graphs.read(tmp_path / "graph")
    assert not read.edges
    assert read.entity_vectors.shape == (0, 0)
    assert graphs.tensors(read, frame["id"], Words.of([]), Words.of([])).n_nodes == 3


@pytest.mark.parametrize("name", ["graph.npz", "articles.txt", "manifest.json"])
def test_a_damaged_graph_is_refused(graph: NewsGraph, tmp_path: Path, name: str) -> None:
    graphs.write(graph, tmp_path / "graph", SETTINGS)
    path = tmp_path / "graph" / name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(IntegrityError, match="dvc repro"):
        graphs.read(tmp_path / "graph")


# Two users, three impressions. User 0 comes first with history 1 = [3, 2, 2, 3], later with history 0 =
# [3, 2, 2, 3, 1]; user 1 comes once with history 2 = [0, 1].
USERS = np.array([0, 1, 0])
TIMES = np.array(["2019-11-10", "2019-11-09", "2019-11-09"], dtype="datetime64[s]")
HISTORY = np.array([0, 2, 1])
OFFSETS, CLICKED = np.array([0, 5, 9, 11]), np.array([3, 2, 2, 3, 1, 3, 2, 2, 3, 0, 1])


def test_co_clicks_come_from_the_first_history_of_each_user_only() -> None:
    assert graphs.co_clicks(USERS, TIMES, HISTORY, OFFSETS, CLICKED).T.tolist() == [[0, 1], [2, 3]]


def test_of_two_impressions_in_one_second_the_shorter_history_counts() -> None:
    times = np.full(3, TIMES[0])
    assert graphs.co_clicks(USERS, times, HISTORY, OFFSETS, CLICKED).T.tolist() == [[0, 1], [2, 3]]


def test_clicks_of_later_rows_change_no_co_click() -> None:
    # what user 0 clicked between the impressions (article 1) is the label of a training row
    changed = CLICKED.copy()
    changed[4] = 0
    before, after = (graphs.co_clicks(USERS, TIMES, HISTORY, OFFSETS, clicks) for clicks in (CLICKED, changed))
    assert np.array_equal(before, after)


def test_the_order_of_impressions_changes_no_co_click() -> None:
    rows = [2, 0, 1]
    shuffled = graphs.co_clicks(USERS[rows], TIMES[rows], HISTORY[rows], OFFSETS, CLICKED)
    assert np.array_equal(shuffled, graphs.co_clicks(USERS, TIMES, HISTORY, OFFSETS, CLICKED))


def test_empty_histories_give_no_co_clicks() -> None:
    pairs = graphs.co_clicks(USERS, TIMES, np.zeros(3, dtype=np.int32), np.array([0, 0]), np.array([], dtype=np.int32))
    assert pairs.shape == (2, 0)


def test_tensors_number_articles_as_asked_and_keep_only_what_they_hear(graph: NewsGraph) -> None:
    known = Words.of(["Q2", "Q1"]), Words.of(["sports"])
    part = graphs.tensors(graph, pl.Series(["N2", "N1"]), *known)
    # nodes: N2 N1 | Q1 Q2 Q3 | sports sports/golf sports/tennis
    assert (part.n_articles, part.n_nodes) == (2, 8)
    assert heard(part.relations["entity>article"])[:2] == [[4], [2, 3]]
    assert heard(part.relations["article>entity"]) == [[], [], [1], [1], [0], [], [], []]
    assert heard(part.relations["category>article"])[:2] == [[5, 6], [5, 7]]
    assert heard(part.relations["article>category"])[5:] == [[0, 1], [0], [1]]
    assert heard(part.relations["co_click"])[:2] == [[1], [0]]
    assert (part.entities.rows.tolist(), part.entities.size) == ([1, 2, 0], 3)
    assert (part.categories.rows.tolist(), part.categories.size) == ([1, 0, 0], 2)
    assert part.entity_vectors.tolist() == [[1, 1], [0, 0], [3, 3]]


def test_articles_left_out_take_their_entities_along(graph: NewsGraph) -> None:
    part = graphs.tensors(graph, pl.Series(["N2"]), graph.entities, graph.categories)
    assert (part.entities.rows.tolist(), part.categories.rows.tolist()) == ([3], [2, 3])
    assert part.entity_vectors.tolist() == [[3, 3]]
    assert len(part.relations["co_click"].sources) == 0


def test_the_vocabularies_are_those_of_the_training_articles(graph: NewsGraph) -> None:
    linked, categories = graphs.vocabularies(graph, pl.Series(["N2"]))
    assert (list(linked.words), list(categories.words)) == (["Q3"], ["sports", "sports/golf"])


def test_an_article_that_the_graph_does_not_know_is_named(graph: NewsGraph) -> None:
    with pytest.raises(DataError, match=r"2 of 3 articles, first N7, N8: it is older than .*dvc repro graph"):
        graphs.tensors(graph, pl.Series(["N7", "N1", "N8"]), graph.entities, graph.categories)


def test_entity_vectors_are_read_with_the_tab_that_mind_ends_lines_with(tmp_path: Path) -> None:
    path = tmp_path / "entity_embedding.vec"
    path.write_text("Q41\t0.5\t-1e-05\t\nQ5\t.25\t1\t\n")
    read = read_vectors(path)
    assert list(read.ids) == ["Q41", "Q5"]
    assert read.values.dtype == np.float32
    assert np.array_equal(read.values, np.array([[0.5, -1e-05], [0.25, 1]], dtype=np.float32))
    path.write_text("Q41\t0.5\t-1e-05\nQ5\t.25\t1")
    assert np.array_equal(read_vectors(path).values, read.values)


def test_of_two_vectors_of_one_entity_the_first_file_wins(tmp_path: Path) -> None:
    train, dev = tmp_path / "train.vec", tmp_path / "dev.vec"
    train.write_text("Q2\t2\nQ1\t1\n")
    dev.write_text("Q1\t7\nQ3\t3\n")
    assert read_vectors(train, dev).of(Words.of(["Q1", "Q2", "Q3", "Q4"])).tolist() == [[1], [2], [3], [0]]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (b"Q1\t1\t2\nQ2\t1\n", 2, "2 tab-separated columns, expected 3"),
        (b"Q1\t1\t2\nQ2\t1\t2\t3\n", 2, "4 tab-separated columns, expected 3"),
        (b"Q1\t1\t2\n\nQ2\t1\t2\n", 2, "1 tab-separated columns, expected 3"),
        (b"Q1\nQ2\n", 1, "at least one number"),
        (b"Q1\t1\nQ2\tone\n", 2, "'one' is no finite number"),
        (b"Q1\t1\nQ2\tnan\n", 2, "'nan' is no finite number"),
        (b"Q1\t1\nQ2\t1e39\n", 2, "'1e39' is no finite number"),
        (b"Q1\t1\t1\nQ2\t\t1\n", 2, "'' is no finite number"),
        (b"Q1\t1\nQ2\t1\nQ1\t1\n", 3, "'Q1' is there already, at line 1"),
        (b"Q1\t1\n\t1\n", 2, "id is empty"),
        (b"Q1\t1\nQ\xff\t1\n", 2, "not UTF-8"),
        (b"Q1\t1\nQ2\t\xff\n", 2, "not UTF-8"),
        (b"\n", 1, "empty"),
    ],
)
def test_a_malformed_vector_file_is_refused_with_its_line(tmp_path: Path, text: bytes, line: int, says: str) -> None:
    path = tmp_path / "entity_embedding.vec"
    path.write_bytes(text)
    with pytest.raises(DataError) as error:
        read_vectors(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert says in str(error.value)


def test_vector_files_of_different_widths_are_refused(tmp_path: Path) -> None:
    train, dev = tmp_path / "train.vec", tmp_path / "dev.vec"
    train.write_text("Q1\t1\t2\n")
    dev.write_text("Q2\t1\n")
    with pytest.raises(DataError, match=r"dev.vec:1: 1 numbers, expected 2 as in .*train.vec"):
        read_vectors(train, dev)


def test_a_missing_vector_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.vec: cannot be read"):
        read_vectors(tmp_path / "none.vec")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
