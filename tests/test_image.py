"""What can be said of the image without an engine. scripts/image-test builds and runs it."""

import argparse
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from dvc.cli.command import CmdBaseNoRepo
from dvc.cli.parser import COMMANDS
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from project import environment
from typer.main import get_command

from newsfuse.cli import app
from scripts.image import entrypoint

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / "scripts" / "image"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
PATIENCE_S = 60

linux = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's, and so is the image")


def instructions(name: str) -> list[str]:
    """What stands behind this instruction of the Dockerfile, wherever it is used."""
    return re.findall(rf"^{name} +(.+)$", DOCKERFILE, re.MULTILINE)


def requirements(name: str) -> dict[str, str]:
    """The version of each package that the file lists, by canonical name."""
    text = (IMAGE / f"{name}.txt").read_text(encoding="utf-8")
    pairs = re.findall(r"^([\w.-]+)==([\w.+]+)", text, re.MULTILINE)
    return {canonicalize_name(each): version for each, version in pairs}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    return {canonicalize_name(name): version for name, version in pairs}


# --- what is in it


def test_the_base_is_named_by_its_digest_and_can_be_another() -> None:
    assert re.fullmatch(r"BASE=python:3\.11-slim@sha256:[0-9a-f]{64}", instructions("ARG")[0])
    assert instructions("FROM") == ["${BASE} AS build", "${BASE}"]


def test_only_two_kinds_of_image_can_be_built() -> None:
    check = next(each for each in instructions("RUN") if "$COMPUTE" in each).split("&&")[0]
    for compute, code in (("cpu", 0), ("cuda", 0), ("gpu", 2), ("", 2)):
        done = subprocess.run(["sh", "-c", check], env={"COMPUTE": compute}, capture_output=True, check=False)
        assert done.returncode == code
        assert code == 0 or b"expected cpu or cuda" in done.stderr
        assert code or (IMAGE / f"torch-{compute}.txt").is_file()


def test_it_runs_as_nobody_in_particular_under_an_init_that_signals_the_whole_group() -> None:
    assert instructions("USER") == ["1000:1000"]
    assert instructions("ENTRYPOINT") == ['["tini", "-g", "--", "/opt/newsfuse/image/entrypoint"]']
    assert instructions("CMD") == ['["repro"]']
    assert instructions("WORKDIR")[-1] == "/work"


def test_every_variable_that_the_page_names_is_set() -> None:
    variables = dict(pair.split("=", 1) for each in instructions("ENV") for pair in each.split())
    page = (ROOT / "docs" / "image.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)=(\S+)` \|", page, re.MULTILINE))
    assert told
    assert told.items() <= variables.items()
    assert {"DVC_NO_ANALYTICS", "DVC_SITE_CACHE_DIR", "HOME", "PYTHONPATH"} <= told.keys()
    assert not [name for name in variables if "KEY" in name]


def test_what_is_copied_is_let_through_and_nothing_else_is() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_through = [line.removeprefix("!") for line in lines if line.startswith("!")]
    sources = [source for each in instructions("COPY") if "--from" not in each for source in copied(each)]
    for source in sources:
        assert list(ROOT.glob(source)), source
        assert [each for each in let_through if fnmatch(source, each) or source.startswith(f"{each}/")], source
    for each in let_through:
        assert [source for source in sources if source == each or source.startswith(f"{each}/")], each


def copied(line: str) -> list[str]:
    words = [word for word in line.split() if not word.startswith("--")]
    return [word.replace("${COMPUTE}", compute) for word in words[:-1] for compute in ("cpu", "cuda")]


# --- the hashes


