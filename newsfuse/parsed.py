"""MIND's behaviors.tsv in its own words: what is the same whatever news it is read with."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from newsfuse.csr import offsets, owners
from newsfuse.errors import DataError
from newsfuse.tsv import Digest, blocks, refuse
from newsfuse.words import Numbering, Words

Block = tuple[int, pl.DataFrame]
COLUMNS = ("impression", "user", "time", "history", "candidates")
TIME = "%m/%d/%Y %I:%M:%S %p"
BLOCK = 1 << 15
"""Lines that are taken apart at once."""
LABEL, LABELLED = r"-[01]$", r"(?s)^.*[^-]-[01]$"
"""What follows the id of a candidate; a candidate with it. N1--1 has a label of -1, and is not the article N1-."""
YEARS = (1900, 9999)
"""Polars reads 1/1/19 as of the year 19."""


@dataclass(frozen=True)
class Parsed:
    """n impressions; see newsfuse.behaviors.Behaviors, of which this is all but the rows of News.

    What a line says stands here as it stands there: nothing but repeated spaces is left out.
    """

    labelled: bool
    """Whether candidates have labels; if not, those here are 0."""
    ids: pl.Series
    """The distinct news ids, sorted; articles are numbers of these."""
    impressions: pl.Series
    """(n,)."""
    users: np.ndarray
    """int32 (n,): the place of each user among all in alphabetical order."""
    times: np.ndarray
    """datetime64[s] (n,)."""
    history: np.ndarray
    """int32 (n,): which of the h distinct histories each impression has, those in alphabetical order."""
    history_offsets: np.ndarray
    """int64 (h + 1,)."""
    history_ids: np.ndarray
    """uint16 or uint32."""
    candidate_offsets: np.ndarray
    """int64 (n + 1,)."""
    candidate_ids: np.ndarray
    """uint16 or uint32."""
    labels: np.ndarray
    """int8."""

    @classmethod
    def read(cls, path: Path, *, labelled: bool | None, digest: Digest | None = None) -> "Parsed":
        """The whole file; `digest` hears its bytes. Raises DataError with file:line for what is not MIND's format."""
        parser = Parser(path, labelled=labelled)
        for line, frame in _ahead(blocks(path, COLUMNS, digest=digest)):
            parser.add(line, frame)
        return parser.parsed()

    @classmethod
    def parts(cls, path: Path, *, labelled: bool | None, impressions: int) -> Iterator["Parsed"]:
        """The same in parts of so many impressions, each with numbers of its own."""
        for line, frame in blocks(path, COLUMNS, lines=impressions):
            parser = Parser(path, labelled=labelled)
            for start in range(0, len(frame), BLOCK):
                parser.add(line + start, frame[start : start + BLOCK])
            part = parser.parsed()
            labelled = part.labelled
            yield part


