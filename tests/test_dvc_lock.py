"""dvc.lock belongs to the code that is committed with it: otherwise a first `dvc repro` would change it."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))["stages"]
FILES = sorted({(dep["path"], dep["md5"]) for stage in STAGES.values() for dep in stage["deps"] if "." in dep["path"]})


@pytest.mark.parametrize(("path", "md5"), [(path, md5) for path, md5 in FILES if not path.startswith("data/")])
def test_the_lock_was_made_with_this_file(path: str, md5: str) -> None:
    assert hashlib.md5((ROOT / path).read_bytes(), usedforsecurity=False).hexdigest() == md5, "run: dvc repro"


def test_the_lock_was_made_with_these_params() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for stage in STAGES.values():
        for key, value in stage["params"]["params.yaml"].items():
            found: Any = params
            for part in key.split("."):
                found = found[part]
            assert found == value, f"{key}: run: dvc repro"
