"""The data set by itself: whether it can be read, and whether it asks what it should."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from newsfuse import csr
from newsfuse.doctor.finding import FIRST, Finding, failure, ok, warning
from newsfuse.doctor.tree import Tree
from newsfuse.errors import DataError
from newsfuse.parsed import Parsed
from newsfuse.words import Words

FETCHED = ("demo", "small", "large")
MOST_UNKNOWN = 0.02
"""Share of mentions without an article: .2 % in EB-NeRD's demo, none in MIND."""
MOST_KNOWN_CLICKS = 0.1
"""Share of clicks on what the history has already: .7 % in MIND, .2 % in EB-NeRD's demo, 3 % in data/tiny."""
LEAST_LEARNABLE = 0.5
"""Share of impressions with both a click and something passed by: all of MIND's and EB-NeRD's."""


def files(tree: Tree) -> Iterator[Finding]:
    """Whether all files are there and can be read. Raises DataError with file:line for the first wrong line."""
    if tree.missing:
        yield failure(DataError, f"not there: {', '.join(map(str, tree.missing))}", _way(tree))
        return
    news = tree.news
    yield ok(f"{tree.data}/*/news.tsv: {len(news):,} articles")
    for split, found in (("train", tree.train), ("dev", tree.dev)):
        path, days = tree.file(split, "behaviors.tsv"), f"{found.times.min()} to {found.times.max()}"
        yield ok(f"{path}: {len(found.users):,} impressions, {days.replace('T', ' ')}")
    tree.behaviors("dev", news).require_distinct(tree.file("dev", "behaviors.tsv"))


def _way(tree: Tree) -> str:
    """How its files come here."""
    tracked = [path.with_suffix("") for path in sorted(tree.data.glob("*.dvc"))]
    if tracked:
        return f"dvc pull {' '.join(map(str, tracked))}"
    if tree.data.name in FETCHED:
        return f"newsfuse fetch {tree.data.name} --accept-license"
    return f"put them there ({Path('docs/data.md')}), or take the shipped data set: dvc exp run -S dataset=tiny"


def mentions(tree: Tree) -> Iterator[Finding]:
    """How many articles that histories and candidates mention have no line in news.tsv."""
    for split, found in (("train", tree.train), ("dev", tree.dev)):
        mentioned = {"clicks of histories": found.history_ids, "candidates": found.candidate_ids}
        unknown = Words(tree.news.ids).numbers(found.ids) == 0
        yield _unknown(tree.file(split, "behaviors.tsv"), found.ids, mentioned, unknown)


def _unknown(path: Path, ids: pl.Series, mentioned: Mapping[str, np.ndarray], unknown: np.ndarray) -> Finding:
    shares = {what: float(unknown[rows].mean()) if len(rows) else 0.0 for what, rows in mentioned.items()}
    parts = " and ".join(f"{share:.2%} of {len(mentioned[what]):,} {what}" for what, share in shares.items())
    told = f"{path}: {parts} have no line in a news.tsv"
    if max(shares.values()) <= MOST_UNKNOWN:
        return ok(told)
    first = ", ".join(ids.filter(pl.Series(unknown)).head(FIRST))
    return warning(f"{told}, such as {first}", "add their lines to news.tsv: of what has none, nothing is known")


def histories(tree: Tree) -> Iterator[Finding]:
    """How often what is clicked stands in the history already: one that was written later gives the answer away."""
    for split, found in (("train", tree.train), ("dev", tree.dev)):
        path, again, clicks = tree.file(split, "behaviors.tsv"), clicked_again(found), int((found.labels == 1).sum())
        share = len(again) / max(1, clicks)
        told = f"{path}: {share:.1%} of {clicks:,} clicks are on articles that the history has already"
        if share <= MOST_KNOWN_CLICKS:
            yield ok(told)
        else:
            line = int(np.searchsorted(found.candidate_offsets, again[0], side="right"))
            fix = "keep in each history only what was clicked before that impression"
            yield warning(f"{told}, first {path}:{line} ({found.ids[int(found.candidate_ids[again[0]])]})", fix)
        yield from _learnable(path, found)


def clicked_again(found: Parsed) -> np.ndarray:
    """int64: the clicked candidates that their impression's history has."""
    clicks, n = np.flatnonzero(found.labels == 1), len(found.ids)
    owner = csr.owners(found.candidate_offsets)[clicks]
    read = np.unique(csr.owners(found.history_offsets) * n + found.history_ids)
    asked = found.history[owner].astype(np.int64) * n + found.candidate_ids[clicks]
    return clicks[np.isin(asked, read)]


def _learnable(path: Path, found: Parsed) -> Iterator[Finding]:
    clicked = np.add.reduceat(found.labels, found.candidate_offsets[:-1], dtype=np.int64)
    both = (clicked > 0) & (clicked < csr.lengths(found.candidate_offsets))
    told = f"{path}: {both.mean():.1%} of impressions have a click and an article that was passed by"
    if both.mean() >= LEAST_LEARNABLE:
        yield ok(told)
    else:
        yield warning(told, "nothing is learned from the others, nor measured: keep what was shown and not clicked")
