"""Plugins and stages: only what was asked for is loaded, and what is wrong with it is told by name."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn

from newsfuse import catalogue
from newsfuse.errors import ParamsError, PluginError
from newsfuse.offers import KEPT, is_kept
from newsfuse.params import load
from newsfuse.plugin import Embedder, Encoder, Fusion, Need, Plugin, UserEncoder
from newsfuse.registry import FOLDERS, Registry
from newsfuse.testing import settings
from newsfuse.testing.contract import PromiseError

ROOT = Path(__file__).parent.parent
PLUGIN = """
from newsfuse import {kind}, hookimpl

def build(*arguments):
    return "{name}"

@hookimpl
def newsfuse_{folder}():
    return [{kind}("{name}", build)]
"""
NEWS_LINE = "N{number}\tsports\tgolf\tTitle {number} of golf\tAbstract\turl\t[]\t[]\n"


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """An empty plugins folder."""
    for folder in FOLDERS.values():
        (tmp_path / "plugins" / folder).mkdir(parents=True)
    return tmp_path / "plugins"


def add(plugins: Path, name: str, source: str, folder: str = "fusions") -> Path:
    path = plugins / folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    return path


def plugin(name: str, kind: type[Plugin] = Fusion) -> str:
    """A module with one plugin, a fusion unless another kind is asked for."""
    return PLUGIN.format(name=name, kind=kind.__name__, folder=FOLDERS[kind])


def build(*arguments: Any) -> Any:  # noqa: ANN401 - fits every kind
    return arguments


def refusal(registry: Registry, name: str) -> str:
    with pytest.raises(PluginError) as caught:
        registry.load(Fusion, name)
    assert caught.value.exit_code == 9
    return str(caught.value)


def test_a_file_is_a_plugin(plugins: Path) -> None:
    add(plugins, "mine", plugin("mine"))
    registry = Registry(plugins, {})
    assert registry.names(Fusion) == ["mine"]
    assert registry.load(Fusion, "mine").build(1, [1.0], None) == "mine"  # type: ignore[comparison-overlap]
    assert registry.origin(Fusion, "mine") == "plugins/fusions/mine.py"


def test_a_plugin_is_imported_once(plugins: Path) -> None:
    add(plugins, "mine", plugin("mine"))
    registry = Registry(plugins, {})
    assert registry.load(Fusion, "mine") is registry.load(Fusion, "mine")


def test_a_file_that_starts_with_an_underscore_is_none(plugins: Path) -> None:
    add(plugins, "_shared", "")
    assert Registry(plugins, {}).names(Fusion) == []


def test_an_unknown_name_is_told_with_the_nearest(plugins: Path) -> None:
    add(plugins, "mine", plugin("mine"))
    message = refusal(Registry(plugins, {}), "mime")
    assert message == "plugins: no fusion plugin is called 'mime'. Did you mean 'mine'? Known: mine"


OFFER = "from newsfuse import Encoder, Fusion, hookimpl\n@hookimpl\n"
WRONG = {
    "import": ("import no_such_module", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'", 1),
    "raises": ("\n\n1 / 0", "cannot be loaded: ZeroDivisionError: division by zero", 3),
    "syntax": ("x = 1\ndef broken(", "cannot be loaded: SyntaxError: '(' was never closed", 2),
    "nothing": ("", "found none in plugins/fusions/nothing.py, which offers nothing: is @hookimpl missing?", None),
    "unmarked": ("def newsfuse_fusions(): return []", "one Fusion called 'unmarked' is expected, found none in", None),
    "misspelt": (OFFER + "def newsfuse_fusion(): return []", "unknown hook 'newsfuse_fusion' in plugin", 2),
    "signature": (OFFER + "def newsfuse_fusions(dim): return []", "Argument(s) {'dim'} are declared in the", 2),
    "name": (plugin("nome"), "found none in plugins/fusions/name.py, which offers Fusion 'nome'", None),
    "type": (OFFER + "def newsfuse_fusions(): return [7]", "offers [7], expected a list of newsfuse.Fusion", 2),
    "kind": (OFFER + "def newsfuse_fusions(): return [Encoder('kind', 1)]", "expected a list of newsfuse.Fusion", 2),
    "subclass": (
        OFFER + "def newsfuse_fusions(): return [type('Sub', (Fusion,), {})('subclass', print)]",
        "expected a list of newsfuse.Fusion itself, not of a subclass",
        2,
    ),
    "single": (OFFER + "def newsfuse_fusions(): return Fusion('single', 1)", "expected a list of newsfuse.Fusion", 2),
    "none": (OFFER + "def newsfuse_fusions(): pass", "offers None, expected a list of newsfuse.Fusion", 2),
    "hook": (OFFER + "def newsfuse_fusions():\n raise OSError('x')", "OSError: x", 4),
    "number": (OFFER + "def newsfuse_fusions(): return [Fusion('number', 1)]", "Fusion 'number': build is 1, expec", 2),
    "build": (
        OFFER + "def newsfuse_fusions(): return [Fusion('build', lambda dim: 1)]",
        "Fusion 'build': build takes (dim), expected a function build(dim, start, options): too many positional",
        3,
    ),
    "params": (
        OFFER + "def newsfuse_fusions(): return [Fusion('params', print, params=dict)]",
        "Fusion 'params': params is <class 'dict'>, expected a subclass of newsfuse.Options",
        2,
    ),
    "lazy": (OFFER + "def newsfuse_fusions():\n yield 1 / 0", "ZeroDivisionError: division by zero", 4),
}
"""By name: the file, what is told about it, and the line that is named."""


@pytest.mark.parametrize("name", WRONG)
def test_a_broken_plugin_is_told_with_file_and_line(plugins: Path, name: str) -> None:
    source, message, line = WRONG[name]
    path = add(plugins, name, source)
    told = refusal(Registry(plugins, {}), name)
    assert told.startswith(f"plugins/fusions/{name}.py: ")
    assert message in told
    assert line is None or told.endswith(f"({path}:{line})")


@pytest.mark.parametrize("name", WRONG)
def test_a_broken_plugin_hurts_no_other(plugins: Path, name: str) -> None:
    add(plugins, name, WRONG[name][0])
    add(plugins, "good", plugin("good"))
    registry = Registry(plugins, {})
    refusal(registry, name)
    assert registry.load(Fusion, "good").name == "good"


@pytest.mark.parametrize("name", WRONG)
def test_a_broken_plugin_stays_broken_when_asked_for_again(plugins: Path, name: str) -> None:
    add(plugins, name, WRONG[name][0])
    registry = Registry(plugins, {})
    assert refusal(registry, name) == refusal(registry, name)


def test_two_offers_of_one_name_name_both_files(plugins: Path) -> None:
    add(plugins, "good", plugin("good"))
    add(plugins, "copy", plugin("copy").replace('[Fusion("copy"', '[Fusion("good", build), Fusion("copy"'))
    registry = Registry(plugins, {})
    assert registry.load(Fusion, "copy").name == "copy"
    both = "plugins/fusions/copy.py and plugins/fusions/good.py"
    expected = f"plugins/fusions/good.py: one Fusion called 'good' is expected, found {both}"
    assert refusal(registry, "good") == expected


def test_one_file_may_not_offer_a_name_twice(plugins: Path) -> None:
    add(plugins, "twin", plugin("twin").replace("build)]", 'build), Fusion("twin", build)]'))
    told = refusal(Registry(plugins, {}), "twin")
    assert told.endswith("found plugins/fusions/twin.py and plugins/fusions/twin.py")


def test_the_same_name_in_two_kinds_is_two_plugins(plugins: Path) -> None:
    add(plugins, "same", plugin("same"))
    add(plugins, "same", plugin("same", Encoder), "encoders")
    registry = Registry(plugins, {})
    assert isinstance(registry.load(Fusion, "same"), Fusion)
    assert isinstance(registry.load(Encoder, "same"), Encoder)


def install(site: Path, name: str, modules: dict[str, str], version: str = "0.1.0") -> None:
    """An installed distribution with a plugin module (name -> source) for each of its entry points."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    points = "".join(f"{module.removeprefix('guest_')} = {module}\n" for module in modules)
    (info / "entry_points.txt").write_text(f"[newsfuse]\n{points}\n[console_scripts]\nx = y:z\n", encoding="utf-8")
    for module, source in modules.items():
        (site / f"{module}.py").write_text(source, encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages; what is imported from there is forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    for name in ("headline", "footline", "other"):
        monkeypatch.delitem(sys.modules, f"guest_{name}", raising=False)
    return folder


def test_a_listed_package_loads_with_its_name_and_version(plugins: Path, site: Path) -> None:
    install(site, "newsfuse-headline", {"guest_headline": plugin("headline")})
    registry = Registry(plugins, {"newsfuse-headline": "0.1.0"})
    assert registry.names(Fusion) == ["headline"]
    assert registry.load(Fusion, "headline").name == "headline"
    assert registry.origin(Fusion, "headline") == "newsfuse-headline 0.1.0 (guest_headline)"


def test_a_package_may_have_several_plugin_modules(plugins: Path, site: Path) -> None:
    install(site, "guest", {"guest_headline": plugin("headline"), "guest_footline": plugin("footline")})
    registry = Registry(plugins, {"guest": "0.1.0"})
    assert [registry.load(Fusion, name).name for name in ("headline", "footline")] == ["headline", "footline"]


def test_a_package_that_is_not_listed_runs_no_code(plugins: Path, site: Path) -> None:
    install(site, "guest", {"guest_headline": "raise SystemExit('ran')"})
    assert Registry(plugins, {}).names(Fusion) == []
    assert "guest_headline" not in sys.modules


def test_a_listed_package_that_is_not_asked_for_is_not_imported(plugins: Path, site: Path) -> None:
    install(site, "guest", {"guest_headline": plugin("headline"), "guest_other": "raise SystemExit('ran')"})
    registry = Registry(plugins, {"guest": "0.1.0"})
    assert registry.names(Fusion) == ["headline", "other"]
    registry.load(Fusion, "headline")
    assert "guest_other" not in sys.modules


def test_a_package_of_another_version_is_refused_before_it_runs(plugins: Path, site: Path) -> None:
    install(site, "guest", {"guest_headline": plugin("headline")}, version="0.2.0")
    with pytest.raises(PluginError) as caught:
        Registry(plugins, {"guest": "0.1.0"})
    choice = 'Install the one: pip install guest==0.1.0, or list the other: {"guest": "0.2.0"}'
    wrong = "params.yaml: plugin_packages: 'guest' 0.1.0 is asked for, 0.2.0 is installed"
    assert str(caught.value) == f"{wrong}. {choice}"
    assert "guest_headline" not in sys.modules


def test_a_package_that_is_not_installed_is_told_with_the_command(plugins: Path) -> None:
    command = r"pip install newsfuse-absent==0\.1\.0"
    with pytest.raises(PluginError, match=rf"'newsfuse-absent' is not installed\. Install it: {command}$"):
        Registry(plugins, {"newsfuse-absent": "0.1.0"})


@pytest.mark.parametrize("name", ["", " ", "two words", "-x", "newsfuse-headline==0.1.0"])
def test_a_name_that_no_package_can_have_is_told(plugins: Path, name: str) -> None:
    with pytest.raises(PluginError, match=f"'{name}' is no name of a package; expected such as newsfuse-headline$"):
        Registry(plugins, {name: "0.1.0"})


def test_everything_that_is_wrong_with_the_packages_is_told_at_once(plugins: Path, site: Path) -> None:
    install(site, "guest", {"guest_headline": plugin("headline")}, version="0.2.0")
    with pytest.raises(PluginError) as caught:
        Registry(plugins, {"guest": "0.1.0", "absent": "1"})
    assert [line.split("'")[1] for line in str(caught.value).splitlines()] == ["guest", "absent"]


@pytest.mark.parametrize("name", ["newsfuse-headline", "newsfuse_headline", "Newsfuse.Headline"])
def test_a_package_is_found_by_every_spelling_of_its_name(plugins: Path, site: Path, name: str) -> None:
    install(site, "newsfuse-headline", {"guest_headline": plugin("headline")})
    registry = Registry(plugins, {name: "0.1.0"})
    assert registry.origin(Fusion, "headline") == "newsfuse-headline 0.1.0 (guest_headline)"


def test_two_spellings_of_one_package_are_told(plugins: Path, site: Path) -> None:
    install(site, "newsfuse-headline", {"guest_headline": plugin("headline")})
    with pytest.raises(PluginError) as caught:
        Registry(plugins, {"newsfuse-headline": "0.1.0", "newsfuse_headline": "0.1.0"})
    both = "'newsfuse-headline' and 'newsfuse_headline' are the same package; list it once"
    assert str(caught.value) == f"params.yaml: plugin_packages: {both}"


def test_a_package_that_brings_no_plugin_is_told(plugins: Path, site: Path) -> None:
    install(site, "guest", {})
    message = (
        r"'guest' 0\.1\.0 brings no plugin: it has no entry point in the group 'newsfuse'\. Take it out of the list$"
    )
    with pytest.raises(PluginError, match=message):
        Registry(plugins, {"guest": "0.1.0"})


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("METADATA", b"\xff"),
        ("entry_points.txt", b"\xff"),
        ("entry_points.txt", b"[newsfuse]\nheadline guest_headline\n"),
        ("direct_url.json", b"{"),
    ],
)
def test_a_package_with_damaged_metadata_is_told(plugins: Path, site: Path, file: str, content: bytes) -> None:
    install(site, "guest", {"guest_headline": plugin("headline")})
    (site / "guest-0.1.0.dist-info" / file).write_bytes(content)
    again = r"Install it again: pip install --force-reinstall --no-deps guest==0\.1\.0$"
    with pytest.raises(PluginError, match=rf"the metadata of 'guest' cannot be read: \w+: .*\. {again}"):
        Registry(plugins, {"guest": "0.1.0"})


