"""Training: it learns what is there to learn, keeps the best epoch, and repeats itself."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from sklearn.metrics import log_loss
from small import behave, plugins
from test_recommender import broken
from torch import Tensor
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_pre_hook

from newsfuse import Inputs, Need, Vocabulary, descent
from newsfuse.assembly import Architecture
from newsfuse.behaviors import Behaviors
from newsfuse.epochs import Epoch
from newsfuse.errors import NewsfuseError, PluginError
from newsfuse.fit import Fit
from newsfuse.learning import Learner
from newsfuse.losses import Binary, Softmax
from newsfuse.params import Train
from newsfuse.ranking import ranking
from newsfuse.recommender import Recommender
from newsfuse.scoring import score
from newsfuse.split import split
from newsfuse.study import Pass
from newsfuse.training import Trainer, train
from newsfuse.vocabularies import Vocabularies
from newsfuse.words import Words

ARTICLES, WIDTH, HISTORY = 120, 8, 4
SETTINGS = Train(
    pretrain_epochs=0,
    pretrain_negatives=5,
    epochs=4,
    batch_size=16,
    lr=0.02,
    weight_decay=0.0,
    negatives=3,
    loss="softmax",
    label_smoothing=0.0,
    clip_norm=1.0,
    patience=4,
    precision="float32",
    refit=False,
    processes=1,
)


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


def test_a_click_counts_as_much_as_the_cross_entropy_of_the_articles_that_were_shown() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0], [0.5, 1.0, float("-inf")]])
    expected = [
        functional.cross_entropy(row[None], torch.tensor([0]), label_smoothing=0.1)
        for row in (scores[0], scores[1, :2])
    ]
    assert Softmax(0.1)(scores).item() == pytest.approx(sum(each.item() for each in expected) / 2)
    assert Softmax(0.0)(scores).item() == pytest.approx(
        functional.cross_entropy(scores, torch.zeros(2, dtype=torch.int64)).item()
    )


@pytest.mark.parametrize("name", ["softmax", "binary"])
def test_articles_that_were_not_shown_have_no_gradient(name: str) -> None:
    scores = torch.tensor([[0.5, 1.0, float("-inf")]], requires_grad=True)
    (Softmax(0.3) if name == "softmax" else Binary())(scores).backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert scores.grad[0, 2] == 0


def test_binary_is_the_mean_log_loss_of_the_articles_that_were_shown() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0], [0.5, 1.0, float("-inf")]])
    shown, clicked = np.array([2.0, 1.0, 0.0, 0.5, 1.0]), [1, 0, 0, 1, 0]
    bias = np.log(2 / 3) - shown.mean()  # at which the mean score stands for two clicks in five
    expected = log_loss(clicked, 1 / (1 + np.exp(-shown - bias)))
    lost = Binary()
    lost.start(scores)
    assert lost(scores).item() == pytest.approx(expected)


@pytest.mark.parametrize("lost", [Softmax(0.1), Binary()])
def test_of_a_score_that_is_no_number_the_loss_is_none(lost: torch.nn.Module) -> None:
    assert lost(torch.tensor([[0.0, 1.0], [0.5, float("nan")]])).isnan()


def test_binary_learns_what_is_liked_and_leaves_nothing_of_its_own() -> None:
    model, reported = recommender(), list[Epoch]()
    before = model.state_dict().keys()
    trainer(model, loss="binary", epochs=4).fit(reported.append)
    assert reported[-1].validation_auc > reported[0].validation_auc + 0.1
    assert model.state_dict().keys() == before


def test_smoothed_labels_keep_scores_closer_together() -> None:
    """The reported loss is the plain one, whatever is trained with."""
    sharp, smooth = (trained_epochs(label_smoothing=share)[-1].validation.loss for share in (0.0, 0.5))
    assert smooth > 1.2 * sharp


def trained_epochs(**settings: Any) -> list[Epoch]:  # noqa: ANN401 - of Train
    reported = list[Epoch]()
    trainer(recommender(), **settings).fit(reported.append)
    return reported


# --- pre-training


def test_histories_alone_teach_what_users_like() -> None:
    """All clicks of a history have one sign; what was clicked in impressions is not looked at."""
    model, reported = recommender(), list[Epoch]()
    lessons = replace(planted(200, 1, against=True), users=np.arange(200, dtype=np.int32))
    settings = SETTINGS.model_copy(update={"pretrain_epochs": 4, "epochs": 0})
    best = Trainer(model, lessons, planted(60, 2), settings, history=HISTORY, seed=0).fit(reported.append)
    assert [epoch.course for epoch in reported] == ["", *["histories"] * 4]
    assert [epoch.number for epoch in reported] == list(range(5))
    assert best.validation_auc > reported[0].validation_auc + 0.1
    assert best.validation_auc > 0.9


def test_impressions_follow_the_histories_with_a_learning_rate_of_their_own() -> None:
    reported = trained_epochs(pretrain_epochs=2, epochs=2)
    assert [epoch.course for epoch in reported] == ["", "histories", "histories", "impressions", "impressions"]
    assert [epoch.learning_rate for epoch in reported] == pytest.approx([0.02, 0.01, 0, 0.01, 0], abs=1e-9)


def test_pre_training_that_hurts_is_undone_before_the_impressions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then training begins where it would begin without."""
    model = recommender()
    training, log = trainer(model, pretrain_epochs=2, epochs=1), Log(model)
    scripted(training, monkeypatch, 0.6, 0.5, 0.5, 0.4)
    starts: dict[torch.optim.Optimizer, bytes] = {}

    def remember(optimiser: torch.optim.Optimizer, *_: object) -> None:
        starts.setdefault(optimiser, weights(model))

    hook = register_optimizer_step_pre_hook(remember)
    try:
        assert training.fit(log).number == 0
    finally:
        hook.remove()
    assert list(starts.values()) == [log.weights[0]] * 2
    assert log.weights[2] != log.weights[0]


