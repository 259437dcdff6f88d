"""The part of a project that the embed stage and the commands beside it need: no Git, nothing of DVC but its folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import chdir
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml
from project import FOREIGN, ROOT, Outcome, environment
from typer.testing import CliRunner

from newsfuse.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from openai_server import OpenAIServer

COMPILED = shutil.ignore_patterns("__pycache__")
DIMENSIONS = 8
WIDE = {"COLUMNS": "120", "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True)
class House:
    """A folder with params.yaml, plugins/, stages/ and data/tiny. `provider: openai` at 8 dimensions unless changed."""

    root: Path

    @classmethod
    def build(cls, root: Path) -> House:
        for folder in ("plugins", "stages"):
            shutil.copytree(ROOT / folder, root / folder, ignore=COMPILED)
        shutil.copy(ROOT / "params.yaml", root)
        (root / ".dvc").mkdir()
        house = cls(root)
        for split in ("train", "dev"):
            house.news(split).parent.mkdir(parents=True)
            shutil.copy(ROOT / f"data/tiny/{split}/news.tsv", house.news(split))
        house.choose(provider="openai", dimensions=DIMENSIONS)
        return house

    @property
    def ledger(self) -> Path:
        return self.root / ".newsfuse/ledger.sqlite"

    @property
    def embeddings(self) -> Path:
        return self.root / "data/tiny/embeddings"

    def news(self, split: str) -> Path:
        return self.root / f"data/tiny/{split}/news.tsv"

    def choose(self, **embed: object) -> None:
        """Change settings of the section `embed` of params.yaml."""
        path = self.root / "params.yaml"
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        values["embed"].update(embed)
        path.write_text(yaml.safe_dump(values), encoding="utf-8")

    def fill(self, split: str, articles: Iterable[Sequence[str]]) -> None:
        """Replace the news of a split by articles: (id, title, abstract) of each."""
        lines = (f"{name}\tnews\tworld\t{title}\t{abstract}\t\t[]\t[]\n" for name, title, abstract in articles)
        self.news(split).write_text("".join(lines), encoding="utf-8")

    def newsfuse(self, *words: str, cwd: str = ".", **variables: str) -> Outcome:
        """What the command `newsfuse` does, in this process: most of its time would be the import of torch."""
        foreign = dict.fromkeys(name for name in os.environ if name.startswith(FOREIGN))
        with chdir(self.root / cwd):
            start = time.monotonic()
            done = CliRunner().invoke(app, words, env={**foreign, **WIDE, **variables})
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Outcome(done.exit_code, done.output, time.monotonic() - start)

    def run(self, module: str, *words: str, cwd: str = ".", **variables: str) -> Outcome:
        """What a module does in a process of its own; never longer than a minute."""
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", module, *words], cwd=self.root / cwd, env={**self.environment(), **variables},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout + done.stderr, time.monotonic() - start)

    def environment(self) -> dict[str, str]:
        return {**environment(self.root.parent / "home"), **WIDE}

    def embed(self, server: OpenAIServer) -> Outcome:
        """The embed stage, which buys from the server what it has not bought yet."""
        outcome = self.run("stages.embed", OPENAI_BASE_URL=server.url, OPENAI_API_KEY="sk-test")
        assert outcome.code == 0, outcome.text
        return outcome

    def files(self) -> set[str]:
        """All files and folders there are."""
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")}


def table(text: str) -> dict[str, list[str]]:
    """The rows of the tables in an output, by their first cell; header and rules are left out."""
    rows = ([cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│"))
    return {name: cells for name, *cells in rows}