def test_a_package_without_a_version_is_not_the_one_asked_for(plugins: Path, site: Path) -> None:
    install(site, "guest", {"guest_headline": plugin("headline")})
    (site / "guest-0.1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: guest\n", encoding="utf-8")
    with pytest.raises(PluginError, match=r"'guest'.* (None is installed|cannot be read)"):
        Registry(plugins, {"guest": "0.1.0"})


ASTRAY = {
    "guest_gone": "names a module that is not there, 'guest_gone'",
    "guest_gone.inner": "names a module that is not there, 'guest_gone'",
    "guest_headline:PLUGIN": "names an object that is not there, 'PLUGIN'",
    "guest headline": "is no 'module' or 'module:object'",
}


@pytest.mark.parametrize("value", ASTRAY)
def test_an_entry_point_that_leads_nowhere_is_told(plugins: Path, site: Path, value: str) -> None:
    install(site, "guest", {"guest_headline": plugin("headline")})
    points = site / "guest-0.1.0.dist-info" / "entry_points.txt"
    points.write_text(f"[newsfuse]\nheadline = {value}\n", encoding="utf-8")
    told = refusal(Registry(plugins, {"guest": "0.1.0"}), "headline")
    entry = f"its entry point headline = {value} {ASTRAY[value]}"
    assert told == f"guest 0.1.0 ({value}): cannot be loaded: {entry} (installed in {site})"


