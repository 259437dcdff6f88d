"""`newsfuse ablate`: what its user sees. Runs what is missing of an ablation, and shows all of it in one table."""

import logging
import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from newsfuse.ablation.finished import Finished, finished
from newsfuse.ablation.queue import Failure, Queue, opened
from newsfuse.ablation.table import csv, rows, said, sheet, table
from newsfuse.ablation.variants import Asked, Variant, variants
from newsfuse.ablation.watch import watch
from newsfuse.errors import InterruptedRunError, NewsfuseError, ParamsError
from newsfuse.outfile import STDOUT, deliver, require_one_at_stdout
from newsfuse.sheet import markdown
from newsfuse.signals import heard_by
from newsfuse.terminal import show, tell

AGAIN = "the same command"
log = logging.getLogger(__name__)


class FailedRunsError(NewsfuseError):
    """Runs of an ablation ended without a result; with the exit code of the first one's stage."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def ablate(asked: Asked, root: Path, files: Mapping[str, Path], *, jobs: int) -> None:
    """Run what is missing in the queue of the project at `root`, wait for it, show the table, and write it.

    `files`: where to by form (md, csv), `-` for standard output, which then has nothing else. Raises what `variants`
    and `finished` raise, InterruptedRunError, and FailedRunsError after the table.
    """
    require_one_at_stdout(files, "--md and --csv")
    wanted = variants(asked, root)
    with opened(root) as queue:
        _announce(wanted)
        _complete(queue, wanted, jobs)
        done = finished(queue.repo, [each.name for each in wanted])
        failures = _failures(queue, [each.name for each in wanted if each.name not in done])
    _report(wanted, done, files)
    if failures:
        raise FailedRunsError(_told(failures, len(wanted)), failures[0].exit_code)


def preview(asked: Asked, root: Path, files: Mapping[str, Path]) -> None:
    """Print which runs are done and which `ablate` would run. Raises what it raises, and ParamsError for `files`."""
    if files:
        message = f"--dry-run: makes no table that --{next(iter(files))} could write. Leave one of them out"
        raise ParamsError(message)
    wanted = variants(asked, root)
    with opened(root) as queue:
        done = finished(queue.repo, [each.name for each in wanted])
        states = _states(queue, wanted, done)
    for name, state in states.items():
        tell(f"{state:<9}{name}")
    tell(f"{_runs(len(wanted))}, {len(done)} done. Nothing was queued.")


def _states(queue: Queue, wanted: Sequence[Variant], done: Mapping[str, Finished]) -> dict[str, str]:
    names = [each.name for each in wanted]
    failed = {each.name for each in queue.failures(set(names) - done.keys())}
    by_state = {"failed": failed, "waiting": queue.waiting(), "running": queue.running(), "done": done.keys()}
    states = dict.fromkeys(names, "to run")
    for state, some in by_state.items():
        states |= {name: state for name in names if name in some}
    return states


def _announce(wanted: Sequence[Variant]) -> None:
    encoders = wanted[0].encoders
    if len(encoders) == 1:
        log.info("Only one encoder is on (%s), so there is one subset of them.", encoders[0])
    log.info("%s: %s", ", ".join(encoders), _runs(len(wanted)))


def _runs(count: int) -> str:
    return f"{count} run{'s'[: count != 1]}"


def _complete(queue: Queue, wanted: Sequence[Variant], jobs: int) -> None:
    """Queue what is neither done nor queued, and wait until nothing of it is left in the queue."""
    names = {each.name for each in wanted}
    try:
        queue.forget_abandoned(names)
        _run(queue, wanted, names - finished(queue.repo, names).keys(), jobs)
        lost = names - finished(queue.repo, names).keys() - {each.name for each in queue.failures(names)}
        if lost:
            log.info("Some left the queue without a result; they are run again.")
            _run(queue, wanted, lost, jobs)
    except KeyboardInterrupt:
        raise InterruptedRunError(_how_to_go_on(queue, names), signal.SIGINT) from None


def _run(queue: Queue, wanted: Sequence[Variant], missing: set[str], jobs: int) -> None:
    """Queue those of the `missing` that are not in the queue, and wait for all of them."""
    _put(queue, [each for each in wanted if each.name in missing - queue.pending()])
    if missing:
        watch(queue, missing, workers=jobs, before=len(wanted) - len(missing))


def _put(queue: Queue, missing: Sequence[Variant]) -> None:
    if not missing:
        return
    queue.refuse_unready()
    queue.forget_failed({each.name for each in missing})
    log.info("Queueing %d runs, about a second each; until then, leave the files of the project alone.", len(missing))
    for variant in missing:
        with _uninterrupted():
            queue.put(variant.name, variant.settings)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C and the like count at the end: meanwhile DVC has put the workspace's uncommitted changes aside."""
    came: list[int] = []

    def remember(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's signature
        came.append(signum)

    with heard_by(remember):
        yield
    if came:
        signal.raise_signal(came[0])


def _how_to_go_on(queue: Queue, names: set[str]) -> str:
    left = len(queue.pending() & names)
    if not queue.has_worker():
        own = sorted(queue.waiting() & names)  # not --queued, which others' runs are too
        forget = f" To forget them: {shlex.join(['dvc', 'queue', 'remove', *own])}" if own else ""
        return f"interrupted; {_runs(left)} wait in the queue. To go on: {AGAIN}.{forget}"
    stop = "To stop after the one that runs: dvc queue stop"
    return f"interrupted; the queue goes on with {_runs(left)} in the background. To wait for them: {AGAIN}. {stop}"


def _failures(queue: Queue, names: Sequence[str]) -> list[Failure]:
    """Of each of the `names`, none of which has a result."""
    known = {each.name: each for each in queue.failures(names)}
    return [known.get(name, Failure(name, "it left the queue without a result", 1)) for name in names]


def _told(failures: Sequence[Failure], runs: int) -> str:
    lines = [f"{each.name}: {each.reason} (see: dvc queue logs {each.name})" for each in failures]
    return "\n".join([f"{len(failures)} of {_runs(runs)} failed; {AGAIN} tries them again.", *lines])


def _report(wanted: Sequence[Variant], done: Mapping[str, Finished], files: Mapping[str, Path]) -> None:
    found = rows(wanted, done)
    title = f"Ablation of {', '.join(wanted[0].encoders)}; mean over n seeds, cost of one run"
    forms = {"md": lambda: markdown([sheet(found, title)], said(found)), "csv": lambda: csv(found)}
    if STDOUT not in files.values() and found:
        tell(f"{title}\n")
        show(table(found))
        for sentence in said(found):
            tell(sentence)
    for form, path in files.items():
        deliver(path, forms[form]())
