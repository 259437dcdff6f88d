"""What a reader sees while vectors are bought, and what remains of it: metrics/embed.json."""

import io
import json
import logging
from types import SimpleNamespace

import pytest
from rich.console import Console

from newsfuse.paid.progress import EVERY_S, Progress
from newsfuse.paid.receipt import Receipt


class Clock:
    """The time, as told."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("newsfuse.paid.progress.time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture(autouse=True)
def every_message(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def log_file() -> Console:
    return Console(file=io.StringIO(), force_terminal=False)


def test_a_log_gets_a_plain_line_every_few_seconds(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    console = log_file()
    with Progress(51_282, 0.0151, console) as progress:
        for now in range(1, 15):
            clock.now = 100.0 + now
            progress.show(1_000 * now, 0.0003 * now, now // 7)
    assert caplog.messages == [
        "5,000/51,282 texts, $0.0015 of about $0.0154, 1,000 texts/s, 0 retries, safe to interrupt",
        "10,000/51,282 texts, $0.0030 of about $0.0154, 1,000 texts/s, 1 retries, safe to interrupt",
    ]
    assert EVERY_S == 5
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_a_short_run_says_nothing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with Progress(10, 0.0, log_file()) as progress:
        progress.show(5, 0.0, 0)
        clock.now += EVERY_S - 0.1
        progress.show(10, 0.0, 0)
    assert caplog.messages == []


def test_before_anything_is_done_the_forecast_is_the_estimate(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with Progress(10, 0.5, log_file()) as progress:
        clock.now += EVERY_S
        progress.show(0, 0.0, 3)
    assert caplog.messages == ["0/10 texts, $0.0000 of about $0.5000, 0 texts/s, 3 retries, safe to interrupt"]


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_all_of_it_whatever_its_width(
    clock: Clock, caplog: pytest.LogCaptureFixture, width: int
) -> None:
    screen = io.StringIO()
    with Progress(51_282, 0.0151, Console(file=screen, force_terminal=True, width=width)) as progress:
        clock.now += 10
        progress.show(12_345, 0.0037, 7)
    shown = screen.getvalue()
    assert "12,345/51,282 texts, $0.0037 of about $0.0154, 1,234 texts/s, 7 retries" in shown
    assert "safe to interrupt" in shown
    assert caplog.messages == []


def test_a_terminal_gets_its_cursor_back_however_it_ends() -> None:
    screen = io.StringIO()
    with pytest.raises(KeyError), Progress(1, 0.0, Console(file=screen, force_terminal=True)):
        raise KeyError
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert screen.getvalue().count(hidden) == screen.getvalue().count(shown) == 1
    assert screen.getvalue().index(hidden) < screen.getvalue().index(shown)


def test_standard_error_gets_no_bar_where_it_is_no_terminal_whatever_the_colours(
    clock: Clock, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as hosted runners do
    with Progress(1, 0.0) as progress:
        clock.now += EVERY_S
        progress.show(1, 0.0, 0)
    assert len(caplog.messages) == 1
    assert "\x1b" not in capfd.readouterr().err


# the receipt


def test_the_receipt_is_the_cost_column_of_an_experiment() -> None:
    written = Receipt(texts=10, paid=4, requests=2, tokens=1_234_567, usd=0.024691341).to_json()
    assert written.endswith("}\n")
    assert json.loads(written) == {
        "texts": 10,
        "paid": 4,
        "reused": 6,
        "requests": 2,
        "tokens": 1_234_567,
        "dollars": 0.024691,
    }


def test_a_run_that_pays_nothing_says_so() -> None:
    nothing = {"texts": 3, "paid": 0, "reused": 3, "requests": 0, "tokens": 0, "dollars": 0.0}
    assert json.loads(Receipt(3).to_json()) == nothing
