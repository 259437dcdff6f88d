"""`newsfuse compare`: what its user sees and gets written."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path

from newsfuse.comparison import Comparison, Cost, Finding, comparison
from newsfuse.course import ALL
from newsfuse.entrants import entrants
from newsfuse.outfile import STDOUT, deliver, require_one_at_stdout
from newsfuse.ranking import METRICS
from newsfuse.sheet import Sheet, comma_separated, markdown, page
from newsfuse.terminal import dollars, show, tell
from newsfuse.verdict import UNKNOWN, chance, signed, verdict

SLICED = "auc"
"""The metric whose slices are shown: four times as many rows would be read by nobody. CSV has all."""


def compare(words: Sequence[str], root: Path, files: Mapping[str, Path], *, by_slice: bool) -> None:
    """Compare what `words` say (see `entrants`), show it, and write it.

    `files`: where to by form (md, csv, html), `-` for standard output, which then has nothing else. Raises what
    `entrants` and `comparison` raise, and StorageError.
    """
    require_one_at_stdout(files, "--md, --csv and --html")
    in_slices = METRICS if "csv" in files else (SLICED,) if by_slice else ()
    found = comparison(entrants(words), root, in_slices=tuple(in_slices))
    sheets, said = _sheets(found, by_slice=by_slice), [*verdict(found), *_missing(found, by_slice=by_slice)]
    forms: dict[str, Callable[[], str]] = {
        "md": lambda: markdown(sheets, said),
        "html": lambda: page(f"{found.reference} and others", sheets, said),
        "csv": lambda: _csv(found),
    }
    if STDOUT not in files.values():
        _show(sheets, said)
    for form, path in files.items():
        deliver(path, forms[form]())


def _sheets(found: Comparison, *, by_slice: bool) -> list[Sheet]:
    whole = [each for each in found.findings if each.slice == ALL]
    some = [each for each in found.findings if each.slice != ALL and each.metric == SLICED]
    size = max(whole, key=lambda each: each.impressions)
    title = f"{size.impressions:,} impressions of {size.users:,} users; differences to {found.reference}"
    sheets = [_metrics(title, whole)]
    if by_slice and some:
        sheets.append(_slices(some))
    return [*sheets, _costs(found.costs)]


def _metrics(title: str, findings: Sequence[Finding]) -> Sheet:
    has_spread = any(each.seeds > 1 for each in findings)
    head = ("metric", "run", "value", *(["sd"] if has_spread else []), "diff.", "95 %", "p")
    rows = [
        (
            METRICS[each.metric],
            each.run,
            _plain(each.value),
            *([_plain(each.spread)] if has_spread else []),
            *_gap(each),
        )
        for each in findings
    ]
    return Sheet(title, head, tuple(rows), names=2)


def _slices(findings: Sequence[Finding]) -> Sheet:
    rows = [(each.slice, each.run, _plain(each.value), *_gap(each)) for each in findings]
    tested = sum(not math.isnan(each.p) for each in findings)
    title = f"By slice; p for {tested} comparisons (Holm)"
    return Sheet(title, ("slice", "run", METRICS[SLICED], "diff.", "95 %", "p"), tuple(rows), names=2)


def _costs(costs: Sequence[Cost]) -> Sheet:
    rows = [(each.run, str(each.seeds), _money(each.dollars), _minutes(each.minutes)) for each in costs]
    return Sheet("Cost of one run", ("run", "seeds", "dollars", "minutes"), tuple(rows), names=1)


def _gap(finding: Finding) -> tuple[str, str, str]:
    if math.isnan(finding.difference):
        return "", "", ""
    interval = UNKNOWN if math.isnan(finding.low) else f"{signed(finding.low)} to {signed(finding.high)}"
    return signed(finding.difference), interval, chance(finding.p_corrected)


def _plain(value: float) -> str:
    return UNKNOWN if math.isnan(value) else f"{value:.4f}".removeprefix("0")


def _money(usd: float | None) -> str:
    return UNKNOWN if usd is None else dollars(usd)


def _minutes(minutes: float | None) -> str:
    return UNKNOWN if minutes is None else f"{minutes:,.1f}"


def _missing(found: Comparison, *, by_slice: bool) -> list[str]:
    """Why there are fewer slices than there might be, if it is so and they were asked for."""
    if not by_slice or not found.missing:
        return []
    lack = (
        f"The predictions of {found.reference} lack {', '.join(found.missing)}: an older version of newsfuse made them"
    )
    return [f"{lack}. There are no slices by these until the evaluate stage has run again."]


def _csv(found: Comparison) -> str:
    """All findings in full precision, with what their runs cost; empty: not defined, or not known."""
    costs = {each.run: (each.dollars, each.minutes) for each in found.costs}
    head = [*(field.name for field in fields(Finding)), "dollars", "minutes"]
    rows = [(*map(_number, astuple(each)), *costs[each.run]) for each in found.findings]
    return comma_separated(head, rows)


def _number(cell: object) -> object:
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def _show(sheets: Sequence[Sheet], said: Sequence[str]) -> None:
    for sheet in sheets:
        tell(f"{sheet.title}\n")
        show(sheet.table())
        tell("")
    for sentence in said:
        tell(sentence)
