"""MIND's submission file, read back the way the official script reads it."""

import json
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newsfuse import csr, submission
from newsfuse.errors import DataError
from newsfuse.ranking import ranks
from newsfuse.submission import write_predictions, write_zip


def read(path: Path) -> list[tuple[str, list[int]]]:
    """As MIND's script does: two words a line, the second of them JSON."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(name, json.loads(found)) for name, found in (line.split() for line in lines)]


def test_a_line_is_the_impression_and_its_ranks_without_spaces(tmp_path: Path) -> None:
    path = tmp_path / "prediction.txt"
    write_predictions(path, ["1", "2"], np.array([3, 1, 2, 1]), np.array([0, 3, 4]))
    assert path.read_bytes() == b"1 [3,1,2]\n2 [1]\n"


def test_impressions_keep_their_order_and_may_repeat(tmp_path: Path) -> None:
    ids = pl.Series("any name", ["9", "10", "9"])
    write_predictions(tmp_path / "p", ids, np.array([1, 2, 2, 1, 1]), np.array([0, 2, 4, 5]))
    assert read(tmp_path / "p") == [("9", [1, 2]), ("10", [2, 1]), ("9", [1])]


def test_an_impression_without_candidates_has_an_empty_list(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p", ["a", "b", "c"], np.array([1]), np.array([0, 0, 1, 1]))
    assert (tmp_path / "p").read_text(encoding="utf-8") == "a []\nb [1]\nc []\n"


def test_no_impressions_make_an_empty_file(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p", [], np.zeros(0, np.int64), np.array([0]))
    assert (tmp_path / "p").read_bytes() == b""


def test_ids_with_quotes_and_commas_are_written_as_they_are(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p", ['"a",b', "é"], np.array([1, 1]), np.array([0, 1, 2]))
    assert (tmp_path / "p").read_text(encoding="utf-8") == '"a",b [1]\né [1]\n'


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.2]), max_size=20), max_size=12), st.integers(1, 5))
def test_every_line_read_back_is_a_permutation_that_orders_the_scores(
    tmp_path: Path, scores: list[list[float]], chunk: int
) -> None:
    offsets = csr.offsets(np.array([len(own) for own in scores], np.int64))
    flat = np.array([score for own in scores for score in own], np.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submission, "CHUNK", chunk)
        write_predictions(tmp_path / "p", [f"i{row}" for row in range(len(scores))], ranks(flat, offsets), offsets)
    found = read(tmp_path / "p")
    assert [name for name, _ in found] == [f"i{row}" for row in range(len(scores))]
    for own, (_, line) in zip(scores, found, strict=True):
        assert sorted(line) == list(range(1, len(own) + 1))
        best_first = [own[line.index(rank)] for rank in range(1, len(own) + 1)]
        assert best_first == sorted(own, reverse=True)


@pytest.mark.parametrize(("n", "offsets"), [(2, [0, 2]), (1, [0, 3]), (1, [1, 2]), (1, [0, 1])])
def test_arrays_that_do_not_belong_together_are_refused_before_writing(
    tmp_path: Path, n: int, offsets: list[int]
) -> None:
    with pytest.raises(ValueError, match=f"{n} impression ids need {n + 1} offsets that rise from 0 to 2"):
        write_predictions(tmp_path / "p", ["1"] * n, np.array([1, 2]), np.array(offsets))
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "prediction.txt"
    path.write_text("old", encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_predictions(path, ["1"], np.array([1]), np.array([0, 1]))
    assert [(each.name, each.read_text(encoding="utf-8")) for each in tmp_path.iterdir()] == [("prediction.txt", "old")]


def test_an_archive_of_the_same_text_has_the_same_bytes_with_no_time_in_them(tmp_path: Path) -> None:
    for name in ("one.zip", "two.zip"):
        write_zip(tmp_path / name, [b"1 [1,2]\n", b"2 [1]\n"], lambda _: None)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with ZipFile(tmp_path / "one.zip") as archive:
        assert archive.read("prediction.txt") == b"1 [1,2]\n2 [1]\n"
        assert archive.getinfo("prediction.txt").date_time == (1980, 1, 1, 0, 0, 0)
        assert archive.testzip() is None


def test_an_archive_that_the_check_refuses_is_never_there(tmp_path: Path) -> None:
    (tmp_path / "p.zip").write_bytes(b"old")

    def refuse(draft: Path) -> None:
        assert draft.exists()
        message = "no"
        raise DataError(message)

    with pytest.raises(DataError):
        write_zip(tmp_path / "p.zip", [b"1 [1]\n"], refuse)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("p.zip", b"old")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device is Linux's")
def test_a_full_disk_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / ".p.draft").symlink_to("/dev/full")  # a device on which every write fails
    with pytest.raises(OSError, match="No space left"):
        write_predictions(tmp_path / "p", ["1"], np.array([1]), np.array([0, 1]))
    assert list(tmp_path.iterdir()) == []
