"""What a data set needs of a service: its articles' texts, as they would be sent."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from newsfuse.news import News
from newsfuse.paid.lot import Lot
from newsfuse.paid.seller import Seller
from newsfuse.tsv import places
from newsfuse.words import Words

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """The texts of every article, one or one for each view: many articles may share one."""

    lot: Lot
    rows: np.ndarray
    """int64 (articles * views,): which texts of the lot are the article's own, those of an article side by side."""
    views: int

    @classmethod
    def of(cls, news: News, views: Sequence[Sequence[str]], seller: Seller, files: Sequence[Path]) -> "Order":
        """The texts of all articles, cut where the service reads no further; `files` are where `news` was read from."""
        texts = pl.Series(news.texts(*views), dtype=pl.String)
        most = seller.service.max_text_bytes
        long = (texts.str.len_bytes() > most).arg_true()
        if len(long):
            told = "%d of %d texts are longer than %d bytes and are cut there, first %s"
            log.warning(told, len(long), len(texts), most, _place(news.ids[int(long[0]) // len(views)], files))
            texts = texts.scatter(long, [shortened(text, most) for text in texts.gather(long)])
        distinct = Words.of(texts)
        rows = distinct.numbers(texts) - 1
        owners = news.ids.gather(np.unique(rows, return_index=True)[1] // len(views))
        words = distinct.words.to_list()
        return cls(Lot(words, seller.space.keys(words), lambda text: _place(owners[text], files)), rows, len(views))

    @property
    def keys(self) -> list[bytes]:
        """The key of each text, in the order of `rows`."""
        return [self.lot.keys[row] for row in self.rows]


def shortened(text: str, n_bytes: int) -> str:
    """The longest start of the text that has at most `n_bytes` in UTF-8 and ends on a whole character."""
    return text.encode()[:n_bytes].decode(errors="ignore")


def _place(news_id: str, files: Sequence[Path]) -> str:
    return next(places(news_id, files), news_id)
