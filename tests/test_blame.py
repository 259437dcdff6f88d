"""What a plugin's code gets wrong while a model is built, trained or scored is told with the plugin's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from small import behave, plugins, world
from test_recommender import ALL as ARTICLES
from test_recommender import CANDIDATES, CLICKED, HISTORY, OFFERS

from newsfuse.assembly import Architecture
from newsfuse.blame import blame
from newsfuse.errors import NewsfuseError, PluginError
from newsfuse.learning import Learner
from newsfuse.params import Train
from newsfuse.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

    from newsfuse.recommender import Recommender

DIM = 16
SOURCE = """\
import sys
import torch
from torch import nn
from newsfuse import Encoder, Fusion, UserEncoder, hookimpl

class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls, self.vector = 0, nn.Parameter(torch.ones(16))

    def forward(self, x, clicked=None):
        self.calls += 1
        {body}
        return self.vector.expand(len(x), -1)

def build(*arguments):
    return {built}

@hookimpl
def newsfuse_{kind}s():
    return [{offer}("mine", build)]
"""
LINE = 13
"""Of the body."""
SETTINGS = Train(
    pretrain_epochs=0, pretrain_negatives=1, epochs=30, batch_size=1, lr=0.01, weight_decay=0, negatives=1,
    loss="softmax", label_smoothing=0, clip_norm=1, patience=1, precision="float32", refit=False, processes=1,
)  # fmt: skip


def model(folder: Path, body: str = "", *, kind: str = "encoder", built: str = "Mine()") -> Recommender:
    """One of sound parts and one that is written here, as plugins/<kind>s/mine.py."""
    for name in ("encoders", "fusions", "user_encoders"):
        (folder / name).mkdir()
        for each in (plugins().folder / name).glob("*.py"):
            (folder / name / each.name).symlink_to(each)
    source = SOURCE.format(body=body or "pass", built=built, kind=kind, offer=OFFERS[kind])
    (folder / f"{kind}s/mine.py").write_text(source, encoding="utf-8")
    chosen = {"encoder": "llm", "fusion": "attention", "user_encoder": "attention", kind: "mine"}
    encoders = tuple(sorted({"category", chosen["encoder"]}))
    architecture = Architecture(encoders, chosen["fusion"], chosen["user_encoder"], DIM, 0.0, 5, {})
    return architecture.build(Registry(folder, {}), world().train)


def learn(model: Recommender, **settings: float) -> None:
    clicks = behave(([0], [(1, 1), (2, 0)]), ([3], [(4, 0), (5, 1)]))
    learner = Learner(model, clicks, SETTINGS.model_copy(update=settings), history=5, seed=0)
    learner.repeat({"impressions": SETTINGS.epochs})


def score(model: Recommender) -> None:
    model(ARTICLES, HISTORY, CLICKED, CANDIDATES)


@pytest.mark.parametrize("kind", OFFERS)
def test_a_forward_that_takes_something_else_is_told_with_its_place(kind: str, tmp_path: Path) -> None:
    mine = model(tmp_path, kind=kind, built="type('Mine', (Mine,), {'forward': lambda self: 1})()")
    with pytest.raises(PluginError) as caught:
        score(mine)
    assert str(caught.value).startswith(f"plugins/{kind}s/mine.py: TypeError: ")
    assert str(caught.value).endswith(f"({tmp_path / f'{kind}s/mine.py'}:17)")


@pytest.mark.parametrize("kind", OFFERS)
def test_a_wrong_shape_is_told_with_the_place_of_forward(kind: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=rf"ValueError: returned shape .* \({tmp_path}/{kind}s/mine\.py:11\)$"):
        score(model(tmp_path, "return torch.zeros(len(x), 3)", kind=kind))


def test_what_is_no_tensor_is_told(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"TypeError: returned NoneType, expected a tensor of shape \(\d+, 16\)"):
        score(model(tmp_path, "return None"))


def test_a_tensor_on_another_device_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        PluginError, match=r"returned a tensor on meta, expected one on cpu: register tables as buffers"
    ):
        score(model(tmp_path, "return torch.zeros(len(x), 16, device='meta')"))


@pytest.mark.parametrize("kind", OFFERS)
def test_what_is_no_module_is_told(kind: str, tmp_path: Path) -> None:
    expected = rf"plugins/{kind}s/mine\.py: build returned str, expected a torch\.nn\.Module$"
    with pytest.raises(PluginError, match=expected):
        model(tmp_path, kind=kind, built="'mine'")


def test_wrong_weights_of_a_fusion_are_told(tmp_path: Path) -> None:
    fusion = "type('Mine', (Mine,), {'weights': lambda self, views: torch.ones(3)})()"
    mine = model(tmp_path, kind="fusion", built=fusion)
    with pytest.raises(
        PluginError, match=r"plugins/fusions/mine\.py: ValueError: returned shape \(3,\), expected \(12, 2\)"
    ):
        mine.weights(mine.views(ARTICLES))


def test_an_error_in_a_library_is_told_with_the_line_of_the_plugin_that_called_it(tmp_path: Path) -> None:
    with pytest.raises(PluginError) as caught:
        score(model(tmp_path, "return nn.functional.linear(self.vector, torch.ones(3, 4))"))
    assert str(caught.value).endswith(f"({tmp_path / 'encoders/mine.py'}:{LINE})")


def test_a_plugin_that_ends_the_program_is_told(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=rf"plugins/encoders/mine\.py: SystemExit: 0 \(.*mine\.py:{LINE}\)"):
        score(model(tmp_path, "sys.exit(0)"))


@pytest.mark.parametrize("ours", [KeyboardInterrupt, MemoryError, torch.OutOfMemoryError])
def test_what_is_not_the_plugins_fault_goes_on_as_it_is(ours: type[BaseException]) -> None:
    with pytest.raises(ours), blame("mine"):
        raise ours


@pytest.mark.parametrize("kind", OFFERS)
def test_a_plugin_that_turns_infinite_in_the_middle_of_training_is_named(kind: str, tmp_path: Path) -> None:
    body = "if self.calls >= 20: return (self.vector * float('inf')).expand(len(x), -1)"
    with pytest.raises(PluginError, match=rf"plugins/{kind}s/mine\.py: .* returned NaN or infinity$"):
        learn(model(tmp_path, body, kind=kind))


@pytest.mark.parametrize("kind", OFFERS)
def test_a_plugin_that_pytorch_cannot_go_back_through_is_named(kind: str, tmp_path: Path) -> None:
    body = "y = self.vector.expand(len(x), -1).exp(); y.mul_(2); return y"  # exp needs what it returned
    with pytest.raises(PluginError, match=rf"plugins/{kind}s/mine\.py: RuntimeError: one of the variables needed for"):
        learn(model(tmp_path, body, kind=kind))


@pytest.mark.parametrize("kind", OFFERS)
def test_a_gradient_that_is_no_number_is_blamed_on_the_plugin_that_it_is_of(kind: str, tmp_path: Path) -> None:
    body = "return (self.vector + 0 * (self.vector - self.vector.detach()).sqrt()).expand(len(x), -1)"
    with pytest.raises(PluginError, match=rf"plugins/{kind}s/mine\.py: .* has weights that became NaN or infinite"):
        learn(model(tmp_path, body, kind=kind))


def test_training_that_runs_away_is_not_blamed_on_a_plugin(tmp_path: Path) -> None:
    mine = model(tmp_path)
    with torch.no_grad():
        mine.log_scale.fill_(1000)  # as a learning rate that is too high leaves it
    with pytest.raises(NewsfuseError, match=r"NaN or infinite; try a smaller train\.lr") as caught:
        learn(mine)
    assert not isinstance(caught.value, PluginError)
