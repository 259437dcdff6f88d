"""The contract of every plugin: each file in plugins/ is put to all checks of its kind, without being named here."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from small import ROOT, plugins

from newsfuse import Embedder, Encoder, Fusion, Need, UserEncoder
from newsfuse.plugin import Plugin
from newsfuse.registry import FOLDERS, Registry
from newsfuse.testing import (
    ContractError,
    check_embedder,
    check_encoder,
    check_fusion,
    check_user_encoder,
    embedders,
    encoders,
    fusions,
    modules,
    settings,
    user_encoders,
)
from newsfuse.testing.contract import Check, State, examine
from newsfuse.testing.kit import CHECKS, results
from newsfuse.testing.world import crowd, world

Holds = Callable[[Any], None]
CHECK: dict[type[Plugin], Holds] = {
    Embedder: check_embedder,
    Encoder: check_encoder,
    Fusion: check_fusion,
    UserEncoder: check_user_encoder,
}


def cases(registry: Registry) -> Iterator[tuple[type[Plugin], str, Check]]:
    """Every plugin file with every check of its kind; nothing is imported."""
    return ((kind, name, check) for kind, checks in CHECKS.items() for name in registry.names(kind) for check in checks)


REGISTRY = plugins()


@pytest.mark.parametrize(
    ("kind", "name", "check"),
    [pytest.param(*case, id=f"{FOLDERS[case[0]]}/{case[1]}-{case[2].holds.__name__}") for case in cases(REGISTRY)],
)
def test_contract(kind: type[Plugin], name: str, check: Check) -> None:
    (result,) = examine(REGISTRY.load(kind, name), [check])
    assert result.state is not State.BROKEN, f"{result.found}. {result.remedy}"
    if result.state is State.SKIPPED:
        pytest.skip(result.found)


def test_every_plugin_file_is_put_to_the_contract() -> None:
    files = {f"{path.parent.name}/{path.stem}" for path in (ROOT / "plugins").glob("*/*.py")}
    assert {f"{FOLDERS[kind]}/{name}" for kind, name, _ in cases(REGISTRY)} == files
    assert files


def test_the_kit_has_every_table_that_an_encoder_may_need() -> None:
    assert set(world().train.tables) == set(world().later.tables) == set(crowd(20).tables) == set(Need)


# --- the kit itself: sound plugins pass it, and each fault is found

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
FORWARD = "    def forward(self, news):\n"
DRAWS = """    def redraw(self, key):
        {told}

    def forward(self, news):
        if self.training:
            import torch
            return self.project(self.table[news]) * {drawn}
"""
LAX = ("params=Options", "params=type('Lax', (Options,), {}, extra='ignore')")
LOOSE = ("params=Options", "params=type('Loose', (Options,), {}, frozen=False)")
OUTSIDE = (
    "params=Options",
    "params=(p := __import__('pydantic')).create_model('Outside', __base__=Options, rank=(int, p.Field(-1, ge=0)))",
)
UNNAMEABLE = ('("made"', '("made up"')
VECTOR, TABLE = "self.project(self.table[news])", "inputs.embeddings"
PROJECT = "nn.Linear(self.table.shape[1], dim)"
MOODY = "(1 + (setattr(self, 'calls', getattr(self, 'calls', 0) + 1) or self.calls % 2))"
"""A factor that is another one in every second call."""
TAIL = SOUND[Embedder].partition("    return embed\n")[1] + SOUND[Embedder].partition("    return embed\n")[2]
SERVICE = """
    from newsfuse import Service
    return Service(None, "", {price}, {limit}, 1, 1)

@hookimpl
def newsfuse_embedders():
    return [Embedder("made", build, params=Options, cost=Cost.MONEY)]
