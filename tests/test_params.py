"""params.yaml: what is wrong with it is told at once, in full, with the nearest right word."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from newsfuse.errors import ParamsError, PluginError
from newsfuse.params import Params, load, options, packages
from newsfuse.plugin import Encoder, Fusion, UserEncoder

ROOT = Path(__file__).parent.parent
LIGHT = {"llm": True, "category": True, "gnn": False}
"""Encoders that load in no time."""
FUSIONS = "Known: attention, concat, gate, late, mean"

Load = Callable[..., Params]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the shipped plugins."""
    (tmp_path / "plugins").symlink_to(ROOT / "plugins")
    return tmp_path


@pytest.fixture
def load_with(project: Path) -> Load:
    """The shipped params.yaml with light plugins and some values changed (a__b is b in section a)."""

    def change(**changes: Any) -> Params:  # noqa: ANN401 - whatever YAML holds
        values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        values |= {"encoders": LIGHT.copy(), "user_encoder": "attention"}
        for path, value in changes.items():
            *sections, key = path.split("__")
            section = values
            for name in sections:
                section = section[name]
            section[key] = value
        (project / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        return load(project)[0]

    return change


def mistakes(load_with: Load, **changes: object) -> list[str]:
    with pytest.raises(ParamsError) as caught:
        load_with(**changes)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def mistake(load_with: Load, **changes: object) -> str:
    (only,) = mistakes(load_with, **changes)
    return only


def test_the_shipped_file_is_valid() -> None:
    params, _ = load(ROOT)
    assert (params.dataset, params.fusion, params.embed.provider) == ("tiny", "late", "lsa")


def test_a_misspelt_fusion_is_told_with_the_nearest_and_all_known_names(load_with: Load) -> None:
    message = f"params.yaml: fusion: no fusion plugin is called 'gaet'. Did you mean 'gate'? {FUSIONS}"
    assert mistake(load_with, fusion="gaet") == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user_encoder": "atention"}, "user_encoder: no user encoder plugin is called 'atention'. Did you mean 'att"),
        ({"encoders__lllm": False}, "encoders.lllm: no encoder plugin is called 'lllm'. Did you mean 'llm'? Known: "),
        (
            {"embed__provider": "opanai"},
            "embed.provider: no embedder plugin is called 'opanai'. Did you mean 'openai'?",
        ),
        ({"options__gatt": {}}, "options.gatt: no plugin is called 'gatt'. Did you mean 'gate'? Known: "),
        ({"fusion": "../encoders/llm"}, "fusion: no fusion plugin is called '../encoders/llm'. Known: "),
        ({"fusion": ""}, f"fusion: no fusion plugin is called ''. {FUSIONS}"),
        ({"embed__dimensions": True}, "embed.dimensions: "),
        ({"embed__model": "  "}, "embed.model: "),
        ({"fusionn": "gate"}, "fusionn: no such setting. Did you mean 'fusion'? Known: "),
        ({"train__epoch": 3}, "train.epoch: no such setting. Did you mean 'epochs'? Known: batch_size, clip_norm, "),
        ({"options__category": {"colour": 1}}, "options.category.colour: no such setting."),
        ({"options__attention": {"head": 2}}, "options.attention.head: no such setting. Did you mean 'heads'? Known: "),
        ({"options__attention": {"heads": 0}}, "options.attention.heads: Input should be greater than 0, found 0"),
        ({"train__epochs": "three"}, "train.epochs: Input should be a valid integer"),
        ({"train__lr": 0}, "train.lr: Input should be greater than 0, found 0"),
        ({"train__lr": float("nan")}, "train.lr: Input should be a finite number, found nan"),
        ({"model__dropout": 1}, "model.dropout: Input should be less than 1, found 1"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0, found -1"),
        ({"fusion": ["gate"]}, "fusion: Input should be a valid string, found ['gate']"),
        ({"embed": None}, "embed: Input should be a valid dictionary or instance of Embed, found None"),
        ({"embed__fields": []}, "embed.fields: Value error, at least one is needed, found []"),
        ({"embed__fields": ["body"]}, "embed.fields.0: Input should be 'title' or 'abstract', found 'body'"),
        ({"embed__model": "big"}, "embed.model: 'lsa' has no models to choose from, found 'big'. Set it to null"),
        ({"graph__relations": ["entity", "entity"]}, "graph.relations: Value error, each may be named once, found ["),
        ({"graph__relations": ["entities"]}, "graph.relations.0: Input should be 'entity', 'category' or 'co_click'"),
        ({"evaluate__unknown_candidates": "first"}, "evaluate.unknown_candidates: Input should be 'last' or 'drop'"),
        ({"evaluate__cold_mask": 87.5}, "evaluate.cold_mask: Input should be less than or equal to 1, found 87.5"),
        ({"evaluate__cold_mask": True}, "evaluate.cold_mask: Input should be a valid number, found True"),
        ({"options": {"gate": 3}}, "options.gate: Input should be a valid dictionary, found 3"),
        ({"encoders__llm": "off"}, "encoders.llm: Input should be a valid boolean, found 'off'"),
        ({"plugin_packages": {"guest": 0.1}}, "plugin_packages.guest: found 0.1, which is no text: write"),
    ],
)
def test_a_wrong_value_is_told_with_its_place(load_with: Load, changes: dict[str, object], message: str) -> None:
    assert mistake(load_with, **changes).startswith(f"params.yaml: {message}")


