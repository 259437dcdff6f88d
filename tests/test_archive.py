"""What comes out of a zip file, and what does not."""

from __future__ import annotations

import gzip
import io
import random
import re
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zips import NEWS, SPLIT, mind, zipped

from newsfuse.errors import DataError, IntegrityError, NewsfuseError, StorageError
from newsfuse.fetching import archive as module
from newsfuse.fetching.archive import placing, unpack

if TYPE_CHECKING:
    from pathlib import Path

MIND = list(SPLIT.items())


def unpacked(content: bytes, tmp_path: Path) -> Path:
    """The split that `content` becomes."""
    path, folder = tmp_path / "x.zip", tmp_path / "data/train"
    path.write_bytes(content)
    with placing(folder) as draft:
        unpack(path, draft)
    return folder


def refusal(content: bytes, tmp_path: Path, kind: type[NewsfuseError] = IntegrityError) -> str:
    """Why `content` is refused; nothing may be left of it."""
    with pytest.raises(kind) as caught:
        unpacked(content, tmp_path)
    assert {path.name for path in tmp_path.rglob("*")} == {"x.zip", "data"}
    assert str(caught.value).startswith(str(tmp_path / "x.zip"))
    return str(caught.value).removeprefix(f"{tmp_path / 'x.zip'}: ")


