"""Interrupted training goes on where it was, to the same bytes; what cannot be used is told, and starts over."""

import json
import logging
import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import cast

import pytest
import torch
from filelock import FileLock
from project import ROOT
from safetensors.torch import save
from test_training import HISTORY, SETTINGS, planted, recommender
from torch import Tensor, nn

from newsfuse.behaviors import Behaviors
from newsfuse.bookmarks import KEPT, Bookmark, Bookmarks, bookmarks
from newsfuse.epochs import Epoch
from newsfuse.params import load
from newsfuse.recipe import Recipe
from newsfuse.recommender import Recommender
from newsfuse.team import ALONE, Team
from newsfuse.training import train
from newsfuse.vocabularies import Vocabularies
from newsfuse.words import Words

COURSES = SETTINGS.model_copy(update={"pretrain_epochs": 2, "epochs": 2, "refit": True, "lr": 0.003, "patience": 2})
BEHAVIORS = planted(90, 1)
RECIPE = Recipe({"dataset": '"tiny"', "train.lr": "0.1", "seed": "0"})


class Killed(BaseException):
    """As SIGKILL would end the process: nothing is done after it."""


class Mortal(Bookmarks):
    """Bookmarks of which one is due at every step; after so many the process is killed."""

    def __init__(self, folder: Path, lives: int | None) -> None:
        super().__init__(folder, minutes=1)
        self.lives = lives

    @property
    def due(self) -> bool:
        return True

    def keep(self, bookmark: Bookmark) -> None:
        super().keep(bookmark)
        if self.lives is not None:
            self.lives -= 1
            if not self.lives:
                raise Killed


