"""A file from a mirror: gone on with, started over, or refused."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from mirror_server import SOME, MirrorServer

from newsfuse.errors import IntegrityError, NewsfuseError, ProviderError, StorageError
from newsfuse.fetching import download as module
from newsfuse.fetching.download import CHUNK, Terms, download
from newsfuse.fetching.partial import Partial
from newsfuse.paid import patience

if TYPE_CHECKING:
    from pathlib import Path

BODY = random.Random(0).randbytes(50_000)  # noqa: S311 - no secret
OTHER = random.Random(1).randbytes(50_000)  # noqa: S311 - no secret
KEPT = SOME // CHUNK * CHUNK
"""What is on the disk of SOME bytes: whole chunks."""
NAME = "x.zip"


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "BACKOFF_S", 0.001)


@pytest.fixture
def partial(tmp_path: Path) -> Partial:
    return Partial.of(tmp_path / NAME)


def get(mirror: MirrorServer, partial: Partial, **terms: float) -> bytes:
    """What is downloaded in the end."""
    download([f"{mirror.url}/{NAME}"], partial, Terms(timeout_s=1, **terms), lambda *_: None)  # type: ignore[arg-type]
    return partial.path.read_bytes()


def failed(mirror: MirrorServer, partial: Partial, kind: type[NewsfuseError] = ProviderError, **terms: int) -> str:
    with pytest.raises(kind) as caught:
        get(mirror, partial, **terms)
    return str(caught.value).removeprefix(f"{mirror.url}/{NAME}: ")


def test_a_whole_download_takes_one_request_and_tells_how_far_it_is(partial: Partial) -> None:
    told: list[tuple[int, int | None]] = []
    with MirrorServer({NAME: BODY}) as mirror:
        url = f"{mirror.url}/some/folder/{NAME}"
        assert download([url], partial, Terms(size=len(BODY)), lambda *far: told.append(far)) == url
    assert (mirror.requests, mirror.sent, partial.path.read_bytes()) == (1, len(BODY), BODY)
    assert mirror.headers[0]["accept-encoding"] == "identity"
    assert told[-1] == (len(BODY), len(BODY))
    assert told == sorted(told)


def test_a_download_that_broke_off_is_gone_on_with_at_the_first_missing_byte(partial: Partial) -> None:
    with MirrorServer({NAME: BODY}, "broken", "broken", "ok") as mirror:
        assert get(mirror, partial) == BODY
    assert mirror.ranges == ["", f"bytes={KEPT}-", f"bytes={2 * KEPT}-"]
    assert mirror.sent == SOME + SOME + (len(BODY) - 2 * KEPT)
    assert mirror.headers[1]["if-range"].startswith('"')


def test_the_next_run_goes_on_where_the_last_one_gave_up(partial: Partial) -> None:
    with MirrorServer({NAME: BODY}, "broken", "ok") as mirror:
        told = failed(mirror, partial, attempts=1)
        assert "IncompleteRead" in told
        assert f"(after {KEPT:,} bytes)" in told
        assert get(mirror, partial) == BODY
    assert mirror.ranges == ["", f"bytes={KEPT}-"]


def test_a_download_that_was_whole_already_asks_for_nothing(partial: Partial) -> None:
    with MirrorServer({NAME: BODY}) as mirror:
        assert get(mirror, partial) == get(mirror, partial) == BODY
    assert mirror.requests == 1


def test_a_server_without_ranges_starts_over(partial: Partial) -> None:
    with MirrorServer({NAME: BODY}, "rangeless_broken", "rangeless") as mirror:
        assert get(mirror, partial) == BODY
    assert mirror.ranges == ["", f"bytes={KEPT}-"]
    assert mirror.sent == SOME + len(BODY)


@pytest.mark.parametrize("length", [len(OTHER), 40_000, KEPT - 1])
def test_a_file_that_changed_in_between_is_started_over(length: int, partial: Partial) -> None:
    other = OTHER[:length]
    with MirrorServer({NAME: BODY}, "broken", "ok") as mirror:
        mirror.before = lambda number: mirror.files.update({NAME: other}) if number > 1 else None
        assert get(mirror, partial) == other
    assert mirror.requests == 2


def test_a_file_that_changed_without_a_tag_is_noticed_by_its_length(partial: Partial) -> None:
    with MirrorServer({NAME: BODY}, "untagged_broken", "untagged", "untagged") as mirror:
        mirror.before = lambda number: mirror.files.update({NAME: OTHER[:-1]}) if number > 1 else None
        assert get(mirror, partial) == OTHER[:-1]
    assert mirror.ranges == ["", f"bytes={KEPT}-", ""]


def test_without_a_strong_tag_the_date_tells_versions_apart(partial: Partial) -> None:
    with MirrorServer({NAME: BODY}, "weak_broken", "untagged") as mirror:
        get(mirror, partial)
    assert mirror.headers[1]["if-range"] == "Sat, 09 Nov 2019 08:55:22 GMT"


@pytest.mark.parametrize("mode", ["other_range", "unsatisfiable"])
def test_an_answer_that_does_not_continue_the_part_makes_it_start_over(mode: str, partial: Partial) -> None:
    with MirrorServer({NAME: BODY}, "broken", mode, "ok") as mirror:
        assert get(mirror, partial) == BODY
    assert mirror.ranges == ["", f"bytes={KEPT}-", ""]


def test_a_range_that_nobody_asked_for_is_not_taken(partial: Partial) -> None:
    with MirrorServer({NAME: BODY}, "other_range") as mirror:
        assert "which does not continue what is here: starting over" in failed(mirror, partial, attempts=2)
    assert not partial.size


@pytest.mark.parametrize("note", ["", "{}", "[]", '{"url": 1}', "\xff"])
def test_a_part_whose_note_cannot_be_read_is_started_over(note: str, partial: Partial) -> None:
    partial.path.write_bytes(b"what is this")
    partial.path.with_name(f"{NAME}.part.json").write_text(note, encoding="latin-1")
    with MirrorServer({NAME: BODY}) as mirror:
        assert get(mirror, partial) == BODY
    assert mirror.ranges == [""]


def test_a_part_from_another_mirror_is_started_over(partial: Partial) -> None:
    with MirrorServer({NAME: BODY}, "broken") as first, MirrorServer({NAME: BODY}) as second:
        failed(first, partial, attempts=1)
        assert get(second, partial) == BODY
    assert second.ranges == [""]


def test_a_length_that_is_not_the_known_one_is_refused_before_the_download(partial: Partial) -> None:
    with MirrorServer({NAME: BODY}, "short") as mirror:
        told = failed(mirror, partial, IntegrityError, size=len(BODY))
    assert told == "has 30,000 bytes, expected 50,000"
    assert mirror.requests == 1
    assert not partial.size


def test_a_length_that_is_a_lie_is_taken_for_a_broken_connection(partial: Partial) -> None:
    with MirrorServer({NAME: BODY}, "broken", "broken", "broken") as mirror:
        assert "Gave up after 2 requests" in failed(mirror, partial, size=len(BODY), attempts=2)
    assert mirror.requests == 2


def test_an_endless_answer_is_cut_off_at_the_known_size(partial: Partial, monkeypatch: pytest.MonkeyPatch) -> None:
    with MirrorServer({NAME: BODY}, "endless") as mirror:
        told = failed(mirror, partial, IntegrityError, size=len(BODY))
        assert told == "sends more than 50,000 bytes"
        monkeypatch.setattr(module, "MOST_BYTES", 60_000)
        assert failed(mirror, partial, IntegrityError).startswith("sends more than 60,000 bytes")
    assert mirror.requests == 2
    assert not partial.size


def test_a_file_larger_than_any_archive_is_refused(partial: Partial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", len(BODY) - 1)
    with MirrorServer({NAME: BODY}) as mirror:
        assert failed(mirror, partial, IntegrityError).startswith("has 50,000 bytes, more than the 49,999 allowed")


def test_a_server_that_tells_no_length_is_believed_at_its_end(partial: Partial) -> None:
    with MirrorServer({NAME: BODY}, "lengthless") as mirror:
        assert get(mirror, partial, size=len(BODY)) == BODY
        partial.discard()
        assert get(mirror, partial) == BODY


def test_a_busy_server_is_asked_again_and_not_for_ever(partial: Partial) -> None:
    with MirrorServer({NAME: BODY}, "busy", "busy", "ok") as mirror:
        assert get(mirror, partial) == BODY
    assert mirror.requests == 3
    with MirrorServer({NAME: BODY}, "busy") as mirror:
        partial.discard()
        assert failed(mirror, partial, attempts=4) == "HTTP 503 Service Unavailable. Gave up after 4 requests"
    assert mirror.requests == 4


def test_a_server_that_falls_silent_is_given_up_after_the_timeout(partial: Partial) -> None:
    with MirrorServer({NAME: BODY}, "silent", "untagged") as mirror:
        assert get(mirror, partial) == BODY
    assert mirror.ranges == ["", f"bytes={KEPT}-"]


def test_an_answer_that_is_packed_once_more_is_refused(partial: Partial) -> None:
    with MirrorServer({NAME: BODY}, "packed") as mirror:
        assert failed(mirror, partial) == "sends the file packed once more (gzip), unasked"


def test_the_second_mirror_is_asked_when_the_first_has_not_got_it(partial: Partial) -> None:
    with MirrorServer({}) as first, MirrorServer({NAME: BODY}) as second:
        urls = [f"{mirror.url}/{NAME}" for mirror in (first, second)]
        assert download(urls, partial, Terms(), lambda *_: None) == urls[1]
    assert (first.requests, second.requests) == (1, 1)
    assert partial.path.read_bytes() == BODY


def test_when_no_mirror_has_it_each_says_why(partial: Partial) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}/{NAME}"
    with MirrorServer({}) as first, pytest.raises(ProviderError) as caught:
        download([f"{first.url}/{NAME}", dead], partial, Terms(attempts=2), lambda *_: None)
    one, two = str(caught.value).splitlines()
    assert one == f"{first.url}/{NAME}: HTTP 404 Not Found"
    assert two == f"{dead}: ConnectionError: [Errno 111] Connection refused. Gave up after 2 requests"
    assert first.requests == 1


def test_a_redirect_within_this_machine_is_followed_with_its_range(partial: Partial) -> None:
    with (
        MirrorServer({NAME: BODY}, "broken", "ok") as second,
        MirrorServer({NAME: BODY}, "redirect", location=second.url) as first,
    ):
        assert get(first, partial) == BODY
    assert second.ranges == ["", f"bytes={KEPT}-"]
    assert first.requests == 2


def test_redirects_that_lead_in_a_circle_come_to_an_end(partial: Partial) -> None:
    with MirrorServer({NAME: BODY}, "redirect") as mirror:
        assert failed(mirror, partial) == "redirects more than 5 times"
    assert mirror.requests == 6


@pytest.mark.parametrize("location", ["http://mirror.example", "ftp://mirror.example", "file://", "https://["])
def test_a_redirect_to_where_others_could_listen_is_not_followed(location: str, partial: Partial) -> None:
    with MirrorServer({NAME: BODY}, "redirect", location=location) as mirror:
        told = failed(mirror, partial)
    assert told == f"redirects to {location}/{NAME}, which is not followed: only https is"
    assert mirror.requests == 1


def test_no_redirect_leads_from_elsewhere_to_this_machine() -> None:
    with pytest.raises(ProviderError, match=r"redirects to http://127.0.0.1:8080/admin, which is not followed"):
        module._next("https://mirror.example/x.zip", "http://127.0.0.1:8080/admin")  # noqa: SLF001 - needs two hosts else
    assert module._next("https://mirror.example/x.zip", "/y.zip") == "https://mirror.example/y.zip"  # noqa: SLF001


def test_a_disk_without_room_is_noticed_before_the_download(partial: Partial, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(partial.path.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=149_999))
    with MirrorServer({NAME: BODY}) as mirror:
        told = failed(mirror, partial, StorageError, room=2)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=150_000))
        assert get(mirror, partial, room=2) == BODY
    assert "149,999 bytes are free, and about 150,000 are needed: 50,000 to download" in told


CAPPED = """
import resource, sys
from pathlib import Path
from newsfuse.fetching.download import Terms, download
from newsfuse.fetching.partial import Partial
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
download([sys.argv[1]], Partial.of(Path("x.zip")), Terms(), lambda *_: None)
"""


def test_a_disk_that_is_full_in_the_middle_keeps_what_came(partial: Partial, tmp_path: Path) -> None:
    with MirrorServer({NAME: BODY}) as mirror:
        command = [sys.executable, "-c", CAPPED, f"{mirror.url}/{NAME}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "StorageError: x.zip.part: File too large. What was downloaded is kept" in done.stderr
        kept = partial.size
        assert 4 * CHUNK <= kept <= 40_000
        origin = json.loads((tmp_path / f"{NAME}.part.json").read_text())
        assert origin["total"] == len(BODY)
        assert get(mirror, partial) == BODY
    assert mirror.ranges == ["", f"bytes={kept}-"]


def test_after_any_two_breaks_the_bytes_are_those_of_the_file(partial: Partial) -> None:
    modes = ("broken", "rangeless_broken", "untagged_broken", "unsatisfiable")
    for first, second in itertools.product(modes, modes):
        partial.discard()
        with MirrorServer({NAME: BODY}, first, second, "ok") as mirror:
            assert get(mirror, partial) == BODY, (first, second)
