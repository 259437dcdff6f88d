"""How long stages took: noted once, read by artifact, and nobody's trouble when it cannot be written."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from house import House

from newsfuse.artifact import writing
from newsfuse.errors import ParamsError
from newsfuse.params import Params, load
from newsfuse.stage import _timed
from newsfuse.times import FILE, FOLDERS, minutes, note, noted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from newsfuse.registry import Registry

ROOT = Path(__file__).parents[1]
DATA = Path("data/tiny")


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, in which the test is."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "params.yaml").write_text("dataset: tiny\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def make(stage: str, version: int = 0) -> str:
    """The stage's artifact, and the sha256 of its manifest."""
    folder = DATA / FOLDERS[stage]
    with writing(folder, kind=stage, settings={"version": version}):
        pass
    return sha256((folder / "manifest.json").read_bytes()).hexdigest()


def make_all(seconds: Mapping[str, float]) -> None:
    for stage, took in seconds.items():
        make(stage)
        note(stage, DATA, took)


def here(path: str) -> str:
    return Path(path).read_text()


def test_a_note_names_the_stage_and_what_it_made() -> None:
    artifact = make("graph")
    note("graph", DATA, 1.23456)
    assert [json.loads(line) for line in FILE.read_text().splitlines()] == [
        {"stage": "graph", "artifact": artifact, "seconds": 1.235}
    ]


def test_the_first_note_of_an_artifact_counts(root: Path) -> None:
    for version, seconds in [(0, 100), (1, 7), (0, 2)]:
        make("embed", version)
        note("embed", DATA, seconds)
    assert noted(root) == {("embed", make("embed", 0)): 100, ("embed", make("embed", 1)): 7}


def test_minutes_are_the_sum_of_all_stages() -> None:
    make_all({"embed": 6, "graph": 12, "train": 60, "evaluate": 30})
    assert minutes(here) == pytest.approx(1.8)


def test_minutes_are_not_known_when_those_of_one_stage_are_not() -> None:
    make_all(dict.fromkeys(FOLDERS, 1))
    make("train", version=1)
    assert minutes(here) is None


@pytest.mark.parametrize("lacking", ["params.yaml", "data/tiny/model/manifest.json"])
@pytest.mark.parametrize("error", [ParamsError("no such file"), FileNotFoundError()])
def test_minutes_are_not_known_where_a_stage_has_not_run(lacking: str, error: Exception) -> None:
    def text(path: str) -> str:
        if path == lacking:
            raise error
        return here(path)

    make_all(dict.fromkeys(FOLDERS, 1))
    assert minutes(here) is not None
    assert minutes(text) is None


@pytest.mark.parametrize("broken", ["", "[", "- tiny", "seed: 0", "dataset: [tiny]"])
def test_minutes_are_not_known_where_params_are_broken(broken: str) -> None:
    make_all(dict.fromkeys(FOLDERS, 1))
    Path("params.yaml").write_text(broken)
    assert minutes(here) is None


DAMAGED = [
    '{"stage": "embed", "artif', "null", "3", "[]", '{"stage": "embed"}', '{"stage": 1, "artifact": 2, "seconds": "x"}',
    '{"stage": "embed", "artifact": "a", "seconds": null}', "\0\0\0", "\ud800".encode("utf-8", "surrogatepass"),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_line_takes_no_other_with_it(root: Path, damage: str | bytes) -> None:
    for stage in ("embed", "train"):
        make(stage)
    note("embed", DATA, 1)
    with FILE.open("ab") as file:  # as a full disk leaves it, without the line's end
        file.write(damage if isinstance(damage, bytes) else damage.encode())
    note("train", DATA, 2)
    assert sorted(noted(root).values()) == [1, 2]


def test_notes_that_are_made_at_the_same_time_are_all_there() -> None:
    make("graph")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: note("graph", DATA, number), range(200)))
    assert sorted(json.loads(line)["seconds"] for line in FILE.read_text().splitlines()) == list(range(200))


def test_a_file_that_cannot_be_written_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    make("train")
    FILE.mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        note("train", DATA, 1)
    assert caplog.messages == [".newsfuse/times.jsonl: how long train took could not be noted: Is a directory"]


def test_a_full_disk_is_a_warning(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(descriptor: int, data: bytes) -> int:
        raise OSError(28, os.strerror(28))

    make("train")
    monkeypatch.setattr(os, "write", write)
    note("train", DATA, 1)
    assert "No space left on device" in caplog.text


def test_without_a_project_nothing_is_noted(root: Path) -> None:
    (root / ".dvc").rmdir()
    make("train")
    note("train", DATA, 1)
    assert not (root / ".newsfuse").exists()
    assert minutes(here) is None


def test_an_experiments_copy_notes_beside_the_project(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = root / "copy"
    (copy / ".dvc").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.chdir(copy)
    artifact = make("graph")
    note("graph", DATA, 3)
    assert noted(root) == {("graph", artifact): 3}
    assert not (copy / ".newsfuse").exists()


def test_a_stage_notes_itself(tmp_path: Path) -> None:
    house = House.build(tmp_path / "house")
    house.choose(provider="lsa")
    outcome = house.run("stages.embed")
    assert outcome.code == 0, outcome.text
    manifest = (house.embeddings / "manifest.json").read_bytes()
    ((stage, artifact),) = found = noted(house.root)
    assert (stage, artifact) == ("embed", sha256(manifest).hexdigest())
    assert 0 < found[stage, artifact] < outcome.seconds


def test_a_stage_that_failed_is_not_noted(root: Path) -> None:
    def train(params: Params, registry: Registry) -> None:
        raise ParamsError

    make("train")  # of an earlier run
    params, registry = load(ROOT)
    with pytest.raises(ParamsError):
        _timed(train, params, registry)
    assert noted(root) == {}


def test_the_notes_are_neither_gits_nor_dvcs() -> None:
    subprocess.run(["git", "check-ignore", "--quiet", str(FILE)], cwd=ROOT, check=True)
    assert ".newsfuse" in (ROOT / ".dvcignore").read_text().splitlines()
    assert ".newsfuse" not in (ROOT / "dvc.yaml").read_text()
