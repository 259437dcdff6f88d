"""The contract of every plugin: each file in plugins/ is put to all checks of its kind, without being named here."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load, save
from small import ROOT, plugins, world
from torch import Tensor, nn

from newsfuse import Cost, Embedder, Encoder, Fusion, Inputs, UserEncoder
from newsfuse.errors import PluginError
from newsfuse.plugin import Plugin
from newsfuse.registry import FOLDERS, Registry

DIM, HISTORY, ROWS = 8, 6, 5
STEPS = 3
"""Of training before every parameter must have been reached: a plugin may start some of them at zero."""
Check = Callable[[Any], None]
Weights = Callable[[Tensor], Tensor]


# --- what any module of a plugin must do


def assert_vectors(output: Tensor, rows: int, width: int = DIM) -> None:
    assert tuple(output.shape) == (rows, width)
    assert output.dtype == torch.float32
    assert output.isfinite().all()


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def stirred(module: nn.Module) -> nn.Module:
    """`module` with other weights, as after training: what starts at zero hides what it multiplies."""
    for parameter in module.parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape))
    return module.eval()


def assert_rows_stand_alone(module: nn.Module, *inputs: Tensor) -> None:
    """Row i of the output depends on row i of the inputs only: not on its neighbours, nor on its place."""
    output = stirred(module)(*inputs)
    rows = torch.arange(len(output))
    for chosen in (rows.flip(0), rows[:1], rows[-1:], rows[[0, 1, 1, 0]], rows[1:4]):
        assert_close(module(*(each[chosen] for each in inputs)), output[chosen])


def assert_gradient_reaches_every_parameter(module: nn.Module, *inputs: Tensor) -> None:
    module.train()
    learned = {name: each for name, each in module.named_parameters() if each.requires_grad}
    if not learned:
        return
    optimiser, wanted, reached = torch.optim.SGD(learned.values(), lr=0.1), torch.randn_like(module(*inputs)), set()
    for _ in range(STEPS):
        optimiser.zero_grad()
        (module(*inputs) * wanted).sum().backward()
        gradients = {name: each.grad for name, each in learned.items() if each.grad is not None}
        assert all(each.isfinite().all() for each in gradients.values())
        reached |= {name for name, each in gradients.items() if each.any()}
        optimiser.step()
    assert reached == learned.keys()


def assert_survives_saving(make: Callable[[], nn.Module], *inputs: Tensor) -> None:
    """The state dict is all there is to a trained module."""
    torch.manual_seed(0)
    first = stirred(make())
    torch.manual_seed(1)
    second = make().eval()
    saved = save({name: each.contiguous() for name, each in first.state_dict().items()})
    second.load_state_dict(load(saved), strict=True)
    assert torch.equal(first(*inputs), second(*inputs))


def assert_seed_decides(make: Callable[[], nn.Module], *inputs: Tensor) -> None:
    def outputs() -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        module = make()
        return module.train()(*inputs), module.eval()(*inputs)

    for once, again in zip(outputs(), outputs(), strict=True):
        assert torch.equal(once, again)


# --- encoders


def encoder(plugin: Encoder, inputs: Inputs) -> nn.Module:
    return plugin.build(inputs.only(plugin.needs, f"encoder '{plugin.name}'"), DIM, plugin.params())


def everything(inputs: Inputs) -> Tensor:
    return torch.arange(inputs.n_articles)


def seeded(plugin: Encoder) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return encoder(plugin, world().train), everything(world().train)


def each_article_gets_a_vector(plugin: Encoder) -> None:
    module, news = seeded(plugin)
    assert_vectors(module.train()(news), len(news))
    assert_vectors(module.eval()(news), len(news))
    assert_vectors(module(news[:0]), 0)


def articles_are_encoded_apart(plugin: Encoder) -> None:
    module, news = seeded(plugin)
    assert_rows_stand_alone(module, news)


def articles_are_told_apart(plugin: Encoder) -> None:
    module, news = seeded(plugin)
    assert len(module.eval()(news).unique(dim=0)) > 1


def encoder_learns(plugin: Encoder) -> None:
    assert_gradient_reaches_every_parameter(*seeded(plugin))


def encoder_repeats_itself(plugin: Encoder) -> None:
    assert_seed_decides(lambda: encoder(plugin, world().train), everything(world().train))


def encoder_can_be_saved(plugin: Encoder) -> None:
    assert_survives_saving(lambda: encoder(plugin, world().train), everything(world().train))


def weights_fit_later_articles(plugin: Encoder) -> None:
    module, news = encoder(plugin, world().later), everything(world().later)
    module.load_state_dict(seeded(plugin)[0].state_dict(), strict=True)
    assert_vectors(module.eval()(news), len(news))
    assert_rows_stand_alone(module, news)


def every_need_is_declared_and_read(plugin: Encoder) -> None:
    for need in plugin.needs:
        with pytest.raises(PluginError, match=f"'{plugin.name}' reads inputs.{need} without declaring it"):
            plugin.build(world().train.only(plugin.needs - {need}, f"encoder '{plugin.name}'"), DIM, plugin.params())


def prior_is_positive(plugin: Encoder) -> None:
    assert plugin.prior > 0


# --- fusions


def fusion(plugin: Fusion, views: int) -> tuple[nn.Module, Tensor, list[float]]:
    torch.manual_seed(0)
    start = [2 * (1 + view) / (views * (views + 1)) for view in range(views)]
    module = plugin.build(DIM, start, plugin.params())
    return module, nn.functional.normalize(torch.randn(ROWS, views, DIM), dim=2), start


def views_become_one_vector(plugin: Fusion) -> None:
    for number in range(1, 5):
        module, views, _ = fusion(plugin, number)
        width = DIM * number if plugin.wide else DIM
        assert_vectors(module.train()(views), ROWS, width)
        assert_vectors(module.eval()(views), ROWS, width)
        assert_vectors(module(views[:0]), 0, width)


def fused_articles_are_apart(plugin: Fusion) -> None:
    for number in range(1, 5):
        assert_rows_stand_alone(*fusion(plugin, number)[:2])


def fusion_learns(plugin: Fusion) -> None:
    for number in range(2, 5):  # of one view there is nothing to choose
        assert_gradient_reaches_every_parameter(*fusion(plugin, number)[:2])


def every_view_is_reached(plugin: Fusion) -> None:
    for number in range(1, 5):
        module, views, _ = fusion(plugin, number)
        fused = module(views.requires_grad_())
        (fused * torch.randn_like(fused)).sum().backward()
        assert views.grad is not None
        assert views.grad.isfinite().all()
        assert views.grad.any(dim=2).all()


def weights_are_shares(plugin: Fusion) -> None:
    for number in range(1, 5):
        module, views, start = fusion(plugin, number)
        if not hasattr(module, "weights"):
            return
        weigh = cast("Weights", module.weights)
        if list(module.parameters()):
            assert_close(weigh(views), torch.tensor(start).expand(ROWS, -1))
        stirred(module)
        assert tuple(weigh(views).shape) == (ROWS, number)
        assert (weigh(views) >= 0).all()
        assert_close(weigh(views).sum(dim=1), torch.ones(ROWS))


def fusion_repeats_itself(plugin: Fusion) -> None:
    assert_seed_decides(lambda: plugin.build(DIM, [0.4, 0.6], plugin.params()), fusion(plugin, 2)[1])


def fusion_can_be_saved(plugin: Fusion) -> None:
    assert_survives_saving(lambda: plugin.build(DIM, [0.4, 0.6], plugin.params()), fusion(plugin, 2)[1])


# --- user encoders


def user_encoder(plugin: UserEncoder, clicks: int = HISTORY) -> tuple[nn.Module, Tensor, Tensor]:
    """A module and histories of 1 to `clicks` clicks."""
    torch.manual_seed(0)
    module = plugin.build(DIM, HISTORY, plugin.params())
    counts = torch.linspace(1, clicks, ROWS).long()
    return module, torch.randn(ROWS, clicks, DIM), torch.arange(clicks) < counts[:, None]


def histories_become_users(plugin: UserEncoder) -> None:
    for clicks in range(1, HISTORY + 1):
        module, history, clicked = user_encoder(plugin, clicks)
        assert_vectors(module.train()(history, clicked), ROWS)
        assert_vectors(module.eval()(history, clicked), ROWS)


def users_are_apart(plugin: UserEncoder) -> None:
    for clicks in (1, HISTORY):
        assert_rows_stand_alone(*user_encoder(plugin, clicks))


def unclicked_cells_mean_nothing(plugin: UserEncoder) -> None:
    module, history, clicked = user_encoder(plugin)
    other = torch.where(clicked.unsqueeze(-1), history, 100 * torch.randn(history.shape))
    assert_close(stirred(module)(other, clicked), module(history, clicked))
    short = clicked.sum(dim=1) <= 2  # noqa: PLR2004 - columns of padding may be there or not
    assert short.any()
    assert_close(module(history[short, :2], clicked[short, :2]), module(history, clicked)[short])


def clicks_mean_something(plugin: UserEncoder) -> None:
    module, history, clicked = user_encoder(plugin)
    history.requires_grad_()
    (stirred(module)(history, clicked) * torch.randn(ROWS, DIM)).sum().backward()
    assert history.grad is not None
    assert history.grad.isfinite().all()
    assert torch.equal(history.grad.any(dim=2), clicked)


def user_encoder_learns(plugin: UserEncoder) -> None:
    assert_gradient_reaches_every_parameter(*user_encoder(plugin))


def user_encoder_repeats_itself(plugin: UserEncoder) -> None:
    assert_seed_decides(lambda: plugin.build(DIM, HISTORY, plugin.params()), *user_encoder(plugin)[1:])


def user_encoder_can_be_saved(plugin: UserEncoder) -> None:
    assert_survives_saving(lambda: plugin.build(DIM, HISTORY, plugin.params()), *user_encoder(plugin)[1:])


# --- embedders


CORPUS = [
    "the team won the final of the cup",
    "the team lost the final",
    "prices of bread rise again",
    "prices of bread and of milk fall",
    "a storm closes the harbour",
    "the harbour opens after the storm",
]


def embedded(plugin: Embedder, texts: list[str], dimensions: int = 4) -> np.ndarray:
    fitted: Any = plugin.build(CORPUS, plugin.default_model, dimensions, plugin.params())
    return np.asarray(fitted(texts))


def each_text_gets_a_vector(plugin: Embedder) -> None:
    for dimensions in (1, 4, 100):  # more than the corpus has
        vectors = embedded(plugin, [*CORPUS, "zebra", "Ünï çødé ✓"], dimensions)
        assert vectors.shape == (len(CORPUS) + 2, dimensions)
        assert vectors.dtype == np.float32
        assert np.isfinite(vectors).all()


def order_is_kept(plugin: Embedder) -> None:
    vectors, order = embedded(plugin, CORPUS), [3, 0, 5, 5, 1]
    np.testing.assert_allclose(embedded(plugin, [CORPUS[row] for row in order]), vectors[order], atol=1e-6)
    assert len(np.unique(vectors, axis=0)) == len(CORPUS)


def texts_are_embedded_apart(plugin: Embedder) -> None:
    np.testing.assert_allclose(embedded(plugin, CORPUS[:1]), embedded(plugin, CORPUS)[:1], atol=1e-6)


def same_texts_same_bytes(plugin: Embedder) -> None:
    assert embedded(plugin, CORPUS).tobytes() == embedded(plugin, CORPUS).tobytes()


# --- all kinds


def unknown_settings_are_refused(plugin: Plugin) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        plugin.params.model_validate({"no_such_setting": 1})


CHECKS: dict[type[Plugin], tuple[Check, ...]] = {
    Embedder: (
        each_text_gets_a_vector,
        order_is_kept,
        texts_are_embedded_apart,
        same_texts_same_bytes,
        unknown_settings_are_refused,
    ),
    Encoder: (
        each_article_gets_a_vector,
        articles_are_encoded_apart,
        articles_are_told_apart,
        encoder_learns,
        encoder_repeats_itself,
        encoder_can_be_saved,
        weights_fit_later_articles,
        every_need_is_declared_and_read,
        prior_is_positive,
        unknown_settings_are_refused,
    ),
    Fusion: (
        views_become_one_vector,
        fused_articles_are_apart,
        fusion_learns,
        every_view_is_reached,
        weights_are_shares,
        fusion_repeats_itself,
        fusion_can_be_saved,
        unknown_settings_are_refused,
    ),
    UserEncoder: (
        histories_become_users,
        users_are_apart,
        unclicked_cells_mean_nothing,
        clicks_mean_something,
        user_encoder_learns,
        user_encoder_repeats_itself,
        user_encoder_can_be_saved,
        unknown_settings_are_refused,
    ),
}
ON_BOUGHT_VECTORS = {each_text_gets_a_vector, order_is_kept, texts_are_embedded_apart, same_texts_same_bytes}


def cases(registry: Registry) -> Iterator[tuple[type[Plugin], str, Check]]:
    """Every plugin file with every check of its kind; nothing is imported."""
    return ((kind, name, check) for kind, checks in CHECKS.items() for name in registry.names(kind) for check in checks)


def put_to(check: Check, plugin: Plugin) -> None:
    if isinstance(plugin, Embedder) and plugin.cost is not Cost.NOTHING and check in ON_BOUGHT_VECTORS:
        pytest.skip(f"embedder '{plugin.name}' costs {plugin.cost}: no test may send it a text")
    check(plugin)


REGISTRY = plugins()


@pytest.mark.parametrize(
    ("kind", "name", "check"),
    [pytest.param(*case, id=f"{FOLDERS[case[0]]}/{case[1]}-{case[2].__name__}") for case in cases(REGISTRY)],
)
def test_contract(kind: type[Plugin], name: str, check: Check) -> None:
    put_to(check, REGISTRY.load(kind, name))


def test_every_plugin_file_is_put_to_the_contract() -> None:
    files = {f"{path.parent.name}/{path.stem}" for path in (ROOT / "plugins").glob("*/*.py")}
    assert {f"{FOLDERS[kind]}/{name}" for kind, name, _ in cases(REGISTRY)} == files
    assert files


# --- the suite itself: sound plugins pass it, and each fault is found

SOUND: dict[type[Plugin], str] = {
    Encoder: """
