"""What each encoder is worth: weights of groups of articles, and the AUC that goes with its view."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score
from small import behave, plugins
from test_training import SETTINGS
from torch import Tensor, nn

from newsfuse import Fusion, UserEncoder, views
from newsfuse.behaviors import Behaviors
from newsfuse.evaluation import Evaluation
from newsfuse.explanation import Explanation, explain
from newsfuse.ranking import unknown_last
from newsfuse.recommender import Recommender
from newsfuse.scoring import score
from newsfuse.training import Trainer
from newsfuse.views import Views

ARTICLES, DIM, HISTORY = 400, 256, 20
FUSIONS, USER_ENCODERS = (plugins().names(kind) for kind in (Fusion, UserEncoder))
SEEN = np.arange(ARTICLES) % 5 > 0
NEWS = pl.DataFrame([(f"N{row:03}", f"c{row % 3}") for row in range(ARTICLES)], ["id", "category"], orient="row")
IMPRESSIONS = [
    ([], [(1, 1), (2, 0), (3, 0)]),
    ([0, 4], [(5, 0), (1, 1), (2, 0), (-1, 0)]),
    ([0, 4, 6, 7, 8, 9, 10], [(2, 1), (5, 0), (11, 0), (12, 1)]),
    ([3], [(-1, 1), (13, 0), (14, 1), (13, 0), (-1, 0)]),
    (list(range(21)), [(15, 0), (2, 1)]),
    ([0, 4], [(16, 0), (17, 0)]),
    (list(range(20)), [(2, 0), (17, 1), (18, 0)]),
]


class Table(nn.Module):
    """An encoder that says of each article what the table says."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Buffer(vectors)
        self.asked = 0

    def forward(self, news: Tensor) -> Tensor:
        self.asked += 1
        return self.vectors[news]


def tastes() -> Tensor:
    """The parity of an article's row, and a little of something else."""
    vectors = 0.02 * noise(1)
    vectors[torch.arange(ARTICLES), torch.arange(ARTICLES) % 2] += 1
    return vectors


def noise(seed: int = 0) -> Tensor:
    return torch.randn(ARTICLES, DIM, generator=torch.Generator().manual_seed(seed))


def recommender(
    fusion: str, start: Sequence[float], encoders: Mapping[str, Tensor], *, user_encoder: str = "mean"
) -> Recommender:
    """Untrained: the fusion's weights are `start`, if it has weights and they can be set."""
    torch.manual_seed(0)
    width = DIM * len(encoders) if plugins().load(Fusion, fusion).wide else DIM
    parts: list[Any] = []
    for kind, name, *arguments in ((Fusion, fusion, DIM, start), (UserEncoder, user_encoder, width, HISTORY)):
        plugin: Any = plugins().load(kind, name)  # type: ignore[type-var]  # of either kind
        parts.append(plugin.build(*arguments, plugin.params()))
    tables = {name: Table(vectors) for name, vectors in encoders.items()}
    origins = {name: f"{name}.py" for name in ("fusion", "user_encoder", *encoders)}
    return Recommender(tables, *parts, dim=DIM, width=width, dropout=0.1, origins=origins)


def with_noise(fusion: str, weight: float) -> Recommender:
    """A useful encoder, and one that says nothing: a random vector for each article, always the same."""
    return recommender(fusion, [weight, 1 - weight], {"noise": noise(), "tastes": tastes()})


def shaken(fusion: str, **encoders: Tensor) -> Recommender:
    """As after training: an untrained fusion weighs all articles alike."""
    model = recommender(fusion, [1 / len(encoders)] * len(encoders), encoders)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def planted(impressions: int, seed: int, rows: np.ndarray) -> Behaviors:
    """Users read articles of one parity, of the first half; of six others one is clicked, more often of that parity."""
    rng, (early, late) = np.random.default_rng(seed), np.split(rows, 2)
    lists = []
    for like in rng.integers(2, size=impressions):
        shown = rng.choice(late, 6, replace=False)
        chance = np.where(shown % 2 == like, 4.0, 1.0)
        clicked = np.arange(6) == rng.choice(6, p=chance / chance.sum())
        read = rng.choice(early[early % 2 == like], HISTORY, replace=False)
        lists.append((read.tolist(), list(zip(shown.tolist(), clicked.astype(int).tolist(), strict=True))))
    return behave(*lists)