@pytest.mark.parametrize("name", ["../x", "a/b", "", "/etc", "..", ".hidden", "a\\b", "a b", "a\n", "-rf", 5, None])
def test_a_data_set_has_the_name_of_one_folder(load_with: Load, name: object) -> None:
    assert mistake(load_with, dataset=name).startswith("params.yaml: dataset: ")


def test_every_mistake_is_reported_at_once(load_with: Load) -> None:
    changes = {"fusion": "gaet", "train__epochs": -1, "train__epoch": 1, "model": {}, "user_encoder": "meen"}
    assert [line.split(": ")[1] for line in mistakes(load_with, **changes)] == [
        "model.dim",
        "model.dropout",
        "model.history",
        "train.epochs",
        "train.epoch",
        "fusion",
        "user_encoder",
    ]


def test_wrong_options_of_several_plugins_are_reported_at_once(load_with: Load) -> None:
    wrong = {"lsa": {"ngrams": 9, "gram": 1}, "attention": {"heads": 0}}
    places = [line.split(": ")[1] for line in mistakes(load_with, options=wrong)]
    assert places == ["options.lsa.ngrams", "options.lsa.gram", "options.attention.heads"]


@pytest.mark.parametrize("encoders", [{"llm": False, "gnn": False}, {}])
def test_a_model_without_any_encoder_is_refused(load_with: Load, encoders: dict[str, bool]) -> None:
    off = "gnn, llm" if encoders else "none is named"
    message = f"encoders: at least one encoder is needed, all are off ({off}). Switch one on: -S encoders.llm=true"
    assert mistake(load_with, encoders=encoders) == f"params.yaml: {message}"


def test_an_encoder_that_is_off_needs_a_name_that_exists_but_is_not_loaded(project: Path, load_with: Load) -> None:
    (project / "plugins").unlink()
    for kind in ("embedders", "encoders", "fusions", "user_encoders"):
        (project / "plugins" / kind).mkdir(parents=True)
        for file in (ROOT / "plugins" / kind).glob("*.py"):
            (project / "plugins" / kind / file.name).write_bytes(file.read_bytes())
    (project / "plugins" / "encoders" / "gnn.py").write_text("broken(", encoding="utf-8")
    assert load_with().chosen_encoders == ("category", "llm")


def test_the_chosen_plugins_are_listed_with_the_views_in_sorted_order(load_with: Load) -> None:
    kinds = [(kind.__name__, name) for kind, name in load_with(fusion="gate").chosen]
    assert kinds == [
        ("Embedder", "lsa"),
        ("Encoder", "category"),
        ("Encoder", "llm"),
        ("Fusion", "gate"),
        ("UserEncoder", "attention"),
    ]


def test_a_fusion_and_a_user_encoder_of_one_name_share_their_options(project: Path, load_with: Load) -> None:
    given = load_with(options={"attention": {"heads": 2}}).options
    _, registry = load(project)
    assert options(registry, UserEncoder, "attention", given).model_dump() == {"heads": 2}
    assert options(registry, Fusion, "attention", given).model_dump() == {}


def test_options_of_a_namesake_that_is_not_chosen_are_no_mistake(load_with: Load) -> None:
    assert load_with(options={"attention": {"heads": 2}}, user_encoder="mean").user_encoder == "mean"


def test_a_broken_namesake_hurts_nobody_who_does_not_choose_it(project: Path, load_with: Load) -> None:
    (project / "plugins").unlink()
    for kind in ("embedders", "encoders", "fusions"):
        (project / "plugins" / kind).parent.mkdir(exist_ok=True)
        (project / "plugins" / kind).symlink_to(ROOT / "plugins" / kind)
    users = project / "plugins" / "user_encoders"
    users.mkdir()
    (users / "mean.py").write_bytes((ROOT / "plugins" / "user_encoders" / "mean.py").read_bytes())
    (users / "attention.py").write_text("broken(", encoding="utf-8")
    assert load_with(fusion="attention", user_encoder="mean", options={"attention": {}}).fusion == "attention"


