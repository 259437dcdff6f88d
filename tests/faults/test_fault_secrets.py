"""The key is found nowhere, whatever happens; and no title can do more than be a text.

After every test of this folder all that it left is searched: see conftest.
"""

from __future__ import annotations

import base64
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from faults.buyer import EMBED, TITLES
from faults.canary import KEY, START, traces

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from faults.book import Measured
    from faults.buyer import Buyer
    from openai_server import OpenAIServer
    from project import Project

HOSTILE = {
    "N900": "</script><script>alert(1)</script><img src=x onerror=alert(1)>",
    "N901": "\x1b[31mred \x1b[2J\x1b]0;owned\x07 all over",
    "N902": "=cmd|' /C calc'!A0",
    "N903": "\u202eright to left\u202c, $(reboot) `reboot` ; rm -rf ${HOME}",
    "N\x1b[31m904": "an article whose id is red",
}


# the search itself


def in_a_file(project: Project) -> None:
    (project.root / "notes").write_bytes(b"\0" * 1000 + KEY.encode())


def in_a_name(project: Project) -> None:
    (project.root / KEY).touch()


def in_base64(project: Project) -> None:
    (project.root / "task").write_bytes(base64.b64encode(b'{"key": "' + KEY.encode() + b'"}'))


def half_of_it(project: Project) -> None:
    (project.root / "log").write_text(f"{KEY[:9]}********{KEY[-4:]}")


def in_a_commit_that_only_an_experiment_leads_to(project: Project) -> None:
    in_a_file(project)
    project.must("git", "add", "notes")
    project.must("git", "commit", "--quiet", "--message", "oh no")
    project.must("git", "update-ref", "refs/exps/12/3456/slip", "HEAD")
    project.must("git", "reset", "--quiet", "--hard", "HEAD~1")


def in_the_message_of_a_commit_that_nothing_leads_to(project: Project) -> None:
    project.must("git", "commit", "--quiet", "--allow-empty", "--message", KEY)
    project.must("git", "reset", "--quiet", "--hard", "HEAD~1")
    project.must("git", "gc", "--quiet")


def in_a_database(project: Project) -> None:
    with closing(sqlite3.connect(project.root / "some.db")) as database:
        database.execute("CREATE TABLE t AS SELECT ? AS x", (KEY,))


@pytest.mark.parametrize(
    "plant",
    [
        in_a_file,
        in_a_name,
        in_base64,
        half_of_it,
        in_a_commit_that_only_an_experiment_leads_to,
        in_the_message_of_a_commit_that_nothing_leads_to,
        in_a_database,
    ],
)
def test_the_search_finds_a_key(
    opened: Buyer, tmp_path_factory: pytest.TempPathFactory, plant: Callable[[Project], None]
) -> None:
    project = opened.copy(tmp_path_factory.mktemp("leak") / "a project")  # not in tmp_path, which must stay clean
    assert traces(project.root) == []
    plant(project)
    assert traces(project.root) != []


# the key


@pytest.mark.parametrize(
    ("mode", "code"), [("unauthorized", 4), pytest.param("forbidden", 4, marks=pytest.mark.slow), ("echo", 6)]
)
def test_a_server_that_repeats_the_key_cannot_make_it_be_shown(
    buyer: Buyer, server: OpenAIServer, *, mode: str, code: int, measured: Measured
) -> None:
    server.modes = ["ok", mode]
    outcome = buyer.under(NEWSFUSE_RETRIES="0").run(*EMBED, "--verbose")
    assert outcome.code == code
    assert "Traceback" in outcome.text  # which --verbose asks for
    assert server.headers[1]["authorization"] == f"Bearer {KEY}"
    assert START.decode() not in outcome.text
    assert "(key)" in outcome.text
    word = {"unauthorized": "a 401 that repeats the key", "forbidden": "a 403 that repeats half of it"}
    done = f"{word.get(mode, 'a 500 that repeats the request header')}, --verbose; all that is left searched for it"
    measured(19, done, code=code, requests=2, twice=0)


def test_a_key_that_looks_like_no_key_is_not_shown_either(buyer: Buyer, server: OpenAIServer) -> None:
    key = f"hf_{KEY[-32:]}"
    server.mode = "unauthorized"
    outcome = buyer.embed(OPENAI_API_KEY=key)
    assert outcome.code == 4
    assert server.headers[0]["authorization"] == f"Bearer {key}"
    assert key[-16:] not in outcome.text
    assert not [path for path in buyer.ledger.parent.iterdir() if key[-16:].encode() in path.read_bytes()]


@pytest.mark.parametrize("url", ["http://user:{key}@127.0.0.1:9/v1", "http://127.0.0.1:{key}/v1", "{key}"])
def test_an_address_that_holds_a_secret_is_refused_without_showing_it(
    buyer: Buyer, server: OpenAIServer, url: str
) -> None:
    outcome = buyer.embed(OPENAI_BASE_URL=url.format(key=KEY))
    assert outcome.code == 2
    assert "OPENAI_BASE_URL" in outcome.text
    assert KEY.lower() not in outcome.text.lower()
    assert server.requests == 0


@pytest.mark.slow
def test_experiments_and_pushes_carry_no_key(
    reproduced: Buyer, server: OpenAIServer, tmp_path: Path, measured: Measured
) -> None:
    reproduced.add("dev", "N100", "An article that came later")
    reproduced.dvc("exp", "run", "--temp", "--name", "later", "-S", "fusion=gate", "embed")
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    refs = reproduced.must("git", "for-each-ref", "--format=%(refname)", "refs/exps").text
    assert "/later" in refs
    reproduced.must("git", "init", "--quiet", "--bare", str(tmp_path / "remote"))
    reproduced.must("git", "remote", "add", "origin", str(tmp_path / "remote"))
    reproduced.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    reproduced.dvc("exp", "push", "origin", "later")
    reproduced.dvc("push", "--run-cache", "embed")
    measured(
        19,
        "`dvc exp run --temp`, `dvc exp push`, `dvc push --run-cache`; all refs and the remotes searched",
        code=0,
        requests=1,
        twice=0,
    )


# hostile texts


def test_hostile_titles_are_embedded_as_they_are_and_printed_nowhere(
    buyer: Buyer, server: OpenAIServer, measured: Measured
) -> None:
    for news_id, title in HOSTILE.items():
        buyer.add("dev", news_id, title)
    server.mode, server.poison = "poisonous", HOSTILE["N\x1b[31m904"]
    outcome = buyer.embed()
    assert outcome.code == 3
    assert "dev/news.tsv:9 (N\\x1b[31m904)" in outcome.text
    server.mode = "ok"
    assert buyer.dvc("repro", "embed").ran == ["embed"]
    assert buyer.wrong() == []
    assert set(server.texts) == {*TITLES.values(), *HOSTILE.values()}
    assert server.twice == 0
    for command in (("plan",), ("ledger", "status", "--requests", "9"), ("ledger", "verify")):
        buyer.must("newsfuse", *command)
    measured(
        19,
        "titles with `</script>`, terminal codes, formulas, shell words, an id with a terminal code, refused "
        "once; then fine",
        code="3, 0",
        requests=server.requests,
        twice=0,
    )
