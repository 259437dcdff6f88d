"""Fault 24: training is killed. It goes on from the last whole bookmark, to the bytes of an unbroken run."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from project import Project, missing

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

    from faults.book import Measured

MODEL, CURVES, BOOKMARKS = "data/tiny/model", "metrics/train/plots/metrics/validation", ".newsfuse/training"
TRAIN = ("python", "-m", "stages.train")
GOES_ON = "training was interrupted and goes on"
EPOCHS = 5
"""Two of pre-training, two of training, the untrained model."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which training was not interrupted."""
    if reason := missing():
        pytest.skip(reason)
    project = Project.make(tmp_path_factory.mktemp("unbroken") / "a project", without=("tests/", "docs/"))
    for name in ("pretrain_epochs", "epochs"):
        project.edit("params.yaml", f"  {name}: 1", f"  {name}: 2")
    project.edit("params.yaml", "  id: false", "  id: true")
    project.dvc("repro", "embed", "graph")
    project.must(*TRAIN)
    return project


@pytest.fixture
def project(unbroken: Project, tmp_path: Path) -> Project:
    copy = unbroken.copy(tmp_path / "a project")
    copy.must("rm", "-r", MODEL)  # as DVC does before it runs the stage
    return copy


def killed(project: Project, words: str, command: Sequence[str] = TRAIN) -> None:
    """Train; SIGKILL to all that runs for it when this was said."""
    running = project.started(*command)
    assert running.stderr
    said = next((line for line in running.stderr if words in line), None)
    end(running)
    assert said, f"{words} was not said"


def end(running: subprocess.Popen[str]) -> None:
    for process in psutil.Process(running.pid).children(recursive=True):
        process.kill()
    running.kill()
    running.communicate()
    assert running.returncode == -signal.SIGKILL


def require_same(project: Project, unbroken: Project) -> None:
    assert project.hashes(MODEL) == unbroken.hashes(MODEL)
    assert project.hashes(CURVES) == unbroken.hashes(CURVES)
    assert project.text("metrics/train/metrics.json") == unbroken.text("metrics/train/metrics.json")
    assert not any((project.root / BOOKMARKS).iterdir())


def require_goes_on(project: Project, unbroken: Project) -> None:
    outcome = project.stage("train")
    assert outcome.code == 0
    assert GOES_ON in outcome.text
    require_same(project, unbroken)


def test_killed_once_it_goes_on(project: Project, unbroken: Project, measured: Measured) -> None:
    killed(project, "epoch 3:")
    require_goes_on(project, unbroken)
    done = "SIGKILL after epoch 3; run again: the bytes of an unbroken run"
    measured(24, done, code="137, 0", requests=0, twice=0)


@pytest.mark.slow
def test_killed_after_every_epoch_and_while_learning_again(
    project: Project, unbroken: Project, measured: Measured
) -> None:
    for words in [*(f"epoch {number}:" for number in range(EPOCHS)), "learning again"]:
        killed(project, words)
        assert not (project.root / MODEL).exists()
    require_goes_on(project, unbroken)
    done = (
        "SIGKILL after each epoch in turn, and when all days are learned from; run again: the bytes of an unbroken run"
    )
    measured(24, done, code="137, ..., 0", requests=0, twice=0)


@pytest.mark.slow  # tests/test_bookmarks.py has every step of a smaller training, in one process
def test_killed_in_the_middle_of_epochs(project: Project, unbroken: Project, measured: Measured) -> None:
    """At whatever is done then, the writing of a bookmark included: one is due after each batch."""
    for further in (1, 2, 3, 5, 8, 13, 21, 34):
        running, before = project.started("env", "NEWSFUSE_BOOKMARK_MINUTES=1e-9", *TRAIN), latest(project)
        while latest(project) < before + further and running.poll() is None:
            time.sleep(0.002)
        end(running)
    require_goes_on(project, unbroken)
    done = "SIGKILL some batches after the last one, eight times; run again: the bytes of an unbroken run"
    measured(24, done, code="137, ..., 0", requests=0, twice=0)


def latest(project: Project) -> int:
    """The number of the last bookmark."""
    return max((int(path.name) for path in (project.root / BOOKMARKS).glob("*/[0-9]*")), default=0)


def test_other_inputs_start_over_and_say_so(project: Project, measured: Measured) -> None:
    killed(project, "epoch 2:")
    project.edit("params.yaml", "(?m)^seed: 0", "seed: 1")
    project.append("plugins/encoders/id.py", "# another comment\n")
    outcome = project.stage("train")
    assert outcome.code == 0
    assert "training starts over: the one that was interrupted differs in seed, the code" in outcome.text
    assert GOES_ON not in outcome.text
    done = "SIGKILL after epoch 2; seed and code changed, run again: it starts over, and says what differs"
    measured(24, done, code="137, 0", requests=0, twice=0)


@pytest.mark.slow
def test_dvc_repro_goes_on_too(unbroken: Project, tmp_path: Path) -> None:
    """DVC removes the stage's outs first, curves included: they are written again."""
    project = unbroken.copy(tmp_path / "a project")
    killed(project, "epoch 2:", ("dvc", "repro"))
    outcome = project.dvc("repro")
    assert GOES_ON in outcome.text
    require_same(project, unbroken)
    assert not project.would_run()
