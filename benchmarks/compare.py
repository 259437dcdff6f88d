"""`newsfuse compare` of two runs of the size of MIND-small's dev set, out of DVC's cache: seconds and peak memory.

    OMP_NUM_THREADS=1 python benchmarks/compare.py [impressions]

Predictions are drawn: of the second run, clicked articles score a little more.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from newsfuse.artifact import writing
from newsfuse.csr import lengths, offsets, owners

IMPRESSIONS, MEAN_CANDIDATES, USERS_PER_IMPRESSION, ARTICLES, CATEGORIES = 73_152, 37.4, 50_000 / 73_152, 42_416, 18
SIGNAL, MORE = 0.55, 0.05
"""How far clicked articles are above others, in deviations: an AUC of .64; and how much farther in the second run."""
STAGE = """\
stages:
  evaluate:
    cmd: "true"
    outs: ["data/small/predictions"]
"""


def shown(impressions: int, rng: np.random.Generator) -> pl.DataFrame:
    """Candidates, without scores."""
    # as skewed as MIND's: half of the impressions have 24 candidates or fewer, some hundreds
    ends = offsets(np.minimum(2 + rng.exponential(MEAN_CANDIDATES - 2, impressions), 299).astype(np.int64))
    owner, n = owners(ends), ends[-1]
    clicked = np.zeros(n, np.int8)
    clicked[ends[:-1] + rng.integers(lengths(ends))] = 1
    clicked[rng.random(n) < 1 / 80] = 1
    users = int(impressions * USERS_PER_IMPRESSION)
    of_impression: dict[str, pl.Series] = {
        "impression": pl.Series(np.arange(1, impressions + 1)).cast(pl.String),
        "user": pl.Series(np.concatenate([np.arange(users), rng.integers(users, size=impressions - users)])).cast(
            pl.Int32
        ),
        "history": pl.Series(rng.geometric(0.04, impressions) - 1).cast(pl.Int32),
        "hour": pl.Series(rng.integers(24, size=impressions)).cast(pl.Int8),
    }
    news = np.minimum(rng.zipf(1.3, n), ARTICLES)
    of_candidate: dict[str, pl.Series] = {
        "news": pl.select(pl.format("N{}", pl.lit(pl.Series(news)))).to_series(),
        "clicked": pl.Series(clicked),
        "warm": pl.Series(news % 3 > 0),
        "category": pl.select(pl.format("category{}", pl.lit(pl.Series(news % CATEGORIES)))).to_series(),
    }
    return pl.DataFrame({name: values.gather(owner) for name, values in of_impression.items()} | of_candidate)


def predict(folder: Path, table: pl.DataFrame, signal: float, rng: np.random.Generator) -> None:
    """Write what evaluate writes, but for prediction.txt."""
    scores = rng.standard_normal(len(table)) + signal * table["clicked"].to_numpy()
    with writing(folder, kind="evaluate", settings={}) as draft:
        table.with_columns(score=pl.Series(scores)).write_parquet(draft / "scores.parquet")


def project(root: Path, impressions: int) -> None:
    """A Git and DVC project with a tag for each of two runs."""
    rng = np.random.default_rng(0)
    table = shown(impressions, rng)
    (root / "params.yaml").write_text("dataset: small\n")
    (root / "dvc.yaml").write_text(STAGE)
    (root / ".gitignore").write_text("data\n")
    call(root, "git", "init", "--quiet")
    call(root, "dvc", "init", "--quiet")
    for name, signal in {"one": SIGNAL, "two": SIGNAL + MORE}.items():
        predict(root / "data/small/predictions", table, signal, rng)
        call(root, "dvc", "commit", "--quiet", "--force")
        call(root, "git", "add", "--all")
        call(root, "git", "commit", "--quiet", "--message", name)
        call(root, "git", "tag", name)
    print(f"{impressions:,} impressions, {len(table):,} candidates, {table['user'].n_unique():,} users")


def call(root: Path, *command: str) -> None:
    """Run a program of this environment in the project."""
    who = {
        f"GIT_{role}_{what}": "benchmark@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(  # noqa: S603 - our own words
        command, cwd=root, env={**os.environ, **who, "PATH": path, "DVC_NO_ANALYTICS": "1"}, check=True
    )


def main(impressions: int) -> None:
    """Print what the command prints, its seconds, and the most memory that it, or any other call so far, had."""
    with tempfile.TemporaryDirectory() as name:
        project(Path(name), impressions)
        for options in ([], ["--slices"]):
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            call(Path(name), "newsfuse", "compare", "one", "two", *options)
            seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
            computed = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            words = " ".join(["newsfuse compare one two", *options])
            print(f"{words}: {seconds:.1f} s, {computed:.1f} s of a core, {after.ru_maxrss / 1024:,.0f} MB at most")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else IMPRESSIONS)
