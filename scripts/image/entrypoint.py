#!/opt/newsfuse/bin/python -I
"""What `docker run newsfuse WORD...` does: a command of newsfuse, else one of DVC, else any program of the image.

It ends once the last process that was started has ended, not when the first has: a stage that is told to stop finishes
what it has paid for, and `dvc queue start` returns before its experiments have run. docs/image.md has the rest.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

NEWSFUSE = (
    "ablate", "check-plugin", "compare", "doctor", "ensemble", "fetch", "import", "ledger", "new", "plan", "plugins",
    "report", "show", "submission", "synth",
)  # fmt: skip
"""Commands of newsfuse. They come first: `fetch` and `import` are DVC's, too, as `dvc fetch` and `dvc import`."""
DVC = (
    "add", "artifacts", "cache", "check-ignore", "checkout", "commit", "completion", "config", "dag", "data", "destroy",
    "diff", "du", "exp", "experiments", "freeze", "gc", "get", "get-url", "import-db", "import-url", "init", "install",
    "list", "list-url", "metrics", "move", "params", "plots", "pull", "push", "queue", "remote", "remove", "repro",
    "root", "stage", "status", "studio", "unfreeze", "unprotect", "update", "version",
)  # fmt: skip
ALONE = (
    "completion", "config", "doctor", "du", "get", "get-url", "init", "list", "list-url", "ls", "ls-url", "root",
    "version",
)  # fmt: skip
"""What DVC does without a repository."""
READING = ("dag", "metrics", "params", "plots")
"""What DVC does in a repository that it may not write into; `status` and `diff` want their lock."""
HELP = {"-h", "--help", "-V", "--version"}
SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2): children whose parent has ended become ours."""


class RefusedError(Exception):
    """What was asked for cannot be done; `exit_code` is newsfuse's own for such a mistake."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def main() -> int:
    """Do what the words say -> the exit code."""
    try:
        command = meant(sys.argv[1:] or ["repro"])
        check_mount(command)
        settle()
    except RefusedError as refused:
        print(f"ERROR: {refused}", file=sys.stderr)
        return refused.exit_code
    if command[0] not in {"dvc", "newsfuse"}:
        os.execvp(command[0], command)  # noqa: S606 - a shell or a debugger gets the terminal as it is
    return run(command)


def meant(words: Sequence[str]) -> list[str]:
    """The command that the words stand for."""
    first = words[0]
    if first in NEWSFUSE or first.startswith("-"):
        return ["newsfuse", *words]
    if first in DVC:
        return ["dvc", *words]
    if shutil.which(first):
        return list(words)
    known = (*NEWSFUSE, *DVC, "dvc", "newsfuse", "python")
    near = "".join(f" Did you mean '{each}'?" for each in get_close_matches(first, known, n=1))
    message = f"newsfuse and DVC have no command '{first}', the image no such program.{near} See --help and dvc --help"
    raise RefusedError(message, 2)


def check_mount(command: Sequence[str]) -> None:
    """Refuse what cannot work for want of a repository, or of leave to write into it, and say what to type."""
    here = Path.cwd()
    word = next((each for each in command[1:] if not each.startswith("-")), "version")  # no word: DVC tells its usage
    if command[0] != "dvc" or word in ALONE or HELP & {*command}:
        return
    if os.access(here, os.R_OK) and not any(here.iterdir()):
        message = f'{here} is empty: mount a repository, docker run --rm -v "$PWD:{here}" newsfuse'
        raise RefusedError(message, 2)
    if word not in READING and not os.access(here, os.W_OK):
        message = (
            f"user {os.getuid()} may not write into {here}, which is user {here.stat().st_uid}'s: "
            'run as yourself, docker run --user "$(id -u):$(id -g)" ... (rootless podman: and --userns=keep-id), '
            "and mount it without :ro"
        )
        raise RefusedError(message, 8)


def settle() -> None:
    """Let a group share what is made, and have a home that can be written to, whoever we are."""
    os.umask(0o002)
    home = os.environ.get("HOME", "/")
    if not os.access(home, os.W_OK):  # another --user than the image's, or a read-only root
        home = os.environ["HOME"] = _private_folder()
    cache = Path(home, ".cache", "dvc")
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["DVC_SITE_CACHE_DIR"] = str(cache)


def _private_folder() -> str:
    try:
        return tempfile.mkdtemp(prefix="newsfuse-", dir="/tmp")  # noqa: S108 - mkdtemp makes it ours alone
    except OSError as error:
        message = f"user {os.getuid()} can write neither to $HOME nor to /tmp ({error.strerror}): add --tmpfs /tmp"
        raise RefusedError(message, 8) from error


def run(command: Sequence[str]) -> int:
    """Run it, and wait for all that comes of it -> its exit code, or 128 + the first signal that came meanwhile.

    After a signal only processes of our own group are waited for: the init has sent it to them, and to no others.
    """
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    signals: list[int] = []
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signals.append(number))
    main_process, code = subprocess.Popen(command), 0  # noqa: S603 - what the user asked for
    try:
        while True:
            # not a blocking call: that one would go on with -1 after a signal
            ended, status = os.waitpid(0 if signals else -1, os.WNOHANG)
            if ended == main_process.pid:
                code = os.waitstatus_to_exitcode(status)
            elif not ended:
                time.sleep(0.05)
    except ChildProcessError:  # nobody is left
        main_process.returncode = code
    return 128 + signals[0] if signals else code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
