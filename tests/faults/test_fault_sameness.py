"""Other surroundings, the same bytes: of embed and graph on any machine, of train on one with as many threads.

docs/determinism.md says what each stage promises. `metrics/embed.json`, the bill, is left out: it says what a run did.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from faults.buyer import BATCH, BATCHES, TITLES, Buyer
from machine import machines, threads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from faults.book import Measured
    from openai_server import OpenAIServer

slow = pytest.mark.slow
OUTS = {
    "embed": ("data/tiny/embeddings", "metrics/embed/cost.csv"),
    "graph": ("data/tiny/graph",),
    "train": ("data/tiny/model", "metrics/train/metrics.json", "metrics/train/plots/metrics"),
}
ARTIFACTS = ("embeddings", "graph", "model", "predictions")
ANYWHERE = ("embed", "graph")
"""The stages whose outs are the same on any machine."""
CODE = ("newsfuse", "plugins", "stages", "data/tiny/train", "data/tiny/dev")
ASCII = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
SURROUNDINGS = {
    "`PYTHONHASHSEED`": {"PYTHONHASHSEED": "20"},
    "`TZ`": {"TZ": "Pacific/Kiritimati"},
    "a locale without UTF-8": ASCII,
}
PLACE = "ein Gerät, 新闻 & 'news'"
"""A folder's name."""


