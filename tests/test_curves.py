"""Training curves: what DVCLive keeps, and that TensorBoard's are the same where somebody wants them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from newsfuse.curves import Curves
from newsfuse.epochs import Epoch
from newsfuse.errors import ParamsError
from newsfuse.fit import Fit
from newsfuse.params import load
from stages.train import train

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
COURSES = ["", "histories", "impressions", "impressions"]


def epochs() -> Iterator[Epoch]:
    """An untrained model, one epoch of pre-training and two of training."""
    for number, course in enumerate(COURSES):
        fit = Fit(loss=1 / (number + 3), auc=0.6 + number / 70, accuracy=0.3 + number / 9)
        weights = {"gnn": number / 7, "llm": 1 - number / 7}
        yield Epoch(number, course, fit if course else None, fit, 0.5 + number / 30, 1e-3, 99.5 * number, weights, {})


def draw(folder: Path) -> None:
    with Curves(folder) as curves:
        for epoch in epochs():
            curves.epoch(epoch)
        curves.best(epoch)


def of_dvclive(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each curve, by its name."""
    curves = {}
    for path in folder.glob("*/plots/metrics/**/*.tsv"):
        name = path.relative_to(folder).with_suffix("").parts[3:]
        frame = pl.read_csv(path, separator="\t")
        curves["/".join(name)] = frame.select(pl.col("step").cast(pl.Int64), pl.col(name[-1]).cast(pl.Float64)).rows()
    return curves


def of_tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder)).Reload()
    return {name: [(point.step, point.value) for point in events.Scalars(name)] for name in events.Tags()["scalars"]}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a project of its own, wherever the tests are run from."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")
    for name in ("DVC_ROOT", "DVC_EXP_NAME", "NEWSFUSE_TENSORBOARD"):
        monkeypatch.delenv(name, raising=False)


def test_steps_are_epochs_and_training_begins_after_the_untrained_model() -> None:
    draw(Path("metrics"))
    curves = of_dvclive(Path("metrics"))
    assert [step for step, _ in curves["validation/loss"]] == [0, 1, 2, 3]
    assert [step for step, _ in curves["pretrain/loss"]] == [1]
    assert curves["train/loss"] == [(2, 1 / 5), (3, 1 / 6)]


def test_the_best_epoch_stands_beside_the_last_values() -> None:
    draw(Path("metrics"))
    kept = json.loads(Path("metrics/train/metrics.json").read_text())
    assert kept["best"] == {"epoch": 3, "validation_auc": 0.6}
    assert kept["weight"]["gnn"] == 3 / 7


def test_speed_is_in_no_out_of_the_stage() -> None:
    draw(Path("metrics"))
    assert "impressions_per_s" not in Path("metrics/train/metrics.json").read_text()
    assert of_dvclive(Path("metrics"))["impressions_per_s"] == [(0, 0), (1, 99.5), (2, 199), (3, 298.5)]


def test_tensorboard_shows_the_curves_of_dvclive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWSFUSE_TENSORBOARD", str(tmp_path / "boards"))
    monkeypatch.setenv("DVC_EXP_NAME", "gate-1")
    draw(Path("metrics"))
    theirs, ours = of_tensorboard(tmp_path / "boards/gate-1"), of_dvclive(Path("metrics"))
    assert theirs.keys() == ours.keys()
    for name, points in ours.items():
        np.testing.assert_allclose(theirs[name], points, rtol=1e-6, err_msg=name)  # TensorBoard has float32


def test_what_dvc_keeps_is_the_same_with_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(Path("without"))
    monkeypatch.setenv("NEWSFUSE_TENSORBOARD", str(tmp_path / "boards"))
    draw(Path("with"))
    without, with_it = (
        {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
        for folder in ("without", "with")
    )
    assert without == with_it != {}


def test_a_relative_folder_counts_from_the_project_and_not_from_its_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEWSFUSE_TENSORBOARD", "boards")
    draw(Path("metrics"))
    (run,) = (tmp_path / "boards").iterdir()
    assert len(of_tensorboard(run)["validation/loss"]) == len(COURSES)


def test_runs_of_one_name_are_not_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWSFUSE_TENSORBOARD", "boards")
    monkeypatch.setenv("DVC_EXP_NAME", "gate")
    for _ in range(3):
        draw(Path("metrics"))
    assert sorted(path.name for path in (tmp_path / "boards").iterdir()) == ["gate", "gate-2", "gate-3"]
    assert len(of_tensorboard(tmp_path / "boards/gate")["validation/loss"]) == len(COURSES)


def test_wanted_but_not_installed_is_told_before_anything_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    draw(Path("metrics"))
    monkeypatch.setenv("NEWSFUSE_TENSORBOARD", "boards")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ParamsError, match=r"^NEWSFUSE_TENSORBOARD: .* pip install 'newsfuse\[tensorboard\]'"):
        Curves(Path("metrics"))
    assert Path("metrics/train/metrics.json").exists()
    assert not Path("boards").exists()


def test_wanted_but_not_installed_is_refused_before_data_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    params, registry = load(ROOT)
    monkeypatch.chdir(tmp_path)  # where there is no data, which would be told
    monkeypatch.setenv("NEWSFUSE_TENSORBOARD", "boards")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ParamsError, match=r"^NEWSFUSE_TENSORBOARD: .* pip install 'newsfuse\[tensorboard\]'"):
        train(params, registry)


def test_who_does_not_want_tensorboard_does_not_import_it() -> None:
    code = "import sys; from pathlib import Path; from newsfuse.curves import Curves\n"
    code += "with Curves(Path('metrics')): pass\nsys.exit('tensorboard' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT), "HOME": str(Path.cwd())})
    assert sorted(path.name for path in Path().iterdir()) == ["metrics"]
