"""Experiments that run beside each other pay from one ledger."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from faults.buyer import Hold, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faults.book import Measured
    from faults.buyer import Buyer
    from openai_server import OpenAIServer

FUSIONS = ("gate", "mean")


@pytest.fixture
def pipeline(reproduced: Buyer) -> Iterator[Buyer]:
    """A project whose queue has no workers left when the test is done."""
    yield reproduced
    reproduced.run("dvc", "queue", "stop", "--kill")


def with_news(buyer: Buyer, fusion: str) -> None:
    buyer.add("train", "N100", "Both experiments have this article")
    buyer.add("train", f"N-{fusion}", f"This article is new in {fusion} alone")


def queued(buyer: Buyer, fusion: str) -> None:
    with_news(buyer, fusion)
    buyer.dvc("exp", "run", "--queue", "--name", fusion, "-S", f"fusion={fusion}", "embed")
    buyer.must("git", "checkout", "--", ".")


def working(buyer: Buyer) -> bool:
    return bool(re.search("Queued|Running", buyer.dvc("queue", "status").text))


def logs(buyer: Buyer) -> str:
    return "".join(path.read_text() for path in buyer.root.glob(".dvc/tmp/exps/run/*/*.out"))


@pytest.mark.slow
def test_two_queued_experiments_pay_once_for_what_both_need(
    pipeline: Buyer, server: OpenAIServer, measured: Measured
) -> None:
    left = set(FUSIONS)
    for _ in range(5):  # `-j 2` loses an experiment now and then; embed itself must never fail, whoever runs it
        for fusion in sorted(left):
            queued(pipeline, fusion)
        server.before = hold = Hold(server.requests + 1)
        # its workers keep what it prints to, and a pipe would not end before they do
        assert pipeline.begin("dvc", "queue", "start", "--jobs", "2").ended().code == 0
        until(lambda: "waiting for process" in logs(pipeline) or not working(pipeline))
        hold.release()
        until(lambda: not working(pipeline))
        assert "failed to run: python -m stages.embed" not in logs(pipeline)
        left -= set(pipeline.dvc("exp", "list", "--name-only").text.split())
        if not left:
            break
    assert not left
    assert server.billed == 3
    assert (server.requests, server.twice) == (2, 0)
    measured(
        4,
        "two queued experiments, `dvc queue start -j 2`, one new article in both and one in each",
        code="0, 0",
        requests=2,
        twice=0,
    )


def test_an_experiment_in_a_temporary_folder_pays_from_the_ledger_of_the_project(
    pipeline: Buyer, server: OpenAIServer, measured: Measured
) -> None:
    with_news(pipeline, "gate")
    outcome = pipeline.dvc("exp", "run", "--temp", "-S", "fusion=gate", "embed")
    assert outcome.ran == ["embed"]
    assert (server.requests, server.billed) == (1, 2)
    assert pipeline.embed().code == 0
    assert pipeline.wrong() == []
    assert (server.requests, server.twice) == (1, 0)
    measured(
        4,
        "`dvc exp run --temp` with two new articles; then the same in the workspace, without DVC",
        code="0, 0",
        requests="1 / 0",
        twice=0,
    )
