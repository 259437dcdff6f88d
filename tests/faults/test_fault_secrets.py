"""The key is found nowhere, whatever happens; and no title can do more than be a text.

After every test of this folder all that it left is searched: see conftest.
"""

from __future__ import annotations

import base64
import csv
import gzip
import os
import re
import shutil
import signal
import sqlite3
from contextlib import closing
from html.parser import HTMLParser
from itertools import cycle, islice
from typing import TYPE_CHECKING

import pytest
from browser import started
from faults.buyer import EMBED, NEWS, TITLES, Buyer, Hold, until
from faults.canary import KEY, START, traces
from project import missing
from zips import zipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from faults.book import Measured
    from openai_server import OpenAIServer
    from project import Project

EVERYWHERE = (
    "</script><script>window.harmed=1</script><img src=x onerror=window.harmed=1>",
    "\x1b[31mred \x1b[2J\x1b]0;owned\x07 all over",
    "\x1b]8;;http://127.0.0.1:9/\x1b\\click\x1b]8;;\x1b\\ \x9b31m \x90q",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd",
    "+1+cmd|x",
    "-2+3",
    "\u202egnp.exe\u202c\u2066\u200f",
    "| a | `b` **c** [d](javascript:alert(1)) <!-- \u2028 x",
    "&#10;&lt;script&gt;&NewLine;line",
    "{{ 7 * 7 }}{% raw %}",
    "x" * 20_000,
)
"""Titles, abstracts, addresses and categories of a whole data set."""
HOSTILE = {
    "N900": "</script><script>alert(1)</script><img src=x onerror=alert(1)>",
    "N901": "\x1b[31mred \x1b[2J\x1b]0;owned\x07 all over",
    "N902": "=cmd|' /C calc'!A0",
    "N903": "\u202eright to left\u202c, $(reboot) `reboot` ; rm -rf ${HOME}",
    "N\x1b[31m904": "an article whose id is red",
}
OPENAI = "plugins/embedders/openai.py"
BROKEN = r"""    key = \1
    raise RuntimeError("out of order")
    return connected(Server(url, key)"""


# the search itself


def in_a_file(project: Project) -> None:
    (project.root / "notes").write_bytes(b"\0" * 1000 + KEY.encode())


def in_a_name(project: Project) -> None:
    (project.root / KEY).touch()


def in_base64(project: Project) -> None:
    (project.root / "task").write_bytes(base64.b64encode(b'{"key": "' + KEY.encode() + b'"}'))


def in_a_header_in_base64(project: Project) -> None:
    header = f'{{"headers": {{"Authorization": "Bearer {KEY}"}}}}'
    (project.root / "message").write_bytes(base64.b64encode(header.encode()))


def in_hexadecimal(project: Project) -> None:
    (project.root / "dump").write_text(f"0000 {KEY.encode().hex()}")


def in_a_log_that_was_packed(project: Project) -> None:
    (project.root / "log.gz").write_bytes(gzip.compress(f"key={KEY}".encode()))


def in_an_archive_in_an_archive(project: Project) -> None:
    (project.root / "backup.zip").write_bytes(zipped([("inner.zip", zipped([(".env", KEY)]))]))


def in_what_git_has_packed(project: Project) -> None:
    in_a_commit_that_only_an_experiment_leads_to(project)
    project.must("git", "gc", "--quiet")
    assert not list((project.root / ".git/objects").glob("[0-9a-f][0-9a-f]/*"))


def in_a_stash(project: Project) -> None:
    in_a_file(project)
    project.must("git", "stash", "--include-untracked", "--quiet")


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
        in_a_header_in_base64,
        in_hexadecimal,
        in_a_log_that_was_packed,
        in_an_archive_in_an_archive,
        in_what_git_has_packed,
        in_a_stash,
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


# the key in experiments that end badly


@pytest.fixture
def pipeline(reproduced: Buyer, tmp_path: Path) -> Iterator[Buyer]:
    """With something to pay. No worker of its queue is left when the test is done; temporary files are searched too."""
    (tmp_path / "temporary").mkdir()
    reproduced.add("dev", "N100", "An article that came later")
    yield reproduced.under(TMPDIR=str(tmp_path / "temporary"), NEWSFUSE_RETRIES="0")
    reproduced.run("dvc", "queue", "stop", "--kill")


