"""A stranger: somebody who has a wheel of newsfuse in an environment of their own, and not this source tree."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from project import ROOT, Outcome, Project, _files


@dataclass(frozen=True)
class Clone(Project):
    """A project whose commands are those of a stranger's environment."""

    bin: Path = Path()

    def environment(self) -> dict[str, str]:
        variables = super().environment()
        # no other newsfuse may answer where the stranger's should
        others = [each for each in variables["PATH"].split(os.pathsep) if not Path(each, "newsfuse").exists()]
        return {**variables, "PATH": os.pathsep.join([str(self.bin), *others])}


@dataclass(frozen=True)
class Stranger:
    """A virtual environment with what a wheel of newsfuse brings, and pytest."""

    home: Path
    """Holds the environment and all that the stranger makes. No project."""

    @classmethod
    def make(cls, home: Path) -> Self:
        """Build the wheel from the files that Git does not ignore, and install it as the Makefile would."""
        stranger = cls(home)
        subprocess.run([sys.executable, "-m", "venv", stranger.bin.parent], check=True)
        pinned = ("--constraint", str(ROOT / "constraints.txt"))
        stranger.pip("setuptools>=77")
        stranger.pip("--no-deps", "torch", *pinned, *_index())
        stranger.pip(str(stranger._wheel()), "pytest", *pinned)
        return stranger

    @property
    def bin(self) -> Path:
        return self.home / "environment" / "bin"

    def must(self, *command: str) -> Outcome:
        """A command that has to succeed, outside of any project."""
        return Clone(self.home, self.bin).must(*command)

    def pip(self, *arguments: str) -> None:
        self.must("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments)

    def install(self, package: Path) -> None:
        """A package's folder, without fetching again what builds it."""
        self.pip("--no-build-isolation", str(package))

    def clone(self, name: str) -> Clone:
        """A project of theirs. It has the newsfuse folder, as a clone does, whose files dvc.yaml names as dependencies.

        `python -m stages.train` finds that one first; the command `newsfuse` and packages' tests have the wheel.
        """
        return replace(Clone.make(self.home / name), bin=self.bin)

    def _wheel(self) -> Path:
        source, dist = self.home / "source", self.home / "dist"
        for name in _files():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
        building = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(dist))
        self.must("python", "-m", "pip", *building, str(source))
        shutil.rmtree(source)  # nothing may be found there that the wheel lacks
        (wheel,) = dist.iterdir()
        return wheel


def _index() -> list[str]:
    """Where the Makefile finds torch without CUDA."""
    found = re.search(r"^INDEX_cpu = (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert found, "the Makefile has no INDEX_cpu"
    return found[1].split()
