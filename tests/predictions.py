"""Folders with what a run predicted, from lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from newsfuse.artifact import writing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Candidate = tuple[str, str | None, int, float | None]
"""(impression, news, clicked, score); an article that is not known has neither a name nor a score."""
SCHEMA = {
    "impression": pl.String, "user": pl.Int32, "news": pl.String, "clicked": pl.Int8, "score": pl.Float64,
    "warm": pl.Boolean,
}  # fmt: skip


def table(candidates: Sequence[Candidate]) -> pl.DataFrame:
    rows = [(impression, 0, news, clicked, score, True) for impression, news, clicked, score in candidates]
    return pl.DataFrame(rows, SCHEMA, orient="row")


def predict(folder: Path, scores: pl.DataFrame, kind: str = "evaluate") -> Path:
    """As evaluate writes them, but for prediction.txt."""
    with writing(folder, kind=kind, settings={}) as draft:
        scores.write_parquet(draft / "scores.parquet")
    return folder