from torch import nn
from newsfuse import Encoder, Need, Options, hookimpl

class Made(nn.Module):
    def __init__(self, inputs, dim):
        super().__init__()
        self.register_buffer("table", inputs.embeddings, persistent=False)
        self.project = nn.Linear(self.table.shape[1], dim)

    def forward(self, news):
        return self.project(self.table[news])

def build(inputs, dim, options):
    return Made(inputs, dim)

@hookimpl
def newsfuse_encoders():
    return [Encoder("made", build, params=Options, needs=frozenset({Need.EMBEDDINGS}))]
""",
    Fusion: """
import torch
from torch import nn
from newsfuse import Fusion, Options, hookimpl

class Made(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(start).log())

    def weights(self, views):
        return self.bias.softmax(dim=0).expand(len(views), -1)

    def forward(self, views):
        return (self.weights(views).unsqueeze(-1) * views).sum(dim=1)

def build(dim, start, options):
    return Made(start)

@hookimpl
def newsfuse_fusions():
    return [Fusion("made", build, params=Options)]
""",
    UserEncoder: """
import torch
from torch import nn
from newsfuse import UserEncoder, Options, hookimpl

class Made(nn.Module):
    def __init__(self, dim, history):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(history))

    def forward(self, history, clicked):
        weights = self.position[:history.shape[1]].masked_fill(~clicked, float("-inf")).softmax(dim=1)
        return (weights.unsqueeze(-1) * history).sum(dim=1)

