"""Runs by name, in a real Git and DVC project whose one stage predicts at once."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import polars as pl
import pytest
from predictions import Candidate, predict, table
from project import Project, missing

from newsfuse.errors import IntegrityError, NewsfuseError, ParamsError
from newsfuse.runs import Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STAGE = """\
stages:
  evaluate:
    cmd: python predict.py
    deps: [predict.py]
    params: [seed]
    outs: ["data/${dataset}/predictions"]
"""
PREDICT = """\
from pathlib import Path

import polars as pl
import yaml

from newsfuse.artifact import writing

params = yaml.safe_load(Path("params.yaml").read_text())
with writing(Path("data", params["dataset"], "predictions"), kind="evaluate", settings={}) as draft:
    frame = pl.DataFrame({"impression": ["1", "1"], "user": [0, 0], "news": ["N1", "N2"], "clicked": [1, 0]})
    scores = pl.Series([params["seed"], 0.5], dtype=pl.Float64)
    frame.with_columns(score=scores, warm=pl.lit(True)).write_parquet(draft / "scores.parquet")
"""
SEEDS = {"one": 1.0, "elsewhere": 2.0}
CANDIDATES: list[Candidate] = [("1", "N1", 1, 7.0), ("1", "N2", 0, 0.5)]


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A commit on main that predicts with seed 0, and an experiment for each of SEEDS; `elsewhere` is on other data."""
    if reason := missing():
        pytest.skip(reason)
    project = Project(tmp_path_factory.mktemp("runs") / "a project")
    project.root.mkdir()
    for name, text in {"dvc.yaml": STAGE, "predict.py": PREDICT, "params.yaml": "dataset: tiny\nseed: 0\n"}.items():
        (project.root / name).write_text(text)
    (project.root / ".gitignore").write_text("data\n")
    project.must("git", "init", "--quiet", "--initial-branch=main")
    project.must("dvc", "init", "--quiet")
    project.dvc("repro", "--quiet")
    project.commit()
    for name, seed in SEEDS.items():
        dataset = "other" if name == "elsewhere" else "tiny"
        project.dvc("exp", "run", "--quiet", "--name", name, "-S", f"seed={seed:.0f}", "-S", f"dataset={dataset}")
    project.must("git", "checkout", "--quiet", "--", ".")
    project.dvc("checkout", "--quiet")
    return project


@pytest.fixture
def project(original: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    copy = original.copy(tmp_path / "a project")
    for name, value in copy.environment().items():
        monkeypatch.setenv(name, value)
    yield copy
    assert copy.changes() == []


def predicted(project: Project, name: str) -> float:
    """The seed with which a run predicted."""
    seed: float = Run.read(name, project.root).table["score"][0]
    return seed


def objects(project: Project, ending: str = "") -> list[Path]:
    """The files in DVC's cache that are folders (.dir), or all."""
    cached = (project.root / ".dvc/cache/files/md5").glob("*/*")
    return [path for path in cached if path.name.endswith(ending)]


def refusal(project: Project, name: str) -> NewsfuseError:
    with pytest.raises(NewsfuseError) as error:
        Run.read(name, project.root)
    return error.value


@pytest.mark.parametrize("name", [*SEEDS, "main", "HEAD", "workspace", "data/tiny/predictions"])
def test_a_run_is_found_by_name(project: Project, name: str) -> None:
    assert predicted(project, name) == SEEDS.get(name, 0)


def test_a_run_is_found_by_the_commit_that_dvc_prints(project: Project) -> None:
    reference = next(line for line in project.must("git", "show-ref").text.splitlines() if line.endswith("/one"))
    assert predicted(project, reference[:7]) == SEEDS["one"]


def test_the_workspace_is_what_is_on_the_disk(project: Project) -> None:
    predict(project.root / "data/tiny/predictions", table(CANDIDATES))
    assert predicted(project, "workspace") == 7
    assert predicted(project, "main") == 0


def test_reading_another_revision_changes_no_file(project: Project) -> None:
    def state() -> dict[str, bytes]:
        paths = (path for path in project.root.rglob("*") if path.is_file() and ".git" not in path.parts)
        return {str(path): path.read_bytes() for path in paths if ".dvc/tmp" not in str(path)}

    before = state()
    predicted(project, "elsewhere")
    assert state() == before


def test_a_wrong_name_is_told_with_the_nearest(project: Project) -> None:
    error = refusal(project, "elsewere")
    assert isinstance(error, ParamsError)
    assert "Did you mean 'elsewhere'? Known: elsewhere, one, main" in str(error)


def test_a_name_of_several_experiments_is_refused(project: Project) -> None:
    shown = project.must("git", "show-ref").text.splitlines()
    commits = [line.split()[0] for line in shown if line.endswith(tuple(f"/{name}" for name in SEEDS))]
    for commit in commits:  # as if each had been the start of an experiment
        project.must("git", "update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/same", commit)
    assert len(commits) == len(SEEDS)
    assert "several experiments have this name" in str(refusal(project, "same"))


def follow(project: Project, remedy: str) -> None:
    """Type what an error says, and what brings the project back to where it was."""
    there, back = re.fullmatch(r".* Make it again: (.+) \(and back: (.+)\)\. .+", remedy).groups()  # type: ignore[union-attr]
    project.must("bash", "-c", there)
    project.must("git", "checkout", "--quiet", "--", ".")
    project.must("bash", "-c", back)


@pytest.mark.parametrize("ending", ["", ".dir"])
def test_what_is_not_in_the_cache_is_told_with_commands_that_make_it(project: Project, ending: str) -> None:
    for path in objects(project, ending):
        path.unlink()
    for name in ("one", "main"):
        error = refusal(project, name)
        assert isinstance(error, IntegrityError)
        assert f"'{name}': its data/tiny/predictions is in neither DVC's cache nor a remote" in str(error)
        follow(project, str(error))
        assert predicted(project, name) == SEEDS.get(name, 0)


def test_what_only_a_remote_has_is_fetched(project: Project) -> None:
    project.dvc("remote", "add", "--local", "--default", "store", str(project.root.parent / "store"))
    project.dvc("push", "--quiet")
    for path in objects(project):
        path.unlink()
    assert predicted(project, "main") == 0
    shutil.rmtree(project.root.parent / "store")
    assert "is in neither DVC's cache nor a remote" in str(refusal(project, "main"))


def test_a_damaged_object_of_the_cache_is_not_used_and_the_remedy_works(project: Project) -> None:
    for path in objects(project):
        if path.read_bytes()[:4] == b"PAR1":
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:-9] + b"!" + path.read_bytes()[-8:])
            path.chmod(0o444)
    error = refusal(project, "elsewhere")
    assert isinstance(error, IntegrityError)
    assert "its predictions are damaged or incomplete" in str(error)
    project.must("bash", "-c", str(error).partition("First: ")[2].partition(". Make")[0])
    follow(project, str(error))
    assert predicted(project, "elsewhere") == SEEDS["elsewhere"]