def test_a_module_that_a_package_lacks_is_told_with_the_line_of_the_import(plugins: Path, site: Path) -> None:
    install(site, "guest", {"guest_headline": "\nimport no_such_module"})
    told = refusal(Registry(plugins, {"guest": "0.1.0"}), "headline")
    assert told.endswith(f"ModuleNotFoundError: No module named 'no_such_module' ({site / 'guest_headline.py'}:2)")


def test_an_entry_point_may_name_an_object(plugins: Path, site: Path) -> None:
    source = plugin("headline").replace("@hookimpl\ndef", "class Plugins:\n  @staticmethod\n  @hookimpl\n  def")
    install(site, "guest", {"guest_headline": source.replace("    return [", "      return [")})
    points = site / "guest-0.1.0.dist-info" / "entry_points.txt"
    points.write_text("[newsfuse]\nheadline = guest_headline:Plugins\n", encoding="utf-8")
    assert Registry(plugins, {"guest": "0.1.0"}).load(Fusion, "headline").name == "headline"


def test_two_entry_points_may_name_one_module(plugins: Path, site: Path) -> None:
    both = plugin("headline").replace("build)]", 'build), Fusion("abstract", build)]')
    install(site, "guest", {"guest_headline": both})
    points = site / "guest-0.1.0.dist-info" / "entry_points.txt"
    points.write_text("[newsfuse]\nheadline = guest_headline\nabstract = guest_headline\n", encoding="utf-8")
    registry = Registry(plugins, {"guest": "0.1.0"})
    assert [registry.load(Fusion, name).name for name in ("headline", "abstract")] == ["headline", "abstract"]