@pytest.mark.parametrize("name", ["build", "library", "torch-cpu", "torch-cuda"])
def test_every_file_that_is_installed_has_a_hash(name: str) -> None:
    text = re.sub(r"^(#|--).*\n", "", (IMAGE / f"{name}.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert re.fullmatch(r"(?:[\w.-]+==[\w.+]+(?: ;[^\\\n]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n)+", text)


def test_the_hashes_are_those_of_the_versions_in_constraints() -> None:
    library, pinned = requirements("library"), constraints()
    assert library.items() <= pinned.items(), "run scripts/image-lock"
    assert requirements("torch-cpu") == {"torch": f"{pinned['torch']}+cpu"}
    assert requirements("torch-cuda")["torch"] == pinned["torch"]


def test_nothing_that_newsfuse_needs_is_left_out() -> None:
    known = {*requirements("library"), *requirements("torch-cuda"), *requirements("build")}
    assert set(needed("newsfuse", "report")) - {"newsfuse"} - known == set(), "run scripts/image-lock"


def needed(name: str, *extras: str) -> set[str]:
    """All that a package needs on an x86-64 Linux with Python 3.11, by canonical name, as what is installed says."""
    found: set[tuple[str, tuple[str, ...]]] = set()
    waiting: list[tuple[str, tuple[str, ...]]] = [(canonicalize_name(name), extras)]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += direct(*each)
    return {each for each, _ in found}


LINUX = {
    "implementation_name": "cpython", "os_name": "posix", "platform_machine": "x86_64", "platform_system": "Linux",
    "platform_python_implementation": "CPython", "python_full_version": "3.11.9", "python_version": "3.11",
    "sys_platform": "linux",
}  # fmt: skip


def direct(name: str, extras: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What it asks for itself. Nothing for what is not installed here: other builds of torch need more."""
    try:
        lines = distribution(name).requires or []
    except ModuleNotFoundError:
        return
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**LINUX, "extra": extra}) for extra in ("", *extras)):
            yield canonicalize_name(requirement.name), tuple(sorted(requirement.extras))


# --- the words


def test_newsfuses_own_commands_and_dvcs_are_known() -> None:
    ours = set(getattr(get_command(app), "commands", ()))
    theirs = {word for module in COMMANDS for word, _ in dvc_words(module)}
    assert set(entrypoint.NEWSFUSE) == ours
    assert set(entrypoint.DVC) == theirs - ours - PROGRAMS


def test_what_dvc_does_without_a_repository_is_known() -> None:
    words = [each for module in COMMANDS for each in dvc_words(module)]
    assert set(entrypoint.ALONE) == {word for word, does in words if does and issubclass(does, CmdBaseNoRepo)}
    assert {*entrypoint.READING} <= {*entrypoint.DVC} - {*entrypoint.ALONE}


PROGRAMS = {"ls", "ls-url", "mv", "rm"}
"""Other names of `dvc list`, `move` and `remove`, which mean the programs by themselves."""


def dvc_words(module: Any) -> Iterator[tuple[str, type | None]]:  # noqa: ANN401 - a module of DVC's
    """The commands that it adds, each with its class, without those that its help hides."""
    parser = argparse.ArgumentParser(add_help=False)
    commands = parser.add_subparsers()
    module.add_parser(commands, argparse.ArgumentParser(add_help=False))
    listed = commands._choices_actions  # noqa: SLF001 - argparse has no other list without aliases' help
    shown = {action.dest for action in listed if action.help != argparse.SUPPRESS}
    for word, sub in commands.choices.items():
        if sub.prog.split()[-1] in shown:
            yield word, sub.get_default("func")


class Ended(NamedTuple):
    """What a command did."""

    code: int
    text: str


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A folder for PATH with a `dvc`, a `newsfuse` and a `tool` that say what they were given."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "params.yaml").touch()
    for name in ("dvc", "newsfuse", "tool"):
        program(tmp_path, name, f'echo {name} "$@"')
    return tmp_path


def program(box: Path, name: str, script: str) -> None:
    path = box / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def begun(box: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", str(IMAGE / "entrypoint.py"), *words]
    settings = {"PATH": f"{box}:/usr/bin:/bin", "HOME": str(box), **variables}
    return subprocess.Popen(
        command, cwd=box / "work", env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def entered(box: Path, *words: str, **variables: str) -> Ended:
    with begun(box, *words, **variables) as process:
        text, _ = process.communicate(timeout=PATIENCE_S)
    return Ended(process.returncode, text)


def told(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout
    return process.stdout.readline()


def tell(process: subprocess.Popen[str], number: signal.Signals) -> Ended:
    """Signal the whole group, as tini -g does, and wait."""
    os.killpg(process.pid, number)
    text, _ = process.communicate(timeout=PATIENCE_S)
    return Ended(process.returncode, text)


@linux
@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("", "dvc repro"),
        ("repro -f", "dvc repro -f"),
        ("exp run -S fusion=gate", "dvc exp run -S fusion=gate"),
        ("diff", "dvc diff"),
        ("plan --provider openai", "newsfuse plan --provider openai"),
        ("fetch small", "newsfuse fetch small"),
        ("dvc fetch", "dvc fetch"),
        ("newsfuse show", "newsfuse show"),
        ("--help", "newsfuse --help"),
        ("tool --its=own", "tool --its=own"),
    ],
)
def test_a_word_is_newsfuses_or_dvcs_or_a_program(box: Path, words: str, command: str) -> None:
    assert entered(box, *words.split()) == (0, f"{command}\n")


@linux
@pytest.mark.parametrize(
    ("word", "near"), [("rerpo", " Did you mean 'repro'?"), ("sohw", " Did you mean 'show'?"), ("xyzzy", "")]
)
def test_a_mistyped_word_is_told(box: Path, word: str, near: str) -> None:
    message = f"ERROR: newsfuse and DVC have no command '{word}', the image no such program.{near}"
    assert entered(box, word) == (2, f"{message} See --help and dvc --help\n")


@linux
@pytest.mark.parametrize("words", ["", "exp run", "dvc -q exp run", "metrics show"])
def test_a_forgotten_mount_is_told(box: Path, words: str) -> None:
    (box / "work" / "params.yaml").unlink()
    code, text = entered(box, *words.split())
    assert code == 2
    assert text.endswith(f'work is empty: mount a repository, docker run --rm -v "$PWD:{box / "work"}" newsfuse\n')


@linux
@pytest.mark.parametrize("words", ["version", "dvc --help", "dvc", "exp run --help", "get somewhere this"])
def test_what_needs_no_repository_is_done_without_one(box: Path, words: str) -> None:
    (box / "work" / "params.yaml").unlink()
    assert entered(box, *words.split()) == (0, f"dvc {words.removeprefix('dvc').strip()}".rstrip() + "\n")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("repro", 8), ("exp show", 8), ("-v queue start", 8), ("status", 8),
        ("metrics show", 0), ("dag", 0), ("repro --help", 0), ("version", 0),
    ],
)  # fmt: skip
def test_only_what_writes_needs_leave_to_write(
    words: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)  # root may write anywhere
    found, why = 0, ""
    try:
        entrypoint.check_mount(["dvc", *words.split()])
    except entrypoint.RefusedError as error:
        found, why = error.exit_code, str(error)
    assert found == code
    assert code == 0 or re.match("user .* may not write into .* --userns=keep-id", why)


# --- how it ends


@linux
def test_it_ends_as_what_it_ran_ended(box: Path) -> None:
    program(box, "dvc", "exit 7")
    program(box, "newsfuse", "kill -9 $$")
    assert entered(box).code == 7
    assert entered(box, "plan").code == 137


@linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stage_may_finish_what_it_has_paid_for_after_dvc_has_died(box: Path, number: signal.Signals) -> None:
    program(box, "stage", "trap 'sleep 0.5; touch paid; exit' TERM INT; echo ready; while :; do sleep 0.05; done")
    program(box, "dvc", "stage; exit 1")  # a shell that waits dies of either signal at once
    with begun(box) as process:
        assert told(process) == "ready\n"
        os.killpg(process.pid, number)
        assert process.wait(PATIENCE_S) == 128 + number
        assert (box / "work" / "paid").exists()


@linux
def test_it_ends_after_what_went_into_the_background(box: Path) -> None:
    program(box, "dvc", "setsid sh -c 'sleep 0.5; touch worked_off' & exit 3")
    with begun(box, "queue", "start") as process:
        assert process.wait(PATIENCE_S) == 3
        assert (box / "work" / "worked_off").exists()


@linux
def test_a_signal_does_not_wait_for_what_it_cannot_reach(box: Path) -> None:
    program(box, "dvc", "setsid sleep 15 >/dev/null 2>&1 & echo ready")
    with begun(box, "queue", "start") as process:
        assert told(process) == "ready\n"
        time.sleep(0.3)  # dvc has ended, its worker is waited for
        assert process.poll() is None
        start = time.monotonic()
        assert tell(process, signal.SIGTERM).code == 143
        assert time.monotonic() - start < 10


# --- where it writes


@linux
def test_a_home_that_cannot_be_written_to_is_replaced_by_a_private_one(box: Path) -> None:
    program(box, "dvc", 'echo "$HOME"; echo "$DVC_SITE_CACHE_DIR"; umask')
    code, text = entered(box, HOME=str(box / "nowhere"))
    home, cache, umask = text.split()
    assert (code, umask) == (0, "0002")
    assert home.startswith("/tmp/newsfuse-")  # noqa: S108 - mkdtemp's
    assert cache == f"{home}/.cache/dvc"
    assert [stat.S_IMODE(Path(each).stat().st_mode) for each in (home, cache)] == [0o700, 0o700]
    assert entered(box).text.splitlines()[0] == str(box)


@linux
def test_dvc_that_is_told_to_stop_gives_its_locks_back(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "dvc.yaml").write_text("stages: {wait: {cmd: touch begun && sleep 60, outs: [out]}}", encoding="utf-8")
    variables = environment(tmp_path / "home")
    for command in ("git init --quiet", "dvc init --quiet"):
        subprocess.run(command.split(), cwd=project, env=variables, check=True)
    with subprocess.Popen(
        [sys.executable, "-I", str(IMAGE / "orderly.py"), "repro"], cwd=project, env=variables, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as process:  # fmt: skip
        while not (project / "begun").exists():
            assert process.poll() is None
            time.sleep(0.05)
        code, text = tell(process, signal.SIGTERM)
    assert code == 255
    assert "failed to reproduce 'wait'" in text
    assert not any(json.loads((project / ".dvc" / "tmp" / "rwlock").read_text(encoding="utf-8")).values())


# --- the test of the image, by an engine that packs what it is given, or all but what .dockerignore keeps out


ENGINE = """#!/bin/sh
case $1 in
    --version) echo an engine ;;
    build) tar --create --file "$TARBALL" $EXCEPT . ;;
    save) $PACK <"$TARBALL" ;;
esac
"""


def image_test(tmp_path: Path, words: str, **variables: str) -> Ended:
    """Functions of scripts/image-test, called one after the other."""
    program(tmp_path, "engine", ENGINE.partition("\n")[2])
    settings = {
        **environment(tmp_path),
        "ENGINE": str(tmp_path / "engine"),
        "TARBALL": str(tmp_path / "tarball"),
        **variables,
    }
    command = ["bash", "-c", f"source {ROOT / 'scripts' / 'image-test'}; {words}"]
    done = subprocess.run(
        command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return Ended(done.returncode, done.stdout)


@linux
@pytest.mark.parametrize(
    ("kept_out", "pack", "end"),
    [
        (".env __pycache__", "cat", "no key in any layer, though the working tree had one"),
        (".env", "cat", "FAILED: the key is in a layer"),
        ("__pycache__", "cat", "FAILED: the key is in a layer"),
        (".env __pycache__", "false", "FAILED: the layers cannot be searched"),
    ],
)
def test_a_key_that_lies_about_is_found_in_any_layer(tmp_path: Path, kept_out: str, pack: str, end: str) -> None:
    excluded = " ".join(f"--exclude={each}" for each in ["data", *kept_out.split()])
    code, text = image_test(tmp_path, "build; no_key", EXCEPT=excluded, PACK=pack)
    assert end in text
    assert code == int("FAILED" in end)


@linux
@pytest.mark.parametrize("where", ["a file", "a commit", "nothing"])
def test_a_key_is_found_in_the_repository_and_in_its_packed_history(tmp_path: Path, where: str) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "note").write_text({"a file": "", "a commit": "sk-1", "nothing": ""}[where], encoding="utf-8")
    committer = {**environment(tmp_path), "GIT_COMMITTER_EMAIL": "newsfuse@localhost"}
    for command in ("git init --quiet", "git add note", "git commit --quiet --message one", "git gc --quiet"):
        subprocess.run(command.split(), cwd=repo, env=committer, check=True)
    (repo / "note").write_text({"a file": "sk-1", "a commit": "", "nothing": ""}[where], encoding="utf-8")
    code, text = image_test(tmp_path, f"repo={repo}; KEY=sk-1; no_key_kept")
    assert code == int(where != "nothing")
    assert {"a file": "the key is in the repository", "a commit": "the key is in a Git object"}.get(
        where, "in no file"
    ) in text


# --- the page


def test_the_image_of_ones_own_is_built_of_what_is_there() -> None:
    page = (ROOT / "docs" / "image.md").read_text(encoding="utf-8")
    own = page.partition("```dockerfile\n")[2].partition("```")[0]
    assert "COPY" not in own  # .dockerignore lets nothing more through
    assert re.findall(r"dvc\[s3\]==([\d.]+)", own) == [constraints()["dvc"]]


# --- compose


def test_compose_has_a_service_for_each_kind_and_asks_for_a_gpu_only_when_told() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    kinds = {name: each["build"]["args"]["COMPUTE"] for name, each in services.items()}
    assert kinds == {"newsfuse": "cpu", "gpu": "cuda"}
    assert "profiles" not in services["newsfuse"]
    assert "deploy" not in services["newsfuse"]
    assert services["gpu"]["profiles"] == ["gpu"]
    assert services["gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    for service in services.values():
        assert service["environment"] == {"OPENAI_API_KEY": None}  # whoever runs it has the key, no file has it
        assert service["volumes"] == [".:/work"]
