"""Each promise about money is broken on purpose, in a copy of the repository: the test that guards it must fail.

A mutation that no test notices is a promise that nothing keeps.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from project import ROOT, _files, environment, missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEDGER, PURCHASE = "newsfuse/paid/ledger.py", "newsfuse/paid/purchase.py"
PAYER, SUPPLY, BUDGET = "newsfuse/paid/payer.py", "newsfuse/paid/supply.py", "newsfuse/paid/budget.py"
OPENAI = "plugins/embedders/openai.py"
PROMISES, MACHINE, CRASHES = (f"tests/test_{name}.py::" for name in ("promises", "ledger_machine", "crash_points"))
POWER_CUT = f"{CRASHES}test_a_power_cut_at_any_moment_loses_at_most_what_was_in_flight"


@dataclass(frozen=True)
class Mutation:
    """Changes to files, (path, old text, new text), and the test that must not survive them."""

    test: str
    changes: tuple[tuple[str, str, str], ...]


def mutation(test: str, *change: str) -> Mutation:
    """Of (path, old, new) one after the other."""
    return Mutation(test, tuple(zip(change[::3], change[1::3], change[2::3], strict=True)))


INSERT = "INSERT INTO vectors (key, request, sha256, vector) VALUES (?,?,?,?) ON CONFLICT (key) DO NOTHING"
REPLACE = "INSERT OR REPLACE INTO vectors (key, request, sha256, vector) VALUES (?,?,?,?)"
SENT = "                request = self._ledger.sent(self._seller.space, lot.keys, estimate)\n"
ASKED = "                    answer = self._connection.embed(lot.texts)\n"
DONE = "                self._ledger.done(request, lot.keys, answer.vectors, billed, usd)\n"
LATER = """\
                late, self._late = getattr(self, "_late", None), (request, lot.keys, answer.vectors, billed, usd)
                if late:
                    self._ledger.done(*late)
"""
LAST = """\
        if late := getattr(self, "_late", None):
            self._ledger.done(*late)