DEV = planted(400, 3, np.arange(200, 400))


def explained(model: Recommender, behaviors: Behaviors, *, drop_unknown: bool = False) -> Explanation:
    return of(model, evaluation(model, behaviors, drop_unknown=drop_unknown))


def of(model: Recommender, evaluation: Evaluation) -> Explanation:
    return explain(Views.of(model, evaluation.behaviors.mentioned()), evaluation, HISTORY)


def evaluation(model: Recommender, behaviors: Behaviors, *, drop_unknown: bool = False) -> Evaluation:
    return Evaluation(behaviors, score(model, behaviors, HISTORY).candidates, SEEN, NEWS, drop_unknown=drop_unknown)


def lost(explanation: Explanation, encoder: str) -> tuple[float, float, float]:
    return explanation.lost.filter(encoder=encoder).select("low", "auc_lost", "high").row(0)


# --- what is lost


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("weight", [0.05, 0.5, 0.8])
def test_an_encoder_of_noise_loses_nothing_whatever_its_weight(fusion: str, weight: float) -> None:
    found = explained(with_noise(fusion, weight), DEV)
    if fusion in {"attention", "gate", "late"}:
        assert found.metrics["weight_noise"] == pytest.approx(weight, abs=1e-5)
    low, _, high = lost(found, "noise")
    assert low <= 0 <= high
    assert high - low < 0.1
    assert lost(found, "tastes")[0] > 0.05


@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_encoder_of_noise_loses_nothing_after_training(fusion: str) -> None:
    """Not even of a model that is kept for what it knows by heart: its own articles are told apart by noise too."""
    model, lessons = with_noise(fusion, 0.2), planted(150, 1, np.arange(200))
    settings = SETTINGS.model_copy(update={"epochs": 2, "batch_size": 32, "lr": 0.003})
    assert Trainer(model, lessons, lessons, settings, history=HISTORY, seed=0).fit(lambda _: None).number > 0
    found = explained(model, DEV)
    low, _, high = lost(found, "noise")
    assert low <= 0 <= high
    assert lost(found, "tastes")[0] > 0.05


def test_an_encoder_of_noise_that_drowns_the_others_loses_less_than_nothing() -> None:
    assert lost(explained(with_noise("attention", 0.95), DEV), "noise")[2] < 0


