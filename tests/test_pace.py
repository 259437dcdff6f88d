"""How many requests may be in flight, and from when on."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from newsfuse import Allowance, Answer
from newsfuse.paid.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 8
GOOD = Answer(np.zeros((1, 1), np.float32))


def in_flight(pace: Pace, expected: int, threads: int = MOST + 1) -> int:
    """How many of some threads have a turn at the same time: `expected`, or what there is after 5 s or on top of it."""
    inside, release = [], threading.Event()

    def go() -> None:
        with pace.turn():
            inside.append(threading.get_ident())
            release.wait(10)
        pace.leave()

    workers = [threading.Thread(target=go, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    wait_for(lambda: len(inside) >= expected)
    time.sleep(0.05)  # whoever should not be in would be by now
    found = len(inside)
    release.set()
    for worker in workers:
        worker.join(10)
    assert len(inside) == threads  # everybody had a turn in the end
    return found


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not true() and time.monotonic() < end:
        time.sleep(0.005)


def running() -> bool:
    return False


def proved(most: int = MOST) -> Pace:
    """A pace that has seen a good answer."""
    pace = Pace(most, running)
    pace.answered(GOOD, 0)
    return pace


class Clock(threading.Condition):
    """Stands in for the condition that turns are waited for with: waiting takes no time and is counted."""

    now = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        return True


def waited_s(monkeypatch: pytest.MonkeyPatch, learn: Callable[[Pace], None], most: int = MOST) -> float:
    """How long the next turn has to wait after the pace has learnt something."""
    pace, clock = proved(most), Clock()
    monkeypatch.setattr("newsfuse.paid.pace.time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(pace, "_turn", clock)
    monkeypatch.setattr(pace, "_resume_at", 0.0)
    learn(pace)
    with pace.turn():
        return clock.now


# how many


def test_one_thread_asks_alone_until_it_has_a_good_answer() -> None:
    pace = Pace(MOST, running)
    assert in_flight(pace, 1) == 1
    pace.answered(GOOD, 0)
    assert in_flight(pace, MOST) == MOST


def test_whoever_asks_alone_goes_on_alone_when_it_fails() -> None:
    pace = Pace(MOST, running)
    others: list[int] = []

    def other() -> None:
        with pace.turn():
            others.append(1)
        pace.leave()

    with pace.turn():
        pass  # a failure: nothing was answered
    worker = threading.Thread(target=other, daemon=True)
    worker.start()
    with pace.turn():
        time.sleep(0.3)  # longer than anybody waits before looking again
        assert others == []
    pace.leave()
    worker.join(10)
    assert others == [1]


def test_once_there_was_a_good_answer_a_slower_pace_is_not_a_lonely_one() -> None:
    pace = proved()
    for _ in range(5):
        pace.throttled(None)
    with pace.turn():
        pass
    assert in_flight(pace, 1) == 1  # nobody had to leave for others to go


def test_a_request_to_slow_down_halves_and_a_good_answer_adds_one() -> None:
    pace, found = proved(), []
    for expected in (4, 2, 1, 1):
        pace.throttled(None)
        found.append(in_flight(pace, expected))
    assert found == [4, 2, 1, 1]
    found = []
    for expected in (2, 3, 4, 5, 6, 7, 8, 8):
        pace.answered(GOOD, 0)
        found.append(in_flight(pace, expected))
    assert found == [2, 3, 4, 5, 6, 7, 8, 8]


# from when on


@pytest.mark.parametrize(
    ("asked_s", "wait_s"),
    [(None, 0.0), (0.0, 0.0), (0.1, 0.1), (7.0, 7.0), (60.0, 60.0), (3600.0, 60.0)],
)
def test_everybody_waits_as_long_as_the_server_asked_up_to_a_minute(
    monkeypatch: pytest.MonkeyPatch, asked_s: float | None, wait_s: float
) -> None:
    assert waited_s(monkeypatch, lambda pace: pace.throttled(asked_s)) == pytest.approx(wait_s)


def test_a_shorter_wait_does_not_cut_a_longer_one_short(monkeypatch: pytest.MonkeyPatch) -> None:
    def learn(pace: Pace) -> None:
        pace.throttled(9.0)
        pace.throttled(2.0)
        pace.answered(GOOD, 0)

    assert waited_s(monkeypatch, learn) == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("requests", "budget", "wait_s"),
    [
        (None, None, 0.0),
        (Allowance(1, 7.0), None, 0.0),
        (Allowance(0, 7.0), None, 7.0),
        (None, Allowance(100, 8.0), 0.0),  # room for just the next one
        (None, Allowance(99, 8.0), 8.0),
        (Allowance(0, 7.0), Allowance(99, 8.0), 8.0),
        (Allowance(0, 7.0), Allowance(99, 3.0), 7.0),
        (Allowance(0, 3600.0), None, 60.0),
        (Allowance(0, 0.0), None, 0.0),
    ],
)
@pytest.mark.parametrize("most", [1, MOST])
def test_a_window_without_room_for_another_request_is_waited_out(
    monkeypatch: pytest.MonkeyPatch, requests: Allowance | None, budget: Allowance | None, wait_s: float, most: int
) -> None:
    answer = Answer(GOOD.vectors, requests=requests, budget=budget)
    assert waited_s(monkeypatch, lambda pace: pace.answered(answer, 100), most) == pytest.approx(wait_s)


def test_requests_still_in_flight_count_against_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def learn(left: int) -> Callable[[Pace], None]:
        def flying_two(pace: Pace) -> None:
            with pace.turn(), pace.turn():
                pace.answered(Answer(GOOD.vectors, requests=Allowance(left, 7.0)), 0)

        return flying_two

    assert waited_s(monkeypatch, learn(3)) == 0.0
    assert waited_s(monkeypatch, learn(2)) == pytest.approx(7.0)


def test_when_all_is_stopped_nobody_waits_on() -> None:
    stopped = threading.Event()
    pace = Pace(MOST, stopped.is_set)
    pace.answered(GOOD, 0)
    pace.throttled(60.0)
    threading.Timer(0.05, stopped.set).start()
    start = time.monotonic()
    with pace.turn():
        assert 0.04 < time.monotonic() - start < 2
