"""The embed stage against a provider with 300 ms latency, beside a plain serial loop over the same SDK.

    python benchmarks/embed.py [--news news.tsv] [--texts 51282]

Each run is the real stage as a process of its own, with its own ledger: from its start until the
artifact is written, on the disk, and hashed. The loop sends batches of 100 one after the other and
keeps nothing, on a sample of the texts. The provider runs on the same machine, so its work counts too.
"""

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openai

ROOT = Path(__file__).parents[1]
TEXTS, DIMENSIONS, LATENCY_S = 51_282, 1_536, 0.3
LOOP_TEXTS, LOOP_BATCH = 3_000, 100
IN_FLIGHT = (1, 8, 16)


@dataclass(frozen=True)
class Run:
    """What one run took."""

    what: str
    texts: int
    seconds: float
    requests: int
    peak_mb: float | None = None

    def __str__(self) -> str:
        """A line of the table."""
        rate = f"{self.texts / self.seconds:9,.0f} texts/s {self.seconds:7.1f} s {self.requests:5} requests"
        return f"{self.what:<24}{rate} {self.peak_mb:7,.0f} MB" if self.peak_mb else f"{self.what:<24}{rate}"


@contextmanager
def provider() -> Iterator[str]:
    """A server in a process of its own -> its address."""
    command = [sys.executable, str(ROOT / "benchmarks/embed_server.py"), str(LATENCY_S), str(DIMENSIONS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own program
        try:
            yield process.stdout.readline().strip() if process.stdout else ""
        finally:
            process.terminate()


def served(url: str) -> int:
    """How many requests the server has answered."""
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - our own address
        return int(json.load(answer)["requests"])


def make_project(folder: Path, news: Path | None, texts: int) -> list[str]:
    """What the stage needs: code, settings for a paid provider, and articles -> their titles."""
    for name in ("newsfuse", "plugins", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    settings = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for key, value in {"provider": "openai", "dataset": "load", "dimensions": DIMENSIONS}.items():
        settings = re.sub(rf"(?m)^( *{key}): \w+", rf"\1: {value}", settings)
    (folder / "params.yaml").write_text(settings, encoding="utf-8")
    lines = list(itertools.islice(news.open(encoding="utf-8") if news else articles(), texts))
    for split, kept in (("train", lines), ("dev", lines[:1])):
        (folder / "data/load" / split).mkdir(parents=True)
        (folder / "data/load" / split / "news.tsv").write_text("".join(kept), encoding="utf-8")
    return [line.split("\t")[3] for line in lines]


def articles() -> Iterator[str]:
    """Lines of news.tsv with titles of about ten words, for ever."""
    rng = np.random.default_rng(0)
    words = np.array(["".join(rng.choice(list("abcdefghijklmnop"), size)) for size in rng.integers(2, 11, 20_000)])
    for number in itertools.count():
        yield f"N{number}\tnews\tworld\t{' '.join(rng.choice(words, rng.integers(6, 15)))}\t\t\t[]\t[]\n"


def stage(what: str, folder: Path, url: str, texts: int, in_flight: int) -> Run:
    """The embed stage as DVC would start it."""
    own = {"OPENAI_API_KEY": "sk-benchmark", "OPENAI_BASE_URL": url, "NEWSFUSE_CONCURRENCY": str(in_flight)}
    before, start = served(url), time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "stages.embed"], cwd=folder, env=os.environ | own)  # noqa: S603 - ours
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"the stage ended with {os.waitstatus_to_exitcode(status)}")
    return Run(what, texts, seconds, served(url) - before, usage.ru_maxrss / 1024)


def loop(url: str, texts: list[str]) -> Run:
    """What one writes first: batches of 100, one after the other, in the SDK's default format."""
    client, vectors, start = openai.OpenAI(api_key="sk-benchmark", base_url=url), [], time.perf_counter()
    for first in range(0, len(texts), LOOP_BATCH):
        answer = client.embeddings.create(
            input=texts[first : first + LOOP_BATCH], model="text-embedding-3-small", dimensions=DIMENSIONS
        )
        vectors += [vector.embedding for vector in answer.data]
    seconds = time.perf_counter() - start
    return Run("serial loop over the SDK", len(vectors), seconds, -(-len(texts) // LOOP_BATCH))


def main(news: Path | None, texts: int) -> None:
    """Print a line per run, and how many times as fast as the loop each is."""
    runs = []
    with tempfile.TemporaryDirectory() as temporary, provider() as url:
        folder = Path(temporary)
        titles = make_project(folder, news, texts)
        print(
            f"{len(titles):,} texts, {DIMENSIONS} dimensions, {LATENCY_S * 1000:.0f} ms latency, {os.cpu_count()} cores"
        )
        for in_flight in IN_FLIGHT:
            shutil.rmtree(folder / ".newsfuse", ignore_errors=True)
            runs.append(stage(f"{in_flight} in flight", folder, url, len(titles), in_flight))
        runs.append(stage("all in the ledger", folder, url, len(titles), 1))
        runs.append(loop(url, titles[:LOOP_TEXTS]))
    loops = runs[-1].texts / runs[-1].seconds
    for run in runs:
        print(f"{run}   {run.texts / run.seconds / loops:5.1f} x the loop's rate")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--news", type=Path, help="a news.tsv; else titles are made up")
    parser.add_argument("--texts", type=int, default=TEXTS)
    given = parser.parse_args()
    main(given.news, given.texts)
