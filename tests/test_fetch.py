"""`newsfuse fetch`: MIND from a mirror on this machine, and out of archives at hand."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import md5, sha256
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from house import House
from mirror_server import SOME, MirrorServer
from project import ROOT, Outcome, Project, environment, missing
from rich.console import Console
from zips import NEWS, SPLIT, mind, zipped

from newsfuse.errors import StorageError
from newsfuse.fetching import consent, meter, mirrors
from newsfuse.fetching import fetch as module
from newsfuse.fetching.archive import FILES as FOUR
from newsfuse.fetching.archive import MOST_BYTES, MOST_MEMBERS, MOST_RATIO
from newsfuse.fetching.download import CHUNK
from newsfuse.fetching.fingerprint import Fingerprint
from newsfuse.paid import patience

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRAIN, DEV, TEST = (mind(size=40_000, seed=seed) for seed in range(3))
FILES = {"MINDdemo_train.zip": TRAIN, "MINDdemo_dev.zip": DEV}
KEPT = SOME // CHUNK * CHUNK
ACCEPTED = "--accept-license"
LICENCE = "https://github.com/msnews/MIND/blob/master/MSR%20License_Data.pdf"
SPLITS = {"train", "dev"}


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "BACKOFF_S", 0.001)


@pytest.fixture
def mirror() -> Iterator[MirrorServer]:
    with MirrorServer(dict(FILES)) as running:
        yield running


def fetch(root: Path, mirror: MirrorServer | None, *words: str, **variables: str) -> Outcome:
    """`newsfuse fetch` in a folder that is no DVC project, in this process."""
    named = {"NEWSFUSE_MIRROR": mirror.url} if mirror else {}
    return House(root).newsfuse("fetch", *words, **{**named, **variables})


def started(root: Path, mirror: MirrorServer, *words: str, stdin: int | None = None) -> subprocess.Popen[str]:
    """The same in a process of its own, still running."""
    return subprocess.Popen(
        [sys.executable, "-m", "newsfuse.cli", "fetch", *words], cwd=root, text=True, start_new_session=True,
        env={**environment(root / "home"), "NEWSFUSE_MIRROR": mirror.url, "NEWSFUSE_TIMEOUT_S": "20"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=stdin,
    )  # fmt: skip


def inside(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def known(monkeypatch: pytest.MonkeyPatch, train: bytes = TRAIN, dev: bytes = DEV) -> None:
    """Let it be published what the archives of demo are."""
    digests = {"train": train, "dev": dev}
    published = [
        replace(each, known=Fingerprint(len(digests[each.split]), "md5", md5(digests[each.split]).hexdigest()))  # noqa: S324 - as published
        for each in mirrors.archives("demo")
    ]
    monkeypatch.setattr(mirrors, "ARCHIVES", published)


# --- a fetch that goes well


def test_a_fetched_data_set_is_laid_out_and_remembered(tmp_path: Path, mirror: MirrorServer) -> None:
    outcome = fetch(tmp_path, mirror, "demo", ACCEPTED)
    assert outcome.code == 0, outcome.text
    demo = tmp_path / "data/demo"
    assert inside(demo) == {"train", "dev", "archives.json", ".fetch.lock"}
    for split in SPLITS:
        assert inside(demo / split) == {*SPLIT, "relation_embedding.vec"}
        assert (demo / split / "news.tsv").read_text() == NEWS
    assert json.loads((demo / "archives.json").read_text()) == {
        name: {"bytes": len(body), "sha256": sha256(body).hexdigest()} for name, body in FILES.items()
    }
    assert mirror.paths == ["/MINDdemo_train.zip", "/MINDdemo_dev.zip"]
    assert mirror.sent == len(TRAIN) + len(DEV)
    assert LICENCE in outcome.text
    assert "There, type: dvc add data/demo/train data/demo/dev" in outcome.text
    assert "Run on it: dvc exp run -S dataset=demo" in outcome.text


def test_a_second_fetch_sends_nothing_and_asks_nothing(tmp_path: Path, mirror: MirrorServer) -> None:
    fetch(tmp_path, mirror, "demo", ACCEPTED)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    outcome = fetch(tmp_path, mirror, "demo")
    assert outcome.code == 0, outcome.text
    assert "data/demo/train: is there already and stays as it is" in outcome.text
    assert mirror.requests == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == before


def test_only_the_split_that_is_missing_is_fetched(tmp_path: Path, mirror: MirrorServer) -> None:
    fetch(tmp_path, mirror, "demo", ACCEPTED)
    shutil.rmtree(tmp_path / "data/demo/dev")
    assert fetch(tmp_path, mirror, "demo", ACCEPTED).code == 0
    assert mirror.paths[2:] == ["/MINDdemo_dev.zip"]


def test_large_has_a_test_set_too(tmp_path: Path) -> None:
    files = {f"MINDlarge_{split}.zip": body for split, body in (("train", TRAIN), ("dev", DEV), ("test", TEST))}
    with MirrorServer(files) as mirror:
        assert fetch(tmp_path, mirror, "large", ACCEPTED).code == 0
    assert inside(tmp_path / "data/large") >= {"train", "dev", "test"}
    assert mirror.paths == [f"/{name}" for name in files]


def test_when_one_split_is_not_to_be_had_the_others_are_tracked_all_the_same(tmp_path: Path) -> None:
    files = {f"MINDlarge_{split}.zip": body for split, body in (("train", TRAIN), ("dev", DEV))}
    with MirrorServer(files) as mirror:
        outcome = fetch(tmp_path, mirror, "large", ACCEPTED)
    assert outcome.code == 6
    assert "type: dvc add data/large/train data/large/dev\n" in outcome.text
    assert "data/large/test: is not there yet" in outcome.text
    assert "MINDlarge_test.zip: no mirror sent it" in outcome.text


def test_what_could_not_be_tracked_is_tracked_by_the_next_run(
    tmp_path: Path, mirror: MirrorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked: list[list[str]] = []

    def fail(folders: list[Path]) -> None:
        message = "the data is there but not tracked"
        raise StorageError(message)

    monkeypatch.setattr(module, "track", fail)
    assert fetch(tmp_path, mirror, "demo", ACCEPTED).code == 8
    monkeypatch.setattr(module, "track", lambda folders: tracked.append([str(folder) for folder in folders]))
    assert fetch(tmp_path, mirror, "demo").code == 0
    assert tracked == [["data/demo/train", "data/demo/dev"]]
    assert mirror.requests == 2


def test_what_is_known_of_minds_archives_beforehand_is_what_is_published() -> None:
    small = {each.name: each.known for each in mirrors.archives("small")}
    assert small == {
        "MINDsmall_train.zip": Fingerprint(52_952_752, "md5", "b20a6bc96c834efe55eda7a37d1ac9e4"),
        "MINDsmall_dev.zip": Fingerprint(30_948_560, "md5", "e3bac5485be8fc7a9934e85e3b78615f"),
    }
    assert mirrors.MIRRORS == ("https://recodatasets.z20.web.core.windows.net/newsrec",)


# --- consent


def test_without_consent_nothing_is_sent(tmp_path: Path, mirror: MirrorServer) -> None:
    outcome = fetch(tmp_path, mirror, "demo")
    assert outcome.code == 2
    assert LICENCE in outcome.text
    assert "--accept-license is needed where nobody can be asked. Nothing was downloaded" in outcome.text
    assert mirror.requests == 0
    assert not inside(tmp_path)


@pytest.mark.parametrize(("typed", "code"), [(b"y\n", 0), (b"YES\n", 0), (b"\n", 2), (b"n\n", 2), (b"\x04", 2)])
def test_who_sits_at_a_terminal_is_asked(typed: bytes, code: int, tmp_path: Path, mirror: MirrorServer) -> None:
    ours, theirs = pty.openpty()
    process = started(tmp_path, mirror, "demo", stdin=theirs)
    os.write(ours, typed)
    text, _ = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == code, text
    assert "Do you accept them? [y/N]" in text
    assert mirror.requests == (2 if code == 0 else 0)
    assert ("the licence was not accepted. Nothing was downloaded" in text) == (code == 2)


# --- the wrong bytes


def test_a_wrong_checksum_is_told_with_both_and_the_download_is_deleted(
    tmp_path: Path, mirror: MirrorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch)
    mirror.files["MINDdemo_train.zip"] = damaged = bytes([*TRAIN[:-1], 1])
    outcome = fetch(tmp_path, mirror, "demo", ACCEPTED)
    assert outcome.code == 7
    for body in (damaged, TRAIN):
        assert md5(body).hexdigest() in outcome.text  # noqa: S324 - as published
    assert "It was deleted: run again, or name another mirror: NEWSFUSE_MIRROR=https://..." in outcome.text
    assert inside(tmp_path / "data/demo") == {".fetch.lock"}
    mirror.files["MINDdemo_train.zip"] = TRAIN
    assert fetch(tmp_path, mirror, "demo", ACCEPTED).code == 0


def test_a_length_that_is_not_the_published_one_is_refused_at_once(
    tmp_path: Path, mirror: MirrorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch)
    mirror.modes = ["short"]
    outcome = fetch(tmp_path, mirror, "demo", ACCEPTED)
    assert outcome.code == 7
    assert f"has {len(TRAIN) - SOME:,} bytes, expected {len(TRAIN):,}" in outcome.text
    assert mirror.requests == 1


def test_an_archive_that_is_not_the_one_fetched_first_is_refused(tmp_path: Path, mirror: MirrorServer) -> None:
    fetch(tmp_path, mirror, "demo", ACCEPTED)
    shutil.rmtree(tmp_path / "data/demo/train")
    mirror.files["MINDdemo_train.zip"] = TEST
    outcome = fetch(tmp_path, mirror, "demo", ACCEPTED)
    assert outcome.code == 7
    for body in (TRAIN, TEST):
        assert sha256(body).hexdigest() in outcome.text
    assert "as data/demo/archives.json has it" in outcome.text
    assert inside(tmp_path / "data/demo") == {"dev", "archives.json", ".fetch.lock"}
    (tmp_path / "data/demo/archives.json").unlink()
    assert fetch(tmp_path, mirror, "demo", ACCEPTED).code == 0


@pytest.mark.parametrize("text", ["", "[]", '{"MINDdemo_train.zip": {"bytes": 1}}', '{"MINDdemo_train.zip": 1}'])
def test_a_memory_that_cannot_be_read_is_not_overwritten(text: str, tmp_path: Path, mirror: MirrorServer) -> None:
    path = tmp_path / "data/demo/archives.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    outcome = fetch(tmp_path, mirror, "demo", ACCEPTED)
    assert outcome.code == 7
    assert "data/demo/archives.json: cannot be read" in outcome.text
    assert "Bring it back: git checkout data/demo/archives.json" in outcome.text
    assert path.read_text() == text


HOSTILE = {
    "a bomb": (zipped([("news.tsv", bytes(1 << 20)), ("behaviors.tsv", "x")]), "more than 100 times its size"),
    "a traversal": (zipped([*SPLIT.items(), ("../../../evil.tsv", "x")]), "leads out of its folder"),
    "an absolute path": (zipped([*SPLIT.items(), ("/tmp/evil.tsv", "x")]), "has an absolute path"),  # noqa: S108
    "no zip file": (b"<html>Welcome to the hotel's wifi</html>", "is no zip file, or damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_leaves_nothing_behind(name: str, tmp_path: Path, mirror: MirrorServer) -> None:
    mirror.files["MINDdemo_train.zip"], words = HOSTILE[name]
    outcome = fetch(tmp_path, mirror, "demo", ACCEPTED)
    assert outcome.code == 7
    assert words in outcome.text
    assert "Traceback" not in outcome.text
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {
        "data",
        "data/demo",
        "data/demo/.fetch.lock",
    }
    mirror.files["MINDdemo_train.zip"] = TRAIN
    assert fetch(tmp_path, mirror, "demo", ACCEPTED).code == 0  # the bad one was not remembered


def test_an_archive_without_behaviors_is_no_data_set(tmp_path: Path, mirror: MirrorServer) -> None:
    mirror.files["MINDdemo_train.zip"] = zipped([("news.tsv", NEWS)])
    outcome = fetch(tmp_path, mirror, "demo", ACCEPTED)
    assert outcome.code == 3
    assert "has no behaviors.tsv; a split of MIND has news.tsv and behaviors.tsv" in outcome.text
    assert inside(tmp_path / "data/demo") == {".fetch.lock"}


# --- mirrors


def test_when_no_mirror_answers_the_way_by_hand_is_told(tmp_path: Path) -> None:
    with MirrorServer({}) as mirror:
        pass
    outcome = fetch(tmp_path, mirror, "demo", ACCEPTED, NEWSFUSE_RETRIES="1")
    assert outcome.code == 6
    assert f"{mirror.url}/MINDdemo_train.zip: ConnectionError" in outcome.text
    assert "Gave up after 2 requests" in outcome.text
    assert (
        "accept the licence at https://msnews.github.io, download MINDdemo_train.zip, MINDdemo_dev.zip" in outcome.text
    )
    assert "newsfuse fetch demo --from-zip MINDdemo_train.zip MINDdemo_dev.zip" in outcome.text
    assert "NEWSFUSE_MIRROR=https://... newsfuse fetch demo" in outcome.text


def test_mirrors_are_asked_in_the_order_of_the_variable(tmp_path: Path, mirror: MirrorServer) -> None:
    with MirrorServer({"MINDdemo_dev.zip": DEV}) as first:
        outcome = fetch(tmp_path, None, "demo", ACCEPTED, NEWSFUSE_MIRROR=f"{first.url}/a/ {mirror.url}")
    assert outcome.code == 0, outcome.text
    assert first.paths == ["/a/MINDdemo_train.zip", "/a/MINDdemo_dev.zip"]
    assert mirror.paths == ["/MINDdemo_train.zip"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("http://mirror.example", "is no place to download from; expected https://..."),
        ("mirror.example", "is no place to download from"),
        ("file:///etc", "is no place to download from"),
        ("https://mirror.example?x=1", "is no place to download from"),
        ("https://mirror.example:port", "is no URL"),
        ("https://[", "is no URL"),
        ("https://name:secret@mirror.example", "holds a user name or a password; put them into ~/.netrc"),
    ],
)
def test_a_mirror_that_is_not_safe_is_refused(value: str, words: str, tmp_path: Path) -> None:
    outcome = fetch(tmp_path, None, "demo", ACCEPTED, NEWSFUSE_MIRROR=value)
    assert outcome.code == 2
    assert words in outcome.text
    assert "secret" not in outcome.text
    assert not inside(tmp_path)


# --- interruptions


def wait_for(path: Path, size: int) -> None:
    """Until so many bytes of a download are there."""
    deadline = time.monotonic() + 30
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < deadline, f"{path} does not grow"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_in_the_middle_is_gone_on_with(number: int, tmp_path: Path, mirror: MirrorServer) -> None:
    mirror.modes = ["silent", "untagged"]
    process = started(tmp_path, mirror, "demo", ACCEPTED)
    wait_for(tmp_path / "data/demo/MINDdemo_train.zip.part", KEPT)
    process.send_signal(number)
    text, _ = process.communicate(timeout=30)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert f"interrupted. What is there is kept, {KEPT:,} bytes of MINDdemo_train.zip among it" in text
    assert inside(tmp_path / "data/demo") == {"MINDdemo_train.zip.part", "MINDdemo_train.zip.part.json", ".fetch.lock"}
    outcome = fetch(tmp_path, mirror, "demo", ACCEPTED)
    assert outcome.code == 0, outcome.text
    assert mirror.ranges == ["", f"bytes={KEPT}-", ""]
    assert inside(tmp_path / "data/demo") == {"train", "dev", "archives.json", ".fetch.lock"}


def test_a_run_that_is_stopped_while_unpacking_downloads_nothing_again(
    tmp_path: Path, mirror: MirrorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "unpack", interrupted)
        outcome = fetch(tmp_path, mirror, "demo", ACCEPTED)
    assert outcome.code == 130
    assert f"interrupted. What is there is kept, {len(TRAIN):,} bytes of MINDdemo_train.zip among it" in outcome.text
    assert inside(tmp_path / "data/demo") == {"MINDdemo_train.zip.part", "MINDdemo_train.zip.part.json", ".fetch.lock"}
    assert fetch(tmp_path, mirror, "demo", ACCEPTED).code == 0
    assert mirror.paths == ["/MINDdemo_train.zip", "/MINDdemo_dev.zip"]


CAPPED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv = ["newsfuse", "fetch", "demo", "--accept-license"]
from newsfuse.cli import app
app()
"""


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (30_000, "data/demo/MINDdemo_train.zip.part: File too large. What was downloaded is kept"),
        (45_000, "data/demo/MINDdemo_train.zip.part: cannot be unpacked: File too large. Nothing was left behind"),
    ],
)
def test_a_full_disk_leaves_nothing_half(limit: int, words: str, tmp_path: Path) -> None:
    train = zipped([*SPLIT.items(), ("relation_embedding.vec", b"x" * 50_000 + TRAIN)])
    assert 30_000 < len(train) < 45_000
    with MirrorServer({**FILES, "MINDdemo_train.zip": train}) as mirror:
        done = subprocess.run(
            [sys.executable, "-c", CAPPED, str(limit)], cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**environment(tmp_path / "home"), "NEWSFUSE_MIRROR": mirror.url, "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        assert done.returncode == 8, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        kept = (tmp_path / "data/demo/MINDdemo_train.zip.part").stat().st_size
        assert inside(tmp_path / "data/demo") == {
            "MINDdemo_train.zip.part",
            "MINDdemo_train.zip.part.json",
            ".fetch.lock",
        }
        outcome = fetch(tmp_path, mirror, "demo", ACCEPTED)
        assert outcome.code == 0, outcome.text
        rest = [f"bytes={kept}-"] if kept < len(train) else []
    assert mirror.ranges == ["", *rest, ""]


def test_a_disk_without_room_for_what_is_unpacked_is_noticed_before_the_download(
    tmp_path: Path, mirror: MirrorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=4 * len(TRAIN))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    outcome = fetch(tmp_path, mirror, "demo", ACCEPTED)
    assert outcome.code == 8
    assert f"data/demo: {4 * len(TRAIN):,} bytes are free, and about" in outcome.text
    assert mirror.sent < len(TRAIN) + len(DEV)
    assert not inside(tmp_path / "data/demo") & SPLITS


def test_two_fetches_of_the_same_do_not_get_into_each_others_way(tmp_path: Path, mirror: MirrorServer) -> None:
    (tmp_path / "data/demo").mkdir(parents=True)
    with FileLock(tmp_path / "data/demo/.fetch.lock"):
        outcome = fetch(tmp_path, mirror, "demo", ACCEPTED)
    assert outcome.code == 75
    assert "data/demo: another process is fetching it" in outcome.text
    assert mirror.requests == 0


# --- what is there already


def test_a_folder_that_is_no_split_is_not_touched(tmp_path: Path, mirror: MirrorServer) -> None:
    (tmp_path / "data/demo/train").mkdir(parents=True)
    (tmp_path / "data/demo/train/mine.txt").write_text("mine")
    outcome = fetch(tmp_path, mirror, "demo", ACCEPTED)
    assert outcome.code == 3
    assert "data/demo/train: has no news.tsv" in outcome.text
    assert "It is not touched: move it away and run again" in outcome.text
    assert inside(tmp_path / "data/demo/train") == {"mine.txt"}
    assert mirror.requests == 0


def test_splits_that_were_there_before_are_tracked_and_nothing_else_is_to_be_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "track", lambda _: None)
    at_hand(tmp_path / "downloads", "train.zip", "dev.zip")
    (tmp_path / ".git").mkdir()
    for split in SPLITS:
        shutil.unpack_archive(tmp_path / f"downloads/{split}.zip", tmp_path / "data/demo" / split)
    outcome = fetch(tmp_path, None, "demo")
    assert outcome.code == 0, outcome.text
    assert "\nKeep it: git commit -m 'Add MIND demo'\n" in outcome.text