def test_patience_counts_anew_for_the_impressions(monkeypatch: pytest.MonkeyPatch) -> None:
    training = trainer(recommender(), pretrain_epochs=3, epochs=3, patience=2)
    asked = scripted(training, monkeypatch, *[0.6, 0.5, 0.5, 0.5, 0.5, 0.9])
    reported = list[Epoch]()
    training.fit(reported.append)
    assert asked == [0, 1, 2, 3, 4]
    assert [epoch.course for epoch in reported] == ["", "histories", "histories", "impressions", "impressions"]


def test_nothing_to_pre_train_on_is_told_and_training_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    lessons = behave(([0], [(1, 1), (2, 0)]), ([], [(4, 0), (5, 1)]))
    settings = SETTINGS.model_copy(update={"pretrain_epochs": 2, "epochs": 1})
    reported = list[Epoch]()
    Trainer(recommender(), lessons, small_clicks(), settings, history=HISTORY, seed=0).fit(reported.append)
    assert "nothing to pre-train on: no user comes with a history of two clicks" in caplog.text
    assert [epoch.course for epoch in reported] == ["", "impressions"]


# --- the best epoch


def scripted(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, *aucs: float) -> list[int]:
    """Make `trainer` see these validation AUCs, whatever the model does; the epochs that it asks about."""
    asked: list[int] = []

    def validated(number: int, course: str, passed: Pass | None, taken: dict[str, int]) -> Epoch:
        asked.append(number)
        train, rate, speed = (passed.fit, passed.learning_rate, passed.clicks_per_s) if passed else (None, 0, 0)
        return Epoch(number, course, train, Fit(0, 0, 0), aucs[number], rate, speed, {}, taken)

    monkeypatch.setattr(trainer, "_validated", validated)
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
    assert (best.number, best.train, best.clicks_per_s) == (0, None, 0)
    assert weights(model) == untrained


def test_the_learning_rate_falls_to_zero() -> None:
    reported = list[Epoch]()
    trainer(recommender()).fit(reported.append)
    assert [epoch.learning_rate for epoch in reported] == pytest.approx([0.02, 0.015, 0.01, 0.005, 0], abs=1e-9)


# --- once more, from all days


