"""What tests share."""

import os
from pathlib import Path

import pytest
from project import Outcome, Project, missing

# before anything imports dgl: without it dgl writes to the home folder
os.environ.setdefault("DGLBACKEND", "pytorch")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run the tests that take long")
    parser.addoption("--write-faults", action="store_true", help="write docs/faults.md from what tests/faults measures")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes long, by itself or with others like it; run with --run-slow")
    config.addinivalue_line("markers", "gpu: needs CUDA, and is skipped where there is none; `-m gpu` runs these alone")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--run-slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes long: --run-slow runs it"))


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Outcome]:
    """A project in which `dvc repro` has run once, and what that printed. For reading only; dvc.lock is uncommitted."""
    if reason := missing():
        pytest.skip(reason)
    project = Project.make(tmp_path_factory.mktemp("repro") / "a project")  # the space breaks what does not quote
    return project, project.run("dvc", "repro")


@pytest.fixture
def project(reproduced: tuple[Project, Outcome], tmp_path: Path) -> Project:
    """The test's own copy of the reproduced project, dvc.lock committed: a change reruns only what depends on it."""
    original, outcome = reproduced
    assert outcome.code == 0, outcome.text
    copy = original.copy(tmp_path / "a project")
    copy.commit()
    return copy
