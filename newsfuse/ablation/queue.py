"""DVC's queue of experiments: what waits, runs and failed in it, by name; runs put into it, and its workers.

DVC has all of it in one process, without a new Python for each experiment. Workers are processes of their own, which
go on when this one ends.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from contextlib import chdir, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from newsfuse.ablation.aside import refuse_unready, told
from newsfuse.errors import BusyError, ParamsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dvc.repo import Repo
    from dvc.repo.experiments.queue.base import QueueEntry

WORKER, EXECUTOR = "queue-worker", "exec-run"
"""Subcommands of `dvc exp` that the processes of a worker and of a run have."""
EXITED = re.compile(r"exited with (\d+)\b")
"""How DVC tells the exit code of a stage."""
PROGRAM = (sys.executable, "-m", "dvc")


@dataclass(frozen=True)
class Failure:
    """Why a run has no result, as far as its output tells."""

    name: str
    reason: str
    exit_code: int
    """Of the stage that failed; 1 where none is known to have."""


@contextmanager
def opened(root: Path) -> Iterator[Queue]:
    """The queue of the project at `root`. Raises ParamsError where there is no DVC project with a commit."""
    from dvc.exceptions import NotDvcRepoError  # noqa: PLC0415 - half a second, as in newsfuse.revisions
    from dvc.repo import Repo  # noqa: PLC0415 - see above
    from dvc.scm import NoSCMError, SCMError  # noqa: PLC0415 - see above

    logging.getLogger("kombu").setLevel(logging.ERROR)  # it warns that a queue of files has no host
    try:
        repo = Repo(str(root))
        repo.experiments.scm  # noqa: B018 - asks whether there is a commit
    except (NotDvcRepoError, NoSCMError, SCMError) as error:
        message = f"{root.resolve()}: is in no DVC project with a commit in Git, from which alone experiments start"
        raise ParamsError(message) from error
    with repo:
        yield Queue(repo)


class Queue:
    """The queue of a project, which others may use at the same time."""

    def __init__(self, repo: Repo) -> None:
        self.repo, self._queue = repo, repo.experiments.celery_queue

    def waiting(self) -> set[str]:
        """Names of experiments that no worker has taken yet."""
        return {entry.name for entry in self._queue.iter_queued() if entry.name}

    def running(self) -> set[str]:
        """Names of those that a worker has taken and not given back, be it because it was killed."""
        return {entry.name for entry in self._queue.iter_active() if entry.name}

    def pending(self) -> set[str]:
        """Names of those that wait or run."""
        waiting = self.waiting()  # first: what a worker takes in between is then there twice, and not missing
        return waiting | self.running()

    def failures(self, names: Iterable[str]) -> list[Failure]:
        """Those of the `names` that ended in the queue and are no experiments."""
        return [self._failure(entry) for entry in self._failed(names)]

    def refuse_unready(self) -> None:
        """Raise ParamsError or BusyError where the project is in no state in which `put` can work."""
        refuse_unready(Path(self.repo.root_dir))

    def put(self, name: str, settings: Sequence[str]) -> None:
        """Queue an experiment made of the workspace and `settings`, as `dvc exp run --queue -S` does.

        Raises BusyError while another command of DVC works in the project, IntegrityError where DVC or Git cannot.
        """
        from dvc.repo import lock_repo  # noqa: PLC0415 - see `opened`

        # what DVC says goes where a table may go; it edits the params.yaml of the current folder, wherever its own is
        quietly = redirect_stdout(sys.stderr)
        with told(name, self.repo.scm), quietly, chdir(self.repo.root_dir), lock_repo(self.repo):
            overrides = {"params.yaml": list(settings)}
            self.repo.experiments.queue_one(self._queue, params=overrides, name=name)

    def forget_failed(self, names: Iterable[str]) -> None:
        """Take those that failed out of the list: a name that is queued again would be there twice."""
        self._forget(self._failed(names))

    def forget_abandoned(self, names: Iterable[str]) -> None:
        """Take those that a killed worker left out of the list, once nothing of them runs any more."""
        if self.has_worker():
            return
        wanted, left = set(names), []
        for task, entry in self._queue._iter_active_tasks():  # noqa: SLF001 - as `dvc queue kill` does
            if entry.name in wanted and not self._executes(entry):
                task.backend.mark_as_failure(task.id, None)  # a task without a result cannot be forgotten
                self._remove_copy(entry)
                left.append(entry)
        self._forget(left)

    def has_worker(self) -> bool:
        """Whether a worker lives. Asked of the machine: a worker that is busy may be slow to answer."""
        return self._workers() > 0

    def start(self, workers: int) -> None:
        """Start so many workers, less those there are. Raises BusyError where DVC cannot."""
        if self._workers() >= workers:
            return
        # in a session of its own, or Ctrl-C and a closed terminal would reach the workers
        done = subprocess.run(  # noqa: S603 - our own arguments, no shell
            [*PROGRAM, "queue", "start", "--jobs", str(workers)],
            cwd=self.repo.root_dir, env=_environment(), start_new_session=True, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            message = "the queue's worker does not start. See why: dvc queue start --verbose"
            raise BusyError(message)

    def _workers(self) -> int:
        return sum(_lives(path, WORKER) for path in Path(self._queue.wdir).glob("dvc-exp-worker-*.json"))

    def _failed(self, names: Iterable[str]) -> list[QueueEntry]:
        from dvc.repo.experiments.utils import exp_refs  # noqa: PLC0415 - see `opened`

        failed = set(names) - {each.name for each in exp_refs(self.repo.scm)}
        # not DVC's iter_failed, which reads all tasks for each of them
        return [entry for _, entry in self._queue._iter_done_tasks() if entry.name in failed]  # noqa: SLF001 - see above

    def _failure(self, entry: QueueEntry) -> Failure:
        process = self._queue.proc.get(entry.stash_rev)
        text = ""
        if process:
            with suppress(OSError):
                text = Path(process.stdout).read_text(encoding="utf-8", errors="replace")
        return _told(entry.name or "", text)

    def _forget(self, entries: Sequence[QueueEntry]) -> None:
        from dvc.repo.experiments.queue.remove import remove_tasks  # noqa: PLC0415 - see `opened`

        stashed = self._queue.stash.stash_revs
        # of one that was killed as it began DVC still has the changes, and would take it for one that waits
        self._queue.stash.remove_revs([stashed[each.stash_rev] for each in entries if each.stash_rev in stashed])
        remove_tasks(self._queue, entries)

    def _executes(self, entry: QueueEntry) -> bool:
        return _lives(Path(self._queue.pid_dir, entry.stash_rev, f"{entry.stash_rev}.json"), EXECUTOR)

    def _remove_copy(self, entry: QueueEntry) -> None:
        """Of the project, which DVC made for a run and whoever was killed would have removed."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            info = self._queue._load_info(entry.stash_rev)  # noqa: SLF001 - no other way to its folder
            if Path(info.root_dir).parent == Path(self._queue.pid_dir).parent:
                shutil.rmtree(info.root_dir, ignore_errors=True)


def _lives(info: Path, subcommand: str) -> bool:
    """Whether the process that DVC noted in a file is there, and not another that got its number."""
    try:
        number = int(json.loads(info.read_text(encoding="utf-8"))["pid"])
        process = psutil.Process(number)
        return process.status() != psutil.STATUS_ZOMBIE and subcommand in process.cmdline()
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return False


def _told(name: str, output: str) -> Failure:
    """The first mistake that the output of a run names, in newsfuse's words where there are any."""
    lines = [line.strip() for line in output.splitlines()]
    mistake = next((line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")), "")
    code = EXITED.search(output)
    return Failure(name, mistake or "it ended before its first stage, or was killed", int(code[1]) if code else 1)


def _environment() -> dict[str, str]:
    """In which a worker finds this dvc and this Python by their names, whether or not .venv is active."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path}
