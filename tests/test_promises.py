"""What newsfuse promises about money, each promise by the smallest test that breaks with it.

tests/test_mutations.py breaks them on purpose, one by one, and wants the test of that promise to fail.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from crash.bench import IN_FLIGHT, TEXTS, TITLES, Changing, Kept, kept, lay_out
from project import ROOT, Project, environment, missing

from newsfuse.embeddings import Embeddings
from newsfuse.errors import IntegrityError, ProviderError, QuotaError
from newsfuse.paid.ledger import Ledger
from newsfuse.paid.space import Space
from newsfuse.params import load
from stages.embed import embed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LEDGER = Path(".newsfuse/ledger.sqlite")
DIMENSIONS = 8
PATIENCE_S = 180
ONE_BY_ONE = {"NEWSFUSE_CONCURRENCY": "1", "NEWSFUSE_MAX_INPUTS": str(IN_FLIGHT), "OPENAI_API_KEY": "sk-none"}
A_DOLLAR_PER_TOKEN = ("NEWSFUSE_USD_PER_MILLION_TOKENS", "1000000")
"""Each of the seven texts is one token by the estimator, and as the server bills it."""


@pytest.fixture
def server() -> Iterator[Changing]:
    with Changing("ok") as listening:
        yield listening


@pytest.fixture
def folder(server: Changing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project as the current folder, and the variables that let it buy from the server, three texts at a time."""
    lay_out(tmp_path / "project", DIMENSIONS)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    for name, value in {**ONE_BY_ONE, "OPENAI_BASE_URL": server.url}.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "project"


def run() -> None:
    """The stage, in this process."""
    embed(*load(Path()))


