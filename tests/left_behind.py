"""A project's folder in which every input of a report is there, made up: nothing was trained."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from predictions import predict

from newsfuse.harmless import write_csv

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = (
    "</script><script>window.harmed=1</script>",
    '<img src=x onerror="window.harmed=1">',
    "'\"><svg onload=window.harmed=1>",
    "]]></text><a href='javascript:window.harmed=1'>&amp;lt;",
    "\u202egnp.exe\x07\x1b[31m\u2066",
    "{{ 7 * 7 }}{% raw %}",
)  # fmt: skip
"""Titles and categories of nobody's friend."""
SHOWN = (*HOSTILE[:4], r"\u202egnp.exe\x07\x1b[31m\u2066", HOSTILE[5])
"""The same as a reader sees them."""
ENCODERS = ("category", "gnn", HOSTILE[2])
IMPRESSIONS, CANDIDATES, USERS = 60, 8, 40
PARAMS = f"""\
dataset: tiny
fusion: attention
user_encoder: mean
encoders: {{category: true, gnn: true, id: false}}
embed: {{provider: lsa, model: {json.dumps(HOSTILE[1])}}}
evaluate: {{unknown_candidates: last}}
plugin_packages: {{newsfuse-{"x" * 80}: 0.1.0}}
"""
METRICS = {"auc": 0.7, "random_auc": 0.5, "popularity_auc": 0.55, "category_auc": 0.6, "cosine_auc": 0.65}
CURVES = {
    "train/loss": [0.9, 0.7], "validation/loss": [1.0, 0.8, 0.75], "validation/auc": [0.5, 0.6, 0.62],
    "pretrain/loss": [2.0], "learning_rate": [0.001, 0.0005],
}  # fmt: skip


def lay_out(root: Path) -> Path:
    """All of it, for the data set `tiny`; the root."""
    (root / "params.yaml").parent.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(PARAMS, encoding="utf-8")
    _news(root / "data/tiny")
    _metrics(root / "metrics")
    _plots(root / "metrics/evaluate/plots")
    _predictions(root / "data/tiny/predictions", seed=0)
    return root


def another(root: Path, name: str) -> str:
    """Another run on the same impressions, as a folder of predictions; what to call it by."""
    _predictions(root / "others" / name, seed=1)
    return f"others/{name}"


def _news(data: Path) -> None:
    lines = [f"N{i}\tnews\tworld\t{HOSTILE[i % len(HOSTILE)]} headline {i}\t\t\t[]\t[]" for i in range(CANDIDATES * 2)]
    for split in ("train", "dev"):
        (data / split).mkdir(parents=True)
        (data / split / "news.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _metrics(metrics: Path) -> None:
    for name in ("evaluate", "train"):
        (metrics / name).mkdir(parents=True)
    (metrics / "embed.json").write_text(json.dumps({"texts": 500, "dollars": 0.0123}))
    (metrics / "evaluate/metrics.json").write_text(json.dumps(METRICS))
    (metrics / "train/metrics.json").write_text(json.dumps({"best": {"epoch": 2, "validation_auc": 0.62}}))
    for name, values in CURVES.items():
        path = metrics / "train/plots/metrics" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = pl.DataFrame({"step": range(len(values)), path.stem: values})
        rows.write_csv(path, separator="\t")


def _plots(plots: Path) -> None:
    parts = [("warm", value) for value in ("cold", "warm")] + [("category", value) for value in HOSTILE]
    weights = [(encoder, *part, 1 / 3, 40) for part in parts for encoder in ENCODERS]
    columns = ["encoder", "group", "value", "weight", "articles"]
    write_csv(plots / "weights.csv", pl.DataFrame(weights, columns, orient="row"))
    lost = [(encoder, 0.01 * i, 0.01 * i - 0.005, 0.01 * i + 0.005) for i, encoder in enumerate(ENCODERS)]
    write_csv(plots / "lost.csv", pl.DataFrame(lost, ["encoder", "auc_lost", "low", "high"], orient="row"))


def _predictions(folder: Path, seed: int) -> None:
    rows, rng = IMPRESSIONS * CANDIDATES, np.random.default_rng(seed)
    impression, place = np.divmod(np.arange(rows), CANDIDATES)
    table = pl.DataFrame({
        "impression": [str(number + 1) for number in impression],
        "user": (impression % USERS).astype(np.int32),
        "news": [f"N{number}" for number in (impression + place) % (2 * CANDIDATES)],
        "clicked": (place == impression % CANDIDATES).astype(np.int8),
        "score": rng.normal(size=rows) + (place == impression % CANDIDATES),
        "warm": place % 2 == 0,
        "category": [HOSTILE[number % len(HOSTILE)] for number in place],
        "history": (impression % 7).astype(np.int32),
        "hour": (impression % 24).astype(np.int8),
    })  # fmt: skip
    predict(folder, table)
    # beside the manifest, which does not name it: written by hand, as no evaluation is run here
    articles = pl.DataFrame({"news": [f"N{number}" for number in range(2 * CANDIDATES)]})
    weights = {f"weight_{encoder}": pl.lit(1 / 3) for encoder in ENCODERS}
    articles.with_columns(**weights).write_parquet(folder / "articles.parquet")