def test_options_not_given_are_the_plugin_s_own_defaults(project: Path, load_with: Load) -> None:
    load_with(options={})
    _, registry = load(project)
    assert options(registry, UserEncoder, "attention", {}).model_dump() == {"heads": 4}
    assert options(registry, Encoder, "llm", {}).model_config["frozen"]


def test_params_cannot_be_changed_after_reading(load_with: Load) -> None:
    params = load_with()
    with pytest.raises(ValidationError, match="frozen"):
        params.seed = 1  # type: ignore[misc]  # the point
    with pytest.raises(ValidationError, match="frozen"):
        params.train.epochs = 1  # type: ignore[misc]  # the point


def test_a_number_that_yaml_takes_for_text_is_a_number(load_with: Load) -> None:
    assert load_with(train__lr="3e-4").train.lr == pytest.approx(0.0003)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(b"a: [", "params.yaml: not readable as YAML: ", id="unclosed list"),
        pytest.param(b"a: b: c", "params.yaml: not readable as YAML: ", id="two colons"),
        pytest.param(b"a: !!python/object:os.system {}", "params.yaml: not readable as YAML: ", id="a Python object"),
        pytest.param(b"a: 2024-13-45", "params.yaml: not readable as YAML: month must be in 1..12", id="no such date"),
        pytest.param(b"a: \xff", "params.yaml: not readable as YAML: ", id="not UTF-8"),
        pytest.param(b"", "params.yaml: holds None, expected lines such as 'dataset: tiny'", id="empty"),
        pytest.param(b"- a", "params.yaml: holds ['a'], expected lines such as 'dataset: tiny'", id="a list"),
        pytest.param(b"dataset", "params.yaml: holds 'dataset', expected lines such as", id="a word"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(project: Path, text: bytes, message: str) -> None:
    (project / "params.yaml").write_bytes(text)
    with pytest.raises(ParamsError) as caught:
        load(project)
    assert str(caught.value).startswith(message)


def test_a_missing_file_is_told_with_the_folder(project: Path) -> None:
    with pytest.raises(
        ParamsError, match=rf"^params\.yaml: not found in {project}; run this in the root of a newsfuse"
    ):
        load(project)


def test_keys_that_are_no_text_are_told(project: Path) -> None:
    (project / "params.yaml").write_text("1: 2\n", encoding="utf-8")
    with pytest.raises(ParamsError, match=r"params\.yaml: 1: Keys should be strings"):
        load(project)


@pytest.mark.parametrize("version", [1.0, 2, None, True])
def test_a_version_that_yaml_reads_as_something_else_is_told_to_be_quoted(load_with: Load, version: object) -> None:
    remedy = "write the exact version, in quotes, or YAML takes it for something else"
    expected = f"params.yaml: plugin_packages.newsfuse-headline: found {version!r}, which is no text: {remedy}"
    headline = {**LIGHT, "headline": True}  # not told to be unknown: what the package offers is not known
    assert mistake(load_with, plugin_packages={"newsfuse-headline": version}, encoders=headline) == expected


def test_a_package_that_is_not_as_listed_is_told_before_anything_else(load_with: Load) -> None:
    with pytest.raises(PluginError, match="'newsfuse-absent' is not installed"):
        load_with(plugin_packages={"newsfuse-absent": "0.1.0"}, fusion="gaet")


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWSFUSE_NO_PLUGINS", "1")


@pytest.mark.usefixtures("without_packages")
def test_without_packages_what_is_off_may_be_theirs(load_with: Load) -> None:
    off = {**LIGHT, "headline": False}
    params = load_with(plugin_packages={"newsfuse-absent": "0.1.0"}, encoders=off, options={"headline": {"width": 3}})
    assert params.chosen_encoders == ("category", "llm")


@pytest.mark.usefixtures("without_packages")
def test_without_packages_what_is_on_is_refused_with_the_variable(load_with: Load) -> None:
    told = mistake(load_with, plugin_packages={"newsfuse-absent": "0.1.0"}, encoders={**LIGHT, "headline": True})
    assert told.startswith("params.yaml: encoders.headline: no encoder plugin is called 'headline'.")
    assert told.endswith(". NEWSFUSE_NO_PLUGINS is set, so no installed package is looked at (newsfuse-absent)")


@pytest.mark.usefixtures("without_packages")
def test_without_packages_a_slip_is_told_where_none_is_listed(load_with: Load) -> None:
    assert "NEWSFUSE_NO_PLUGINS" not in mistake(load_with, encoders={**LIGHT, "headline": False})


def test_a_wrong_list_of_packages_is_a_mistake_among_others(project: Path, load_with: Load) -> None:
    places = [line.split(": ")[1] for line in mistakes(load_with, plugin_packages=["guest"], fusion="gaet")]
    assert places == ["plugin_packages", "fusion"]
    assert packages(project) == {}
