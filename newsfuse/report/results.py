"""The section on how well the run ranks: MIND's metrics, beside scorers that have learned nothing."""

from collections.abc import Iterator

import polars as pl

from newsfuse.comparison import FEW_USERS
from newsfuse.ranking import METRICS
from newsfuse.report import charts
from newsfuse.report.evidence import Evidence
from newsfuse.report.figures import Estimated, drops_unknown, means
from newsfuse.report.section import Block, Figure, Note, Section, Table, number, present

BASELINES = {
    "random": "random order",
    "popularity": "popularity in train",
    "category": "categories of the history",
    "cosine": "cosine to the history's mean",
}
"""Prefixes of metrics of scorers that have learned nothing, and what they rank by."""
CAPTION = "AUC, beside scorers that have learned nothing; of these no interval is known"
METRICS_FILE = "metrics/evaluate/metrics.json"


def results(evidence: Evidence) -> Section:
    """The metrics of the run."""
    lead = (
        "Means over impressions by MIND's definitions; higher is better. Beside each its 95 % interval over users: "
        "what other readers of the same days would give. What another seed would give is not in it. Of fewer than "
        f"{FEW_USERS} users there is no interval."
    )
    return Section("Results", lead, present(lambda: _metrics(evidence), lambda: _baselines(evidence)))


def everything(evidence: Evidence) -> Section:
    """All that evaluate measured."""
    lead = "All that the evaluate stage measured, by the names that dvc metrics and dvc exp show have."
    return Section("All metrics", lead, present(lambda: _everything(evidence)))


def _metrics(evidence: Evidence) -> Iterator[Block]:
    found = means(evidence.run, drop_unknown=drops_unknown(evidence))
    yield Table(("metric", "mean"), [(METRICS[name], each.figure()) for name, each in found.items()])


def _baselines(evidence: Evidence) -> Iterator[Block]:
    metrics = evidence.mapping(METRICS_FILE, "evaluate")
    found = {words: metrics.get(f"{name}_auc") for name, words in BASELINES.items()}
    rows = {words: mean for words, mean in found.items() if isinstance(mean, float)}
    if not rows:
        yield Note("This evaluation has no baselines to compare with. Newer ones do: dvc repro evaluate.")
        return
    own = means(evidence.run, drop_unknown=drops_unknown(evidence))["auc"]
    known = [("this run", own), *((words, Estimated(mean)) for words, mean in rows.items())]
    drawn = [(words, *each.ends) for words, each in known]
    frame = pl.DataFrame(drawn, charts.INTERVALS, orient="row")
    yield charts.intervals(frame, caption=CAPTION, x="AUC")


def _everything(evidence: Evidence) -> Iterator[Block]:
    metrics = evidence.mapping(METRICS_FILE, "evaluate")
    rows = [(name, Figure(_plain(value))) for name, value in sorted(metrics.items())]
    yield Table(("name", "value"), rows)


def _plain(value: object) -> str:
    return number(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