def tarred() -> bytes:
    """A tar file, which may hold links and devices; none is ever opened."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:") as archive:
        link = tarfile.TarInfo("news.tsv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return stream.getvalue()


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("prefix", ["", "MINDsmall_train/", "a/b/"])
@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_minds_files_are_found_at_the_top_and_in_a_folder(prefix: str, packing: int, tmp_path: Path) -> None:
    content = zipped([(prefix + name, text) for name, text in MIND], packing)
    assert texts(unpacked(content, tmp_path)) == SPLIT


def test_only_the_four_known_files_are_taken(tmp_path: Path) -> None:
    others = [("README.md", "hello"), ("__MACOSX/._news.tsv", "x"), ("train/", ""), ("train/.DS_Store", "x")]
    content = zipped(
        [*others, *[(f"train/{name}", text) for name, text in MIND], ("train/relation_embedding.vec", "r")]
    )
    assert texts(unpacked(content, tmp_path)) == {**SPLIT, "relation_embedding.vec": "r"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/news.tsv", "has an absolute path"),
        ("../news.tsv", "leads out of its folder"),
        ("train/../../news.tsv", "leads out of its folder"),
        ("..", "leads out of its folder"),
        ("..\\news.tsv", "has a name that no file of MIND has"),
        ("C:news.tsv", "has a name that no file of MIND has"),
        ("\x1b[31mnews.tsv", "has a name that no file of MIND has"),
        ("a//news.tsv", "has an empty part in its path"),
        ("./news.tsv", "has an empty part in its path"),
        ("news.tsv/", "is a folder where a file belongs"),
    ],
)
def test_a_member_that_is_no_file_of_the_folder_is_refused(name: str, words: str, tmp_path: Path) -> None:
    told = refusal(zipped([*MIND[1:], (name, "" if name.endswith("/") else NEWS)]), tmp_path)
    assert told == f"member {name!r} {words}; MIND's archives are not so, and nothing was unpacked"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_a_link_or_a_device_is_refused(kind: int, tmp_path: Path) -> None:
    member = zipfile.ZipInfo("news.tsv")
    member.create_system, member.external_attr = 3, (kind | 0o777) << 16
    assert "is a link or a device" in refusal(zipped([*MIND[1:], (member, "/etc/passwd")]), tmp_path)


@pytest.mark.parametrize("name", ["train/news.tsv", "News.TSV", "news.t\u017fv"])
def test_a_file_that_is_there_twice_is_refused_in_whatever_letters(name: str, tmp_path: Path) -> None:
    told = refusal(zipped([*MIND, (name, NEWS)]), tmp_path)
    assert told.startswith(f"has news.tsv twice: 'news.tsv' and {name!r}")


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = zipped([*MIND, ("news.tsv", "another")])
    assert refusal(content, tmp_path).startswith("has news.tsv twice: 'news.tsv' and 'news.tsv'")


def test_a_file_in_other_letters_is_not_taken_for_minds(tmp_path: Path) -> None:
    told = refusal(zipped([*MIND[1:], ("NEWS.TSV", NEWS)]), tmp_path, DataError)
    assert told == "has no news.tsv; a split of MIND has news.tsv and behaviors.tsv"


@pytest.mark.parametrize("name", ["inner.zip", "train/inner.zip", "news.tsv.gz"])
def test_what_is_packed_once_more_inside_stays_so(name: str, tmp_path: Path) -> None:
    assert texts(unpacked(zipped([*MIND, (name, zipped(MIND))]), tmp_path)) == SPLIT
    (tmp_path / "alone").mkdir()
    assert "has no news.tsv" in refusal(zipped([(name, zipped(MIND))]), tmp_path / "alone", DataError)


def test_a_bomb_is_refused_by_its_ratio(tmp_path: Path) -> None:
    told = refusal(zipped([*MIND[1:], ("news.tsv", bytes(1 << 20))]), tmp_path)
    assert told.startswith("member 'news.tsv' unpacks to more than 100 times its size")


def test_the_ratio_of_a_text_that_repeats_itself_is_allowed(tmp_path: Path) -> None:
    text = NEWS * 50
    content = zipped([*MIND[1:], ("news.tsv", text)])
    assert len(text) > 10 * (len(content) - len(zipped(MIND[1:])))
    assert texts(unpacked(content, tmp_path))["news.tsv"] == text


def test_more_bytes_than_mind_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = sum(len(text) for text in SPLIT.values())
    monkeypatch.setattr(module, "MOST_BYTES", total)
    for name in ("fits", "does not"):
        (tmp_path / name).mkdir()
    unpacked(zipped(MIND), tmp_path / "fits")
    monkeypatch.setattr(module, "MOST_BYTES", total - 1)
    told = refusal(zipped(MIND), tmp_path / "does not")
    assert told.startswith(f"would unpack to {total} bytes, more than the {total - 1}")


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    content = zipped([*MIND, *[(f"{number}.txt", "") for number in range(98)]])
    assert refusal(content, tmp_path).startswith("has 101 members, more than the 100 allowed")


def test_a_huge_table_of_contents_is_not_even_read(tmp_path: Path) -> None:
    content = zipped([*MIND, *[(f"{number:0200}", "") for number in range(5000)]])
    assert "its table of contents has 1," in refusal(content, tmp_path)


def test_what_a_member_says_of_its_size_bounds_what_it_unpacks_to(tmp_path: Path) -> None:
    """The table of contents says 100 bytes, the stream has a million: the rest is never unpacked."""
    content = bytearray(zipped([*MIND[1:], ("news.tsv", "x" * 99 + "\n" * 1_000_000)]))
    entry = content.rindex(b"PK\x01\x02")
    struct.pack_into("<L", content, entry + 24, 100)
    assert "Bad CRC-32 for file 'news.tsv'" in refusal(bytes(content), tmp_path)


def test_a_bomb_whose_members_are_all_the_same_bytes_is_refused(tmp_path: Path) -> None:
    """Each of them is modest, and all of them together: only there are not as many bytes as they say."""
    kernel = random.Random(0).randbytes(2000)  # noqa: S311 - no secret
    content, n = bytearray(zipped([("a.vec", kernel), *MIND])), 90
    end, (start,) = content.rindex(b"PK\x05\x06"), struct.unpack_from("<L", content[-6:])
    entry = content[start : start + 46 + len("a.vec")]
    for at, size, more in ((8, "<H", n), (10, "<H", n), (12, "<L", n * len(entry))):
        struct.pack_into(size, content, end + at, struct.unpack_from(size, content, end + at)[0] + more)
    content[end:end] = entry * n
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert [archive.read(member) for member in archive.infolist()].count(kernel) == n + 1
    assert refusal(bytes(content), tmp_path).startswith("says that its members are 182,")


def test_a_bomb_that_says_it_is_packed_loosely_is_refused(tmp_path: Path) -> None:
    """By the table of contents a million bytes of zeros were packed to half of that."""
    content = bytearray(zipped([*MIND[1:], ("news.tsv", bytes(1_000_000))]))
    struct.pack_into("<L", content, content.rindex(b"PK\x01\x02") + 20, 500_000)
    assert re.match(r"says that its members are 500,\d{3} bytes, and is 1,\d{3};", refusal(bytes(content), tmp_path))


@pytest.mark.parametrize("bit", [0, 6, 13])
def test_an_encrypted_member_is_refused(bit: int, tmp_path: Path) -> None:
    content = bytearray(zipped(MIND))
    entry = content.index(b"PK\x01\x02")
    content[entry + 8 + bit // 8] |= 1 << bit % 8
    assert refusal(bytes(content), tmp_path).startswith("member 'news.tsv' is encrypted")


def test_other_ways_of_packing_are_refused(tmp_path: Path) -> None:
    assert "is packed by method 14, not by deflate" in refusal(zipped(MIND, zipfile.ZIP_LZMA), tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>Welcome to the hotel's wifi</html>",
        zipped(MIND)[:-30],
        b"PK\x03\x04",
        tarred(),
        gzip.compress(tarred()),
    ],
)
def test_what_is_no_zip_file_is_refused(content: bytes, tmp_path: Path) -> None:
    assert refusal(content, tmp_path) == "is no zip file, or damaged: File is not a zip file"


def test_a_damaged_member_is_found_out_by_its_checksum(tmp_path: Path) -> None:
    content = bytearray(zipped(MIND, zipfile.ZIP_STORED))
    content[content.index(b"A title")] ^= 1
    assert "Bad CRC-32 for file 'news.tsv'" in refusal(bytes(content), tmp_path)


@pytest.mark.parametrize("name", ["news.tsv", "behaviors.tsv"])
def test_an_archive_without_news_or_behaviors_is_no_split(name: str, tmp_path: Path) -> None:
    without = zipped([member for member in MIND if member[0] != name])
    assert refusal(without, tmp_path, DataError) == f"has no {name}; a split of MIND has news.tsv and behaviors.tsv"
    empty = zipped([(other, text if other != name else "") for other, text in MIND])
    assert refusal(empty, tmp_path, DataError).startswith(f"has an empty {name};")


def test_a_disk_without_room_is_noticed_before_anything_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    needed = sum(len(text) for text in SPLIT.values())
    with pytest.raises(
        StorageError, match=f"x.zip unpacks to {needed} bytes and 100 are free.*free {needed - 100} bytes"
    ):
        unpacked(zipped(MIND), tmp_path)
    assert not list((tmp_path / "data").iterdir())


CAPPED = """
import resource
from pathlib import Path
from newsfuse.fetching.archive import placing, unpack
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
with placing(Path("data/train")) as draft:
    unpack(Path("x.zip"), draft)
"""


def test_a_disk_that_is_full_in_the_middle_leaves_no_half_folder(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(mind(size=10_000))
    done = subprocess.run([sys.executable, "-c", CAPPED], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "StorageError: x.zip: cannot be unpacked: File too large. Nothing was left behind" in done.stderr
    assert not list((tmp_path / "data").iterdir())


def test_what_a_killed_run_left_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / "data/.train.draft").mkdir(parents=True)
    (tmp_path / "data/.train.draft/old.tsv").write_text("half")
    assert texts(unpacked(zipped(MIND), tmp_path)) == SPLIT
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["train"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_bytes_are_changed_the_error_is_one_in_words_or_the_files_are_whole(
    data: st.DataObject, tmp_path: Path
) -> None:
    content = bytearray(zipped(MIND))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    with suppress(IntegrityError, DataError):
        found = texts(unpacked(bytes(content[: data.draw(st.integers(len(content) - 40, len(content)))]), tmp_path))
        assert found.items() <= SPLIT.items()
    assert {path.name for path in tmp_path.iterdir()} <= {"x.zip", "data"}
