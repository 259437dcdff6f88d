"""The section on how training went: the curves that DVCLive wrote."""

from collections.abc import Iterator

import polars as pl

from newsfuse.report import charts
from newsfuse.report.evidence import Evidence
from newsfuse.report.section import AbsentError, Block, Note, Section, number, present

FOLDER = "metrics/train/plots/metrics"
COURSES = ("pretrain", "train", "validation")
PANELS = (
    ("Loss", "loss", {course: f"{course}/loss.tsv" for course in COURSES}),
    ("AUC", "AUC", {course: f"{course}/auc.tsv" for course in COURSES}),
    ("Learning rate", "learning rate", {"learning rate": "learning_rate.tsv"}),
)
"""Caption, axis, and the file of each curve."""


def training(evidence: Evidence) -> Section:
    """The curves, and which epoch was kept."""
    lead = "By epoch; validation is the last days of train, never dev. Epoch 0 is the untrained model."
    return Section("Training", lead, present(lambda: _best(evidence), lambda: _panels(evidence)))


def _best(evidence: Evidence) -> Iterator[Block]:
    best = evidence.mapping("metrics/train/metrics.json", "train").get("best")
    if isinstance(best, dict) and isinstance(auc := best.get("validation_auc"), float):
        yield Note(f"Best on validation: epoch {best.get('epoch')}, with an AUC of {number(auc)}.")


def _panels(evidence: Evidence) -> Iterator[Block]:
    found = [(caption, axis, _curves(evidence, files)) for caption, axis, files in PANELS]
    if not any(len(frame) for _, _, frame in found):
        evidence.text(f"{FOLDER}/validation/auc.tsv", "train")
    yield from (charts.curves(frame, caption=caption, y=axis) for caption, axis, frame in found if len(frame))


def _curves(evidence: Evidence, files: dict[str, str]) -> pl.DataFrame:
    """step, value, curve: of the files that are there."""
    frames = [pl.DataFrame(schema={"step": pl.Int64, "value": pl.Float64, "curve": pl.String})]
    for curve, file in files.items():
        column = file.rsplit("/", 1)[-1].removesuffix(".tsv")
        try:
            frame = evidence.frame(f"{FOLDER}/{file}", {"step": pl.Int64, column: pl.Float64}, "train")
        except AbsentError:
            continue  # not every course is run, nor every curve drawn by every version
        frames.append(frame.select("step", pl.col(column).alias("value"), pl.lit(curve).alias("curve")))
    return pl.concat(frames).filter(pl.col("value").is_finite())
