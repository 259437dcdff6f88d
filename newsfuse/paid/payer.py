"""Who may pay: one process at a time, and only while the program that it works for is alive."""

import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from newsfuse.artifact import flush
from newsfuse.errors import BusyError

POLL_S = 0.2
log = logging.getLogger(__name__)


class Employer:
    """The program that this process works for. Killing `dvc` does not kill its child, which would go on paying."""

    def __init__(self) -> None:
        self._links = list(_links(psutil.Process()))

    def gone(self) -> bool:
        """Whether a process on the way to it has died: its children belong to another parent then."""
        return any(_parent(child) != parent for child, parent in self._links)

    def require(self) -> None:
        """Raise BusyError if it is gone."""
        if self.gone():
            message = "the program that started this one is gone, so no further request is sent"
            raise BusyError(message)


def _links(process: psutil.Process) -> Iterator[tuple[psutil.Process, int]]:
    """(child, parent's pid), up to the first parent that is no `sh -c`: dvc starts stages through a shell."""
    try:
        yield process, process.ppid()
        parent = process.parent()
        if parent and "-c" in parent.cmdline()[1:4]:
            yield from _links(parent)
    except psutil.Error:
        return


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.Error:
        return None


@contextmanager
def sole_payer(ledger: Path, employer: Employer) -> Iterator[None]:
    """Hold the right to pay. Waits for whoever has it, saying who; raises BusyError when `employer` is gone."""
    note = ledger.with_name(f"{ledger.name}.payer")
    lock = FileLock(ledger.with_name(f"{ledger.name}.lock"), mode=0o600, thread_local=False)
    _make_home(ledger.parent)
    os.close(os.open(lock.lock_file, os.O_CREAT | os.O_RDWR, 0o600))  # where it cannot be, FileLock tries for ever
    _wait(lock, note, employer)
    try:
        with suppress(OSError):  # a line for those who wait: on a full disk there are better words to come
            note.write_text(json.dumps(_myself()), encoding="utf-8")
            note.chmod(0o600)
        yield
    finally:
        with suppress(OSError):  # what went wrong before it is what has to be told
            note.unlink(missing_ok=True)
        lock.release()


def at_work(ledger: Path) -> str | None:
    """Who has the right to pay, None if nobody has: a note may have outlived who wrote it. Takes no lock."""
    note = ledger.with_name(f"{ledger.name}.payer")
    try:
        alive = psutil.pid_exists(json.loads(note.read_text(encoding="utf-8"))["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _holder(note) if alive else None


def _make_home(folder: Path) -> None:
    """With a .gitignore from the start, so that no `git add` ever takes the ledger along."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))  # of mode 0700
    try:
        (draft / ".gitignore").write_text("*\n", encoding="utf-8")
        draft.rename(folder)
        flush(folder.parent)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        if not folder.exists():  # else another run was faster
            raise


def _wait(lock: FileLock, note: Path, employer: Employer) -> None:
    told = False
    while True:
        try:
            lock.acquire(timeout=1 if told else 0, poll_interval=POLL_S)
        except Timeout:
            if not told:
                log.info("waiting for %s, which pays from the same ledger", _holder(note))
            told = True
            employer.require()
        else:
            return


def _myself() -> dict[str, str | int]:
    doing = os.environ.get("DVC_EXP_NAME") or os.environ.get("DVC_STAGE") or Path(sys.argv[0]).stem
    return {"pid": os.getpid(), "doing": doing, "since": datetime.now(UTC).isoformat(timespec="seconds")}


def _holder(note: Path) -> str:
    try:
        holder = json.loads(note.read_text(encoding="utf-8"))
        return f"process {holder['pid']} ({holder['doing']}, since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
