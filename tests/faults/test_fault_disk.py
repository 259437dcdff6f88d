"""A full disk: what was paid for is there once space is freed, and no half file has a whole one's name."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from itertools import count
from typing import TYPE_CHECKING

import pytest
from faults.buyer import ARTIFACT, BATCH, BATCHES, EMBED, NEWS, TITLES
from faults.canary import traces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from faults.book import Measured
    from faults.buyer import Buyer
    from openai_server import OpenAIServer

LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Disk:
    """A small disk of its own."""

    def __init__(self, folder: Path, n_bytes: int) -> None:
        self.folder, self.filler = folder, folder / "filler"
        folder.mkdir(exist_ok=True)
        command = ("mount", "-t", "tmpfs", "-o", f"size={n_bytes},mode=700", "tmpfs", str(folder))
        mounted = subprocess.run(command, capture_output=True, check=False)
        if mounted.returncode:
            pytest.skip("only root may mount a small disk")

    def fill(self, spare_pages: int = 0) -> None:
        """Use all its space but so many pages."""
        page = 4096
        with self.filler.open("wb", buffering=0) as file:
            while file.write(bytes(page)):
                if shutil.disk_usage(self.folder).free <= spare_pages * page:
                    return

    def free(self) -> None:
        self.filler.unlink()

    def remove(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


def finished(buyer: Buyer) -> list[str]:
    """What there is of the stage's outs, and of their drafts."""
    folders, others = (buyer.root / "data/tiny", buyer.root / "metrics"), {"train", "dev", "README.md"}
    return [path.name for folder in folders for path in folder.iterdir() if path.name not in others]


# the ledger


@pytest.mark.slow
def test_a_ledger_that_may_not_grow_stops_the_run_wherever_that_is(
    opened: Buyer, server: OpenAIServer, unbroken: dict[str, str], tmp_path: Path, measured: Measured
) -> None:
    requests: list[int] = []
    twice: set[int] = set()
    for kilobytes in count(32, 64):
        server.forget()
        buyer = opened.copy(tmp_path / f"{kilobytes}").at(server)
        outcome = buyer.run(sys.executable, "-c", LIMITED, str(kilobytes * 1024), *EMBED)
        if outcome.code == 0:
            break
        assert outcome.code == 8, outcome.text
        assert f"ERROR: {buyer.ledger}" in outcome.text
        assert "Free some space" in outcome.text
        assert finished(buyer) == []
        before, kept = server.requests, buyer.kept() if buyer.ledger.exists() else 0
        assert server.billed - kept in {0, BATCH}
        assert not kept or f"{kept} texts are paid and kept" in outcome.text
        assert buyer.embed().code == 0
        assert server.requests - before == BATCHES - kept // BATCH
        assert buyer.artifact() == unbroken
        requests.append(before)
        twice.add(server.twice)
    assert requests == sorted(requests)
    assert set(requests) == set(range(BATCHES + 1))
    assert twice == {0, BATCH}
    done = "no file may grow past 32, 96, 160, ... KB, until that is enough; allowed again, run again"
    measured(13, done, code="8, 0", requests=f"0 to {BATCHES} / the rest", twice=f"≤ {BATCH} (in flight)")


@pytest.fixture
def ledgers_disk(buyer: Buyer, tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(buyer.ledger.parent, n_bytes=2**22)
    yield disk
    assert traces(tmp_path) == []
    disk.remove()


def test_a_disk_that_fills_up_under_the_ledger_stops_the_run_before_the_next_payment(
    buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str], ledgers_disk: Disk, measured: Measured
) -> None:
    server.before = lambda number: ledgers_disk.fill() if number == 2 else None
    outcome = buyer.embed()
    assert outcome.code == 8
    assert f"ERROR: {buyer.ledger}: could not be written or read: database or disk is full. Free some" in outcome.text
    assert f"{BATCH} texts are paid and kept" in outcome.text
    assert (server.requests, buyer.kept(), finished(buyer)) == (2, BATCH, [])

    ledgers_disk.fill()  # again: the log of a run that has ended is given back
    full = buyer.embed()
    assert full.code == 8
    assert f"ERROR: {buyer.ledger.parent}: 0.0 MB are free, 1.8 MB are needed; nothing was paid" in full.text
    assert server.requests == 2
    ledgers_disk.free()
    assert buyer.embed().code == 0
    assert buyer.artifact() == unbroken
    assert (server.requests, server.twice) == (1 + BATCHES, BATCH)
    done = "the ledger's disk fills up before the second answer; run again; space freed, run again"
    measured(13, done, code="8, 8, 0", requests=f"2 / 0 / {BATCHES - 1}", twice=f"{BATCH} (in flight)")


# what the stage writes


@pytest.fixture
def outs_disk(owner: Buyer, tmp_path: Path) -> Iterator[Disk]:
    """Under data/tiny, of which embed reads the news alone."""
    news = {path: owner.text(path) for path in NEWS.values()}
    owner.without_outs()
    disk = Disk(owner.root / "data/tiny", n_bytes=2**18)
    for path, text in news.items():
        (owner.root / path).parent.mkdir()
        (owner.root / path).write_text(text)
    yield disk
    assert traces(tmp_path) == []
    disk.remove()


@pytest.mark.slow
def test_an_artifact_that_does_not_fit_leaves_nothing_behind(
    owner: Buyer, server: OpenAIServer, unbroken: dict[str, str], outs_disk: Disk, measured: Measured
) -> None:
    pages = 0
    outs_disk.fill()
    while (outcome := owner.embed()).code:
        assert outcome.code == 8
        assert f"ERROR: {ARTIFACT}: could not be written: {os.strerror(errno.ENOSPC)}. Nothing was left" in outcome.text
        assert finished(owner) == ["filler"]
        pages += 1
        outs_disk.fill(pages)
    assert pages >= 3  # one file after the other did not fit
    assert owner.artifact() == unbroken
    assert server.requests == 0
    done = "no space for the artifact, then for one file of it, for two, ..., until there is enough"
    measured(13, done, code="8, ..., 0", requests=0, twice=0)


def test_metrics_that_cannot_be_written_are_not_there(owner: Buyer, server: OpenAIServer, measured: Measured) -> None:
    owner.without_outs()
    (owner.root / "metrics/.embed.json.draft").symlink_to("/dev/full")
    outcome = owner.embed()
    assert outcome.code == 8
    assert os.strerror(errno.ENOSPC) in outcome.text
    assert finished(owner) == ["embeddings"]
    assert owner.embed().code == 0
    assert owner.receipt()["reused"] == len(TITLES)
    assert server.requests == 0
    measured(13, "no space for metrics/embed.json; freed, run again", code="8, 0", requests="0 / 0", twice=0)
