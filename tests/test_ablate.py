"""`newsfuse ablate` in real Git and DVC projects; in most of them one quick stage stands for the pipeline."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from project import ROOT, Outcome, Project, missing
from rich.console import Console
from typer.testing import CliRunner

from newsfuse.ablation.ablate import _how_to_go_on
from newsfuse.ablation.finished import Finished
from newsfuse.ablation.queue import _told, opened
from newsfuse.ablation.sources import Sources
from newsfuse.ablation.table import Row, csv, rows, said, table
from newsfuse.ablation.variants import Asked, Variant, plain, variants
from newsfuse.ablation.watch import watch
from newsfuse.cli import app
from newsfuse.entrants import entrants
from newsfuse.errors import BusyError, DataError, IntegrityError, ParamsError, PluginError

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

STAGE = """\
stages:
  all:
    cmd: python make.py
    deps: [make.py, plugins/encoders, "plugins/embedders/${embed.provider}.py"]
    params: [dataset, encoders, fusion, seed, train]
    metrics: [metrics/embed.json, metrics/evaluate/metrics.json]
"""
MAKE = """\
import json
import os
import sys
import time
from pathlib import Path

import yaml

params = yaml.safe_load(Path("params.yaml").read_text())
encoders = " ".join(name for name, on in params["encoders"].items() if on)
with Path(os.environ["DVC_ROOT"], "ran").open("a") as ran:
    ran.write(f"{encoders} {params['fusion']} {params['seed']}\\n")
time.sleep(params["train"]["epochs"] - 1)
if params["fusion"] == "gate" and encoders == "llm":
    print("ERROR: plugins/fusions/gate.py: wants two views", file=sys.stderr)
    sys.exit(9)
auc = 0.5 + len(encoders) / 100 + params["seed"] / 1000
for path, metrics in {
    "metrics/embed.json": {"dollars": 0.0},
    "metrics/evaluate/metrics.json": {"auc": auc, "ndcg10": 0.4},
}.items():
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(metrics))
"""
BOTH, CATEGORY, LLM = ("category", "llm"), ("category",), ("llm",)


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """This project's plugins and settings, two encoders on, and a stage that notes each time that it runs."""
    if reason := missing():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("ablate") / "a project"
    project = Project.make(root, without=("benchmarks", "data", "docs", "examples", "metrics", "tests"))
    for name, text in {"dvc.yaml": STAGE, "make.py": MAKE}.items():
        (root / name).write_text(text)
    project.edit("params.yaml", r"  gnn: true", "  gnn: false")
    project.append(".gitignore", "/ran\n")
    project.commit()
    return project


@pytest.fixture
def quick(original: Project, tmp_path: Path) -> Project:
    """The test's own copy."""
    return original.copy(tmp_path / "a project")


@pytest.fixture(scope="session")
def ablated(original: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Outcome]:
    """A project with uncommitted changes after `newsfuse ablate`, and what that printed. For reading only."""
    project = original.copy(tmp_path_factory.mktemp("ablated") / "a project")
    project.append("README.md", "not committed\n")
    return project, project.run("newsfuse", "ablate")


def names(project: Project, **asked: tuple[str, ...]) -> list[str]:
    return [variant.name for variant in variants(Asked(**asked), project.root)]  # type: ignore[arg-type]


def ran(project: Project) -> list[str]:
    path = project.root / "ran"
    return path.read_text().splitlines() if path.exists() else []


def shown(outcome: Outcome) -> str:
    """The table and what stands below it, on standard output."""
    return outcome.text.partition("INFO:")[0]


# Which runs there are


def test_all_subsets_are_run_the_whole_set_first(original: Project) -> None:
    found = variants(Asked(), original.root)
    assert [each.encoders for each in found] == [BOTH, CATEGORY, LLM]
    assert {(each.fusion, each.seed) for each in found} == {("late", 0)}