def test_a_fetch_belongs_into_the_root_of_the_project(tmp_path: Path, mirror: MirrorServer) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "data").mkdir()
    outcome = fetch(tmp_path / "data", mirror, "demo", ACCEPTED)
    assert outcome.code == 2
    assert f"the project's root is {tmp_path}. Fetch there: cd {tmp_path}" in outcome.text


# --- archives at hand


def at_hand(folder: Path, *names: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(DEV if "dev" in name else TRAIN)
    return [str(folder / name) for name in names]


@pytest.mark.parametrize(
    "names",
    [("train.zip", "dev.zip"), ("MINDdemo_dev.zip", "MINDdemo_train.zip"), ("MINDdemo_train (1).zip", "mind-dev.zip")],
)
def test_archives_at_hand_are_told_apart_by_their_names_and_kept(names: tuple[str, str], tmp_path: Path) -> None:
    paths = at_hand(tmp_path / "downloads", *names)
    outcome = fetch(tmp_path, None, "demo", "--from-zip", *paths)
    assert outcome.code == 0, outcome.text
    assert inside(tmp_path / "downloads") == set(names)
    for split, body in (("train", TRAIN), ("dev", DEV)):
        (tmp_path / "one.zip").write_bytes(body)
        shutil.unpack_archive(tmp_path / "one.zip", tmp_path / split)
        for path in (tmp_path / split).iterdir():
            assert (tmp_path / "data/demo" / split / path.name).read_bytes() == path.read_bytes()
    remembered = json.loads((tmp_path / "data/demo/archives.json").read_text())
    assert {name: entry["bytes"] for name, entry in remembered.items()} == {
        name: len(body) for name, body in FILES.items()
    }


def test_an_archive_at_hand_is_verified_where_it_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, train=TEST)
    (path,) = at_hand(tmp_path / "downloads", "train.zip")
    outcome = fetch(tmp_path, None, "demo", "--from-zip", path)
    assert outcome.code == 7
    assert f"{path} is not MINDdemo_train.zip" in outcome.text
    assert inside(tmp_path / "downloads") == {"train.zip"}
    assert not inside(tmp_path / "data/demo") & SPLITS


