"""Runs a command and adopts what it leaves behind: `python reaper.py FILE COMMAND...`.

FILE gets the command's process number, then the exit codes of all that ended, as shells count them, in order.
Of children whose parent was killed nobody else learns how they ended.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # https://man7.org/linux/man-pages/man2/PR_SET_CHILD_SUBREAPER.2const.html


def main(file: Path, *command: str) -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    note(file, subprocess.Popen(command).pid)
    while True:
        try:
            _, status = os.wait()
        except ChildProcessError:
            return
        code = os.waitstatus_to_exitcode(status)
        note(file, code if code >= 0 else 128 - code)


def note(file: Path, number: int) -> None:
    with file.open("a", encoding="utf-8") as notes:
        notes.write(f"{number}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
