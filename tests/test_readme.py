"""Every command of the README is run, in the order in which a reader comes to it."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai_server import OpenAIServer
from project import ROOT, Outcome, Project

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
NEW = "newsfuse new encoder length"
ELSEWHERE = {
    "make run": ".ci/run runs it",
    "make test": ".ci/run runs it",
    "docker build -t newsfuse .": "scripts/image-test runs it",
    'docker run --rm -v "$PWD:/work" newsfuse': "scripts/image-test runs it",
    "source .venv/bin/activate": "the project's commands are on the path already",
}


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer("ok") as running:
        yield running


def shell(project: Project, server: OpenAIServer, command: str) -> Outcome:
    """The command as bash runs it, after the lines that set variables."""
    exports = [line for line in COMMANDS if line.startswith("export ")]
    script = "\n".join([f"export OPENAI_BASE_URL={server.url}", *exports, command])
    return project.run("bash", "-c", script)


def finish_queue(project: Project) -> None:
    """Wait until no experiment is queued or running."""
    deadline = time.monotonic() + 600
    while re.search(r"Queued|Running", project.dvc("queue", "status").text):
        assert time.monotonic() < deadline, "the queue does not come to an end"
        time.sleep(2)


@pytest.mark.slow
def test_every_command_of_the_readme_runs(project: Project, server: OpenAIServer) -> None:
    shutil.copytree(project.root / "data/tiny/train", project.root / "data/small/train")
    shutil.copytree(project.root / "data/tiny/dev", project.root / "data/small/dev")
    plugin = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert plugin
    for command in COMMANDS:
        if command == NEW:  # a section by itself: what others have set would be compared with it
            project.must("git", "checkout", "--quiet", ".")
            project.must("dvc", "checkout", "--quiet")
        if command not in ELSEWHERE:
            outcome = shell(project, server, command)
            assert outcome.code == 0, f"{command}\n{outcome.text}"
            if command == "dvc queue start":
                finish_queue(project)
            if command == NEW:
                (project.root / "plugins/encoders/length.py").write_text(plugin.group(1), encoding="utf-8")
    assert server.billed > 0
    shown = project.dvc("exp", "show", "--csv").text
    assert "encoders.length" in shown.splitlines()[0]


def test_a_new_encoder_takes_three_commands_and_one_file() -> None:
    section = README.split("## Add an encoder: three commands, one file\n")[1].split("\n## ")[0]
    commands = [line for block in re.findall(r"```bash\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 3
    assert section.count("```python") == 1


def test_the_picture_of_the_flow_is_that_of_dvc_yaml(reproduced: tuple[Project, Outcome]) -> None:
    picture = re.search(r"```mermaid\n(.*?)```", README, re.DOTALL)
    assert picture
    drawn = reproduced[0].dvc("dag", "--mermaid").text
    assert sorted(picture.group(1).split()) == sorted(drawn.split())


def test_the_plugin_of_the_readme_is_linted_as_ours_are(tmp_path: Path) -> None:
    plugin = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert plugin
    (tmp_path / "length.py").write_text(plugin.group(1), encoding="utf-8")
    config = ["--config", str(ROOT / "pyproject.toml"), "--ignore", "ARG001,D103,INP001"]
    done = subprocess.run(["ruff", "check", *config, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