def copied(place: Path) -> Kept:
    """What the ledger would hold if everybody who has it open were killed now."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(LEDGER.parent, place)
    return kept(place / LEDGER.name)


# what is bought


def test_vectors_that_come_in_another_order_go_to_their_own_texts(folder: Path, server: Changing) -> None:
    server.mode = "reversed"
    run()
    assert kept(LEDGER).vectors == {text: given[0] for text, given in server.given.items()}


def test_the_first_vector_of_a_text_stays(tmp_path: Path) -> None:
    space, vectors = Space("test", "", "model", 2, 1), np.array([[1, 2], [3, 4]], np.float32)
    key, other = space.keys(["a", "b"])
    with Ledger.writing(tmp_path / "ledger") as ledger:
        first, second = ledger.sent(space, [key], 1), ledger.sent(space, [other, key], 2)
        ledger.done(first, [key], vectors[:1], 1, 0.0)
        ledger.done(second, [other, key], vectors[[0, 1]] + 4, 2, 0.0)
        (now,) = ledger.vectors([key, other], 2)
    assert now.tolist() == [[1, 2], [5, 6]]


def test_a_text_is_bought_once_at_each_server_and_never_taken_for_another_servers(
    folder: Path, server: Changing, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    with Changing("ok") as other:
        monkeypatch.setenv("OPENAI_BASE_URL", other.url)
        run()
        assert sorted(other.texts) == sorted(TEXTS)
        rows = Embeddings.read(Path("data/few/embeddings")).vectors
        assert [row.tobytes() for row in rows] == [other.given[each][0] for each in TITLES["train"] + TITLES["dev"][2:]]
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    run()
    assert sorted(server.texts) == sorted(TEXTS)


def test_a_damaged_vector_is_never_used(folder: Path) -> None:
    run()
    shutil.rmtree("data/few/embeddings")
    with closing(sqlite3.connect(LEDGER)) as database, database:
        wrong = np.ones(DIMENSIONS, "<f4").tobytes()
        database.execute("UPDATE vectors SET vector = ? WHERE rowid = 4", (wrong,))
    with pytest.raises(IntegrityError, match="1 vectors are damaged or gone"):
        run()
    assert not Path("data/few/embeddings").exists()


# the order of writes


def test_a_request_is_in_the_book_before_it_is_sent(folder: Path, server: Changing, tmp_path: Path) -> None:
    seen = []
    server.before = lambda number: seen.append((copied(tmp_path / "copy").requests, server.bodies[number - 1]["input"]))
    run()
    assert [book[-1:] for book, _ in seen] == [[("sent", sent)] for _, sent in seen]
    assert [len(book) for book, _ in seen] == [1, 2, 3]


def test_what_a_request_brought_is_kept_before_the_next_is_sent(folder: Path, server: Changing, tmp_path: Path) -> None:
    seen: list[int] = []
    server.before = lambda _: seen.append(len(copied(tmp_path / "copy").vectors))
    run()
    assert seen == [0, IN_FLIGHT, 2 * IN_FLIGHT]


# the budget


def test_what_is_estimated_above_the_budget_is_not_begun(
    folder: Path, server: Changing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*A_DOLLAR_PER_TOKEN)
    monkeypatch.setenv("NEWSFUSE_BUDGET_USD", str(len(TEXTS) - 1))
    with pytest.raises(QuotaError, match="nothing was sent"):
        run()
    assert server.requests == 0
    monkeypatch.setenv("NEWSFUSE_BUDGET_USD", str(len(TEXTS)))
    run()
    assert server.billed == len(TEXTS)


def test_what_turns_out_above_the_budget_is_stopped_at_it(
    folder: Path, server: Changing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*A_DOLLAR_PER_TOKEN)
    monkeypatch.setenv("NEWSFUSE_BUDGET_USD", str(len(TEXTS)))
    server.billed_per_token = 2  # six dollars for the first three texts
    with pytest.raises(QuotaError, match=r"\$6.0000 is spent, and the next request would go above the budget of \$7"):
        run()
    assert server.requests == 1
    assert kept(LEDGER).vectors.keys() == {*"abc"}


def test_nothing_is_asked_again_behind_our_back(
    folder: Path, server: Changing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEWSFUSE_RETRIES", "0")
    server.mode = "server_error"
    with pytest.raises(ProviderError, match="Gave up after 1 requests"):
        run()
    assert server.requests == 1


# several programs


def variables(home: Path, server: Changing) -> dict[str, str]:
    return {**environment(home), **ONE_BY_ONE, "OPENAI_BASE_URL": server.url, "PYTHONPATH": str(ROOT)}


def until(so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not so():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_two_runs_at_once_pay_once(folder: Path, server: Changing, tmp_path: Path) -> None:
    told = [tmp_path / f"told by {number}" for number in range(2)]
    for path in told:
        path.touch()  # the server reads both

    def both_are_at_it() -> bool:
        return server.requests > 1 or any("waiting for process" in path.read_text(encoding="utf-8") for path in told)

    server.before = lambda number: until(both_are_at_it) if number == 1 else None
    command, processes = [sys.executable, "-m", "stages.embed"], []
    for path in told:
        with path.open("w") as file:
            processes.append(subprocess.Popen(command, env=variables(tmp_path, server), stderr=file))
        until(lambda: server.requests > 0)  # the second comes while the first is paying
    assert [process.wait(PATIENCE_S) for process in processes] == [0, 0]
    assert sorted(server.texts) == sorted(TEXTS)


def test_nobody_pays_for_a_program_that_is_gone(folder: Path, server: Changing, tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'stages.embed'])"
    with told.open("w") as file:
        parent = subprocess.Popen([sys.executable, "-c", script], env=variables(tmp_path, server), stderr=file)
    children: list[psutil.Process] = []

    def kill_the_parent(number: int) -> None:
        if number == 1:
            children.extend(psutil.Process(parent.pid).children())
            parent.kill()
            parent.wait()

    server.before = kill_the_parent
    until(lambda: bool(children))
    _, alive = psutil.wait_procs(children, PATIENCE_S)
    assert alive == []
    assert server.requests == 1
    assert "the program that started this one is gone" in told.read_text(encoding="utf-8")
    assert kept(LEDGER).vectors.keys() == {*"abc"}


@dataclass(frozen=True)
class Paying(Project):
    """A project that is given these environment variables."""

    settings: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return super().environment() | dict(self.settings)


@pytest.mark.skipif(bool(missing()), reason=missing() or "-")
def test_an_experiment_in_a_copy_of_the_project_does_not_pay_again(tmp_path: Path) -> None:
    made = Paying.make(tmp_path / "a project", without=("tests/", "docs/", "benchmarks/"))
    with Changing("ok") as server:
        project = Paying(made.root, {**ONE_BY_ONE, "OPENAI_BASE_URL": server.url})
        project.edit("params.yaml", "provider: lsa", "provider: openai")
        for split, letters in TITLES.items():
            rows = [f"{split}{title}\tnews\tworld\t{title}\t\t\t[]\t[]\n" for title in letters]
            (project.root / f"data/tiny/{split}/news.tsv").write_text("".join(rows[:-1]), encoding="utf-8")
        project.commit()
        assert project.dvc("exp", "run", "--temp", "embed").ran == ["embed"]
        assert sorted(server.texts) == [*"abcdefg"]
        (project.root / "data/tiny/dev/news.tsv").write_text("".join(rows[:-2]), encoding="utf-8")
        assert project.dvc("exp", "run", "--temp", "embed").ran == ["embed"]
        assert server.billed == len(TEXTS)