def test_each_encoder_is_left_out_once(original: Project) -> None:
    asked = Asked(settings=("encoders.gnn=true",), leave_one_out=True)
    found = [each.encoders for each in variants(asked, original.root)]
    assert found == [("category", "gnn", "llm"), ("category", "gnn"), ("category", "llm"), ("gnn", "llm")]


def test_subsets_are_crossed_with_fusions_and_seeds(original: Project) -> None:
    found = variants(Asked(fusions=("late", "gate"), seeds=(3, 1)), original.root)
    assert [(each.seed, each.fusion, each.encoders) for each in found] == [
        (seed, fusion, subset) for seed in (3, 1) for fusion in ("late", "gate") for subset in (BOTH, CATEGORY, LLM)
    ]
    assert len({each.name for each in found}) == 12
    assert found[-1].settings == ("encoders.category=false", "fusion=gate", "seed=1")


def test_a_name_says_what_was_chosen(original: Project) -> None:
    assert re.fullmatch(r"category\+llm-late-0-[0-9a-f]{8}", names(original)[0])


def test_a_subset_has_one_name_whatever_it_was_asked_as(original: Project) -> None:
    assert names(original, settings=("encoders.llm=false",)) == names(original)[1:2]


@pytest.mark.parametrize("path", ["plugins/encoders/llm.py", "make.py", "plugins/embedders/lsa.py", "params.yaml"])
def test_an_edit_of_what_decides_the_result_gives_other_names(quick: Project, path: str) -> None:
    before = names(quick)
    quick.append(path, "\noptions: {llm: {}}\n" if path == "params.yaml" else "\n# edited\n")
    assert not {*before} & {*names(quick)}


@pytest.mark.parametrize("path", ["README.md", "plugins/embedders/openai.py"])
def test_an_edit_of_anything_else_and_a_commit_change_no_name(quick: Project, path: str) -> None:
    before = names(quick)
    quick.append(path, "\n# edited\n")
    quick.append("params.yaml", "\n# a remark\n")
    assert names(quick) == before
    quick.commit()
    assert names(quick) == before


def test_a_plugin_that_git_does_not_know_is_refused(quick: Project) -> None:
    (quick.root / "plugins/encoders/mine.py").write_text("")
    with pytest.raises(ParamsError, match=r"mine\.py: .*only what Git knows\. Type: git add plugins/encoders/mine\.py"):
        names(quick)
    quick.must("git", "add", "plugins/encoders/mine.py")
    assert len(names(quick)) == 3


def test_data_that_nobody_tracks_is_refused(quick: Project) -> None:
    folder = quick.root / "data/small/train"
    folder.mkdir(parents=True)
    (folder / "news.tsv").write_text("")
    quick.edit("dvc.yaml", "make.py,", "make.py, 'data/${dataset}/train/news.tsv',")
    with pytest.raises(
        DataError, match=r"data/small/train/news\.tsv: neither Git nor DVC .* dvc add data/small/train$"
    ):
        names(quick, settings=("dataset=small",))
    with pytest.raises(DataError, match=r"data/none/train/news\.tsv: is not there, .* newsfuse fetch"):
        names(quick, settings=("dataset=none",))


