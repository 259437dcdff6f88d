"""newsfuse from a wheel, in an environment of its own: guests work there, and a stranger's encoder is as good as ours.

One environment for the module, about a minute of it: what comes later finds in it what came earlier.
"""

import csv
import io
import re
import shutil
from filecmp import cmp
from pathlib import Path

import pytest
from project import ROOT, missing
from stranger import Clone, Stranger

pytestmark = pytest.mark.slow
GUEST = ROOT / "examples" / "newsfuse-headline"
NO_COPY = shutil.ignore_patterns("__pycache__", "build", "*.egg-info", ".pytest_cache")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    if reason := missing():
        pytest.skip(reason)
    return Stranger.make(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def guest(stranger: Stranger) -> Path:
    """The example's folder, copied out of the source tree and installed."""
    copy = shutil.copytree(GUEST, stranger.home / GUEST.name, ignore=NO_COPY)
    stranger.install(copy)
    return copy


@pytest.fixture(scope="module")
def mine(stranger: Stranger) -> Path:
    """What `newsfuse new encoder mine --package` wrote, installed."""
    stranger.must("newsfuse", "new", "encoder", "mine", "--package")
    stranger.install(stranger.home / "newsfuse-mine")
    return stranger.home / "newsfuse-mine"


@pytest.fixture(scope="module")
def trained(stranger: Stranger, mine: Path) -> Clone:
    """A project whose last experiment used the encoder of the package `mine`. For reading only."""
    clone = stranger.clone("project")
    clone.edit("params.yaml", r"plugin_packages: \{\}", 'plugin_packages: {newsfuse-mine: "0.1.0"}')
    clone.edit("params.yaml", r"pretrain_epochs: \d+", "pretrain_epochs: 0")
    clone.commit()
    clone.dvc("exp", "run", "--name", "with-mine", "-S", "+encoders.mine=true")
    return clone


@pytest.fixture
def project(trained: Clone, tmp_path: Path) -> Clone:
    """The test's own copy."""
    return trained.copy(tmp_path / "project")


def installed(stranger: Stranger, module: str) -> Path:
    """Where the stranger's Python finds the module."""
    return Path(stranger.must("python", "-c", f"import {module}; print({module}.__file__)").text.strip())


def raise_version(package: Path, old: str, new: str) -> None:
    text = (package / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{old}"' in text
    (package / "pyproject.toml").write_text(text.replace(f'version = "{old}"', f'version = "{new}"'), encoding="utf-8")


def test_the_wheel_is_what_the_stranger_imports(stranger: Stranger) -> None:
    assert installed(stranger, "newsfuse").parts[-3:] == ("site-packages", "newsfuse", "__init__.py")
    assert installed(stranger, "newsfuse").is_relative_to(stranger.home)


def test_the_library_is_in_the_wheel_to_the_byte(stranger: Stranger) -> None:
    there, here = installed(stranger, "newsfuse").parent, ROOT / "newsfuse"
    files = {path.relative_to(here) for path in here.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert files == {each for each in files if (there / each).is_file()}
    assert all(cmp(there / each, here / each, shallow=False) for each in files)


def test_a_guest_passes_its_own_tests_against_the_wheel(stranger: Stranger, guest: Path) -> None:
    # the command pytest: unlike `python -m pytest` it leaves the folder's own copy of the package out of the way
    assert installed(stranger, "newsfuse_headline").parts[-3] == "site-packages"
    assert re.search(r"^\d+ passed", stranger.must("pytest", "--quiet", str(guest)).text, re.MULTILINE)


def test_a_guest_is_checked_by_name(stranger: Stranger, guest: Path) -> None:
    assert "headline" in stranger.must("newsfuse", "check-plugin", "headline").text


def test_a_new_package_passes_the_kit_as_it_stands(stranger: Stranger, mine: Path) -> None:
    assert "1 passed" in stranger.must("pytest", "--quiet", str(mine)).text


def test_an_experiment_with_a_strangers_encoder_has_its_column(trained: Clone) -> None:
    shown = trained.dvc("exp", "show", "--csv").text
    (row,) = (row for row in csv.DictReader(io.StringIO(shown)) if row["Experiment"] == "with-mine")
    assert row["encoders.mine"] == "True"
    assert 0 < float(row["auc"]) < 1


def test_the_strangers_encoder_is_in_the_trained_model(trained: Clone) -> None:
    assert '"mine"' in trained.text("data/tiny/model/manifest.json")


def test_a_guest_that_is_installed_and_not_listed_reruns_nothing(
    stranger: Stranger, guest: Path, project: Clone
) -> None:
    module = installed(stranger, "newsfuse_headline")
    module.write_text(module.read_text(encoding="utf-8") + "# an edit\n", encoding="utf-8")
    assert project.dvc("repro").ran == []


def test_another_version_than_the_listed_one_is_refused_and_the_listed_one_trains_again(
    stranger: Stranger, mine: Path, project: Clone
) -> None:
    raise_version(mine, "0.1.0", "0.2.0")
    stranger.install(mine)
    params = project.text("params.yaml")
    refused = project.run("dvc", "exp", "run", "-S", "seed=1")
    assert refused.ran == ["train"]
    assert "'newsfuse-mine' 0.1.0 is asked for, 0.2.0 is installed" in refused.text
    assert "Traceback" not in refused.text
    assert project.stage("train").code == 9

    (project.root / "params.yaml").write_text(params, encoding="utf-8")
    project.edit("params.yaml", r'newsfuse-mine: "?0\.1\.0"?', 'newsfuse-mine: "0.2.0"')
    assert project.dvc("exp", "run").ran == ["train", "evaluate"]
