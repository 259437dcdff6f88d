"""Who may pay: real processes, real locks, real signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from shop import SPACE

from newsfuse.errors import BusyError
from newsfuse.paid.ledger import Ledger
from newsfuse.paid.payer import Employer, _make_home, at_work, sole_payer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
PAYER = """
import logging, sys
from pathlib import Path
from newsfuse.paid.payer import Employer, sole_payer
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
print("starting", flush=True)
with sole_payer(Path(sys.argv[1]), Employer()):
    print("paying", flush=True)
    sys.stdin.readline()
print("done", flush=True)
"""
WORKER = """
import sys, time
from newsfuse.paid.payer import Employer
employer = Employer()
print("at work" if not employer.gone() else "gone", flush=True)
end = time.monotonic() + 30
while not employer.gone() and time.monotonic() < end:
    time.sleep(0.02)
print("gone" if employer.gone() else "still there", flush=True)
"""
EMPLOYER = """
import subprocess, sys
subprocess.run(sys.argv[1:])
"""
SHELL = 'trap "" TERM; "$0" "$@"; exit $?'
"""The shell waits for its command instead of becoming it."""


class Process:
    """A Python program that talks line by line."""

    def __init__(self, program: str, *arguments: object, **variables: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
        command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
        self.popen = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def line(self) -> str:
        assert self.popen.stdout
        return self.popen.stdout.readline().rstrip("\n")

    def end(self) -> None:
        """Let it go on to its end."""
        assert self.popen.stdin
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def clear(self) -> None:
        """Kill whatever is left of it and of what it started: they are in a session of their own."""
        with_children = [each for each in psutil.process_iter() if _session(each.pid) == self.pid]
        for process in with_children:
            process.kill()
        self.popen.kill()
        self.popen.communicate()


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Starts processes, and leaves none behind."""
    started: list[Process] = []

    def one(program: str, *arguments: object, **variables: str) -> Process:
        started.append(Process(program, *arguments, **variables))
        return started[-1]

    yield one
    for process in started:
        process.clear()


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / ".newsfuse" / "ledger.sqlite"


# one at a time


def test_a_second_payer_says_who_pays_and_waits_until_it_is_done(start: Callable[..., Process], ledger: Path) -> None:
    first = start(PAYER, ledger, DVC_STAGE="embed")
    assert [first.line(), first.line()] == ["starting", "paying"]
    second = start(PAYER, ledger)
    assert second.line() == "starting"
    told = second.line()
    since = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
    assert re.fullmatch(
        rf"waiting for process {first.pid} \(embed, since {since}\), which pays from the same ledger", told
    )
    assert second.popen.poll() is None
    first.end()
    assert (first.line(), second.line()) == ("done", "paying")
    second.end()
    assert second.line() == "done"
    assert second.popen.wait(10) == 0


def test_the_right_to_pay_is_free_again_when_its_holder_is_killed(start: Callable[..., Process], ledger: Path) -> None:
    first = start(PAYER, ledger)
    assert [first.line(), first.line()] == ["starting", "paying"]
    second = start(PAYER, ledger)
    assert second.line() == "starting"
    assert second.line().startswith(f"waiting for process {first.pid} (")
    first.popen.send_signal(signal.SIGKILL)
    assert second.line() == "paying"