class Parser:
    """Takes frames of COLUMNS in turn. Every distinct user, history and token is looked at once."""

    def __init__(self, path: Path, *, labelled: bool | None) -> None:
        self._path, self._labelled = path, labelled
        self._users, self._histories, self._tokens = Numbering(), Numbering(), Numbering()
        self._frames: list[pl.DataFrame] = []
        self._numbers: dict[str, list[np.ndarray]] = {name: [] for name in ("user", "history", "count", "token")}

    def add(self, line: int, frame: pl.DataFrame) -> None:
        """The rows of some lines, from `line` on. Raises DataError for the first line that is wrong."""
        frame = self._checked(frame.with_row_index("line", line))
        known = len(self._tokens)
        counts, tokens = _cells(frame["candidates"], self._tokens)
        refuse(self._path, frame, pl.lit(pl.Series(counts == 0)), pl.lit("an impression without candidates"))
        if self._labelled is None:
            first = self._tokens.words()[tokens[: counts[0]]]
            self._labelled = bool(first.str.contains(LABELLED).all())
        self._check_labels(frame["line"].to_numpy(), counts, tokens, known)
        found = {"user": self._users.of(frame["user"]), "history": self._histories.of(frame["history"])}
        for name, numbers in {**found, "count": counts, "token": tokens}.items():
            self._numbers[name].append(numbers)
        self._frames.append(frame.select("impression", "when"))

    def parsed(self) -> Parsed:
        """All that was added."""
        rows = pl.concat(self._frames)
        users, history, counts, tokens = (np.concatenate(numbers) for numbers in self._numbers.values())
        user_rank, _ = _alphabetical(self._users, users)
        history_rank, texts = _alphabetical(self._histories, history)
        clicks, clicked, clicked_ids = _split(texts)
        words = self._tokens.words()
        shown = words.str.replace(LABEL, "") if self._labelled else words
        ids = Words.of(pl.concat([shown, clicked_ids]).unique())
        if len(ids) and ids.words[0] == "":  # the number 0 of every numbering, which no cell has
            ids = Words(ids.words[1:])
        return Parsed(
            labelled=bool(self._labelled),
            ids=ids.words,
            impressions=rows["impression"].rechunk(),
            users=user_rank[users],
            times=rows["when"].to_numpy().astype("datetime64[s]"),
            history=history_rank[history],
            history_offsets=offsets(clicks),
            history_ids=_narrow(ids, clicked_ids)[clicked],
            candidate_offsets=offsets(counts),
            candidate_ids=_narrow(ids, shown)[tokens],
            labels=(words.str.ends_with("-1") & bool(self._labelled)).cast(pl.Int8).to_numpy()[tokens],
        )

    def _checked(self, frame: pl.DataFrame) -> pl.DataFrame:
        frame = frame.with_columns(pl.col("time").str.to_datetime(TIME, strict=False).alias("when"))
        expected = "'{}' is no time; expected month/day/year hour:minute:second AM or PM, such as 11/15/2019 8:55:22 AM"
        is_time = pl.col("when").dt.year().is_between(*YEARS).fill_null(value=False)
        refuse(self._path, frame, ~is_time, pl.format(expected, pl.col("time")))
        for column in ("impression", "user"):
            # a submission has a space between the impression id and the ranks
            bad = ~pl.col(column).str.contains(r"^\S+$")
            reason = pl.format(f"'{{}}' is no {column} id; expected one without spaces", pl.col(column))
            refuse(self._path, frame, bad, reason)
        return frame

    def _check_labels(self, lines: np.ndarray, counts: np.ndarray, tokens: np.ndarray, known: int) -> None:
        """Raise DataError for the first candidate with a label too many or too few; `known` tokens are right."""
        new = self._tokens.words(known)
        wrong = np.concatenate([np.zeros(known, bool), (new.str.contains(LABELLED) != self._labelled).to_numpy()])
        if not wrong.any():
            return
        first = int(np.argmax(wrong[tokens]))
        line, token = lines[owners(offsets(counts))[first]], self._tokens.words(int(tokens[first]))[0]
        expected = "no label of 0 or 1; expected such as N123-0 or N123-1"
        if not self._labelled:
            expected = "a label; expected none in this file, such as N123"
        message = f"{self._path}:{line}: candidate '{token}' has {expected}"
        raise DataError(message)


def _ahead(blocks: Iterator[Block]) -> Iterator[Block]:
    """The same blocks, each read and checked in a thread while the one before it is taken apart."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, blocks, None)
        while block := coming.result():
            coming = pool.submit(next, blocks, None)
            yield block


def _cells(texts: pl.Series, numbering: Numbering) -> tuple[np.ndarray, np.ndarray]:
    """Words between spaces: how many each of the `texts` has, and their numbers."""
    lists = texts.str.split(" ")
    counts, numbers = lists.list.len().to_numpy(), numbering.of(lists.explode())
    there = numbers > 0
    if there.all():
        return counts, numbers
    return np.bincount(owners(offsets(counts))[there], minlength=len(texts)), numbers[there]


def _split(texts: pl.Series) -> tuple[np.ndarray, np.ndarray, pl.Series]:
    """Words between spaces: how many each of the `texts` has, their numbers, and the words by number."""
    numbering = Numbering()
    cells = [_cells(texts[start : start + BLOCK], numbering) for start in range(0, len(texts), BLOCK)]
    counts, numbers = (np.concatenate(arrays) for arrays in zip(*cells, strict=True))
    return counts, numbers, numbering.words()


def _alphabetical(numbering: Numbering, used: np.ndarray) -> tuple[np.ndarray, pl.Series]:
    """int32: the place in the alphabet of the word with each number, among those `used`; and these words in order."""
    words = numbering.words()
    there = np.ones(len(words), dtype=bool)
    there[0] = (used == 0).any()
    order = words.arg_sort().to_numpy()
    order = order[there[order]]
    places = np.full(len(words), -1, dtype=np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    return places, words[order]


def _narrow(ids: Words, values: pl.Series) -> np.ndarray:
    """The number of each value among `ids`, from 0, in as few bytes as hold them all; of any others any number."""
    kind = np.uint16 if len(ids) <= 1 << 16 else np.uint32
    return (ids.numbers(values) - 1).astype(kind)