def test_two_packages_with_one_module_are_told(plugins: Path, site: Path) -> None:
    install(site, "one", {"guest_headline": plugin("headline")})
    install(site, "two", {"guest_headline": plugin("headline")})
    (site / "two-0.1.0.dist-info/entry_points.txt").write_text("[newsfuse]\nother = guest_headline\n", encoding="utf-8")
    registry = Registry(plugins, {"one": "0.1.0", "two": "0.1.0"})
    assert registry.load(Fusion, "headline").name == "headline"
    assert refusal(registry, "other").startswith("two 0.1.0 (guest_headline): ")


def test_a_plugin_that_ends_the_program_when_imported_is_told(plugins: Path, site: Path) -> None:
    install(site, "guest", {"guest_headline": "\nraise SystemExit('ran')"})
    told = refusal(Registry(plugins, {"guest": "0.1.0"}), "headline")
    wrong = "guest 0.1.0 (guest_headline): cannot be loaded: SystemExit: ran"
    assert told == f"{wrong} ({site / 'guest_headline.py'}:2)"


@pytest.mark.parametrize("ours", [KeyboardInterrupt, MemoryError])
def test_ctrl_c_while_a_plugin_is_imported_is_not_its_fault(plugins: Path, ours: type[BaseException]) -> None:
    add(plugins, "mine", f"raise {ours.__name__}")
    with pytest.raises(ours):
        Registry(plugins, {}).load(Fusion, "mine")


def test_sigterm_while_a_plugin_is_imported_ends_the_stage_and_is_not_its_fault(plugins: Path) -> None:
    add(plugins, "mine", "from newsfuse.stage import _terminate\n_terminate(15, None)")
    with pytest.raises(SystemExit) as caught:
        Registry(plugins, {}).load(Fusion, "mine")
    assert caught.value.code == 143


def test_a_package_whose_code_may_change_says_so(plugins: Path, site: Path, caplog: pytest.LogCaptureFixture) -> None:
    install(site, "guest", {"guest_headline": plugin("headline")})
    source = '{"url": "file:///home/you/guest", "dir_info": {"editable": true}}'
    (site / "guest-0.1.0.dist-info" / "direct_url.json").write_text(source, encoding="utf-8")
    registry = Registry(plugins, {"guest": "0.1.0"})
    registry.load(Fusion, "headline")
    origin = "guest 0.1.0 (guest_headline, editable)"
    assert registry.origin(Fusion, "headline") == origin
    assert caplog.messages == [f"{origin}: DVC sees its version only. After an edit: dvc repro --force train"]


