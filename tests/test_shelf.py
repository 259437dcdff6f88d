"""The parsed cache: the second run parses nothing, and nothing that befalls the cache changes what is read."""

import logging
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from project import ROOT

from newsfuse import shelf, tsv
from newsfuse.behaviors import Behaviors
from newsfuse.errors import DataError
from newsfuse.news import COLUMNS, News
from newsfuse.params import load
from newsfuse.parsed import Parsed
from newsfuse.shelf import Shelf, _size, sha256_of
from stages.graph import graph

LINES = [
    "1\tU2\t11/11/2019 8:55:22 AM\tN1 N2\tN3-1 N4-0\n",
    "2\tU1\t11/12/2019 8:55:22 PM\t\tN2-0 X1-0 N1-1\n",
    "3\tU2\t11/13/2019 8:55:22 AM\tN1 N2\tN4-0\n",
]
FILES = ["candidate_ids.npy", "candidate_offsets.npy", "history.npy", "history_ids.npy", "history_offsets.npy",
         "ids.txt", "impressions.txt", "labels.npy", "manifest.json", "times.npy", "users.npy"]  # fmt: skip


def news(*ids: str) -> News:
    return News(
        pl.DataFrame([(each, *[""] * 7) for each in sorted(ids)], dict.fromkeys(COLUMNS, pl.String), orient="row")
    )


NEWS = news("N1", "N2", "N3", "N4")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    """A small file that is worth keeping, in a DVC project that is the current folder."""
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr(shelf, "SMALLEST", 0)
    monkeypatch.setattr(tsv, "BLOCK_BYTES", 1)  # so that even a small file comes in several blocks
    caplog.set_level(logging.INFO)
    path = tmp_path / "behaviors.tsv"
    path.write_text("".join(LINES), encoding="utf-8")
    return path


