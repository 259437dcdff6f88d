"""What users were shown and clicked: MIND's behaviors.tsv as flat arrays."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from newsfuse.csr import gather, lengths, offsets
from newsfuse.news import News
from newsfuse.tsv import read_tsv, refuse

COLUMNS = ("impression", "user", "time", "history", "candidates")
TIME = "%m/%d/%Y %I:%M:%S %p"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Behaviors:
    """n impressions. Lists are CSR: those of row i are `values[offsets[i]:offsets[i + 1]]`.

    Articles are rows of the News that the file was read with. A history keeps its order, oldest
    click first, without the articles that News does not know; an unknown candidate is -1.
    Equal histories are stored once, since MIND repeats a user's history at every impression.
    """

    impressions: pl.Series
    """Impression ids as in the file (n,)."""
    users: np.ndarray
    """int32 (n,): a number for each user."""
    times: np.ndarray
    """datetime64[s] (n,)."""
    history: np.ndarray
    """int32 (n,): which of the h distinct histories each impression has."""
    history_offsets: np.ndarray
    """int64 (h + 1,)."""
    history_news: np.ndarray
    """int32."""
    candidate_offsets: np.ndarray
    """int64 (n + 1,)."""
    candidate_news: np.ndarray
    """int32, -1 for an article that News does not know."""
    labels: np.ndarray
    """int8, 1 where the candidate was clicked."""

    def __len__(self) -> int:
        return len(self.users)

    @classmethod
    def read(cls, path: Path, news: News) -> "Behaviors":
        """Parse `path`. Raises DataError with file:line for a line that is not MIND's format."""
        frame = _parse(path)
        texts = frame["history"].unique().sort()
        histories = _ids(pl.DataFrame({"text": texts}))
        candidates = _candidates(path, frame)
        return cls(
            impressions=frame["impression"],
            users=_codes(frame["user"]),
            times=frame["when"].to_numpy().astype("datetime64[s]"),
            history=_codes(frame["history"]),
            **_histories(path, news, histories, len(texts)),
            candidate_offsets=offsets(_counts(candidates, len(frame))),
            candidate_news=_rows(
                path, news, candidates["id"], "candidates", "rank last in evaluation, unused in training"
            ),
            labels=(candidates["label"] == "1").cast(pl.Int8).to_numpy(),
        )

    def take(self, rows: np.ndarray) -> "Behaviors":
        """The impressions `rows` (int64), in that order; the histories are shared."""
        cells = gather(self.candidate_offsets, rows)
        return replace(
            self,
            impressions=self.impressions[rows],
            users=self.users[rows],
            times=self.times[rows],
            history=self.history[rows],
            candidate_offsets=offsets(lengths(self.candidate_offsets)[rows]),
            candidate_news=self.candidate_news[cells],
            labels=self.labels[cells],
        )

    def mentioned(self) -> np.ndarray:
        """int64: the rows of all articles shown in these impressions or clicked in their histories, sorted."""
        histories = gather(self.history_offsets, np.unique(self.history))
        return np.unique(np.concatenate([self.candidate_news[self.candidate_news >= 0], self.history_news[histories]]))


def _parse(path: Path) -> pl.DataFrame:
    frame = read_tsv(path, COLUMNS)
    frame = frame.with_columns(pl.col("time").str.to_datetime(TIME, strict=False).alias("when"))
    expected = "'{}' is no time; expected month/day/year hour:minute:second AM or PM, such as 11/15/2019 8:55:22 AM"
    refuse(path, frame, pl.col("when").is_null(), pl.format(expected, pl.col("time")))
    for column in ("impression", "user"):
        # a submission has a space between the impression id and the ranks
        bad = ~pl.col(column).str.contains(r"^\S+$")
        refuse(path, frame, bad, pl.format(f"'{{}}' is no {column} id; expected one without spaces", pl.col(column)))
    refuse(path, frame, pl.col("candidates").str.strip_chars() == "", pl.lit("an impression without candidates"))
    return frame


def _ids(frame: pl.DataFrame) -> pl.DataFrame:
    """A row per id in the column `text`: (row, id)."""
    split = frame.select(pl.int_range(pl.len()).alias("row"), pl.col("text").str.split(" ").alias("id"))
    return split.explode("id").filter(pl.col("id") != "")


def _candidates(path: Path, frame: pl.DataFrame) -> pl.DataFrame:
    token = pl.col("id")
    cells = _ids(frame.select(pl.col("candidates").alias("text")))
    cells = cells.with_columns(token.str.head(-2), token.str.tail(2).alias("end"), token.alias("token"))
    wrong = ~pl.col("end").is_in(["-0", "-1"]) | (token == "")
    hint = "candidate '{}' has no label of 0 or 1; expected such as N123-0 or N123-1"
    refuse(path, cells.with_columns((pl.col("row") + 1).alias("line")), wrong, pl.format(hint, pl.col("token")))
    return cells.with_columns(pl.col("end").str.tail(1).alias("label"))


def _histories(path: Path, news: News, cells: pl.DataFrame, n: int) -> dict[str, np.ndarray]:
    rows = _rows(path, news, cells["id"], "clicks in histories", "left out of them")
    known = rows >= 0
    counts = np.bincount(cells["row"].to_numpy()[known], minlength=n)
    return {"history_offsets": offsets(counts), "history_news": rows[known]}


def _rows(path: Path, news: News, ids: pl.Series, what: str, policy: str) -> np.ndarray:
    rows = news.rows(ids).cast(pl.Int32)
    if unknown := int((rows < 0).sum()):
        first = ids.filter(rows < 0)[0]
        log.warning(
            "%s: %d %s are of articles without a line in news.tsv (such as %s): %s", path, unknown, what, first, policy
        )
    return rows.to_numpy()


def _counts(cells: pl.DataFrame, n: int) -> np.ndarray:
    return np.bincount(cells["row"].to_numpy(), minlength=n)


def _codes(values: pl.Series) -> np.ndarray:
    return (values.rank("dense") - 1).cast(pl.Int32).to_numpy()
