"""Entities of articles, and the vectors that MIND's entity_embedding.vec has for them."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import polars as pl

from newsfuse.errors import DataError
from newsfuse.tsv import opened
from newsfuse.words import Words

FILE = "entity_embedding.vec"
COLUMNS = ("title_entities", "abstract_entities")
# inside valid JSON an unescaped quote always ends a string, so this never matches text that talks about ids
WIKIDATA = r'"WikidataId"\s*:\s*"([^"\\\s]+)"'
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
TAB = "\t"


@dataclass(frozen=True)
class Vectors:
    """Vectors of n entities."""

    ids: pl.Series
    """Wikidata ids (n,), distinct."""
    values: np.ndarray
    """float32 (n, W)."""

    def of(self, entities: Words) -> np.ndarray:
        """float32 (len(entities), W): the vector of each, zeros where there is none."""
        rows = Words(self.ids).numbers(entities.words) - 1
        found = rows >= 0
        table = np.zeros((len(entities), self.values.shape[1]), dtype=np.float32)
        table[found] = self.values[rows[found]]
        return table


def entity_links(news: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Who mentions what: distinct pairs (article: int32 row of `news`, entity: Wikidata id), sorted.

    The second value counts the articles of which a list of entities is not a JSON list; such a
    list counts as empty, because MIND itself has some and an article can do without.
    """
    lists = _lists(news)
    # the whole list, or null if any of it is not JSON; an object or a bare word is none of MIND's either
    readable = pl.col("list").str.json_path_match("$").str.starts_with("[").fill_null(value=False)
    matches = pl.col("list").str.extract_all(WIKIDATA).alias("entity")
    pairs = lists.filter(readable).select("article", matches).explode("entity").drop_nulls()
    pairs = pairs.with_columns(pl.col("entity").str.extract(WIKIDATA)).unique().sort("article", "entity")
    return pairs, lists.filter(~readable)["article"].n_unique()


def vector_files(splits: Iterable[Path]) -> list[Path]:
    """The file with vectors of each folder that has one. A link that leads nowhere is one, which reading refuses."""
    return [path for split in splits if os.path.lexists(path := split / FILE)]


def read_vectors(*paths: Path) -> Vectors:
    """The vectors of all files (id and W numbers a line, tab-separated); an entity's first line counts.

    Several files are for train and dev, whose vectors of the same entity may differ: given train
    first, no vector depends on dev. No file at all gives W = 0.

    Raises DataError, naming file and line, for a file that is not such, or for files of different W.
    """
    files = [_read(path) for path in paths]
    if not files:
        return Vectors(pl.Series("id", [], dtype=pl.String), np.zeros((0, 0), dtype=np.float32))
    for path, file in zip(paths, files, strict=True):
        if file.width != files[0].width:
            message = f"{path}:1: {file.width - 1} numbers, expected {files[0].width - 1} as in {paths[0]}"
            raise DataError(message)
    frame = pl.concat(files).unique("id", keep="first", maintain_order=True)
    return Vectors(frame["id"], np.ascontiguousarray(frame.drop("id").to_numpy()))


def _lists(news: pl.DataFrame) -> pl.DataFrame:
    """A row per non-blank list of entities: (article, list)."""
    numbered = news.select(pl.int_range(pl.len(), dtype=pl.Int32).alias("article"), *COLUMNS)
    lists = numbered.unpivot(COLUMNS, index="article", value_name="list").drop("variable")
    return lists.filter(pl.col("list").str.strip_chars() != "")


def _read(path: Path) -> pl.DataFrame:
    text = _text(path)
    width = text[: text.find(b"\n")].count(b"\t")
    schema = {"id": pl.String} | {f"v{column}": pl.Float32 for column in range(width)}
    try:
        frame = pl.read_csv(text, has_header=False, separator="\t", quote_char=None, schema=schema)
    except (pl.exceptions.PolarsError, OSError):
        _refuse(path, text)
    if not width or not _sound(frame):
        _refuse(path, text)
    return frame


def _text(path: Path) -> bytes:
    """The file's bytes without the tab that MIND puts at the end of each line."""
    with opened(path) as file:
        text = file.read()
    if not text.strip():
        message = f"{path}:1: the file is empty; expected a Wikidata id and its numbers on each line"
        raise DataError(message)
    return text.replace(b"\t\n", b"\n").rstrip(b"\t\n") + b"\n"


def _sound(frame: pl.DataFrame) -> bool:
    numbers = pl.exclude("id")
    finite = frame.select(pl.all_horizontal(numbers.is_finite().fill_null(value=False).all())).item()
    return bool(finite) and not frame["id"].has_nulls() and frame["id"].n_unique() == len(frame)


def _refuse(path: Path, text: bytes) -> NoReturn:
    """Name the first faulty line. Slow: only for files already known to be faulty."""
    line, problem = next(_problems(text), (1, "not tab-separated lines of a Wikidata id and its numbers"))
    message = f"{path}:{line}: {problem}"
    raise DataError(message)


def _problems(text: bytes) -> Iterator[tuple[int, str]]:
    lines = text.split(b"\n")[:-1]
    columns = lines[0].count(b"\t") + 1
    first_seen: dict[bytes, int] = {}
    for number, line in enumerate(lines, 1):
        earlier = first_seen.setdefault(line.split(b"\t")[0], number)
        if problem := _problem(line, columns):
            yield number, problem
        elif earlier != number:
            yield number, f"entity '{line.decode().split(TAB)[0]}' is there already, at line {earlier}"


def _problem(line: bytes, columns: int) -> str:
    """What is wrong with `line`, or nothing."""
    try:
        entity, *values = line.decode().split(TAB)
    except UnicodeDecodeError as error:
        return f"not UTF-8 ({error.reason})"
    if len(values) + 1 != columns or not values:
        expected = f"{columns} as in line 1" if columns > 1 else "an id and at least one number"
        return f"{len(values) + 1} tab-separated columns, expected {expected}"
    if not entity.strip():
        return "the entity id is empty"
    wrong = next((value for value in values if not _is_number(value)), None)
    return "" if wrong is None else f"'{wrong}' is no finite number"


def _is_number(value: str) -> bool:
    # the table is float32: 1e39 is a number, but would be read as infinity
    return bool(NUMBER.fullmatch(value.strip()) and abs(float(value)) <= float(np.finfo(np.float32).max))
