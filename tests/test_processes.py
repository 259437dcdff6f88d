"""Several processes train what one would; when one of them ends, all do, and say why."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_training import HISTORY, SETTINGS, planted, recommender
from torch.multiprocessing.spawn import start_processes

from newsfuse.epochs import Epoch
from newsfuse.team import ALONE, MEETING, Team, team
from newsfuse.training import Trainer

if TYPE_CHECKING:
    import subprocess

    from project import Outcome, Project

WITHIN_S = 60
"""In which a run has to end of which a process was killed."""
CURVES = "metrics/train/plots/metrics"


@pytest.fixture(scope="module")
def alone(reproduced: tuple[Project, Outcome], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose model was trained by one process, with encoders that draw by chance among its parts."""
    project = reproduced[0].copy(tmp_path_factory.mktemp("alone") / "a project")
    project.edit("params.yaml", "  id: false", "  id: true")
    project.edit("params.yaml", "fusion: late", "fusion: attention")
    project.edit("params.yaml", "  loss: softmax", "  loss: binary")
    assert project.stage("train").code == 0
    return project


@pytest.fixture
def project(alone: Project, tmp_path: Path) -> Project:
    return alone.copy(tmp_path / "a project")


def shared(project: Project, processes: int = 2) -> None:
    project.edit("params.yaml", "  processes: 1", f"  processes: {processes}")


def curves(project: Project) -> dict[str, list[float]]:
    """By name, the points of each."""
    found = {}
    for path in sorted((project.root / CURVES).rglob("*.tsv")):
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
        found[str(path.relative_to(project.root / CURVES))] = [float(line.split("\t")[1]) for line in lines]
    return found


def require_alike(one: Project, other: Project) -> None:
    before, after = curves(one), curves(other)
    assert before.keys() == after.keys()
    assert "pretrain/loss.tsv" in before
    for name, points in before.items():
        is_share = "auc" in name or "accuracy" in name
        assert after[name] == (pytest.approx(points, abs=1e-3) if is_share else pytest.approx(points, rel=1e-4)), name


def test_two_processes_train_as_one_does(project: Project, alone: Project) -> None:
    """Each batch, dropout and all: what is left to chance depends on the article and the step alone."""
    shared(project)
    outcome = project.stage("train")
    assert outcome.code == 0, outcome.text
    require_alike(alone, project)
    assert outcome.text.count("INFO: epoch 1:") == 1, "one process speaks for all"
    assert "Warning" not in outcome.text
    assert not list((project.root / ".newsfuse" / "training").iterdir())
    assert project.stage("evaluate").code == 0


# --- one of them ends


def started(project: Project, bookmark: int) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """Training by two processes that has kept so many bookmarks, one after each batch; and the two."""
    shared(project)
    running = project.started("env", "NEWSFUSE_BOOKMARK_MINUTES=1e-9", "python", "-m", "stages.train")
    while latest(project) < bookmark and running.poll() is None:
        time.sleep(0.01)
    return running, members(running)


