"""`newsfuse ledger`: the ledger looked at, checked, rebuilt, copied, made smaller; and never paid from."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
import tracemalloc
from contextlib import chdir, closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from filelock import FileLock
from house import House, table
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_server import OpenAIServer
from project import FOREIGN

from newsfuse import bookkeeping, exchange
from newsfuse.artifact import verified
from newsfuse.errors import IntegrityError
from newsfuse.paid.ledger import HANDING_IN, PAGE_BYTES, SCHEMA, Ledger, checksum
from newsfuse.paid.payer import Employer
from newsfuse.paid.space import Space
from newsfuse.salvage import LEAF, opened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DIMENSIONS = 1000
"""Eight vectors to a page."""
SPACE = Space("openai", "", "text-embedding-3-small", DIMENSIONS, 1)
BATCH, BATCHES, JOB = 8, 9, 1200
"""The keys of a job are more than a page holds."""
Vectors = dict[bytes, bytes]


@pytest.fixture(scope="module", autouse=True)
def _nobody_s_settings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(FOREIGN)]:
            patch.delenv(name)
        yield


@pytest.fixture
def bare(tmp_path: Path) -> House:
    """A project without anything but a ledger's home."""
    return home(tmp_path / "a house")


def home(root: Path) -> House:
    (root / ".dvc").mkdir(parents=True)
    (root / ".newsfuse").mkdir(mode=0o700)
    return House(root)


def fill(path: Path, batches: Iterable[int] = range(BATCHES), space: Space = SPACE) -> Vectors:
    """Buy some batches of texts of a space, as the stage does -> what the ledger then has of them."""
    bought: Vectors = {}
    with Ledger.writing(path) as ledger:
        for number in batches:
            keys = space.keys(f"title {number} {text}" for text in range(BATCH))
            vectors = np.random.default_rng(number).standard_normal((BATCH, space.dimensions)).astype(np.float32)
            ledger.done(ledger.sent(space, keys, 100), keys, vectors, 90, 0.25)
            bought |= dict(zip(keys, map(bytes, vectors), strict=True))
    return bought


def vectors_in(path: Path) -> Vectors:
    with Ledger.reading(path) as ledger:
        return dict(ledger.query("SELECT key, vector FROM vectors"))


def requests_in(path: Path) -> list[tuple[Any, ...]]:
    with Ledger.reading(path) as ledger:
        return list(ledger.query("SELECT * FROM spend ORDER BY id"))


def spoil(path: Path, key: bytes) -> None:
    """Change a number of a vector behind the ledger's back."""
    with Ledger.writing(path) as ledger, ledger.transaction() as database:
        database.execute("UPDATE vectors SET vector = zeroblob(length(vector)) WHERE key = ?", (key,))


def wipe(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE_BYTES)
        file.write(b"\0" * PAGE_BYTES)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- status


def test_status_adds_up_what_was_bought_and_what_for(bare: House) -> None:
    fill(bare.ledger)
    other = Space("openai", "gpu.example:8000", "bge", 4, 1)
    fill(bare.ledger, [0], other)
    with Ledger.writing(bare.ledger) as ledger:
        ledger.sent(SPACE, SPACE.keys(["lost on the way", "this one too"]), 7)
        ledger.ended(ledger.sent(SPACE, SPACE.keys(["a"]), 3), "failed", 0, 0.0, "TransientError: slow down")
        ledger.ended(ledger.sent(SPACE, SPACE.keys(["a"]), 3), "useless", 3, 0.125, "UselessAnswerError: \x1b[31mhm")
    outcome = bare.newsfuse("ledger", "status", "--requests", "2")
    assert outcome.code == 0
    first, second, *_ = outcome.text.splitlines()
    assert first == str(bare.ledger)
    assert second == f"{bare.ledger.stat().st_size / 1e6:,.1f} MB, schema {SCHEMA}, journal mode wal"
    vectors, rest = outcome.text.split("Requests ")
    sums, latest = rest.split("Latest requests")
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in vectors.splitlines() if "│" in line]
    assert cells == [
        ["openai", "", "text-embedding-3-small", "1000", "72"],
        ["openai", "gpu.example:8000", "bge", "4", "8"],
    ]
    assert table(sums) == {
        "done: brought vectors": ["10", "80", "900", "$2.5000"],
        "failed: brought none, not billed": ["1", "1", "0", "$0.0000"],
        "sent: never answered, may have been billed": ["1", "2", "about 7", ""],
        "useless: brought none, taken for billed": ["1", "1", "3", "$0.1250"],
        "total": ["13", "84", "903", "$2.6250"],
    }
    listed = [[cell.strip() for cell in line.split("│")[2:-1]] for line in latest.splitlines() if "│" in line]
    assert listed == [
        ["useless", "1", "3", "$0.1250", r"UselessAnswerError: \x1b[31mhm"],
        ["failed", "1", "0", "$0.0000", "TransientError: slow down"],
    ]


def test_status_shows_open_jobs_and_quarantine(bare: House) -> None:
    first, *_ = fill(bare.ledger)
    spoil(bare.ledger, first)
    assert bare.newsfuse("ledger", "verify").code == 7
    with Ledger.writing(bare.ledger) as ledger:
        ledger.refer(ledger.sent(SPACE, SPACE.keys(["a", "b"]), 7, status=HANDING_IN, reference="ours"), "batch_7")
    text = bare.newsfuse("ledger", "status").text
    assert "Job batch_7: 2 texts, handed in at 20" in text
    assert "Quarantine: 1 rows that `newsfuse ledger verify` found bad" in text