def test_what_is_still_missing_after_one_archive_is_told(tmp_path: Path, mirror: MirrorServer) -> None:
    (path,) = at_hand(tmp_path / "downloads", "train.zip")
    outcome = fetch(tmp_path, mirror, "demo", "--from-zip", path)
    assert outcome.code == 0, outcome.text
    assert "data/demo/dev: is not there yet; get it: newsfuse fetch demo" in outcome.text
    assert mirror.requests == 0
    assert fetch(tmp_path, mirror, "demo", ACCEPTED).code == 0
    assert mirror.paths == ["/MINDdemo_dev.zip"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["archive.zip"], "is not named as an archive of MIND demo"),
        (["train_dev.zip"], "is not named as an archive of MIND demo"),
        (["test.zip"], "is not named as an archive of MIND demo"),
        (["MINDsmall_train.zip"], "expected a name such as MINDdemo_train.zip or train.zip (of train, dev)"),
        (["train.zip", "train-2.zip"], "are both train"),
    ],
)
def test_names_that_do_not_say_what_an_archive_is_are_refused(names: list[str], words: str, tmp_path: Path) -> None:
    outcome = fetch(tmp_path, None, "demo", "--from-zip", *at_hand(tmp_path / "downloads", *names))
    assert outcome.code == 2
    assert words in outcome.text
    assert not (tmp_path / "data").exists()


