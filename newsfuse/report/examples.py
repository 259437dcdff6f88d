"""The section with impressions that the run ranked well and badly."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from newsfuse import csr
from newsfuse.errors import NewsfuseError
from newsfuse.news import News
from newsfuse.ranking import ranks, unknown_last
from newsfuse.report.evidence import Evidence
from newsfuse.report.section import AbsentError, Block, Candidate, Example, Note, Section, number, present
from newsfuse.runs import WORKSPACE, Run

EACH = 3
"""Impressions of each sort."""
TOP = 5
"""Candidates shown of an impression, and clicked ones beyond them."""


@dataclass(frozen=True)
class Words:
    """What is known of articles, by id."""

    headlines: Mapping[str, str]
    weights: Mapping[str, Mapping[str, float]]


def examples(evidence: Evidence, root: Path) -> Section:
    """Impressions by AUC, the longest first among equals. `root`: the project, whose data may have the headlines."""
    lead = "By AUC within the impression; of equals, those with most candidates. They are extremes, and not typical."
    return Section("Impressions ranked well and badly", lead, present(lambda: _examples(evidence, root)))


def _examples(evidence: Evidence, root: Path) -> Iterator[Block]:
    run = evidence.run
    auc = run.ranking(drop_unknown=False).auc
    best, worst = extremes(auc, csr.lengths(run.offsets))
    rows = np.concatenate([best, worst])
    ids = run.table[csr.gather(run.offsets, rows)]["news"].drop_nulls().unique()
    words = Words(_headlines(evidence, root, ids), _weights(evidence, ids))
    if not words.headlines:
        yield Note("Headlines are not known here: the data set is missing, or not the one that was evaluated.")
    ranked = [*(("Ranked well", row) for row in best), *(("Ranked badly", row) for row in worst)]
    yield from (_example(run, int(row), f"{title}: AUC {number(auc[row], 2)}", words) for title, row in ranked)


def extremes(auc: np.ndarray, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the EACH best and worst impressions, none in both. `auc`: NaN where undefined; `candidates`: how many."""
    defined = np.flatnonzero(~np.isnan(auc))
    best = defined[np.lexsort([defined, -candidates[defined], -auc[defined]])]
    worst = defined[np.lexsort([defined, -candidates[defined], auc[defined]])]
    each = min(EACH, (len(defined) + 1) // 2)
    return best[:each], np.setdiff1d(worst[:each], best[:each], assume_unique=True)


def _example(run: Run, row: int, title: str, words: Words) -> Example:
    part = slice(run.offsets[row], run.offsets[row + 1])
    table, scores = run.table[part], unknown_last(run.scores[part])
    table = table.with_columns(rank=pl.Series(ranks(scores, np.array([0, len(scores)])))).sort("rank")
    shown = pl.concat([table.head(TOP), table.slice(TOP).filter(pl.col("clicked") == 1).head(TOP)])
    history = f", {table['history'][0]:,} clicks in the user's history" if "history" in table.columns else ""
    heading = f"{title} (impression {run.impressions[row]}, {len(table):,} candidates{history})"
    return Example(heading, [_candidate(article, words) for article in shown.iter_rows(named=True)])


def _candidate(article: Mapping[str, object], words: Words) -> Candidate:
    news, score = article["news"], article["score"]
    known = [str(article["category"])] if article.get("category") else []
    remarks = [*known, f"score {number(score, 3)}" if isinstance(score, float) else "no score"]
    remarks += ["seen in training" if article["warm"] else "new"]
    weights = [f"{name} {number(weight, 2)}" for name, weight in words.weights.get(str(news), {}).items()]
    headline = words.headlines.get(str(news), str(news) if news is not None else "an unknown article")
    return Candidate(int(str(article["rank"])), bool(article["clicked"]), headline, remarks, weights)


def _weights(evidence: Evidence, ids: pl.Series) -> dict[str, dict[str, float]]:
    try:
        frame = evidence.articles
    except AbsentError:
        return {}
    rows = frame.filter(pl.col("news").is_in(ids.implode())).iter_rows(named=True)
    return {row["news"]: {name.removeprefix("weight_"): row[name] for name in row if name != "news"} for row in rows}


def _headlines(evidence: Evidence, root: Path, ids: pl.Series) -> dict[str, str]:
    """Of the articles, from the workspace's data set; {} unless it is the one that was evaluated."""
    try:
        paths = [root / "data" / evidence.dataset / split / "news.tsv" for split in ("train", "dev")]
        if not all(_is_same(evidence, path, root) for path in paths):
            return {}
        frame = News.read(*paths).frame.filter(pl.col("id").is_in(ids.implode()))
    except (AbsentError, NewsfuseError, OSError):
        return {}
    return {news: title or news for news, title in frame.select("id", "title").iter_rows()}


def _is_same(evidence: Evidence, path: Path, root: Path) -> bool:
    """Whether the file is the one that dvc.lock names."""
    try:
        known = evidence.locked.get(path.relative_to(root).as_posix(), {}).get("md5")
    except AbsentError:
        known = None
    if known is None:
        return evidence.name == WORKSPACE  # run without DVC: there is no other data it could be of
    with path.open("rb") as file:
        return bool(hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == known)