class Forgetful(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.dropout = inner, nn.Dropout(0.3)

    def forward(self, history: Tensor, clicked: Tensor) -> Tensor:
        return cast("Tensor", self.dropout(self.inner(history, clicked)))


def trained(marks: Bookmarks, loss: str = "softmax") -> tuple[bytes, list[Epoch]]:
    """The weights of a training that pre-trains, trains and learns once more; and the epochs that it told of."""
    told = list[Epoch]()

    def untrained(_: Behaviors) -> tuple[Vocabularies, Recommender]:
        words = Words.of(["1"])
        model = recommender("id", "llm")
        # a part that draws from torch's generator, as a plugin may
        model.user_encoder = Forgetful(model.user_encoder)
        return Vocabularies(words, words, words, words, words), model

    settings = COURSES.model_copy(update={"loss": loss})
    _, model, _ = train(untrained, BEHAVIORS, settings, history=HISTORY, seed=0, report=told.append, bookmarks=marks)
    return save({name: each.contiguous() for name, each in model.state_dict().items()}), told


def without_speed(epochs: list[Epoch]) -> list[Epoch]:
    return [replace(epoch, clicks_per_s=0) for epoch in epochs]


@pytest.mark.parametrize("loss", ["softmax", "binary"])
def test_training_killed_after_any_bookmark_comes_to_the_same_bytes(tmp_path: Path, loss: str) -> None:
    """A process is killed after its first bookmark, the next one after its second, ..., until one comes to the end."""
    weights, epochs = trained(Bookmarks(None), loss)
    for lives in count(1):
        try:
            found, told = trained(Mortal(tmp_path / "training", lives), loss)
        except Killed:
            continue
        break
    assert lives > 5
    assert found == weights
    assert without_speed(told) == without_speed(epochs)


def test_a_process_may_be_killed_after_every_single_step(tmp_path: Path) -> None:
    weights, epochs = trained(Bookmarks(None))
    kills, found = 0, None
    while found is None:
        try:
            found, told = trained(Mortal(tmp_path / "training", 1))
        except Killed:
            kills += 1
    assert kills > 40, "four epochs of 75 lessons in batches of 16, and then four of 90"
    assert (found, without_speed(told)) == (weights, without_speed(epochs))


# --- what cannot be used


MARK = Bookmark({"model/a": torch.arange(6.0).view(2, 3)}, {"epochs": [], "course": 1})


def same(one: Bookmark | None, two: Bookmark) -> bool:
    assert one is not None
    return one.notes == two.notes and all(torch.equal(one.tensors[name], each) for name, each in two.tensors.items())


def test_the_last_one_counts_and_is_the_only_one(tmp_path: Path) -> None:
    marks, later = Bookmarks(tmp_path), replace(MARK, notes={"course": 2})
    marks.keep(MARK)
    marks.keep(later)
    assert same(Bookmarks(tmp_path).find(), later)
    assert [path.name for path in tmp_path.iterdir()] == ["000002"]
    marks.drop()
    assert not tmp_path.exists()


@pytest.mark.parametrize("file", ["state.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_one_is_told_and_not_used(
    tmp_path: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    Bookmarks(tmp_path).keep(MARK)
    path = tmp_path / "000001" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flipped" else content[:-9])
    assert Bookmarks(tmp_path).find() is None
    assert f"{tmp_path / '000001'}: a damaged bookmark, which is not used" in caplog.text
    assert not (tmp_path / "000001").exists()


def test_one_that_was_being_written_is_none(tmp_path: Path) -> None:
    """As a killed process leaves it: a draft, and the one before."""
    Bookmarks(tmp_path).keep(MARK)
    shutil.copytree(tmp_path / "000001", tmp_path / ".000002.draft")
    marks = Bookmarks(tmp_path)
    assert same(marks.find(), MARK)
    marks.keep(MARK)
    assert [path.name for path in tmp_path.iterdir()] == ["000002"]


def test_of_two_the_older_one_serves_where_the_newer_one_is_damaged(tmp_path: Path) -> None:
    """As a process leaves them that is killed before it removes the older one."""
    Bookmarks(tmp_path).keep(MARK)
    shutil.copytree(tmp_path / "000001", tmp_path / "000002")
    (tmp_path / "000002" / "state.safetensors").write_bytes(b"")
    assert same(Bookmarks(tmp_path).find(), MARK)


def test_a_bookmark_that_cannot_be_kept_stops_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "training").write_text("a file in its place")
    Bookmarks(tmp_path / "training").keep(MARK)
    assert "no bookmark, training goes on without it:" in caplog.text


# --- whose they are


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC project, which is the current folder."""
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def interrupted(recipe: Recipe) -> Path:
    with bookmarks(recipe, ALONE) as marks:
        marks.keep(MARK)
        assert marks.folder
        return marks.folder


def test_the_same_recipe_finds_them_and_another_is_told_what_differs(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    interrupted(RECIPE)
    with bookmarks(RECIPE, ALONE) as marks:
        assert same(marks.find(), MARK)
    assert not caplog.text
    with bookmarks(Recipe({**RECIPE.parts, "train.lr": "0.2", "seed": "1"}), ALONE) as marks:
        assert marks.find() is None
    assert "training starts over: the one that was interrupted differs in seed, train.lr" in caplog.text


def test_another_data_set_has_nothing_to_do_with_them(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    interrupted(RECIPE)
    with bookmarks(Recipe({**RECIPE.parts, "dataset": '"small"'}), ALONE) as marks:
        assert marks.find() is None
    assert not caplog.text


def test_an_experiment_s_copy_shares_those_of_the_project(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(RECIPE)
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.chdir(tmp_path_factory.mktemp("copy"))
    with bookmarks(RECIPE, ALONE) as marks:
        assert same(marks.find(), MARK)


def test_of_two_runs_that_train_the_same_one_keeps_bookmarks(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder = interrupted(RECIPE)
    with FileLock(folder / "lock"), bookmarks(RECIPE, ALONE) as marks:
        assert marks.find() is None
        marks.keep(MARK)
        marks.drop()
    assert "another run trains the same; this one keeps no bookmarks" in caplog.text
    assert (folder / "000001").exists()


def test_only_the_latest_interrupted_trainings_are_remembered(root: Path) -> None:
    folders = [interrupted(Recipe({**RECIPE.parts, "seed": str(seed)})) for seed in range(KEPT + 3)]
    assert [path for path in folders if path.exists()] == folders[-KEPT - 1 :]


def test_runs_that_end_before_their_first_bookmark_push_out_none(root: Path) -> None:
    first = interrupted(RECIPE)
    for seed in range(1, KEPT + 3):
        with bookmarks(Recipe({**RECIPE.parts, "seed": str(seed)}), ALONE):
            pass
    assert [path.name for path in (root / ".newsfuse/training").iterdir()] == [first.name]


def test_those_in_use_are_left(root: Path) -> None:
    first = interrupted(RECIPE)
    with FileLock(first / "lock"):
        for seed in range(1, KEPT + 3):
            interrupted(Recipe({**RECIPE.parts, "seed": str(seed)}))
        assert first.exists()


@pytest.mark.parametrize("recipe", ["null", "{", ""])
def test_a_recipe_that_cannot_be_read_is_another_one(root: Path, recipe: str) -> None:
    folder = interrupted(RECIPE)
    (folder / "recipe.json").write_text(recipe)
    with bookmarks(Recipe({**RECIPE.parts, "seed": "1"}), ALONE) as marks:
        assert marks.find() is None


def test_where_nothing_can_be_written_training_goes_on_without(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / ".newsfuse").write_text("a file in its place")
    with bookmarks(RECIPE, ALONE) as marks:
        assert marks.find() is None
        marks.keep(MARK)
    assert "no bookmarks can be kept" in caplog.text


def test_outside_of_a_project_none_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    with bookmarks(RECIPE, ALONE) as marks:
        marks.keep(MARK)
        assert marks.find() is None
    assert not list(tmp_path.iterdir())


def test_one_is_due_after_so_many_minutes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("newsfuse.bookmarks.time.monotonic", lambda: now[0])
    monkeypatch.setenv("NEWSFUSE_BOOKMARK_MINUTES", "2")
    with bookmarks(RECIPE, ALONE) as marks:
        now[0] = 119
        assert not marks.due
        now[0] = 121
        assert marks.due
        marks.keep(MARK)
        assert not marks.due
    monkeypatch.setenv("NEWSFUSE_BOOKMARK_MINUTES", "0")
    with bookmarks(RECIPE, ALONE) as marks:
        now[0] = 10**6
        assert not marks.due


# --- what decides the result


def test_a_recipe_names_settings_files_and_code(tmp_path: Path) -> None:
    params, _ = load(ROOT)
    data, absent = tmp_path / "data", tmp_path / "absent"
    data.write_text("1")
    recipe = Recipe.of(params, [data, absent], ALONE)
    assert recipe.parts["train.lr"] == str(params.train.lr)
    assert recipe.parts["encoders.gnn"] == "true"
    assert {str(data), "the code", "torch", "numpy"} <= recipe.parts.keys()
    assert str(absent) not in recipe.parts
    assert not any(name.startswith(("embed", "graph", "evaluate")) for name in recipe.parts)
    data.write_text("2")
    assert recipe.changes(Recipe.of(params, [data, absent], Team(1, 2))) == sorted([str(data), "processes"])


def test_recipes_differ_in_what_was_changed() -> None:
    changed = Recipe({**RECIPE.parts, "train.lr": "0.2", "data/tiny/graph/manifest.json": "ab"})
    assert RECIPE.changes(changed) == ["data/tiny/graph/manifest.json", "train.lr"]
    assert RECIPE.name != changed.name
    assert Recipe.from_json(RECIPE.to_json()) == RECIPE
    assert json.loads(RECIPE.to_json()) == RECIPE.parts