def test_an_archive_that_is_not_there_is_named(tmp_path: Path) -> None:
    outcome = fetch(tmp_path, None, "demo", "--from-zip", "nowhere/train.zip")
    assert outcome.code == 2
    assert "--from-zip: there is no file nowhere/train.zip" in outcome.text


@pytest.mark.parametrize("words", [["demo", "--from-zip"], ["demo", "train.zip"]])
def test_archives_and_the_option_go_together(words: list[str], tmp_path: Path) -> None:
    outcome = fetch(tmp_path, None, *words)
    assert outcome.code == 2
    assert "archives and --from-zip go together" in outcome.text


# --- how far it is


def test_on_a_terminal_a_bar_shows_how_far_it_is() -> None:
    text = io.StringIO()
    with meter.Meter("x.zip", Console(file=text, force_terminal=True, width=100)) as shown:
        shown.show(500_000, 1_000_000)
    assert "x.zip" in text.getvalue()
    assert "0.5/1.0 MB" in text.getvalue()


def test_in_a_log_a_line_now_and_then_does(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "newsfuse.fetching.meter")
    with meter.Meter("x.zip", Console(file=io.StringIO())) as shown:
        shown.show(1, 1_000_000)
        monkeypatch.setattr(meter, "EVERY_S", 0)
        shown.show(500_000, 1_000_000)
        shown.show(500_001, None)
    assert caplog.messages == ["x.zip: 500,000 of 1,000,000 bytes", "x.zip: 500,001 bytes"]


