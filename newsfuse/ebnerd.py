"""EB-NeRD, the Danish news data set of Ekstra Bladet, as MIND's files: https://recsys.eb.dk/dataset/.

A bundle is a folder with articles.parquet and, for each split, behaviors.parquet and history.parquet.
"""

import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from typing import BinaryIO

import numpy as np
import polars as pl
from rich.table import Table

from newsfuse.artifact import flush
from newsfuse.errors import DataError, ParamsError
from newsfuse.fetching.archive import placing, require_modest
from newsfuse.parquet import NUMBER, TEXT, TIME, batches, lists
from newsfuse.terminal import show, tell
from newsfuse.tracked import require_root, track
from newsfuse.tsv import refuse

SPLITS = {"train": "train", "validation": "dev", "test": "test"}
"""A split's name there, and here. Test, a download of its own without clicks, may be missing."""
OPTIONAL = "test"
SIZES = ("impressions", "candidates", "clicks", "users", "articles")
"""That are shown first; the other counts are of oddities."""

ARTICLES = {
    "article_id": NUMBER,
    "title": TEXT,
    "subtitle": TEXT,
    "url": TEXT,
    "category": NUMBER,
    "subcategory": lists(NUMBER),
}
BEHAVIORS = {"impression_id": NUMBER, "impression_time": TIME, "user_id": NUMBER, "article_ids_inview": lists(NUMBER)}
CLICKED = {"article_ids_clicked": lists(NUMBER)}
HISTORY = {"user_id": NUMBER, "article_id_fixed": lists(NUMBER), "impression_time_fixed": lists(TIME)}

MOMENT = "%m/%d/%Y %I:%M:%S %p"
"""A time as MIND writes it. EB-NeRD's microseconds are lost."""
IMPRESSIONS = 1 << 17
"""Turned into text at once: 2 million candidates, .5 GB with what polars needs to join them."""
USERS = 1 << 13
"""Whose histories are cut at once: of some 150 clicks each, a thousand at most."""
MOST_MEMBERS, MOST_BYTES = 1000, 32 << 30
"""Of a bundle's zip file, generously: parquet is packed already, so a bundle is hardly larger than its zip file."""


@dataclass
class Tally:
    """What was found in a split, and what was made of its oddities."""

    counts: Counter[str] = field(default_factory=Counter)
    mentioned: np.ndarray = field(default_factory=lambda: np.array([], dtype=np.int64))
    """int64: the ids of the articles in the lines that were written, sorted."""

    def mention(self, ids: pl.Series) -> None:
        """Remember that these articles are needed."""
        self.mentioned = np.union1d(self.mentioned, ids.unique().to_numpy())


def take_in(bundle: Path, folder: Path, *, history: int) -> None:
    """Write the data set `folder`, with the `history` latest clicks of each user, and have DVC track it.

    The bytes follow from the bundle and `history` alone. Memory grows with users and articles, hardly with impressions.
    Raises ParamsError for a folder that is there or is not where stages look, DataError for a bundle that is not
    EB-NeRD's, StorageError.
    """
    require_root(folder)
    if folder.exists():
        message = f"{folder}: is there already; nothing was changed. Choose another --name, or move it away"
        raise ParamsError(message)
    with placing(folder) as draft, _opened(bundle, draft) as source:
        articles = _articles(source / "articles.parquet")
        tallies = {
            SPLITS[split]: _convert(source / split, draft / SPLITS[split], articles, history)
            for split in SPLITS
            if split != OPTIONAL or (source / split).is_dir()
        }
    show(_table(folder, tallies))
    track([folder / split for split in tallies])
    tell(f"Run on it: dvc exp run -S dataset={folder.name}")


@contextmanager
def _opened(bundle: Path, draft: Path) -> Iterator[Path]:
    """The folder with articles.parquet: the bundle, the one folder in it, or what is in it as a zip file."""
    if bundle.is_file():
        with TemporaryDirectory(dir=draft.parent, prefix=f"{draft.name}.", suffix=".draft") as unpacked:
            _unpack(bundle, Path(unpacked))
            yield Path(unpacked)
        return
    if not bundle.exists():
        message = f"{bundle}: not found; expected the folder of an EB-NeRD bundle, or its zip file"
        raise DataError(message)
    inner = [path.parent for path in sorted(bundle.glob("*/articles.parquet"))]
    yield inner[0] if len(inner) == 1 and not (bundle / "articles.parquet").exists() else bundle