@pytest.mark.parametrize("user_encoder", USER_ENCODERS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_without_its_only_encoder_a_model_ranks_nothing(fusion: str, user_encoder: str) -> None:
    model, some = recommender(fusion, [1], {"tastes": tastes()}, user_encoder=user_encoder), DEV.take(np.arange(60))
    found = explained(model, some).metrics["lost_tastes"]
    assert found == pytest.approx(by_loop(model, some)[0] - 0.5, abs=1e-6)
    assert found > 0.1


@pytest.mark.parametrize("fusion", FUSIONS)
def test_without_its_only_encoder_a_model_has_one_vector_for_all_articles(fusion: str) -> None:
    """To the last bit, since a tie is none otherwise; on two threads a product of matrices has two ways of rounding."""
    model, threads = shaken(fusion, tastes=tastes()), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for n in range(1, 12):
            articles = Views.of(model, np.arange(n)).scorer_without("tastes", HISTORY).articles
            assert (articles == articles[0]).all()
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def by_loop(model: Recommender, behaviors: Behaviors, *, without: int | None = None, drop: bool = False) -> list[float]:
    """The AUC's mean, and that of each impression: one after the other, by scikit-learn."""
    model.eval()
    rows = behaviors.mentioned()
    said = model.views(torch.from_numpy(rows))
    if without is not None:
        said[:, without] = said[:, without].double().mean(dim=0).float()
    articles = dict(zip(rows.tolist(), torch.stack([model.fuse(each[None])[0] for each in said]), strict=True))
    aucs = []
    for row, (first, last) in enumerate(pairwise(behaviors.candidate_offsets)):
        number = behaviors.history[row]
        bounds = slice(*behaviors.history_offsets[number : number + 2])
        read = [articles[each] for each in behaviors.history_news[bounds].tolist()[::-1][:HISTORY]]
        clicked = torch.full((1, max(1, len(read))), bool(read))
        user = model.users(torch.stack(read or [model.newcomer])[None], clicked)[0]
        shown, labels = behaviors.candidate_news[first:last], behaviors.labels[first:last]
        scores = np.array([float(articles[each] @ user) if each >= 0 else np.nan for each in shown.tolist()])
        kept = ~np.isnan(scores) if drop else np.ones(len(scores), dtype=bool)
        if len(set(labels[kept])) == 2:
            aucs.append(float(roc_auc_score(labels[kept], unknown_last(scores[kept]))))
    return [float(np.mean(aucs)), *aucs]


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_is_lost_is_that_of_a_loop_over_impressions(fusion: str, *, drop: bool) -> None:
    behaviors = behave(*IMPRESSIONS)
    model = shaken(fusion, first=noise(5), second=noise(6), third=noise(7))
    found, whole = explained(model, behaviors, drop_unknown=drop), by_loop(model, behaviors, drop=drop)[0]
    expected = [whole - by_loop(model, behaviors, without=number, drop=drop)[0] for number in range(3)]
    assert found.lost["encoder"].to_list() == ["first", "second", "third"]
    assert found.lost["auc_lost"].to_list() == pytest.approx(expected, abs=1e-6)
    assert any(expected)


def test_how_much_is_fused_at_once_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = shaken("attention", noise=noise(), tastes=tastes())
    at_once = explained(model, DEV)
    monkeypatch.setattr(views, "FUSED", 7)
    monkeypatch.setattr(views, "ARTICLES", 11)
    parts = explained(model, DEV)
    assert parts.metrics == pytest.approx(at_once.metrics, abs=2e-6)


def test_no_encoder_is_run_again_for_another() -> None:
    model = shaken("attention", noise=noise(), tastes=tastes())
    dev = evaluation(model, DEV)
    tables: list[Any] = list(model.encoders.values())
    before = [table.asked for table in tables]
    of(model, dev)
    assert [table.asked - once for table, once in zip(tables, before, strict=True)] == [1, 1]


def test_dropout_takes_no_part() -> None:
    model = shaken("attention", noise=noise(), tastes=tastes())
    dev = evaluation(model, DEV)
    first, second = (of(model.train(), dev) for _ in range(2))
    assert first.metrics == second.metrics


# --- weights


def test_weights_are_means_over_groups_of_articles() -> None:
    """Against a loop; those of a length of history count an article as often as it was shown."""
    behaviors, model = behave(*IMPRESSIONS), shaken("attention", first=noise(5), second=noise(6))
    with torch.inference_mode():
        of = cast("Tensor", model.weights(model.views(torch.arange(20)))).tolist()
    members: dict[tuple[str, str], Counter[int]] = {}
    for read, shown in IMPRESSIONS:
        length = "0" if not read else "1-5" if len(read) < 6 else "6-20" if len(read) < 21 else "21+"
        for article in [article for article, _ in shown if article >= 0]:
            members.setdefault(("history", length), Counter())[article] += 1
            kinds = {"all": "all", "category": f"c{article % 3}", "warm": "warm" if article % 5 else "cold"}
            for group in kinds.items():
                members.setdefault(group, Counter())[article] = 1
    found = {row[:3]: row[3:] for row in explained(model, behaviors).weights.iter_rows()}
    assert len(found) == 2 * len(members)
    for group, counted in members.items():
        mean = np.average([of[article] for article in counted], axis=0, weights=list(counted.values()))
        for number, encoder in enumerate(("first", "second")):
            assert found[encoder, *group] == (pytest.approx(mean[number], abs=1e-6), len(counted))


@pytest.mark.parametrize("fusion", [name for name in FUSIONS if name != "concat"])
def test_weights_of_every_article_and_group_sum_to_one(fusion: str) -> None:
    found = explained(shaken(fusion, noise=noise(), tastes=tastes(), other=noise(2)), DEV)
    of_articles = found.articles.select(pl.sum_horizontal(pl.col("^weight_.*$"))).to_series()
    of_groups = found.weights.group_by("group", "value").agg(pl.col("weight").sum())["weight"]
    assert of_articles.to_list() == pytest.approx([1] * len(of_articles))
    assert of_groups.to_list() == pytest.approx([1] * len(of_groups), abs=2e-6)
    assert len(of_groups) == 7


def test_the_weight_in_metrics_is_that_of_the_evaluation() -> None:
    model, behaviors = shaken("gate", first=noise(5), second=noise(6)), behave(*IMPRESSIONS)
    known = score(model, behaviors, HISTORY).weights
    metrics = explained(model, behaviors).metrics
    assert {name: metrics[f"weight_{name}"] for name in known} == pytest.approx(known, abs=1e-6)


def test_groups_are_in_an_order_to_read_them_in() -> None:
    found = explained(shaken("late", tastes=tastes()), behave(*IMPRESSIONS)).weights
    assert found.select("group", "value").rows() == [
        ("all", "all"),
        *(("category", value) for value in ("c0", "c1", "c2")),
        *(("warm", value) for value in ("cold", "warm")),
        *(("history", value) for value in ("0", "1-5", "6-20", "21+")),
    ]


def test_a_fusion_without_weights_says_so(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.INFO):
        found = explained(with_noise("concat", 0.5), DEV)
    assert "fusion.py has no weights to show" in caplog.text
    assert set(found.metrics) == {"lost_noise", "lost_tastes"}
    assert found.articles.columns == ["news", "category", "warm", "shown"]
    found.write(tmp_path)
    assert (tmp_path / "weights.csv").read_text() == "encoder,group,value,weight,articles\n"


# --- tables


def test_articles_are_those_that_were_shown() -> None:
    behaviors, model = behave(*IMPRESSIONS), shaken("attention", first=noise(5), second=noise(6))
    found = explained(model, behaviors).articles
    shown = Counter(article for _, candidates in IMPRESSIONS for article, _ in candidates if article >= 0)
    expected = [(f"N{row:03}", f"c{row % 3}", row % 5 > 0, shown[row]) for row in sorted(shown)]
    assert found.select("news", "category", "warm", "shown").rows() == expected
    with torch.inference_mode():
        weights = cast("Tensor", model.weights(model.views(torch.tensor(sorted(shown)))))
    np.testing.assert_allclose(found.select("weight_first", "weight_second").to_numpy(), weights, atol=1e-6)


def test_articles_without_a_category_are_a_group_without_a_name() -> None:
    nameless = NEWS.with_columns(category=pl.col("category").replace("c1", ""))
    model, behaviors = shaken("attention", noise=noise(), tastes=tastes()), behave(*IMPRESSIONS)
    found = of(model, replace(evaluation(model, behaviors), news=nameless))
    assert set(found.articles["category"]) == {None, "c0", "c2"}
    assert set(found.weights.filter(group="category")["value"]) == {None, "c0", "c2"}


def test_text_of_the_data_does_no_harm_in_a_plot(tmp_path: Path) -> None:
    """The same category is still itself in the table of articles."""
    category = '</script>, "x"'
    hostile = NEWS.with_columns(category=pl.lit(category))
    model, behaviors = shaken("attention", noise=noise(), tastes=tastes()), behave(*IMPRESSIONS)
    found = of(model, replace(evaluation(model, behaviors), news=hostile))
    found.write(tmp_path)
    assert "<" not in (tmp_path / "weights.csv").read_text()
    written = pl.read_csv(tmp_path / "weights.csv").filter(group="category")["value"].unique().item()
    assert json.loads(f'"{written}"') == category
    assert found.articles["category"].unique().to_list() == [category]


def test_tables_are_written_as_they_are(tmp_path: Path) -> None:
    found = explained(shaken("attention", noise=noise(), tastes=tastes()), behave(*IMPRESSIONS))
    found.write(tmp_path / "plots")
    for name, table in (("weights", found.weights), ("lost", found.lost)):
        written = pl.read_csv(tmp_path / "plots" / f"{name}.csv", schema=table.schema)
        assert written.equals(table)


@pytest.mark.parametrize("shown", [[(-1, 1), (-1, 0)], [(4, 1)]])
def test_what_is_not_defined_is_in_no_metric(shown: list[tuple[int, int]]) -> None:
    """Without a known candidate there are no weights, and without an unclicked one there is no AUC."""
    found = explained(shaken("attention", first=noise(5), second=noise(6)), behave(([], shown)), drop_unknown=True)
    assert found.lost["auc_lost"].to_list() == [None, None]
    assert set(found.metrics) == ({"weight_first", "weight_second"} if shown[0][0] >= 0 else set())