class Held:
    """A request of an experiment that will be killed before it is answered; nothing where it has another fate."""

    def __init__(self, server: OpenAIServer, *, wanted: bool) -> None:
        self._hold = Hold(1) if wanted else None
        if self._hold:
            server.before = self._hold

    def then(self, kill: Callable[[], object]) -> None:
        """Wait for it, kill, and let the server go on."""
        if self._hold:
            self._hold.wait()
            kill()
            self._hold.release()


def aside(buyer: Buyer, held: Held, *options: str) -> None:
    running = buyer.begin("dvc", "exp", "run", "--verbose", *options, "embed", group=True)
    held.then(lambda: os.killpg(running.process.pid, signal.SIGKILL))
    assert running.ended().code in {255, 137}


def queued(buyer: Buyer, held: Held) -> None:
    buyer.dvc("exp", "run", "--verbose", "--queue", "--name", "queued", "embed")
    # its workers keep what it prints to
    assert buyer.begin("dvc", "queue", "start", "--verbose").ended().code == 0
    held.then(lambda: buyer.dvc("queue", "stop", "--kill"))
    until(lambda: not re.search("Queued|Running", buyer.dvc("queue", "status").text))
    kept = {path.parts[-2] for path in buyer.root.glob(".dvc/tmp/exps/*/*")}
    assert {"celery", "run"} <= kept  # Celery's own files, and what the experiment printed, are there to be searched


@pytest.mark.parametrize(
    ("where", "fate"),
    [
        ("workspace", "refused"),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (
                ("workspace", "broken"),
                ("workspace", "killed"),
                ("--temp", "refused"),
                ("queue", "refused"),
                ("queue", "broken"),
                ("queue", "killed"),
            )
        ),
    ],
)
def test_an_experiment_that_ends_badly_leaves_no_key(
    pipeline: Buyer, server: OpenAIServer, tmp_path: Path, *, where: str, fate: str, measured: Measured
) -> None:
    server.mode, held = "unauthorized" if fate == "refused" else "ok", Held(server, wanted=fate == "killed")
    if fate == "broken":  # while it holds the key
        pipeline.edit(OPENAI, r"    return connected\(Server\(url, (chosen_key\(\))\)", BROKEN)
    if where == "queue":
        queued(pipeline, held)
    else:
        aside(pipeline, held, *([where] if where == "--temp" else []))
    sent = [headers["authorization"] for headers in server.headers]
    assert sent == ([] if fate == "broken" else [f"Bearer {KEY}"])
    told = "".join(path.read_text(encoding="utf-8") for path in pipeline.root.glob(".dvc/tmp/exps/run/*/*.out"))
    told += "".join(page.read_text(encoding="utf-8") for page in tmp_path.glob("printed/*"))
    assert {"refused": "(key)", "broken": "RuntimeError: out of order", "killed": ""}[fate] in told
    command = {"queue": "`dvc exp run --queue`, `dvc queue start`", "--temp": "`dvc exp run --temp`"}
    how = {"refused": "a 401 that repeats the key", "broken": "a plugin that raises", "killed": "SIGKILL"}
    code = {"refused": 4, "broken": 9, "killed": 137}
    done = (
        f"{command.get(where, '`dvc exp run`')}, --verbose: {how[fate]}; Git, logs, queue and temporary files searched"
    )
    measured(19, done, code=code[fate], requests=len(sent), twice=0)


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