def contents(project: Buyer, *stages: str) -> dict[str, str]:
    """The sha256 of every file of the outs of these stages, by path."""
    outs = [project.root / out for stage in stages for out in OUTS[stage]]
    files = [path for out in outs for path in ([out] if out.is_file() else out.rglob("*")) if path.is_file()]
    return {str(path.relative_to(project.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def made(project: Buyer, *stages: str) -> dict[str, str]:
    """What the stages, run without DVC, one after the other, write."""
    for stage in stages:
        outcome = project.stage(stage)
        assert outcome.code == 0, outcome.text
    return contents(project, *stages)


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Buyer:
    """A project of the shipped data and the free embedder, in which no stage has run; for copying only."""
    project = Buyer.make(tmp_path_factory.mktemp("blank") / "a project", without=("tests/", "docs/", "benchmarks/"))
    project.edit("params.yaml", r"dimensions: \d+", "dimensions: 64")
    return project


@pytest.fixture(scope="module")
def here(blank: Buyer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What embed and graph write here, in no special surroundings."""
    return made(blank.copy(tmp_path_factory.mktemp("here") / "a project"), *ANYWHERE)


@pytest.fixture(scope="module")
def trained(blank: Buyer, tmp_path_factory: pytest.TempPathFactory) -> Buyer:
    """The same after embed, graph and train; for copying only."""
    project = blank.copy(tmp_path_factory.mktemp("trained") / "a project")
    made(project, *OUTS)
    return project


# what was bought


@pytest.mark.parametrize("inputs", [1, 5, 512])
def test_the_size_of_requests_does_not_matter(
    buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured, *, inputs: int
) -> None:
    assert inputs != BATCH
    assert buyer.embed(NEWSFUSE_MAX_INPUTS=str(inputs)).code == 0
    assert buyer.artifact() == unbroken
    assert server.requests == -(-len(TITLES) // inputs)
    done = f"{inputs} texts in a request instead of {BATCH}: the same bytes"
    measured(20, done, code=0, requests=server.requests, twice=server.twice)


def test_the_order_of_answers_does_not_matter(
    buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured
) -> None:
    answered: list[int] = []
    server.before = lambda number: time.sleep(0.3 * (BATCHES - number))
    server.after = answered.append
    assert buyer.embed(NEWSFUSE_CONCURRENCY=str(BATCHES)).code == 0
    assert answered != sorted(answered)
    assert buyer.artifact() == unbroken
    done = f"{BATCHES} requests at once, the last one answered first: the same bytes"
    measured(20, done, code=0, requests=server.requests, twice=server.twice)


def test_a_resumed_purchase_does_not_matter(
    buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured
) -> None:
    server.modes = ["ok", "insufficient_quota"]
    assert buyer.embed().code == 5
    first, server.mode = server.requests, "ok"
    assert buyer.embed().code == 0
    assert buyer.artifact() == unbroken
    done = "half bought, the rest by a second run: the same bytes"
    measured(20, done, code="5, 0", requests=f"{first} / {server.requests - first}", twice=server.twice)


# what is made here


def test_embed_and_graph_write_the_same_bytes_where_everything_is_different(
    blank: Buyer, here: dict[str, str], tmp_path: Path
) -> None:
    """All at once, on the oldest machine; the slow tests take each by itself, to name the one to blame."""
    settings = {name: value for each in SURROUNDINGS.values() for name, value in each.items()}
    oldest = machines()["a Pentium 4, three threads"]
    project = blank.copy(tmp_path / PLACE).under(**settings, **oldest)
    assert made(project, *ANYWHERE) == here


@slow
@pytest.mark.parametrize("machine", machines())
def test_embed_and_graph_write_the_same_bytes_on_any_machine(
    blank: Buyer, here: dict[str, str], tmp_path: Path, machine: str, measured: Measured
) -> None:
    assert made(blank.copy(tmp_path / "a project").under(**machines()[machine]), *ANYWHERE) == here
    measured(
        20, f"embed (`lsa`) and graph on {machine}, as libraries are told: the same bytes", code=0, requests=0, twice=0
    )


@slow
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_embed_graph_and_train_write_the_same_bytes_whatever_the_environment_says(
    blank: Buyer, trained: Buyer, tmp_path: Path, surroundings: str, measured: Measured
) -> None:
    project = blank.copy(tmp_path / "a project").under(**SURROUNDINGS[surroundings])
    assert made(project, *OUTS) == contents(trained, *OUTS)
    measured(20, f"embed, graph and train with another {surroundings}: the same bytes", code=0, requests=0, twice=0)


@slow
@pytest.mark.parametrize("number", [1, 2])
def test_train_writes_the_same_bytes_again_with_the_same_number_of_threads(
    trained: Buyer, tmp_path: Path, number: int, measured: Measured
) -> None:
    first, second = (trained.copy(tmp_path / name).under(**threads(number)) for name in "ab")
    assert made(first, "train") == made(second, "train")
    measured(20, f"train twice under `OMP_NUM_THREADS={number}`: the same bytes", code=0, requests=0, twice=0)


@slow
def test_all_stages_write_the_same_bytes_wherever_the_project_is_and_dvc_is_called(
    trained: Buyer, blank: Buyer, tmp_path: Path, measured: Measured
) -> None:
    project = blank.copy(tmp_path / PLACE)
    folder, command = project.root / "data/tiny/train", ["dvc", "repro", "--all-pipelines"]
    subprocess.run(command, cwd=folder, env=project.environment(), check=True)
    assert contents(project, *OUTS) == contents(trained, *OUTS)
    done = "`dvc repro --all-pipelines` in a subfolder; spaces, quotes and Chinese letters in the path: the same bytes"
    measured(20, done, code=0, requests=0, twice=0)


@slow
def test_all_outs_are_the_same_when_made_twice_from_scratch(blank: Buyer, tmp_path: Path, measured: Measured) -> None:
    """The outs of evaluate, too; neither DVC's cache nor its run-cache knows them the second time."""
    project = blank.copy(tmp_path / "a project")
    project.dvc("repro")
    first = project.locked()
    (project.root / "dvc.lock").unlink()
    for folder in (".dvc/cache", ".dvc/tmp", ".newsfuse", "metrics", *(f"data/tiny/{name}" for name in ARTIFACTS)):
        shutil.rmtree(project.root / folder, ignore_errors=True)
    assert project.dvc("repro").ran == ["embed", "graph", "train", "evaluate"]
    assert project.locked() == first
    measured(20, "`dvc repro` twice from scratch, no cache: the same hashes of all outs", code=0, requests=0, twice=0)


@slow
def test_code_and_data_may_be_read_only(blank: Buyer, trained: Buyer, tmp_path: Path, measured: Measured) -> None:
    project = blank.copy(tmp_path / "a project")
    with read_only(project, CODE):
        assert made(project, *OUTS) == contents(trained, *OUTS)
    measured(20, "embed, graph and train from read-only code and data: the same bytes", code=0, requests=0, twice=0)


@contextmanager
def read_only(project: Buyer, names: tuple[str, ...]) -> Iterator[None]:
    """Nobody can write into these folders, nor can root, whom their modes do not keep from it."""
    folders = [project.root / name for name in names]
    with ExitStack() as stack:
        for folder in folders:
            if subprocess.run(["mount", "--bind", folder, folder], capture_output=True, check=False).returncode:
                pytest.skip("only root may mount a folder")
            stack.callback(subprocess.check_call, ["umount", "--lazy", folder])
            subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (folders[0] / "new").touch()
        yield