def _unpack(bundle: Path, folder: Path) -> None:
    """Only the files that are read, under names of our own choice, whatever the others are called."""
    try:
        with zipfile.ZipFile(bundle) as archive:
            require_modest(bundle, archive.infolist(), of="EB-NeRD", most_members=MOST_MEMBERS, most_bytes=MOST_BYTES)
            for member, path in _members(archive.namelist()).items():
                (folder / path).parent.mkdir(exist_ok=True)
                with archive.open(member) as source, (folder / path).open("wb") as target:
                    copyfileobj(source, target, 1 << 20)
    # what zipfile raises on damage, RuntimeError for an archive with a password
    except (zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, EOFError, RuntimeError) as error:
        message = f"{bundle}: not readable as a zip file ({error}). Fetch it again, or unzip it and give the folder"
        raise DataError(message) from error


def _members(names: Sequence[str]) -> dict[str, str]:
    """The archive's name of each file of a bundle, which may lie in a folder there."""
    wanted = ["articles.parquet", *(f"{split}/{file}.parquet" for split in SPLITS for file in ("behaviors", "history"))]
    root = min((name.removesuffix(wanted[0]) for name in names if f"/{name}".endswith(f"/{wanted[0]}")), default="")
    return {root + path: path for path in wanted if root + path in names}


def _articles(path: Path) -> pl.DataFrame:
    """The columns of news.tsv and the number `article`, by which the rows are sorted."""
    found = pl.concat(batches(path, ARTICLES, rows=1 << 16))
    article = pl.col("article_id")
    _refuse_bad_ids(path, found, "article_id")
    refuse(path, found, ~article.is_first_distinct(), pl.format("article_id {} is there already", article))
    return found.sort("article_id").select(
        article=article,
        id=pl.format("N{}", article),
        category=pl.col("category").cast(pl.String).fill_null(""),
        subcategory=pl.col("subcategory").cast(pl.List(pl.String)).list.drop_nulls().list.join("_").fill_null(""),
        title=_text("title"),
        abstract=_text("subtitle"),
        url=_text("url"),
        title_entities=pl.lit("[]"),
        abstract_entities=pl.lit("[]"),
    )


def _text(column: str) -> pl.Expr:
    """What can stand in one field of one line."""
    return pl.col(column).fill_null("").str.replace_all(r"[\s\p{Cc}]+", " ").str.strip_chars()


def _convert(source: Path, target: Path, articles: pl.DataFrame, history: int) -> Tally:
    """Write news.tsv and behaviors.tsv of one split."""
    tally = Tally()
    target.mkdir()
    users = _users(source / "behaviors.parquet")
    histories = _histories(source / "history.parquet", users, history, tally)
    tally.counts["users"] = len(users)
    tally.counts["users without a history"] = len(users) - len(histories)
    with (target / "behaviors.tsv").open("wb") as file:
        for lines in _lines(source / "behaviors.parquet", histories, tally, labelled=source.name != OPTIONAL):
            _write(lines, file)
    if not tally.counts["impressions"]:
        message = f"{source / 'behaviors.parquet'}: no impression with an article in view"
        raise DataError(message)
    news = articles.filter(pl.col("article").is_in(tally.mentioned))
    if news.is_empty():
        message = f"{source}: not one of the articles mentioned there is in articles.parquet: is it of another bundle?"
        raise DataError(message)
    tally.counts["articles"] = len(news)
    tally.counts["articles without a text"] = len(news.filter(title="", abstract=""))
    tally.counts["articles mentioned that articles.parquet lacks"] = len(tally.mentioned) - len(news)
    with (target / "news.tsv").open("wb") as file:
        _write(news.drop("article"), file)
    for path in (*target.iterdir(), target):
        flush(path)
    return tally


def _write(lines: pl.DataFrame, file: BinaryIO) -> None:
    lines.write_csv(file, include_header=False, separator="\t", quote_style="never")


def _users(path: Path) -> pl.Series:
    """The ids of the users who were shown something: others' histories are of no use."""
    column = {"user_id": BEHAVIORS["user_id"]}
    users = [batch["user_id"].unique() for batch in batches(path, column, rows=IMPRESSIONS)]
    return pl.concat([pl.Series("user_id", [], pl.Int64), *users]).unique().drop_nulls()


def _histories(path: Path, users: pl.Series, latest: int, tally: Tally) -> pl.DataFrame:
    """(user_id, history) of those of the users who clicked before: their latest clicks, as in behaviors.tsv."""
    seen, texts = [], [pl.DataFrame(schema={"user_id": pl.Int64, "text": pl.String})]
    for batch in batches(path, HISTORY, rows=USERS):
        clicks = _clicks(path, batch, users, latest)
        seen.append(batch["user_id"])
        tally.mention(clicks["id"])
        texts.append(_joined(clicks.with_columns(token=pl.format("N{}", "id")), "user_id"))
    _refuse_twice(path, pl.concat([pl.Series("user_id", [], pl.Int64), *seen]))
    return pl.concat(texts).rename({"text": "history"})


