"""Runs the embed stage again and again, each time in a new process, without paying for the imports each time.

    LD_PRELOAD=fail_nth.so python forks.py      # a job per line of standard input, its outcome on standard output

Imports once, then forks for every job: the child goes on as `python -m stages.embed` would, and may be killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai  # noqa: F401 - the plugin imports it late, every time
import torch  # noqa: F401 - plugins that are only checked import it

from newsfuse.environment import Environment
from newsfuse.paid import ledger, patience
from newsfuse.paid.payer import Employer, sole_payer
from newsfuse.stage import run
from stages.embed import embed

if TYPE_CHECKING:
    from newsfuse.params import Params
    from newsfuse.registry import Registry

KINDS = 10
shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
shim.nth_fired.restype = shim.nth_name.restype = ctypes.c_char_p
shim.nth_counted.restype = ctypes.c_long


def child(job: dict[str, Any]) -> None:
    """Become the stage, with the shim armed. Ends in SystemExit, or is killed."""
    os.chdir(job["folder"])
    told = os.open(job["told"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for descriptor in (1, 2):
        os.dup2(told, descriptor)
    patience.BACKOFF_S = 0.01  # how long is not what is tested here
    if job["journal"] == "DELETE":
        ledger._file_system = lambda path: "nfs"  # noqa: ARG005, SLF001 - no such file system can be had in a test
    if job["record"]:
        shim.nth_record(job["record"].encode())
    fault = job["fault"]
    shim.nth_arm(job["folder"].encode(), fault["kinds"], ctypes.c_long(fault["nth"]), fault["action"], fault["errno"])
    sys.argv = ["embed.py"]
    run(RECIPES[job["recipe"]])


def _exit_code(job: dict[str, Any]) -> int:
    try:
        child(job)
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:  # noqa: BLE001 - as the interpreter does, before it ends with 1
        traceback.print_exc()
        return 1
    return 0


def create(params: Params, registry: Registry) -> None:
    """Make the ledger and do nothing with it."""
    path = ledger.location(Environment.read())
    with sole_payer(path, Employer()), ledger.Ledger.writing(path):
        pass


RECIPES = {"embed": embed, "create": create}


def serve() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        if not (pid := os.fork()):
            os._exit(_exit_code(job))  # tearing torch down takes longer than the stage
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        counted = {shim.nth_name(kind).decode(): shim.nth_counted(kind) for kind in range(KINDS)}
        told = Path(job["told"]).read_text(encoding="utf-8")
        outcome = {"code": code, "fired": shim.nth_fired().decode(), "counted": counted, "told": told}
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
