"""News that a stage has not seen, since it was frozen or not run: the next one refuses, and names the articles."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from faults.buyer import NEWS

if TYPE_CHECKING:
    from faults.book import Observed
    from faults.buyer import Buyer
    from openai_server import OpenAIServer
    from project import Outcome

slow = pytest.mark.slow
NEW = ("N900001", "N900002", "N900003", "N900004")
UNSEEN = {
    "embed": "4 articles have no vector, first {places}: the embeddings are older than the news. Make them: ",
    "graph": "the news graph does not know 4 of {n} articles, first {places}: it is older than the news. Make it: ",
}


def frozen(project: Buyer, stage: str) -> None:
    # as `dvc freeze` would, but it refuses stages with ${...}
    project.edit("dvc.yaml", rf"  {stage}:\n", f"  {stage}:\n    frozen: true\n")


def added(project: Buyer, split: str) -> str:
    """The places of the first three of NEW, once all are in the news of the split."""
    line = len(project.lines(NEWS[split])) + 1
    for news_id in NEW:
        project.add(split, news_id, f"{news_id} breaks the news")
    return ", ".join(f"{NEWS[split]}:{line + n} ({news_id})" for n, news_id in enumerate(NEW[:3]))


def told(outcome: Outcome, stage: str, places: str) -> str:
    """The command that is named, once all else was found to be told."""
    assert "Traceback" not in outcome.text
    n = r"\d+"
    pattern = re.escape(UNSEEN[stage].format(places=places, n="§")).replace("§", n)
    found = re.search(rf"(?m)^ERROR: {pattern}(.+) \(without `frozen: true` in dvc\.yaml\)$", outcome.text)
    assert found, outcome.text
    return found[1]


@pytest.mark.parametrize(
    ("stage", "split", "consumer"),
    [
        ("embed", "train", "train"),
        pytest.param("embed", "dev", "evaluate", marks=slow),
        pytest.param("graph", "train", "train", marks=slow),
        pytest.param("graph", "dev", "evaluate", marks=slow),
    ],
)
def test_a_frozen_stage_that_has_not_seen_some_news_is_named_by_the_next(  # noqa: PLR0917 - a case
    whole: Buyer, server: OpenAIServer, stage: str, split: str, consumer: str, observed: Observed
) -> None:
    frozen(whole, stage)
    places = added(whole, split)
    outcome = whole.run("dvc", "repro", consumer)
    assert "exited with 3" in outcome.text
    assert stage not in outcome.ran
    command = told(outcome, stage, places)
    whole.edit("dvc.yaml", f"  {stage}:\n    frozen: true\n", f"  {stage}:\n")
    before = server.requests
    assert whole.must(*command.split()).ran == [stage]
    assert whole.stage(consumer).code == 0
    assert server.requests - before == (stage == "embed")
    done = (
        f"`frozen: true` in {stage}, four new articles in {split}, `dvc repro {consumer}`; thawed, as told, run again"
    )
    observed(16, done, code="3, 0", left="count, fix, and file, line and id of the first three are told")


def test_a_stage_by_itself_refuses_what_an_earlier_one_has_not_seen(
    whole: Buyer, server: OpenAIServer, observed: Observed
) -> None:
    places = added(whole, "dev")
    outcome = whole.stage("evaluate")
    assert outcome.code == 3
    told(outcome, "embed", places)
    assert whole.stage("train").code == 0  # which reads no news of dev
    assert server.requests == 0
    done = "four new articles in dev, the stages by themselves: train, which reads none of dev; evaluate"
    observed(16, done, code="0, 3", left="count, fix, and file, line and id of the first three are told")
