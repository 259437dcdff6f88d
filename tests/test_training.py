"""Training: it learns what is there to learn, keeps the best epoch, and repeats itself."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from small import behave, plugins
from test_recommender import broken
from torch import Tensor

from newsfuse import Inputs, Need, Vocabulary
from newsfuse.assembly import Architecture
from newsfuse.behaviors import Behaviors
from newsfuse.errors import NewsfuseError, PluginError
from newsfuse.params import Train
from newsfuse.ranking import ranking
from newsfuse.recommender import Recommender
from newsfuse.scoring import score
from newsfuse.split import split
from newsfuse.training import Epoch, Fit, Trainer

ARTICLES, WIDTH, HISTORY = 120, 8, 4
SETTINGS = Train(epochs=4, batch_size=16, lr=0.02, weight_decay=0.0, negatives=3, clip_norm=1.0, patience=4)


def planted(impressions: int, seed: int, *, against: bool = False) -> Behaviors:
    """Users click articles whose first feature has the sign that their history has; `against`: the other sign."""
    rng = np.random.default_rng(seed)
    likes = rng.integers(2, size=impressions)
    rows = np.arange(ARTICLES)
    lists = []
    for like in likes:
        liked, other = rows[rows % 2 == like], rows[rows % 2 != like]
        shown = rng.permutation([*rng.choice(liked, 1), *rng.choice(other, 5, replace=False)])
        clicked = (shown % 2 == like) != against
        lists.append(
            (rng.choice(liked, HISTORY).tolist(), list(zip(shown.tolist(), clicked.astype(int).tolist(), strict=True)))
        )
    return behave(*lists)


def inputs() -> Inputs:
    """The first of eight features is the parity of the article's row; the others are noise, and louder."""
    vectors = torch.randn(ARTICLES, WIDTH, generator=torch.Generator().manual_seed(0))
    vectors[:, 0] = torch.arange(ARTICLES) % 2 - 0.5
    return Inputs(ARTICLES, {Need.EMBEDDINGS: vectors, Need.SEEN: Vocabulary(torch.arange(ARTICLES) + 1, ARTICLES + 1)})


def recommender(*encoders: str, seed: int = 0) -> Recommender:
    torch.manual_seed(seed)
    architecture = Architecture(encoders or ("llm",), "attention", "attention", WIDTH, 0.1, HISTORY, {})
    return architecture.build(plugins(), inputs())


def trainer(model: Recommender, *, seed: int = 0, against: bool = False, **settings: Any) -> Trainer:  # noqa: ANN401 - of Train
    wanted = SETTINGS.model_copy(update=settings)
    return Trainer(model, planted(200, 1), planted(60, 2, against=against), wanted, history=HISTORY, seed=seed)


def weights(model: Recommender) -> bytes:
    return save({name: each.contiguous() for name, each in model.state_dict().items()})


class Log(list[Epoch]):
    """Reported epochs, with the weights that the model had at each."""

    def __init__(self, model: Recommender) -> None:
        super().__init__()
        self.model, self.weights = model, list[bytes]()

    def __call__(self, epoch: Epoch) -> None:
        self.append(epoch)
        self.weights.append(weights(self.model))


# --- it learns


def test_training_finds_the_feature_that_decides() -> None:
    model, epochs = recommender(), list[Epoch]()
    best = trainer(model).fit(epochs.append)
    assert epochs[0].validation_auc < 0.8
    assert best.validation_auc > epochs[0].validation_auc + 0.15
    assert best.validation_auc > 0.95
    assert best.validation.loss < epochs[0].validation.loss
    trained = [epoch.train.loss for epoch in epochs if epoch.train]
    assert trained == sorted(trained, reverse=True)


def test_the_reported_auc_is_that_of_the_kept_model_on_validation() -> None:
    model = recommender()
    best = trainer(model).fit(lambda _: None)
    validation = planted(60, 2)
    scores = score(model, validation, HISTORY).candidates
    assert ranking(scores, validation.labels, validation.candidate_offsets).means()["auc"] == best.validation_auc


