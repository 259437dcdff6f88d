"""The ledger as it is when nothing crashes: what it keeps, what it refuses, where it is."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from openai_server import vectors
from shop import DIMENSIONS, SPACE

from newsfuse.environment import Environment
from newsfuse.errors import BusyError, IntegrityError, NewsfuseError, StorageError
from newsfuse.paid.ledger import APPLICATION_ID, CHUNK, PAGE_BYTES, SCHEMA, Ledger, _file_system, location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TEXTS = ["a", "b", "c"]
KEYS = SPACE.keys(TEXTS)
VECTORS = vectors(TEXTS, DIMENSIONS)
MARK = np.frombuffer(b"findmefindmefind", "<f4").reshape(1, DIMENSIONS)
"""A vector that is easily found in a file."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def full(path: Path) -> Path:
    """A ledger with a vector for each of TEXTS."""
    with Ledger.writing(path) as ledger:
        keep(ledger, KEYS, VECTORS)
    return path


def keep(ledger: Ledger, keys: Sequence[bytes], rows: np.ndarray) -> int:
    request = ledger.sent(SPACE, keys, 10)
    ledger.done(request, keys, rows, 9, 0.5)
    return request


def kept(path: Path, keys: Sequence[bytes] = KEYS) -> np.ndarray:
    with Ledger.reading(path) as ledger:
        return np.concatenate([np.empty((0, DIMENSIONS), np.float32), *ledger.vectors(keys, DIMENSIONS)])


