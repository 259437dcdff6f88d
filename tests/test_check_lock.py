"""`make check-lock`: what is made here, compared with what is committed."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import environment

SCRIPT = Path(__file__).parents[1] / "scripts/check_lock.py"
TRAIN, EVALUATE = "metrics/train/metrics.json", "metrics/evaluate/metrics.json"


def stage(out: str, md5: str) -> dict[str, Any]:
    deps = [{"path": "code.py", "md5": "c0de"}]
    return {"deps": deps, "outs": [{"path": out, "md5": md5}], "params": {"params.yaml": {"seed": 0}}}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A commit, and what was made and measured since, which is the same."""
    lock = {"stages": {name: stage(f"data/{name}", name) for name in ("embed", "graph", "train")}}
    put(tmp_path / "dvc.lock", yaml.safe_dump(lock))
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *command], cwd=tmp_path, env=environment(tmp_path), check=True)
    put(tmp_path / TRAIN, json.dumps({"best": {"validation_auc": 0.7}}))
    evaluated = ("random_auc", "popularity_auc", "category_auc", "cosine_auc", "auc", "mrr", "ndcg5", "ndcg10")
    put(tmp_path / EVALUATE, json.dumps({"impressions": 600, **dict.fromkeys(evaluated, 0.6)}))
    put(tmp_path / "scripts/check_lock.py", SCRIPT.read_text(encoding="utf-8"))
    assert check(tmp_path, "--write") == (0, "")
    return tmp_path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def check(root: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "scripts/check_lock.py", *arguments]
    done = subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_same_is_the_same(checkout: Path) -> None:
    code, text = check(checkout)
    assert code == 0
    assert text.startswith("embed and graph are those of the committed dvc.lock")


@pytest.mark.parametrize("name", ["embed", "graph"])
def test_another_hash_of_an_out_of_embed_or_graph_is_named(checkout: Path, name: str) -> None:
    edit(checkout / "dvc.lock", f"md5: {name}", "md5: beef")
    assert check(checkout) == (1, f"data/{name}: its md5 is beef, expected {name} as in the committed dvc.lock\n")


def test_another_hash_of_the_model_is_none_of_its_business(checkout: Path) -> None:
    edit(checkout / "dvc.lock", "md5: train", "md5: beef")
    assert check(checkout)[0] == 0


@pytest.mark.parametrize(("value", "code"), [("0.6015", 0), ("0.603", 1), ("0.597", 1), ("NaN", 1)])
def test_a_figure_may_differ_by_its_tolerance(checkout: Path, value: str, code: int) -> None:
    edit(checkout / EVALUATE, '"auc": 0.6', f'"auc": {value}')
    found, text = check(checkout)
    assert found == code
    assert code == 0 or f"{EVALUATE}: auc is {float(value)}, expected 0.6 ± 0.002" in text


def test_a_figure_of_whole_numbers_may_not_differ(checkout: Path) -> None:
    edit(checkout / EVALUATE, '"popularity_auc": 0.6', '"popularity_auc": 0.600001')
    assert check(checkout)[0] == 1


@pytest.mark.parametrize(
    ("before", "after", "named"), [("c0de", "beef", "code.py"), ("seed: 0", "seed: 1", "params.yaml")]
)
def test_what_was_made_of_other_things_is_not_compared(checkout: Path, before: str, after: str, named: str) -> None:
    edit(checkout / "dvc.lock", before, after)
    assert check(checkout) == (2, f"dvc.lock: embed was made with another {named} than the commit has it\n")


def test_a_dependency_that_is_gone_is_another_one(checkout: Path) -> None:
    edit(checkout / "dvc.lock", "deps:\n    - md5: c0de\n      path: code.py", "deps: []")
    assert check(checkout) == (2, "dvc.lock: embed was made with another code.py than the commit has it\n")


@pytest.mark.parametrize("path", ["dvc.lock", EVALUATE, "scripts/reference.json"])
def test_a_missing_file_is_named_with_the_command_that_makes_it(checkout: Path, path: str) -> None:
    (checkout / path).unlink()
    code, text = check(checkout)
    assert code == 2
    assert f"{path}: cannot be read: No such file or directory. Make it: " in text
    assert "Traceback" not in text


def test_a_figure_that_is_not_measured_is_named(checkout: Path) -> None:
    edit(checkout / TRAIN, "validation_auc", "validation_loss")
    assert check(checkout) == (2, f"{TRAIN}: has no best.validation_auc: run dvc repro\n")


@pytest.mark.parametrize("value", ["null", '"0.6"', "[]"])
def test_a_reference_without_a_figure_is_named_with_what_makes_it(checkout: Path, value: str) -> None:
    edit(checkout / "scripts/reference.json", '"mrr": 0.6', f'"mrr": {value}')
    assert check(checkout) == (2, f"reference.json: {EVALUATE}: has no mrr: run python scripts/check_lock.py --write\n")
    put(checkout / "scripts/reference.json", "[]")
    assert check(checkout)[1].startswith(f"reference.json: {TRAIN}: has no best.validation_auc: run python")


@pytest.mark.parametrize("path", ["dvc.lock", TRAIN, "scripts/reference.json"])
@pytest.mark.parametrize("content", [b'{"best": [1,', b"\xff\xfe", b""])
def test_a_damaged_file_is_named_with_the_command_that_makes_it(checkout: Path, path: str, content: bytes) -> None:
    (checkout / path).write_bytes(content)
    code, text = check(checkout)
    assert code == 2
    assert path in text
    assert re.search("(Make it: |run )(dvc repro|python scripts/check_lock.py --write)\n", text)
    assert "Traceback" not in text


def test_the_committed_reference_has_every_figure() -> None:
    spec = importlib.util.spec_from_file_location("check_lock", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    reference = json.loads(SCRIPT.with_name("reference.json").read_text(encoding="utf-8"))
    assert {path: list(figures) for path, figures in reference.items()} == {
        path: list(figures) for path, figures in module.TOLERANCES.items()
    }