def test_fits_are_means_over_clicks() -> None:
    """Of the untrained model, against a plain loop; every impression has one click and three other articles."""
    full = planted(20, 3)
    cells = (full.candidate_offsets[:-1, None] + np.arange(6)).ravel()
    one, others = (
        np.flatnonzero(full.labels[cells] == label).reshape(20, -1)[:, :count] for label, count in ((1, 1), (0, 3))
    )
    kept = np.sort(np.concatenate([one, others], axis=1), axis=1).ravel()
    small = replace(
        full, candidate_offsets=np.arange(21) * 4, candidate_news=full.candidate_news[kept], labels=full.labels[kept]
    )
    model = recommender()
    reported = list[Epoch]()
    Trainer(model, planted(10, 1), small, SETTINGS.model_copy(update={"epochs": 0}), history=HISTORY, seed=0).fit(
        reported.append
    )
    scores = score(model, small, HISTORY).candidates.reshape(20, 4)
    labels = small.labels.reshape(20, 4) == 1
    clicked, rest = scores[labels][:, None], scores[~labels].reshape(20, 3)
    losses = np.log(np.exp(scores).sum(axis=1)) - clicked[:, 0]
    found = reported[0].validation
    assert found.loss == pytest.approx(losses.mean(), rel=1e-4)
    assert found.auc == pytest.approx((rest < clicked).mean())
    assert found.accuracy == pytest.approx((rest < clicked).all(axis=1).mean())


# --- the best epoch


def scripted(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, *aucs: float) -> list[int]:
    """Make `trainer` see these validation AUCs, whatever the model does; the epochs that it asks about."""
    asked: list[int] = []

    def validate(number: int, train: Fit | None, speed: float) -> Epoch:
        asked.append(number)
        return Epoch(number, train, Fit(0, 0, 0), aucs[number], 0, speed, {})

    monkeypatch.setattr(trainer, "_validate", validate)
    return asked


