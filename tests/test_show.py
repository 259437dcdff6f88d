"""`newsfuse show` in a real Git and DVC project whose one stage is quick; it ranks as well as its seed says."""

from __future__ import annotations

import csv
import io
import shutil
from typing import TYPE_CHECKING, Literal

import pytest
from dvc.repo.experiments.serialize import ExpExecutor, ExpRange, ExpState, SerializableExp
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from project import Outcome, Project, missing
from rich.cells import cell_len
from rich.console import Console

from newsfuse.errors import ParamsError
from newsfuse.experiments import DONE, PARAMS, RESULTS, Experiment, Kind, _experiments, listed
from newsfuse.revisions import opened
from newsfuse.show import (
    Column,
    _names,
    comma_separated,
    fitted,
    markdown,
    ordered,
    results,
    settings,
    shortened,
    shortest,
    table,
)

if TYPE_CHECKING:
    from pathlib import Path

STAGE = """\
stages:
  all:
    cmd: python make.py
    deps: [make.py]
    params: [seed, fusion, train]
    outs:
      - data/${dataset}/embeddings
      - data/${dataset}/graph
      - data/${dataset}/model
      - data/${dataset}/predictions
    metrics: [metrics/embed.json, metrics/evaluate/metrics.json]
"""
MAKE = """\
import json
import sys
from pathlib import Path

import yaml

from newsfuse.artifact import writing
from newsfuse.times import FOLDERS, note

params = yaml.safe_load(Path("params.yaml").read_text())
if params["fusion"] == "broken":
    sys.exit("no such fusion")
data = Path("data", params["dataset"])
for stage, folder in FOLDERS.items():
    with writing(data / folder, kind=stage, settings=params):
        pass
    note(stage, data, 15 * params["seed"])
for path, metrics in {
    "metrics/embed.json": {"texts": 3, "dollars": params["seed"] / 1000},
    "metrics/evaluate/metrics.json": {"auc": 0.5 + params["seed"] / 100, "ndcg10": 0.4, "mrr": 1 - params["seed"] / 9},
}.items():
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(metrics))
"""
SETTINGS = "dataset: tiny\nseed: 0\nfusion: late\ntrain:\n  lr: 0.1\n  epochs: 2\n"
EXPERIMENTS = {"three": ("seed=3", "fusion=gate"), "one": ("seed=1", "fusion=late"), "two": ("seed=2", "fusion=a|b")}


def committed(root: Path) -> Project:
    """A project with a commit on main, with seed 0."""
    if reason := missing():
        pytest.skip(reason)
    project = Project(root)
    project.root.mkdir()
    for name, text in {"dvc.yaml": STAGE, "make.py": MAKE, "params.yaml": SETTINGS}.items():
        (project.root / name).write_text(text)
    (project.root / ".gitignore").write_text("/data\n/metrics\n/.newsfuse\n")
    project.must("git", "init", "--quiet", "--initial-branch=main")
    project.must("dvc", "init", "--quiet")
    project.dvc("repro", "--quiet")
    project.commit()
    return project


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A commit on main, EXPERIMENTS of it, and one that waits."""
    project = committed(tmp_path_factory.mktemp("show") / "a project")
    for name, changes in EXPERIMENTS.items():
        project.dvc("exp", "run", "--quiet", "--name", name, *(f"-S{change}" for change in changes))
    project.must("git", "checkout", "--quiet", "--", ".")
    project.dvc("checkout", "--quiet")
    project.dvc("exp", "run", "--quiet", "--queue", "--name", "waiting", "-S", "seed=9")
    return project


@pytest.fixture
def project(original: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The test's own copy, in which it is."""
    copy = original.copy(tmp_path / "a project")
    for name, value in copy.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(copy.root)
    return copy


@pytest.fixture(scope="session")
def printed(original: Project) -> Outcome:
    return original.run("newsfuse", "show")


