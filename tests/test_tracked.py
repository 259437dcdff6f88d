"""Data sets are put under DVC: what is said when that has to wait."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from dvc.repo import Repo
from project import Project, missing

from newsfuse.errors import BusyError, StorageError
from newsfuse.tracked import track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """data/demo of a project, not tracked yet."""
    if reason := missing():
        pytest.skip(reason)
    project = Project(tmp_path / "a project")
    (project.root / "data/demo").mkdir(parents=True)
    (project.root / "data/demo/news.tsv").write_text("N1")
    project.must("git", "init", "--quiet")
    project.must("dvc", "init", "--quiet")
    for name, value in project.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return project.root / "data/demo"


def another_dvc(root: Path) -> AbstractContextManager[object]:
    """At work in the project."""
    with Repo(str(root)) as repo:
        return repo.lock


@contextmanager
def a_stage(root: Path) -> Iterator[None]:
    """Of this process, that reads the data."""
    reader = {"read": {str(root / "data/demo"): [{"pid": os.getpid(), "cmd": "dvc repro"}]}}
    (root / ".dvc/tmp").mkdir(exist_ok=True)
    (root / ".dvc/tmp/rwlock").write_text(json.dumps(reader))
    yield


@contextmanager
def another_git(root: Path) -> Iterator[None]:
    """That writes the index."""
    (root / ".git/index.lock").touch()
    yield


@pytest.mark.parametrize("other", [another_dvc, a_stage, another_git])
def test_who_finds_the_project_busy_is_told_to_wait_and_what_to_type_then(
    folder: Path, other: Callable[[Path], AbstractContextManager[object]]
) -> None:
    root = folder.parents[1]
    with other(root), pytest.raises(BusyError) as raised:
        track([folder])
    command = "git add data/demo.dvc data/.gitignore" if other is another_git else "dvc add data/demo"
    assert str(raised.value).endswith(f"Wait for its end. In {root}, type: {command}")
    assert raised.value.exit_code == 75
    assert (folder / "news.tsv").exists()


def test_another_failure_is_not_taken_for_a_busy_project(folder: Path) -> None:
    (folder.parents[1] / ".dvc/config").write_text("[core")
    with pytest.raises(StorageError, match=r"not tracked\. In "):
        track([folder])