def _clicks(path: Path, batch: pl.DataFrame, users: pl.Series, latest: int) -> pl.DataFrame:
    """(user_id, id) of the latest clicks of each of the users, oldest first."""
    ids, times = pl.col("article_id_fixed"), pl.col("impression_time_fixed")
    differ = ids.list.len().ne_missing(times.list.len())
    hint = "article_id_fixed and impression_time_fixed differ in length ({} and {})"
    refuse(path, batch, differ, pl.format(hint, ids.list.len(), times.list.len()))
    _refuse_bad_ids(path, batch, "user_id")
    clicks = batch.filter(pl.col("user_id").is_in(users.implode())).explode("article_id_fixed", "impression_time_fixed")
    clicks = clicks.rename({"article_id_fixed": "id"}).filter(pl.col("id").is_not_null())
    _refuse_bad_ids(path, clicks, "id")
    clicks = clicks.sort("line", "impression_time_fixed", maintain_order=True)
    return clicks.select("user_id", "id").group_by("user_id", maintain_order=True).tail(latest)


def _lines(path: Path, histories: pl.DataFrame, tally: Tally, *, labelled: bool) -> Iterator[pl.DataFrame]:
    """The lines of behaviors.tsv, in the order of the rows there; an impression with nothing in view has none."""
    columns = BEHAVIORS | CLICKED if labelled else BEHAVIORS
    for batch in batches(path, columns, rows=IMPRESSIONS):
        _refuse_bad_ids(path, batch, "impression_id", "user_id")
        refuse(path, batch, pl.col("impression_time").is_null(), pl.lit("no impression_time"))
        candidates = _labelled(path, batch, tally) if labelled else _shown(path, batch, tally)
        tally.mention(candidates["id"])
        lines = batch.join(_joined(candidates, "line"), on="line", maintain_order="left")
        tally.counts["impressions"] += len(lines)
        tally.counts["impressions with nothing in view, left out"] += len(batch) - len(lines)
        lines = lines.join(histories, on="user_id", how="left", maintain_order="left")
        yield lines.select(
            pl.col("impression_id").cast(pl.String),
            pl.format("U{}", "user_id").alias("user"),
            pl.col("impression_time").dt.strftime(MOMENT),
            pl.col("history").fill_null(""),
            "text",
        )


def _shown(path: Path, batch: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """(line, id, token) of what was in view, each article once."""
    cells = _cells(path, batch, "article_ids_inview")
    shown = cells.unique(maintain_order=True)
    tally.counts["candidates"] += len(shown)
    tally.counts["candidates that were in view twice, kept once"] += len(cells) - len(shown)
    return shown.with_columns(token=pl.format("N{}", "id"))


def _labelled(path: Path, batch: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """The same with labels."""
    clicks = _cells(path, batch, "article_ids_clicked").unique().with_columns(clicked=pl.lit(1, pl.Int8))
    shown = _shown(path, batch, tally).join(clicks, on=["line", "id"], how="left", maintain_order="left")
    clicked = shown.filter(pl.col("clicked") == 1)
    tally.counts["clicks"] += len(clicked)
    tally.counts["clicks on what was not in view, left out"] += len(clicks) - len(clicked)
    tally.counts["impressions without a click"] += shown["line"].n_unique() - clicked["line"].n_unique()
    return shown.with_columns(token=pl.format("{}-{}", "token", pl.col("clicked").fill_null(0)))


def _cells(path: Path, batch: pl.DataFrame, column: str) -> pl.DataFrame:
    """(line, id) of each article in a column of lists."""
    cells = batch.select("line", pl.col(column).alias("id")).explode("id").drop_nulls()
    _refuse_bad_ids(path, cells, "id")
    return cells


def _joined(cells: pl.DataFrame, by: str) -> pl.DataFrame:
    """The tokens of each line or user as one `text`."""
    return cells.group_by(by, maintain_order=True).agg(pl.col("token").str.join(" ").alias("text"))


def _refuse_bad_ids(path: Path, frame: pl.DataFrame, *columns: str) -> None:
    for name in columns:
        refuse(path, frame, pl.col(name).is_null(), pl.lit(f"no {name}"))
        # N-1 would be one with a label
        refuse(path, frame, pl.col(name) < 0, pl.format(f"{name} {{}} is below 0, which no id is", name))


def _refuse_twice(path: Path, users: pl.Series) -> None:
    twice = users.filter(users.is_duplicated())
    if len(twice):
        message = f"{path}: user_id {twice[0]} has more than one row; expected one history per user"
        raise DataError(message)


def _table(folder: Path, tallies: Mapping[str, Tally]) -> Table:
    """What there is, and what was odd, of each split."""
    table = Table(str(folder))
    for split in tallies:
        table.add_column(split, justify="right")
    found = [name for tally in tallies.values() for name in tally.counts]
    for name in dict.fromkeys([*SIZES, *found]):
        if any(tally.counts[name] for tally in tallies.values()):
            table.add_row(name, *(f"{tally.counts[name]:,}" for tally in tallies.values()))
    return table