def tampered(path: Path, statement: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        assert database.execute(statement, values).rowcount in {-1, 1}


def refused(kind: type[NewsfuseError], work: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        work()
    assert caught.value.exit_code == kind.exit_code
    return str(caught.value)


def written(path: Path) -> None:
    with Ledger.writing(path) as ledger:
        keep(ledger, KEYS, VECTORS)


# what it keeps


def test_vectors_come_back_in_the_order_they_are_asked_for(full: Path) -> None:
    np.testing.assert_array_equal(kept(full, [KEYS[2], KEYS[0], KEYS[2]]), VECTORS[[2, 0, 2]])
    assert kept(full).dtype == np.float32


def test_more_vectors_than_are_read_at_a_time_come_in_parts(path: Path) -> None:
    count = 2 * CHUNK + 3
    keys = SPACE.keys(map(str, range(count)))
    rows = np.arange(count * DIMENSIONS, dtype=np.float32).reshape(count, DIMENSIONS)
    with Ledger.writing(path) as ledger:
        keep(ledger, keys, rows)
    with Ledger.reading(path) as ledger:
        parts = list(ledger.vectors(keys[::-1], DIMENSIONS))
        assert ledger.missing([b"?" * 32, *keys, b"!" * 32]) == [0, count + 1]
    assert [len(part) for part in parts] == [CHUNK, CHUNK, 3]
    np.testing.assert_array_equal(np.concatenate(parts), rows[::-1])


def test_the_first_vector_of_a_key_stays(full: Path) -> None:
    with Ledger.writing(full) as ledger:
        keep(ledger, [KEYS[1], *SPACE.keys(["d"])], np.full((2, DIMENSIONS), 7, np.float32))
    np.testing.assert_array_equal(kept(full), VECTORS)
    np.testing.assert_array_equal(kept(full, SPACE.keys(["d"])), np.full((1, DIMENSIONS), 7))


def test_only_keys_without_a_vector_are_missing(full: Path) -> None:
    with Ledger.reading(full) as ledger:
        assert ledger.missing(SPACE.keys(["b", "x", "a", "y", "x"])) == [1, 3, 4]
        assert ledger.missing([]) == []


def test_every_request_is_in_the_book(path: Path) -> None:
    with Ledger.writing(path) as ledger:
        assert keep(ledger, KEYS, VECTORS) == 1
        assert ledger.sent(SPACE, KEYS[:1], 4) == 2
        ledger.ended(2, "failed", 0, 0.0, "ProviderError: no")
        assert ledger.sent(SPACE, KEYS[1:], 8, status="handed in", reference="ours") == 3
        ledger.refer(3, "batch_7")
    with Ledger.reading(path) as ledger:
        done, failed, handed_in = ledger.requests()
        assert ledger.requests("failed") == [failed]
    assert (done.status, done.texts, done.tokens_estimated, done.tokens, done.usd) == ("done", 3, 10, 9, 0.5)
    assert (done.keys, done.space, done.reference, done.note) == (tuple(KEYS), SPACE, None, None)
    assert (failed.status, failed.tokens, failed.usd, failed.note) == ("failed", 0, 0.0, "ProviderError: no")
    assert (handed_in.status, handed_in.keys, handed_in.reference) == ("handed in", tuple(KEYS[1:]), "batch_7")
    assert (handed_in.tokens, handed_in.usd) == (None, None)
    assert done.at <= failed.at <= handed_in.at
    assert done.at.endswith("+00:00")


def test_vectors_and_the_word_that_they_are_done_are_one_transaction(path: Path) -> None:
    with Ledger.writing(path) as ledger:
        request = ledger.sent(SPACE, KEYS, 10)
    tampered(path, "CREATE TRIGGER no BEFORE UPDATE ON spend BEGIN SELECT RAISE(ABORT, 'on purpose'); END")
    with Ledger.writing(path) as ledger:
        refused(IntegrityError, lambda: ledger.done(request, KEYS, VECTORS, 9, 0.5))
        assert ledger.missing(KEYS) == [0, 1, 2]
        assert [each.status for each in ledger.requests()] == ["sent"]


def test_what_fails_in_a_transaction_leaves_no_trace_and_the_next_one_works(path: Path) -> None:
    with Ledger.writing(path) as ledger:
        with contextlib.suppress(KeyError), ledger.transaction() as database:
            database.execute("DELETE FROM spend")
            database.execute("INSERT INTO vectors VALUES (x'00', 1, x'00', x'00')")
            raise KeyError
        assert ledger.missing([b"\0"]) == [0]
        keep(ledger, KEYS, VECTORS)


def test_a_row_too_few_is_refused_and_nothing_is_kept(path: Path) -> None:
    with Ledger.writing(path) as ledger:
        request = ledger.sent(SPACE, KEYS, 10)
        with pytest.raises(ValueError, match="shorter"):
            ledger.done(request, KEYS, VECTORS[:2], 9, 0.5)
        assert ledger.missing(KEYS) == [0, 1, 2]


# the file


def test_the_header_of_the_file_says_whose_it_is_and_of_which_schema(full: Path) -> None:
    header = full.read_bytes()[:100]
    assert header.startswith(b"SQLite format 3\0")
    assert header[68:72] == b"nfus" == APPLICATION_ID.to_bytes(4, "big")
    assert header[60:64] == b"\0\0\0\1" == SCHEMA.to_bytes(4, "big")


def pragma(ledger: Ledger, name: str) -> object:
    with ledger.transaction() as database:
        return database.execute(f"PRAGMA {name}").fetchone()[0]


def test_every_transaction_is_on_the_disk_when_it_ends(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        with caplog.at_level(logging.INFO), Ledger.writing(path) as ledger:
            assert pragma(ledger, "journal_mode") == "wal"
            assert pragma(ledger, "synchronous") == 2  # FULL
    assert caplog.messages == []


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "lustre"])
def test_on_a_network_file_system_a_rollback_journal_is_used_and_told(
    full: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr("newsfuse.paid.ledger._file_system", lambda _: kind)
        with Ledger.writing(full) as ledger:
            assert pragma(ledger, "journal_mode") == "delete"
            assert pragma(ledger, "synchronous") == 3  # EXTRA: the folder too, once the journal is gone
            keep(ledger, SPACE.keys(["d"]), MARK)
            assert not full.with_name("ledger.sqlite-wal").exists()
    told = f"{full}: on {kind}, so a rollback journal is used instead of a write-ahead log"
    assert caplog.messages == [told]
    np.testing.assert_array_equal(kept(full), VECTORS)
    with Ledger.writing(full) as ledger:  # moved to a disk of this machine
        assert pragma(ledger, "journal_mode") == "wal"


def test_the_type_of_the_file_system_is_that_of_the_deepest_mount(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    def mounts(*_: object, **__: object) -> list[object]:
        here = path.parent
        return [Mount("/", "ext4"), Mount(str(here), "nfs4"), Mount(str(here.parent), "btrfs"), Mount(f"{here}x", "9p")]

    monkeypatch.setattr("newsfuse.paid.ledger.psutil.disk_partitions", mounts)
    assert _file_system(path) == "nfs4"
    assert _file_system(path.parents[1] / "elsewhere") == "btrfs"
    monkeypatch.setattr("newsfuse.paid.ledger.psutil.disk_partitions", lambda **_: [])
    assert _file_system(path) == ""


class Mount:
    def __init__(self, mountpoint: str, fstype: str) -> None:
        self.mountpoint, self.fstype = mountpoint, fstype


def test_a_name_with_spaces_marks_and_letters_of_any_kind_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "ein Buch?mode=memory#1%20" / "ledger 雨.sqlite"
    path.parent.mkdir()
    written(path)
    np.testing.assert_array_equal(kept(path), VECTORS)
    assert path.is_file()
    assert [each.name for each in tmp_path.iterdir()] == ["ein Buch?mode=memory#1%20"]


def test_what_an_interrupted_beginning_left_does_not_matter(path: Path) -> None:
    path.with_name("ledger.sqlite.new").write_bytes(b"half a ledger")
    written(path)
    np.testing.assert_array_equal(kept(path), VECTORS)
    assert not path.with_name("ledger.sqlite.new").exists()


# reading


def test_reading_where_there_is_no_ledger_finds_it_empty_and_creates_nothing(tmp_path: Path) -> None:
    with Ledger.reading(tmp_path / "none" / "ledger.sqlite") as ledger:
        assert ledger.missing(KEYS) == [0, 1, 2]
        assert ledger.requests() == []
        ledger.require_whole()
    assert list(tmp_path.iterdir()) == []


def test_a_reader_changes_nothing_in_the_ledger(full: Path) -> None:
    before = full.read_bytes()
    with Ledger.reading(full) as ledger:
        assert ledger.missing(KEYS) == []
        refused(StorageError, lambda: ledger.sent(SPACE, KEYS, 1))
    assert full.read_bytes() == before


def test_a_reader_sees_what_a_payer_has_done_so_far(full: Path) -> None:
    with Ledger.writing(full) as ledger:
        request = ledger.sent(SPACE, SPACE.keys(["d"]), 1)
        with Ledger.reading(full) as reader:
            assert reader.missing(SPACE.keys(["a", "d"])) == [1]
            assert [each.status for each in reader.requests()] == ["done", "sent"]
            ledger.done(request, SPACE.keys(["d"]), MARK, 1, 0.0)
            assert reader.missing(SPACE.keys(["a", "d"])) == []


@pytest.fixture
def mortal() -> Iterator[Path]:
    """A folder of somebody who is not root, as whom the test runs: root may write anywhere."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        if os.geteuid() == 0:
            os.chown(folder, 65534, -1)
            os.seteuid(65534)
            try:
                yield folder
            finally:
                os.seteuid(0)
        else:
            yield folder
        folder.chmod(0o755)


def test_a_ledger_in_a_folder_that_may_not_be_written_can_be_read(mortal: Path) -> None:
    path = mortal / "ledger.sqlite"
    written(path)
    mortal.chmod(0o555)
    np.testing.assert_array_equal(kept(path), VECTORS)
    message = refused(StorageError, lambda: written(path))
    assert message.startswith(f"{path}: may not be opened or written: ")


def test_a_ledger_that_may_not_be_read_is_named(mortal: Path) -> None:
    path = mortal / "ledger.sqlite"
    written(path)
    path.chmod(0o200)
    assert refused(StorageError, lambda: kept(path)) == f"{path}: cannot be read: Permission denied"


# what it refuses


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        ("UPDATE vectors SET vector = ? WHERE key = ?", (VECTORS[0].tobytes(), KEYS[1])),
        (
            "UPDATE vectors SET (sha256, vector) = (SELECT sha256, vector FROM vectors WHERE key = ?) WHERE key = ?",
            (KEYS[0], KEYS[1]),  # whole, but of another text
        ),
        ("UPDATE vectors SET vector = zeroblob(16) WHERE key = ?", (KEYS[1],)),
        ("UPDATE vectors SET sha256 = zeroblob(32) WHERE key = ?", (KEYS[1],)),
        ("UPDATE vectors SET vector = x'' WHERE key = ?", (KEYS[1],)),
        ("DELETE FROM vectors WHERE key = ?", (KEYS[1],)),
    ],
)
def test_a_damaged_row_is_never_served(full: Path, statement: str, values: tuple[object, ...]) -> None:
    tampered(full, statement, *values)
    message = refused(IntegrityError, lambda: kept(full))
    assert message.startswith(f"{full}: 1 vectors are damaged or gone. ")
    assert "newsfuse ledger verify" in message
    assert "newsfuse ledger import data/<dataset>/embeddings" in message
    np.testing.assert_array_equal(kept(full, [KEYS[0], KEYS[2]]), VECTORS[[0, 2]])


def test_a_byte_flipped_on_the_disk_is_noticed(full: Path) -> None:
    with Ledger.writing(full) as ledger:
        keep(ledger, SPACE.keys(["d"]), MARK)
    content = full.read_bytes()
    assert content.count(MARK.tobytes()) == 1
    full.write_bytes(content.replace(MARK.tobytes(), b"findmefindmefinD"))
    refused(IntegrityError, lambda: kept(full, SPACE.keys(["d"])))
    np.testing.assert_array_equal(kept(full), VECTORS)


def test_a_damaged_line_of_the_book_is_told_in_words(full: Path) -> None:
    tampered(full, "UPDATE spend SET space = ?", '{"provider": "op')
    with Ledger.reading(full) as ledger:
        assert "newsfuse ledger verify" in refused(IntegrityError, ledger.requests)


def test_vectors_of_another_size_are_not_served(full: Path) -> None:
    with Ledger.reading(full) as ledger:
        message = refused(IntegrityError, lambda: list(ledger.vectors(KEYS, DIMENSIONS + 1)))
    assert "3 vectors are damaged or gone" in message


def foreign(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE vectors (key BLOB PRIMARY KEY, vector BLOB)")


def newer(path: Path) -> None:
    tampered(path, f"PRAGMA user_version = {SCHEMA + 1}")


def flipped(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(lambda path: os.truncate(path, 0), "is empty. It was not changed", id="empty"),
        pytest.param(lambda path: os.truncate(path, 60), "is no ledger of newsfuse", id="cut in its header"),
        pytest.param(lambda path: os.truncate(path, 5000), "is damaged", id="cut in its first page"),
        pytest.param(
            lambda path: os.truncate(path, path.stat().st_size - 40_000), "the ledger is damaged", id="cut near its end"
        ),
        pytest.param(lambda path: path.write_bytes(b"a shopping list\n" * 99), "is no ledger", id="text"),
        pytest.param(foreign, "is no ledger of newsfuse", id="somebody else's database"),
        pytest.param(newer, "a newer newsfuse (schema 2, this one knows 1). Update newsfuse", id="newer"),
        pytest.param(lambda path: flipped(path, 3), "is no ledger of newsfuse", id="flipped in its magic"),
        pytest.param(lambda path: flipped(path, 69), "is no ledger of newsfuse", id="flipped in its application id"),
        pytest.param(lambda path: flipped(path, 100), "the ledger is damaged", id="flipped in its schema page"),
    ],
)
def test_a_file_that_is_no_whole_ledger_is_refused_and_left_as_it_is(
    full: Path, damage: Callable[[Path], object], told: str
) -> None:
    damage(full)
    before = full.read_bytes()

    def whole() -> None:
        with Ledger.writing(full) as ledger:
            ledger.require_whole()

    message = refused(IntegrityError, whole)
    assert message.startswith(f"{full}: ")
    assert told in message
    assert "newsfuse ledger import data/<dataset>/embeddings" in message or "Update newsfuse" in message
    assert full.read_bytes() == before
    assert {each.name for each in full.parent.iterdir()} <= {full.name, "ledger.sqlite-wal", "ledger.sqlite-shm"}


@pytest.mark.parametrize("way", [Ledger.reading, Ledger.writing])
def test_a_refused_file_is_not_held_open(
    full: Path, way: Callable[[Path], contextlib.AbstractContextManager[Ledger]]
) -> None:
    flipped(full, 100)
    with pytest.raises(IntegrityError) as caught, way(full):
        pass
    held = [each.readlink() for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    assert caught.value.__traceback__
    assert full not in held


def test_a_read_only_ledger_may_be_read_and_not_paid_into(full: Path) -> None:
    full.chmod(0o400)
    before = full.read_bytes()
    message = refused(IntegrityError, lambda: written(full))
    assert message == f"{full}: the ledger is read-only, so nothing may be paid. Allow it: chmod u+w {full}"
    assert full.read_bytes() == before
    np.testing.assert_array_equal(kept(full), VECTORS)


def test_a_folder_in_the_ledgers_place_is_refused(path: Path) -> None:
    path.mkdir()
    assert refused(StorageError, lambda: kept(path)) == f"{path}: cannot be read: Is a directory"
    assert refused(StorageError, lambda: written(path)) == f"{path}: cannot be read: Is a directory"


def test_a_full_disk_ends_in_words_and_what_was_there_stays(full: Path) -> None:
    with Ledger.writing(full) as ledger:
        pragma(ledger, f"max_page_count = {pragma(ledger, 'page_count')}")  # SQLite's own stand-in for a full disk
        keys = SPACE.keys(map(str, range(5000)))
        request = ledger.sent(SPACE, KEYS, 1)
        message = refused(
            StorageError, lambda: ledger.done(request, keys, np.ones((5000, DIMENSIONS), np.float32), 1, 0.0)
        )
        assert message.endswith("Free some space and run again")
        assert len(ledger.missing(keys)) == 5000
    np.testing.assert_array_equal(kept(full), VECTORS)


def test_a_ledger_that_another_program_holds_is_busy(full: Path) -> None:
    with Ledger.writing(full) as ledger, contextlib.closing(sqlite3.connect(full, isolation_level=None)) as other:
        pragma(ledger, "busy_timeout = 10")
        other.execute("BEGIN IMMEDIATE")
        message = refused(BusyError, lambda: ledger.sent(SPACE, KEYS, 1))
        other.execute("ROLLBACK")
        ledger.sent(SPACE, KEYS, 1)
    assert message.startswith(f"{full}: another program holds the file")


def test_a_lost_key_is_found_before_anything_is_paid(full: Path) -> None:
    with Ledger.writing(full) as ledger:
        keep(ledger, SPACE.keys(map(str, range(2000))), np.ones((2000, DIMENSIONS), np.float32))
        ledger.require_whole()
        with ledger.transaction() as database:
            index = "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_vectors_1'"
            (page,) = database.execute(index).fetchone()
    flipped(full, (page - 1) * PAGE_BYTES)
    with Ledger.writing(full) as ledger:
        assert "the ledger is damaged" in refused(IntegrityError, ledger.require_whole)


# where it is


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC project, and a folder below it in which we are."""
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    (root / "data" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(root / "data" / "tiny")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return root


def test_the_ledger_is_in_the_root_of_the_project_wherever_one_is(project: Path) -> None:
    assert location(Environment()) == project / ".newsfuse" / "ledger.sqlite"


def test_dvc_says_which_project_it_is(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "parent"))
    assert location(Environment()) == tmp_path / "parent" / ".newsfuse" / "ledger.sqlite"


def test_an_empty_dvc_root_is_none(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", "")
    assert location(Environment()) == project / ".newsfuse" / "ledger.sqlite"


@pytest.mark.parametrize("dvc_root", [None, "parent"])
def test_a_relative_ledger_counts_from_the_root_of_the_project(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dvc_root: str | None
) -> None:
    if dvc_root:
        monkeypatch.setenv("DVC_ROOT", str(tmp_path / dvc_root))
    assert location(Environment(ledger=Path("../shared/paid.sqlite"))).resolve() == tmp_path / "shared" / "paid.sqlite"


@pytest.mark.usefixtures("project")
def test_an_absolute_ledger_is_where_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert location(Environment(ledger=tmp_path / "paid.sqlite")) == tmp_path / "paid.sqlite"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert location(Environment(ledger=Path("~/paid.sqlite"))) == tmp_path / "paid.sqlite"


def test_outside_of_any_project_it_is_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert location(Environment()) == tmp_path / ".newsfuse" / "ledger.sqlite"


def test_two_names_of_one_ledger_are_one_ledger(project: Path, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (project / ".newsfuse").symlink_to(tmp_path / "shared")
    (project / "link.sqlite").symlink_to(tmp_path / "shared" / "ledger.sqlite")
    shared = tmp_path / "shared" / "ledger.sqlite"
    assert location(Environment()) == location(Environment(ledger=Path("link.sqlite"))) == shared