# --- the page


def test_the_page_says_what_the_code_does(tmp_path: Path) -> None:
    page = " ".join((ROOT / "docs/data.md").read_text(encoding="utf-8").split())
    for option in set(re.findall(r"--[a-z-]+", fetch(tmp_path, None, "--help").text)) - {"--help"}:
        assert option in page
    for archive in mirrors.archives("small"):
        assert archive.known
        assert f"{archive.split} ({archive.known.bytes:,} bytes)" in page
    assert f"to more than {MOST_RATIO} times its size" in page
    assert f"more than {MOST_MEMBERS} members or {MOST_BYTES >> 30} GiB in all" in page
    assert f"{1 + module.ROOM} times the size of an archive" in page
    assert all(f"`{name}`" in page for name in FOUR)
    for words in (consent.LICENCE, consent.WHERE):
        assert words in page


# --- a real project


real = pytest.mark.skipif(bool(missing()), reason=missing())


def tiny(split: str) -> bytes:
    folder = ROOT / "data/tiny" / split
    return zipped((f"MINDdemo_{split}/{path.name}", path.read_bytes()) for path in sorted(folder.iterdir()))


def fetched(root: Path) -> Project:
    """A project with demo, all that `git status` shows committed as the command says."""
    project = Project.make(root)
    with MirrorServer({f"MINDdemo_{split}.zip": tiny(split) for split in SPLITS}) as mirror:
        named = f"NEWSFUSE_MIRROR={mirror.url}"
        outcome = project.must("env", named, "python", "-m", "newsfuse.cli", "fetch", "demo", ACCEPTED)
    assert {line[3:] for line in project.changes()} == {
        f"data/demo/{name}" for name in ("train.dvc", "dev.dvc", "archives.json")
    }
    (keep,) = [line for line in outcome.text.splitlines() if line.startswith("Keep it: ")]
    project.must("bash", "-c", keep.removeprefix("Keep it: "))
    assert project.changes() == []
    return project


