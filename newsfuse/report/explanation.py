"""The section on what each encoder is worth to the fusion: its weight, and what is lost without it."""

from collections.abc import Iterator

import polars as pl

from newsfuse.report import charts
from newsfuse.report.evidence import Evidence
from newsfuse.report.figures import MOST
from newsfuse.report.section import Block, Cell, Figure, Note, Section, Table, between, number, present

FOLDER = "metrics/evaluate/plots"
WEIGHTS: dict[str, type[pl.DataType]] = {
    "encoder": pl.String, "group": pl.String, "value": pl.String, "weight": pl.Float64, "articles": pl.Int64,
}  # fmt: skip
LOST: dict[str, type[pl.DataType]] = {
    "encoder": pl.String, "auc_lost": pl.Float64, "low": pl.Float64, "high": pl.Float64,
}  # fmt: skip


def explanation(evidence: Evidence) -> Section:
    """Weights and losses by encoder."""
    lead = (
        "A weight says how much of an encoder's vector the fusion takes. It does not say what that is good for: "
        "the AUC lost when its vectors are all replaced by their mean does, with its 95 % interval over users."
    )
    return Section("What the encoders are worth", lead, present(lambda: _lost(evidence), lambda: _weights(evidence)))


def _lost(evidence: Evidence) -> Iterator[Block]:
    frame = evidence.frame(f"{FOLDER}/lost.csv", LOST, "evaluate")
    drawn = frame.select(pl.col("encoder").alias("name"), pl.col("auc_lost").alias("mean"), "low", "high")
    yield charts.intervals(drawn, caption="AUC lost without each encoder", x="AUC lost", zero=True)
    rows = [(name, Figure(number(lost), between(low, high))) for name, lost, low, high in frame.iter_rows()]
    yield Table(("encoder", "AUC lost"), rows)


def _weights(evidence: Evidence) -> Iterator[Block]:
    frame = evidence.frame(f"{FOLDER}/weights.csv", WEIGHTS, "evaluate")
    if frame.is_empty():
        yield Note("This fusion has no weights: it does not divide an article among its encoders.")
    for (group,), rows in frame.group_by("group", maintain_order=True):
        yield from _group(str(group), rows)


def _group(group: str, rows: pl.DataFrame) -> Iterator[Block]:
    largest = rows.group_by("value").agg(pl.col("articles").max()).top_k(MOST, by=["articles", "value"])
    rows = rows.filter(pl.col("value").is_in(largest["value"].implode()))
    drawn = rows.select(pl.col("value").alias("name"), pl.col("encoder").alias("part"), pl.col("weight").alias("value"))
    caption = "Weights of all articles" if group == "all" else f"Weights by {group}"
    yield charts.shares(drawn, caption=caption, x="mean weight")
    encoders = rows["encoder"].unique().sort().to_list()
    groups = rows.group_by("value", maintain_order=True)
    yield Table((group, *encoders, "articles"), [_row(str(value), each, encoders) for (value,), each in groups])


def _row(value: str, rows: pl.DataFrame, encoders: list[str]) -> list[Cell]:
    weights = dict(rows.select("encoder", "weight").iter_rows())
    articles = Figure(number(rows["articles"][0], 0))
    return [value, *(Figure(number(weights.get(encoder), 3)) for encoder in encoders), articles]