"""
FAULTS: list[tuple[type[Plugin], str, str, Holds]] = [
    (Encoder, "persistent=False", "persistent=True", encoders.weights_fit_later_articles),
    (Encoder, VECTOR, f"{VECTOR}[:, 1:]", encoders.each_article_gets_a_vector),
    (Encoder, VECTOR, f"{VECTOR}.double()", encoders.each_article_gets_a_vector),
    (Encoder, VECTOR, f"[{VECTOR}]", encoders.each_article_gets_a_vector),
    (Encoder, VECTOR, f"{VECTOR}.log()", encoders.every_number_is_finite),
    (Encoder, VECTOR, f"{VECTOR} / self.table[news].norm(dim=1, keepdim=True)", encoders.every_number_is_finite),
    (
        Encoder,
        PROJECT,
        f"nn.Sequential({PROJECT}, nn.BatchNorm1d(dim))",
        encoders.one_article_or_none_is_a_batch_too,
    ),
    (Encoder, VECTOR, f"{VECTOR} if len(news) else None", encoders.one_article_or_none_is_a_batch_too),
    (Encoder, "self.table[news])", "self.table[news] - self.table[news].mean(0))", encoders.articles_are_encoded_apart),
    (Encoder, "self.table[news])", "self.table[news].cumsum(0))", encoders.articles_are_encoded_apart),
    (Encoder, "self.table[news])", "0 * self.table[news])", encoders.articles_are_told_apart),
    (Encoder, VECTOR, f"{VECTOR}.detach()", encoders.every_parameter_gets_a_gradient),
    (
        Encoder,
        "self.project =",
        "self.spare = nn.Parameter(self.table[0]); self.project =",
        encoders.every_parameter_gets_a_gradient,
    ),
    (
        Encoder,
        "self.project =",
        "self.start = lambda: self.register_buffer('mean', self.table.mean(0)); self.project =",
        encoders.start_leaves_a_working_module,
    ),
    (
        Encoder,
        "self.project =",
        "self.start = lambda: self.project.weight.data.log_(); self.project =",
        encoders.start_leaves_a_working_module,
    ),
    (
        Encoder,
        "self.project =",
        "__import__('torch').seed(); self.project =",
        encoders.the_same_seed_gives_the_same_numbers,
    ),
    (
        Encoder,
        FORWARD,
        DRAWS.format(told="pass", drawn="torch.rand(len(news), 1)"),
        encoders.a_key_decides_what_is_drawn_for_an_article,
    ),
    (
        Encoder,
        FORWARD,
        DRAWS.format(told="self.key = key", drawn="(torch.arange(len(news)) + getattr(self, 'key', 0))[:, None].sin()"),
        encoders.a_key_decides_what_is_drawn_for_an_article,
    ),
    (Encoder, "self.project =", "self.__dict__['project'] =", encoders.weights_can_be_saved_and_loaded),
    (Encoder, TABLE, f"{TABLE} - {TABLE}.mean(0)", encoders.an_article_keeps_its_vector_when_others_come),
    (Encoder, TABLE, f"{TABLE}.add_(1)", encoders.tables_are_left_as_they_are),
    (Encoder, "{Need.EMBEDDINGS}", "", encoders.it_can_be_built),
    (Encoder, "return Made(inputs, dim)", "return 7", encoders.it_can_be_built),
    (Encoder, "{Need.EMBEDDINGS}", "{Need.EMBEDDINGS, Need.GRAPH}", encoders.every_need_is_declared_and_read),
    (
        Encoder,
        TABLE,
        f"{TABLE} + inputs.tables[Need.SEEN].size",
        encoders.every_need_is_declared_and_read,
    ),
    (Encoder, "needs=", "prior=0, needs=", encoders.its_prior_is_positive),
    (Encoder, VECTOR, f"{VECTOR} * {MOODY}", encoders.cpu_and_cuda_agree),
    (Encoder, '("made"', '("keys"', settings.its_name_can_be_used),
    (Encoder, "frozenset({Need.EMBEDDINGS})", "{Need.EMBEDDINGS}", settings.it_is_described_in_the_types_asked_for),
    (Fusion, "return Made(start)", "return None", fusions.it_can_be_built),
    (Fusion, ".sum(dim=1)", ".sum(dim=0)", fusions.views_become_one_vector),
    (Fusion, "params=Options", "wide=True, params=Options", fusions.views_become_one_vector),
    (Fusion, "* views)", "* views / views.norm(dim=2, keepdim=True))", fusions.every_number_is_finite),
    (Fusion, ".sum(dim=1)", ".sum(dim=1) if len(views) else None", fusions.one_article_or_none_is_a_batch_too),
    (Fusion, ".sum(dim=1)", f".sum(dim=1) * {MOODY}", fusions.cpu_and_cuda_agree),
    (Fusion, ".sum(dim=1)", ".sum(dim=1) - views.mean(dim=(0, 1))", fusions.articles_are_fused_apart),
    (Fusion, "self.weights(views)", "self.weights(views).detach()", fusions.every_parameter_gets_a_gradient),
    (Fusion, ".sum(dim=1)", "[:, 0]", fusions.every_view_is_reached),
    (Fusion, "softmax(dim=0)", "sigmoid()", fusions.weights_are_shares),
    (Fusion, ".tensor(start).log()", ".zeros(len(start))", fusions.weights_are_shares),
    (Fusion, "expand(len(views), -1)", "expand(1, -1)", fusions.weights_are_shares),
    (
        Fusion,
        "torch.tensor(start).log()",
        f"torch.randn(len(start), {NEVER_SEEDED})",
        fusions.the_same_seed_gives_the_same_numbers,
    ),
    (
        Fusion,
        "nn.Parameter(torch.tensor(start).log())",
        "torch.randn(len(start))",
        fusions.weights_can_be_saved_and_loaded,
    ),
    (UserEncoder, "return Made(dim, history)", "return Made", user_encoders.it_can_be_built),
    (UserEncoder, ".sum(dim=1)", ".sum(dim=2)", user_encoders.histories_become_users),
    (UserEncoder, "[:history.shape[1]]", "", user_encoders.histories_become_users),
    (UserEncoder, ".sum(dim=1)", ".sum(dim=1).squeeze(0)", user_encoders.one_user_is_a_batch_too),
    (UserEncoder, "* history)", "* history / history.norm(dim=2, keepdim=True))", user_encoders.every_number_is_finite),
    (
        UserEncoder,
        'masked_fill(~clicked, float("-inf"))',
        "expand(clicked.shape)",
        user_encoders.unclicked_cells_mean_nothing,
    ),
    (UserEncoder, ".sum(dim=1)", ".sum(dim=1) + history.mean(dim=(0, 1))", user_encoders.users_are_encoded_apart),
    (
        UserEncoder,
        "(weights.unsqueeze(-1) * history).sum(dim=1)",
        "history[:, 0]",
        user_encoders.clicks_mean_something,
    ),
    (UserEncoder, ".softmax(dim=1)", ".softmax(dim=1).detach()", user_encoders.every_parameter_gets_a_gradient),
    (
        UserEncoder,
        "torch.zeros(history)",
        f"torch.randn(history, {NEVER_SEEDED})",
        user_encoders.the_same_seed_gives_the_same_numbers,
    ),
    (
        UserEncoder,
        "nn.Parameter(torch.zeros(history))",
        "torch.randn(history)",
        user_encoders.weights_can_be_saved_and_loaded,
    ),
    (UserEncoder, ".sum(dim=1)", f".sum(dim=1) * {MOODY}", user_encoders.cpu_and_cuda_agree),
    (Embedder, "    return embed", "    return None", embedders.it_can_be_built),
    (Embedder, TAIL, SERVICE.format(limit=0, price=1), embedders.its_limits_are_positive),
    (Embedder, TAIL, SERVICE.format(limit=1, price=-1), embedders.its_limits_are_positive),
    (Embedder, "params=Options", "params=Options, cost=Cost.MONEY", embedders.it_can_be_built),
    (Embedder, "params=Options", 'params=Options, models=("a",)', embedders.its_description_makes_sense),
    (Embedder, "params=Options", "params=Options, modes=frozenset()", embedders.its_description_makes_sense),
    (Embedder, "np.float32", "np.float64", embedders.each_text_gets_a_vector),
    (Embedder, "size=dimensions", "size=4", embedders.each_text_gets_a_vector),
    (
        Embedder,
        "in texts], np.float32)",
        "in texts], np.float32)[0 if len(texts) == 1 else slice(None)]",
        embedders.one_text_is_a_batch_too,
    ),
    (Embedder, "in texts]", "in sorted(texts)]", embedders.order_is_kept),
    (Embedder, "in texts]", "in texts[:1] * len(texts)]", embedders.order_is_kept),
    (Embedder, "np.float32)", "np.float32) - len(texts)", embedders.texts_are_embedded_apart),
    (Embedder, "zlib.crc32(text.encode())", "", embedders.same_texts_same_bytes),
    (
        Embedder,  # the same bytes from each function that is built, but not when that is asked again
        "zlib.crc32(text.encode())",
        'vars(embed).setdefault("asked", []).append(0) or len(embed.asked)',
        embedders.same_texts_same_bytes,
    ),
]
FAULTS += [
    (kind, *fault, check)
    for kind in CHECKS
    for fault, check in (
        (UNNAMEABLE, settings.its_name_can_be_used),
        (
            (f'{kind.__name__}("made"', f"type('Derived', ({kind.__name__},), {{}})('made'"),
            settings.it_is_described_in_the_types_asked_for,
        ),
        (OUTSIDE, settings.its_settings_have_valid_defaults),
        (("params=Options", "params=__import__('pydantic').BaseModel"), settings.its_settings_have_valid_defaults),
        (LAX, settings.unknown_settings_are_refused),
        (LOOSE, settings.settings_stay_as_they_are),
    )
]


def plugin(kind: type[Plugin], source: str) -> Plugin:
    """What the source of a plugin file offers, whatever the registry would say to it."""
    module = ModuleType("made")
    exec(compile(source, "made.py", "exec"), vars(module))  # noqa: S102 - our own text
    (made,) = getattr(module, f"newsfuse_{FOLDERS[kind]}")()
    return made


def broken(made: Plugin, kind: type[Plugin]) -> set[str]:
    """The promises that it breaks."""
    return {result.promise for result in examine(made, CHECKS[kind]) if result.state is State.BROKEN}


@pytest.mark.parametrize("kind", SOUND, ids=FOLDERS.get)
def test_a_new_plugin_file_is_found_and_passes_when_it_is_sound(kind: type[Plugin], tmp_path: Path) -> None:
    path = tmp_path / FOLDERS[kind] / "made.py"
    path.parent.mkdir(parents=True)
    path.write_text(SOUND[kind], encoding="utf-8")
    registry = Registry(tmp_path, {})
    assert [name for found, name, _ in cases(registry) if found is kind] == ["made"] * len(CHECKS[kind])
    CHECK[kind](registry.load(kind, "made"))


@pytest.mark.parametrize(
    ("kind", "sound", "faulty", "holds"),
    [pytest.param(*fault, id=f"{FOLDERS[fault[0]]}-{fault[3].__name__}") for fault in FAULTS],
)
def test_a_faulty_plugin_is_found_out(
    kind: type[Plugin], sound: str, faulty: str, holds: Holds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(modules, "GPU", "cpu")  # so that what differs between the two can be found anywhere
    source = SOUND[kind].replace(sound, faulty, 1)
    assert source != SOUND[kind]
    assert Check(holds).promise in broken(plugin(kind, source), kind)


def test_every_check_can_fail() -> None:
    found = {(kind, holds) for kind, *_, holds in FAULTS}
    assert found == {(kind, check.holds) for kind, checks in CHECKS.items() for check in checks}


TWO_FAULTS = SOUND[Encoder].replace(TABLE, f"{TABLE}.add_(1)").replace("needs=", "prior=0, needs=")


def test_all_broken_promises_are_told_at_once_with_what_to_do() -> None:
    with pytest.raises(ContractError) as caught:
        CHECK[Encoder](plugin(Encoder, TWO_FAULTS))
    first, *told = str(caught.value).splitlines()
    assert first == f"encoder 'made' breaks 2 of {len(CHECKS[Encoder])} promises:"
    assert [line[:40] for line in told] == [
        "1. its prior is positive: prior is 0. 1 ",
        "2. tables are left as they are: writes i",
    ]
    assert isinstance(caught.value, AssertionError)


def test_a_row_that_changes_with_its_neighbours_is_told_by_number() -> None:
    source = SOUND[Encoder].replace("self.table[news])", "self.table[news].cumsum(0))")
    found = next(r for r in results(plugin(Encoder, source)) if r.promise == "articles are encoded apart")
    assert found.found == "row 11 changes when the batch is reversed"
    assert "BatchNorm" in found.remedy


def test_an_error_inside_a_plugin_is_told_with_its_line_and_what_is_wanted() -> None:
    source = SOUND[Encoder].replace("return self.project(", "return self.unknown(")
    (line,) = [number for number, text in enumerate(source.splitlines(), 1) if "self.unknown" in text]
    found = next(r for r in results(plugin(Encoder, source)) if r.promise == "each article gets a vector")
    assert found.found == f"AttributeError: 'Made' object has no attribute 'unknown' (made.py:{line})"
    assert found.remedy.startswith("Wanted: forward takes int64 (M,)")


def test_what_cannot_be_checked_after_a_broken_promise_says_what_it_waits_for() -> None:
    done = list(results(plugin(Encoder, SOUND[Encoder].replace("return Made(inputs, dim)", "return 7"))))
    place = [result.promise for result in done].index("it can be built")
    assert {(result.state, result.found) for result in done[place + 1 :]} == {
        (State.SKIPPED, "waits for 'it can be built'")
    }


def test_where_there_is_no_gpu_a_tensor_that_would_stay_behind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    source = SOUND[Encoder].replace(
        'self.register_buffer("table", inputs.embeddings, persistent=False)', "self.table = inputs.embeddings"
    )
    *_, last = results(plugin(Encoder, source))
    assert last.promise == "cpu and cuda agree"
    assert last.found == "there is no GPU here; table would stay on the CPU, being no buffer (register_buffer)"


@pytest.mark.parametrize(("drawn", "hint"), [("", ""), (DRAWS, ", and draws otherwise in each of several processes")])
def test_an_encoder_that_draws_by_torch_s_generator_is_told_what_that_means(drawn: str, hint: str) -> None:
    draws = drawn.format(told="pass", drawn="torch.rand(len(news), 1)").replace("redraw", "unasked")
    source = SOUND[Encoder].replace(FORWARD, draws or FORWARD)
    (found,) = (r for r in results(plugin(Encoder, source)) if r.promise.startswith("a key decides"))
    assert (found.state, found.found) == (State.SKIPPED, f"it has no redraw(key){hint}")


AROUND = """
from torch import Tensor, nn
from newsfuse import Encoder, hookimpl
{module}