def test_a_job_is_given_up_by_its_name(bare: House) -> None:
    with Ledger.writing(bare.ledger) as ledger:
        ledger.refer(ledger.sent(SPACE, SPACE.keys(["a", "b"]), 7, status=HANDING_IN, reference="ours"), "batch_7")
    wrong = bare.newsfuse("ledger", "give-up", "batch_8")
    assert wrong.code == 2
    assert "no open job is called 'batch_8'. Open: batch_7" in wrong.text
    assert bare.newsfuse("ledger", "give-up", "batch_7").code == 0
    assert "Job" not in bare.newsfuse("ledger", "status").text


def test_status_works_while_another_process_pays_and_says_who(bare: House) -> None:
    fill(bare.ledger)
    paying = (
        "import sys; from pathlib import Path; from newsfuse.paid.payer import Employer, sole_payer; "
        "from newsfuse.paid.ledger import Ledger; path = Path(sys.argv[1])\n"
        "with sole_payer(path, Employer()), Ledger.writing(path) as ledger, ledger.transaction():\n"
        "    print(flush=True); input()"
    )
    words = [sys.executable, "-c", paying, str(bare.ledger)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        outcome = bare.newsfuse("ledger", "status")
        process.communicate("\n")
    assert outcome.code == 0
    assert outcome.seconds < 5  # SQLite would wait for ten, and our lock for ever
    assert table(outcome.text)["total"] == ["9", "72", "810", "$2.2500"]
    assert f"process {process.pid} (-c, since 20" in outcome.text
    assert "is at work" not in bare.newsfuse("ledger", "status").text
    note = bare.ledger.with_name("ledger.sqlite.payer")
    note.write_text(json.dumps({"pid": process.pid, "doing": "embed", "since": "long ago"}), encoding="utf-8")
    assert "is at work" not in bare.newsfuse("ledger", "status").text  # it was killed, and left its note behind


@pytest.mark.parametrize("command", [["status"], ["verify"], ["compact"]])
def test_where_no_ledger_is_there_is_nothing_to_do_and_none_is_made(bare: House, command: list[str]) -> None:
    outcome = bare.newsfuse("ledger", *command)
    assert outcome.code == 0
    assert outcome.text.startswith(f"{bare.ledger}: not there yet")
    assert names(bare.ledger.parent) == []


def test_the_ledger_is_found_from_any_sub_folder_and_by_its_variable(bare: House) -> None:
    fill(bare.ledger)
    (bare.root / "data/tiny").mkdir(parents=True)
    here = bare.newsfuse("ledger", "status").text
    assert bare.newsfuse("ledger", "status", cwd="data/tiny").text == here
    shutil.copytree(bare.ledger.parent, bare.root / "elsewhere")
    there = bare.newsfuse("ledger", "status", cwd="data", NEWSFUSE_LEDGER="elsewhere/ledger.sqlite").text
    assert there.splitlines()[0] == str(bare.root / "elsewhere/ledger.sqlite")


# --- verify


def test_a_whole_ledger_is_found_whole_and_left_as_it_is(bare: House) -> None:
    fill(bare.ledger)
    before = bare.ledger.read_bytes()
    outcome = bare.newsfuse("ledger", "verify")
    assert (outcome.code, outcome.text) == (0, f"{bare.ledger}: all is well, 72 vectors and 9 requests\n")
    assert bare.ledger.read_bytes() == before


def test_a_bad_vector_goes_to_the_quarantine_and_the_others_stay(bare: House) -> None:
    bought = fill(bare.ledger)
    bad = list(bought)[10]
    spoil(bare.ledger, bad)
    outcome = bare.newsfuse("ledger", "verify")
    assert outcome.code == 7
    assert "1 vectors did not pass their sha256 and are in quarantine now. At least 1 texts that were" in outcome.text
    assert "newsfuse ledger import data/<dataset>/embeddings" in outcome.text
    assert vectors_in(bare.ledger) == {key: vector for key, vector in bought.items() if key != bad}
    with Ledger.reading(bare.ledger) as ledger:
        assert [row[0] for row in ledger.query("SELECT key FROM quarantine")] == [bad]
    assert bare.newsfuse("ledger", "verify").code == 0


def test_a_vector_that_has_turned_into_text_is_bad_too(bare: House) -> None:
    first, *_ = fill(bare.ledger)
    with Ledger.writing(bare.ledger) as ledger, ledger.transaction() as database:
        database.execute("UPDATE vectors SET vector = CAST(x'FFFE' AS TEXT) WHERE key = ?", (first,))
    assert bare.newsfuse("ledger", "verify").code == 7
    assert len(vectors_in(bare.ledger)) == BATCH * BATCHES - 1


def test_the_embeddings_to_rebuild_from_are_named_where_there_are_any(bare: House) -> None:
    for name in ("small", "large", "free"):
        (bare.root / f"data/{name}/embeddings").mkdir(parents=True)
    for name in ("small", "large"):
        (bare.root / f"data/{name}/embeddings/keys").touch()
    for cwd, expected in (
        (".", "data/large/embeddings data/small/embeddings"),
        ("data", "large/embeddings small/embeddings"),
    ):
        bare.ledger.unlink(missing_ok=True)
        spoil(bare.ledger, next(iter(fill(bare.ledger))))
        assert f"newsfuse ledger import {expected}. See" in bare.newsfuse("ledger", "verify", cwd=cwd).text


@pytest.mark.parametrize("page", [1, 2, 3, 4], ids=["header", "requests", "vectors", "keys"])
def test_nothing_is_lost_when_the_way_to_the_rows_is_lost(bare: House, page: int) -> None:
    """Pages 2 to 4 are the roots of the tables and of the index: from there SQLite finds all else."""
    bought = fill(bare.ledger)
    requests = requests_in(bare.ledger)
    wipe(bare.ledger, page)
    damaged = bare.ledger.read_bytes()
    outcome = bare.newsfuse("ledger", "verify")
    assert outcome.code == 7
    assert vectors_in(bare.ledger) == bought
    if page != 2:  # so few requests are all on that page
        assert requests_in(bare.ledger) == requests
        assert "72 vectors and 9 requests were saved, 0 rows were bad" in outcome.text
    kept = bare.ledger.with_name("ledger.sqlite.damaged")
    assert f"the damaged one is kept: {kept}" in outcome.text
    assert kept.read_bytes() == damaged
    assert stat.S_IMODE(bare.ledger.stat().st_mode) == 0o600
    assert names(bare.ledger.parent)[:2] == ["ledger.sqlite", "ledger.sqlite-shm"]
    assert bare.newsfuse("ledger", "verify").code == 0


def test_vectors_whose_request_is_lost_do_not_pass_for_those_of_the_next_request(bare: House) -> None:
    bought = fill(bare.ledger)
    wipe(bare.ledger, 2)
    assert bare.newsfuse("ledger", "verify").code == 7
    text = bare.newsfuse("ledger", "status").text
    assert table(text)["unknown"] == ["", "unknown", "1000", "72"]
    assert table(text)["total"] == ["1", "72", "0", "$0.0000"]
    other = Space("openai", "", "ada", DIMENSIONS, 1)
    more = fill(bare.ledger, [1], other)
    with Ledger.reading(bare.ledger) as ledger:
        found = {holding.space.model: holding.keys for holding in bookkeeping.holdings(ledger)}
    assert found == {"unknown": sorted(bought), "ada": sorted(more)}


def test_what_is_gone_is_counted_by_what_was_paid_for(bare: House) -> None:
    bought = fill(bare.ledger)
    leaf = next(page for page in range(6, 99) if bare.ledger.read_bytes()[(page - 1) * PAGE_BYTES] == LEAF)
    wipe(bare.ledger, leaf)
    text = bare.newsfuse("ledger", "verify").text
    gone = len(bought) - len(vectors_in(bare.ledger))
    assert 0 < gone < 10
    assert f"{72 - gone} vectors and 9 requests were saved, 0 rows were bad" in text
    assert f"At least {gone} texts that were paid for have no vector any more" in text


def test_vectors_that_are_longer_than_a_page_are_saved_too(bare: House) -> None:
    bought = fill(bare.ledger, [0], Space("openai", "", "wide", 30_000, 1))
    wipe(bare.ledger, 1)
    assert bare.newsfuse("ledger", "verify").code == 7
    assert vectors_in(bare.ledger) == bought


def test_a_second_damaged_ledger_is_kept_beside_the_first(bare: House) -> None:
    fill(bare.ledger)
    damaged = []
    for page in (1, 3, 3):
        wipe(bare.ledger, page)
        damaged.append(bare.ledger.read_bytes())
        assert bare.newsfuse("ledger", "verify").code == 7
    kept = ("damaged", "damaged.2", "damaged.3")
    assert [bare.ledger.with_name(f"ledger.sqlite.{name}").read_bytes() for name in kept] == damaged
    assert len(vectors_in(bare.ledger)) == BATCH * BATCHES


def test_an_unreadable_line_of_the_spend_table_is_damage(bare: House) -> None:
    bought = fill(bare.ledger)
    with Ledger.writing(bare.ledger) as ledger, ledger.transaction() as database:
        database.execute("UPDATE spend SET space = '{\"provider' WHERE id = 4")
    assert table(bare.newsfuse("ledger", "status").text)["unknown"] == ["", "unknown", "1000", "8"]
    outcome = bare.newsfuse("ledger", "verify")
    assert outcome.code == 7
    assert "1 lines of the spend table are unreadable. 72 vectors and 8 requests were saved" in outcome.text
    assert vectors_in(bare.ledger) == bought
    assert table(bare.newsfuse("ledger", "status").text)["unknown"] == ["", "unknown", "1000", "8"]


@pytest.mark.parametrize("foreign", ["text", "empty", "database"])
def test_what_is_no_ledger_is_not_touched(bare: House, foreign: str) -> None:
    if foreign == "database":
        with closing(sqlite3.connect(bare.ledger)) as database:
            database.execute("CREATE TABLE letters (words TEXT)")
    else:
        bare.ledger.write_text("" if foreign == "empty" else "Dear Sir or Madam\n", encoding="utf-8")
    before = bare.ledger.read_bytes()
    outcome = bare.newsfuse("ledger", "verify")
    assert outcome.code == 7
    away = f"mv {bare.ledger} {bare.ledger}.broken && newsfuse ledger import data/<dataset>/embeddings"
    assert f"No row of a ledger was found in it, and it was left as it is. Start anew: {away}" in outcome.text
    assert bare.ledger.read_bytes() == before
    assert names(bare.ledger.parent) == ["ledger.sqlite", "ledger.sqlite.lock"]


def test_a_newer_ledger_is_rebuilt_on_demand_only(bare: House) -> None:
    bought = fill(bare.ledger)
    with bare.ledger.open("r+b") as file:
        file.seek(63)
        file.write(bytes([SCHEMA + 2]))
    before = content(bare.ledger.parent)
    outcome = bare.newsfuse("ledger", "verify")
    assert outcome.code == 7
    assert f"was written by a newer newsfuse (schema {SCHEMA + 2}, this one knows {SCHEMA})" in outcome.text
    assert content(bare.ledger.parent).items() - before.items() <= {("ledger.sqlite.lock", b"")}
    assert bare.newsfuse("ledger", "verify", "--rebuild").code == 7
    assert vectors_in(bare.ledger) == bought


# --- verify, whatever the damage


def furnished(path: Path) -> Vectors:
    """A ledger with requests of every sort."""
    bought = fill(path)
    with Ledger.writing(path) as ledger:
        ledger.sent(SPACE, SPACE.keys(["lost on the way"]), 7)
        ledger.ended(ledger.sent(SPACE, SPACE.keys(["a"]), 3), "failed", 0, 0.0, "TransientError: slow down")
        job = ledger.sent(SPACE, SPACE.keys(map(str, range(JOB))), 7, status=HANDING_IN, reference="ours")
        ledger.refer(job, "batch_7")
    return bought | fill(path, [BATCHES])


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Vectors, list[tuple[Any, ...]]]:
    path = home(tmp_path_factory.mktemp("sample") / "house").ledger
    bought = furnished(path)
    return path.read_bytes(), bought, requests_in(path)


