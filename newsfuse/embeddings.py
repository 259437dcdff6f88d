"""The embed stage's artifact: a vector for every article, found by news id."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from newsfuse import arrays
from newsfuse.artifact import verified, writing
from newsfuse.blame import blame
from newsfuse.errors import DataError, IntegrityError, PluginError
from newsfuse.tsv import places
from newsfuse.words import Words

KIND = "embed"
FIRST = 3
"""How many missing articles an error message names."""


@dataclass(frozen=True)
class Embeddings:
    """Vectors by news id; row i of `vectors` belongs to the i-th of the sorted `ids`."""

    ids: Words
    vectors: np.ndarray
    """float32 (n, views * dimensions), the vectors of an article's views side by side; memory-mapped when read."""
    views: int = 1

    @classmethod
    def read(cls, folder: Path) -> "Embeddings":
        """What `write` wrote, verified. Raises IntegrityError."""
        settings = verified(folder, kind=KIND)
        ids = Words.read(folder / "ids.txt")
        vectors = arrays.load(folder / "vectors.npy", mapped=True)
        if len(ids) != len(vectors):
            remedy = f"Make it again: dvc repro --force --single-item {KIND}"
            message = f"{folder}: {len(ids)} ids for {len(vectors)} vectors. {remedy}"
            raise IntegrityError(message)
        return cls(ids, vectors, vectors.shape[1] // settings.get("dimensions", vectors.shape[1]))

    def write(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """`vectors.npy`, `ids.txt` (a news id a line, in the order of the rows) and the manifest."""
        with writing(folder, kind=KIND, settings=settings) as draft:
            arrays.save(draft / "vectors.npy", self.vectors.astype(np.float32, copy=False))
            self.ids.write(draft / "ids.txt")

    def of(self, ids: pl.Series, files: Sequence[Path]) -> np.ndarray:
        """float32 (len(ids), views * dimensions): each article's own vectors.

        Where there are several, each is brought to length 1, so that none outweighs the others by being long.
        Raises DataError when some have none, naming the first ones and where in the news `files` they stand.
        """
        rows = self.ids.numbers(ids) - 1
        if len(missing := ids.filter(rows < 0)):
            raise DataError(_missing(missing, files))
        vectors = np.asarray(self.vectors[rows])
        return vectors if self.views == 1 else _of_length_one(vectors, self.views)


def write_bought(
    folder: Path, ids: Words, keys: Sequence[bytes], vectors: Iterable[np.ndarray], settings: Mapping[str, Any]
) -> None:
    """The same artifact from parts: `vectors` come as float32 (some vectors, settings["dimensions"]) at a time.

    They are in order, those of an article's views one after the other. `keys`, a line of hexadecimal
    digits per vector, are what a lost ledger is rebuilt with. Raises StorageError.
    """
    with writing(folder, kind=KIND, settings=settings) as draft:
        write_rows(draft, (len(ids), len(keys) // len(ids) * settings["dimensions"]), keys, vectors)
        ids.write(draft / "ids.txt")


def write_rows(folder: Path, shape: tuple[int, int], keys: Sequence[bytes], vectors: Iterable[np.ndarray]) -> None:
    """`vectors.npy` of that shape, from parts in order, and `keys`. Raises OSError.

    Never holds more than a part: on a full disk writing fails, where a memory map would crash.
    """
    with (folder / "vectors.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for part in vectors:
            file.write(part.astype("<f4", copy=False).data)
    (folder / "keys").write_text("".join(f"{key.hex()}\n" for key in keys), encoding="utf-8")


def vectors_of(
    texts: Sequence[str], embed: Callable[[Sequence[str]], np.ndarray], *, dimensions: int, origin: str
) -> np.ndarray:
    """float32 (len(texts), dimensions): each distinct text is given to `embed` once.

    Raises PluginError, naming `origin`, if what comes back is not a finite vector per text.
    """
    distinct, row = np.unique(np.array(texts, dtype=object), return_inverse=True)
    with blame(origin):
        vectors = np.asarray(embed(distinct.tolist()))
    expected = (len(distinct), dimensions)
    if vectors.shape != expected or vectors.dtype != np.float32 or not np.isfinite(vectors).all():
        message = f"{origin}: returned {_described(vectors)}; expected finite float32 {expected}"
        raise PluginError(message)
    return vectors[row]


def _of_length_one(vectors: np.ndarray, views: int) -> np.ndarray:
    """Each of the `views` parts of a row divided by its length; zeros stay zeros."""
    parts = vectors.reshape(len(vectors), views, -1)
    lengths = np.linalg.norm(parts, axis=2, keepdims=True)
    return (parts / np.where(lengths == 0, 1, lengths)).reshape(vectors.shape)


def _described(vectors: np.ndarray) -> str:
    # of anything but floats (objects, text), numpy cannot say whether it is finite
    unfinite = np.count_nonzero(~np.isfinite(vectors)) if vectors.dtype.kind == "f" else 0
    return f"{vectors.dtype} {vectors.shape}, {unfinite} values not finite"


def _missing(ids: pl.Series, files: Sequence[Path]) -> str:
    first = ", ".join(place for news_id in ids.head(FIRST) for place in places(news_id, files))
    cause = "the embeddings are older than the news. Make them: dvc repro embed (without `frozen: true` in dvc.yaml)"
    return f"{len(ids)} articles have no vector, first {first}: {cause}"
