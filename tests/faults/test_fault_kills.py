"""A process that is killed: nothing paid is lost, and what was in flight is all that is paid again."""

from __future__ import annotations

import time
from itertools import count
from queue import SimpleQueue
from signal import SIGKILL
from typing import TYPE_CHECKING

import pytest
from faults.buyer import BATCH, BATCHES, EMBED

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults.book import Measured
    from faults.buyer import Buyer, Running
    from openai_server import OpenAIServer
    from project import Outcome


class Killer:
    """Kills a process `delay_s` after its `request`-th request has come; keeps every request for `hold_s`."""

    def __init__(self, server: OpenAIServer, request: int, *, delay_s: float = 0, hold_s: float = 0) -> None:
        self.request, self.delay_s, self.hold_s = server.requests + request, delay_s, hold_s
        self.victim: SimpleQueue[Running] = SimpleQueue()

    def __call__(self, number: int) -> None:
        time.sleep(self.hold_s)
        if number == self.request:
            time.sleep(self.delay_s)
            self.victim.get().send(SIGKILL)

    def watch(self, buyer: Buyer) -> Outcome:
        """Run embed, and what comes of it."""
        running = buyer.begin(*EMBED)
        self.victim.put(running)
        return running.ended()


def test_killed_after_every_batch_in_turn_it_pays_again_only_for_what_was_in_flight(
    buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured
) -> None:
    requests: list[str] = []
    code = 137
    while code:
        before, kept = server.requests, BATCH * len(requests)
        server.before = killer = Killer(server, request=2)
        code = killer.watch(buyer).code
        requests.append(str(server.requests - before))
        assert buyer.kept() == kept + BATCH
        assert (code, server.twice) == ((0 if len(requests) == BATCHES else 137), kept)
    assert buyer.artifact() == unbroken
    done = f"SIGKILL before the second answer of each run, until one ends well ({BATCH} texts in flight)"
    measured(1, done, code="137, ..., 0", requests=" / ".join(requests), twice=f"{BATCH} a kill (in flight)")


def run_until_it_ends_well(kill: Callable[[int], Outcome], buyer: Buyer, server: OpenAIServer, flying: int) -> None:
    """Let `kill` run and kill again and again; no kill may cost more than the texts in flight."""
    for run in count(1):
        outcome = kill(run)
        if outcome.code == 0:
            break
        assert outcome.code == 137
        assert server.billed - buyer.kept() <= flying * run
    assert server.twice <= flying * run


def test_killed_while_it_keeps_an_answer_it_pays_again_for_no_more_than_that(
    buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured
) -> None:
    def kill(run: int) -> Outcome:
        server.after = killer = Killer(server, request=1, delay_s=0.001 * 2 ** (run - 1))
        return killer.watch(buyer)

    run_until_it_ends_well(kill, buyer, server, flying=BATCH)
    assert buyer.artifact() == unbroken
    done = "SIGKILL 1, 2, 4, 8, ... ms after the first answer of each run, while it is kept"
    measured(1, done, code="137, ..., 0", requests="any", twice=f"≤ {BATCH} a kill (in flight)")


@pytest.mark.slow
def test_killed_with_eight_requests_in_flight_it_pays_again_for_no_more_than_those(
    buyer: Buyer, server: OpenAIServer, measured: Measured
) -> None:
    buyer.tell("train", {f"N{n}": f"Article {n:02} says something else again" for n in range(100, 130)})
    eight = buyer.under(NEWSFUSE_CONCURRENCY="8", NEWSFUSE_MAX_INPUTS="1")

    def kill(_: int) -> Outcome:
        server.before = killer = Killer(server, request=16, hold_s=0.05)  # so that eight are in flight
        return killer.watch(eight)

    run_until_it_ends_well(kill, buyer, server, flying=8)
    assert buyer.wrong() == []
    assert server.twice
    done = "SIGKILL at the 16th request of each run, until one ends well (eight requests of one text in flight)"
    measured(1, done, code="137, ..., 0", requests="any", twice="≤ 8 a kill (in flight)")
