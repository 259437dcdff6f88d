"""Everything is joined by id: the order of rows in news.tsv, in the vectors and in behaviors.tsv changes no result."""

import random
import shutil
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from small import ROOT

from newsfuse.artifact import verified
from newsfuse.embeddings import KIND, Embeddings
from newsfuse.params import load
from newsfuse.ranking import ranking
from newsfuse.synth import synth
from newsfuse.words import Words
from stages.embed import embed
from stages.evaluate import evaluate
from stages.graph import graph
from stages.train import train

DATA = Path("data/mine")
SMALL = {"model": {"dim": 16}, "train": {"epochs": 1}, "embed": {"dimensions": 16}}


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    weights: bytes
    scores: dict[tuple[str, str], float]
    """By impression and article."""
    metrics: dict[str, float]
    """Not rounded."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A project of 120 articles with all encoders, and what came of it."""
    root = tmp_path_factory.mktemp("aligned")
    shutil.copytree(ROOT / "plugins", root / "plugins")
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params |= {"dataset": "mine", "encoders": dict.fromkeys(params["encoders"], True)}
    for section, values in SMALL.items():
        params[section] |= values
    params["graph"]["relations"] = ["entity", "category", "co_click"]
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    synth(root / DATA, news=120, impressions=200)
    with chdir(root):
        embed(*load(Path()))
        return root, run()


@pytest.fixture
def before(original: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """What came of the project, of which a copy is now the current folder."""
    shutil.copytree(original[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return original[1]


def run(*, training: bool = True) -> Outcome:
    settings = load(Path())
    if training:
        graph(*settings)
        train(*settings)
    evaluate(*settings)
    table = pl.read_parquet(DATA / "predictions/scores.parquet")
    starts = np.flatnonzero(np.append((table["impression"] != table["impression"].shift()).fill_null(value=True), True))
    scored = zip(table["impression"], table["news"], table["score"], strict=True)
    weights = b"".join(path.read_bytes() for path in sorted((DATA / "model").glob("*.safetensors")))
    metrics = ranking(table["score"].to_numpy(), table["clicked"].to_numpy(), starts).means()
    return Outcome(weights, {(impression, news): score for impression, news, score in scored}, metrics)


def shuffled(*paths: Path) -> None:
    for path in paths:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        order = random.Random(1).sample(lines, len(lines))  # noqa: S311 - a test
        assert order != lines
        path.write_text("".join(order), encoding="utf-8")


def shuffled_news() -> None:
    shuffled(DATA / "train/news.tsv", DATA / "dev/news.tsv")
    embed(*load(Path()))


def shuffled_vectors() -> None:
    folder, read = DATA / "embeddings", Embeddings.read(DATA / "embeddings")
    order = np.random.default_rng(0).permutation(len(read.ids))
    settings = verified(folder, kind=KIND)
    Embeddings(Words(read.ids.words[order]), read.vectors[order].copy(), read.views).write(folder, settings)


def shuffled_entities() -> None:
    shuffled(DATA / "train/entity_embedding.vec", DATA / "dev/entity_embedding.vec")


@pytest.mark.parametrize("shuffle", [shuffled_news, shuffled_vectors, shuffled_entities])
def test_in_another_order_the_same_model_is_learned_and_has_the_same_metrics(
    before: Outcome, shuffle: Callable[[], None]
) -> None:
    shuffle()
    after = run()
    assert before.weights == after.weights != b""
    assert before.scores == after.scores
    assert before.metrics == after.metrics


def test_dev_in_another_order_has_the_same_metrics(before: Outcome) -> None:
    metrics = Path("metrics/evaluate/metrics.json").read_bytes()
    shuffled(DATA / "dev/behaviors.tsv")
    after = run(training=False)
    assert after.scores.keys() == before.scores.keys()
    differences = [abs(score - before.scores[cell]) for cell, score in after.scores.items()]
    assert max(differences) < 1e-6  # float32, in batches of other shapes
    assert after.metrics == pytest.approx(before.metrics, abs=1e-12)
    assert Path("metrics/evaluate/metrics.json").read_bytes() == metrics


def test_the_co_clicks_of_train_in_another_order_are_the_same(before: Outcome) -> None:
    written = []
    for _ in range(2):
        graph(*load(Path()))
        written.append({path.name: path.read_bytes() for path in (DATA / "graph").iterdir()})
        shuffled(DATA / "train/behaviors.tsv")
    assert written[0] == written[1]