def test_data_is_known_by_the_file_that_dvc_tracks_it_with(quick: Project) -> None:
    pointer = quick.root / "data/small/train.dvc"
    pointer.parent.mkdir(parents=True)
    pointer.write_text("outs: []\n")
    quick.edit("dvc.yaml", "make.py,", "make.py, 'data/${dataset}/train/news.tsv',")
    small = {"dataset": "small", "embed": {"provider": "lsa"}}
    with pytest.raises(ParamsError, match=r"git add data/small/train\.dvc"):
        Sources.of(quick.root, small)
    quick.must("git", "add", "data/small/train.dvc")
    before = Sources.of(quick.root, small).identity
    pointer.write_text("outs: [other]\n")
    assert Sources.of(quick.root, small).identity != before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gaet", "", ()), r"--fusions: no fusion plugin is called 'gaet'\. Did you mean 'gate'\?"),
        (("late,late", "", ()), "--fusions late,late: expected names with commas between, each once"),
        (("", "0,-1", ()), "--seeds 0,-1: '-1' is no seed; expected whole numbers from 0 on"),
        (("", "", ("trian.lr=1",)), r"-S trian\.lr=1: .*Did you mean 'train\.lr'\? To add one: -S \+trian\.lr=1"),
        (("", "", ("+seed=1",)), r"-S \+seed=1: cannot be applied to params\.yaml: "),
        (("", "", ("train.lr=1,2",)), r"-S train\.lr=1,2: has several values; give one"),
        (("", "", ("train.lr",)), r"-S train\.lr: is not understood"),
        (("", "", ("other.yaml:seed=1",)), r"-S other\.yaml:\.\.\.: is another file than params\.yaml"),
        (("", "", ("train.lr=fast",)), r"params\.yaml: train\.lr: .*'fast'"),
        (("", "", ("+encoders.lenght=true",)), r"encoders\.lenght: no encoder plugin is called 'lenght'"),
    ],
)
def test_a_mistake_is_told(original: Project, arguments: tuple[str, str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        variants(Asked.parse(*arguments, leave_one_out=False), original.root)


def test_the_only_encoder_cannot_be_left_out(original: Project) -> None:
    with pytest.raises(ParamsError, match=r"--leave-one-out: only one encoder is on \(category\)"):
        variants(Asked(settings=("encoders.llm=false",), leave_one_out=True), original.root)


def test_a_broken_plugin_is_named_where_it_is(quick: Project) -> None:
    quick.append("plugins/fusions/gate.py", "\n1 / 0\n")
    with pytest.raises(PluginError, match=re.escape(f"({quick.root}/plugins/fusions/gate.py:")):
        names(quick, fusions=("late", "gate"))


@given(st.text(min_size=1, max_size=100))
@example("attention+" * 10)
def test_any_plugin_gives_a_name_that_git_a_shell_and_compare_take(text: str) -> None:
    name = plain(text)
    assert re.fullmatch(r"[A-Za-z0-9_+-]{1,60}", name)
    assert shlex.quote(name) == name


def test_a_mistake_ends_with_exit_code_2_and_nothing_in_the_queue(quick: Project) -> None:
    outcome = quick.run("newsfuse", "ablate", "--fusions", "late,gaet")
    assert outcome.code == 2
    assert "Did you mean 'gate'?" in outcome.text
    assert "Traceback" not in outcome.text
    assert not (quick.root / ".dvc/tmp/exps").exists()


# The table

SOME = [
    Variant(BOTH, "late", 0, (), "both-0"),
    Variant(LLM, "late", 0, (), "llm-0"),
    Variant(BOTH, "late", 1, (), "both-1"),
    Variant(LLM, "late", 1, (), "llm-1"),
]
RESULTS = {
    "both-0": Finished(0.6, 0.40, 0.0, 1.0),
    "both-1": Finished(0.7, 0.44, 0.02, 2.0),
    "llm-0": Finished(0.8, 0.5, None, None),
}


def test_a_row_has_mean_and_spread_over_seeds_and_the_best_is_first() -> None:
    first, second = rows(SOME, RESULTS)
    assert (first.encoders, first.runs, first.auc, first.auc_sd) == ("llm", ("llm-0",), 0.8, None)
    assert (first.dollars, first.minutes) == (None, None)
    assert (second.encoders, second.seeds, second.runs) == ("category llm", 2, ("both-0", "both-1"))
    assert (second.auc, second.ndcg10, second.dollars, second.minutes) == pytest.approx((0.65, 0.42, 0.01, 1.5))
    assert (second.auc_sd, second.ndcg10_sd) == pytest.approx((0.05 * 2**0.5, 0.02 * 2**0.5))


def test_a_cost_that_is_not_known_of_every_seed_is_not_known() -> None:
    results = RESULTS | {"both-1": Finished(0.7, 0.44, None, 2.0)}
    assert [(row.dollars, row.minutes) for row in rows(SOME, results)] == [(None, None), (None, 1.5)]


def test_one_seed_is_called_no_ground() -> None:
    assert "One seed is no ground" in said(rows(SOME, RESULTS))[0]
    assert "One seed" not in " ".join(said(rows(SOME, RESULTS | {"llm-1": RESULTS["llm-0"]})))


def test_the_last_line_compares_all_rows_with_all_encoders() -> None:
    command = said(rows(SOME, RESULTS))[-1].removeprefix("Noise or not: ")
    reference, other = entrants(shlex.split(command)[2:])
    assert (reference.label, reference.runs) == ("category+llm", ("both-0", "both-1"))
    assert (other.label, other.runs) == ("llm", ("llm-0",))


def test_fusions_make_labels_of_their_own() -> None:
    gated = [replace(each, fusion="gate", name=f"gated-{each.name}") for each in SOME]
    results = RESULTS | {f"gated-{name}": result for name, result in RESULTS.items()}
    command = said(rows([*SOME, *gated], results))[-1]
    assert len(entrants(shlex.split(command.removeprefix("Noise or not: "))[2:])) == 4


def test_the_table_fits_80_columns_and_keeps_every_encoder() -> None:
    many = ("attention_of_everything", "category", "gnn", "headline", "id", "llm")
    row = Row(" ".join(many), "attention", 10, 0.7, 0.1, 0.6, 0.1, 12.3456, 1234.56, ("a",))
    Console(width=80, file=(file := io.StringIO())).print(table([row]))
    assert max(map(len, file.getvalue().splitlines())) <= 80
    assert "1,234.56" in file.getvalue()
    words = " ".join(line[:16].strip() for line in file.getvalue().splitlines()[2:])
    assert words.replace(" ", "") == "".join(many)


def test_csv_has_all_digits_and_the_runs() -> None:
    lines = csv(rows(SOME, RESULTS)).splitlines()
    assert lines[0] == "encoders,fusion,seeds,auc,auc_sd,ndcg10,ndcg10_sd,dollars,minutes,runs"
    assert lines[1] == "llm,late,1,0.8,,0.5,,,,llm-0"
    assert lines[2].endswith("both-0 both-1")


@pytest.mark.parametrize(
    ("output", "reason", "code"),
    [
        ("ERROR: no\nERROR: failed to reproduce 'train': failed to run: x, exited with 9\n", "no", 9),
        (
            "Killed\nERROR: failed to reproduce 'train': exited with -9\n",
            "failed to reproduce 'train': exited with -9",
            1,
        ),
        ("", "it ended before its first stage, or was killed", 1),
    ],
)
def test_a_failed_run_is_told_in_the_words_of_its_stage(output: str, reason: str, code: int) -> None:
    failure = _told("name", output)
    assert (failure.reason, failure.exit_code) == (reason, code)


PAGE = (ROOT / "docs/ablation.md").read_text(encoding="utf-8")


def test_the_page_shows_a_table_as_it_is_printed() -> None:
    block = PAGE.split("```")[3].splitlines()[3:9]
    Console(width=80, file=(file := io.StringIO())).print(table([read(line) for line in block[2:]]))
    assert [line.rstrip() for line in file.getvalue().splitlines()] == block


def read(line: str) -> Row:
    """A row of the page's table."""
    *encoders, fusion, seeds, auc, auc_sd, ndcg10, ndcg10_sd, usd, minutes = line.split()
    means, spreads = (float(auc), float(ndcg10)), (float(auc_sd), float(ndcg10_sd))
    cost = (float(usd.removeprefix("$")), float(minutes))
    return Row(" ".join(encoders), fusion, int(seeds), means[0], spreads[0], means[1], spreads[1], *cost, runs=())


def test_the_page_names_every_option_and_no_other() -> None:
    shown = CliRunner().invoke(app, ["ablate", "--help"], env={"COLUMNS": "200"}).output
    options = {*re.findall(r"--[a-z][a-z-]+", shown)} - {"--help", "--set-param"}
    commands = re.findall(r"newsfuse ablate([^`\n]*)", PAGE)
    assert {option for command in commands for option in re.findall(r"--[a-z-]+", command)} == options


# Runs


def test_an_ablation_runs_each_subset_once_and_ends_in_a_table(ablated: tuple[Project, Outcome]) -> None:
    project, outcome = ablated
    assert outcome.code == 0, outcome.text
    assert sorted(ran(project)) == ["category late 0", "category llm late 0", "llm late 0"]
    lines = [line.rstrip() for line in shown(outcome).splitlines()]
    assert lines[:6] == [
        "Ablation of category, llm; mean over n seeds, cost of one run",
        "",
        "encoders      fusion  n    AUC  sd  nDCG@10  sd  dollars  minutes",
        "─" * 65,
        "category llm  late    1  .6200   -    .4000   -  $0.0000        -",
        "category      late    1  .5800   -    .4000   -  $0.0000        -",
    ]
    assert lines[-1].startswith("Noise or not: newsfuse compare category+llm=category+llm-late-0-")
    assert "INFO: 3 of 3 done" in outcome.text


def test_the_workspace_stays_as_it_is(ablated: tuple[Project, Outcome]) -> None:
    project, _ = ablated
    assert project.changes() == [" M README.md"]
    assert project.text("README.md").endswith("not committed\n")


def test_what_is_done_is_not_run_again_not_even_after_a_commit(
    ablated: tuple[Project, Outcome], tmp_path: Path
) -> None:
    original, first = ablated
    project = original.copy(tmp_path / "a project")
    project.commit()
    second = project.must("newsfuse", "ablate")
    assert shown(second) == shown(first)
    assert ran(project) == ran(original)
    preview = project.must("newsfuse", "ablate", "--dry-run", "--seeds", "0,1").text.splitlines()
    assert [line.split()[0] for line in preview] == ["done"] * 3 + ["to"] * 3 + ["6"]
    assert preview[-1] == "6 runs, 3 done. Nothing was queued."
    markdown = project.must("newsfuse", "ablate", "--md", "-", "--csv", "table.csv").text
    assert markdown.startswith("Ablation of category, llm")
    assert "| category llm | late | 1 | .6200 |" in markdown
    assert project.lines("table.csv")[1].startswith("category llm,late,1,0.62,,0.4,,0.0,,category+llm-late-0-")


def test_a_failed_run_is_reported_and_stops_no_other(quick: Project) -> None:
    outcome = quick.run("newsfuse", "ablate", "--fusions", "gate")
    assert outcome.code == 9
    assert len(ran(quick)) == 3
    assert [line.split()[:2] for line in shown(outcome).splitlines()[4:6]] == [
        ["category", "llm"],
        ["category", "gate"],
    ]
    (name,) = re.findall(r"dvc queue logs (llm-gate-0-\w+)\)", outcome.text)
    assert f"ERROR: 1 of 3 runs failed; the same command tries them again.\n{name}: plugins/fusions/gate.py: wants" in (
        outcome.text
    )
    assert "wants two views" in quick.dvc("queue", "logs", name).text
    quick.edit("params.yaml", r"  category: true", "  category: false")
    again = quick.run("newsfuse", "ablate", "--fusions", "gate")
    assert again.code == 9
    assert ran(quick).count("llm gate 0") == 2
    assert "Only one encoder is on (llm)" in again.text
    assert quick.dvc("queue", "status").text.count("Failed") == 1


def started(project: Project, *arguments: str) -> subprocess.Popen[str]:
    return project.started("newsfuse", "ablate", *arguments)


def wait_until_ran(project: Project, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(ran(project)) < count:
        assert time.monotonic() < deadline, f"only {ran(project)}"
        time.sleep(0.2)


@pytest.mark.slow
def test_killed_with_its_worker_it_goes_on_and_runs_nothing_twice_that_was_done(quick: Project) -> None:
    arguments = ("-S", "train.epochs=5")  # four seconds each, longer than it takes to kill
    ablation = started(quick, *arguments)
    wait_until_ran(quick, 2)
    ablation.kill()
    ablation.communicate()
    worker = json.loads((quick.root / ".dvc/tmp/exps/celery/dvc-exp-worker-1.json").read_text())["pid"]
    for process in (*psutil.Process(worker).children(recursive=True), psutil.Process(worker)):
        process.kill()
    outcome = quick.must("newsfuse", "ablate", *arguments)
    first, second, *_ = ran(quick)
    assert sorted(ran(quick)) == sorted([first, second, second, "llm late 0"])
    assert len(shown(outcome).splitlines()[4:7]) == 3
    assert sorted(path.name for path in (quick.root / ".dvc/tmp/exps").iterdir() if path.name.startswith("tmp")) == []
    assert "Running" not in quick.dvc("queue", "status").text


@pytest.mark.slow
def test_ctrl_c_leaves_a_queue_that_the_same_command_waits_for(quick: Project) -> None:
    arguments = ("-S", "train.epochs=4")
    ablation = started(quick, *arguments)
    wait_until_ran(quick, 1)
    os.kill(ablation.pid, signal.SIGINT)
    _, told = ablation.communicate(timeout=60)
    assert ablation.returncode == 130
    assert "the queue goes on with " in told
    assert "To wait for them: the same command. To stop after the one that runs: dvc queue stop" in told
    assert "Traceback" not in told
    quick.must("newsfuse", "ablate", *arguments)
    assert sorted(ran(quick)) == ["category late 0", "category llm late 0", "llm late 0"]


@pytest.mark.slow
def test_a_run_that_somebody_removes_is_run_again_and_no_worker_called_killed(quick: Project) -> None:
    settings = ("train.epochs=4", "encoders.category=false", "encoders.gnn=true")
    ablation = started(quick, *(f"-S{setting}" for setting in settings))
    wait_until_ran(quick, 1)
    quick.dvc("queue", "remove", names(quick, settings=settings)[-1])
    _, said_last = ablation.communicate(timeout=120)
    assert ablation.returncode == 0, said_last
    assert "INFO: Some left the queue without a result; they are run again." in said_last
    assert "killed" not in said_last
    assert len(ran(quick)) == 3


def test_the_way_to_forget_an_interrupted_ablation_leaves_the_runs_of_others(quick: Project) -> None:
    for name in ("others", "own-0", "own-1"):
        quick.dvc("exp", "run", "--queue", "--name", name)
    with opened(quick.root) as queue:
        told = _how_to_go_on(queue, {"own-1", "own-0", "done"})
    command = told.partition("To forget them: ")[2]
    assert command == "dvc queue remove own-0 own-1"
    quick.must(*shlex.split(command))
    with opened(quick.root) as queue:
        assert queue.waiting() == {"others"}


@pytest.mark.slow
def test_a_worker_that_always_ends_at_once_is_not_started_for_ever(
    quick: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = quick.root / "starts"
    monkeypatch.setattr("newsfuse.ablation.queue.PROGRAM", ("sh", "-c", f"echo start >> {shlex.quote(str(starts))}"))
    monkeypatch.setattr("newsfuse.ablation.watch.START_S", 0.1)
    monkeypatch.setattr("newsfuse.ablation.watch.POLL_S", 0.1)
    quick.dvc("exp", "run", "--queue", "--name", "own")
    with opened(quick.root) as queue, pytest.raises(BusyError, match=r"ends at once; see why: dvc queue start --verb"):
        watch(queue, {"own"}, workers=1, before=0)
    assert len(quick.lines("starts")) == 3


# Uncommitted changes, which DVC puts aside and back


def changed(project: Project) -> dict[str, str]:
    """Change files in each way that Git tells apart; the text of each."""
    project.append("README.md", "staged\n")
    project.append("make.py", "# staged\n")
    project.append("new.txt", "new\n")
    project.must("git", "add", "README.md", "make.py", "new.txt")
    project.append("make.py", "# and not staged\n")
    project.append("params.yaml", "# not staged\n")
    return {path: project.text(path) for path in ("README.md", "make.py", "new.txt", "params.yaml")}


def test_nothing_is_queued_while_another_git_works(quick: Project) -> None:
    texts, before = changed(quick), quick.changes()
    (quick.root / ".git/index.lock").touch()
    outcome = quick.run("newsfuse", "ablate")
    assert outcome.code == 75, outcome.text
    assert f"ERROR: {quick.root}/.git/index.lock: another Git works here, or was killed." in outcome.text
    assert "Traceback" not in outcome.text
    assert (quick.changes(), quick.must("git", "stash", "list").text) == (before, "")
    assert {path: quick.text(path) for path in texts} == texts


def test_nothing_is_queued_while_a_merge_is_not_resolved(quick: Project) -> None:
    quick.must("git", "checkout", "--quiet", "-b", "other")
    for line, branch in (("one\n", "-"), ("two\n", "HEAD")):
        quick.append("README.md", line)
        quick.commit()
        quick.must("git", "checkout", "--quiet", branch)
    assert quick.run("git", "merge", "other").code == 1
    outcome = quick.run("newsfuse", "ablate")
    assert outcome.code == 2, outcome.text
    assert "ERROR: README.md: a merge is not resolved, and no run can be made of that." in outcome.text
    assert "Traceback" not in outcome.text
    assert quick.changes() == ["UU README.md"]


def test_a_change_that_git_cannot_put_aside_is_told_and_stays(quick: Project) -> None:
    quick.append("make.py", "# edited\n")
    quick.must("git", "rm", "--cached", "--quiet", "README.md")
    before = quick.changes()
    outcome = quick.run("newsfuse", "ablate")
    assert outcome.code == 7, outcome.text
    assert "merge conflicts. Commit your changes, and try again." in outcome.text
    assert "Traceback" not in outcome.text
    assert (quick.changes(), quick.must("git", "stash", "list").text) == (before, "")


@pytest.mark.parametrize("at", ["before", "between"])
def test_changes_that_stay_aside_come_back_as_the_message_says(
    quick: Project, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    texts, before = changed(quick), quick.changes()
    lock = quick.root / ".git/index.lock"
    monkeypatch.chdir(quick.root)  # DVC changes the params.yaml of the folder that it is called in
    with opened(quick.root) as queue:
        if at == "before":
            lock.touch()
        else:
            experiments = queue.repo.experiments.celery_queue
            monkeypatch.setattr(experiments, "_stash_commit_deps", lambda *_, **__: lock.touch())
        with pytest.raises(IntegrityError, match="'own' cannot be queued: ") as caught:
            queue.put("own", ["seed=1"])
    lock.unlink()
    assert "Your uncommitted changes are put aside, in Git's stash." in str(caught.value)
    command = str(caught.value).partition("before you edit anything: ")[2]
    quick.must("sh", "-c", command)
    quick.must("git", "symbolic-ref", "HEAD")  # a branch, as before
    assert quick.changes() == before
    assert {path: quick.text(path) for path in texts} == texts


FAST = (
    "train.epochs=1",
    "train.pretrain_epochs=0",
    "train.refit=false",
    "evaluate.cold_mask=0",
    "encoders.category=false",
)


@pytest.mark.slow
def test_the_pipeline_itself_is_ablated_and_its_runs_can_be_compared(project: Project) -> None:
    outcome = project.must("newsfuse", "ablate", *(f"-S{setting}" for setting in FAST))
    found = [line.split() for line in shown(outcome).splitlines()[4:7]]
    assert sorted(" ".join(row[:-8]) for row in found) == ["gnn", "gnn llm", "llm"]
    assert all(re.fullmatch(r"\d+\.\d\d", row[-1]) for row in found), "minutes are known"
    command = shown(outcome).splitlines()[-1].removeprefix("Noise or not: ")
    assert "differences to gnn+llm" in project.must(*shlex.split(command)).text