def test_a_broken_package_is_told_with_version_and_line(plugins: Path, site: Path) -> None:
    install(site, "guest", {"guest_headline": "\n1 / 0"})
    told = refusal(Registry(plugins, {"guest": "0.1.0"}), "headline")
    expected = "guest 0.1.0 (guest_headline): cannot be loaded: ZeroDivisionError: division by zero"
    assert told == f"{expected} ({site / 'guest_headline.py'}:2)"


def test_a_package_asked_for_as_another_kind_than_it_offers_is_told(plugins: Path, site: Path) -> None:
    install(site, "guest", {"guest_headline": plugin("headline", Encoder)})
    told = refusal(Registry(plugins, {"guest": "0.1.0"}), "headline")
    origin = "guest 0.1.0 (guest_headline)"
    found = f"found none in {origin}, which offers Encoder 'headline'"
    assert told == f"{origin}: one Fusion called 'headline' is expected, {found}"


def test_two_packages_may_not_offer_one_name(plugins: Path, site: Path) -> None:
    install(site, "one", {"guest_headline": plugin("headline")})
    install(site, "two", {"guest_headline": plugin("headline")})
    found = r"one 0\.1\.0 \(guest_headline\) and two 0\.1\.0 \(guest_headline\) both offer 'headline'"
    with pytest.raises(PluginError, match=found):
        Registry(plugins, {"one": "0.1.0", "two": "0.1.0"})


WRONG_ENCODERS = {
    "needs='embeddings'": "needs is 'embeddings', expected a frozenset of Need.EMBEDDINGS, Need.GRAPH",
    "needs={'titles'}": "needs is {'titles'}, expected a frozenset of Need.EMBEDDINGS, Need.GRAPH",
    "needs=set()": "needs is set(), expected a frozenset of Need.EMBEDDINGS, Need.GRAPH",
    "prior=0": "prior is 0, expected a number above 0",
    "prior=float('nan')": "prior is nan, expected a number above 0",
}


@pytest.mark.parametrize("setting", WRONG_ENCODERS)
def test_an_encoder_that_declares_what_makes_no_sense_is_told(plugins: Path, setting: str) -> None:
    path = add(plugins, "mine", plugin("mine", Encoder).replace("build)", f"build, {setting})"), "encoders")
    with pytest.raises(PluginError) as caught:
        Registry(plugins, {}).load(Encoder, "mine")
    assert str(caught.value).startswith(f"plugins/encoders/mine.py: Encoder 'mine': {WRONG_ENCODERS[setting]}")
    assert str(caught.value).endswith(f"({path}:7)")


@pytest.mark.parametrize("name", ["fusion", "user_encoder", "type", "keys"])
def test_an_encoder_called_as_the_model_calls_a_part_of_its_own_is_told(plugins: Path, name: str) -> None:
    path = add(plugins, name, plugin(name, Encoder), "encoders")
    with pytest.raises(PluginError) as caught:
        Registry(plugins, {}).load(Encoder, name)
    kept = f"'{name}' is a name that the model keeps for itself. Choose another, such as 'my_{name}'"
    assert str(caught.value) == f"plugins/encoders/{name}.py: {kept} ({path}:7)"


@pytest.mark.parametrize("name", ["fusion", "keys"])
def test_plugins_of_other_kinds_may_be_called_so(plugins: Path, name: str) -> None:
    add(plugins, name, plugin(name))
    assert Registry(plugins, {}).load(Fusion, name).name == name


@pytest.mark.parametrize("name", ["fusion", "user_encoder", "type", "keys"])
def test_the_kit_refuses_the_names_that_loading_refuses(name: str) -> None:
    with pytest.raises(PromiseError, match=f"'{name}' is a name that the model keeps for itself"):
        settings.its_name_can_be_used(Encoder(name, build))
    settings.its_name_can_be_used(UserEncoder(name, build))


def test_the_kit_refuses_a_plain_set_of_needs() -> None:
    made = Encoder("mine", build, needs={Need.TEXTS})  # type: ignore[arg-type]
    with pytest.raises(PromiseError, match=r"needs is \{<Need\.TEXTS: 'texts'>\}, expected a frozenset"):
        settings.it_is_described_in_the_types_asked_for(made)


@pytest.mark.parametrize("kind", FOLDERS)
def test_the_kit_refuses_a_subclass_of_a_kind(kind: type[Plugin]) -> None:
    settings.it_is_described_in_the_types_asked_for(kind("mine", build))
    with pytest.raises(PromiseError, match=f"it is of a subclass of newsfuse.{kind.__name__}, 'Sub'"):
        settings.it_is_described_in_the_types_asked_for(type("Sub", (kind,), {})("mine", build))


def test_every_name_of_torch_is_known_as_kept() -> None:
    module = nn.ModuleDict()
    assert [name for name in dir(module) if not is_kept(name)] == []
    assert [name for name in KEPT if not name.isidentifier()] == []


