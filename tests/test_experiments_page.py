"""Every command of docs/experiments.md is run, in the order in which a reader comes to it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from dvc.cli import parse_args
from project import ROOT, Project
from test_readme import finish_queue

from newsfuse.cli import app
from newsfuse.environment import Environment

PAGE = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^(In a colleague's clone:\n\n)?^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
MENTIONED = re.findall(r"`((?:dvc|newsfuse) [^`\n]+)`", PAGE)
REMOTE = "/srv/news-store"
"""The page's remote of DVC."""


def stored(project: Project) -> set[Path]:
    """The files in the remote, which lies beside the project."""
    return {path for path in (project.root.parent / "store").rglob("*") if path.is_file()}


def shared(project: Project) -> Project:
    """The project, with a Git remote; and a colleague's clone of that, not made yet."""
    bare = project.root.parent / "origin.git"
    project.must("git", "init", "--quiet", "--bare", str(bare))
    project.must("git", "remote", "add", "origin", str(bare))
    project.must("git", "push", "--quiet", "origin", "HEAD:main")
    project.must("git", "--git-dir", str(bare), "symbolic-ref", "HEAD", "refs/heads/main")
    return Project(project.root.parent / "a clone")


def run(project: Project, command: str) -> str:
    """What the command prints as bash runs it, once the experiments that it may have started are done."""
    outcome = project.run("bash", "-c", command.replace(REMOTE, shlex.quote(str(project.root.parent / "store"))))
    assert outcome.code == 0, f"{command}\n{outcome.text}"
    if command.startswith("dvc queue start"):
        finish_queue(project)
    return outcome.text


@pytest.mark.slow
def test_the_investigation_of_the_page_can_be_done(project: Project) -> None:
    clone, printed = shared(project), {}
    for is_colleagues, block in BLOCKS:
        if is_colleagues:
            project.must("git", "push", "--quiet", "origin", "HEAD:main")
            project.must("git", "clone", "--quiet", str(project.root.parent / "origin.git"), str(clone.root))
        for command in block.splitlines():
            printed[command] = run(clone if is_colleagues else project, command)
    assert "Failed" not in project.dvc("queue", "status").text
    assert "differences to HEAD" in printed["newsfuse compare HEAD decided"]
    assert re.search(r"^  category: false$", clone.text("params.yaml"), re.MULTILINE)
    described = project.text("change.md")
    assert "encoders.category" in described
    assert "| AUC | fewer |" in described
    before = stored(project)
    assert before
    project.dvc("exp", "push", "origin", "gate-1")
    assert list((project.root / ".newsfuse/tensorboard/watched").glob("events.*")), "TensorBoard has no curves"
    assert stored(project) == before, "DVC pushes files of experiments older than the remote: the page says it does not"


def test_the_commands_of_the_page_have_the_arguments_that_they_take() -> None:
    commands = [line for _, block in BLOCKS for line in block.splitlines()]
    assert len(commands) > 30
    for command in commands:
        program, *words = shlex.split(re.sub(r"^[A-Z_]+=\S+ ", "", command.partition(" >")[0]))
        if program in PARSERS:
            PARSERS[program](words)


def test_the_variables_of_the_page_are_those_that_newsfuse_reads() -> None:
    found = dict(re.findall(r"\b(NEWSFUSE_[A-Z_]+)=(\S+)", PAGE))
    assert Environment.read(found).tensorboard == Path(".newsfuse/tensorboard")
    assert f"tensorboard --logdir {found['NEWSFUSE_TENSORBOARD']}" in PAGE


@pytest.mark.parametrize("command", sorted(set(MENTIONED)))
def test_a_command_mentioned_in_passing_exists_with_its_options(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program, *words = shlex.split(command)
    with pytest.raises((SystemExit, typer.Exit)):
        PARSERS[program]([*words, "--help"])
    shown = capsys.readouterr().out
    assert "usage" in shown.lower()
    assert all(word in shown for word in words if word.startswith("--"))


def parsed(words: list[str]) -> None:
    """What `newsfuse` does before it does anything: an unknown command or option raises."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    context = typer.Context(group, info_name="newsfuse")
    name, command, rest = group.resolve_command(context, words)
    assert command is not None
    command.make_context(name, rest, parent=context)


PARSERS = {"dvc": parse_args, "newsfuse": parsed}
