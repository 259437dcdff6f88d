"""What evaluate wrote: every candidate of dev by its name, and scores that tell candidates apart."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from newsfuse import csr
from newsfuse.behaviors import Behaviors
from newsfuse.doctor.finding import Finding, failure, ok
from newsfuse.doctor.tree import Tree
from newsfuse.doctor.whole import REPRO, again, currency, folder, settings, usable
from newsfuse.errors import IntegrityError
from newsfuse.ranking import is_constant, unknown_last

STAGE, TABLE = "evaluate", "scores.parquet"
DIGITS = 6
"""Of scores, the largest of them being 1: float32 has no more, so that the rest is noise."""
COLUMNS = ("impression", "news", "clicked", "score")


def predictions(tree: Tree) -> Iterator[Finding]:
    """Whether they are whole, of this model and this dev, and rank anything."""
    if not (yield from usable(tree, STAGE)) or (params := tree.params) is None:
        return
    model = settings(tree, "train").get("architecture", {})
    asked = {**model, "seed": params.seed, **params.evaluate.model_dump(mode="json")}
    # of the settings for dev the manifest has none; where DVC ran the stage, dvc.lock has them
    run = tree.lock.params(STAGE) if tree.lock.made(STAGE, folder(tree, STAGE)) else {}
    made = {**asked, **settings(tree, STAGE), **run, **run.get("evaluate", {})}
    comparable = yield from currency(tree, STAGE, asked, made)
    table = _table(folder(tree, STAGE))
    if comparable:
        yield from _of_dev(tree, table, tree.behaviors("dev", tree.news))
    yield _constant(tree, table)


def _table(path: Path) -> pl.DataFrame:
    """Raises IntegrityError."""
    try:
        return pl.read_parquet(path / TABLE, columns=list(COLUMNS))
    except (OSError, pl.exceptions.PolarsError) as error:
        message = f"{path / TABLE}: not what evaluate writes ({error}). Make it again: {REPRO}"
        raise IntegrityError(message) from error


def _of_dev(tree: Tree, table: pl.DataFrame, dev: Behaviors) -> Iterator[Finding]:
    path, behaviors = folder(tree, STAGE) / TABLE, tree.file("dev", "behaviors.tsv")
    if len(table) != len(dev.labels):
        told = f"{path}: {len(table):,} candidates, {behaviors} has {len(dev.labels):,}"
        yield failure(IntegrityError, told, again(tree, STAGE))
        return
    wrong = (table.select(COLUMNS[:3]) != _expected(tree, dev)).select(
        pl.any_horizontal(pl.all().fill_null(value=False))
    )
    wrong_rows = wrong.to_series().arg_true()
    unscored = table.select((pl.col("news").is_null() != pl.col("score").is_null()).sum()).item()
    if len(wrong_rows):
        row = int(wrong_rows[0])
        line = int(np.searchsorted(dev.candidate_offsets, row, side="right"))
        told = f"{path}: {len(wrong_rows):,} of {len(table):,} candidates are not those of dev"
        place = f"{table['news'][row]} of impression {table['impression'][row]}, at {behaviors}:{line}"
        yield failure(IntegrityError, f"{told}, first {place}", again(tree, STAGE))
    elif unscored:
        yield failure(IntegrityError, f"{path}: {unscored:,} known candidates have no score", again(tree, STAGE))
    else:
        yield ok(f"{path}: {len(table):,} candidates, each where {behaviors} has it")


def _expected(tree: Tree, dev: Behaviors) -> pl.DataFrame:
    rows = pl.Series(dev.candidate_news)
    return pl.DataFrame(
        {
            "impression": dev.impressions.gather(csr.owners(dev.candidate_offsets)),
            "news": tree.news.ids.gather(rows.set(rows < 0, None)),
            "clicked": dev.labels,
        }
    )


def _constant(tree: Tree, table: pl.DataFrame) -> Finding:
    scores = table["score"].fill_null(float("nan")).to_numpy()
    largest = np.nanmax(np.abs(scores), initial=np.finfo(np.float32).tiny)
    if is_constant(unknown_last(np.round(scores / largest, DIGITS)), csr.runs(table["impression"])):
        told = f"{folder(tree, STAGE)}: the model gives all candidates of an impression one score: it ranks nothing"
        return failure(
            IntegrityError, told, "train again with other settings: dvc exp run -S train.lr=0.0001 -S fusion=late"
        )
    return ok(f"{folder(tree, STAGE)}: scores tell the candidates of an impression apart")
