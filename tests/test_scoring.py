"""Scoring all at once: the same as scoring one impression after the other."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small import behave, plugins, world
from test_recommender import OFFERS, broken

from newsfuse import scoring
from newsfuse.assembly import Architecture
from newsfuse.errors import PluginError
from newsfuse.plugin import Encoder
from newsfuse.recommender import Recommender
from newsfuse.scoring import Scorer, score

MOST = 3
"""Clicks of a history that are read."""
IMPRESSIONS = [
    ([0, 1, 2, 4, 6], [(5, 0), (6, 1), (7, 0)]),
    ([], [(1, 1), (2, 0)]),
    ([3], [(8, 0), (-1, 1), (0, 0), (-1, 0)]),
    ([0, 1, 2, 4, 6], [(9, 0)]),
    ([10, 11], [(5, 0), (5, 1)]),
]


def recommender(*encoders: str, fusion: str = "attention") -> Recommender:
    torch.manual_seed(0)
    architecture = Architecture(encoders or ("llm",), fusion, "attention", 16, 0.2, 5, {})
    model = architecture.build(plugins(), world().train)
    with torch.no_grad():
        for parameter in model.parameters():  # as training would: an untrained attention is a plain mean
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


@torch.inference_mode()
def one_by_one(model: Recommender, impressions: list[tuple[list[int], list[tuple[int, int]]]]) -> np.ndarray:
    """Each impression by itself, its history latest first, without padding."""
    model.eval()
    scores = []
    for history, shown in impressions:
        latest = history[::-1][:MOST]
        articles = model.articles(torch.tensor([*(latest or [0]), *(max(article, 0) for article, _ in shown)]))
        width = max(1, len(latest))
        user = model.users(articles[None, :width], torch.full((1, width), bool(latest)))
        of_shown = (model.log_scale.exp() * articles[width:] @ user[0]).tolist()
        scores += [found if article >= 0 else np.nan for found, (article, _) in zip(of_shown, shown, strict=True)]
    return np.array(scores)


@pytest.mark.parametrize("encoders", [["llm"], plugins().names(Encoder)], ids="+".join)
def test_scores_equal_those_of_a_loop_over_impressions(encoders: list[str]) -> None:
    model = recommender(*encoders)
    found = score(model, behave(*IMPRESSIONS), MOST).candidates
    np.testing.assert_allclose(found, one_by_one(model, IMPRESSIONS), rtol=1e-4, atol=1e-5)


def test_how_much_is_scored_at_once_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = recommender()
    at_once = score(model, behave(*IMPRESSIONS), MOST).candidates
    monkeypatch.setattr(scoring, "ARTICLES", 4)
    monkeypatch.setattr(scoring, "VALUES", 64)
    monkeypatch.setattr(scoring, "IMPRESSIONS", 2)
    np.testing.assert_allclose(score(model, behave(*IMPRESSIONS), MOST).candidates, at_once, rtol=1e-5)


def test_every_known_candidate_has_a_score_and_no_other() -> None:
    behaviors = behave(*IMPRESSIONS)
    found = score(recommender(), behaviors, MOST).candidates
    assert found.shape == behaviors.candidate_news.shape
    assert (np.isnan(found) == (behaviors.candidate_news < 0)).all()


def test_impressions_are_scored_apart() -> None:
    model, order = recommender("id", "llm"), np.array([3, 1, 4, 0, 2])
    behaviors = behave(*IMPRESSIONS)
    parts = np.split(score(model, behaviors, MOST).candidates, behaviors.candidate_offsets[1:-1])
    shuffled = score(model, behaviors.take(order), MOST).candidates
    np.testing.assert_allclose(shuffled, np.concatenate([parts[row] for row in order]), rtol=1e-5)


@pytest.mark.parametrize("shown", [[(-1, 1), (3, 0)], [(4, 1)]])
def test_users_without_any_history_are_scored(shown: list[tuple[int, int]]) -> None:
    behaviors = behave(([], shown), ([], shown))
    found = score(recommender("id", "llm"), behaviors, MOST).candidates
    assert (np.isnan(found) == (behaviors.candidate_news < 0)).all()


def test_impressions_of_unknown_articles_alone_have_no_scores() -> None:
    found = score(recommender("id", "llm"), behave(([], [(-1, 1), (-1, 0)])), MOST)
    assert np.isnan(found.candidates).all()


def test_a_scorer_encodes_articles_once_for_any_impressions(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = recommender("id", "llm"), []
    views = model.views

    def counted(news: torch.Tensor) -> torch.Tensor:
        asked.append(len(news))
        return views(news)

    monkeypatch.setattr(model, "views", counted)
    scorer = Scorer.of(model, np.arange(12), MOST, shown=np.zeros(0, np.int64))
    parts = [scorer.candidates(behave(impression)) for impression in IMPRESSIONS]
    assert asked == [12]
    np.testing.assert_allclose(np.concatenate(parts), one_by_one(recommender("id", "llm"), IMPRESSIONS), atol=1e-5)


def test_a_user_encoder_sees_zeros_where_there_is_no_click(monkeypatch: pytest.MonkeyPatch) -> None:
    model = recommender()
    users, cells = model.users, []

    def seen(history: torch.Tensor, clicked: torch.Tensor) -> torch.Tensor:
        cells.append((history[~clicked], history[clicked]))
        return users(history, clicked)

    monkeypatch.setattr(model, "users", seen)
    score(model, behave(*IMPRESSIONS), MOST)
    assert sum(len(without) for without, _ in cells) > 0
    assert all((without == 0).all() and within.any(dim=1).all() for without, within in cells)


def test_histories_of_like_length_are_encoded_together() -> None:
    counts = np.array([1, 5, 0, 6, 6, 2, 1, 12, 30])
    groups = [counts[part].tolist() for part in scoring.alike(counts, 12)]
    assert groups == [[30], [12], [6, 6], [5, 2], [1, 1, 0]]
    assert sorted(np.concatenate(list(scoring.alike(counts, 12))).tolist()) == list(range(9))


def test_only_the_latest_clicks_are_read() -> None:
    model, shown = recommender(), [(5, 0), (6, 1)]
    whole, latest = behave(([9, 8, 0, 1, 2], shown)), behave(([0, 1, 2], shown))
    np.testing.assert_array_equal(score(model, whole, MOST).candidates, score(model, latest, MOST).candidates)
    assert not np.array_equal(score(model, whole, 5).candidates, score(model, latest, 5).candidates)


def test_scoring_leaves_dropout_out() -> None:
    model, behaviors = recommender("id", "llm").train(), behave(*IMPRESSIONS)
    first, second = (score(model, behaviors, MOST).candidates for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_weights_are_means_over_the_candidates() -> None:
    model = recommender("id", "llm")
    found = score(model, behave(*IMPRESSIONS), MOST).weights
    with torch.inference_mode():
        weights = model.weights(model.views(torch.tensor([0, 1, 2, 5, 6, 7, 8, 9])))
    assert weights is not None
    assert found == pytest.approx(dict(zip(["id", "llm"], weights.mean(dim=0).tolist(), strict=True)))


def test_a_fusion_without_weights_has_none() -> None:
    assert score(recommender("id", "llm", fusion="concat"), behave(*IMPRESSIONS), MOST).weights == {}


@pytest.mark.parametrize("kind", OFFERS)
def test_a_plugin_that_returns_nan_is_named_and_does_not_pass_for_an_unknown_article(kind: str, tmp_path: Path) -> None:
    model = broken(tmp_path, kind, "return torch.full((len(x), 16), float('nan'))")
    behaviors = behave(*IMPRESSIONS)
    with pytest.raises(PluginError, match=f"plugins/{kind}s/broken.py: .*returned NaN or infinity"):
        score(model, behaviors, MOST)
