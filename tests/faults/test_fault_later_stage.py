"""A later stage fails: what is done stays done, nothing is paid again, and Git sees no data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from faults.buyer import ARTIFACT

if TYPE_CHECKING:
    from faults.book import Observed
    from faults.buyer import Buyer
    from openai_server import OpenAIServer

slow = pytest.mark.slow
TITLE = "An article that came later"


def failing(project: Buyer, stage: str, split: str) -> Buyer:
    """With an article more in the split, and a stage that ends with 1; committed."""
    project.add(split, "N900001", TITLE)
    project.edit(
        f"stages/{stage}.py", rf"(?m)^def {stage}\(.*\) -> None:", r'\g<0>\n    raise SystemExit("on purpose")'
    )
    project.commit()
    return project


@pytest.mark.parametrize(
    ("command", "stage", "split", "before"),
    [
        (("repro",), "train", "train", ["embed", "graph"]),
        pytest.param(("repro",), "evaluate", "dev", ["embed", "graph", "train"], marks=slow),
        pytest.param(("exp", "run"), "train", "train", ["embed", "graph"], marks=slow),
    ],
    ids=["repro train", "repro evaluate", "exp run"],
)
def test_what_was_done_before_a_stage_failed_stays_done(  # noqa: PLR0917 - a case
    whole: Buyer,
    server: OpenAIServer,
    command: tuple[str, ...],
    stage: str,
    split: str,
    before: list[str],
    observed: Observed,
) -> None:
    project, ignored = failing(whole, stage, split), whole.text(".gitignore")
    earlier = project.locked()
    first = project.run("dvc", *command)
    assert first.code != 0
    assert first.ran == [*before, stage]
    assert "exited with 1" in first.text
    assert (server.texts, server.requests) == ([TITLE], 1)
    assert project.changes() == [" M dvc.lock"]
    assert project.text(".gitignore") == ignored
    assert project.locked()[ARTIFACT] != earlier[ARTIFACT]

    again = project.run("dvc", *command)
    assert again.ran == [stage]
    project.edit(f"stages/{stage}.py", r'\n    raise SystemExit\("on purpose"\)', "")
    assert project.dvc(*command).ran == (["train", "evaluate"] if stage == "train" else ["evaluate"])
    assert server.requests == 1
    done = f"`dvc {' '.join(command)}`: {stage} ends with 1; run again; mended, run again"
    left = f"{', '.join(before)} stay done, 1 request in all; `git status` shows dvc.lock alone"
    observed(23, done, code="1, 1, 0", left=left)


@pytest.mark.slow
def test_an_experiment_in_a_copy_whose_train_failed_pays_nothing_when_it_is_run_again(
    whole: Buyer, server: OpenAIServer, observed: Observed
) -> None:
    project = failing(whole, "train", "train")
    for _ in range(2):
        outcome = project.run("dvc", "exp", "run", "--temp")
        assert outcome.code != 0
        assert "exited with 1" in outcome.text
        assert (server.texts, server.requests) == ([TITLE], 1)
        assert project.changes() == []
    done = "`dvc exp run --temp`: train ends with 1; run again"
    observed(23, done, code="1, 1", left="1 request in all; `git status` shows nothing")
