"""A submission of the size of MIND-large's test set: ranked, written, packed and checked, in bounded memory.

    python benchmarks/submission.py [impressions]

Scores are drawn, not computed: what a model takes to score depends on the model (see the pipeline's benchmark). The
alternative is what peers write: a line of Python for each impression, on a sample.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from newsfuse.csr import lengths, offsets
from newsfuse.examination import examine
from newsfuse.ranking import ranks
from newsfuse.submission import Ranked, lines, write_zip

IMPRESSIONS, MEAN_CANDIDATES, PART, SAMPLE = 2_400_000, 38, 1 << 16, 20_000


def drawn(impressions: int) -> Iterator[tuple[pl.Series, np.ndarray, np.ndarray]]:
    """Ids, scores and offsets, a part at a time; the same at every call."""
    rng = np.random.default_rng(0)
    for start in range(0, impressions, PART):
        n = min(PART, impressions - start)
        ends = offsets(rng.integers(2, 2 * MEAN_CANDIDATES, size=n))
        yield pl.Series(np.arange(start + 1, start + n + 1)).cast(pl.String), rng.standard_normal(ends[-1]), ends


def ranked(impressions: int) -> Iterator[Ranked]:
    """The same, ranked."""
    for ids, scores, ends in drawn(impressions):
        yield ids, ranks(scores, ends), ends


def write_behaviors(path: Path, impressions: int) -> None:
    """A file with so many candidates for each impression, without histories: nothing here reads them."""
    texts = pl.Series(
        [" ".join(f"N{number}" for number in range(10_000, 10_000 + n)) for n in range(2 * MEAN_CANDIDATES)]
    )
    with path.open("wb") as file:
        for ids, _, ends in drawn(impressions):
            shown = texts.gather(lengths(ends))
            row = pl.format("{}\tU1\t11/15/2019 8:55:22 AM\t\t{}", pl.lit(ids), pl.lit(shown))
            file.write((pl.select(row).to_series().str.join("\n").item() + "\n").encode())


def loop(path: Path) -> None:
    """As peers do it: impression by impression, on a sample."""
    ids, scores, ends = next(drawn(SAMPLE))
    with path.open("w", encoding="utf-8") as file:
        for name, (first, last) in zip(ids, pairwise(ends), strict=True):
            own = (np.argsort(np.argsort(-scores[first:last])) + 1).tolist()
            file.write(f"{name} [{','.join(map(str, own))}]\n")


def main(impressions: int) -> None:
    """Print seconds, size and peak memory."""
    with tempfile.TemporaryDirectory() as name:
        behaviors, archive = Path(name, "behaviors.tsv"), Path(name, "prediction.zip")
        write_behaviors(behaviors, impressions)
        start = time.perf_counter()
        write_zip(archive, lines(ranked(impressions)), lambda _: None)
        written = time.perf_counter()
        found = examine(archive, behaviors)
        checked = time.perf_counter()
        loop(Path(name, "prediction.txt"))
        by_loop = (time.perf_counter() - checked) * impressions / SAMPLE
        size = archive.stat().st_size / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{found:,} impressions, {size:,.0f} MB as an archive, peak memory {peak:,.0f} MB")
    print(f"ranked, written and packed {written - start:7.1f} s")
    print(f"checked                    {checked - written:7.1f} s")
    print(f"loop, not packed           {by_loop:7.1f} s, from {SAMPLE:,} impressions")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else IMPRESSIONS)