@real
def test_a_fetched_data_set_is_tracked_and_found_by_a_stage_in_a_copy_of_the_project(tmp_path: Path) -> None:
    project = fetched(tmp_path / "a project")
    assert project.dvc("data", "status").text.startswith("No changes")
    ran = project.dvc("exp", "run", "--temp", "-S", "dataset=demo", "graph")
    assert "Running stage 'graph'" in ran.text
    assert "Ran experiment(s)" in ran.text
    again = project.must("python", "-m", "newsfuse.cli", "fetch", "demo")
    assert again.text.count("stays as it is") == 2
    assert project.changes() == []


@real
@pytest.mark.slow
def test_a_queued_experiment_runs_on_a_fetched_data_set(tmp_path: Path) -> None:
    project = fetched(tmp_path / "a project")
    project.dvc("exp", "run", "--queue", "-S", "dataset=demo")
    project.dvc("queue", "start")
    deadline = time.monotonic() + 300
    while "Success" not in (status := project.dvc("queue", "status").text):
        assert "Failed" not in status, project.run("dvc", "queue", "logs", status.split()[6]).text
        assert time.monotonic() < deadline, status
        time.sleep(2)
    shown = project.dvc("exp", "show", "--csv").text.splitlines()
    assert len(shown) == 4, shown  # header, workspace, commit, experiment


def test_a_split_that_is_a_link_is_left_alone(tmp_path: Path) -> None:
    project = House(tmp_path / "project")
    (project.root / ".dvc").mkdir(parents=True)
    for split in SPLITS:
        at_hand(tmp_path / "downloads", f"{split}.zip")
        shutil.unpack_archive(tmp_path / f"downloads/{split}.zip", tmp_path / split)
        (project.root / "data/demo").mkdir(parents=True, exist_ok=True)
        (project.root / "data/demo" / split).symlink_to(tmp_path / split)
    outcome = project.newsfuse("fetch", "demo")
    assert outcome.code == 0, outcome.text
    assert "is a link to elsewhere, which DVC does not track" in outcome.text
    assert inside(project.root / "data/demo") == SPLITS
