"""`newsfuse new`: what it writes passes every check as it stands, and nothing that is there is touched."""

import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml
from project import ROOT, Project, environment
from typer.testing import CliRunner, Result

from newsfuse import testing
from newsfuse.commands.new import COMMANDS
from newsfuse.plugin import Embedder, Encoder, Fusion, UserEncoder
from newsfuse.registry import FOLDERS, Registry
from newsfuse.scaffold import package, plugin_file, template
from newsfuse.scaffold.kind import Kind
from newsfuse.scaffold.name import MOST

KINDS: dict[Kind, type[Embedder | Encoder | Fusion | UserEncoder]] = {
    Kind.ENCODER: Encoder,
    Kind.FUSION: Fusion,
    Kind.EMBEDDER: Embedder,
    Kind.USER_ENCODER: UserEncoder,
}
USED = {
    Kind.ENCODER: "-S +encoders.mine=true",
    Kind.FUSION: "-S fusion=mine",
    Kind.EMBEDDER: "-S embed.provider=mine -S '+options.mine={}'",
    Kind.USER_ENCODER: "-S user_encoder=mine",
}
NAMES = ("x", "v2_text", MOST * "o")
EACH = pytest.mark.parametrize("kind", Kind)
app = typer.Typer()
for command in COMMANDS:
    app.command()(command)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which looks like a project."""
    (tmp_path / "plugins" / "encoders").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is no project."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*") if path.is_file()}


def refused(code: int, *words: str) -> str:
    """What is said when nothing may be written."""
    before = tree(Path())
    done = new(*words)
    assert done.exit_code == code, done.output
    assert tree(Path()) == before
    return done.stderr


# --- a file


@EACH
def test_a_new_file_keeps_every_promise(kind: Kind, root: Path) -> None:
    made = plugin_file.write(kind, "mine", root)
    plugin = Registry(root / "plugins", {}).load(KINDS[kind], "mine")
    check: Callable[[Any], None] = getattr(testing, f"check_{kind}")
    check(plugin)
    assert made.files == (root / "plugins" / FOLDERS[KINDS[kind]] / "mine.py",)


@EACH
def test_a_new_file_is_short_and_has_a_setting(kind: Kind, root: Path) -> None:
    (path,) = plugin_file.write(kind, "mine", root).files
    assert 30 <= len(path.read_text("utf-8").splitlines()) <= 60
    assert Registry(root / "plugins", {}).load(KINDS[kind], "mine").params.model_fields


@EACH
def test_a_new_file_is_followed_by_three_commands(kind: Kind, root: Path) -> None:
    done = new(kind, "mine")
    assert done.exit_code == 0
    assert (
        done.stdout
        == f"""Written:
  plugins/{kind}s/mine.py
Next:
  newsfuse check-plugin mine
  dvc exp run -n mine {USED[kind]}
  newsfuse compare HEAD mine
The queue sees what Git knows, and HEAD is what was committed. So, best first:
  git add plugins/{kind}s/mine.py dvc.lock && git commit -m 'Add mine'
"""
    )


def test_new_files_pass_the_linter_whatever_their_names(root: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", root)
    for kind in Kind:
        for name in NAMES:
            plugin_file.write(kind, name, root)
    for words in (["check"], ["format", "--check", "--diff"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--no-cache", "."],
            cwd=root, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_new_files_pass_the_type_checker(root: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "newsfuse").symlink_to(ROOT / "newsfuse")
    for kind in Kind:
        plugin_file.write(kind, "my_own", root)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "plugins"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_project_trains_with_a_new_encoder_and_compares_it(project: Project) -> None:
    made = plugin_file.write(Kind.ENCODER, "mine", project.root)
    _, run, compare = (shlex.split(words) for words in made.commands)
    project.must(*run)
    assert "differences to HEAD" in project.must(*compare).text
    assert '"weight_mine"' in project.text("metrics/evaluate/metrics.json")


# --- a package


@EACH
def test_a_new_package_is_followed_by_three_commands(kind: Kind, elsewhere: Path) -> None:
    done = new(kind, "mine", "--package")
    assert done.exit_code == 0
    note = "In the project it needs a file plugins/embedders/mine.py as well: newsfuse-mine/README.md has it.\n"
    assert (
        done.stdout
        == f"""Written:
  newsfuse-mine/README.md
  newsfuse-mine/pyproject.toml
  newsfuse-mine/newsfuse_mine.py
  newsfuse-mine/tests/test_mine.py
