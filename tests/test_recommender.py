"""The model: what it starts as, what it is indifferent to, and whom it blames."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from small import BARE, EARLY, UNMENTIONED, WIDTH, behave, plugins, world
from torch import Tensor, nn
from torch.nn import functional

from newsfuse import Encoder, Fusion, Inputs, Need, UserEncoder, Vocabulary
from newsfuse.assembly import Architecture
from newsfuse.batches import Batch, Clicks
from newsfuse.errors import PluginError
from newsfuse.recommender import SCALE, Dropout, Recommender
from newsfuse.registry import Registry

ALL = torch.arange(12)
HISTORY = torch.tensor([[0, 1, 2], [4, 6, 0], [7, 0, 0]])
CLICKED = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
CANDIDATES = torch.tensor([[5, 6, 7, 8], [1, 2, 3, 9], [0, 10, 11, 4]])
FUSIONS, USER_ENCODERS, ENCODERS = (plugins().names(kind) for kind in (Fusion, UserEncoder, Encoder))


def recommender(
    *encoders: str, fusion: str = "attention", user_encoder: str = "attention", dim: int = 16
) -> Recommender:
    torch.manual_seed(0)
    architecture = Architecture(encoders or ("llm",), fusion, user_encoder, dim, 0.0, 5, {})
    return architecture.build(plugins(), world().train)


def vectors(rows: list[int]) -> Tensor:
    return functional.normalize(world().train.embeddings[rows], dim=1)


def part(kind: type[Any], name: str, *arguments: Any) -> Any:  # noqa: ANN401 - a module of any plugin
    plugin = plugins().load(kind, name)
    return plugin.build(*arguments, plugin.params())


# --- the untrained model


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("user_encoder", USER_ENCODERS)
@torch.inference_mode()
def test_the_untrained_model_scores_as_the_cosine_with_the_mean_of_the_history(fusion: str, user_encoder: str) -> None:
    found = recommender(fusion=fusion, user_encoder=user_encoder).eval()(ALL, HISTORY, CLICKED, CANDIDATES)
    for row in range(len(HISTORY)):
        user = vectors(HISTORY[row][CLICKED[row]].tolist()).mean(dim=0)
        torch.testing.assert_close(found[row], SCALE * vectors(CANDIDATES[row].tolist()) @ user)


@torch.inference_mode()
def test_other_views_change_the_untrained_ranking_little() -> None:
    alone = recommender("llm").eval()(ALL, HISTORY, CLICKED, CANDIDATES)
    fused = recommender("id", "llm").eval()(ALL, HISTORY, CLICKED, CANDIDATES)
    assert np.corrcoef(alone.flatten(), fused.flatten())[0, 1] > 0.95


@pytest.mark.parametrize("fusion", sorted({*FUSIONS} - {"late"}))
@torch.inference_mode()
def test_the_untrained_fusion_is_a_weighted_sum_of_views(fusion: str) -> None:
    """By the priors, 0.1 for id and 1 for llm; the plain mean has no say in it."""
    model = recommender("id", "llm", fusion=fusion).eval()
    views = model.views(ALL)
    shares = torch.tensor([1.0, 1.0] if fusion == "mean" else [0.1, 1.0])
    expected = functional.normalize((shares[:, None] * views).sum(dim=1), dim=1)
    torch.testing.assert_close(model.fuse(views), expected)


@torch.inference_mode()
def test_the_late_fusion_compares_each_view_with_itself_alone() -> None:
    model = recommender("id", "llm", fusion="late").eval()
    some = ALL[ALL != BARE]
    views, fused = model.views(some), model.articles(some)
    of_each = torch.einsum("avd,bvd->vab", views, views)
    torch.testing.assert_close(fused @ fused.T, (0.1 * of_each[0] + of_each[1]) / 1.1)


# --- users


@pytest.mark.parametrize("user_encoder", USER_ENCODERS)
def test_a_user_without_clicks_gets_the_learned_default(user_encoder: str) -> None:
    model = recommender(*ENCODERS, user_encoder=user_encoder)
    clicked = CLICKED.clone()
    clicked[1] = False
    users = model.users(model.articles(ALL)[HISTORY], clicked)
    assert torch.equal(users[1], model.newcomer)
    assert not torch.equal(users[0], model.newcomer)


@pytest.mark.parametrize("user_encoder", USER_ENCODERS)
@pytest.mark.parametrize("empty", [[1], [0, 1, 2]])
def test_users_without_clicks_train_the_default_and_spoil_nothing(user_encoder: str, empty: list[int]) -> None:
    model = recommender(*ENCODERS, user_encoder=user_encoder)
    clicked = CLICKED.clone()
    clicked[empty] = False
    scores = model(ALL, HISTORY, clicked, CANDIDATES)
    functional.cross_entropy(scores, torch.zeros(3, dtype=torch.long)).backward()
    assert scores.isfinite().all()
    assert all(each.grad is None or each.grad.isfinite().all() for each in model.parameters())
    assert cast("Tensor", model.newcomer.grad).any()


def test_users_with_clicks_do_not_train_the_default() -> None:
    model = recommender()
    model(ALL, HISTORY, CLICKED, CANDIDATES).sum().backward()
    assert not cast("Tensor", model.newcomer.grad).any()


# --- what the model is indifferent to


class Scaled(nn.Module):
    def __init__(self, module: nn.Module, factor: float) -> None:
        super().__init__()
        self.module, self.factor = module, factor

    def forward(self, news: Tensor) -> Tensor:
        return cast("Tensor", self.factor * self.module(news))


@pytest.mark.parametrize("factor", [1e-4, 1000.0])
@torch.inference_mode()
def test_the_length_of_a_view_does_not_matter(factor: float) -> None:
    model = recommender("id", "llm").eval()
    before = model(ALL, HISTORY, CLICKED, CANDIDATES)
    model.encoders["id"] = Scaled(model.encoders["id"], factor)
    torch.testing.assert_close(model(ALL, HISTORY, CLICKED, CANDIDATES), before)


@torch.inference_mode()
def test_articles_have_length_one() -> None:
    lengths = recommender(*ENCODERS).eval().articles(ALL).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(12))


@torch.inference_mode()
def test_only_the_order_of_columns_in_the_batch_matters() -> None:
    """Which article stands where in `news` is of no importance."""
    model, order = recommender("id", "llm").eval(), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    place = order.argsort()
    torch.testing.assert_close(
        model(order, place[HISTORY], CLICKED, place[CANDIDATES]), model(ALL, HISTORY, CLICKED, CANDIDATES)
    )


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("encoders", [["llm"], ["category"], ["category", "llm"], ENCODERS], ids="+".join)
def test_an_article_that_says_nothing_has_a_score_and_harmless_gradients(fusion: str, encoders: list[str]) -> None:
    """Its text has no known word, its category is empty: its views are zeros."""
    model = recommender(*encoders, fusion=fusion)
    history, candidates = torch.full((3, 3), BARE), CANDIDATES.clone()
    candidates[0, 0] = BARE
    scores = model(ALL, history, CLICKED, candidates)
    functional.cross_entropy(scores, torch.zeros(3, dtype=torch.long)).backward()
    assert scores.isfinite().all()
    norms = {name: each.grad.norm().item() for name, each in model.named_parameters() if each.grad is not None}
    assert max(norms.values()) < 1e3, norms


# --- what everybody likes


@pytest.mark.parametrize("fusion", ["attention", "late"])
@torch.inference_mode()
def test_what_everybody_likes_scores_higher_for_every_user(fusion: str) -> None:
    """Users without a click included; nothing is liked by everybody before training."""
    model = recommender("id", "llm", fusion=fusion).eval()
    before, history = model(ALL, HISTORY, CLICKED, CANDIDATES), CLICKED & torch.tensor([[True], [True], [False]])
    liked = model.articles(ALL)
    model.everyone.copy_(liked[5])
    gain = model(ALL, HISTORY, CLICKED, CANDIDATES) - before
    torch.testing.assert_close(gain, SCALE * liked[CANDIDATES] @ liked[5])
    newcomer = model(ALL, HISTORY, history, CANDIDATES)[2]
    torch.testing.assert_close(newcomer, SCALE * liked[CANDIDATES[2]] @ (model.newcomer + liked[5]))


def dropped(share: float, news: Tensor, key: int, *shape: int) -> Tensor:
    module = Dropout(share)
    module.redraw(key)
    return cast("Tensor", module(torch.ones(len(news), *shape), news))


def test_dropout_zeroes_its_share_and_keeps_the_mean() -> None:
    found = dropped(0.2, torch.arange(403), 0, 7, 101)
    assert (found == 0).float().mean().item() == pytest.approx(0.2, abs=0.004)
    assert found.unique().tolist() == pytest.approx([0, 1.25])
    assert (found == 0).float().view(403, -1).mean(dim=1).std().item() < 0.03  # no article loses all or nothing
    values = torch.ones(2, 7)
    assert torch.equal(Dropout(0.2).eval()(values, torch.arange(2)), values)
    assert torch.equal(Dropout(0.0)(values, torch.arange(2)), values)
    assert dropped(0.2, torch.arange(0), 0, 7, 101).shape == (0, 7, 101)


def test_what_an_article_loses_depends_on_the_article_and_the_key_alone() -> None:
    together, alone = dropped(0.5, torch.arange(30), 1, 4, 8), dropped(0.5, torch.tensor([29, 3]), 1, 4, 8)
    assert torch.equal(alone, together[[29, 3]])
    assert not torch.equal(together[29], together[3])
    assert not torch.equal(dropped(0.5, torch.tensor([29, 3]), 2, 4, 8), alone)


def test_dropout_that_was_told_no_key_draws_by_torchs_own_generator() -> None:
    module, values, news = Dropout(0.5), torch.ones(5, 40), torch.arange(5)
    torch.manual_seed(0)
    once, another = module(values, news), module(values, news)
    torch.manual_seed(0)
    assert torch.equal(module(values, news), once)
    assert not torch.equal(another, once)


def trained_scores(model: Recommender, news: Tensor, key: int) -> Tensor:
    """Of a model in training, an article for each of `news`; what is left to chance is drawn by the key."""
    model.train().redraw(key)
    return model.articles(news).detach()


def test_in_training_an_article_is_the_same_in_whatever_batch_it_is_until_another_key() -> None:
    torch.manual_seed(0)
    model = Architecture(tuple(ENCODERS), "attention", "mean", 16, 0.3, 5, {"gnn": {"fanout": 1}}).build(
        plugins(), world().train
    )
    together = trained_scores(model, ALL, 7)
    for rows in ([3], [11, 0, 4]):
        torch.testing.assert_close(trained_scores(model, torch.tensor(rows), 7), together[rows])
    assert not torch.allclose(trained_scores(model, ALL, 8), together)


# --- weights


@pytest.mark.parametrize(
    ("fusion", "shares"), [("concat", False), *((name, True) for name in FUSIONS if name != "concat")]
)
def test_weights_are_those_of_the_fusion_if_it_has_any(fusion: str, shares: bool) -> None:  # noqa: FBT001 - a column of the table
    model = recommender("id", "llm", fusion=fusion)
    weights = model.weights(model.views(ALL))
    assert (weights is not None) is shares
    if weights is not None:
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(12))


def test_views_start_with_the_weights_of_their_priors() -> None:
    model = recommender("id", "llm")
    weights = model.weights(model.views(ALL))
    assert weights is not None
    torch.testing.assert_close(weights.mean(dim=0), torch.tensor([0.1, 1.0]) / 1.1)


# --- blame

BROKEN = """
import torch
from torch import nn
from newsfuse import Encoder, Fusion, UserEncoder, hookimpl

