"""The section that sets other runs beside this one, each with what it was run with otherwise."""

from collections.abc import Iterator, Sequence

import polars as pl

from newsfuse.errors import DataError
from newsfuse.ranking import METRICS
from newsfuse.report import charts
from newsfuse.report.evidence import Evidence, flattened
from newsfuse.report.figures import Estimated, differences, drops_unknown
from newsfuse.report.section import AbsentError, Block, Cell, Note, Section, Table, present

SHOWN = ("auc", "ndcg10")
FILES = {"code": ("newsfuse/", "plugins/", "stages/"), "data": ("data/",)}
"""What stages read beside settings, and where it is."""


def ablation(evidence: Evidence, others: Sequence[Evidence]) -> Section:
    """How much better or worse the others rank, on the same impressions."""
    lead = (
        f"How much better each ranks than '{evidence.name}', impression by impression, with 95 % intervals over users. "
        "An interval with 0 in it is no difference that could be told from noise. Intervals are not corrected for "
        "how many runs there are."
    )
    if not others:
        return Section("Other runs", "", [Note("None was named: newsfuse report --against NAME sets one beside this.")])
    return Section("Other runs", lead, present(lambda: _differences(evidence, others)))


def _differences(evidence: Evidence, others: Sequence[Evidence]) -> Iterator[Block]:
    evidence.run  # noqa: B018 - without it nothing can be compared, which one sentence says
    found = {other.name: _found(evidence, other) for other in others}
    known = {name: each for name, each in found.items() if not isinstance(each, str)}
    if known:
        yield _chart(known)
        yield _table(evidence, others, known)
    yield from (Note(each) for each in found.values() if isinstance(each, str))


def _found(evidence: Evidence, other: Evidence) -> dict[str, Estimated] | str:
    """The differences, or why there are none."""
    try:
        return differences(other.run, evidence.run, drop_unknown=drops_unknown(evidence))
    except AbsentError as absent:
        return str(absent)
    except DataError as error:
        return f"'{other.name}' cannot be compared: {error}."


def _chart(known: dict[str, dict[str, Estimated]]) -> Block:
    rows = [(name, *each["auc"].ends) for name, each in known.items()]
    frame = pl.DataFrame(rows, charts.INTERVALS, orient="row")
    return charts.intervals(frame, caption="Difference in AUC; the line is this run", x="difference in AUC", zero=True)


def _table(evidence: Evidence, others: Sequence[Evidence], known: dict[str, dict[str, Estimated]]) -> Block:
    rows: list[list[Cell]] = [
        [other.name, *(known[other.name][metric].figure(sign=True) for metric in SHOWN), _otherwise(evidence, other)]
        for other in others
        if other.name in known
    ]
    return Table(("run", *(METRICS[metric] for metric in SHOWN), "run with"), rows)


def _otherwise(evidence: Evidence, other: Evidence) -> str:
    """What differs in how the other was run."""
    try:
        mine, theirs = flattened(evidence.params), flattened(other.params)
    except AbsentError:
        return "settings not known"
    names = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    settings = [f"{name}: {theirs.get(name, '(none)')}" for name in names]
    files = [f"other {words}" for words, folders in FILES.items() if _read(evidence, folders) != _read(other, folders)]
    return "; ".join([*settings, *files]) or "the same settings, code and data"


def _read(evidence: Evidence, folders: tuple[str, ...]) -> dict[str, str]:
    """Hashes of the files that stages read, by path."""
    try:
        return {path: md5 for path, md5 in evidence.inputs.items() if path.startswith(folders)}
    except AbsentError:
        return {}