def readable(path: Path) -> tuple[Vectors, set[tuple[Any, ...]]]:
    """All that SQLite can still read, row by row, of what passes its sha256; and of the spend table."""
    vectors: Vectors = {}
    requests: set[tuple[Any, ...]] = set()
    with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as database:
        for number in range(1, BATCH * (BATCHES + 1) + 1):
            with suppress(sqlite3.Error, TypeError):
                for key, sha256, vector in database.execute(
                    "SELECT key, sha256, vector FROM vectors WHERE rowid = ?", (number,)
                ):
                    vectors |= {key: vector} if checksum(key, vector) == sha256 else {}
            with suppress(sqlite3.Error):
                requests |= set(database.execute("SELECT * FROM spend WHERE id = ?", (number,)))
    return vectors, requests


def damages(size: int) -> st.SearchStrategy[list[tuple[int, bytes]]]:
    """(where, what is written there); nothing: the file is cut off there. What SQLite steers by is hit often."""
    page = st.integers(0, size // PAGE_BYTES - 1).map(lambda number: number * PAGE_BYTES)
    steering = st.builds(int.__add__, page, st.integers(0, 40))
    flips = st.tuples(st.integers(0, size - 1) | steering, st.binary(min_size=1, max_size=3))
    wiped = st.tuples(page, st.sampled_from([b"\0" * PAGE_BYTES, b"\0" * 100, b"\xff" * PAGE_BYTES]))
    cut = st.tuples(st.integers(size // 4, size - 1), st.just(b""))
    numbers = st.tuples(st.integers(3 * PAGE_BYTES, size - 1), st.binary(min_size=1, max_size=3))  # vectors, mostly
    return st.lists(numbers, min_size=1, max_size=2) | st.lists(flips | wiped | cut, min_size=1, max_size=6)


def damaged(data: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    for at, what in changes:
        data = data[:at] + what + data[at + len(what) :] if what else data[:at]
    return data


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_verify_loses_no_good_row_keeps_no_bad_one_and_leaves_what_it_found(
    sample: tuple[bytes, Vectors, list[tuple[Any, ...]]], data: st.DataObject
) -> None:
    whole, bought, requests = sample
    bad = damaged(whole, data.draw(damages(len(whole))))
    with tempfile.TemporaryDirectory() as folder:
        house = home(Path(folder) / "house")
        house.ledger.write_bytes(bad)
        good, told = readable(house.ledger)
        with chdir(house.root):
            try:
                bookkeeping.verify(rebuild=True)
                outcome = "whole"
            except IntegrityError as error:
                outcome = (
                    "left"
                    if "left as it is" in str(error)
                    else "quarantined"
                    if "are in quar" in str(error)
                    else "rebuilt"
                )
        kept = house.ledger.with_name("ledger.sqlite.damaged")
        assert kept.exists() == (outcome == "rebuilt")
        if outcome == "left":
            assert good == {}
            assert house.ledger.read_bytes() == bad
            return
        now = vectors_in(house.ledger)
        assert good.items() <= now.items() <= bought.items()
        assert set(requests_in(house.ledger)) >= told & set(requests)
        if outcome == "rebuilt":
            assert kept.read_bytes() == bad
        if outcome == "whole":
            assert now == bought
        with chdir(house.root):
            bookkeeping.verify(rebuild=False)  # and now all is well


VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
LONG = st.integers(0, 200_000).map(bytes)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(0, 2**63 - 1), st.tuples(VALUES, VALUES, VALUES | LONG, VALUES), max_size=20))
def test_rows_are_read_by_their_bytes_as_sqlite_reads_them(rows: dict[int, tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.sqlite"
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            database.execute("CREATE TABLE anything (a, b, c, d)")
            values = ((number, *row) for number, row in rows.items())
            database.executemany("INSERT INTO anything (rowid, a, b, c, d) VALUES (?,?,?,?,?)", values)
        with opened(path) as pages:
            assert dict(pages.rows()) == rows


def test_garbage_that_goes_round_in_circles_has_an_end(bare: House) -> None:
    fill(bare.ledger)
    count = bare.ledger.stat().st_size // PAGE_BYTES
    cell = b"\xbf" + b"\xff" * 7 + b"\x00" + b"\x01"  # a row of an absurd length, with the number 1
    circle = (count + 2).to_bytes(4, "big") * (PAGE_BYTES // 4)  # a page each word of which is its own number
    places = [500, 513, 526, 539]  # of which one is such that the row's next page is a word of the circle
    leaf = bytearray(circle)
    leaf[:16] = struct.pack(">BHHHB4H", LEAF, 0, len(places), 500, 0, *places)
    for place in places:
        leaf[place : place + len(cell)] = cell
    with bare.ledger.open("ab") as file:
        file.write(leaf + circle)
    with opened(bare.ledger) as pages:
        assert len(list(pages.rows())) >= BATCH * BATCHES


def logged(tmp_path: Path) -> tuple[House, Vectors, list[tuple[Any, ...]]]:
    """A ledger as a crash leaves it: the latest transactions are in the write-ahead log alone."""
    source = home(tmp_path / "source").ledger
    bought = fill(source, range(4))
    with Ledger.writing(source) as ledger:
        request = ledger.sent(SPACE, SPACE.keys(["z"]), 5)
    house = home(tmp_path / "house")
    with closing(sqlite3.connect(source)) as reader, Ledger.writing(source) as ledger:
        reader.execute("SELECT count(*) FROM spend").fetchone()  # as long as somebody has it open, the log stays
        vector = np.ones((1, DIMENSIONS), np.float32)
        ledger.done(request, SPACE.keys(["z"]), vector, 5, 0.5)
        bought |= {SPACE.keys(["z"])[0]: bytes(vector[0])} | fill(source, range(4, BATCHES))
        requests = requests_in(source)
        for end in ("", "-wal"):
            shutil.copy(f"{source}{end}", f"{house.ledger}{end}")
    assert len(Path(f"{house.ledger}-wal").read_bytes()) > 5 * PAGE_BYTES
    return house, bought, requests


def test_what_is_in_the_log_alone_is_saved_too_and_in_its_last_state(tmp_path: Path) -> None:
    house, bought, requests = logged(tmp_path)
    with house.ledger.open("r+b") as file:
        file.write(b"\0" * 100)
    before = {name: data for name, data in content(house.ledger.parent).items() if not name.endswith("shm")}
    assert house.newsfuse("ledger", "verify").code == 7
    assert vectors_in(house.ledger) == bought
    assert requests_in(house.ledger) == requests
    after = content(house.ledger.parent)
    assert after["ledger.sqlite.damaged"] == before["ledger.sqlite"]
    assert after["ledger.sqlite.damaged-wal"] == before["ledger.sqlite-wal"]


@pytest.mark.parametrize("command", ["status", "verify"])
def test_what_a_crash_left_half_done_without_a_log_is_undone_and_is_no_damage(tmp_path: Path, command: str) -> None:
    """As on a network file system, where a rollback journal is used."""
    source, house = home(tmp_path / "source").ledger, home(tmp_path / "house")
    bought = fill(source)
    with closing(sqlite3.connect(source, isolation_level=None)) as database:
        for words in ("PRAGMA journal_mode = DELETE", "PRAGMA cache_size = 1", "BEGIN", "DELETE FROM vectors"):
            database.execute(words)
        rows = ((os.urandom(32), os.urandom(6000)) for _ in range(300))
        database.executemany("INSERT INTO vectors VALUES (?, 1, x'', ?)", rows)
        for end in ("", "-journal"):
            shutil.copy(f"{source}{end}", f"{house.ledger}{end}")
    outcome = house.newsfuse("ledger", command)
    assert outcome.code == 0, outcome.text
    assert vectors_in(house.ledger) == bought


def test_an_interrupted_rescue_is_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house, bought, requests = logged(tmp_path)
    with house.ledger.open("r+b") as file:
        file.write(b"\0" * 100)
    replace, damaged_bytes = Path.replace, house.ledger.read_bytes()

    def fail(path: Path, target: Path) -> Path:
        if path.name.endswith(".rebuilt"):
            message = "no space left"
            raise OSError(message)
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        assert house.newsfuse("ledger", "verify").code == 8
    assert house.ledger.read_bytes() == damaged_bytes  # never without a ledger: a new one would pay for all again
    assert house.newsfuse("ledger", "verify").code == 7
    assert vectors_in(house.ledger) == bought
    assert requests_in(house.ledger) == requests
    assert not house.ledger.with_name("ledger.sqlite.damaged.2").exists()
    assert not house.ledger.with_name("ledger.sqlite.rebuilt").exists()


def test_where_there_are_no_links_the_damaged_ledger_is_copied(bare: House, monkeypatch: pytest.MonkeyPatch) -> None:
    bought = fill(bare.ledger)
    wipe(bare.ledger, 3)
    damaged_bytes = bare.ledger.read_bytes()

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert bare.newsfuse("ledger", "verify").code == 7
    assert vectors_in(bare.ledger) == bought
    assert bare.ledger.with_name("ledger.sqlite.damaged").read_bytes() == damaged_bytes


@pytest.mark.parametrize("command", ["verify", "compact"])
def test_without_room_on_the_disk_nothing_is_begun(bare: House, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(bare.ledger)
    if command == "verify":
        wipe(bare.ledger, 3)
    before = bare.ledger.read_bytes()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    outcome = bare.newsfuse("ledger", command)
    assert outcome.code == 8
    assert "MB are needed; nothing was changed. Free some space and run again" in outcome.text
    assert bare.ledger.read_bytes() == before
    assert not list(bare.ledger.parent.glob("*.damaged*"))


@pytest.mark.parametrize("kilobytes", [100, 200])
@pytest.mark.parametrize(
    "command", [["verify"], ["compact"], ["export", "new"], ["import", "out"]], ids=lambda words: words[0]
)
def test_a_disk_that_gets_full_leaves_everything_as_it_was(bare: House, command: list[str], kilobytes: int) -> None:
    bought = fill(bare.ledger)
    bare.newsfuse("ledger", "export", "out")
    if command == ["verify"]:
        wipe(bare.ledger, 3)
    if command[0] == "import":
        bare.ledger.unlink()
        bought = fill(bare.ledger, [0])
    before = {name: data for name, data in content(bare.root).items() if not name.endswith(("lock", "-wal", "-shm"))}
    words = [sys.executable, "-m", "newsfuse.cli", "ledger", *command]
    limit = ["bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "limited", *words]  # of a file; the ledger has 350
    done = subprocess.run(limit, cwd=bare.root, env=bare.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 8, done.stderr
    assert "Traceback" not in done.stderr
    after = {name: data for name, data in content(bare.root).items() if not name.endswith(("lock", "-wal", "-shm"))}
    assert after == before
    if command != ["verify"]:
        assert vectors_in(bare.ledger) == bought


def test_who_writes_waits_for_who_pays(bare: House, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(bare.ledger)
    monkeypatch.setattr(Employer, "gone", lambda _: True)  # so that the wait has an end
    with FileLock(f"{bare.ledger}.lock"):
        for command in (["verify"], ["compact"]):
            assert bare.newsfuse("ledger", *command).code == 75


# --- export and import


def test_what_is_exported_comes_back_the_same(bare: House, tmp_path: Path) -> None:
    bought = fill(bare.ledger) | fill(bare.ledger, [0], Space("openai", "gpu.example:8000", "b/ge", 4, 1))
    outcome = bare.newsfuse("ledger", "export", str(tmp_path / "out"))
    assert outcome.code == 0
    assert len(outcome.text.splitlines()) == 2
    folders = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [name.rpartition("-")[0] for name in folders] == ["openai-b-ge-4", "openai-text-embedding-3-small-1000"]
    assert Space(**verified(tmp_path / "out" / folders[1], kind="ledger")) == SPACE
    other = home(tmp_path / "other")
    told = other.newsfuse("ledger", "import", str(tmp_path / "out"))
    assert told.code == 0
    assert "72 of 72 vectors are new (openai, text-embedding-3-small, 1000 dimensions)" in told.text
    assert "8 of 8 vectors are new (openai at gpu.example:8000, b/ge, 4 dimensions)" in told.text
    assert vectors_in(other.ledger) == bought
    assert table(other.newsfuse("ledger", "status").text)["total"] == ["2", "80", "0", "$0.0000"]
    assert "all is well, 80 vectors and 2 requests" in other.newsfuse("ledger", "verify").text
    assert other.newsfuse("ledger", "export", "again").code == 0
    assert content(other.root / "again") == content(tmp_path / "out")


def test_a_vector_that_points_at_a_request_of_other_dimensions_is_exported_all_the_same(bare: House) -> None:
    bought = fill(bare.ledger) | fill(bare.ledger, [0], Space("openai", "", "short", 4, 1))
    with Ledger.writing(bare.ledger) as ledger, ledger.transaction() as database:
        database.execute("UPDATE vectors SET request = 10 WHERE request = 3")
    assert bare.newsfuse("ledger", "export", "out").code == 0
    bare.ledger.unlink()
    assert bare.newsfuse("ledger", "import", "out").code == 0
    assert vectors_in(bare.ledger) == bought


def test_what_is_imported_twice_is_new_once(bare: House, tmp_path: Path) -> None:
    fill(bare.ledger)
    bare.newsfuse("ledger", "export", str(tmp_path / "out"))
    other = home(tmp_path / "other")
    half = dict(list(fill(other.ledger, range(4)).items()))
    one = str(next((tmp_path / "out").iterdir()))
    told = other.newsfuse("ledger", "import", one, one)
    assert [line.split(": ")[1][:24] for line in told.text.splitlines()[:2]] == [
        "40 of 72 vectors are new",
        "0 of 72 vectors are new ",
    ]
    assert half.items() <= vectors_in(other.ledger).items()
    with Ledger.reading(other.ledger) as ledger:
        (imported,) = ledger.requests("imported")
    assert (imported.texts, len(imported.keys), imported.tokens, imported.usd) == (40, 40, 0, 0.0)


def test_the_first_vector_of_a_key_stays(bare: House, tmp_path: Path) -> None:
    bought = fill(bare.ledger)
    bare.newsfuse("ledger", "export", str(tmp_path / "out"))
    other = home(tmp_path / "other")
    (key, *_) = bought
    with Ledger.writing(other.ledger) as ledger:
        ledger.done(ledger.sent(SPACE, [key], 1), [key], np.ones((1, DIMENSIONS), np.float32), 1, 0.0)
    assert other.newsfuse("ledger", "import", str(tmp_path / "out")).code == 0
    assert vectors_in(other.ledger) == bought | {key: np.ones(DIMENSIONS, np.float32).tobytes()}


def test_a_lost_ledger_is_rebuilt_from_the_embeddings_for_nothing(tmp_path: Path) -> None:
    house = House.build(tmp_path / "a house")
    same = ("a\tb\tc\tThe same title\t\t\t[]\t[]\n".replace("a\t", name, 1) for name in ("N9001\t", "N9002\t"))
    with house.news("train").open("a", encoding="utf-8") as file:
        file.writelines(same)
    with OpenAIServer() as server:
        house.embed(server)
        before, billed = content(house.embeddings), server.billed
        shutil.rmtree(house.ledger.parent)
        outcome = house.newsfuse("ledger", "import", "data/tiny/embeddings", OPENAI_BASE_URL=server.url)
        assert outcome.code == 0
        assert f"data/tiny/embeddings: {billed} of {billed} vectors are new" in outcome.text
        shutil.rmtree(house.embeddings)
        assert house.run("stages.embed", OPENAI_BASE_URL=server.url).code == 0  # without a key
        assert server.billed == billed
    assert content(house.embeddings) == before
    assert stat.S_IMODE(house.ledger.parent.stat().st_mode) == 0o700


def test_embeddings_that_cost_nothing_are_refused_in_words(tmp_path: Path) -> None:
    house = House.build(tmp_path / "a house")
    house.choose(provider="lsa", dimensions=8)
    assert house.run("stages.embed").code == 0
    outcome = house.newsfuse("ledger", "import", "data/tiny/embeddings")
    told = "'lsa' made it for nothing and without keys, so there is nothing to import"
    assert (outcome.code, outcome.text) == (2, f"ERROR: data/tiny/embeddings: {told}\n")
    assert not house.ledger.exists()


def test_all_folders_are_verified_before_one_is_imported(bare: House, tmp_path: Path) -> None:
    fill(bare.ledger)
    bare.newsfuse("ledger", "export", str(tmp_path / "good"))
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    (bad,) = (tmp_path / "bad").iterdir()
    with (bad / "vectors.npy").open("r+b") as file:
        file.seek(500)
        file.write(b"!")
    other = home(tmp_path / "other")
    outcome = other.newsfuse("ledger", "import", str(tmp_path / "good"), str(tmp_path / "bad"))
    assert outcome.code == 7
    assert f"{bad / 'vectors.npy'}: missing or damaged" in outcome.text
    assert "Nothing was imported. Fetch a whole one: dvc checkout --force, dvc pull, a backup" in outcome.text
    assert "rm -rf" not in outcome.text  # without a ledger that would be paid for
    assert not other.ledger.exists()


def array(count: int) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones((count, DIMENSIONS), np.float32))
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({"keys": b"00\n"}, 7, "keys:1: no key, expected 64 hexadecimal digits"),
        ({"keys": b"zz\n"}, 7, "keys: not a key of 64 hexadecimal digits a line"),
        (
            {"keys": b"0" * 64 + b"\n"},
            7,
            "vectors.npy: holds float32 (72, 1000) in 288,000 bytes, expected float32 (1, 1000)",
        ),
        ({"vectors.npy": np.lib.format.magic(1, 0)}, 7, "vectors.npy: no array of numpy's"),
        (
            {"vectors.npy": array(72)[:-4]},
            7,
            "vectors.npy: holds float32 (72, 1000) in 287,996 bytes, expected float32 ",
        ),
        (
            {"vectors.npy": array(71)},
            7,
            "vectors.npy: holds float32 (71, 1000) in 284,000 bytes, expected float32 (72, ",
        ),
        ({"vectors.npy": b"\x93NUMPY"}, 7, "vectors.npy: no array of numpy's"),
        ({"manifest.json": b'"provider": "openai",'}, 7, "manifest.json: says no 'provider'"),
    ],
)
def test_a_folder_that_is_whole_but_no_such_folder_is_refused(
    bare: House, tmp_path: Path, change: dict[str, bytes], code: int, told: str
) -> None:
    fill(bare.ledger)
    bare.newsfuse("ledger", "export", str(tmp_path / "out"))
    (folder,) = (tmp_path / "out").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for name, data in change.items():
        if name == "manifest.json":
            manifest["settings"].pop("provider")
        else:
            (folder / name).write_bytes(data)
            manifest["files"][name]["sha256"] = hashlib.sha256(data).hexdigest()
    manifest.pop("sha256")  # as older versions wrote it
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    outcome = bare.newsfuse("ledger", "import", str(folder))
    assert outcome.code == code
    assert told in outcome.text


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_what_holds_no_vectors_is_no_folder_to_import(bare: House, name: str) -> None:
    (bare.root / "empty").mkdir()
    outcome = bare.newsfuse("ledger", "import", name)
    assert outcome.code == 2
    assert "expected data/<dataset>/embeddings, or what newsfuse ledger export wrote" in outcome.text


def test_a_damaged_ledger_is_not_imported_into(bare: House, tmp_path: Path) -> None:
    fill(bare.ledger)
    bare.newsfuse("ledger", "export", str(tmp_path / "out"))
    wipe(bare.ledger, 3)
    before = bare.ledger.read_bytes()
    outcome = bare.newsfuse("ledger", "import", str(tmp_path / "out"))
    assert outcome.code == 7
    assert "newsfuse ledger verify" in outcome.text
    assert bare.ledger.read_bytes() == before


def test_a_bad_vector_is_not_exported_and_no_half_export_is_left(bare: House) -> None:
    bought = fill(bare.ledger)
    spoil(bare.ledger, max(bought))
    before = bare.files()
    outcome = bare.newsfuse("ledger", "export", "out")
    assert outcome.code == 7
    assert "newsfuse ledger verify" in outcome.text
    assert {name for name in bare.files() - before if not name.startswith(".newsfuse")} == set()


def test_an_export_writes_over_nothing(bare: House) -> None:
    fill(bare.ledger)
    (bare.root / "out").mkdir()
    (bare.root / "out/letter.txt").write_text("mine", encoding="utf-8")
    outcome = bare.newsfuse("ledger", "export", "out")
    assert outcome.code == 2
    assert "is there already" in outcome.text
    assert content(bare.root / "out") == {"letter.txt": b"mine"}
    (bare.root / "new").mkdir()
    assert bare.newsfuse("ledger", "export", "new").code == 0


def test_an_export_of_nothing_is_a_mistake(bare: House) -> None:
    outcome = bare.newsfuse("ledger", "export", "out")
    assert (outcome.code, outcome.text) == (2, f"ERROR: {bare.ledger}: is not there, so nothing was exported\n")


def test_neither_export_nor_import_holds_many_vectors_at_once(bare: House, tmp_path: Path) -> None:
    space, count = Space("openai", "", "wide", 2000, 1), 4000  # 32 MB
    with Ledger.writing(bare.ledger) as ledger:
        keys = space.keys(map(str, range(count)))
        ledger.done(ledger.sent(space, keys, count), keys, np.ones((count, 2000), np.float32), count, 0.0)
    other = home(tmp_path / "other")
    tracemalloc.start()
    try:
        with chdir(bare.root):
            exchange.hand_out(tmp_path / "out")
        exported = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        with chdir(other.root):
            exchange.take_in([tmp_path / "out"])
        imported = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert imported < 8e6
    assert exported < 16e6  # a few hundred rows, some of them twice
    assert len(vectors_in(other.ledger)) == count


# --- compact


def test_compacting_frees_space_and_drops_nothing_that_was_paid_for(bare: House) -> None:
    bought = fill(bare.ledger)
    requests = requests_in(bare.ledger)
    for key in list(bought)[:40]:
        spoil(bare.ledger, key)
    assert bare.newsfuse("ledger", "verify").code == 7
    kept = dict(list(bought.items())[40:])
    outcome = bare.newsfuse("ledger", "compact")
    assert outcome.code == 0
    assert outcome.text.endswith("0 quarantined rows dropped\n")
    with Ledger.reading(bare.ledger) as ledger:
        assert next(ledger.query("SELECT count(*) FROM quarantine")) == (40,)
    before = bookkeeping.n_bytes_of(bare.ledger)
    outcome = bare.newsfuse("ledger", "compact", "--drop-quarantined")
    after = bare.ledger.stat().st_size
    assert (
        outcome.text == f"{bare.ledger}: {before:,} bytes before, {after:,} bytes after, 40 quarantined rows dropped\n"
    )
    assert after < before - 40 * 4 * DIMENSIONS * 0.8
    assert vectors_in(bare.ledger) == kept
    assert requests_in(bare.ledger) == requests
    assert stat.S_IMODE(bare.ledger.stat().st_mode) == 0o600
    assert bare.newsfuse("ledger", "verify").code == 0


def test_a_damaged_ledger_is_not_compacted(bare: House) -> None:
    fill(bare.ledger)
    wipe(bare.ledger, 3)
    before = bare.ledger.read_bytes()
    assert bare.newsfuse("ledger", "compact").code == 7
    assert bare.ledger.read_bytes() == before


# --- the command


def test_the_command_line_tells_mistakes_without_a_traceback(bare: House) -> None:
    bare.ledger.write_bytes(b"no ledger")
    for words in (["status"], ["verify"], ["export", "out"], ["import", "out"], ["compact"]):
        outcome = bare.run("newsfuse.cli", "ledger", *words)
        assert outcome.code in {2, 7}, outcome.text
        assert outcome.text.startswith("ERROR: ")
        assert "Traceback" not in outcome.text


def test_help_waits_for_nothing_heavy() -> None:
    look = "import sys, newsfuse.cli; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert not {"numpy", "polars", "torch", "openai", "sqlite3", "newsfuse.paid"} & set(done.stdout.splitlines())