@pytest.fixture(scope="module")
def hostile(shop: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> Buyer:
    """A project of EVERYWHERE, all of it trained and evaluated as an experiment, with curves for TensorBoard, and shown
    by every command that shows any of it."""
    if reason := missing():
        pytest.skip(reason)
    shop.forget()
    buyer = Buyer.bare(tmp_path_factory.mktemp("hostile") / "a project").at(shop).under(NEWSFUSE_TENSORBOARD="boards")
    for path in NEWS.values():
        rows = [line.split("\t") for line in buyer.lines(path)]
        for number, row in enumerate(rows):
            row[1:6] = islice(cycle(EVERYWHERE), number % len(EVERYWHERE), number % len(EVERYWHERE) + 5)
            row[3] += f" {row[0]}"  # each title once
        (buyer.root / path).write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    buyer.commit()
    for command in SHOWING:
        buyer.must(*command)
    return buyer


SHOWING = (
    ("dvc", "exp", "run", "--verbose", "--name", "hostile"),
    ("newsfuse", "report"),
    ("newsfuse", "compare", "hostile", "copy=data/tiny/predictions", "--slices",
     "--md", "tables/compare.md", "--csv", "tables/compare.csv", "--html", "compare.html"),
    ("newsfuse", "show"),
    ("newsfuse", "show", "--md"),
    ("newsfuse", "plan"),
    ("newsfuse", "ledger", "status", "--requests", "9"),
    ("newsfuse", "submission", "--split", "dev"),
    ("dvc", "exp", "show", "--md"),
    ("dvc", "metrics", "show"),
    ("dvc", "plots", "show"),
)  # fmt: skip
PAGES = ("report.html", "compare.html", "dvc_plots/index.html")


class Live(HTMLParser):
    """The elements of a page that titles of EVERYWHERE would make, and the attributes that would run something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        harmful = tag == "img" or any(name.startswith("on") or "javascript:" in (text or "") for name, text in attrs)
        self.found += [tag] if harmful else []


@pytest.mark.slow
def test_no_page_gets_an_element_from_the_data(hostile: Buyer, shop: OpenAIServer, measured: Measured) -> None:
    assert Live("<p>" + EVERYWHERE[0]).found == ["img"]  # it does see them
    for name in PAGES:
        page = hostile.text(name)
        assert Live(page).found == [], name
        assert "<script>window" not in page, name
    done = "a whole data set of hostile titles and categories through `dvc exp run`, every command that shows any, "
    measured(19, f"{done}DVC's plots", code=0, requests=shop.requests, twice=shop.twice)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_no_page_does_anything_in_a_browser_that_the_data_says(hostile: Buyer, name: str, tmp_path: Path) -> None:
    with started(tmp_path / "profile") as browser:
        browser.open((hostile.root / name).as_uri())
        assert browser.value("window.harmed") is None
        assert browser.value("document.querySelectorAll('img, iframe, [onerror], a[href^=javascript]').length") == 0
    shutil.rmtree(tmp_path / "profile")


@pytest.mark.slow
def test_nothing_that_was_printed_steers_a_terminal(hostile: Buyer) -> None:
    pages = sorted((hostile.root.parent / "printed").iterdir())
    assert len(pages) > len(SHOWING)  # beside git and what made the project
    texts = {page.name: page.read_text(encoding="utf-8") for page in pages}
    assert [name for name, text in texts.items() if not text.replace("\n", "").replace("\t", "").isprintable()] == []
    assert "category_=cmd" in "".join(texts.values())


@pytest.mark.slow
def test_no_cell_of_a_table_is_a_formula_or_breaks_it(hostile: Buyer) -> None:
    tables = [*hostile.root.glob("metrics/**/*.csv"), hostile.root / "tables/compare.csv"]
    assert len(tables) > 5
    for path in tables:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        assert {len(row) for row in rows} == {len(rows[0])}, path
        words = [cell for row in rows for cell in row if not is_number(cell)]
        assert [cell for cell in words if cell.startswith(("=", "+", "-", "@")) or not cell.isprintable()] == [], path
    lines = [line for line in hostile.lines("tables/compare.md") if line.startswith("|")]
    assert {re.sub(r"\\.", "", line).count("|") for line in lines} == {5, 7}  # of costs; of metrics and slices
    assert "<" not in hostile.text("tables/compare.md")


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


@pytest.mark.slow
def test_a_whole_run_with_its_curves_reports_and_tables_leaves_no_key(hostile: Buyer) -> None:
    curves = list(hostile.root.glob("boards/*/events*"))
    assert curves
    assert not [path for path in curves if b"harmed" in path.read_bytes()]
    assert hostile.must("git", "for-each-ref", "refs/exps").text
    assert traces(hostile.root.parent) == []
