"""The section on where the run ranks well: parts of the evaluated candidates and impressions."""

from collections.abc import Iterator, Sequence

import polars as pl

from newsfuse.ranking import METRICS
from newsfuse.report import charts
from newsfuse.report.evidence import Evidence
from newsfuse.report.figures import Part, drops_unknown, parts
from newsfuse.report.section import Block, Cell, Figure, Section, Table, number, present

SHOWN = ("auc", "ndcg10")


def slices(evidence: Evidence) -> Section:
    """The metrics of each slice, by what the slices are told apart by."""
    lead = (
        "The same metrics on parts of the evaluation: the candidates that training has seen (warm) or not (cold), and "
        "whole impressions by the user's history, by the category of what was clicked and by hour of the day. Slices "
        "differ in how hard they are; many are looked at, so that the best and the worst are so partly by chance."
    )
    return Section("Slices", lead, present(lambda: _slices(evidence)))


def _slices(evidence: Evidence) -> Iterator[Block]:
    found = [part for part in parts(evidence.run, SHOWN, drop_unknown=drops_unknown(evidence)) if part.impressions]
    for kind in dict.fromkeys(part.kind for part in found):
        yield from _kind(kind, [part for part in found if part.kind == kind])


def _kind(kind: str, found: Sequence[Part]) -> Iterator[Block]:
    drawn = [(part.value, *part.metrics["auc"].ends) for part in found]
    frame = pl.DataFrame(drawn, charts.INTERVALS, orient="row")
    yield charts.intervals(frame, caption=f"AUC by {kind}", x="AUC")
    rows = [_row(part) for part in found]
    yield Table((kind, *(METRICS[name] for name in SHOWN), "impressions"), rows)


def _row(part: Part) -> Sequence[Cell]:
    return part.value, *(part.metrics[name].figure() for name in SHOWN), Figure(number(part.impressions, 0))
