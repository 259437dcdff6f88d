"""What dev says of a model: MIND's metrics, sliced, and files that agree with them."""

import json
import logging
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from sklearn.metrics import ndcg_score, roc_auc_score
from small import ROOT, behave

from newsfuse import Embedder, Need
from newsfuse.assembly import Artifacts
from newsfuse.behaviors import Behaviors
from newsfuse.evaluation import Evaluation, rounded
from newsfuse.news import News
from newsfuse.params import load
from newsfuse.synth import synth
from newsfuse.vocabularies import Vocabularies
from stages.embed import embed
from stages.evaluate import evaluate
from stages.graph import graph
from stages.train import train

ARTICLES = pl.DataFrame({"news": ["N1"]})
METRICS = ("auc", "mrr", "ndcg5", "ndcg10")
SEEN = np.array([True, False, True, False, True, True])
"""Of articles 0 to 5; an unknown one is never warm."""


CATEGORIES = ["sports", "news", "news", "sports", "", "news"]
NEWS = pl.DataFrame({"id": [f"N{article}" for article in range(6)], "category": CATEGORIES})


def evaluation(behaviors: Behaviors, scores: list[float]) -> Evaluation:
    return Evaluation(behaviors, np.array(scores), SEEN, NEWS, drop_unknown=False)


def measured(evaluation: Evaluation, *, drop_unknown: bool) -> dict[str, float]:
    return rounded(replace(evaluation, drop_unknown=drop_unknown).metrics())


@pytest.fixture
def small() -> Evaluation:
    """Three impressions: of warm and cold articles, of warm ones alone, and one with unknown articles."""
    shown = [
        [(0, 1), (1, 0), (2, 0), (3, 1), (4, 0)],
        [(4, 0), (5, 1), (0, 0)],
        [(-1, 1), (3, 0), (1, 1), (-1, 0), (2, 0)],
    ]
    scores = [0.3, 0.9, 0.1, 0.2, 0.4, 0.5, 0.7, 0.6, np.nan, 0.4, 0.8, np.nan, 0.6]
    return evaluation(behave(*(([], each) for each in shown)), scores)


def by_sklearn(evaluation: Evaluation, keep: np.ndarray) -> dict[str, float]:
    """Means over the impressions in which a metric is defined; unknown candidates rank last."""
    ends = evaluation.behaviors.candidate_offsets
    found: dict[str, list[float]] = {"auc": [], "ndcg5": [], "ndcg10": []}
    scores = np.nan_to_num(evaluation.scores, nan=-1)
    for first, last in pairwise(ends):
        kept = keep[first:last]
        labels, own = evaluation.behaviors.labels[first:last][kept], scores[first:last][kept]
        if 0 < labels.sum() < len(labels):
            found["auc"].append(roc_auc_score(labels, own))
        if labels.any() and len(labels) > 1:
            settled = own + 1e-9 * np.arange(len(own))  # MIND puts the later of two equals first, scikit-learn none
            found["ndcg5"].append(ndcg_score([labels], [settled], k=5))
            found["ndcg10"].append(ndcg_score([labels], [settled], k=10))
        elif labels.any():
            found["ndcg5"].append(1.0)
            found["ndcg10"].append(1.0)
    return {name: float(np.mean(values)) for name, values in found.items() if values}


# --- metrics


def test_metrics_are_flat_and_sorted(small: Evaluation) -> None:
    metrics = measured(small, drop_unknown=False)
    names = {prefix + name for prefix in ("", "warm_", "cold_") for name in METRICS}
    assert list(metrics) == sorted(names | {"impressions", "cold_share", "constant", "pooled_auc", "history_0_auc"})
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