def test_a_revision_without_predictions_is_told_apart_from_lost_ones(project: Project) -> None:
    project.must("git", "rm", "--quiet", "dvc.yaml", "dvc.lock")
    project.commit()
    assert "'HEAD': has no data/tiny/predictions: that stage has not run there" in str(refusal(project, "HEAD"))
    project.must("git", "rm", "--quiet", "params.yaml")
    project.commit()
    assert str(refusal(project, "HEAD")) == "'HEAD': has no params.yaml"


def test_a_folder_is_no_run_unless_it_holds_predictions(tmp_path: Path) -> None:
    predict(tmp_path / "fine", table(CANDIDATES), kind="ensemble")
    assert Run.read("fine", tmp_path).table["score"].to_list() == [7.0, 0.5]
    predict(tmp_path / "vectors", table(CANDIDATES), kind="embed")
    (tmp_path / "empty/folder").mkdir(parents=True)
    for name, message in (
        ("vectors", "run 'vectors': holds 'embed', no predictions"),
        ("empty/folder", "run 'empty/folder': has no manifest.json"),
        ("none", "'none': .* is no DVC project with Git"),
    ):
        with pytest.raises(ParamsError, match=message):
            Run.read(name, tmp_path)


@pytest.mark.parametrize("damage", ["scores.parquet", "manifest.json"])
def test_a_damaged_folder_is_refused_and_nobody_is_told_to_remove_it(tmp_path: Path, damage: str) -> None:
    folder = predict(tmp_path / "mine", table(CANDIDATES))
    (folder / damage).write_bytes(b"{}")
    with pytest.raises(IntegrityError, match="run 'mine': its predictions are damaged or incomplete") as error:
        Run.read("mine", tmp_path)
    assert "rm " not in str(error.value)


def test_scores_that_cannot_be_ranked_are_refused(tmp_path: Path) -> None:
    predict(tmp_path / "infinite", table([("1", "N1", 1, float("inf"))]))
    predict(tmp_path / "old", table(CANDIDATES).drop("warm", "user"))
    for name, message in (("infinite", "no finite numbers"), ("old", "has no column user, warm")):
        with pytest.raises(IntegrityError, match=message):
            Run.read(name, tmp_path)


def test_impressions_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    predict(
        tmp_path / "run", table([("5", "N1", 1, 1.0), ("5", "N2", 0, 1.0), ("4", "N1", 0, None), ("6", "N1", 0, 1.0)])
    )
    run = Run.read("run", tmp_path)
    assert run.offsets.tolist() == [0, 2, 3, 4]
    assert run.impressions.to_list() == ["5", "4", "6"]
    assert pl.Series(run.scores, nan_to_null=True).to_list() == [1.0, 1.0, None, 1.0]


def test_a_project_without_params_is_told_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParamsError, match=r"params.yaml: not found in .*run this in the root of a newsfuse project"):
        Run.read("workspace", tmp_path)
    (tmp_path / "params.yaml").write_text("dataset: [1]\n")
    with pytest.raises(ParamsError, match=r"params.yaml: dataset: expected a name, found \[1\]"):
        Run.read("workspace", tmp_path)