def entries(path: Path) -> list[Path]:
    return sorted(each for each in (path.parent / shelf.FOLDER).glob("*") if each.is_dir())


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said since, but for the unknown article X1."""
    messages = [message for message in caplog.messages if "X1" not in message]
    caplog.clear()
    return messages


@contextmanager
def no_parsing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(Parsed, "read", lambda *_, **__: pytest.fail("parsed"))
        yield


def same(one: Behaviors, other: Behaviors) -> bool:
    return all(np.array_equal(getattr(one, each.name), getattr(other, each.name)) for each in fields(one)) and [
        getattr(one, each.name).dtype for each in fields(one)
    ] == [getattr(other, each.name).dtype for each in fields(other)]


def test_a_second_run_reads_the_same_and_parses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Behaviors.read(path, NEWS)
    with no_parsing(monkeypatch):
        assert same(Behaviors.read(path, NEWS), first)
    monkeypatch.setenv("NEWSFUSE_CACHE_MB", "0")
    assert same(Behaviors.read(path, NEWS), first)


def test_arrays_from_the_shelf_may_be_written_to_as_those_from_the_file_may(path: Path) -> None:
    for _ in range(2):
        read = Behaviors.read(path, NEWS)
        arrays = [getattr(read, each.name) for each in fields(read) if each.name not in {"impressions", "times"}]
        assert all(type(array) is np.ndarray for array in arrays)
    assert read.candidate_news.flags.writeable


def test_unknown_articles_are_told_by_every_run(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        caplog.clear()
        Behaviors.read(path, NEWS)
        assert [message.partition(" are of articles")[0] for message in caplog.messages] == [f"{path}: 1 candidates"]


def test_what_was_parsed_serves_any_news(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Behaviors.read(path, NEWS)
    others = news("A", "N2", "N4", "X1")
    with no_parsing(monkeypatch):
        read = Behaviors.read(path, others)
    assert read.candidate_news.tolist() == [-1, 2, 1, 3, -1, 2]
    assert read.history_news.tolist() == [1]


def test_a_file_that_changed_is_parsed_whatever_its_size_and_time_say(path: Path) -> None:
    before = path.stat()
    Behaviors.read(path, NEWS)
    path.write_text("".join(LINES).replace("N3-1 N4-0", "N3-0 N4-1"), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Behaviors.read(path, NEWS).labels.tolist() == [0, 1, 0, 0, 1, 0]


def test_the_same_content_under_another_name_is_not_parsed_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Behaviors.read(path, NEWS)
    copy = path.rename(path.with_name("copy.tsv"))
    with no_parsing(monkeypatch):
        assert same(Behaviors.read(copy, NEWS), first)


def test_a_changed_parser_parses_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Behaviors.read(path, NEWS)
    monkeypatch.setattr(shelf, "_parser", lambda: "another")
    with no_parsing(monkeypatch), pytest.raises(pytest.fail.Exception):
        Behaviors.read(path, NEWS)
    Behaviors.read(path, NEWS)
    assert len(entries(path)) == 2


def test_a_wrong_line_is_told_by_every_run_and_nothing_is_kept(path: Path) -> None:
    path.write_text("".join(LINES) + LINES[0].replace("N4-0", "N4"), encoding="utf-8")
    for _ in range(2):
        with pytest.raises(DataError, match=r"behaviors\.tsv:4: candidate 'N4' has no label"):
            Behaviors.read(path, NEWS)
    assert entries(path) == []


def test_labels_that_are_not_asked_for_are_refused_by_line_from_the_shelf_too(path: Path) -> None:
    for labelled in (True, None):
        Behaviors.read(path, NEWS, labelled=labelled)
        with pytest.raises(DataError, match=r"behaviors\.tsv:1: candidate 'N3-1' has a label"):
            Behaviors.read(path, NEWS, labelled=False)


def test_a_file_without_labels_is_kept_as_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("".join(LINES).replace("-0", "").replace("-1", ""), encoding="utf-8")
    first = Behaviors.read(path, NEWS, labelled=False)
    with no_parsing(monkeypatch):
        assert same(Behaviors.read(path, NEWS, labelled=None), first)
    with pytest.raises(DataError, match=r"behaviors\.tsv:1: candidate 'N3' has no label"):
        Behaviors.read(path, NEWS)


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)


def halved(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def made_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [flipped, halved, emptied, Path.unlink, made_a_folder])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_copy_is_told_parsed_anew_and_replaced(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: Callable[[Path], None],
) -> None:
    first = Behaviors.read(path, NEWS)
    (entry,) = entries(path)
    assert sorted(each.name for each in entry.iterdir()) == FILES
    damage(entry / name)
    assert told(caplog) == []
    assert same(Behaviors.read(path, NEWS), first)
    assert told(caplog) == [f"{entry}: the parsed copy is damaged or not ours; {path} is parsed anew"]
    with no_parsing(monkeypatch):
        assert same(Behaviors.read(path, NEWS), first)


def test_a_copy_of_another_file_is_not_believed(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Behaviors.read(path, NEWS)
    (ours,) = entries(path)
    path.write_text("".join(LINES).replace("N3-1 N4-0", "N3-0 N4-1"), encoding="utf-8")
    Behaviors.read(path, NEWS)
    (other,) = set(entries(path)) - {ours}
    shutil.rmtree(ours)
    other.rename(ours)
    path.write_text("".join(LINES), encoding="utf-8")
    told(caplog)
    assert same(Behaviors.read(path, NEWS), first)
    assert told(caplog) == [f"{ours}: the parsed copy is damaged or not ours; {path} is parsed anew"]


def test_a_full_disk_costs_nothing_but_a_line(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, hard))  # Python ignores the signal, so that writing fails
    try:
        read = Behaviors.read(path, NEWS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (line,) = told(caplog)
    assert line.startswith("A parsed file could not be kept, the next run will parse it again: ")
    assert [each.name for each in (path.parent / shelf.FOLDER).iterdir()] == [".lock"]
    assert same(Behaviors.read(path, NEWS), read)


def test_a_shelf_that_cannot_be_written_costs_nothing_but_a_line(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (path.parent / ".newsfuse").write_text("no folder", encoding="utf-8")
    assert len(Behaviors.read(path, NEWS)) == 3
    (line,) = told(caplog)
    assert line.startswith("A parsed file could not be kept, the next run will parse it again: ")


def test_a_read_only_shelf_serves_what_it_has_and_takes_no_more(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, folder = Behaviors.read(path, NEWS), path.parent / shelf.FOLDER
    (entry,) = entries(path)
    for each in (folder, entry, *folder.iterdir(), *entry.iterdir()):
        each.chmod(each.stat().st_mode & 0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("root may write anywhere")
    with no_parsing(monkeypatch):
        assert same(Behaviors.read(path, NEWS), first)
    path.write_text("".join(LINES * 2), encoding="utf-8")
    assert len(Behaviors.read(path, NEWS)) == 6
    assert told(caplog)[0].startswith("A parsed file could not be kept, the next run will parse it again: ")
    folder.chmod(0o700)
    entry.chmod(0o700)


def test_what_a_killed_run_left_is_removed_by_the_next_that_writes(path: Path) -> None:
    left = path.parent / shelf.FOLDER / ".1-2-3.draft"
    left.mkdir(parents=True)
    (left / "labels.npy").write_bytes(b"half")
    Behaviors.read(path, NEWS)
    assert (left.exists(), len(entries(path))) == (False, 1)


def test_while_another_run_writes_this_one_does_not_wait(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = path.parent / shelf.FOLDER
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        assert len(Behaviors.read(path, NEWS)) == 3
    assert told(caplog) == [f"{folder}: another run is writing here; what this one parsed is not kept"]
    assert entries(path) == []


def test_many_at_once_read_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda _: Behaviors.read(path, NEWS), range(16)))
    assert all(same(each, read[0]) for each in read)
    with no_parsing(monkeypatch):
        assert same(Behaviors.read(path, NEWS), read[0])


def test_what_was_not_used_for_longest_makes_room(path: Path, tmp_path: Path) -> None:
    contents = ["".join(LINES).replace("U1", user) for user in ("V0", "V1", "V2")]
    Behaviors.read(path, NEWS)
    on_disk = sum(file.stat().st_size for entry in entries(path) for file in entry.iterdir())
    shutil.rmtree(tmp_path / shelf.FOLDER)
    small = Shelf(tmp_path / shelf.FOLDER, _size(heard(path)[1]) + int(1.5 * on_disk))  # room for two
    for content in (contents[0], contents[1], contents[0], contents[2]):
        path.write_text(content, encoding="utf-8")
        if small.find(path) is None:
            small.keep(*heard(path))
        for entry in entries(path):  # an hour passes
            at = entry.stat().st_mtime - 3600
            os.utime(entry, (at, at))
    kept = []
    for content in contents:
        path.write_text(content, encoding="utf-8")
        kept.append(small.find(path) is not None)
    assert kept == [True, False, True]


def heard(path: Path) -> tuple[shelf.Heard, Parsed]:
    digest = shelf.Heard()
    return digest, Parsed.read(path, labelled=True, digest=digest)


def test_what_alone_is_too_large_is_not_kept_and_takes_nothing_elses_place(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Behaviors.read(path, NEWS)
    before = entries(path)
    told(caplog)
    path.write_text("".join(LINES * 2), encoding="utf-8")
    Shelf(tmp_path / shelf.FOLDER, 100).keep(*heard(path))
    assert entries(path) == before
    assert told(caplog) == [f"{tmp_path / shelf.FOLDER}: a parsed file of 0 MB is not kept: NEWSFUSE_CACHE_MB allows 0"]


@settings(deadline=None)
@given(parts=st.lists(st.binary(max_size=20)), piece=st.integers(1, 9))
def test_a_file_and_what_was_heard_of_it_have_one_sha256(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], piece: int
) -> None:
    path, said = tmp_path_factory.getbasetemp() / "file", shelf.Heard()
    path.write_bytes(b"".join(parts))
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(shelf, "PIECE", piece)
        for part in parts:
            said.update(part)
        assert (said.size, said.sha256) == (path.stat().st_size, sha256_of(path, pool))


@pytest.mark.parametrize("why", ["switched off", "no project", "small file"])
def test_nothing_is_kept_where_it_is_not_wanted(path: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    if why == "switched off":
        monkeypatch.setenv("NEWSFUSE_CACHE_MB", "0")
    elif why == "no project":
        (path.parent / ".dvc").rmdir()
    else:
        monkeypatch.setattr(shelf, "SMALLEST", path.stat().st_size + 1)
    assert len(Behaviors.read(path, NEWS)) == 3
    assert not (path.parent / ".newsfuse").exists()


def test_copies_of_a_project_share_the_shelf_of_the_original(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Behaviors.read(path, NEWS)
    copy = tmp_path / "copy"
    (copy / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))  # as DVC does for the stages of an experiment
    with no_parsing(monkeypatch):
        Behaviors.read(path, NEWS)
    assert not (copy / ".newsfuse").exists()


def test_a_stage_writes_the_same_bytes_with_and_without_the_shelf(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = path.parent
    shutil.copytree(ROOT / "plugins", root / "plugins")
    shutil.copy(ROOT / "params.yaml", root)
    for split in ("train", "dev"):
        shutil.copytree(ROOT / "data/tiny" / split, root / "data/tiny" / split)
    params = (root / "params.yaml").read_text(encoding="utf-8")
    (root / "params.yaml").write_text(
        params.replace("  - category\n", "  - category\n  - co_click\n"), encoding="utf-8"
    )
    written: list[dict[str, bytes]] = []
    for most_mb in ("0", "100", "100"):
        monkeypatch.setenv("NEWSFUSE_CACHE_MB", most_mb)
        if written[1:]:
            monkeypatch.setattr(Parsed, "read", lambda *_, **__: pytest.fail("parsed"))
        graph(*load(Path()))
        written.append({each.name: each.read_bytes() for each in (root / "data/tiny/graph").iterdir()})
    assert written[0] == written[1] == written[2]
    assert len(entries(path)) == 1
