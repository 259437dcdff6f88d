"""A GPU computes what the CPU does. Where there is none, all of this is tried on a device that stands for one.

`python -m pytest -m gpu` runs what needs CUDA, and test_elsewhere.py the same tests with the name "elsewhere" (see
elsewhere.py), everywhere: those find tensors that were left on the CPU, but not what CUDA's own kernels do otherwise.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from elsewhere import OWN_PROCESS, Memory, Ungraded, elsewhere
from small import behave, plugins
from test_batches import TENSORS

from newsfuse import Encoder, Fusion, UserEncoder
from newsfuse.assembly import Architecture
from newsfuse.batches import Clicks, Histories, Part
from newsfuse.behaviors import Behaviors
from newsfuse.checkpoint import packed
from newsfuse.device import device, seed_everything
from newsfuse.epochs import Epoch
from newsfuse.errors import ParamsError
from newsfuse.learning import Learner
from newsfuse.ondevice import lessons_on
from newsfuse.params import Train
from newsfuse.plugin import Plugin
from newsfuse.ranking import ranking, unknown_last
from newsfuse.recommender import Recommender
from newsfuse.room import rehearse, room
from newsfuse.scoring import score
from newsfuse.study import Place, Study
from newsfuse.testing import modules
from newsfuse.testing.contract import State, examine
from newsfuse.testing.kit import CHECKS
from newsfuse.testing.world import crowd
from newsfuse.training import Trainer
from newsfuse.views import Views

# CUDA says so where it has no algorithm that sums in the same order every time
pytestmark = pytest.mark.filterwarnings("default::UserWarning")

CPU = torch.device("cpu")
ARTICLES, SECTIONS, HISTORY = 300, 17, 10
ALL = ("category", "gnn", "id", "llm")
SETTINGS = {
    "epochs": 2, "batch_size": 32, "lr": 0.003, "negatives": 4, "pretrain_epochs": 1, "pretrain_negatives": 8,
    "weight_decay": 0.01, "loss": "softmax", "label_smoothing": 0.0, "clip_norm": 1.0, "patience": 9,
    "precision": "float32", "refit": False, "processes": 1,
}  # fmt: skip


@pytest.fixture(params=["elsewhere", pytest.param("cuda", marks=pytest.mark.gpu)])
def there(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A device that is not the CPU."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("there is no GPU here")
        yield device()
        return
    if OWN_PROCESS not in os.environ:
        pytest.skip("in a process of its own: tests/test_elsewhere.py")
    monkeypatch.setattr(torch.inference_mode, "__enter__", Ungraded.__enter__)
    monkeypatch.setattr(torch.inference_mode, "__exit__", Ungraded.__exit__)
    yield elsewhere()
    Memory.most = None


@cache
def behaviors(n: int, seed: int) -> Behaviors:
    """Of users who like one section: a click in it, beside articles of any."""
    rng = np.random.default_rng(seed)

    def impression() -> tuple[list[int], list[tuple[int, int]]]:
        liked = np.arange(rng.integers(SECTIONS), ARTICLES, SECTIONS)
        shown = [(int(rng.choice(liked)), 1), *((int(article), 0) for article in rng.integers(0, ARTICLES, 7))]
        return rng.choice(liked, rng.integers(0, 8)).tolist(), shown

    made = behave(*(impression() for _ in range(n)))
    return replace(made, users=np.arange(n, dtype=np.int32) % (n // 2))


def untrained(encoders: tuple[str, ...], where: torch.device) -> Recommender:
    seed_everything(0)
    options = {"gnn": {"fanout": 3, "backend": "torch"}}
    used = {name: options[name] for name in encoders if name in options}
    architecture = Architecture(encoders, "attention", "attention", 16, 0.2, HISTORY, used)
    return architecture.build(plugins(), crowd(ARTICLES)).to(where)


def trained(encoders: tuple[str, ...], where: torch.device, **settings: object) -> tuple[Recommender, list[Epoch]]:
    """A model, and its curve. Dropout is on, that of ids and of neighbours too: it does not depend on the device."""
    model, curve = untrained(encoders, where), list[Epoch]()
    train = Train.model_validate(SETTINGS | settings)
    trainer = Trainer(model, behaviors(160, 0), behaviors(1000, 1), train, history=HISTORY, seed=0)
    courses = trainer.learner.courses
    trainer.learner.courses = tuple(replace(each, lessons=lessons_on(each.lessons, where)) for each in courses)  # type: ignore[assignment]
    trainer.fit(curve.append)
    return model, curve


on_the_cpu = cache(lambda encoders: trained(encoders, CPU))


@pytest.mark.parametrize("encoders", [ALL, *((name,) for name in ALL)], ids="+".join)
def test_the_curves_are_those_of_the_cpu(there: torch.device, encoders: tuple[str, ...]) -> None:
    _, curve = trained(encoders, there)
    _, expected = on_the_cpu(encoders)
    assert [epoch.course for epoch in curve] == ["", "histories", "impressions", "impressions"]
    for found, wanted in zip(curve, expected, strict=True):
        assert found.validation.loss == pytest.approx(wanted.validation.loss, rel=1e-3)
        assert found.validation_auc == pytest.approx(wanted.validation_auc, abs=0.002)
        assert found.weights == pytest.approx(wanted.weights, abs=1e-3)
        if found.train and wanted.train:
            assert found.train.loss == pytest.approx(wanted.train.loss, rel=1e-3)


def test_bfloat16_ranks_as_float32_does(there: torch.device) -> None:
    where = there if there.type == "cuda" else CPU  # PyTorch has no mixed precision for a device written in Python
    _, curve = trained(("category", "llm"), where, precision="bfloat16")
    _, expected = trained(("category", "llm"), CPU)
    assert curve[-1].validation_auc == pytest.approx(expected[-1].validation_auc, abs=0.002)
    assert curve[-1].validation.loss == pytest.approx(expected[-1].validation.loss, rel=0.01)


def test_weights_trained_there_are_saved_as_those_of_the_cpu(there: torch.device) -> None:
    model, _ = trained(("category", "llm"), there)
    assert {each.device for each in model.state_dict().values()} == {there} | {model.newcomer.device}
    home = untrained(("category", "llm"), CPU)
    home.load_state_dict({name: each.cpu() for name, each in model.state_dict().items()})
    assert len(packed(home.state_dict())) == len(packed(untrained(("category", "llm"), CPU).state_dict()))


def test_interrupted_training_goes_on_there(there: torch.device) -> None:
    """A bookmark is read to the CPU, and what AdamW remembers has to be where the parameters are."""
    encoders, settings = ("category", "llm"), Train.model_validate(SETTINGS | {"pretrain_epochs": 2})

    def studied(where: torch.device) -> Study:
        learner = Learner(untrained(encoders, where), behaviors(160, 0), settings, history=HISTORY, seed=0)
        return next(learner.left())[1]

    unbroken, resumed = studied(there), studied(there)
    unbroken.epoch(lambda: None)
    kept = {name: value.detach().cpu().clone() for name, value in unbroken.state().items()}
    resumed.resume(kept, Place(1))
    found, expected = resumed.epoch(lambda: None), unbroken.epoch(lambda: None)
    assert found.fit.loss == pytest.approx(expected.fit.loss, rel=1e-6)


UNEVEN = behave(
    ([5, 22, 39], [(3, 1), (3, 0), (7, 0), (3, 0), (290, 0)]),  # an article is shown more than once
    ([], [(11, 0), (-1, 1), (2, 0)]),  # a user without clicks, and an article that is not known
    ([8], [(4, 1)]),
    ([8], [(-1, 0)]),
)


@pytest.mark.parametrize("encoders", [ALL, ("llm",)], ids="+".join)
@pytest.mark.parametrize("shown", [UNEVEN, behaviors(1000, 1)], ids=["uneven", "many"])
def test_scores_are_those_of_the_cpu(there: torch.device, encoders: tuple[str, ...], shown: Behaviors) -> None:
    model, _ = on_the_cpu(encoders)
    expected = score(model, shown, HISTORY)
    moved = untrained(encoders, there)
    moved.load_state_dict(model.state_dict())
    found = score(moved, shown, HISTORY)
    np.testing.assert_allclose(found.candidates, expected.candidates, rtol=1e-3, atol=1e-3)
    assert found.weights == pytest.approx(expected.weights, abs=1e-4)
    aucs = (
        ranking(unknown_last(each.candidates), shown.labels, shown.candidate_offsets).means()["auc"]
        for each in (found, expected)
    )
    assert next(aucs) == pytest.approx(next(aucs), abs=0.002)


def test_what_each_view_is_worth_is_what_the_cpu_says(there: torch.device) -> None:
    model, _ = on_the_cpu(ALL)
    moved = untrained(ALL, there)
    moved.load_state_dict(model.state_dict())
    shown = behaviors(1000, 1)
    rows, (found, expected) = shown.mentioned(), (Views.of(each, shown.mentioned()) for each in (moved, model))
    np.testing.assert_allclose(found.weights(rows), expected.weights(rows), atol=1e-4)  # type: ignore[arg-type]
    for name in ALL:
        pair = (each.scorer_without(name, HISTORY).candidates(shown) for each in (found, expected))
        np.testing.assert_allclose(next(pair), next(pair), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("lessons", [Clicks.of(behaviors(160, 0)), Histories.of(behaviors(160, 0))], ids=["c", "h"])
@pytest.mark.parametrize("part", [Part(), Part(2, 3)], ids=["whole", "part"])
def test_batches_that_are_assembled_there_are_those_of_numpy(
    there: torch.device, lessons: Clicks | Histories, part: Part
) -> None:
    for key in range(3):
        both = (
            each.batches(20, negatives=6, history=5, key=key, part=part, start=1)
            for each in (lessons_on(lessons, there), lessons)
        )
        for found, expected in zip(*both, strict=True):
            assert found.news.device.type == there.type
            for name in TENSORS:
                assert torch.equal(getattr(found, name).cpu(), getattr(expected, name)), name


MODULES = [(kind, name) for kind in (Encoder, Fusion, UserEncoder) for name in plugins().names(kind)]


@pytest.mark.parametrize(("kind", "name"), MODULES, ids=lambda value: getattr(value, "__name__", value))
def test_every_plugin_keeps_what_the_kit_asks_of_a_gpu(
    there: torch.device, kind: type[Plugin], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(modules, "GPU", str(there))
    (check,) = (each for each in CHECKS[kind] if each.promise == "cpu and cuda agree")
    (result,) = examine(plugins().load(kind, name), [check])
    assert (result.state, result.found) == (State.OK, "")


def little_memory(where: torch.device, rehearsal: Callable[[int], None]) -> None:
    """Let the device have what a batch of 64 takes."""
    if where.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        rehearsal(64)
        total = torch.cuda.get_device_properties(where).total_memory
        torch.cuda.set_per_process_memory_fraction(1.3 * torch.cuda.max_memory_reserved() / total)
    else:
        Memory.most = 64 * HISTORY * 64 * 4  # 64 values for each click that is read


def test_a_batch_that_does_not_fit_is_answered_with_one_that_does(there: torch.device) -> None:
    model = untrained(("category", "llm"), there)
    lessons = lessons_on(Clicks.of(behaviors(4000, 2)), there)

    def rehearsal(n: int) -> None:
        batch = lessons.longest(n, negatives=4, history=HISTORY)
        asked = (batch.news, batch.history, batch.clicked, batch.candidates)
        rehearse(model, lambda: model(*asked).logsumexp(dim=1).sum())

    little_memory(there, rehearsal)
    try:
        answer = pytest.raises(ParamsError, match=r"batch_size: 4000 does not fit .*; \d+ does")
        with answer as caught, room(4000, there, rehearsal):
            rehearsal(4000)
        found = int(str(caught.value).rpartition("=")[2])
        assert 8 < found < 1000
        rehearsal(found)
    finally:
        if there.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_tensor_that_stays_on_the_cpu_is_found(there: torch.device) -> None:
    """Else all of this would say nothing."""
    model = untrained(("llm",), there)
    model.encoders["llm"].table = model.encoders["llm"].table.cpu()
    with pytest.raises(Exception, match=r"(?i)cpu"):
        model(*(torch.zeros(shape, dtype=torch.long).to(there) for shape in ((1,), (1, 1), (1, 1), (1, 1))))