LINK = '"""Vectors of a guest."""\n\nPACKAGE = "{}"\n'


def linked(plugins: Path, site: Path, link: str = LINK.format("newsfuse-foo==1.2.0")) -> Path:
    install(site, "newsfuse-foo", {"guest_other": plugin("other", Embedder)}, version="1.2.0")
    return add(plugins, "other", link, "embedders")


def unlinked(registry: Registry) -> str:
    with pytest.raises(PluginError) as caught:
        registry.load(Embedder, "other")
    return str(caught.value)


@pytest.mark.parametrize("link", ["newsfuse-foo==1.2.0", "Newsfuse_Foo == 1.2.0"])
def test_a_link_stands_for_the_plugin_of_a_package(plugins: Path, site: Path, link: str) -> None:
    linked(plugins, site, LINK.format(link))
    registry = Registry(plugins, {"newsfuse-foo": "1.2.0"})
    assert registry.load(Embedder, "other").name == "other"
    assert registry.origin(Embedder, "other") == "newsfuse-foo 1.2.0 (guest_other)"


def test_a_link_may_stand_for_a_plugin_of_any_kind(plugins: Path, site: Path) -> None:
    install(site, "guest", {"guest_headline": plugin("headline")})
    add(plugins, "headline", LINK.format("guest==0.1.0"))
    assert Registry(plugins, {"guest": "0.1.0"}).load(Fusion, "headline").name == "headline"


def test_a_link_to_a_package_that_is_not_listed_is_told_and_runs_no_code(plugins: Path, site: Path) -> None:
    path = linked(plugins, site)
    wrong = "links newsfuse-foo 1.2.0, but params.yaml: plugin_packages does not list it"
    told = unlinked(Registry(plugins, {}))
    assert told == f'plugins/embedders/other.py: {wrong}. Write there newsfuse-foo: "1.2.0" ({path}:3)'
    assert "guest_other" not in sys.modules


def test_a_link_to_another_version_than_is_listed_is_told(plugins: Path, site: Path) -> None:
    path = linked(plugins, site, LINK.format("newsfuse-foo==1.3.0"))
    wrong = "links newsfuse-foo 1.3.0, but params.yaml: plugin_packages lists 1.2.0"
    told = unlinked(Registry(plugins, {"newsfuse-foo": "1.2.0"}))
    fix = 'Write there newsfuse-foo: "1.3.0", or change the link'
    assert told == f"plugins/embedders/other.py: {wrong}. {fix} ({path}:3)"


def test_a_link_is_called_as_the_plugin_that_it_stands_for(plugins: Path, site: Path) -> None:
    path = linked(plugins, site).rename(plugins / "embedders" / "mine.py")
    with pytest.raises(PluginError) as caught:
        Registry(plugins, {"newsfuse-foo": "1.2.0"}).load(Embedder, "mine")
    wrong = "links newsfuse-foo 1.2.0, which offers no 'mine' but other; the file must be called as the plugin is"
    assert str(caught.value) == f"plugins/embedders/mine.py: {wrong} ({path}:3)"


@pytest.mark.parametrize(
    "line",
    ["PACKAGE = 'newsfuse-foo'", "PACKAGE = 'a>=1'", "PACKAGE = 1", "PACKAGE = f()", "PACKAGE: str", "PACKAGE += ''"],
)
def test_a_link_that_is_no_name_with_a_version_is_told(plugins: Path, site: Path, line: str) -> None:
    path = linked(plugins, site, f"{line}\n")
    expected = 'is no link to a package; expected such as PACKAGE = "newsfuse-headline==0.1.0"'
    told = unlinked(Registry(plugins, {"newsfuse-foo": "1.2.0"}))
    assert told == f"plugins/embedders/other.py: {line} {expected} ({path}:1)"


@pytest.mark.parametrize("beside", [plugin("other", Embedder), "import os\n", 'PACKAGE = "b==1"\n'])
def test_a_link_beside_other_code_is_told_and_runs_none_of_it(plugins: Path, site: Path, beside: str) -> None:
    path = linked(plugins, site, LINK.format("newsfuse-foo==1.2.0") + beside)
    told = unlinked(Registry(plugins, {"newsfuse-foo": "1.2.0"}))
    assert told.startswith("plugins/embedders/other.py: PACKAGE makes the file a link to a package, and then nothing")
    assert f"({path}:" in told
    assert "plugins.embedders.other" not in sys.modules


def test_an_embedder_of_a_package_asks_for_a_link(plugins: Path, site: Path) -> None:
    registry = Registry(plugins, {})
    assert registry.unlinked("other") is None
    linked(plugins, site).unlink()
    registry = Registry(plugins, {"newsfuse-foo": "1.2.0"})
    where = "'other' comes from newsfuse-foo 1.2.0 (guest_other), and DVC watches a file for each embedder"
    assert registry.unlinked("other") == f'{where}. Write plugins/embedders/other.py: PACKAGE = "newsfuse-foo==1.2.0"'