"""
ENDED = "        if self._failure or self._refused:\n            self._raise()\n"
MUTATIONS = {
    "the vectors of an answer stay in the order they came in": mutation(
        f"{PROMISES}test_vectors_that_come_in_another_order_go_to_their_own_texts",
        OPENAI, "sorted(answer.data, key=lambda vector: vector.index)", "answer.data",
    ),
    "the last write wins": mutation(f"{PROMISES}test_the_first_vector_of_a_text_stays", LEDGER, INSERT, REPLACE),
    "an answer is kept row by row": mutation(
        f"{MACHINE}TestLedger",
        LEDGER, 'self._database.execute("BEGIN IMMEDIATE")', "pass",
        LEDGER, 'self._database.execute("COMMIT")', "pass",
    ),
    "vectors are kept after the next request": mutation(
        f"{PROMISES}test_what_a_request_brought_is_kept_before_the_next_is_sent",
        PURCHASE, DONE, LATER,
        PURCHASE, ENDED, LAST + ENDED,
    ),
    "a request is written down after it was sent": mutation(
        f"{PROMISES}test_a_request_is_in_the_book_before_it_is_sent",
        PURCHASE, SENT, "",
        PURCHASE, ASKED, f"{ASKED}    {SENT}",
    ),
    "the ledger is in the copy that an experiment runs in": mutation(
        f"{PROMISES}test_an_experiment_in_a_copy_of_the_project_does_not_pay_again",
        "newsfuse/root.py", 'if root := os.environ.get("DVC_ROOT"):', "if root := None:",
    ),
    "the estimate is not held against the budget": mutation(
        f"{PROMISES}test_what_is_estimated_above_the_budget_is_not_begun",
        BUDGET, "if (cost := self.forecast_usd(estimate)) > ", "if (cost := 0.0) > ",
    ),
    "what was billed is not held against the budget": mutation(
        f"{PROMISES}test_what_turns_out_above_the_budget_is_stopped_at_it",
        BUDGET, "if ahead > ", "if 0.0 > ",
    ),
    "nobody looks whether the parent is alive": mutation(
        f"{PROMISES}test_nobody_pays_for_a_program_that_is_gone", PURCHASE, "self._employer.require()", "pass",
    ),
    "nobody waits for who is paying": mutation(
        f"{PROMISES}test_two_runs_at_once_pay_once", PAYER, "    _wait(lock, note, employer)\n", "",
    ),
    "who has waited does not look again": mutation(
        f"{PROMISES}test_two_runs_at_once_pay_once",
        SUPPLY, "        missing = lot.at(ledger.missing(lot.keys))  # another run", "        # another run",
        SUPPLY, "missing.at(ledger.missing(missing.keys))", "missing",
    ),
    "vectors are read without their sha256": mutation(
        f"{PROMISES}test_a_damaged_vector_is_never_used",
        LEDGER, "for key, sha256, vector in rows if checksum(key, vector) == sha256}", "for key, _, vector in rows}",
    ),
    "all servers are one": mutation(
        f"{PROMISES}test_a_text_is_bought_once_at_each_server_and_never_taken_for_another_servers",
        OPENAI, 'host="" if host == OFFICIAL_HOST else host', 'host=""',
    ),
    "the SDK asks again by itself": mutation(
        f"{PROMISES}test_nothing_is_asked_again_behind_our_back", OPENAI, "        max_retries=0,\n", "",
    ),
    "a transaction is not on the disk when it ends": mutation(
        f"{POWER_CUT}[WAL-0]", LEDGER, "'FULL'", "'NORMAL'",
    ),
    "without a log, the last transaction may be undone": mutation(
        f"{POWER_CUT}[DELETE-0]", LEDGER, "'EXTRA'", "'FULL'",
    ),
    "the folder of the ledger may vanish": mutation(
        f"{POWER_CUT}[WAL-0]",
        PAYER, "        flush(folder.parent)\n", "",
    ),
    "a reader takes what was half done for done": mutation(
        f"{POWER_CUT}[DELETE-0]",
        LEDGER, 'if path.with_name(f"{path.name}-journal").exists():', "if False:",
    ),
    "a half made ledger has the ledger's name": mutation(
        f"{CRASHES}test_whatever_fails_while_the_ledger_is_made_the_next_run_makes_it[killed-every 17th]",
        LEDGER, 'draft = path.with_name(f"{path.name}.new")', "draft = path",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, in which all the tests pass."""
    if reason := missing():
        pytest.skip(reason)
    if not shutil.which("cc"):
        pytest.skip("no C compiler is installed (cc)")
    root = tmp_path_factory.mktemp("mutants") / "newsfuse"
    for name in _files():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, root / name)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True, env=environment(root.parent / "home"))
    passing = judged(root, *sorted({mutation.test for mutation in MUTATIONS.values()}))
    assert (passing.returncode, "skipped" in passing.stdout) == (0, False), passing.stdout
    return root


def judged(root: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *tests]
    return subprocess.run(
        command,
        cwd=root,
        env=environment(root.parent / "home"),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.fixture
def mutant(copy: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The copy with the mutation, which is taken back afterwards."""
    chosen: Mutation = request.param
    before = {path: (copy / path).read_text(encoding="utf-8") for path, _, _ in chosen.changes}
    for path, old, new in chosen.changes:
        text = (copy / path).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{path} has not exactly one {old!r}: this mutation has to follow the code"
        (copy / path).write_text(text.replace(old, new), encoding="utf-8")
    yield copy
    for path, text in before.items():
        (copy / path).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("mutation", [pytest.param(each, id=name) for name, each in MUTATIONS.items()])
def test_every_mutation_fits_the_code_and_names_a_test(mutation: Mutation) -> None:
    """So that whoever changes the code hears of it before the slow tests run."""
    for path, old, new in mutation.changes:
        assert (ROOT / path).read_text(encoding="utf-8").count(old) == 1, f"{path} has not exactly one {old!r}"
        assert old != new
    path, _, name = mutation.test.partition("::")
    assert re.search(rf"(?m)^(def |){name.partition('[')[0]}\b", (ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutant", "test"),
    [pytest.param(each, each.test, id=name) for name, each in MUTATIONS.items()],
    indirect=["mutant"],
)
def test_a_broken_promise_is_noticed(mutant: Path, test: str) -> None:
    outcome = judged(mutant, test)
    assert outcome.stdout.splitlines()[-1].startswith("1 failed in "), outcome.stdout + outcome.stderr
    assert outcome.returncode == 1