def members(running: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(running.pid).children(recursive=True)
    found = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    assert len(found) == 2
    return found


def latest(project: Project) -> int:
    """The number of the last bookmark."""
    found = (project.root / ".newsfuse" / "training").glob("*/[0-9]*")
    return max((int(path.name) for path in found), default=0)


@pytest.mark.parametrize("which", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_process_ends_the_run_and_the_next_run_goes_on(project: Project, alone: Project, which: int) -> None:
    running, processes = started(project, 7)  # of some twenty batches
    (project.root / "data/tiny/model/manifest.json").unlink()
    began = time.monotonic()
    processes[which].kill()
    _, said = running.communicate(timeout=WITHIN_S)
    assert running.returncode == 128 + signal.SIGKILL
    assert time.monotonic() - began < WITHIN_S
    assert re.search(rf"ERROR: process {which + 1} of 2 was killed \(SIGKILL; out of memory\?\)", said)
    assert "Traceback" not in said
    assert not (project.root / "data/tiny/model/manifest.json").exists(), "half a training makes no model"
    assert not psutil.wait_procs(processes, timeout=5)[1]
    again = project.stage("train")
    assert again.code == 0
    assert "training was interrupted and goes on" in again.text
    require_alike(alone, project)


@pytest.mark.parametrize(
    "signum", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_when_the_one_that_started_them_ends_they_end(project: Project, signum: int) -> None:
    running, processes = started(project, 1)
    running.send_signal(signum)
    running.communicate(timeout=WITHIN_S)
    assert running.returncode == (-signum if signum == signal.SIGKILL else 128 + signum)
    assert not psutil.wait_procs(processes, timeout=WITHIN_S)[1]


def test_a_mistake_that_all_of_them_find_is_told_once(project: Project) -> None:
    shared(project)
    project.append("data/tiny/train/behaviors.tsv", "half a line\n")
    outcome = project.stage("train")
    assert outcome.code == 3
    assert outcome.text.count("ERROR") == 1
    assert re.search(r"ERROR: data/tiny/train/behaviors\.tsv:\d+: ", outcome.text)
    assert "Traceback" not in outcome.text


def clicks_learned(rank: int, size: int, folder: str) -> None:
    """One of some processes that learn from 17 clicks in batches of 16: of the last one some have none."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), MEETING: f"file://{folder}/meeting-{size}"}
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    settings = SETTINGS.model_copy(update={"loss": "binary", "epochs": 2, "pretrain_epochs": 1})
    told = list[Epoch]()
    with team(torch.device("cpu")) as us:
        model = recommender("id", "llm")
        lessons, validation = planted(17, 1), planted(5, 2)
        Trainer(model, lessons, validation, settings, history=HISTORY, seed=0, team=us).fit(told.append)
    if rank == 0:
        losses = [epoch.train.loss for epoch in told if epoch.train]
        Path(folder, f"{size}.json").write_text(json.dumps([losses, [epoch.validation_auc for epoch in told]]))
        save_file({name: each.contiguous() for name, each in model.state_dict().items()}, Path(folder, f"{size}.st"))


def test_processes_without_a_click_keep_step(tmp_path: Path) -> None:
    for size in (1, 3):
        start_processes(clicks_learned, (size, str(tmp_path)), size)
    (losses, aucs), (shared_losses, shared_aucs) = (
        json.loads((tmp_path / f"{size}.json").read_text()) for size in (1, 3)
    )
    assert len(losses) == 3
    assert shared_losses == pytest.approx(losses, rel=1e-4)
    assert shared_aucs == pytest.approx(aucs, abs=1e-3)
    alone, other = (load_file(tmp_path / f"{size}.st") for size in (1, 3))
    torch.testing.assert_close(other, alone, rtol=0, atol=1e-3)  # a step is .02


def test_a_mistake_that_one_of_them_finds_is_told(project: Project) -> None:
    """The one that writes: the others only see that it is gone."""
    shared(project)
    project.must("rm", "-r", "metrics/speed")
    (project.root / "metrics" / "speed").write_text("a file in its place")
    outcome = project.stage("train")
    assert outcome.code == 8, outcome.text
    assert "ERROR: metrics/speed: could not be written" in outcome.text
    assert "Traceback" not in outcome.text


# --- torchrun


TORCHRUN = ("python", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")


@pytest.mark.slow
def test_torchrun_trains_and_evaluates_as_one_process_does(project: Project, alone: Project) -> None:
    assert alone.stage("evaluate").code == 0
    outcome = project.run(*TORCHRUN, "stages.train")
    assert outcome.code == 0, outcome.text
    require_alike(alone, project)
    assert outcome.text.count("INFO: epoch 1:") == 1
    assert project.run(*TORCHRUN, "stages.evaluate").code == 0
    one, other = (json.loads(each.text("metrics/evaluate/metrics.json")) for each in (alone, project))
    assert one.keys() == other.keys()
    for name in ("auc", "mrr", "ndcg5", "ndcg10"):
        assert other[name] == pytest.approx(one[name], abs=1e-3)
    before, after = (pl.read_parquet(each.root / "data/tiny/predictions/scores.parquet") for each in (alone, project))
    assert after.drop("score").equals(before.drop("score")), "every candidate of every impression, in order"
    assert after["score"].to_list() == pytest.approx(before["score"].to_list(), abs=1e-2)


@pytest.mark.slow
def test_torchrun_and_params_that_disagree_are_told(project: Project) -> None:
    shared(project, 3)
    outcome = project.run(*TORCHRUN, "stages.train")
    assert outcome.code != 0
    assert "train.processes is 3, but 2 processes were started together" in outcome.text


# --- what they exchange


def exchange(rank: int, folder: str) -> None:
    """One of three processes; an assertion that fails ends it."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "3", MEETING: f"file://{folder}/meeting"}
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with team(torch.device("cpu")) as us:
        assert (us.rank, us.size, us.leads) == (rank, 3, rank == 0)
        assert us.sum(torch.tensor([1.0, rank])).tolist() == [3, 3]
        assert us.told(float(rank) + 0.1) == 0.1
        rows = torch.full((rank, 2), rank, dtype=torch.double)  # none, one, two
        assert us.joined(rows).tolist() == [[1, 1], [2, 2], [2, 2]]
        assert us.part.take(np.arange(7)).tolist() == list(range(rank, 7, 3))


def test_three_processes_exchange_sums_words_and_rows(tmp_path: Path) -> None:
    start_processes(exchange, (str(tmp_path),), 3)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [0, 1, 7, 100])
def test_shares_are_whole_and_even(n: int, size: int) -> None:
    shares = [Team(rank, size).own(n) for rank in range(size)]
    assert np.concatenate(shares).tolist() == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_exchanged() -> None:
    rows = torch.ones(2, 2)
    assert ALONE.sum(rows) is rows
    assert ALONE.joined(rows) is rows
    assert ALONE.told(0.5) == 0.5