class Broken(nn.Module):
    def forward(self, x, clicked=None):
        {body}

def build(*arguments):
    return Broken()

@hookimpl
def newsfuse_{kind}s():
    return [{offer}("broken", build)]
"""
OFFERS = {"encoder": "Encoder", "fusion": "Fusion", "user_encoder": "UserEncoder"}


def broken(folder: Path, kind: str, body: str) -> Recommender:
    """A model of sound parts and one that is written here."""
    file = folder / f"{kind}s" / "broken.py"
    for name in ("encoders", "fusions", "user_encoders"):
        (folder / name).mkdir()
        for each in (plugins().folder / name).glob("*.py"):
            (folder / name / each.name).symlink_to(each)
    file.write_text(BROKEN.format(body=body, kind=kind, offer=OFFERS[kind]), encoding="utf-8")
    chosen = {"encoder": "llm", "fusion": "attention", "user_encoder": "attention", kind: "broken"}
    architecture = Architecture((chosen["encoder"],), chosen["fusion"], chosen["user_encoder"], 16, 0.0, 5, {})
    return architecture.build(Registry(folder, {}), world().train)


@pytest.mark.parametrize("kind", OFFERS)
def test_a_wrong_shape_is_blamed_on_the_plugin(kind: str, tmp_path: Path) -> None:
    model = broken(tmp_path, kind, "return torch.zeros(len(x), 3)")
    expected = rf"plugins/{kind}s/broken.py: ValueError: returned shape \(\d+, 3\), expected \(\d+, 16\)"
    with pytest.raises(PluginError, match=expected):
        model(ALL, HISTORY, CLICKED, CANDIDATES)


def test_an_error_at_the_start_is_blamed_on_the_plugin(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"plugins/encoders/broken.py: KeyError: 'gone'"):
        broken(tmp_path, "encoder", "return x\n\n    def start(self):\n        raise KeyError('gone')")


@pytest.mark.parametrize("kind", OFFERS)
def test_an_error_is_blamed_on_the_plugin_with_its_line(kind: str, tmp_path: Path) -> None:
    model = broken(tmp_path, kind, "raise KeyError('gone')")
    with pytest.raises(PluginError, match=rf"plugins/{kind}s/broken.py: KeyError: 'gone' \(.*broken.py:8\)"):
        model(ALL, HISTORY, CLICKED, CANDIDATES)


def test_an_encoder_that_returns_nan_is_named(tmp_path: Path) -> None:
    model = broken(tmp_path, "encoder", "return torch.full((len(x), 16), float('nan'))")
    with pytest.raises(PluginError, match=r"plugins/encoders/broken\.py: encoder 'broken' returned NaN or infinity"):
        model.require_finite(ALL)


def test_sound_encoders_are_not_blamed() -> None:
    recommender(*ENCODERS).eval().require_finite(ALL)


def test_a_failing_build_is_blamed_on_the_plugin() -> None:
    with pytest.raises(PluginError, match=r"plugins/user_encoders/attention.py: .*dim 10 .* 4 heads"):
        recommender(dim=10)


# --- single encoders


RANKS = [0, 3]
"""Of the correction that llm learns: a full matrix, and an adapter."""


def llm(dim: int, rank: int, inputs: Inputs | None = None) -> nn.Module:
    plugin = plugins().load(Encoder, "llm")
    return plugin.build(inputs or world().train, dim, plugin.params.model_validate({"rank": rank}))


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("dim", [WIDTH, WIDTH + 4])
@torch.inference_mode()
def test_llm_starts_as_the_identity_where_there_is_room(dim: int, rank: int) -> None:
    expected = functional.pad(vectors(ALL.tolist()), (0, dim - WIDTH))
    torch.testing.assert_close(llm(dim, rank)(ALL), expected)


@pytest.mark.parametrize("rank", RANKS)
@torch.inference_mode()
def test_llm_starts_as_the_directions_that_keep_dot_products_best(rank: int) -> None:
    """As good as the rank-k approximation of the Gram matrix that an SVD gives, which nothing beats."""
    k, table = 5, vectors(ALL.tolist())
    found, gram = llm(k, rank)(ALL), table @ table.T
    u, s, v = torch.linalg.svd(table)
    assert u.shape == (12, 12)
    best = table @ v[:k].T
    torch.testing.assert_close(found @ found.T, best @ best.T, rtol=1e-4, atol=1e-5)
    assert (gram - found @ found.T).norm() == pytest.approx((s[k:] ** 2).norm().item(), rel=1e-3)


@pytest.mark.parametrize("rank", RANKS)
def test_llm_does_not_train_the_table(rank: int) -> None:
    module = llm(5, rank)
    learned = ["down.bias", "down.weight", "up.weight"] if rank else ["project.weight"]
    assert sorted(name for name, _ in module.named_parameters()) == learned
    assert sorted(module.state_dict()) == sorted([*learned, *(["directions"] if rank else [])])


@pytest.mark.parametrize("rank", RANKS)
@torch.inference_mode()
def test_llm_gives_an_article_the_same_vector_whatever_others_there_are(rank: int) -> None:
    """Training and evaluation have different tables, whose principal directions differ."""
    trained, later = llm(5, rank), llm(5, rank, world().later)
    assert not torch.allclose(trained(ALL), later(torch.tensor(EARLY)), atol=1e-3)
    later.load_state_dict(trained.state_dict())
    torch.testing.assert_close(later(torch.tensor(EARLY)), trained(ALL))


def test_id_gives_unseen_articles_the_unknown_row() -> None:
    module = part(Encoder, "id", world().train, 16).eval()
    assert torch.equal(module(ALL)[UNMENTIONED], module.vectors.weight[0])
    assert len(module(ALL).unique(dim=0)) == len(ALL)


def id_of(known: int, key: int) -> Any:  # noqa: ANN401 - an Id, in training
    seen = Vocabulary(torch.arange(1, known + 1), known + 1)
    module = part(Encoder, "id", Inputs(known, {Need.SEEN: seen}), 16).train()
    module.redraw(key)
    return module


def test_id_dropout_trains_the_unknown_row() -> None:
    """In a batch of nothing but known articles."""
    module = id_of(1100, key=0)
    module(torch.arange(1100)).sum().backward()
    # each of 1100 articles adds 1 to the gradient of its row: a tenth of them to the unknown one
    assert module.vectors.weight.grad[0, 0].item() == pytest.approx(110, rel=0.3)


def test_which_articles_are_unknown_depends_on_the_key() -> None:
    torch.manual_seed(0)
    module, news = id_of(300, key=0), torch.arange(300)
    together = module(news)
    assert torch.equal(module(news[[7, 290]]), together[[7, 290]])
    module.redraw(1)
    assert not torch.equal(module(news), together)


def test_id_without_dropout_leaves_the_unknown_row_alone() -> None:
    plugin = plugins().load(Encoder, "id")
    module = plugin.build(world().train, 16, plugin.params.model_validate({"dropout": 0.0})).train()
    module(ALL[ALL != UNMENTIONED]).sum().backward()
    assert not cast("Any", module).vectors.weight.grad[0].any()


def test_id_dropout_is_for_training_only() -> None:
    module = part(Encoder, "id", world().train, 16).eval()
    assert torch.equal(module(ALL), module(ALL))


def category(categories: list[int], subcategories: list[int]) -> Any:  # noqa: ANN401 - a module whose parts are asked for
    columns = Vocabulary(torch.tensor(categories), 4), Vocabulary(torch.tensor(subcategories), 4)
    return part(Encoder, "category", Inputs(len(categories), {Need.CATEGORIES: columns}), 16)


def test_an_unknown_category_adds_nothing() -> None:
    module = category([1, 0, 1, 0], [2, 2, 0, 0])
    both, subcategory, broad, none = module(torch.arange(4))
    torch.testing.assert_close(both, broad + subcategory)
    assert broad.any()
    assert subcategory.any()
    assert not none.any()


def test_an_unknown_category_is_not_trained() -> None:
    module = category([0, 1], [0, 1])
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.1)
    module(torch.arange(2)).sum().backward()
    optimiser.step()
    assert not module(torch.tensor([0])).any()


# --- batches


@torch.inference_mode()
def test_cells_without_a_click_do_not_matter() -> None:
    model = recommender(*ENCODERS).eval()
    other = torch.where(CLICKED, HISTORY, 11)
    torch.testing.assert_close(model(ALL, other, CLICKED, CANDIDATES), model(ALL, HISTORY, CLICKED, CANDIDATES))


@torch.inference_mode()
def test_a_batch_scores_what_its_clicks_say() -> None:
    """From behaviors to scores: the first column is the click, the latest click of the history comes first."""
    behaviors = behave(([4, 7, 1], [(2, 0), (8, 1), (9, 0)]))
    batch: Batch = Clicks.of(behaviors).batch(np.array([0]), negatives=2, history=2, key=0)
    found = recommender(user_encoder="mean").eval()(batch.news, batch.history, batch.clicked, batch.candidates)
    shown = batch.news[batch.candidates[0]].tolist()
    assert shown[0] == 8
    torch.testing.assert_close(found[0], SCALE * vectors(shown) @ vectors([7, 1]).mean(dim=0))
