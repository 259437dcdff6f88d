"""dvc dies and the stage that it started lives on: it must not go on paying beside its successor."""

from __future__ import annotations

import os
import sys
from signal import SIGKILL, SIGTERM, Signals
from typing import TYPE_CHECKING

import pytest
from faults import reaper
from faults.buyer import BATCHES, Hold, until

if TYPE_CHECKING:
    from pathlib import Path

    from faults.book import Measured
    from faults.buyer import Buyer
    from openai_server import OpenAIServer

REPRO = ("dvc", "repro", "embed")
WAITING = "waiting for process"
GONE = "ERROR: the program that started this one is gone, so no further request is sent"


@pytest.mark.parametrize(
    ("shell", "signal"),
    [
        ("/bin/bash", SIGKILL),
        pytest.param("/bin/sh", SIGKILL, marks=pytest.mark.slow),
        pytest.param("/bin/sh", SIGTERM, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_child_of_a_dead_dvc_stops_and_the_next_run_buys_the_rest(
    buyer: Buyer, server: OpenAIServer, tmp_path: Path, *, shell: str, signal: Signals, measured: Measured
) -> None:
    codes = tmp_path / "codes"
    buyer = buyer.under(SHELL=shell)
    server.before = hold = Hold(2)
    first = buyer.begin(sys.executable, reaper.__file__, str(codes), *REPRO)
    hold.wait()
    os.kill(int(codes.read_text()), signal)
    until(lambda: codes.read_text().split()[1:] == [str(128 + signal)])

    second = buyer.begin(*REPRO)
    until(lambda: WAITING in second.text())
    assert server.requests == 2
    hold.release()
    orphan, heir = first.ended(), second.ended()
    assert codes.read_text().split()[2:] == ["75"]
    assert GONE in orphan.text
    assert "6 texts are paid and kept" in orphan.text
    assert heir.code == 0, heir.text
    assert (server.requests, server.twice) == (BATCHES, 0)
    assert buyer.wrong() == []
    done = f"{signal.name} to dvc in `dvc repro`, SHELL={shell}; run again at once, which waits for the child"
    measured(2, done, code="75, 0", requests=f"2 / {BATCHES - 2}", twice=0)
