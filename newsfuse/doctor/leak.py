"""What train may know of dev: dev is another, later day, or its figures mean nothing."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from newsfuse.doctor.finding import Finding, failure, ok, warning
from newsfuse.doctor.tree import Tree
from newsfuse.errors import DataError
from newsfuse.parsed import COLUMNS

MOST_EARLY = 0.01
"""Share of dev's impressions that may be earlier than train's last one: none in MIND and EB-NeRD."""
MOST_READ = 0.05
"""Share of dev's clicks that the same user's history in train may have: .1 % in MIND and in EB-NeRD's demo."""
LEAST_SHOWN = 3
"""Candidates of which another time is a coincidence no more."""
SPLIT = "split by time: train is what came before dev's first impression"


def shared_impressions(tree: Tree) -> Iterator[Finding]:
    """Impressions of dev that train has as well, by user, time and what was shown, in whatever order."""
    train, dev = (_lines(tree.file(split, "behaviors.tsv")) for split in ("train", "dev"))
    users = train.select("user").unique().join(dev.select("user").unique(), on="user")
    both = _shown(train, users).join(_shown(dev, users), on=["user", "shown"], suffix="_dev").collect()
    same = both.filter(pl.col("time") == pl.col("time_dev")).unique("line_dev").sort("line_dev")
    other = both.filter(
        (pl.col("time") != pl.col("time_dev")) & (pl.col("shown").str.count_matches(" ") >= LEAST_SHOWN - 1)
    )
    paths, total = [tree.file(split, "behaviors.tsv") for split in ("train", "dev")], len(tree.dev.users)
    if len(same):
        told = f"{len(same):,} of dev's {total:,} impressions are in train as well (user, time and candidates)"
        yield failure(DataError, f"{told}, first {_first(same, *paths)}", "remove them from train/behaviors.tsv")
    if len(other):
        n = other["line_dev"].n_unique()
        told = f"{n:,} of dev's {total:,} impressions are in train at another time (user and candidates)"
        yield warning(f"{told}, first {_first(other.sort('line_dev'), *paths)}", "remove them from train/behaviors.tsv")
    if not len(same) and not len(other):
        yield ok("no impression of dev is in train as well")


def _lines(path: Path) -> pl.LazyFrame:
    """Every line of a file that has been read before, and is known to be right."""
    schema = dict.fromkeys(COLUMNS, pl.String)
    return pl.scan_csv(path, separator="\t", has_header=False, quote_char=None, schema=schema).with_row_index("line", 1)


def _shown(lines: pl.LazyFrame, users: pl.LazyFrame) -> pl.LazyFrame:
    """With `shown`, the candidates in alphabetical order, for these users alone: to take all apart takes longest."""
    shown = pl.col("candidates").str.replace_all(r"-[01]( |$)", "$1").str.split(" ").list.sort().list.join(" ")
    return lines.join(users, on="user", how="semi").select("line", "user", "time", shown.alias("shown"))


def _first(both: pl.DataFrame, train: Path, dev: Path) -> str:
    line, line_dev = both.select("line", "line_dev").row(0)
    return f"{dev}:{line_dev} and {train}:{line}"


def order(tree: Tree) -> Iterator[Finding]:
    """Whether dev comes after train."""
    end, start = tree.train.times.max(), tree.dev.times.min()
    early = tree.dev.times <= end
    if not early.any():
        yield ok(f"dev begins after train ends ({end} and {start})".replace("T", " "))
        return
    line, path = int(np.argmax(early)) + 1, tree.file("dev", "behaviors.tsv")
    told = f"{early.sum():,} of dev's {len(early):,} impressions are not later than train's last ({end}), first "
    told = f"{told.replace('T', ' ')}{path}:{line}"
    yield failure(DataError, told, SPLIT) if early.mean() > MOST_EARLY else warning(told, SPLIT)


def read_before(tree: Tree) -> Iterator[Finding]:
    """Clicks of dev that stand in the same user's history in train, where nobody could have known of them yet."""
    train, dev = (tree.file(split, "behaviors.tsv") for split in ("train", "dev"))
    clicks = _clicks(dev)
    known = clicks.join(_histories(train), on=["user", "news"], how="semi").sort("line").collect()
    total = clicks.select(pl.len()).collect().item()
    told = f"{len(known) / max(1, total):.2%} of dev's {total:,} clicks are in the user's history in train"
    if len(known) <= MOST_READ * total:
        yield ok(told)
        return
    line, news = known.select("line", "news").row(0)
    fix = "keep in each history of train only what was clicked before that impression"
    yield failure(DataError, f"{told}, first {dev}:{line} ({news})", fix)


def _clicks(path: Path) -> pl.LazyFrame:
    cells = _lines(path).select("line", "user", pl.col("candidates").str.split(" ").alias("news")).explode("news")
    clicked = cells.filter(pl.col("news").str.ends_with("-1"))
    return clicked.with_columns(pl.col("news").str.strip_suffix("-1")).unique(["line", "news"])


def _histories(path: Path) -> pl.LazyFrame:
    histories = _lines(path).select("user", pl.col("history").str.split(" ").alias("news")).unique()
    return histories.explode("news").unique()
