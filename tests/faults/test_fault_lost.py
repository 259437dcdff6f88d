"""Files that are lost, stages that are run again: the ledger, or what was made with it, saves paying again."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from faults.buyer import ARTIFACT, TITLES
from faults.canary import KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from faults.book import Measured
    from faults.buyer import Buyer
    from openai_server import OpenAIServer

slow = pytest.mark.slow
NEW = ("dev", "N100", "An article that came later")


def collected(project: Buyer) -> None:
    """Let DVC delete from its cache what only an older commit needs; then go back to that commit."""
    project.add(*NEW)
    project.dvc("repro", "embed")
    project.must("git", "commit", "--all", "--quiet", "--message", "one more article")
    project.dvc("gc", "--workspace", "--force")
    project.must("git", "checkout", "--quiet", "HEAD~1")


def unlocked(project: Buyer) -> None:
    (project.root / "dvc.lock").unlink()
    shutil.rmtree(project.root / ".dvc/cache")  # or DVC would find the run there


def noted(project: Buyer) -> None:
    project.append("newsfuse/paid/purchase.py", "# noted\n")


@pytest.mark.parametrize(
    ("lose", "command", "done", "paid_before"),
    [
        (lambda _: None, ("repro", "--force", "embed"), "`dvc repro --force`", 0),
        pytest.param(
            noted,
            ("repro", "embed"),
            "a comment added to a file that embed depends on, `dvc repro`",
            0,
            marks=slow,
        ),
        (unlocked, ("repro", "embed"), "dvc.lock and DVC's cache lost, `dvc repro`", 0),
        pytest.param(
            collected,
            ("repro", "embed"),
            "one more article, `dvc gc -w -f`, back to the commit before, `dvc repro`",
            1,
            marks=slow,
        ),
    ],
    ids=["forced", "noted", "unlocked", "collected"],
)
def test_embed_that_is_run_again_pays_nothing(
    reproduced: Buyer,
    server: OpenAIServer,
    unbroken: dict[str, str],
    *,
    lose: Callable[[Buyer], None],
    command: tuple[str, ...],
    done: str,
    paid_before: int,
    measured: Measured,
) -> None:
    lose(reproduced)
    before = server.requests
    assert before == paid_before
    assert reproduced.dvc(*command).ran == ["embed"]
    assert reproduced.artifact() == unbroken
    assert (server.requests, server.twice) == (before, 0)
    measured(22, done, code=0, requests=server.requests - before, twice=0)


def test_a_lost_ledger_is_made_anew_from_the_artifact(
    reproduced: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured
) -> None:
    shutil.rmtree(reproduced.ledger.parent)
    told = reproduced.must("newsfuse", "ledger", "import", ARTIFACT).text
    assert f"{ARTIFACT}: {len(TITLES)} of {len(TITLES)} vectors are new" in told
    assert reproduced.dvc("repro", "--force", "embed").ran == ["embed"]
    assert reproduced.artifact() == unbroken
    assert server.requests == 0
    assert (reproduced.ledger.parent.stat().st_mode & 0o777, reproduced.ledger.stat().st_mode & 0o777) == (0o700, 0o600)
    done = f"the ledger lost, `newsfuse ledger import {ARTIFACT}`, `dvc repro --force`"
    measured(22, done, code=0, requests=0, twice=0)


def test_a_fresh_clone_pulls_what_was_made_and_pays_only_for_what_is_new(
    reproduced: Buyer, server: OpenAIServer, unbroken: dict[str, str], tmp_path: Path, measured: Measured
) -> None:
    reproduced.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    reproduced.commit()
    reproduced.dvc("push", "embed")
    reproduced.must("git", "clone", "--quiet", ".", str(tmp_path / "clones" / "a clone"))
    clone = reproduced.moved(tmp_path / "clones" / "a clone")
    without = clone.under(OPENAI_API_KEY="")
    pulled = without.dvc("repro", "--pull", "--allow-missing", "embed")
    assert pulled.ran == []
    without.dvc("pull", "embed")  # what is up to date is not fetched by --pull
    assert without.artifact() == unbroken
    assert (server.requests, clone.ledger.exists()) == (0, False)
    measured(
        22,
        "a fresh clone with a remote, no ledger, no key: `dvc repro --pull --allow-missing`, `dvc pull`",
        code=0,
        requests=0,
        twice=0,
    )

    clone.must("newsfuse", "ledger", "import", ARTIFACT)
    clone.add(*NEW)
    assert clone.under(OPENAI_API_KEY=KEY).dvc("repro", "embed").ran == ["embed"]
    assert clone.wrong() == []
    assert (server.texts, server.requests) == ([NEW[2]], 1)
    measured(
        22,
        f"a fresh clone, pulled: `newsfuse ledger import {ARTIFACT}`, one new article, `dvc repro`",
        code=0,
        requests="1 (the new text)",
        twice=0,
    )