def test_without_packages_none_is_looked_at(plugins: Path, site: Path) -> None:
    linked(plugins, site)
    registry = Registry(plugins, {"newsfuse-foo": "1.2.0", "newsfuse-absent": "1"}, shut=True)
    assert registry.names(Fusion) == []
    told = unlinked(registry)
    wrong = "links newsfuse-foo 1.2.0. NEWSFUSE_NO_PLUGINS is set, so no installed package is looked at"
    assert told.startswith(f"plugins/embedders/other.py: {wrong}")
    assert "guest_other" not in sys.modules


def test_a_file_wins_over_a_package_of_the_same_name(plugins: Path, site: Path) -> None:
    install(site, "guest", {"guest_headline": "raise SystemExit('ran')"})
    add(plugins, "headline", plugin("headline"))
    registry = Registry(plugins, {"guest": "0.1.0"})
    assert registry.load(Fusion, "headline").name == "headline"
    assert registry.origin(Fusion, "headline") == "plugins/fusions/headline.py"


def test_namesakes_are_the_plugins_of_all_kinds_with_that_name(plugins: Path, site: Path) -> None:
    both = plugin("headline") + plugin("headline", Encoder)
    install(site, "guest", {"guest_headline": both})
    add(plugins, "headline", plugin("headline", UserEncoder), "user_encoders")
    namesakes = Registry(plugins, {"guest": "0.1.0"}).namesakes("headline", Fusion)
    assert [type(each) for each in namesakes] == [Fusion, Encoder, UserEncoder]


def test_the_catalogue_lists_every_shipped_file() -> None:
    rows = list(catalogue.rows(Registry(ROOT / "plugins", {})))
    files = {f"plugins/{path.relative_to(ROOT / 'plugins')}" for path in (ROOT / "plugins").glob("*/[!_]*.py")}
    assert {origin for _, _, origin, _, _ in rows} == files
    assert [row for row in rows if row[3].startswith("broken")] == []
    assert ("user encoder", "attention", "plugins/user_encoders/attention.py", "heads: 4", "") in rows
    assert ("encoder", "llm", "embeddings") in {(kind, name, needs) for kind, name, _, _, needs in rows}


def test_the_catalogue_shows_broken_plugins_beside_good_ones(plugins: Path) -> None:
    for name, (source, _, _) in WRONG.items():
        add(plugins, name, source)
    add(plugins, "good", plugin("good"))
    rows = {name: settings for _, name, _, settings, _ in catalogue.rows(Registry(plugins, {}))}
    assert rows.pop("good") == ""
    assert sorted(rows) == sorted(WRONG)
    assert all(settings.startswith(f"broken: plugins/fusions/{name}.py: ") for name, settings in rows.items())


def test_the_catalogue_lists_a_package_under_the_kind_it_offers(plugins: Path, site: Path) -> None:
    install(site, "guest", {"guest_headline": plugin("headline", Encoder)})
    rows = list(catalogue.rows(Registry(plugins, {"guest": "0.1.0"})))
    assert rows == [("encoder", "headline", "guest 0.1.0 (guest_headline)", "", "")]


def test_the_catalogue_does_not_hide_a_package_that_offers_nothing(plugins: Path, site: Path) -> None:
    install(site, "guest", {"guest_headline": ""})
    rows = list(catalogue.rows(Registry(plugins, {"guest": "0.1.0"})))
    assert {(name, settings.split(":")[0]) for _, name, _, settings, _ in rows} == {("headline", "broken")}


def test_the_catalogue_tells_which_file_hides_a_package_and_which_links_one(plugins: Path, site: Path) -> None:
    linked(plugins, site)
    install(site, "guest", {"guest_headline": plugin("headline")})
    add(plugins, "headline", plugin("headline"))
    registry = Registry(plugins, {"guest": "0.1.0", "newsfuse-foo": "1.2.0"})
    origins = {name: origin for _, name, origin, _, _ in catalogue.rows(registry)}
    assert origins["other"] == "newsfuse-foo 1.2.0 (guest_other), linked by plugins/embedders/other.py"
    assert origins["headline"] == "plugins/fusions/headline.py, hides guest 0.1.0 (guest_headline)"


def test_the_catalogue_lists_a_package_that_cannot_be_used_beside_all_others(
    plugins: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "guest", {"guest_headline": plugin("headline")})
    wanted = {"plugin_packages": {"guest": "0.1.0", "absent": "1"}}
    (plugins.parent / "params.yaml").write_text(yaml.safe_dump(wanted), encoding="utf-8")
    good, broken = catalogue.listed(plugins.parent)
    assert good == ("fusion", "headline", "guest 0.1.0 (guest_headline)", "", "")
    assert broken[:3] == ("package", "absent", "1")
    assert broken[3].startswith("broken: params.yaml: plugin_packages: 'absent' is not installed")
    monkeypatch.setenv("NEWSFUSE_NO_PLUGINS", "1")
    shut = "NEWSFUSE_NO_PLUGINS is set, so no installed package is looked at"
    assert {(name, settings) for _, name, _, settings, _ in catalogue.listed(plugins.parent)} == {
        ("guest", shut), ("absent", shut)
    }  # fmt: skip


