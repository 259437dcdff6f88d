"""A trained model on disk: what is read is what was written, or an error."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file, save_file
from small import behave, plugins, world

from newsfuse import Encoder
from newsfuse.assembly import Architecture
from newsfuse.checkpoint import Checkpoint, packed
from newsfuse.errors import IntegrityError
from newsfuse.recommender import Recommender
from newsfuse.scoring import score

ARCHITECTURE = Architecture(
    tuple(plugins().names(Encoder)), "gate", "attention", 16, 0.2, 5, {"gnn": {"layers": 1}, "attention": {"heads": 2}}
)
BEHAVIORS = behave(([0, 1, 2], [(4, 0), (5, 1)]), ([], [(6, 1), (7, 0), (8, 0)]))


@pytest.fixture
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(ARCHITECTURE, world().known, ARCHITECTURE.build(plugins(), world().train).state_dict())


@pytest.fixture
def folder(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    checkpoint.write(tmp_path / "model", {"seed": 0})
    return tmp_path / "model"


def scores(checkpoint: Checkpoint) -> np.ndarray:
    return score(checkpoint.model(plugins(), world().train), BEHAVIORS, checkpoint.architecture.history).candidates


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_what_is_read_scores_as_what_was_written(checkpoint: Checkpoint, folder: Path) -> None:
    expected = scores(checkpoint)
    torch.manual_seed(1)
    np.testing.assert_array_equal(scores(Checkpoint.read(folder)), expected)


def test_tied_weights_are_kept() -> None:
    there, back = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    back.weight = there.weight
    found = load(packed(torch.nn.Sequential(there, back).state_dict()))
    assert torch.equal(found["0.weight"], there.weight)
    assert torch.equal(found["1.weight"], there.weight)


def test_encoders_start_once_when_the_model_is_new(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Recommender] = []

    def note(model: Recommender) -> None:
        started.append(model)

    monkeypatch.setattr(Recommender, "start", note)
    Checkpoint.read(folder).model(plugins(), world().train)
    assert not started
    new = ARCHITECTURE.build(plugins(), world().train)
    assert started == [new]


def test_architecture_and_vocabularies_come_back(checkpoint: Checkpoint, folder: Path) -> None:
    found = Checkpoint.read(folder)
    assert found.architecture == ARCHITECTURE
    for name in ("news", "categories", "subcategories", "graph_entities", "graph_categories"):
        assert getattr(found.known, name).words.equals(getattr(checkpoint.known, name).words)


def test_the_weights_serve_later_articles(folder: Path) -> None:
    model = Checkpoint.read(folder).model(plugins(), world().later)
    articles = model.eval().articles(torch.arange(world().later.n_articles))
    assert articles.isfinite().all()


def test_the_same_model_gives_the_same_bytes(checkpoint: Checkpoint, folder: Path, tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "again", {"seed": 0})
    assert digests(tmp_path / "again") == digests(folder)


def test_writing_again_replaces_what_was_there(checkpoint: Checkpoint, folder: Path) -> None:
    other = {name: each + 1 for name, each in checkpoint.weights.items()}
    replace(checkpoint, weights=other).write(folder, {"seed": 0})
    assert all(torch.equal(each, other[name]) for name, each in Checkpoint.read(folder).weights.items())


def test_weights_that_are_no_block_of_memory_are_written(checkpoint: Checkpoint, tmp_path: Path) -> None:
    turned = {name: each.T if each.ndim == 2 else each for name, each in checkpoint.weights.items()}
    replace(checkpoint, weights=turned).write(tmp_path / "model", {})
    assert all(torch.equal(each, turned[name]) for name, each in Checkpoint.read(tmp_path / "model").weights.items())


@pytest.mark.parametrize("place", [0, 100, -1])
def test_damaged_weights_are_found(folder: Path, place: int) -> None:
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"weights\.safetensors: missing or damaged"):
        Checkpoint.read(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "news.txt", "manifest.json"])
def test_a_missing_file_is_found(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(IntegrityError, match=name):
        Checkpoint.read(folder)


def test_a_shortened_vocabulary_is_found(folder: Path) -> None:
    (folder / "news.txt").write_text("N00\n", encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"news\.txt: missing or damaged"):
        Checkpoint.read(folder)


@pytest.mark.parametrize(
    "other",
    [
        replace(ARCHITECTURE, dim=32),
        replace(ARCHITECTURE, fusion="attention"),
        replace(ARCHITECTURE, user_encoder="mean"),
        replace(ARCHITECTURE, encoders=("id", "llm")),
        replace(ARCHITECTURE, options={"gnn": {"layers": 2}, "attention": {"heads": 2}}),
    ],
    ids=["dim", "fusion", "user_encoder", "encoders", "options"],
)
def test_weights_that_do_not_fit_are_told(checkpoint: Checkpoint, other: Architecture) -> None:
    with pytest.raises(IntegrityError, match=r"(?s)weights do not fit its plugins .*dvc repro --force"):
        replace(checkpoint, architecture=other).model(plugins(), world().train)


def test_the_manifest_tells_how_the_model_was_made(folder: Path) -> None:
    settings = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["settings"]
    assert settings["training"] == {"seed": 0}
    assert settings["architecture"]["fusion"] == "gate"


def test_weights_that_look_like_ours_but_are_not_are_refused(folder: Path) -> None:
    """Even a sound safetensors file, when it is not the one that was written."""
    path = folder / "weights.safetensors"
    save_file({name: each + 1 for name, each in load_file(path).items()}, path)
    with pytest.raises(IntegrityError, match=r"weights\.safetensors"):
        Checkpoint.read(folder)
