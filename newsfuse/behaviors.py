"""What users were shown and clicked: MIND's behaviors.tsv as flat arrays."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from newsfuse.csr import gather, lengths, offsets
from newsfuse.errors import DataError
from newsfuse.news import News
from newsfuse.parsed import Parsed
from newsfuse.shelf import parsed_behaviors
from newsfuse.words import Words

PART = 1 << 16
"""Impressions: some 40 MB of MIND's behaviors, and .2 GB while they are taken apart."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Behaviors:
    """n impressions. Lists are CSR: those of row i are `values[offsets[i]:offsets[i + 1]]`.

    Articles are rows of the News that the file was read with. A history keeps its order, oldest
    click first, without the articles that News does not know; an unknown candidate is -1.
    Equal histories are stored once, since MIND repeats a user's history at every impression. An impression
    may lack a click, and show an article twice: both stand here as they stand in the file.

    There is room for 2^31 distinct users, histories and articles, and for lists of any total length.
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
    def read(cls, path: Path, news: News, *, labelled: bool | None = True) -> "Behaviors":
        """The whole file. Raises DataError with file:line for a line that is not MIND's format.

        `labelled`: whether candidates look like N1-0 or, as in MIND's test files, like N1 (labels are 0 then);
        None: as in the first impression, and in all others alike.
        """
        behaviors, unknown = _of(parsed_behaviors(path, labelled=labelled), news)
        unknown.warn(path)
        return behaviors

    @classmethod
    def of(cls, parsed: Parsed, news: News) -> "Behaviors":
        """The impressions of a file that has been read, by the rows of `news`."""
        return _of(parsed, news)[0]

    @classmethod
    def parts(
        cls, path: Path, news: News, *, labelled: bool | None = True, impressions: int = PART
    ) -> Iterator["Behaviors"]:
        """The same in parts of so many impressions, for a file that need not be in memory as a whole.

        Users and histories have numbers within a part only. Nothing is taken from or put into the parsed cache.
        Raises DataError on the way to a wrong line.
        """
        if impressions < 1:
            message = f"{impressions} impressions in a part; expected 1 or more"
            raise ValueError(message)
        unknown = Unknown()
        for parsed in Parsed.parts(path, labelled=labelled, impressions=impressions):
            behaviors, missing = _of(parsed, news)
            unknown = unknown.plus(missing)
            yield behaviors
        unknown.warn(path)

    def require_distinct(self, path: Path) -> None:
        """Raise DataError where two impressions of the file have one id: what is predicted is told apart by it."""
        again = self.impressions.is_first_distinct().not_()
        if again.any():
            row = int(again.arg_max() or 0)
            found = f"impression id '{self.impressions[row]}' is there already"
            line = int((self.impressions == self.impressions[row]).arg_max() or 0) + 1
            message = f"{path}:{row + 1}: {found}, at line {line}; what is evaluated needs one for each impression"
            raise DataError(message)

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


@dataclass(frozen=True)
class Unknown:
    """Mentions of articles that News does not know: how many there are, and one of them."""

    clicks: int = 0
    click: str = ""
    candidates: int = 0
    candidate: str = ""

    def plus(self, later: "Unknown") -> "Unknown":
        """Those of two parts."""
        return Unknown(
            self.clicks + later.clicks,
            self.click or later.click,
            self.candidates + later.candidates,
            self.candidate or later.candidate,
        )

    def warn(self, path: Path) -> None:
        """Say what is done about them: see docs/decisions."""
        found = "%s: %d %s are of articles without a line in news.tsv (such as %s): %s"
        if self.clicks:
            log.warning(found, path, self.clicks, "clicks in histories", self.click, "left out of them")
        if self.candidates:
            policy = "rank last in evaluation, unused in training"
            log.warning(found, path, self.candidates, "candidates", self.candidate, policy)


def _of(parsed: Parsed, news: News) -> tuple[Behaviors, Unknown]:
    row = (Words(news.ids).numbers(parsed.ids) - 1).astype(np.int32)
    candidates, clicks = row[parsed.candidate_ids], row[parsed.history_ids]
    history_offsets, known = parsed.history_offsets, clicks >= 0
    behaviors = Behaviors(
        impressions=parsed.impressions,
        users=parsed.users,
        times=parsed.times,
        history=parsed.history,
        history_offsets=history_offsets if known.all() else offsets(_counts(history_offsets, known)),
        history_news=clicks if known.all() else clicks[known],
        candidate_offsets=parsed.candidate_offsets,
        candidate_news=candidates,
        labels=parsed.labels,
    )
    click, candidate = (
        _unknown(parsed.ids, parsed.history_ids, clicks),
        _unknown(parsed.ids, parsed.candidate_ids, candidates),
    )
    return behaviors, Unknown(*click, *candidate)


def _counts(offsets: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """int64: how many values of each list are kept."""
    return np.diff(np.concatenate([[0], np.cumsum(kept)])[offsets])


def _unknown(ids: pl.Series, mentioned: np.ndarray, rows: np.ndarray) -> tuple[int, str]:
    """How many of the ids mentioned have no row, and the first of them."""
    unknown = rows < 0
    return int(unknown.sum()), str(ids[int(mentioned[np.argmax(unknown)])]) if unknown.any() else ""
