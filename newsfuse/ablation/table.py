"""The table of an ablation: a row for each choice of encoders and fusion, over its seeds, and what it lets one say."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from statistics import fmean, stdev

from rich.table import Table

from newsfuse.ablation.finished import Finished
from newsfuse.ablation.variants import Variant, plain
from newsfuse.comparison import mean_if_known
from newsfuse.errors import printable
from newsfuse.ranking import METRICS
from newsfuse.sheet import Sheet, comma_separated, grid
from newsfuse.terminal import dollars
from newsfuse.verdict import UNKNOWN

HEAD = ("encoders", "fusion", "n", METRICS["auc"], "sd", METRICS["ndcg10"], "sd", "dollars", "minutes")
NAMES = 2
"""Columns that are words."""
WIDEST = (16, 9)
"""Of them, so that figures have room in 80 columns."""


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed only. None: not known, or not to be had from one seed."""

    encoders: str
    fusion: str
    seeds: int
    auc: float
    """Mean over seeds, as the others."""
    auc_sd: float | None
    """Standard deviation over seeds, by seeds - 1."""
    ndcg10: float
    ndcg10_sd: float | None
    dollars: float | None
    """Of one run."""
    minutes: float | None
    """Of one run."""
    runs: tuple[str, ...]
    """The names of their experiments."""


def rows(variants: Sequence[Variant], done: Mapping[str, Finished]) -> list[Row]:
    """Of the variants that are done; the highest AUC first."""
    groups: dict[tuple[tuple[str, ...], str], list[Variant]] = {}
    for variant in variants:
        if variant.name in done:
            groups.setdefault((variant.encoders, variant.fusion), []).append(variant)
    found = [_row(group, [done[each.name] for each in group]) for group in groups.values()]
    return sorted(found, key=lambda row: row.auc, reverse=True)


def _row(group: Sequence[Variant], results: Sequence[Finished]) -> Row:
    auc, ndcg10 = [each.auc for each in results], [each.ndcg10 for each in results]
    return Row(
        " ".join(group[0].encoders),
        group[0].fusion,
        len(group),
        fmean(auc),
        _sd(auc),
        fmean(ndcg10),
        _sd(ndcg10),
        mean_if_known([each.dollars for each in results]),
        mean_if_known([each.minutes for each in results]),
        tuple(each.name for each in group),
    )


def _sd(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def table(found: Sequence[Row]) -> Table:
    """For a terminal of 80 columns; many encoders take more than one line."""
    drawn = grid()
    for number, name in enumerate(HEAD):
        if number < NAMES:
            drawn.add_column(name, max_width=WIDEST[number], overflow="fold")
        else:
            drawn.add_column(name, justify="right", no_wrap=True)
    for row in found:
        drawn.add_row(*map(printable, _cells(row)))
    return drawn


def sheet(found: Sequence[Row], title: str) -> Sheet:
    """For Markdown."""
    return Sheet(title, HEAD, tuple(_cells(row) for row in found), NAMES)


def _cells(row: Row) -> tuple[str, ...]:
    figures = (_figure(each) for each in (row.auc, row.auc_sd, row.ndcg10, row.ndcg10_sd))
    cost = UNKNOWN if row.dollars is None else dollars(row.dollars)
    minutes = UNKNOWN if row.minutes is None else f"{row.minutes:,.2f}"
    return row.encoders, row.fusion, str(row.seeds), *figures, cost, minutes


def _figure(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4f}".removeprefix("0")


def csv(found: Sequence[Row]) -> str:
    """All digits; empty where something is not known. The runs stand in one cell, with spaces between."""
    head = [field.name for field in fields(Row)]
    return comma_separated(head, [(*astuple(row)[:-1], " ".join(row.runs)) for row in found])


def said(found: Sequence[Row]) -> list[str]:
    """What the table does not tell, and the command that does."""
    sentences = []
    if any(row.seeds == 1 for row in found):
        sentences.append("One seed is no ground to prefer a row: its sd is unknown. Ask for several: --seeds 0,1,2")
    if any(row.dollars for row in found):
        sentences.append("Embeddings that rows share were paid for once, though each of these rows has their price.")
    if len(found) > 1:
        sentences.append(f"Noise or not: {comparing(found)}")
    return sentences


def comparing(found: Sequence[Row]) -> str:
    """The command that compares all rows with the one that has most encoders; all, since Holm must count them."""
    reference = max(found, key=lambda row: len(row.encoders.split()))
    has_fusions = len({row.fusion for row in found}) > 1
    words = ["newsfuse", "compare"]
    for row in (reference, *(row for row in found if row is not reference)):
        label = "+".join(row.encoders.split()) + (f"-{row.fusion}" if has_fusions else "")
        words.append(f"{plain(label)}={','.join(row.runs)}")
    return " ".join(words)