@pytest.mark.parametrize("section", [{"newsfuse-headline": 0.1}, ["newsfuse-headline"], None])
def test_the_catalogue_tells_what_is_wrong_with_the_list_of_packages(plugins: Path, section: object) -> None:
    (plugins.parent / "params.yaml").write_text(yaml.safe_dump({"plugin_packages": section}), encoding="utf-8")
    add(plugins, "good", plugin("good"))
    good, broken = catalogue.listed(plugins.parent)
    with pytest.raises(ParamsError) as caught:
        load(plugins.parent)
    (told,) = [line for line in str(caught.value).splitlines() if "plugin_packages" in line]
    assert good[1] == "good"
    assert broken == ("package", "", "params.yaml", f"broken: {told}", "")


def test_the_command_prints_the_catalogue() -> None:
    command = [sys.executable, "-m", "newsfuse.cli", "plugins"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={"COLUMNS": "200"})
    assert result.returncode == 0, result.stderr
    assert "plugins/fusions/gate.py" in result.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own with four articles, of which the embed stage makes vectors in a second."""
    folder = tmp_path / "a project"
    for name in ("stages", "plugins"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values |= {"encoders": {"llm": True}, "fusion": "mean", "user_encoder": "mean"}
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    for split in ("train", "dev"):
        path = folder / "data" / "tiny" / split / "news.tsv"
        path.parent.mkdir(parents=True)
        path.write_text("".join(NEWS_LINE.format(number=number) for number in range(4)), encoding="utf-8")
    return folder


def set_param(project: Path, name: str, value: object) -> None:
    path = project / "params.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text(encoding="utf-8")) | {name: value}), encoding="utf-8")


def embed(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stages.embed", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, env=environment)


def test_a_stage_that_does_its_work_says_so_with_zero(project: Path) -> None:
    result = embed(project)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    assert sorted(path.name for path in (project / "data/tiny").iterdir()) == ["dev", "embeddings", "train"]


def test_a_mistake_in_params_is_told_without_a_traceback(project: Path) -> None:
    set_param(project, "fusion", "gaet")
    result = embed(project)
    known = "Known: attention, concat, gate, late, mean"
    message = f"ERROR: params.yaml: fusion: no fusion plugin is called 'gaet'. Did you mean 'gate'? {known}\n"
    assert (result.returncode, result.stderr) == (2, message)


def test_a_broken_news_file_is_told_with_its_line_and_leaves_nothing(project: Path) -> None:
    with (project / "data/tiny/dev/news.tsv").open("a", encoding="utf-8") as file:
        file.write("N9\tsports\n")
    result = embed(project)
    assert result.returncode == 3
    assert result.stderr.startswith("ERROR: data/tiny/dev/news.tsv:5: 2 tab-separated columns, expected 8")
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in (project / "data/tiny").iterdir()) == ["dev", "train"]


def test_a_broken_plugin_is_told_before_any_work(project: Path) -> None:
    (project / "plugins/fusions/mean.py").write_text("import no_such_module\n", encoding="utf-8")
    result = embed(project)
    message = "ERROR: plugins/fusions/mean.py: cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"
    assert result.returncode == 9
    assert result.stderr.startswith(message)
    assert not (project / "data/tiny/embeddings").exists()


def test_a_place_that_cannot_be_written_is_a_storage_error(project: Path) -> None:
    (project / "data/tiny/.embeddings.draft").write_text("in the way", encoding="utf-8")
    result = embed(project)
    assert result.returncode == 8
    assert result.stderr.splitlines()[-1].startswith("ERROR: data/tiny/embeddings: could not be written: File exists")


def test_verbose_shows_where_an_error_arose(project: Path) -> None:
    set_param(project, "fusion", "gaet")
    result = embed(project, "--verbose")
    assert result.returncode == 2
    assert result.stderr.startswith("Traceback (most recent call last):")
    assert "newsfuse/params.py" in result.stderr


def test_an_unknown_argument_is_a_usage_error(project: Path) -> None:
    result = embed(project, "--fusion=gate")
    assert result.returncode == 2
    assert "usage: python -m stages.embed" in result.stderr


def test_a_stage_knows_no_other_embedder_than_the_chosen_one(project: Path) -> None:
    (project / "plugins/embedders/openai.py").write_text("raise SystemExit('loaded')\n", encoding="utf-8")
    assert embed(project).returncode == 0


@pytest.mark.parametrize("kind", [Embedder, Encoder, Fusion, UserEncoder])
def test_every_kind_has_a_folder_of_its_own(kind: type[Plugin]) -> None:
    assert (ROOT / "plugins" / FOLDERS[kind]).is_dir()
