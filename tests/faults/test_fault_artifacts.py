"""A damaged artifact is refused by whoever reads it, and made again for nothing by the command that is named."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

import pytest
from faults.buyer import ARTIFACT, DIMENSIONS, Buyer

if TYPE_CHECKING:
    from pathlib import Path

    from faults.book import Measured
    from openai_server import OpenAIServer
    from project import Outcome

pytestmark = pytest.mark.slow
AGAIN = f"rm -rf {ARTIFACT} && dvc checkout embed"
CONSUMERS = ("train", "evaluate")


@pytest.fixture(scope="module")
def trained(shop: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> Buyer:
    """The whole pipeline of the shipped data, run by DVC; for copying only."""
    buyer = Buyer.bare(tmp_path_factory.mktemp("trained") / "a project").at(shop).under(NEWSFUSE_MAX_INPUTS="512")
    buyer.edit("params.yaml", "gnn: true", "gnn: false")
    buyer.dvc("repro")
    buyer.commit()
    return buyer


@pytest.fixture
def pipeline(trained: Buyer, server: OpenAIServer, tmp_path: Path) -> Buyer:
    return trained.copy(tmp_path / "a project")


def damage(path: Path) -> None:
    """Flip a byte in the middle, as a bad disk does: size, mode and times stay."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def remedy(outcome: Outcome) -> str:
    """The shell command that a message about damage ends with."""
    assert outcome.code == 7, outcome.text
    assert "Traceback" not in outcome.text
    found = re.search(rf"^ERROR: {ARTIFACT}.*Make it again: (.+)$", outcome.text, re.MULTILINE)
    assert found, outcome.text
    return found[1]


def test_every_consumer_refuses_every_damaged_file_and_the_named_command_makes_it_again_for_nothing(
    pipeline: Buyer, server: OpenAIServer, measured: Measured
) -> None:
    whole = pipeline.hashes(ARTIFACT)
    assert whole.keys() == {"ids.txt", "keys", "manifest.json", "vectors.npy"}
    for name in whole:
        shutil.copytree(pipeline.root / ARTIFACT, kept := pipeline.root.parent / name)
        damage(pipeline.root / ARTIFACT / name)
        commands = {remedy(pipeline.stage(consumer)) for consumer in CONSUMERS}
        shutil.rmtree(pipeline.root / ARTIFACT)
        kept.rename(pipeline.root / ARTIFACT)
        assert len(commands) == 1
    damage(pipeline.root / ARTIFACT / "vectors.npy")
    pipeline.must("sh", "-c", commands.pop())
    assert pipeline.hashes(ARTIFACT) == whole
    assert pipeline.would_run() == []
    assert server.requests == 0
    done = f"a flipped bit in each file of {ARTIFACT}, read by train and by evaluate; made again by the command told"
    measured(15, done, code="7, 0", requests="0 / 0", twice=0)


def test_a_damaged_object_in_dvcs_cache_is_refused_and_replaced_for_nothing(
    pipeline: Buyer, server: OpenAIServer, measured: Measured
) -> None:
    whole = pipeline.hashes(ARTIFACT)
    size = (pipeline.root / ARTIFACT / "vectors.npy").stat().st_size
    objects = [path for path in pipeline.root.glob(".dvc/cache/files/md5/*/*") if path.stat().st_size == size]
    assert size > 4 * DIMENSIONS
    assert len(objects) == 1
    damage(objects[0])
    pipeline.must("sh", "-c", AGAIN)  # DVC takes a read-only object on trust
    (command,) = {remedy(pipeline.stage(consumer)) for consumer in CONSUMERS}
    pipeline.must("sh", "-c", f"{command} && {AGAIN}")
    assert pipeline.hashes(ARTIFACT) == whole
    assert pipeline.stage("evaluate").code == 0
    assert server.requests == 0
    done = "a flipped bit in DVC's read-only cache, checked out; both made again by the command told"
    measured(15, done, code="7, 0", requests="0 / 0", twice=0)