@pytest.fixture(scope="session")
def experiments(original: Project) -> list[Experiment]:
    """What is listed in it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in original.environment().items():
            patch.setenv(name, value)
        patch.delenv("DVC_ROOT", raising=False)
        return listed(original.root, all_commits=False)


def columns(experiments: list[Experiment]) -> list[Column]:
    return [*results(experiments), *settings(experiments)]


def rows(text: str) -> dict[str, dict[str, str]]:
    """The lines of --csv, by experiment."""
    return {row["experiment"]: row for row in csv.DictReader(text.splitlines())}


def test_the_table_has_what_differs_and_the_best_first(printed: Outcome) -> None:
    assert [line.rstrip() for line in printed.text.splitlines()] == [
        "experiment   state      AUC  nDCG@10  dollars  minutes  seed  fusion",
        "─" * 68,
        "workspace    done    0.5000   0.4000   0.0000     0.00  0     late",
        "main (HEAD)  done    0.5000   0.4000   0.0000     0.00  0     late",
        "",
        "three        done    0.5300   0.4000   0.0030      3.0  3     gate",
        "two          done    0.5200   0.4000   0.0020      2.0  2     a|b",
        "one          done    0.5100   0.4000   0.0010      1.0  1     late",
        "waiting      queued       -        -        -        -  9     late",
    ]


def test_an_experiment_that_waits_has_settings_and_no_results(experiments: list[Experiment]) -> None:
    waiting = next(each for each in experiments if each.name == "waiting")
    assert (waiting.state, waiting.metrics, waiting.minutes) == ("queued", {}, None)
    assert waiting.params["seed"] == 9


@pytest.mark.parametrize("state", ["failed", "running", "queued"])
def test_one_that_is_not_done_has_no_results_of_the_commit_it_started_from(state: Literal["failed", "running"]) -> None:
    data = SerializableExp("b" * 40, metrics={RESULTS: {"data": {"auc": 0.9}}}, params={PARAMS: {"data": {"seed": 1}}})
    tried = ExpRange([ExpState("b" * 40, data=data)], executor=ExpExecutor(state))
    head = ExpState("a" * 40, "main", data, experiments=[tried])
    found = list(_experiments([head], head.rev, lambda _: 1.0))
    assert [(each.name, each.state, each.metrics, each.minutes) for each in found] == [
        ("main", "done", {"auc": 0.9}, 1.0),
        ("bbbbbbb", state, {}, None),
    ]


@pytest.mark.slow
def test_an_experiment_that_failed_is_shown_as_such(tmp_path: Path) -> None:
    project = committed(tmp_path / "a project")  # not a copy: DVC's queue knows where it was made
    project.dvc("exp", "run", "--quiet", "--queue", "--name", "failing", "-S", "fusion=broken")
    project.run("dvc", "exp", "run", "--quiet", "--run-all")
    lines = project.must("newsfuse", "show").text.splitlines()
    assert lines[-1].split() == ["failing", "failed", "-", "-", "-", "-", "broken"]


def test_markdown_has_all_rows_and_no_value_breaks_the_table(experiments: list[Experiment]) -> None:
    lines = markdown(experiments, columns(experiments)).splitlines()
    assert lines[:2] == [
        r"| experiment | state | AUC | nDCG\@10 | dollars | minutes | seed | fusion |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    assert "| two | done | 0.5200 | 0.4000 | 0.0020 | 2.0 | 2 | a\\|b |" in lines
    assert len(lines) == 8


def test_names_and_settings_stay_text_in_markdown() -> None:
    found = [experiment("a_b*<i>@x", fusion="`late`\n\x1b[31m"), experiment("b", fusion="gate")]
    row = markdown(found, columns(found)).splitlines()[2]
    assert row == r"| a\_b\*&lt;i&gt;\@x | 0.5000 | - | - | 1.0 | \`late\` \\x1b\[31m |"


def test_a_setting_whose_name_is_a_formula_stays_text_in_csv() -> None:
    found = [experiment(name, **{"=1+1": name}) for name in "ab"]
    assert comma_separated(found, columns(found)).splitlines()[0].endswith(",'=1+1")


def test_csv_has_all_digits_and_nothing_for_what_is_not_known(experiments: list[Experiment]) -> None:
    found = rows(comma_separated(experiments, columns(experiments)))
    assert found["two"] == {
        "experiment": "two", "kind": "experiment", "state": "done", "auc": "0.52", "ndcg10": "0.4",
        "dollars": "0.002", "minutes": "2.0", "seed": "2", "fusion": "a|b",
    }  # fmt: skip
    assert found["main"]["kind"] == "HEAD"
    assert found["waiting"]["auc"] == found["waiting"]["minutes"] == ""


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("mrr", ["one", "two", "three", "waiting"]),
        ("minutes", ["one", "two", "three", "waiting"]),
        ("AUC", ["three", "two", "one", "waiting"]),
        ("fusion", ["two", "three", "one", "waiting"]),
        ("seed", ["one", "two", "three", "waiting"]),
    ],
)
def test_the_order_is_from_best_to_worst_or_by_a_setting(
    experiments: list[Experiment], sort: str, order: list[str]
) -> None:
    names = [each.name for each in ordered(experiments, sort)]
    assert names[:2] == ["workspace", "main"]
    assert names[2:] == order


def test_an_unknown_order_is_refused_with_the_nearest_name(project: Project) -> None:
    outcome = project.run("newsfuse", "show", "--sort", "acu")
    assert outcome.code == 2
    assert outcome.text == (
        "ERROR: --sort acu: no metric or setting has this name. Did you mean 'auc'? "
        "Shown: auc, ndcg10, dollars, minutes, seed, fusion\n"
    )


def test_only_all_commits_shows_those_of_other_commits(project: Project) -> None:
    project.edit("params.yaml", "lr: 0.1", "lr: 0.2")
    project.dvc("repro", "--quiet")
    project.commit()
    project.dvc("exp", "run", "--quiet", "--name", "new", "-S", "seed=4")
    assert [each.name for each in listed(project.root, all_commits=False)] == ["workspace", "main", "new"]
    found = {each.name: each for each in listed(project.root, all_commits=True)}
    old = project.must("git", "rev-parse", "HEAD~1").text[:7]
    assert found.keys() == {"workspace", "main", "new", old, *EXPERIMENTS, "waiting"}
    assert found[old].kind is Kind.COMMIT
    assert found["main"].kind is Kind.HEAD
    assert [column.header for column in settings(list(found.values()))] == ["seed", "fusion", "lr"]


def test_commits_without_results_are_not_listed(project: Project) -> None:
    project.must("git", "commit", "--quiet", "--allow-empty", "--message", "again")
    project.must("git", "checkout", "--quiet", "--orphan", "other")
    project.must("git", "rm", "-rf", "--quiet", ".")
    project.must("git", "commit", "--quiet", "--allow-empty", "--message", "no pipeline")
    project.must("git", "checkout", "--quiet", "main")
    kinds = [each.kind for each in listed(project.root, all_commits=True)]
    assert kinds.count(Kind.COMMIT) == 1


def test_a_folder_inside_the_project_shows_the_same(project: Project, experiments: list[Experiment]) -> None:
    inside = Project(project.root / "inside")
    inside.root.mkdir()
    found = rows(inside.must("newsfuse", "show", "--csv").text)
    assert found == rows(comma_separated(experiments, columns(experiments)))


def test_nothing_is_checked_out(project: Project) -> None:
    data = project.hashes("data/tiny/model")
    listed(project.root, all_commits=True)
    assert project.changes() == []
    assert project.hashes("data/tiny/model") == data


def test_metrics_that_are_not_in_the_cache_are_shown_as_unknown(project: Project) -> None:
    shutil.rmtree(project.root / ".dvc/cache")
    shutil.rmtree(project.root / ".dvc/tmp")  # where DVC remembers what it has shown
    found = {each.name: each for each in listed(project.root, all_commits=False)}
    assert (found["three"].metrics, found["three"].minutes) == ({}, None)
    assert found["workspace"].metrics["auc"] == 0.5


def test_outside_a_project_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="is in no DVC project with Git"):
        listed(tmp_path, all_commits=False)


def test_a_project_without_git_has_no_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path / "a project")
    project.root.mkdir()
    project.dvc("init", "--no-scm", "--quiet")
    with pytest.raises(ParamsError, match="is in no DVC project with Git"):
        listed(project.root, all_commits=False)


def test_files_of_a_revision_are_found_from_any_folder_of_the_project(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = project.root / "a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with opened("three", folder) as revision:
        assert "seed: 3" in revision.text("params.yaml")
        revision.fetch("data/tiny/model", tmp_path / "model")
    assert (tmp_path / "model/manifest.json").is_file()


@pytest.mark.parametrize("commits", [0, 1])
def test_without_an_experiment_the_command_for_one_is_told(tmp_path: Path, commits: int) -> None:
    project = Project(tmp_path / "a project")
    project.root.mkdir()
    project.must("git", "init", "--quiet")
    project.dvc("init", "--quiet")
    for _ in range(commits):
        project.commit()
    with pytest.raises(ParamsError, match=r"^no experiment is at HEAD; --all-commits .* dvc exp run -S fusion=gate$"):
        listed(project.root, all_commits=False)
    with pytest.raises(ParamsError, match=r"^no experiment is in any commit"):
        listed(project.root, all_commits=True)


def experiment(name: str, auc: float | None = 0.5, /, **params: object) -> Experiment:
    return Experiment(name, Kind.EXPERIMENT, DONE, params, {"auc": auc}, 1.0)


def test_settings_that_all_have_alike_are_no_column() -> None:
    differing = settings([experiment("a", seed=0, fusion="late"), experiment("b", seed=0, fusion="gate")])
    assert [(column.name, column.cells) for column in differing] == [("fusion", ["late", "gate"])]


def test_values_are_written_as_in_yaml() -> None:
    values = [True, [1, "a"], 0.0003, None, 1, "late\n\x1b[31m"]
    cells = settings([experiment(str(value), x=value) for value in values])[0].cells
    assert cells == ["true", "1, a", "0.0003", "-", "1", "late \\x1b[31m"]


def test_a_metric_that_is_no_number_ranks_last() -> None:
    experiments = [
        experiment("nan", float("nan")),
        experiment("low", 0.4),
        experiment("none", None),
        experiment("high"),
    ]
    assert [each.name for each in ordered(experiments, "auc")] == ["high", "low", "nan", "none"]
    assert results(experiments)[0].cells == ["-", "0.4000", "-", "0.5000"]


def test_a_metric_that_is_text_is_not_shown() -> None:
    found = [Experiment("a", Kind.EXPERIMENT, DONE, {}, {"auc": "half", "dollars": {"eur": 1}}, None)]
    assert [column.cells for column in results(found)] == [["-"]] * 4


def test_headers_are_as_short_as_is_clear() -> None:
    names = ["encoders.gnn", "encoders.llm", "options.gnn.width", "options.llm.width", "state", "model.dim", "seed"]
    assert shortest(names, taken=["state"]) == ["gnn", "llm", "gnn.width", "llm.width", "state", "dim", "seed"]
    assert shortest(["train.lr", "lr"], taken=[]) == ["train.lr", "lr"]


@limits(deadline=None)
@given(st.text(max_size=40), st.integers(3, 30))
def test_a_shortened_name_fits_and_keeps_both_ends(text: str, width: int) -> None:
    short = shortened(text, width)
    assert cell_len(short) <= width
    cuts = [(short[:cut], short[cut + 1 :]) for cut, char in enumerate(short) if char == "…"]
    assert short == text or any(text.startswith(head) and text.endswith(tail) for head, tail in cuts)


def test_names_that_differ_at_the_end_still_differ() -> None:
    assert shortened("encoders-category-seed-1", 12) == "encode…eed-1"


words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@limits(max_examples=50, deadline=None)
@given(st.lists(st.tuples(words, st.dictionaries(words, words, max_size=6)), min_size=1, max_size=5))
def test_a_table_is_never_wider_than_80_columns_and_no_row_wraps(found: list[tuple[str, dict[str, str]]]) -> None:
    experiments = [experiment(name, 0.5, **params) for name, params in found]
    shown, left_out = fitted(_names(experiments), columns(experiments), 80)
    Console(width=200, file=(file := io.StringIO()), markup=False, emoji=False).print(table(experiments, shown))
    lines = file.getvalue().split("\n")[:-1]
    assert max(cell_len(line) for line in lines) <= 80
    assert len(lines) == len(experiments) + 2
    assert [column.name for column in [*shown[5:], *left_out]] == [column.name for column in settings(experiments)]


def test_settings_for_which_there_is_no_room_are_named(project: Project) -> None:
    lines = project.must("env", "COLUMNS=50", "newsfuse", "show").text.splitlines()
    assert lines[-1] == "No room for minutes, seed, fusion: use a wider terminal, or --csv"
    assert max(map(len, lines[:-1])) <= 50