@pytest.mark.parametrize(
    ("aucs", "taken"),
    [
        ([0.5, 0.6, 0.7, 0.6, 0.8], {"histories": 2, "impressions": 2}),
        ([0.7, 0.6, 0.6, 0.8, 0.6], {"impressions": 1}),
        ([0.5, 0.6, 0.5, 0.6, 0.6], {"histories": 1}),
        ([0.7, 0.6, 0.6, 0.5, 0.6], {}),
    ],
)
def test_the_best_epoch_tells_how_many_of_each_course_led_to_it(
    aucs: list[float], taken: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = trainer(recommender(), pretrain_epochs=2, epochs=2)
    scripted(training, monkeypatch, *aucs)
    assert training.fit(lambda _: None).taken == taken


def test_the_same_epochs_of_the_same_lessons_give_the_same_bytes() -> None:
    model = recommender("id", "llm")
    log = Log(model)
    best = trainer(model, pretrain_epochs=2, epochs=2, lr=0.003).fit(log)
    assert best.taken == {"histories": 2, "impressions": 2}
    wanted = SETTINGS.model_copy(update={"pretrain_epochs": 2, "epochs": 2, "lr": 0.003})
    again = recommender("id", "llm")
    Learner(again, planted(200, 1), wanted, history=HISTORY, seed=0).repeat(best.taken)
    assert weights(again) == weights(model) == log.weights[best.number]


def four_days() -> Behaviors:
    """The fourth validates."""
    behaviors = planted(200, 1)
    days = np.datetime64("2019-11-11T12:00:00") + np.repeat(np.arange(4), 50) * np.timedelta64(1, "D")
    return replace(behaviors, times=days.astype("datetime64[s]"))


@pytest.mark.parametrize("refit", [False, True])
def test_the_model_learns_again_from_all_days_or_stays_with_the_first_three(refit: bool) -> None:  # noqa: FBT001 - the case
    behaviors, asked, reported = four_days(), list[Behaviors](), list[Epoch]()

    def untrained(lessons: Behaviors) -> tuple[Vocabularies, Recommender]:
        asked.append(lessons)
        words = Words.of(str(number) for number in range(len(asked)))
        return Vocabularies(words, words, words, words, words), recommender()

    settings = SETTINGS.model_copy(update={"refit": refit})
    known, model, best = train(untrained, behaviors, settings, history=HISTORY, seed=0, report=reported.append)
    assert [len(each) for each in asked] == [150, 200][: 1 + refit]
    assert len(known.news) == len(asked), "what is known belongs to the model"
    assert best.taken == {"impressions": best.number}
    assert len(reported) == 1 + SETTINGS.epochs, "of the second model there is no figure"
    wanted = recommender()
    Learner(wanted, asked[-1], settings, history=HISTORY, seed=0).repeat(best.taken)
    assert weights(model) == weights(wanted)


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
    behaviors = planted(100, 0)  # an hour apart: four days, and four hours of a fifth
    lessons, validation = split(behaviors)
    assert set(lessons.impressions).isdisjoint(validation.impressions)
    assert {*lessons.impressions, *validation.impressions} == set(behaviors.impressions)
    assert lessons.times.max() < validation.times.min()
    assert len(validation) == 28


# --- speed changes no result


def test_gradients_of_single_rows_train_as_those_of_whole_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against torch's own clipping and a table of zeros at each step; the id of an article is in a table."""
    results = []
    for plain in (False, True):
        model = recommender("id", "llm")
        if plain:
            monkeypatch.setattr(descent, "Gradients", TorchGradients)
        trainer(model, epochs=2, clip_norm=0.5, weight_decay=0.1).fit(lambda _: None)
        results.append(model.state_dict())
    torch.testing.assert_close(*results, rtol=0, atol=1e-3)  # a single step is .02


class TorchGradients:
    def __init__(self, model: Recommender, *, sparse: bool) -> None:  # noqa: ARG002 - as Gradients
        self.model = model

    def clip(self, most: float) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), most)


def test_bfloat16_ranks_as_well_as_float32() -> None:
    models, best = {}, {}
    for precision in ("float32", "bfloat16"):
        models[precision] = recommender()
        best[precision] = trainer(models[precision], precision=precision).fit(lambda _: None)
    assert best["bfloat16"].validation_auc == pytest.approx(best["float32"].validation_auc, abs=0.01)
    assert weights(models["float32"]) != weights(models["bfloat16"])
    assert all(each.dtype == torch.float32 for each in models["bfloat16"].parameters())


def test_training_that_fails_leaves_no_thread() -> None:
    before, model = threading.active_count(), recommender()
    model.register_forward_hook(lambda _module, _inputs, scores: scores * float("nan"))
    with pytest.raises(NewsfuseError):
        trainer(model).fit(lambda _: None)
    assert threading.active_count() == before


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

    hook = register_optimizer_step_pre_hook(norm)
    try:
        trainer(recommender(), clip_norm=0.01, epochs=1).fit(lambda _: None)
    finally:
        hook.remove()
    assert seen
    assert max(seen) <= 0.01 * 1.001