Next:
  pip install ./newsfuse-mine
  newsfuse check-plugin mine
  dvc exp run -n mine -S '+plugin_packages.newsfuse-mine="0.1.0"' {USED[kind]}
{note if kind is Kind.EMBEDDER else ""}"""
    )


@EACH
def test_a_new_package_has_the_module_that_a_file_has(kind: Kind, root: Path) -> None:
    (file,) = plugin_file.write(kind, "mine", root).files
    file = file.rename(root / "mine.py")
    package.write(kind, "mine", root)
    assert (root / "newsfuse-mine" / "newsfuse_mine.py").read_text("utf-8") == file.read_text("utf-8")


def test_tests_of_new_packages_pass(elsewhere: Path) -> None:
    folders = [elsewhere / package.write(kind, f"my_{kind}", elsewhere).files[0].parent for kind in Kind]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, folders)],
        cwd=elsewhere, capture_output=True, text=True, check=False,
        env={**environment(elsewhere), "PYTHONPATH": os.pathsep.join(map(str, folders))},
    )  # fmt: skip
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_a_new_package_makes_a_wheel_whose_entry_point_names_the_module(elsewhere: Path) -> None:
    package.write(Kind.ENCODER, "my_text", elsewhere)
    with built(elsewhere / "newsfuse-my-text", elsewhere / "wheels") as wheel:
        points = wheel.read("newsfuse_my_text-0.1.0.dist-info/entry_points.txt").decode()
        assert points.split() == ["[newsfuse]", "my_text", "=", "newsfuse_my_text"]
        assert "newsfuse_my_text.py" in wheel.namelist()


@EACH
def test_a_new_package_names_itself_everywhere_alike(kind: Kind, elsewhere: Path) -> None:
    package.write(kind, "my_own", elsewhere)
    home = elsewhere / "newsfuse-my-own"
    about = tomllib.loads((home / "pyproject.toml").read_text("utf-8"))
    assert about["project"]["name"] == home.name
    assert about["project"]["entry-points"] == {"newsfuse": {"my_own": "newsfuse_my_own"}}
    readme = (home / "README.md").read_text("utf-8")
    assert f"plugin_packages:\n  {home.name}: {about['project']['version']}\n" in readme
    assert "$" not in readme
    assert "mine" not in "".join(tree(home).values()).split()


def test_a_new_embedder_package_has_a_file_in_the_project_that_dvc_watches(root: Path) -> None:
    done = new("embedder", "mine", "--package")
    link = load(root / "plugins" / "embedders" / "mine.py")
    assert link.PACKAGE == "newsfuse-mine==0.1.0"
    assert "  plugins/embedders/mine.py\n" in done.stdout
    assert "  newsfuse check-plugin newsfuse-mine/newsfuse_mine.py\n" in done.stdout
    assert done.stdout.endswith("  git add plugins/embedders/mine.py dvc.lock && git commit -m 'Add mine'\n")
    assert 'PACKAGE = "newsfuse-mine==0.1.0"' in (root / "newsfuse-mine" / "README.md").read_text("utf-8")


# --- what is printed works


@EACH
@pytest.mark.parametrize("form", [plugin_file, package], ids=["file", "package"])
def test_dvc_reads_the_settings_as_they_are_meant(kind: Kind, form: ModuleType, root: Path) -> None:
    hydra = pytest.importorskip("dvc.utils.hydra")
    run = next(words for words in form.write(kind, "mine", root).commands if words.startswith("dvc "))
    words = shlex.split(run)
    settings = [word for flag, word in pairwise(words) if flag == "-S"]
    hydra.apply_overrides(root / "params.yaml", settings)
    found = yaml.safe_load((root / "params.yaml").read_text("utf-8"))
    assert found["plugin_packages"] == ({"newsfuse-mine": "0.1.0"} if form is package else {})
    assert {
        Kind.ENCODER: found["encoders"].get("mine") is True,
        Kind.FUSION: found["fusion"] == "mine",
        Kind.EMBEDDER: found["embed"]["provider"] == "mine" and found["options"].get("mine") == {},
        Kind.USER_ENCODER: found["user_encoder"] == "mine",
    }[kind]


# --- what is refused


@EACH
def test_a_file_that_is_there_is_never_overwritten(kind: Kind, root: Path) -> None:
    assert new(kind, "mine").exit_code == 0
    assert f"ERROR: plugins/{kind}s/mine.py: is there already" in refused(2, kind, "mine")


def test_a_folder_that_is_there_is_never_overwritten(root: Path) -> None:
    (root / "newsfuse-mine").mkdir()
    assert "ERROR: newsfuse-mine: is there already" in refused(2, "embedder", "mine", "--package")


def test_a_package_is_refused_whose_plugin_a_file_would_hide(root: Path) -> None:
    assert new("encoder", "mine").exit_code == 0
    assert "ERROR: plugins/encoders/mine.py: is there already" in refused(2, "encoder", "mine", "--package")


def test_a_package_is_refused_whose_module_is_installed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "site").mkdir()
    (root / "site" / "newsfuse_mine.py").touch()
    monkeypatch.syspath_prepend(str(root / "site"))
    assert "newsfuse_mine: a module of that name is installed already" in refused(2, "encoder", "mine", "--package")


@pytest.mark.parametrize("form", [(), ("--package",)], ids=["file", "package"])
@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("my-text", "my_text"),
        ("MyText", "my_text"),
        ("my text", "my_text"),
        ("../text", "text"),
        ("_text", "text"),
        ("2text", "text"),
        ("class", "my_class"),
        ("on", "my_on"),
        ("null", "my_null"),
        ("none", "my_none"),
        ("type", "my_type"),
        ("keys", "my_keys"),
        ("fusion", "my_fusion"),
        ("user_encoder", "my_user_encoder"),
        ("register_state_dict_post_hook", "my_register_state_dict_post_ho"),
        ("nan", "my_nan"),
        ("encoder", "my_encoder"),
        ("tensor", "my_tensor"),
        ((MOST + 1) * "o", MOST * "o"),
    ],
)
def test_a_name_that_will_not_do_is_refused_with_one_that_does(
    name: str, instead: str, form: tuple[str, ...], root: Path
) -> None:
    said = refused(2, "encoder", name, *form)
    assert said.startswith(f"ERROR: NAME: '{name}': ")
    assert said.endswith(f"Try '{instead}'\n")
    assert new("encoder", instead, *form).exit_code == 0


@pytest.mark.parametrize("kind", ["fusion", "embedder", "user_encoder"])
def test_a_class_that_would_be_a_keyword_is_refused_for_every_kind(kind: str, root: Path) -> None:
    assert "Try 'my_none'" in refused(2, kind, "none")


def test_only_an_encoder_may_not_be_called_as_torch_calls_something(root: Path) -> None:
    assert new("fusion", "keys").exit_code == 0


@pytest.mark.parametrize("name", ["", "7", "é", "\x1b[31m"])
def test_a_name_of_which_nothing_would_do_is_refused(name: str, root: Path) -> None:
    assert "expected lower-case letters, digits" in refused(2, "encoder", name)


def test_an_unknown_kind_is_refused(root: Path) -> None:
    assert "user_encoder" in refused(2, "encodr", "mine")


def test_a_file_needs_a_project(elsewhere: Path) -> None:
    said = refused(2, "encoder", "mine")
    assert said.startswith(f"ERROR: {elsewhere}: is not the root of a newsfuse project")
    assert "--package" in said


def test_who_is_too_deep_in_a_project_is_told_where_its_root_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / ".dvc").mkdir()
    monkeypatch.chdir(root / "plugins")
    assert f"Its root is {root}: go there" in refused(2, "encoder", "mine")


# --- what goes wrong


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a full disk, writing more to a file is an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("form", [(), ("--package",)], ids=["file", "package"])
@EACH
def test_a_full_disk_leaves_nothing_behind(kind: Kind, form: tuple[str, ...], root: Path) -> None:
    with files_of_at_most(1500):  # the readme has less and the module more
        said = refused(8, kind, "mine", *form)
    assert re.search(r"mine.*: could not be written: File too large", said)
    assert [path.name for path in root.iterdir() if path.name not in {"params.yaml", "plugins"}] == []


# --- the wheel


@contextmanager
def built(source: Path, folder: Path) -> Iterator[zipfile.ZipFile]:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source],
        check=True, capture_output=True,
    )  # fmt: skip
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        yield wheel


def load(path: Path) -> ModuleType:
    module = ModuleType(path.stem)
    exec(path.read_text("utf-8"), module.__dict__)  # noqa: S102 - a file that we have written
    return module


def test_the_wheel_has_all_templates_and_writes_packages_from_them(elsewhere: Path) -> None:
    shutil.copytree(ROOT / "newsfuse", elsewhere / "source" / "newsfuse", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, elsewhere / "source")
    with built(elsewhere / "source", elsewhere / "wheels") as wheel:
        wheel.extractall(elsewhere / "site")
    program = (
        "from pathlib import Path; from newsfuse.scaffold import package; from newsfuse.scaffold.kind import Kind;"
        "print(package.__file__); [package.write(kind, f'my_{kind}', Path()) for kind in Kind]"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=elsewhere, capture_output=True, text=True, check=True,
        env={**environment(elsewhere), "PYTHONPATH": str(elsewhere / "site")},
    )  # fmt: skip
    assert done.stdout.startswith(str(elsewhere / "site"))
    assert len(list(elsewhere.glob("newsfuse-*/*.py"))) == len(Kind)


def test_every_kind_of_plugin_can_be_made() -> None:
    assert {kind.folder for kind in Kind} == set(FOLDERS.values())
    assert all("mine" in template.plugin(kind) for kind in Kind)