def build(dim, history, options):
    return Made(dim, history)

@hookimpl
def newsfuse_user_encoders():
    return [UserEncoder("made", build, params=Options)]
""",
    Embedder: """
import zlib
import numpy as np
from newsfuse import Cost, Embedder, Options, hookimpl

def build(corpus, model, dimensions, options):
    def vector(text):
        return np.random.default_rng(zlib.crc32(text.encode())).normal(size=dimensions)

    def embed(texts):
        return np.array([vector(text) for text in texts], np.float32)

    return embed

@hookimpl
def newsfuse_embedders():
    return [Embedder("made", build, params=Options)]
""",
}

NEVER_SEEDED = "generator=torch.Generator().manual_seed(__import__('time').time_ns())"
LAX = ("params=Options", "params=__import__('pydantic').BaseModel")
FAULTS: list[tuple[type[Plugin], str, str, Check]] = [
    (Encoder, "persistent=False", "persistent=True", weights_fit_later_articles),
    (Encoder, "self.project(self.table[news])", "self.project(self.table[news])[:, 1:]", each_article_gets_a_vector),
    (Encoder, "self.project(self.table[news])", "self.project(self.table[news]).double()", each_article_gets_a_vector),
    (Encoder, "self.project(self.table[news])", "self.project(self.table[news]).log()", each_article_gets_a_vector),
    (Encoder, "self.table[news])", "self.table[news] - self.table[news].mean(0))", articles_are_encoded_apart),
    (Encoder, "self.table[news])", "self.table[news].cumsum(0))", articles_are_encoded_apart),
    (Encoder, "self.table[news])", "0 * self.table[news])", articles_are_told_apart),
    (Encoder, "self.project(self.table[news])", "self.project(self.table[news]).detach()", encoder_learns),
    (Encoder, "self.project =", "self.spare = nn.Parameter(self.table[0]); self.project =", encoder_learns),
    (Encoder, "self.project =", "__import__('torch').seed(); self.project =", encoder_repeats_itself),
    (Encoder, "self.project =", "self.__dict__['project'] =", encoder_can_be_saved),
    (Encoder, "{Need.EMBEDDINGS}", "", each_article_gets_a_vector),
    (Encoder, "{Need.EMBEDDINGS}", "{Need.EMBEDDINGS, Need.GRAPH}", every_need_is_declared_and_read),
    (Encoder, "needs=", "prior=0, needs=", prior_is_positive),
    (Encoder, *LAX, unknown_settings_are_refused),
    (Fusion, ".sum(dim=1)", ".sum(dim=0)", views_become_one_vector),
    (Fusion, ".sum(dim=1)", ".sum(dim=1) - views.mean(dim=(0, 1))", fused_articles_are_apart),
    (Fusion, "self.weights(views)", "self.weights(views).detach()", fusion_learns),
    (Fusion, ".sum(dim=1)", "[:, 0]", every_view_is_reached),
    (Fusion, "softmax(dim=0)", "sigmoid()", weights_are_shares),
    (Fusion, ".tensor(start).log()", ".zeros(len(start))", weights_are_shares),
    (Fusion, "expand(len(views), -1)", "expand(1, -1)", weights_are_shares),
    (Fusion, "torch.tensor(start).log()", f"torch.randn(len(start), {NEVER_SEEDED})", fusion_repeats_itself),
    (Fusion, "nn.Parameter(torch.tensor(start).log())", "torch.randn(len(start))", fusion_can_be_saved),
    (Fusion, *LAX, unknown_settings_are_refused),
    (UserEncoder, ".sum(dim=1)", ".sum(dim=2)", histories_become_users),
    (UserEncoder, "[:history.shape[1]]", "", histories_become_users),
    (UserEncoder, 'masked_fill(~clicked, float("-inf"))', "expand(clicked.shape)", unclicked_cells_mean_nothing),
    (UserEncoder, ".sum(dim=1)", ".sum(dim=1) + history.mean(dim=(0, 1))", users_are_apart),
    (UserEncoder, "(weights.unsqueeze(-1) * history).sum(dim=1)", "history[:, 0]", clicks_mean_something),
    (UserEncoder, ".softmax(dim=1)", ".softmax(dim=1).detach()", user_encoder_learns),
    (UserEncoder, "torch.zeros(history)", f"torch.randn(history, {NEVER_SEEDED})", user_encoder_repeats_itself),
    (UserEncoder, "nn.Parameter(torch.zeros(history))", "torch.randn(history)", user_encoder_can_be_saved),
    (UserEncoder, *LAX, unknown_settings_are_refused),
    (Embedder, "np.float32", "np.float64", each_text_gets_a_vector),
    (Embedder, "size=dimensions", "size=4", each_text_gets_a_vector),
    (Embedder, "in texts]", "in sorted(texts)]", order_is_kept),
    (Embedder, "in texts]", "in texts[:1] * len(texts)]", order_is_kept),
    (Embedder, "np.float32)", "np.float32) - len(texts)", texts_are_embedded_apart),
    (Embedder, "zlib.crc32(text.encode())", "", same_texts_same_bytes),
    (Embedder, *LAX, unknown_settings_are_refused),
]


def faults_of(folder: Path, kind: type[Plugin], source: str) -> set[Check]:
    """Write the plugin `made` into `folder` and put it to the contract: the checks that it fails."""
    path = folder / FOLDERS[kind] / "made.py"
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    registry = Registry(folder, {})
    return {check for found, name, check in cases(registry) if fails(check, registry, found, name)}


def fails(check: Check, registry: Registry, kind: type[Plugin], name: str) -> bool:
    try:
        put_to(check, registry.load(kind, name))
    except (Exception, pytest.fail.Exception):  # noqa: BLE001 - a fault may show as any error
        return True
    return False


@pytest.mark.parametrize("kind", SOUND, ids=FOLDERS.get)
def test_a_new_plugin_file_is_found_and_passes_when_it_is_sound(kind: type[Plugin], tmp_path: Path) -> None:
    assert faults_of(tmp_path, kind, SOUND[kind]) == set()
    assert [name for found, name, _ in cases(Registry(tmp_path, {}))] == ["made"] * len(CHECKS[kind])


@pytest.mark.parametrize(
    ("kind", "sound", "faulty", "check"),
    [pytest.param(*fault, id=f"{FOLDERS[fault[0]]}-{fault[3].__name__}") for fault in FAULTS],
)
def test_a_faulty_plugin_is_found_out(
    kind: type[Plugin], sound: str, faulty: str, check: Check, tmp_path: Path
) -> None:
    source = SOUND[kind].replace(sound, faulty, 1)
    assert source != SOUND[kind]
    try:
        assert check in faults_of(tmp_path, kind, source)
    finally:
        world.cache_clear()  # some write into the tables that they are given


def test_every_check_can_fail() -> None:
    assert {(kind, check) for kind, *_, check in FAULTS} == {(kind, check) for kind in CHECKS for check in CHECKS[kind]}