def build(inputs, dim, options):
    made = Forgetful()
    made.table = nn.Embedding(inputs.n_articles, dim)
    return made

@hookimpl
def newsfuse_encoders():
    return [Encoder("made", build)]
"""


def test_the_module_of_the_docs_that_draws_by_a_key_keeps_the_promise() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    (module,) = (part.partition("```")[0] for part in page.split("```python") if "class Forgetful" in part)
    done = {result.promise: result.state for result in results(plugin(Encoder, AROUND.format(module=module)))}
    assert done["a key decides what is drawn for an article"] is State.OK
    assert done["each article gets a vector"] is State.OK


def test_only_an_encoder_s_start_is_called() -> None:
    source = SOUND[Fusion].replace("self.bias =", "self.start = start; self.bias =")
    CHECK[Fusion](plugin(Fusion, source))


def test_an_embedder_that_costs_money_is_sent_nothing() -> None:
    made = plugin(Embedder, SOUND[Embedder].replace(TAIL, SERVICE.format(limit=1, price=1)))
    CHECK[Embedder](made)
    skipped = {result.promise for result in results(made) if result.found == "a vector costs money: no text is sent"}
    assert skipped == {
        "each text gets a vector",
        "one text is a batch too",
        "order is kept",
        "texts are embedded apart",
        "same texts same bytes",
    }


@pytest.mark.parametrize("kind", CHECK, ids=FOLDERS.get)
def test_something_else_than_a_plugin_of_the_kind_is_told(kind: type[Plugin]) -> None:
    with pytest.raises(ContractError, match=rf"^expected a newsfuse\.{kind.__name__}, found 7$"):
        CHECK[kind](7)


def test_checking_leaves_torch_s_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    CHECK[UserEncoder](REGISTRY.load(UserEncoder, "mean"))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_kit_needs_neither_pytest_nor_this_project(tmp_path: Path) -> None:
    others = {"pytest", "dgl", "openai", "sentence_transformers"}
    code = f"import sys, newsfuse.testing; print(sorted({others} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
