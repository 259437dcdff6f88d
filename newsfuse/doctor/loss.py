"""Where training ended: at the loss of guessing, at nothing, or between, where it belongs."""

import json
import math
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from newsfuse import csr
from newsfuse.behaviors import Behaviors
from newsfuse.doctor.finding import Finding, failure, ok, warning
from newsfuse.doctor.tree import Tree
from newsfuse.doctor.whole import REPRO, folder, settings
from newsfuse.errors import IntegrityError
from newsfuse.params import Params

STAGE = "train"
CURVES, SUMMARY = "metrics/train/plots/metrics", "metrics/train/metrics.json"
SMALLER_STEPS = "dvc exp run -S train.lr=0.0001"
FLOOR = 0.998
"""Share of the loss of guessing above which a model has learned nothing: .98 with an AUC of .55."""
LEAK = 0.05
"""Nats of validation loss that no honest model reaches: a click would be told from four others in 19 of 20 cases."""


def losses(tree: Tree) -> Iterator[Finding]:
    """Of the last training run, by its curves."""
    if tree.params is None or not tree.lock.made(STAGE, folder(tree, STAGE)):
        yield ok(f"{SUMMARY}: no training run of this data set is known")
        return
    validation = _curve(tree, "validation")
    if not validation:
        yield ok(f"{SUMMARY}: no curves here ({REPRO}, or dvc checkout)")
        return
    if _best(tree) == 0 and len(validation) > 1:
        yield warning(f"{SUMMARY}: the untrained model was best, so training did not help", SMALLER_STEPS)
    yield _judged(validation)
    yield from _from_guessing(tree, tree.params)


def _judged(validation: Sequence[float]) -> Finding:
    first, least = validation[0], min(validation)
    if not math.isfinite(sum(validation)):
        return failure(IntegrityError, "validation loss: became no number", SMALLER_STEPS)
    if least < LEAK:
        told = f"validation loss: {least:.4f} nats, which no honest model reaches: something gives the clicks away"
        return failure(
            IntegrityError, told, "see the lines on histories, train and dev; newsfuse report shows what counts"
        )
    if len(validation) > 1 and least >= first:
        return warning(f"validation loss: never below the untrained model's {first:.4f} nats", SMALLER_STEPS)
    return ok(f"validation loss: from {first:.4f} nats (untrained) to {least:.4f}")


def _best(tree: Tree) -> object:
    """The epoch whose weights are kept; None where that is not known."""
    try:
        return json.loads((tree.root / SUMMARY).read_text(encoding="utf-8"))["best"]["epoch"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _from_guessing(tree: Tree, params: Params) -> Iterator[Finding]:
    curve = _curve(tree, "train")
    if not curve:
        yield ok("training loss: no epochs on impressions")
        return
    negatives = settings(tree, STAGE).get("training", {}).get("negatives", params.train.negatives)
    guessing, last = guessed(tree.behaviors("train", tree.train_news), negatives), curve[-1]
    told = f"training loss: {last:.4f} nats, where guessing has {guessing:.4f}"
    if last >= FLOOR * guessing:
        yield warning(f"{told}: the model learned nothing", "dvc exp run -S train.lr=0.001 -S train.epochs=5")
    else:
        yield ok(told)


def guessed(behaviors: Behaviors, negatives: int) -> float:
    """The mean of log(1 + n) over clicks, where n of at most `negatives` unclicked articles stand beside the click."""
    clicked = np.add.reduceat(behaviors.labels, behaviors.candidate_offsets[:-1], dtype=np.int64)
    beside = np.minimum(csr.lengths(behaviors.candidate_offsets) - clicked, negatives)
    usable = clicked * (beside > 0)
    return float((usable * np.log1p(beside)).sum() / max(1, usable.sum()))


def _curve(tree: Tree, name: str) -> list[float]:
    """The losses of a curve by epoch, [] where there is none."""
    try:
        curve = pl.read_csv(
            tree.root / CURVES / name / "loss.tsv", separator="\t", schema_overrides={"loss": pl.Float64}
        )
        return curve["loss"].to_list()
    except (OSError, pl.exceptions.PolarsError):
        return []
