"""A damaged artifact is refused by whoever reads it, and made again for nothing by the command that is named."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

import pytest
from faults.buyer import ARTIFACT, DIMENSIONS

from newsfuse.artifact import verified
from newsfuse.errors import IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

    from faults.book import Measured, Observed
    from faults.buyer import Buyer
    from openai_server import OpenAIServer
    from project import Outcome

pytestmark = pytest.mark.slow
AGAIN = f"rm -rf {ARTIFACT} && dvc checkout embed"
CONSUMERS = ("train", "evaluate")


def damage(path: Path) -> None:
    """Flip a byte in the middle, as a bad disk does: size, mode and times stay."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def remedy(outcome: Outcome, folder: str = ARTIFACT) -> str:
    """The shell command that a message about damage ends with."""
    assert outcome.code == 7, outcome.text
    assert "Traceback" not in outcome.text
    found = re.search(rf"^ERROR: {folder}.*Make it again: (.+)$", outcome.text, re.MULTILINE)
    assert found, outcome.text
    return found[1]


def test_every_consumer_refuses_every_damaged_file_and_the_named_command_makes_it_again_for_nothing(
    whole: Buyer, server: OpenAIServer, measured: Measured
) -> None:
    before = whole.hashes(ARTIFACT)
    assert before.keys() == {"ids.txt", "keys", "manifest.json", "vectors.npy"}
    for name in before:
        shutil.copytree(whole.root / ARTIFACT, kept := whole.root.parent / name)
        damage(whole.root / ARTIFACT / name)
        commands = {remedy(whole.stage(consumer)) for consumer in CONSUMERS}
        shutil.rmtree(whole.root / ARTIFACT)
        kept.rename(whole.root / ARTIFACT)
        assert len(commands) == 1
    damage(whole.root / ARTIFACT / "vectors.npy")
    whole.must("sh", "-c", commands.pop())
    assert whole.hashes(ARTIFACT) == before
    assert whole.would_run() == []
    assert server.requests == 0
    done = f"a flipped bit in each file of {ARTIFACT}, read by train and by evaluate; made again by the command told"
    measured(15, done, code="7, 0", requests="0 / 0", twice=0)


def test_a_damaged_object_in_dvcs_cache_is_refused_and_replaced_for_nothing(
    whole: Buyer, server: OpenAIServer, measured: Measured
) -> None:
    before = whole.hashes(ARTIFACT)
    size = (whole.root / ARTIFACT / "vectors.npy").stat().st_size
    objects = [path for path in whole.root.glob(".dvc/cache/files/md5/*/*") if path.stat().st_size == size]
    assert size > 4 * DIMENSIONS
    assert len(objects) == 1
    damage(objects[0])
    whole.must("sh", "-c", AGAIN)  # DVC takes a read-only object on trust
    (command,) = {remedy(whole.stage(consumer)) for consumer in CONSUMERS}
    whole.must("sh", "-c", f"{command} && {AGAIN}")
    assert whole.hashes(ARTIFACT) == before
    assert whole.stage("evaluate").code == 0
    assert server.requests == 0
    done = "a flipped bit in DVC's read-only cache, checked out; both made again by the command told"
    measured(15, done, code="7, 0", requests="0 / 0", twice=0)


# what costs nothing

STAGES = {"embeddings": "embed", "graph": "graph", "model": "train", "predictions": "evaluate"}
READERS = {
    "graph": ("python -m stages.train", "python -m stages.evaluate"),
    "model": ("python -m stages.evaluate",),
    "predictions": (
        "newsfuse report",
        "newsfuse compare workspace HEAD",
        "newsfuse ensemble workspace HEAD",
        "newsfuse submission --split dev",
    ),
}


def cut(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)


def removed(path: Path) -> None:
    path.unlink()


def test_every_file_of_every_artifact_is_guarded_by_its_manifest(whole: Buyer) -> None:
    for name, stage in STAGES.items():
        folder = whole.root / "data/tiny" / name
        for path in folder.iterdir():
            for harm in (damage, cut, removed):
                shutil.copytree(folder, kept := whole.root.parent / name)
                harm(path)
                with pytest.raises(
                    IntegrityError, match=rf"Make it again: rm -rf .*{name}'? && .* --single-item {stage}$"
                ):
                    verified(folder, kind=stage)
                shutil.rmtree(folder)
                kept.rename(folder)
        (folder / "foreign.txt").write_text("not ours")
        verified(folder, kind=stage)  # nobody reads it


@pytest.mark.parametrize("name", READERS)
def test_every_command_refuses_a_damaged_artifact_and_the_one_that_is_named_mends_it(
    whole: Buyer, name: str, observed: Observed
) -> None:
    folder = f"data/tiny/{name}"
    before, size = whole.hashes(folder), {path.name: path.stat().st_size for path in (whole.root / folder).iterdir()}
    damage(whole.root / folder / max(size, key=lambda file: size[file]))
    told = {remedy(whole.run(*command.split()), folder) for command in READERS[name]}
    assert len(told) == 1
    mended = whole.must("sh", "-c", told.pop())
    assert mended.ran == []  # it comes out of DVC's cache
    assert whole.hashes(folder) == before
    assert whole.would_run() == []
    for command in READERS[name][-1:]:
        assert whole.run(*command.split()).code == 0
    done = f"a flipped bit in {folder}, read by {', '.join(f'`{each}`' for each in READERS[name])}; as told; run again"
    observed(15, done, code="7, 0", left="as it was, out of DVC's cache; the command is told")


def test_a_lost_ledger_and_a_damaged_artifact_cost_nothing_while_dvcs_cache_is_whole(
    whole: Buyer, server: OpenAIServer, measured: Measured
) -> None:
    before = whole.hashes(ARTIFACT)
    shutil.rmtree(whole.root / ".newsfuse")
    damage(whole.root / ARTIFACT / "vectors.npy")
    whole.must("sh", "-c", remedy(whole.stage("train")))
    assert whole.hashes(ARTIFACT) == before
    assert server.requests == 0
    measured(15, "the ledger lost, a flipped bit in the vectors; as told", code="7, 0", requests="0 / 0", twice=0)


def test_artifacts_of_another_data_set_are_refused(whole: Buyer, observed: Observed) -> None:
    """Whole, and of news with other ids."""
    other = whole.root / "data/other"
    for split in ("train", "dev"):
        shutil.copytree(whole.root / "data/tiny" / split, other / split)
        for path in (other / split / "news.tsv", other / split / "behaviors.tsv"):
            path.write_text(re.sub(r"\bN(\d+)\b", r"X\1", path.read_text(encoding="utf-8")), encoding="utf-8")
    whole.edit("params.yaml", "dataset: tiny", "dataset: other")
    for name in STAGES:
        shutil.copytree(whole.root / "data/tiny" / name, other / name)
    for stage, code, told in (
        ("evaluate", 7, "it was trained on other news. Train it again: dvc repro"),
        ("train", 3, "the news graph does not know"),
    ):
        outcome = whole.stage(stage)
        assert (outcome.code, told in outcome.text) == (code, True), outcome.text
    done = "whole artifacts of another data set: its model, read by evaluate; its graph and vectors, by train"
    observed(15, done, code="7, 3", left="how many articles, the first, and what to do are told")
