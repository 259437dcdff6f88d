"""A real Git and DVC project in a temporary folder, made from this working tree, to run the real commands in."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import yaml

ROOT = Path(__file__).parents[1]
SMALL = {"dim": 32, "epochs": 1, "pretrain_epochs": 1}
"""Settings of the shipped params.yaml that only cost time here."""
FOREIGN = ("OPENAI_", "NEWSFUSE_", "DVC", "GIT_", "PYTHONPATH", "PYTEST_")
"""Variables of whoever runs the tests (dvc and git hooks among them) that the project must not see."""


@dataclass(frozen=True)
class Outcome:
    """What a command did: its exit code, all that it printed (standard error last) and how long it took."""

    code: int
    text: str
    seconds: float

    @property
    def ran(self) -> list[str]:
        """The stages that DVC ran (with --dry: would run), in order."""
        return re.findall(r"^Running stage '(\w+)':$", self.text, re.MULTILINE)


@dataclass(frozen=True)
class Project:
    """The root of a project. Paths are relative to it."""

    root: Path

    @classmethod
    def make(cls, root: Path, without: tuple[str, ...] = ()) -> Self:
        """A new project with one commit: the files of this working tree that Git does not ignore, and no dvc.lock.

        Nor files whose path begins with one of `without`.
        """
        root.mkdir(parents=True)
        project = cls(root)
        for name in (name for name in _files() if not name.startswith(without)):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
        (root / "dvc.lock").unlink(missing_ok=True)
        for key, value in SMALL.items():
            project.edit("params.yaml", rf"(?m)^  {key}: \d+", f"  {key}: {value}")
        project.must("git", "init", "--quiet")
        project.commit()
        return project

    def copy(self, root: Path) -> Self:
        """All of it, DVC's cache included: nothing that is done to the copy reaches this one."""
        shutil.copytree(self.root, root, symlinks=True)
        return replace(self, root=root)

    def environment(self) -> dict[str, str]:
        return environment(self.root.parent / "home")

    def run(self, *command: str) -> Outcome:
        start = time.monotonic()
        done = subprocess.run(
            command, cwd=self.root, env=self.environment(), capture_output=True, text=True, check=False, timeout=600
        )
        return Outcome(done.returncode, done.stdout + done.stderr, time.monotonic() - start)

    def started(self, *command: str) -> subprocess.Popen[str]:
        """The command, still running; what it prints on standard error can be read."""
        return subprocess.Popen(command, cwd=self.root, env=self.environment(), stderr=subprocess.PIPE, text=True)

    def must(self, *command: str) -> Outcome:
        """`run` of a command whose success is not what the test is about."""
        outcome = self.run(*command)
        assert outcome.code == 0, f"{command} ended with {outcome.code}:\n{outcome.text}"
        return outcome

    def dvc(self, *arguments: str) -> Outcome:
        """`dvc` with these arguments, which must succeed."""
        return self.must("dvc", *arguments)

    def would_run(self) -> list[str]:
        """The stages that `dvc repro` would run by what has changed so far; later ones may follow from their outs."""
        return self.dvc("repro", "--dry").ran

    def stage(self, name: str) -> Outcome:
        """The stage's command by itself, without DVC."""
        return self.run("python", "-m", f"stages.{name}")

    def commit(self) -> None:
        self.must("git", "add", "--all")
        self.must("git", "commit", "--quiet", "--message", "all")

    def changes(self) -> list[str]:
        """What `git status` shows: changed and untracked files that are not ignored."""
        return self.must("git", "status", "--porcelain", "--untracked-files=all").text.splitlines()

    def edit(self, path: str, pattern: str, replacement: str) -> None:
        """Replace the first match of `pattern`, which must be there."""
        text, count = re.subn(pattern, replacement, self.text(path), count=1)
        assert count == 1, f"{path} has no {pattern!r}"
        (self.root / path).write_text(text, encoding="utf-8")

    def append(self, path: str, text: str) -> None:
        with (self.root / path).open("a", encoding="utf-8") as file:
            file.write(text)

    def text(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8")

    def lines(self, path: str) -> list[str]:
        return self.text(path).splitlines()

    def hashes(self, folder: str) -> dict[str, str]:
        """The sha256 of each file in the folder."""
        return {path.name: _sha256(path) for path in sorted((self.root / folder).iterdir())}

    def locked(self) -> dict[str, str]:
        """The md5 of every out, by path, as dvc.lock has it."""
        stages: dict[str, Any] = yaml.safe_load(self.text("dvc.lock"))["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def environment(home: Path) -> dict[str, str]:
    """This process's environment, with the Python and the dvc that run the tests and nobody's own settings.

    `home` is where DVC looks for the user's and the machine's settings, and keeps what it keeps for all projects.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    who = {f"GIT_{role}_{what}": "tester@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    dvc = {f"DVC_{name}_DIR": str(home / name) for name in ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE")}
    git = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    return {**kept, **who, **dvc, **git, "PATH": path, "DVC_NO_ANALYTICS": "1"}


def missing() -> str:
    """Why no project can be made here, "" if one can."""
    if not (ROOT / ".git").exists():
        return "a project is made from the files that Git knows, and this is no Git checkout"
    absent = [name for name in ("git", "dvc") if not shutil.which(name, path=environment(ROOT)["PATH"])]
    return f"not installed: {', '.join(absent)}" if absent else ""


def _files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, env=environment(ROOT), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
