"""behaviors.tsv of MIND-small's size into flat arrays, against pandas with Python splits and against plain polars.

    python benchmarks/read.py [--repeats 5] [--data /a/folder/with/train]

Every reader runs in a process of its own, in turn with the others, and ends with the same arrays, which are compared.
Seconds go from the file's path to the arrays; the start of Python, imports and news.tsv count for none of them. Peak
memory is that of the whole process, news.tsv and libraries included. The file was just written, so it is in memory.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from newsfuse.behaviors import Behaviors
from newsfuse.csr import gather, lengths
from newsfuse.news import News
from newsfuse.synth import synth

NEWS, IMPRESSIONS = 65_238, 224_000
"""Train and dev together; train has 70 % of the impressions."""
COLUMNS = ["impression", "user", "time", "history", "candidates"]


@dataclass(frozen=True)
class Arrays:
    """What all readers end with."""

    clicks: np.ndarray
    """int64 (n,): length of each history."""
    clicked: np.ndarray
    """int32: rows of the news in the histories, those of each impression after those of the one before."""
    shown: np.ndarray
    """int64 (n,): number of candidates."""
    candidates: np.ndarray
    """int32."""
    labels: np.ndarray
    """int8."""

    def digest(self) -> str:
        """Equal for equal arrays."""
        kinds = {"clicks": "<i8", "clicked": "<i4", "shown": "<i8", "candidates": "<i4", "labels": "<i1"}
        return hashlib.sha256(
            b"".join(getattr(self, name).astype(kind).tobytes() for name, kind in kinds.items())
        ).hexdigest()


def with_newsfuse(path: Path, news: News) -> Callable[[], Arrays]:
    """Strict, with file:line for what is wrong; equal histories are stored once, and repeated here afterwards."""
    read = Behaviors.read(path, news)

    def arrays() -> Arrays:
        cells = gather(read.history_offsets, read.history)
        clicks = lengths(read.history_offsets)[read.history]
        return Arrays(
            clicks, read.history_news[cells], lengths(read.candidate_offsets), read.candidate_news, read.labels
        )

    return arrays


def with_polars(path: Path, news: News) -> Callable[[], Arrays]:
    """Split, explode, join; nothing is checked."""
    frame = pl.read_csv(path, has_header=False, separator="\t", quote_char=None, new_columns=COLUMNS)
    frame = frame.with_columns(pl.col("time").str.to_datetime("%m/%d/%Y %I:%M:%S %p"))
    known = pl.DataFrame({"id": news.ids, "row": np.arange(len(news), dtype=np.int32)})
    history = frame["history"].fill_null("").str.split(" ").list.filter(pl.element() != "")
    clicked = (
        history.explode(empty_as_null=False)
        .alias("id")
        .to_frame()
        .join(known, on="id", how="left", maintain_order="left")
    )
    candidates = frame["candidates"].str.split(" ")
    tokens = pl.DataFrame({"token": candidates.explode()})
    tokens = tokens.select(
        pl.col("token").str.head(-2).alias("id"), (pl.col("token").str.tail(1) == "1").alias("label")
    )
    shown = tokens.join(known, on="id", how="left", maintain_order="left")
    found = (history.list.len(), clicked["row"], candidates.list.len(), shown["row"], shown["label"].cast(pl.Int8))
    return lambda: Arrays(*(each.to_numpy() for each in found))


def with_pandas(path: Path, news: News) -> Callable[[], Arrays]:
    """Columns of Python lists: str.split, explode, map; nothing is checked."""
    import pandas as pd  # noqa: PLC0415 - its memory is not to count for the others

    frame = _frame(path)
    row = pd.Series(np.arange(len(news), dtype=np.int32), index=news.ids.to_list())
    histories, candidates = frame["history"].fillna("").str.split(), frame["candidates"].str.split()
    clicked = histories.explode().dropna().map(row)
    pairs = candidates.explode().str.split("-")
    shown, labels = pairs.str[0].map(row), pairs.str[1].astype(np.int8)
    found = (histories.str.len(), clicked, candidates.str.len(), shown, labels)
    return lambda: Arrays(*(each.to_numpy() for each in found))


def by_row(path: Path, news: News) -> Callable[[], Arrays]:
    """A row at a time: split and a dictionary, which pandas has little part in."""
    frame = _frame(path)
    row = {news_id: number for number, news_id in enumerate(news.ids)}
    histories, candidates, labels = [], [], []
    for _, line in frame.iterrows():
        history = line["history"].split() if isinstance(line["history"], str) else []
        histories.append([row[news_id] for news_id in history])
        pairs = [token.split("-") for token in line["candidates"].split()]
        candidates.append([row[news_id] for news_id, _ in pairs])
        labels.append([int(label) for _, label in pairs])
    flat = (_counts(histories), _flat(histories, np.int32), _counts(candidates), _flat(candidates, np.int32))
    clicked = _flat(labels, np.int8)
    return lambda: Arrays(*flat, clicked)


def _frame(path: Path) -> Any:  # noqa: ANN401 - pandas has no types
    import pandas as pd  # noqa: PLC0415 - see above

    frame = pd.read_csv(path, sep="\t", header=None, names=COLUMNS, quoting=3)
    frame["time"] = pd.to_datetime(frame["time"], format="%m/%d/%Y %I:%M:%S %p")
    return frame


def _counts(lists: Iterable[list[int]]) -> np.ndarray:
    return np.array([len(each) for each in lists])


def _flat(lists: Iterable[list[int]], kind: type) -> np.ndarray:
    return np.array([value for each in lists for value in each], dtype=kind)


READERS = {"newsfuse": with_newsfuse, "polars": with_polars, "pandas": with_pandas, "by row": by_row}


def one(reader: str, data: Path) -> None:
    """Print what one reader took, as JSON."""
    news = News.read(data / "news.tsv")
    start, busy = time.perf_counter(), time.process_time()
    found = READERS[reader](data / "behaviors.tsv", news)
    seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    arrays = found()
    counts = [len(arrays.clicks), len(arrays.clicked), len(arrays.candidates)]
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mb": peak, "counts": counts, "digest": arrays.digest()}))


def run(reader: str, data: Path, project: Path, **variables: str) -> dict[str, float]:
    """The same in a process of its own, in an empty DVC project."""
    command = [sys.executable, __file__, "--one", reader, "--data", str(data)]
    environment = {**os.environ, "DVC_ROOT": str(project), **variables}
    done = subprocess.run(command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - this program
    return dict(json.loads(done.stdout))


def turn(data: Path, project: Path) -> dict[str, dict[str, float]]:
    """Every reader once."""
    shutil.rmtree(project / ".newsfuse", ignore_errors=True)
    return {
        "newsfuse": run("newsfuse", data, project, NEWSFUSE_CACHE_MB="0"),
        "newsfuse, first run": run("newsfuse", data, project),
        "newsfuse, second run": run("newsfuse", data, project),
        "polars": run("polars", data, project),
        "pandas": run("pandas", data, project),
        "pandas, row by row": run("by row", data, project),
    }


def report(turns: list[Mapping[str, Mapping[str, float]]]) -> None:
    """A line per reader: medians, and the median of how many times as long it took as newsfuse in the same turn."""
    names = list(turns[0])
    if len({json.dumps([each[name]["counts"], each[name]["digest"]]) for each in turns for name in names}) > 1:
        sys.exit("the readers disagree")
    print("{:,} impressions, {:,} history ids, {:,} candidates".format(*turns[0]["newsfuse"]["counts"]))  # type: ignore[misc]
    for name in names:
        seconds, cpu, peak = (
            statistics.median(each[name][key] for each in turns) for key in ("seconds", "cpu", "peak_mb")
        )
        ratio, busy = (
            statistics.median(each[name][key] / each["newsfuse"][key] for each in turns) for key in ("seconds", "cpu")
        )
        took = f"{name:22}{seconds:8.3f} s {cpu:8.3f} s of CPU {peak:6.0f} MB"
        print(f"{took}   {ratio:6.2f} x as long, {busy:6.2f} x the CPU")


def main(repeats: int, data: Path | None) -> None:
    """Make the data unless they are given, run, and print."""
    with tempfile.TemporaryDirectory() as temporary:
        if data is None:
            synth(Path(temporary, "data"), news=NEWS, impressions=IMPRESSIONS, seed=0)
        split = (data or Path(temporary, "data")).resolve() / "train"
        project = Path(temporary, "project")
        (project / ".dvc").mkdir(parents=True)
        megabytes = (split / "behaviors.tsv").stat().st_size / 1e6
        print(f"{megabytes:.0f} MB, {os.cpu_count()} cores, medians of {repeats} turns")
        report([turn(split, project) for _ in range(repeats)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", type=Path, help="a data set in MIND's layout; else one is made")
    parser.add_argument("--one", choices=READERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(given.one, given.data)
    else:
        main(given.repeats, given.data)
