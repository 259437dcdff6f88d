"""What train may know of dev: dev is another, later day, or its figures mean nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl

from newsfuse.doctor.finding import Finding, failure, ok, warning
from newsfuse.doctor.tree import Tree
from newsfuse.errors import DataError
from newsfuse.parsed import COLUMNS

MOST_EARLY = 0.01
"""Share of dev's impressions that may be earlier than train's last one: none in MIND and EB-NeRD."""
MOST_READ, SOME_READ = 0.05, 0.005
"""Share of dev's clicks that the same user's history in train may have: .1 % in MIND, .05 % in EB-NeRD's demo."""
MOST_CLICKED, SOME_CLICKED = 0.05, 0.02
"""The same of the user's clicks in train: .05 % in MIND, .13 % in EB-NeRD's demo, 1 % in data/tiny."""
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


def clicked_before(tree: Tree) -> Iterator[Finding]:
    """Clicks of dev that train has from the same user, whatever else was shown there, and when."""
    fix = "remove those impressions from train/behaviors.tsv"
    yield _known(tree, _clicks, "are the user's clicks in train as well", (SOME_CLICKED, MOST_CLICKED), fix)


def read_before(tree: Tree) -> Iterator[Finding]:
    """Clicks of dev that stand in the same user's history in train, where nobody could have known of them yet."""
    fix = "keep in each history of train only what was clicked before that impression"
    yield _known(tree, _histories, "are in the user's history in train", (SOME_READ, MOST_READ), fix)


def _known(
    tree: Tree, of_train: Callable[[Path], pl.LazyFrame], what: str, limits: tuple[float, float], fix: str
) -> Finding:
    """`limits`: the shares above which it is a warning, and a failure."""
    train, dev = (tree.file(split, "behaviors.tsv") for split in ("train", "dev"))
    clicks, (some, most) = _clicks(dev).collect(), limits
    known = clicks.lazy().join(of_train(train), on=["user", "news"], how="semi").sort("line").collect()
    share = len(known) / max(1, len(clicks))
    told = f"{share:.2%} of dev's {len(clicks):,} clicks {what}"
    if share <= some:
        return ok(told)
    line, news = known.select("line", "news").row(0)
    told = f"{told}, first {dev}:{line} ({news})"
    return failure(DataError, told, fix) if share > most else warning(told, fix)


def _clicks(path: Path) -> pl.LazyFrame:
    clicked = pl.col("candidates").str.extract_all(r"\S+-1( |$)")  # before taking apart: few candidates are clicked
    cells = _lines(path).select("line", "user", clicked.alias("news")).explode("news").drop_nulls("news")
    return cells.with_columns(pl.col("news").str.strip_suffix(" ").str.strip_suffix("-1")).unique(["line", "news"])


def _histories(path: Path) -> pl.LazyFrame:
    histories = _lines(path).select("user", pl.col("history").str.split(" ").alias("news")).unique()
    return histories.explode("news").unique()