@pytest.mark.parametrize(
    ("variables", "doing"),
    [
        ({"DVC_STAGE": "embed", "DVC_EXP_NAME": "rotten-loaf"}, "rotten-loaf"),
        ({"DVC_STAGE": "embed"}, "embed"),
        ({}, "embed"),
    ],
)
def test_the_note_beside_the_ledger_tells_what_the_payer_is_doing(
    monkeypatch: pytest.MonkeyPatch, ledger: Path, variables: dict[str, str], doing: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/stages/embed.py", "--verbose"])
    for name in ("DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    note = ledger.with_name("ledger.sqlite.payer")
    with sole_payer(ledger, Employer()):
        told = json.loads(note.read_text(encoding="utf-8"))
    assert (told["pid"], told["doing"]) == (os.getpid(), doing)
    assert not note.exists()


def test_who_is_at_work_is_told_without_waiting(start: Callable[..., Process], ledger: Path) -> None:
    assert at_work(ledger) is None
    payer = start(PAYER, ledger, DVC_STAGE="embed")
    assert [payer.line(), payer.line()] == ["starting", "paying"]
    assert re.fullmatch(rf"process {payer.pid} \(embed, since .+\)", at_work(ledger) or "")
    payer.clear()
    assert ledger.with_name("ledger.sqlite.payer").exists()  # a killed payer cannot take its note away
    assert at_work(ledger) is None


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"pid": "x"}', "\0"])
def test_a_note_that_makes_no_sense_tells_of_nobody(ledger: Path, note: str) -> None:
    ledger.parent.mkdir()
    ledger.with_name("ledger.sqlite.payer").write_text(note, encoding="utf-8")
    assert at_work(ledger) is None


def test_who_waits_stops_when_its_employer_is_gone(start: Callable[..., Process], ledger: Path) -> None:
    first = start(PAYER, ledger)
    assert [first.line(), first.line()] == ["starting", "paying"]

    class Gone(Employer):
        def gone(self) -> bool:
            return True

    with (
        pytest.raises(
            BusyError, match="the program that started this one is gone, so no further request is sent"
        ) as caught,
        sole_payer(ledger, Gone()),
    ):
        pytest.fail("nobody may pay twice at a time")
    assert caught.value.exit_code == 75


def test_a_payer_that_fails_lets_the_next_one_pay(ledger: Path) -> None:
    with pytest.raises(KeyError), sole_payer(ledger, Employer()):
        raise KeyError
    with sole_payer(ledger, Employer()):
        pass


# the employer


def test_while_all_are_alive_nobody_is_gone(start: Callable[..., Process]) -> None:
    worker = start(WORKER)
    assert worker.line() == "at work"
    time.sleep(0.3)
    assert worker.popen.poll() is None


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_parent_is_gone_though_it_is_still_a_zombie(
    start: Callable[..., Process], kill: signal.Signals
) -> None:
    parent = start(EMPLOYER, sys.executable, "-c", WORKER)
    assert parent.line() == "at work"
    parent.popen.send_signal(kill)
    assert parent.line() == "gone"
    # nobody has asked for its exit code yet
    assert psutil.Process(parent.pid).status() == psutil.STATUS_ZOMBIE


def test_a_killed_parent_is_gone_though_the_shell_between_lives_on(start: Callable[..., Process]) -> None:
    parent = start(EMPLOYER, "sh", "-c", SHELL, sys.executable, "-c", WORKER)
    assert parent.line() == "at work"
    (shell,) = psutil.Process(parent.pid).children()
    assert shell.cmdline()[:2] == ["sh", "-c"]
    parent.popen.kill()
    assert parent.line() == "gone"
    assert shell.is_running()


def test_a_killed_shell_is_gone_too(start: Callable[..., Process]) -> None:
    parent = start(EMPLOYER, "sh", "-c", SHELL, sys.executable, "-c", WORKER)
    assert parent.line() == "at work"
    (shell,) = psutil.Process(parent.pid).children()
    shell.kill()
    assert parent.line() == "gone"


def test_what_lies_beyond_the_employer_does_not_matter(start: Callable[..., Process]) -> None:
    outer = start(EMPLOYER, sys.executable, "-c", EMPLOYER, sys.executable, "-c", WORKER)
    assert outer.line() == "at work"
    (inner,) = psutil.Process(outer.pid).children()
    outer.popen.kill()
    time.sleep(0.3)
    assert inner.is_running()
    inner.kill()
    assert outer.line() == "gone"


def test_to_work_for_somebody_who_is_gone_is_refused_with_the_code_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    employer = Employer()
    employer.require()
    monkeypatch.setattr(psutil.Process, "ppid", lambda _: 1)
    with pytest.raises(BusyError) as caught:
        employer.require()
    assert str(caught.value) == "the program that started this one is gone, so no further request is sent"
    assert caught.value.exit_code == 75


# files


@pytest.fixture
def anyone() -> Iterator[None]:
    """A user whose new files everybody may read and write."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    return {path.name: f"{path.stat().st_mode & 0o777:04o}" for path in sorted(folder.iterdir())}


def test_whatever_the_umask_only_the_owner_may_read_or_write_the_ledger(anyone: None, ledger: Path) -> None:
    with sole_payer(ledger, Employer()), Ledger.writing(ledger) as open_ledger:
        open_ledger.sent(SPACE, SPACE.keys(["a"]), 1)
        while_paying = modes(ledger.parent)
    assert f"{ledger.parent.stat().st_mode & 0o777:04o}" == "0700"
    private = ["", "-shm", "-wal", ".lock", ".payer"]
    assert {name: while_paying[f"ledger.sqlite{name}"] for name in private} == dict.fromkeys(private, "0600")
    assert modes(ledger.parent).items() >= {"ledger.sqlite": "0600", "ledger.sqlite.lock": "0600"}.items()


def test_no_git_add_ever_takes_the_ledger_along(ledger: Path) -> None:
    with sole_payer(ledger, Employer()), Ledger.writing(ledger):
        pass
    git = ["git", "-C", str(ledger.parents[1])]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "--all"], check=True)
    assert subprocess.run([*git, "ls-files"], check=True, capture_output=True, text=True).stdout == ""


def test_a_folder_that_was_there_is_left_as_it_is(anyone: None, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o755)
    with sole_payer(tmp_path / "mine" / "ledger", Employer()):
        pass
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["ledger.lock"]


def test_two_payers_that_start_at_once_both_find_the_folder(monkeypatch: pytest.MonkeyPatch, ledger: Path) -> None:
    with sole_payer(ledger, Employer()):
        pass
    exists, stale = Path.exists, iter([False])
    monkeypatch.setattr(Path, "exists", lambda path: next(stale, exists(path)))  # at first as it was a moment ago
    _make_home(ledger.parent)
    assert {path.name for path in ledger.parent.iterdir()} == {".gitignore", "ledger.sqlite.lock"}
    assert list(ledger.parents[1].iterdir()) == [ledger.parent]
