"""A run that is told to stop: once, and it ends in good order; twice, and it ends at once."""

from __future__ import annotations

import os
import re
import time
from signal import SIGINT, SIGTERM, Signals
from typing import TYPE_CHECKING

import pytest
from faults.buyer import BATCH, BATCHES, EMBED, TITLES, Hold

if TYPE_CHECKING:
    from faults.book import Measured
    from faults.buyer import Buyer
    from openai_server import OpenAIServer

TWO, REST = 2 * BATCH, len(TITLES) - 2 * BATCH
KEPT = f"{TWO} texts are paid and kept"


def again(buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str]) -> int:
    """Run embed to its end -> the requests that it took."""
    before = server.requests
    outcome = buyer.embed()
    assert outcome.code == 0, outcome.text
    assert buyer.artifact() == unbroken
    return server.requests - before


@pytest.mark.parametrize(
    ("signal", "word"), [(SIGINT, "interrupted"), pytest.param(SIGTERM, "terminated", marks=pytest.mark.slow)]
)
def test_one_signal_ends_the_run_once_what_is_in_flight_is_kept(
    buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str], *, signal: Signals, word: str, measured: Measured
) -> None:
    server.before = hold = Hold(2)
    running = buyer.begin(*EMBED)
    hold.wait()
    running.send(signal)
    time.sleep(0.5)  # before the answer comes, it has been heard
    hold.release()
    outcome = running.ended()
    assert outcome.code == 128 + signal
    assert outcome.text.splitlines()[-1].startswith(f"ERROR: {word}. {KEPT} ($0.0000 was spent), {REST} are left ")
    assert outcome.text.endswith("; run again to continue\n")
    assert (server.requests, buyer.kept()) == (2, TWO)
    requests = again(buyer, server, unbroken)
    done = f"{signal.name} while one request is in flight; run again"
    measured(3, done, code=f"{outcome.code}, 0", requests=f"2 / {requests}", twice=server.twice)
    assert (requests, server.twice) == (BATCHES - 2, 0)


@pytest.mark.parametrize("signal", [pytest.param(SIGINT, marks=pytest.mark.slow), SIGTERM])
def test_a_second_signal_ends_the_run_at_once_and_harms_nothing(
    buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str], *, signal: Signals, measured: Measured
) -> None:
    server.before = hold = Hold(2)
    running = buyer.begin(*EMBED)
    hold.wait()
    for _ in range(2):
        running.send(signal)
        time.sleep(0.5)  # two signals at the same moment are one
    outcome = running.ended()
    hold.release()
    assert outcome.code == 128 + signal
    assert outcome.text.endswith("stopped at once; what is in the ledger stays\n")
    assert (server.requests, buyer.kept()) == (2, BATCH)
    requests = again(buyer, server, unbroken)
    done = f"{signal.name} twice while one request is in flight, which is not waited for; run again"
    measured(3, done, code=f"{outcome.code}, 0", requests=f"2 / {requests}", twice=f"{server.twice} (in flight)")
    assert (requests, server.twice) == (BATCHES - 1, BATCH)


def test_ctrl_c_in_dvc_repro_keeps_what_was_paid(
    buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured
) -> None:
    server.before = hold = Hold(2)
    running = buyer.begin("dvc", "repro", "embed", group=True)
    hold.wait()
    os.killpg(running.process.pid, SIGINT)  # as a terminal does
    time.sleep(0.5)
    hold.release()
    outcome = running.ended()
    assert outcome.code == 255
    assert f"interrupted. {KEPT}" in outcome.text
    # bash hands on the stage's own 130; dash, which the same Ctrl-C reaches, dies of it: DVC then says -2
    assert re.search(r"exited with (130|-2)\n", outcome.text)
    assert "Traceback" not in outcome.text
    assert (server.requests, buyer.kept()) == (2, TWO)
    assert buyer.run("dvc", "repro", "embed").code == 0
    assert buyer.artifact() == unbroken
    assert (server.requests, server.twice) == (BATCHES, 0)
    measured(3, "Ctrl-C during `dvc repro`; run again", code="130, 0", requests=f"2 / {BATCHES - 2}", twice=0)
