"""The whole `dvc repro` on synthetic data of MIND-small's size, and how each stage grows with the data.

    python benchmarks/pipeline.py [--scales 0.25 0.5 1] [--batch-size 128] [--refit] [--folder /somewhere/with/space]

Scale 1 is 65,282 articles and 230,000 impressions, train and dev together, of which dev has 30 %; all encoders are
on, training lasts three epochs after the pre-training of params.yaml, in batches of 128 (those of params.yaml, 64, suit
small data), the embedder is `lsa`. The model does not learn once more from all days unless `--refit` is given, which
takes about as long again. Every stage is run as DVC
runs it, in a repository of its own, and its seconds are those of the whole `dvc repro --single-item`, start-up, hashing
and caching included. Peak memory is that of the largest process.
The growth exponent of a stage is the slope of log(seconds) over log(bytes of the data set): 1 is proportional, below 1
there is a fixed cost, above 1 something does not scale.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).parents[1]
STAGES = ("embed", "graph", "train", "evaluate")
NEWS, IMPRESSIONS, EPOCHS = 65_282, 230_000, 3
MEASURED = (
    "import json, resource, subprocess, sys, time; start = time.perf_counter(); code = subprocess.call(sys.argv[1:], "
    "stdout=sys.stderr); peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss; "
    "print(json.dumps([code, time.perf_counter() - start, peak / 1024]))"
)
"""A program that runs another: only then is the peak memory that of this one alone."""


@dataclass(frozen=True)
class Run:
    """What one program took."""

    seconds: float
    peak_mb: float


def measured(folder: Path, *command: str) -> Run:
    """Run a program in `folder`; its output goes to standard error. Raises SystemExit when it fails."""
    # no cache of parsed files from elsewhere, no ledger of others
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "NEWSFUSE_"))}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{environment['PATH']}", "DVC_NO_ANALYTICS": "1"}
    wrapped = [sys.executable, "-c", MEASURED, *command]
    done = subprocess.run(wrapped, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own program
    code, seconds, peak_mb = json.loads(done.stdout)
    if code:
        sys.exit(f"{' '.join(command)} failed with {code}")
    return Run(seconds, peak_mb)


def project(folder: Path, scale: float, train: Mapping[str, Any]) -> int:
    """A repository with this project's files and a synthetic data set of that size -> the bytes of the data set."""
    list_files = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(list_files, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - the reader's git
    for name in listed.stdout.splitlines():
        if name.startswith((".dvc", ".gitignore", "dvc.yaml", "params.yaml", "newsfuse/", "plugins/", "stages/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params |= {"dataset": "bench", "encoders": dict.fromkeys(params["encoders"], True)}
    params["train"] |= train
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    size = ("--news", str(int(scale * NEWS)), "--impressions", str(int(scale * IMPRESSIONS)))
    measured(folder, sys.executable, "-m", "newsfuse.cli", "synth", "data/bench", *size)
    identity = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@example.com")
    for words in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "the project")):  # DVC wants a commit
        measured(folder, "git", *words)
    return sum(path.stat().st_size for path in folder.glob("data/bench/*/*"))


def run(scale: float, root: Path, train: Mapping[str, Any]) -> tuple[int, dict[str, Run]]:
    """Make and run a project of that size -> bytes of its data, what each stage took; both are printed."""
    size = project(root, scale, train)
    runs = {stage: measured(root, "dvc", "repro", "--single-item", stage) for stage in STAGES}
    again = measured(root, "dvc", "repro")
    runs["all"] = Run(sum(each.seconds for each in runs.values()), max(each.peak_mb for each in runs.values()))
    print(f"{scale:g} x MIND-small, {size / 1e6:,.0f} MB of data")
    for stage, each in runs.items():
        print(f"  {stage:<10}{each.seconds:8.1f} s {each.peak_mb:8,.0f} MB")
    print(f"  a second dvc repro finds nothing to do in {again.seconds:.1f} s", flush=True)
    return size, runs


def main(scales: list[float], folder: Path, train: Mapping[str, Any]) -> None:
    """Print seconds and peak memory of each stage at each scale, and how the seconds grow."""
    found = []
    for scale in scales:
        with tempfile.TemporaryDirectory(dir=folder) as root:
            found.append(run(scale, Path(root), train))
    if len(scales) > 1:
        print("growth exponent over all scales, and between the last two:")
        sizes = np.log([size for size, _ in found])
        for stage in (*STAGES, "all"):
            seconds = np.log([runs[stage].seconds for _, runs in found])
            last = (seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2])
            print(f"  {stage:<10}{np.polyfit(sizes, seconds, 1)[0]:8.2f} {last:8.2f}")


if __name__ == "__main__":
    started = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.25, 0.5, 1.0], help="ascending")
    parser.add_argument("--folder", type=Path, help="where the repositories are made; a few GB")
    parser.add_argument("--refit", action="store_true", help="learn once more, from all days")
    parser.add_argument("--batch-size", type=int, default=128)
    given = parser.parse_args()
    settings = {"epochs": EPOCHS, "batch_size": given.batch_size, "refit": given.refit}
    main(sorted(given.scales), given.folder, settings)
    print(f"{time.perf_counter() - started:,.0f} s in all, {os.cpu_count()} cores")
