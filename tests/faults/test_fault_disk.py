"""A full disk: what was paid for is there once space is freed, and no half file has a whole one's name."""

from __future__ import annotations

import errno
import os
import re
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

    from faults.book import Measured, Observed
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


# what the other stages and commands write

TINY = "data/tiny"
FULL = "could not be written: "
OUT = {"graph": "graph", "train": "model", "evaluate": "predictions"}


@pytest.fixture
def disks(whole: Buyer, tmp_path: Path) -> Iterator[dict[str, Disk]]:
    """Under data/tiny and under metrics, which hold what they held."""
    made: dict[str, Disk] = {}
    for path in (TINY, "metrics"):
        shutil.move(whole.root / path, tmp_path / "held")
        made[path] = Disk(whole.root / path, n_bytes=2**24)
        shutil.copytree(tmp_path / "held", whole.root / path, dirs_exist_ok=True)
        shutil.rmtree(tmp_path / "held")
    yield made
    for disk in made.values():
        disk.remove()


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.slow
@pytest.mark.parametrize("stage", OUT)
def test_no_part_of_an_artifact_that_does_not_fit_is_left(
    whole: Buyer, disks: dict[str, Disk], stage: str, observed: Observed
) -> None:
    out, disk = whole.root / TINY / OUT[stage], disks[TINY]
    before = whole.hashes(f"{TINY}/{OUT[stage]}")
    shutil.rmtree(out)  # as DVC does before it runs the stage
    for spare in (0, 2, 6):
        disk.fill(spare)
        others = names(disk.folder)
        outcome = whole.stage(stage)
        assert outcome.code == 8, outcome.text
        assert f"ERROR: {TINY}/{OUT[stage]}: {FULL}" in outcome.text
        assert "Nothing was left behind; free some space or mend the permissions and run again" in outcome.text
        assert names(disk.folder) == others
        disk.free()
    assert whole.stage(stage).code == 0
    assert whole.hashes(f"{TINY}/{OUT[stage]}") == before
    done = f"no space for the artifact of {stage}, none for part of it, for more of it; freed, run again"
    observed(13, done, code="8, 8, 8, 0", left="nothing: neither the artifact nor a draft of it")


@pytest.mark.slow
def test_metrics_of_evaluate_that_do_not_fit_are_named_and_none_is_half_there(
    whole: Buyer, disks: dict[str, Disk], observed: Observed
) -> None:
    before, disk = whole.hashes("metrics/evaluate/plots"), disks["metrics"]
    shutil.rmtree(whole.root / "metrics/evaluate")
    for spare in (0, 3):
        disk.fill(spare)
        outcome = whole.stage("evaluate")
        assert outcome.code == 8, outcome.text
        assert f": {FULL}{os.strerror(errno.ENOSPC)}. What was there is as it was; free some space" in outcome.text
        assert "ERROR: metrics/evaluate/" in outcome.text
        left = [path for path in (whole.root / "metrics/evaluate").rglob("*") if path.is_file()]
        assert [
            path
            for path in left
            if whole.hashes(str(path.parent.relative_to(whole.root)))[path.name] != before[path.name]
        ] == []
        disk.free()
        shutil.rmtree(whole.root / "metrics/evaluate", ignore_errors=True)
    assert whole.stage("evaluate").code == 0
    assert whole.hashes("metrics/evaluate/plots") == before
    observed(
        13,
        "no space for evaluate's metrics and plots, space for some; freed, run again",
        code="8, 8, 0",
        left="whole files alone; the one without space is told",
    )


@pytest.mark.slow
def test_curves_that_do_not_fit_stop_training_and_leave_no_model(
    whole: Buyer, disks: dict[str, Disk], observed: Observed
) -> None:
    before, disk = whole.locked(), disks["metrics"]
    for path in ("metrics/train", f"{TINY}/model"):
        shutil.rmtree(whole.root / path)
    disk.fill()
    outcome = whole.stage("train")
    assert outcome.code == 8, outcome.text
    assert re.search(rf"ERROR: metrics/(train|speed): could not be written: {os.strerror(errno.ENOSPC)}", outcome.text)
    assert "Traceback" not in outcome.text
    assert not (whole.root / TINY / "model").exists()
    disk.free()
    assert whole.stage("train").code == 0
    whole.dvc("commit", "--force", "train")
    assert {path: md5 for path, md5 in whole.locked().items() if before[path] != md5} == {}
    observed(13, "no space for the curves of train; freed, run again", code="8, 0", left="no model")


COMMANDS = {
    "report": ("report", "--out", "{full}/report.html"),
    "compare": ("compare", "workspace", "HEAD", "--md", "{full}/change.md"),
    "submission": ("submission", "--split", "dev", "--out", "{full}/prediction.zip"),
    "ensemble": ("ensemble", "workspace", "HEAD", "--out", "{full}/ensemble"),
    "synth": ("synth", "{full}/made"),
    "ledger export": ("ledger", "export", "{full}/vectors"),
}


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "full", n_bytes=2**20)
    disk.fill()
    yield disk
    disk.remove()


@pytest.mark.slow
def test_commands_that_cannot_write_name_the_file_and_leave_nothing(
    whole: Buyer, full: Disk, observed: Observed
) -> None:
    for words in COMMANDS.values():
        named = [word.format(full=full.folder) for word in words]
        outcome = whole.run("newsfuse", *named)
        assert outcome.code == 8, outcome.text
        assert f"ERROR: {full.folder}" in outcome.text
        assert "Traceback" not in outcome.text
        assert [path.name for path in full.folder.rglob("*") if path.is_file()] == ["filler"]
    done = ", ".join(f"`newsfuse {name}`" for name in COMMANDS)
    observed(13, f"no space for the file of {done}", code=8, left="nothing; the file is told, and what to do")
