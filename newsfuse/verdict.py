"""What a comparison lets one say, in words, and no more than that."""

import math
from collections.abc import Iterator

from newsfuse.bootstrap import RESAMPLES
from newsfuse.comparison import FEW_USERS, Comparison, Finding
from newsfuse.course import ALL
from newsfuse.ranking import METRICS

SIGNIFICANT = 0.05
"""Of corrected p values."""
LEAST = 0.001
"""Of p values that are printed."""
UNKNOWN = "-"


def verdict(comparison: Comparison) -> list[str]:
    """A sentence or two for each entrant but the reference, then what the figures do not tell."""
    entrants = [cost.run for cost in comparison.costs[1:]]
    said = [sentence for entrant in entrants for sentence in _of_one(entrant, comparison)]
    return [*said, *_limits(comparison)]


def _of_one(entrant: str, comparison: Comparison) -> Iterator[str]:
    both = f"{entrant} and {comparison.reference}"
    own = [each for each in comparison.findings if each.run == entrant and each.slice == ALL]
    certain = [each for each in own if each.p_corrected < SIGNIFICANT]
    if better := [_said(each) for each in certain if each.difference > 0]:
        yield f"{entrant} ranks better than {comparison.reference}: {'; '.join(better)}."
    if worse := [_said(each) for each in certain if each.difference < 0]:
        yield f"{entrant} ranks worse than {comparison.reference}: {'; '.join(worse)}."
    if doubted := [_of_seeds(each) for each in certain if abs(each.difference) < each.seed_margin]:
        yield f"{both}: other seeds may turn this round: seeds alone make up to {', '.join(doubted)}."
    if unclear := [_said(each) for each in own if each.p_corrected >= SIGNIFICANT]:
        yield f"{both}, no difference that is not noise: {'; '.join(unclear)}."
    if any(math.isnan(each.p_corrected) for each in own):
        yield f"{both}: no interval where fewer than {FEW_USERS} users have the metric."


def _of_seeds(finding: Finding) -> str:
    return f"{finding.seed_margin:.4f} {METRICS[finding.metric]}".removeprefix("0")


def _said(finding: Finding) -> str:
    interval = f"{signed(finding.low)} to {signed(finding.high)}"
    return f"{signed(finding.difference)} {METRICS[finding.metric]} ({interval}), p {chance(finding.p_corrected)}"


def _limits(comparison: Comparison) -> Iterator[str]:
    tested = [each for each in comparison.findings if each.slice == ALL and not math.isnan(each.p)]
    corrected = f", p for {len(tested)} comparisons (Holm)" if tested else ""
    yield f"Intervals are of 95 %, by {RESAMPLES:,} resamples of the users{corrected}."
    if min(cost.seeds for cost in comparison.costs) > 1:
        yield "They are of these seeds' mean; the spread (sd) is between its seeds."
    else:
        yield "They do not tell what other seeds would give: a run of one seed stands for that seed only."


def signed(value: float) -> str:
    """Such as +.0120."""
    return UNKNOWN if math.isnan(value) else f"{value:+.4f}".replace("0.", ".", 1)


def chance(p: float) -> str:
    """A p value such as .003, or <.001."""
    if math.isnan(p):
        return UNKNOWN
    return "<.001" if p < LEAST else f"{p:.3f}".removeprefix("0")