@pytest.mark.parametrize(("prefix", "warm"), [("", (True, False)), ("warm_", (True,)), ("cold_", (False,))])
@pytest.mark.parametrize("drop_unknown", [False, True])
def test_slices_equal_those_of_scikit_learn(
    small: Evaluation, prefix: str, warm: tuple[bool, ...], *, drop_unknown: bool
) -> None:
    keep = np.isin(small.warm, warm) & (small.known | (not drop_unknown))
    metrics = measured(small, drop_unknown=drop_unknown)
    expected = by_sklearn(small, keep)
    assert expected
    assert {name: metrics[prefix + name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_slices_of_the_example_by_hand(small: Evaluation) -> None:
    metrics = measured(small, drop_unknown=False)
    # all: pairs in order (1 + 1) / 6, 2 / 2, (3 + .5) / 6 where two unknown articles tie
    assert metrics["auc"] == pytest.approx((2 / 6 + 1 + 3.5 / 6) / 3, abs=1e-6)
    # warm: article 0 beats 2 but not 4; 5 beats both; the third impression has no warm click
    assert metrics["warm_auc"] == pytest.approx((1 / 2 + 1) / 2, abs=1e-6)
    # cold: article 3 is behind 1; then the unknown click (behind 3, tied), and 1 before both
    assert metrics["cold_auc"] == pytest.approx((0 + 2.5 / 4) / 2, abs=1e-6)
    assert metrics["impressions"] == 3
    assert metrics["cold_share"] == pytest.approx(6 / 13, abs=1e-6)


def test_unknown_candidates_rank_last_or_are_dropped(small: Evaluation) -> None:
    last, drop = (measured(small, drop_unknown=each) for each in (False, True))
    assert last["auc"] == pytest.approx((2 / 6 + 1 + 3.5 / 6) / 3, abs=1e-6)
    assert drop["auc"] == pytest.approx((2 / 6 + 1 + 1) / 3, abs=1e-6)


@pytest.mark.parametrize("drop_unknown", [False, True])
def test_the_table_of_slices_has_the_means_of_whole_impressions(small: Evaluation, *, drop_unknown: bool) -> None:
    table = replace(small, drop_unknown=drop_unknown).slices
    assert table.columns == ["name", "slice", "value", "metric", "mean", "impressions", "candidates"]
    found = table.filter(pl.col("metric") == "auc").drop("name", "metric")
    whole = small.known | (not drop_unknown)
    second, third = np.repeat([[0, 1, 0], [0, 0, 1]], [5, 3, 5], axis=1).astype(bool)
    # of the third, the first click is of an unknown article, so it has no category
    expected = {"all": whole, "hour": whole & third, "category": whole & second}
    for (kind, value), keep in zip(
        [("all", "all"), ("hour", "02"), ("category", "news")], expected.values(), strict=True
    ):
        row = found.row(by_predicate=(pl.col("slice") == kind) & (pl.col("value") == value), named=True)
        assert row["mean"] == pytest.approx(by_sklearn(small, keep)["auc"], abs=1e-6)
        assert row["candidates"] == keep.sum()
        assert row["impressions"] == (3 if kind == "all" else 1)


def test_the_history_of_a_user_slices_whole_impressions() -> None:
    shown = [(0, 1), (4, 0)]
    histories = [0, 1, 5, 6, 20, 21, 80]
    scores = [value for won in (1, 0, 1, 1, 1, 0, 0) for value in (won, 0.5)]
    metrics = measured(evaluation(behave(*(([0] * n, shown) for n in histories)), scores), drop_unknown=False)
    found = {name: value for name, value in metrics.items() if name.startswith("history")}
    assert found == {"history_0_auc": 1, "history_1_5_auc": 0.5, "history_6_20_auc": 1, "history_21_auc": 0}


def test_other_scores_of_the_same_candidates_are_measured_alike(small: Evaluation) -> None:
    same = small.brief({"masked": small.scores, "other": -small.scores})
    metrics = small.metrics()
    assert [same["masked_auc"], same["masked_ndcg10"]] == pytest.approx([metrics["auc"], metrics["ndcg10"]], abs=1e-6)
    expected = measured(replace(small, scores=-small.scores), drop_unknown=False)
    assert rounded(same)["other_auc"] == expected["auc"]
    assert set(same) == {"masked_auc", "masked_ndcg10", "other_auc", "other_ndcg10"}


@pytest.mark.parametrize("drop_unknown", [False, True])
def test_the_pooled_auc_is_that_of_all_candidates_in_one_heap(small: Evaluation, *, drop_unknown: bool) -> None:
    keep = small.known | (not drop_unknown)
    pooled = roc_auc_score(small.behaviors.labels[keep], np.nan_to_num(small.scores, nan=-1)[keep])
    metrics = measured(small, drop_unknown=drop_unknown)
    assert metrics["pooled_auc"] == pytest.approx(pooled, abs=1e-6)
    assert metrics["pooled_auc"] != metrics["auc"]


def test_a_metric_that_is_defined_nowhere_is_left_out() -> None:
    metrics = measured(evaluation(behave(([], [(0, 1), (2, 0)])), [0.2, 0.1]), drop_unknown=False)
    assert metrics["warm_auc"] == metrics["auc"] == 1
    assert not [name for name in metrics if name.startswith("cold_") and name != "cold_share"]


@pytest.mark.parametrize(
    ("scores", "constant"),
    [
        ([0.5, 0.5, 0.1, 0.1], 1),
        ([0.5, 0.5, 0.1, 0.2], 0),
        ([np.nan, np.nan, 0.1, 0.1], 1),
        ([np.nan, 0.1, 0.1, 0.1], 0),
    ],
)
def test_a_model_that_ranks_nothing_is_reported(scores: list[float], constant: int) -> None:
    behaviors = behave(([], [(0, 1), (1, 0)]), ([], [(2, 1), (3, 0)]))
    found = evaluation(behaviors, scores)
    assert found.is_constant is bool(constant)
    assert measured(found, drop_unknown=False)["constant"] == constant


def test_a_constant_model_has_an_auc_of_one_half() -> None:
    rng = np.random.default_rng(0)
    shown = [
        [(int(article), int(label)) for article, label in zip(rng.integers(6, size=9), [1] + [0] * 8, strict=True)]
        for _ in range(30)
    ]
    metrics = measured(evaluation(behave(*(([], each) for each in shown)), [0.0] * 270), drop_unknown=False)
    assert metrics["auc"] == 0.5


# --- files


def predictions(path: Path) -> dict[str, list[int]]:
    lines = (line.split(" ") for line in path.read_text(encoding="utf-8").splitlines())
    return {impression: json.loads(ranks) for impression, ranks in lines}


def test_the_table_has_a_row_for_every_candidate(small: Evaluation, tmp_path: Path) -> None:
    small.write(tmp_path / "predictions", {}, ARTICLES)
    table = pl.read_parquet(tmp_path / "predictions" / "scores.parquet")
    first = ["impression", "user", "news", "clicked", "score", "warm"]
    assert table.columns == [*first, "category", "history", "hour"]
    assert len(table) == len(small.scores)
    third = table.filter(pl.col("impression") == "I2")
    assert third["news"].to_list() == [None, "N3", "N1", None, "N2"]
    assert third["clicked"].to_list() == [1, 0, 1, 0, 0]
    assert third["score"].to_list() == [None, 0.4, 0.8, None, 0.6]
    assert third["warm"].to_list() == [False, False, False, False, True]
    assert third["user"].unique().to_list() == [2]
    assert third["category"].to_list() == [None, "sports", "news", None, "news"]
    assert third["hour"].unique().to_list() == [2]


def test_the_table_has_clicks_before_the_impression_and_its_hour(tmp_path: Path) -> None:
    shown = [(0, 1), (4, 0)]
    behaviors = behave(([], shown), ([3, 1, 3], shown), ([5], shown))
    late = replace(behaviors, times=np.array(["2019-11-15T23:59:59", "1969-12-31T05:00:00", "2019-11-16"], "M8[s]"))
    evaluation(late, [0.0] * 6).write(tmp_path / "predictions", {}, ARTICLES)
    table = pl.read_parquet(tmp_path / "predictions" / "scores.parquet")
    assert table["history"].to_list() == [0, 0, 3, 3, 1, 1]
    assert table["hour"].to_list() == [23, 23, 5, 5, 0, 0]
    assert table["category"].to_list() == ["sports", None] * 3  # an article may have none
    assert table.schema["history"] == pl.Int32
    assert table.schema["hour"] == pl.Int8


def test_ranks_agree_with_scores(small: Evaluation, tmp_path: Path) -> None:
    small.write(tmp_path / "predictions", {}, ARTICLES)
    table = pl.read_parquet(tmp_path / "predictions" / "scores.parquet")
    found = predictions(tmp_path / "predictions" / "prediction.txt")
    assert list(found) == ["I0", "I1", "I2"]
    for impression, ranks in found.items():
        scores = table.filter(pl.col("impression") == impression)["score"].fill_null(-1e9).to_numpy()
        assert sorted(ranks) == list(range(1, len(scores) + 1))
        best_first = scores[np.argsort(ranks)]
        assert (np.diff(best_first) <= 0).all()


def test_ranks_give_the_metrics(small: Evaluation, tmp_path: Path) -> None:
    small.write(tmp_path / "predictions", {}, ARTICLES)
    found = predictions(tmp_path / "predictions" / "prediction.txt")
    from_ranks = [1 / rank for ranks in found.values() for rank in ranks]
    metrics = measured(replace(small, scores=np.array(from_ranks)), drop_unknown=False)
    for name in ("mrr", "ndcg5", "ndcg10"):  # AUC counts ties as half, ranks have none
        assert metrics[name] == measured(small, drop_unknown=False)[name]


def test_the_same_scores_give_the_same_bytes(small: Evaluation, tmp_path: Path) -> None:
    for name in ("once", "again"):
        small.write(tmp_path / name, {}, ARTICLES)
    for path in (tmp_path / "once").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


# --- the whole way, from files to metrics


def project(folder: Path, *, epochs: int = 1, encoders: tuple[str, ...] = ("category", "gnn", "id", "llm")) -> Path:
    """A small project with synthetic data."""
    shutil.copytree(ROOT / "plugins", folder / "plugins", ignore=shutil.ignore_patterns("__pycache__"))
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["encoders"] = {name: name in encoders for name in ("category", "gnn", "id", "llm")}
    params |= {"embed": {**params["embed"], "dimensions": 16}, "model": {"dim": 16, "dropout": 0.1, "history": 10}}
    params["train"] |= {"epochs": epochs, "refit": False}  # what a refit learns from is the training's business
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    synth(folder / "data" / "tiny", news=300, impressions=800)
    return folder


def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """All four stages; what dev says."""
    monkeypatch.chdir(folder)
    for stage in (embed, graph, train, evaluate):
        stage(*load(folder))
    metrics: dict[str, float] = json.loads(
        (folder / "metrics" / "evaluate" / "metrics.json").read_text(encoding="utf-8")
    )
    return metrics


def test_the_order_of_lines_in_news_changes_no_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project(tmp_path)
    before = run(folder, monkeypatch)
    for split, seed in (("train", 1), ("dev", 2)):
        path = folder / "data" / "tiny" / split / "news.tsv"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        np.random.default_rng(seed).shuffle(lines)
        assert path.read_text(encoding="utf-8") != "".join(lines)
        path.write_text("".join(lines), encoding="utf-8")
    assert run(folder, monkeypatch) == before


def test_every_article_of_either_split_gets_the_vector_of_its_own_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project(tmp_path))
    params, registry = load(Path())
    embed(params, registry)
    data = Path("data", "tiny")
    train_file, dev_file = (data / split / "news.tsv" for split in ("train", "dev"))
    corpus = News.read(train_file).texts(params.embed.fields)
    lsa = registry.load(Embedder, "lsa")
    to_vectors: Any = lsa.build(corpus, None, params.embed.dimensions, lsa.params())
    made = Artifacts.read(data, frozenset({Need.EMBEDDINGS}))
    known = Vocabularies.of(News.read(train_file), np.array([0]), None)
    for files in ([train_file], [train_file, dev_file], [dev_file]):
        news = News.read(*files)
        expected = to_vectors(news.texts(params.embed.fields))
        np.testing.assert_allclose(made.inputs(news, known, files).embeddings, expected, atol=1e-6)


def test_texts_that_move_to_other_articles_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrained, the metrics are those of the cosine of texts alone."""
    folder = project(tmp_path, epochs=0, encoders=("llm",))
    right = run(folder, monkeypatch)
    assert right["auc"] > 0.6
    for split in ("train", "dev"):
        path = folder / "data" / "tiny" / split / "news.tsv"
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        titles = [row[3:5] for row in rows]
        np.random.default_rng(0).shuffle(titles)
        shuffled = ["\t".join([*row[:3], *moved, *row[5:]]) + "\n" for row, moved in zip(rows, titles, strict=True)]
        path.write_text("".join(shuffled), encoding="utf-8")
    assert run(folder, monkeypatch)["auc"] < 0.55


def test_warm_articles_are_those_of_the_training_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of the validation day, and no unknown one."""
    folder = project(tmp_path, epochs=0, encoders=("llm",))
    dev = folder / "data" / "tiny" / "dev" / "behaviors.tsv"
    dev.write_text(dev.read_text(encoding="utf-8").replace("\n", " N999999-0\n", 1), encoding="utf-8")
    run(folder, monkeypatch)
    lines = (folder / "data" / "tiny" / "train" / "behaviors.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    days = [int(row[2].split("/")[1]) for row in rows]  # all of one month
    mentioned = {
        article
        for row, day in zip(rows, days, strict=True)
        if day != max(days)
        for article in [*row[3].split(), *(shown[:-2] for shown in row[4].split())]
    }
    table = pl.read_parquet(folder / "data" / "tiny" / "predictions" / "scores.parquet")
    assert table["warm"].to_list() == [article in mentioned for article in table["news"]]
    assert table["warm"].any()
    assert table.filter(pl.col("news").is_null()).select("score", "warm").row(0) == (None, False)


def test_the_stage_tells_of_a_constant_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = project(tmp_path, epochs=0, encoders=("category",))
    encoder = folder / "plugins" / "encoders" / "category.py"
    source = encoder.read_text(encoding="utf-8")
    encoder.write_text(source.replace("[news])", "[0 * news])"), encoding="utf-8")
    assert encoder.read_text(encoding="utf-8") != source
    with caplog.at_level(logging.WARNING, "newsfuse"):
        metrics = run(folder, monkeypatch)
    assert metrics["constant"] == 1
    assert metrics["auc"] == 0.5
    assert "the same score: it ranks nothing" in caplog.text


# --- beside the model


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose model knows articles by name, evaluated."""
    folder = project(tmp_path_factory.mktemp("evaluated"), encoders=("id", "llm"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(folder, monkeypatch)
    return folder


def again(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> dict[str, float]:
    """evaluate alone, with other settings in its section of params.yaml."""
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["evaluate"] |= settings
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    monkeypatch.chdir(folder)
    evaluate(*load(folder))
    metrics: dict[str, float] = json.loads((folder / "metrics/evaluate/metrics.json").read_text(encoding="utf-8"))
    return metrics


def test_hidden_articles_change_the_scores_of_a_model_that_knows_them(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = again(evaluated, monkeypatch, cold_mask=1.0)
    assert metrics["masked_share"] == 1
    assert metrics["masked_auc"] != metrics["auc"]


def test_with_nothing_to_hide_the_masked_metrics_are_the_plain_ones(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = again(evaluated, monkeypatch, cold_mask=0.01)
    assert (metrics["masked_auc"], metrics["masked_ndcg10"]) == (metrics["auc"], metrics["ndcg10"])
    assert metrics["masked_share"] > 0.01  # as many as there are


def test_a_mask_of_nothing_is_not_measured(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [name for name in again(evaluated, monkeypatch, cold_mask=0) if name.startswith("masked")]


def test_baselines_and_lists_stand_beside_the_model(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = again(evaluated, monkeypatch, cold_mask=0.875)
    scorers = ("random", "popularity", "category", "cosine", "masked")
    lists = ("coverage", "diversity", "vector_diversity", "novelty", "popularity_lift", "calibration")
    beside = {f"{name}_{metric}" for name in scorers for metric in ("auc", "ndcg10")} | {f"{name}10" for name in lists}
    assert beside <= set(metrics)
    assert list(metrics) == sorted(metrics)
    assert metrics["random_auc"] == pytest.approx(0.5, abs=0.05)
    assert metrics["cosine_auc"] > 0.6  # planted: words tell the topics that users like


def test_every_metric_is_documented(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    metrics = again(evaluated, monkeypatch, cold_mask=0.875)
    names = {re.sub(r"^(weight|lost)_.+", r"\1_<encoder>", name) for name in metrics}
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_the_stage_writes_slices_that_a_plot_may_show(evaluated: Path) -> None:
    table = pl.read_csv(evaluated / "metrics/evaluate/plots/slices.csv", schema_overrides={"value": pl.String})
    assert table.columns == ["slice", "value", "metric", "mean", "impressions", "candidates"]
    assert table["slice"].unique(maintain_order=True).to_list() == ["all", "article", "history", "category", "hour"]
    assert table["mean"].is_between(0, 1).all()
