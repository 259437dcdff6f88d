"""News articles: MIND's news.tsv."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from newsfuse.errors import DataError
from newsfuse.tsv import read_tsv, refuse
from newsfuse.words import Words

COLUMNS = ("id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")
TEXT_VERSION = 1
"""Goes up when `texts` makes another text of the same article: vectors of the two are not the same thing."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class News:
    """Articles sorted by id, so that a row number says the same whatever order the files had."""

    frame: pl.DataFrame
    """A row per article with COLUMNS, all text."""
    files: tuple[Path, ...] = ()
    """Where they were read, for error messages."""

    @classmethod
    def read(cls, *paths: Path) -> "News":
        """The articles of all files; where two files differ about an article, the first one counts.

        Raises DataError for a malformed file or an id that one file has twice.
        """
        files = [_read(path) for path in paths]
        rows = pl.concat(files).unique("id", keep="first", maintain_order=True)
        if differing := len(pl.concat(files).unique()) - len(rows):
            log.warning("%s: %d articles differ from %s, whose text is used", paths[1], differing, paths[0])
        return cls(rows.sort("id"), paths)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def ids(self) -> pl.Series:
        """The news ids, sorted; row i of every table about these articles is article i."""
        return self.frame["id"]

    def rows(self, ids: pl.Series | Iterable[str]) -> "pl.Series":
        """The row of each id, -1 where there is no such article."""
        return pl.Series(Words(self.ids).numbers(ids) - 1)

    def texts(self, *views: Sequence[str]) -> list[str]:
        """A text per article and view, those of an article side by side: len(self) * len(views).

        The text of a view is a line for each of its fields that the article has, white space collapsed.
        Where it has none of them, the fields of the other views stand in, or else its category and
        subcategory, so that no text is blank; how many have nothing but a category is warned about.
        """
        fields = list(dict.fromkeys(field for view in views for field in view))
        label, anything = _clean(pl.concat_str(["category", "subcategory"], separator=" ")), _joined(fields)
        if blank := self.frame.select((anything == "").sum()).item():
            log.warning("%d articles have an empty %s; their category stands in", blank, " and ".join(fields))
        fallback = pl.when(label == "").then(pl.lit("untitled")).otherwise(label)
        stand_in = pl.when(anything == "").then(fallback).otherwise(anything)
        filled = [pl.when(_joined(view) == "").then(stand_in).otherwise(_joined(view)) for view in views]
        return self.frame.select(pl.concat_list(filled).explode()).to_series().to_list()


def _joined(fields: Sequence[str]) -> pl.Expr:
    return pl.concat_str([_clean(pl.col(name)) for name in fields], separator="\n").str.strip_chars()


def _clean(text: pl.Expr) -> pl.Expr:
    # \x1c to \x1f are white space to Python and to providers, which refuse a text of nothing else
    return text.str.replace_all(r"[\s\x1c-\x1f]+", " ").str.strip_chars()


def _read(path: Path) -> pl.DataFrame:
    frame = read_tsv(path, COLUMNS)
    article = pl.col("id")
    refuse(
        path,
        frame,
        ~article.str.contains(r"^\S+$"),
        pl.format("'{}' is no news id; expected one such as N12345", article),
    )
    twice = article.is_first_distinct().not_()
    if frame.select(twice.any()).item():
        _refuse_twice(path, frame.with_row_index("line", 1), twice)
    return frame


def _refuse_twice(path: Path, frame: pl.DataFrame, twice: pl.Expr) -> None:
    line, news_id = frame.filter(twice).select("line", "id").row(0)
    first = frame.filter(pl.col("id") == news_id)["line"][0]
    message = f"{path}:{line}: news id '{news_id}' is there already, at line {first}; every article may appear once"
    raise DataError(message)
