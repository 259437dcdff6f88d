"""dvc.yaml says what each stage depends on; DVC does not look for itself, so this compares it with the code."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
NOT_TRACKED = {"dataset"}
"""Sections of params.yaml that stand in paths instead: dvc.yaml's templates read them."""

stages = pytest.mark.parametrize("stage", STAGES)


def reached(path: str) -> set[str]:
    """All files of newsfuse that are imported when `path` is run, wherever the import stands in a file."""
    found: set[str] = set()
    waiting = [path]
    while waiting:
        new = set(imports(waiting.pop())) - found
        found |= new
        waiting += sorted(new)
    return found


def imports(path: str) -> Iterator[str]:
    """The files of newsfuse that this one imports itself, the package's own __init__.py among them."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import, which this test cannot follow"
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            yield from files(name)


def files(module: str) -> Iterator[str]:
    """The file of a module of newsfuse and those of the packages that it is in; nothing for what is no module."""
    *packages, name = module.split(".")
    if "newsfuse" in (packages or [name])[:1]:
        yield "newsfuse/__init__.py"
        folders = ["/".join(packages[: depth + 1]) for depth in range(1, len(packages))]
        candidates = [*(f"{folder}/__init__.py" for folder in folders), f"{module.replace('.', '/')}.py"]
        yield from (path for path in candidates if (ROOT / path).is_file())


def deps(stage: str) -> list[str]:
    return [str(dep) for dep in STAGES[stage]["deps"]]


def listed(dep: str) -> list[str]:
    """The files of newsfuse that a dependency means: a package is listed as a folder."""
    found = [ROOT / dep, *(ROOT / dep).glob("*.py")]
    return [str(path.relative_to(ROOT)) for path in found if path.is_file() and dep.startswith("newsfuse")]


def code(stage: str) -> list[str]:
    """What is run in a stage: its own file and every plugin that it may load."""
    kinds = ["embedders"] if stage == "embed" else ["encoders", "fusions", "user_encoders"]
    plugins = [str(path.relative_to(ROOT)) for kind in kinds for path in ROOT.glob(f"plugins/{kind}/*.py")]
    return [f"stages/{stage}.py", *(plugins if "plugins" in " ".join(deps(stage)) else [])]


@stages
def test_a_stage_lists_exactly_the_library_files_that_it_reaches(stage: str) -> None:
    files_listed = [path for dep in deps(stage) for path in listed(dep)]
    assert sorted(files_listed) == sorted(set().union(*map(reached, code(stage))))


def test_the_import_walk_follows_imports_of_imports() -> None:
    assert {"newsfuse/__init__.py", "newsfuse/news.py", "newsfuse/tsv.py"} <= reached("stages/embed.py")
    assert "newsfuse/training.py" not in reached("stages/embed.py")


@stages
def test_a_stage_lists_no_dependency_twice_and_none_that_is_not_there(stage: str) -> None:
    assert len(set(deps(stage))) == len(deps(stage))
    assert [dep for dep in deps(stage) if "$" not in dep and not (ROOT / dep).exists()] == []


@stages
def test_stage_file_and_function_share_one_name(stage: str) -> None:
    tree = ast.parse((ROOT / "stages" / f"{stage}.py").read_text(encoding="utf-8"))
    assert stage in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert STAGES[stage]["cmd"] == f"python -m stages.{stage}"
    assert f"stages/{stage}.py" in deps(stage)


def test_every_stage_file_is_a_stage() -> None:
    assert {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"} == set(STAGES)


def test_stages_and_settings_agree() -> None:
    sections = {str(name).split(".")[0] for stage in STAGES.values() for name in stage["params"]}
    assert sections == set(PARAMS) - NOT_TRACKED
    for name in NOT_TRACKED:
        assert all(f"${{{name}}}" in " ".join(deps(stage)) for stage in STAGES)


def test_a_section_named_like_a_stage_is_that_stages_own() -> None:
    for section in set(PARAMS) & set(STAGES):
        users = {stage for stage in STAGES if section in STAGES[stage]["params"]}
        assert users == {section}


def test_embed_depends_on_no_clicks_and_on_no_other_embedder() -> None:
    assert not [dep for dep in deps("embed") if "behaviors" in dep or dep.endswith(("/train", "/dev"))]
    assert [dep for dep in deps("embed") if "plugins" in dep] == ["plugins/embedders/${embed.provider}.py"]


@pytest.mark.parametrize("stage", ["embed", "train"])
def test_nothing_that_is_paid_or_learned_depends_on_dev_clicks(stage: str) -> None:
    assert not [dep for dep in deps(stage) if dep.endswith(("/dev", "/dev/behaviors.tsv"))]


@stages
def test_every_out_is_kept_in_the_cache_so_that_a_run_can_be_served_from_it(stage: str) -> None:
    written = [out for kind in ("outs", "metrics", "plots") for out in STAGES[stage].get(kind, [])]
    settings = [value for out in written if isinstance(out, dict) for value in out.values()]
    assert not [value for value in settings if not value.get("cache", True) or value.get("persist", False)]
