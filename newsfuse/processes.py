"""A piece of work done by several processes together: started here, or by torchrun."""

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.multiprocessing.spawn import ProcessContext, ProcessException, ProcessRaisedException, start_processes

from newsfuse.artifact import write_text
from newsfuse.device import device
from newsfuse.errors import InterruptedRunError, NewsfuseError, ParamsError, StorageError
from newsfuse.params import Params, load
from newsfuse.registry import Registry
from newsfuse.stage import log_stage
from newsfuse.team import MEETING, Team, members, started_together, team

Work = Callable[[Params, Registry, Team], None]

FAREWELL_S = 10
"""How long processes whose team is broken have to end by themselves: more than they need."""


def together(work: Work, params: Params, registry: Registry, processes: int) -> None:
    """Do the work in this process, in those that torchrun started, or in so many that are started for it.

    Raises what the work raises; ParamsError where torchrun started another number, InterruptedRunError where one of
    several processes was killed, which ends the others.
    """
    if started_together():
        _require(processes)
    if started_together() or processes == 1:
        with team(device()) as us:
            if not us.leads:
                logging.getLogger("newsfuse").setLevel(logging.ERROR)  # all have the same to say
            work(params, registry, us)
    else:
        _lead(work, processes)


def _require(processes: int) -> None:
    if processes not in {1, members()}:
        message = (
            f"params.yaml: train.processes is {processes}, but {members()} processes were started together. "
            "Set one of the two: train.processes, or torchrun's --nproc-per-node"
        )
        raise ParamsError(message)


def _lead(work: Work, processes: int) -> None:
    """Start them, and wait until all are done or one is not."""
    # else every process warns that all parameters were used, which no plugin is bound to
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.getLogger("torch.multiprocessing").setLevel(logging.ERROR)  # that it ends the others is what is wanted
    with tempfile.TemporaryDirectory(prefix="newsfuse-") as folder:
        threads = max(1, torch.get_num_threads() // processes)
        context = start_processes(_member, (work, processes, threads, folder), processes, join=False)
        try:
            _wait(context)
        except ProcessException as error:
            raise _mishap(context, Path(folder), error) from error
        finally:
            for process in context.processes:
                process.kill()  # of those that are left, when we are told to stop


def _wait(context: ProcessContext) -> None:
    while not context.join(grace_period=FAREWELL_S):
        pass


def _mishap(context: ProcessContext, folder: Path, first: ProcessException) -> Exception:
    """What to tell: that one was killed, as the others then only miss it; else what the first one said."""
    codes = [process.exitcode or 0 for process in context.processes]
    # SIGTERM is what those get, too, that go on when the first one has ended
    ended = {-signal.SIGTERM: [first.error_index]}
    killed = [(rank, -code) for rank, code in enumerate(codes) if code < 0 and rank in ended.get(code, [rank])]
    if killed:
        rank, signum = killed[0]
        message = (
            f"process {rank + 1} of {len(codes)} was killed ({signal.Signals(signum).name}; out of memory?), "
            "and the others were ended. What was learned up to the last bookmark is kept: run the same again"
        )
        return InterruptedRunError(message, signum)
    said = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    if not said and isinstance(first, ProcessRaisedException):
        return first
    error = NewsfuseError(said[0]["message"] if said else f"a process ended with exit code {max(codes)}")
    error.exit_code = said[0]["exit_code"] if said else max(1, *codes)
    return error


def _member(rank: int, work: Work, processes: int, threads: int, folder: str) -> None:
    """One of the processes. A mistake that a user can mend is left in `folder`, for the one that started it to tell."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(processes), MEETING: f"file://{folder}/meeting"}
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else it asks what the host's name means, which may fail
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)
    log_stage()
    try:
        params, registry = load(Path())
        together(work, params, registry, processes)
    except (NewsfuseError, OSError) as error:
        exit_code = error.exit_code if isinstance(error, NewsfuseError) else StorageError.exit_code
        write_text(Path(folder, f"{rank}.json"), json.dumps({"exit_code": exit_code, "message": str(error)}))
        sys.exit(exit_code)
