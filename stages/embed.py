"""embed: the text of every article, of train and of dev, becomes a vector; the only stage that may cost money."""

from pathlib import Path

import polars as pl

from newsfuse.artifact import write_text
from newsfuse.embedding import embed_news
from newsfuse.harmless import write_csv
from newsfuse.paid.payer import Employer
from newsfuse.params import Params
from newsfuse.registry import Registry
from newsfuse.stage import run

EMPLOYER = Employer()
"""Looked up before anything slow: dvc may be killed at any time."""


def embed(params: Params, registry: Registry) -> None:
    """Write data/<dataset>/embeddings, metrics/embed.json and, for a plot, metrics/embed/cost.csv."""
    data = Path("data", params.dataset)
    files = [data / split / "news.tsv" for split in ("train", "dev")]
    receipt = embed_news(params, registry, files, data / "embeddings", corpus=files[0], employer=EMPLOYER)
    write_text(Path("metrics/embed.json"), receipt.to_json())
    write_csv(Path("metrics/embed/cost.csv"), pl.DataFrame({"provider": params.embed.provider, "dollars": receipt.usd}))


if __name__ == "__main__":
    run(embed)
