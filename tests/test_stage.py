"""How stages speak: in words, without what data could do to a terminal."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from newsfuse.errors import DataError, printable
from newsfuse.stage import Printable, guarded

ROOT = Path(__file__).parents[1]
HOSTILE = "N1\x1b[31m\x07\u202e"


def test_control_characters_of_data_are_shown_and_not_sent_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        message = f"news.tsv:1: {HOSTILE}\nand ünï ✓"
        raise DataError(message)

    with pytest.raises(SystemExit) as caught:
        guarded(work, verbose=False)
    assert caught.value.code == 3
    assert capsys.readouterr().err == "ERROR: news.tsv:1: N1\\x1b[31m\\x07\\u202e\nand ünï ✓\n"


def test_log_lines_hold_no_control_characters() -> None:
    record = logging.LogRecord("newsfuse", logging.WARNING, "", 0, "first %s", (HOSTILE,), None)
    assert Printable("%(message)s").format(record) == f"first {printable(HOSTILE)}"
    assert printable(HOSTILE).isprintable()


def test_the_exit_code_is_the_errors_own_when_nobody_reads_what_it_says() -> None:
    code = "from newsfuse.stage import guarded; from newsfuse.errors import QuotaError\n"
    code += "def work(): raise QuotaError('no money')\nguarded(work, verbose=False)"
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run([sys.executable, "-c", code], stderr=closed, cwd=ROOT, check=False)
    assert done.returncode == 5