@pytest.mark.parametrize(
    ("aucs", "best"),
    [([0.5, 0.6, 0.7, 0.6], 2), ([0.7, 0.6, 0.5, 0.6], 0), ([0.5, 0.6, 0.7, 0.8], 3), ([0.5, 0.7, 0.6, 0.7], 1)],
)
def test_the_weights_of_the_best_epoch_are_kept(aucs: list[float], best: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = recommender()
    training, log = trainer(model, epochs=3), Log(model)
    scripted(training, monkeypatch, *aucs)
    assert training.fit(log).number == best
    assert weights(model) == log.weights[best]
    assert len(set(log.weights)) == len(aucs)


@pytest.mark.parametrize(
    ("aucs", "patience", "asked"),
    [
        ([0.7, 0.6, 0.8, 0.9], 1, [0, 1]),
        ([0.5, 0.6, 0.6, 0.9], 1, [0, 1, 2]),
        ([0.7, 0.6, 0.8, 0.7, 0.7, 0.9], 2, [0, 1, 2, 3, 4]),
        ([0.5, 0.6, 0.7, 0.8], 1, [0, 1, 2, 3]),
        ([0.7, 0.6, 0.6, 0.8], 3, [0, 1, 2, 3]),
    ],
)
def test_training_stops_after_patience_epochs_without_a_better_one(
    aucs: list[float], patience: int, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = trainer(recommender(), epochs=len(aucs) - 1, patience=patience)
    found = scripted(training, monkeypatch, *aucs)
    training.fit(lambda _: None)
    assert found == asked


def test_training_that_only_hurts_is_undone() -> None:
    """Validation is about the opposite of what training teaches."""
    model = recommender()
    untrained, reported = weights(model), list[Epoch]()
    best = trainer(model, against=True).fit(reported.append)
    assert best.number == 0
    assert len(reported) > 1
    assert weights(model) == untrained


def test_without_epochs_the_model_stays_as_it_is() -> None:
    model = recommender()
    untrained, reported = weights(model), list[Epoch]()
    best = trainer(model, epochs=0).fit(reported.append)
    assert reported == [best]
    assert (best.number, best.train, best.impressions_per_s) == (0, None, 0)
    assert weights(model) == untrained


def test_the_learning_rate_falls_to_zero() -> None:
    reported = list[Epoch]()
    trainer(recommender()).fit(reported.append)
    assert [epoch.learning_rate for epoch in reported] == pytest.approx([0.02, 0.015, 0.01, 0.005, 0], abs=1e-9)


# --- repetition


def trained(*, model_seed: int = 0, seed: int = 0) -> bytes:
    model = recommender("id", "llm", seed=model_seed)
    trainer(model, seed=seed, epochs=1).fit(lambda _: None)
    return weights(model)


def test_one_seed_gives_the_same_bytes_and_another_others() -> None:
    assert trained() == trained()
    assert trained() != trained(seed=1)
    assert trained() != trained(model_seed=1)


def test_validation_does_not_disturb_the_order_of_training() -> None:
    """Validation draws from a generator of its own: how much there is of it changes no lesson."""
    results = []
    for impressions in (30, 60):
        model = recommender()
        log = Log(model)
        Trainer(
            model,
            planted(150, 1),
            planted(impressions, 2),
            SETTINGS.model_copy(update={"epochs": 1}),
            history=HISTORY,
            seed=0,
        ).fit(log)
        results.append(log.weights[1])
    assert results[0] == results[1]


# --- validation


def test_validation_never_contains_training_impressions() -> None:
    behaviors = planted(100, 0)  # an hour apart: five days
    lessons, validation = split(behaviors)
    assert set(lessons.impressions).isdisjoint(validation.impressions)
    assert {*lessons.impressions, *validation.impressions} == set(behaviors.impressions)
    assert lessons.times.max() < validation.times.min()
    assert len(validation) == 4


# --- mishaps


def test_an_encoder_that_returns_nan_is_named(tmp_path: Path) -> None:
    model = broken(tmp_path, "encoder", "return torch.full((len(x), 16), float('nan'), requires_grad=True)")
    with pytest.raises(PluginError, match=r"plugins/encoders/broken\.py: encoder 'broken' returned NaN or infinity"):
        Trainer(model, small_clicks(), small_clicks(), SETTINGS, history=HISTORY, seed=0).fit(lambda _: None)


def test_an_encoder_that_returns_nan_in_training_alone_is_named(tmp_path: Path) -> None:
    body = "return torch.full((len(x), 16), float('nan') if self.training else 1.0, requires_grad=True)"
    model = broken(tmp_path, "encoder", body)
    with pytest.raises(PluginError, match=r"plugins/encoders/broken\.py: encoder 'broken' returned NaN or infinity"):
        Trainer(model, small_clicks(), small_clicks(), SETTINGS, history=HISTORY, seed=0).fit(lambda _: None)


def small_clicks() -> Behaviors:
    return behave(([0], [(1, 1), (2, 0)]), ([3], [(4, 0), (5, 1)]))


def test_a_loss_that_is_no_number_is_told_with_the_learning_rate() -> None:
    model = recommender()
    hook = model.register_forward_hook(lambda _module, _inputs, scores: scores * float("nan"))
    with pytest.raises(NewsfuseError, match=r"the training loss became nan; try a smaller train.lr \(now 0.02\)"):
        trainer(model).fit(lambda _: None)
    hook.remove()


@pytest.mark.parametrize("empty", ["train", "validation"])
def test_nothing_to_learn_from_is_told(empty: str) -> None:
    nothing = behave(([0], [(1, 1)]))  # no unclicked article beside the click
    sets = {"train": planted(10, 1), "validation": planted(10, 2), empty: nothing}
    with pytest.raises(NewsfuseError, match=r"no click to (learn from|validate with): none of 1 impressions"):
        Trainer(recommender(), sets["train"], sets["validation"], SETTINGS, history=HISTORY, seed=0)


def test_batches_of_a_single_click_train() -> None:
    model = recommender()
    reported: list[Epoch] = []
    trainer(model, batch_size=199, epochs=1).fit(reported.append)
    assert reported[1].train is not None
    assert np.isfinite(reported[1].train.loss)


def test_gradients_are_clipped() -> None:
    seen: list[float] = []

    def norm(optimiser: torch.optim.Optimizer, *_: object) -> None:
        gradients: list[Tensor] = [each.grad.flatten() for group in optimiser.param_groups for each in group["params"]]
        seen.append(torch.cat(gradients).norm().item())

    training = trainer(recommender(), clip_norm=0.01, epochs=1)
    training.optimiser.register_step_pre_hook(norm)
    training.fit(lambda _: None)
    assert seen
    assert max(seen) <= 0.01 * 1.001
