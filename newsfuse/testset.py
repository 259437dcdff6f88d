"""The test split: articles that no stage has seen, and impressions of which nobody here knows the clicks.

Its articles get vectors and a graph of their own, made with the train articles' settings and kept beside the data
set until news or settings change.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from newsfuse import graph as news_graph
from newsfuse.artifact import verified
from newsfuse.assembly import Artifacts
from newsfuse.behaviors import Behaviors
from newsfuse.checkpoint import Checkpoint
from newsfuse.device import device
from newsfuse.embedding import embed_news
from newsfuse.embeddings import KIND as EMBEDDINGS
from newsfuse.embeddings import Embeddings
from newsfuse.entities import read_vectors, vector_files
from newsfuse.errors import DataError, IntegrityError, ParamsError
from newsfuse.news import News
from newsfuse.paid.payer import Employer
from newsfuse.params import Params
from newsfuse.plugin import Embedder, Need
from newsfuse.ranking import ranks, unknown_last
from newsfuse.registry import Registry
from newsfuse.scoring import Scorer
from newsfuse.submission import Ranked

TABLES = "test-tables"
"""In a data set's folder, beside what stages make; Git does not see it."""
PART = 1 << 16
"""Impressions in memory at once: some 2.5 million candidates."""


@dataclass(frozen=True)
class TestSet:
    """The test split of a data set, its files found."""

    __test__ = False  # to pytest
    data: Path
    """data/<dataset>."""

    @classmethod
    def of(cls, data: Path) -> "TestSet":
        """Raises DataError where there is none."""
        found = cls(data)
        for path in (*found.news_files, found.behaviors):
            if not path.is_file():
                expected = "a test split has news.tsv and behaviors.tsv, in MIND's format, with labels or not"
                message = f"{path}: is not there; {expected}. For dev: newsfuse submission --split dev"
                raise DataError(message)
        return found

    @property
    def news_files(self) -> list[Path]:
        """Of train too: the graph reaches from its articles to those of test."""
        return [self.data / split / "news.tsv" for split in ("train", "test")]

    @property
    def behaviors(self) -> Path:
        """The impressions to rank."""
        return self.data / "test" / "behaviors.tsv"

    def ranked(self, params: Params, registry: Registry, model: Path, employer: Employer) -> Iterator[Ranked]:
        """Every impression in the file's order, ranked by the model in the folder `model`, some at a time.

        Missing vectors are made first, which costs what `params.embed` costs. Raises NewsfuseError.
        """
        checkpoint, news = Checkpoint.read(model), News.read(*self.news_files)
        tables = self.tables(params, registry, checkpoint.architecture.needs(registry), news, employer)
        inputs = tables.inputs(news, checkpoint.known, self.news_files)
        scorer = Scorer.of(
            checkpoint.model(registry, inputs).to(device()), np.arange(len(news)), checkpoint.architecture.history,
            shown=np.zeros(0, np.int64),
        )  # fmt: skip
        for part in Behaviors.parts(self.behaviors, news, labelled=None, impressions=PART):
            scores = unknown_last(scorer.candidates(part))
            yield part.impressions, ranks(scores, part.candidate_offsets), part.candidate_offsets

    def tables(
        self, params: Params, registry: Registry, needs: frozenset[Need], news: News, employer: Employer
    ) -> Artifacts:
        """What the encoders need, as the stages make it for train and dev; made where it is not there yet."""
        embeddings = graph = None
        if Need.EMBEDDINGS in needs:
            embeddings = Embeddings.read(self._embedded(params, registry, employer))
        if Need.GRAPH in needs:
            graph = news_graph.read(self._linked(news))
        return Artifacts(embeddings, graph, Need.TEXTS in needs)

    def _embedded(self, params: Params, registry: Registry, employer: Employer) -> Path:
        settings = verified(self.data / "embeddings", kind=EMBEDDINGS)
        _check(params, registry, settings)
        folder = self._folder("embeddings", settings, [])
        if not folder.exists():
            train, _ = self.news_files
            embed_news(params, registry, self.news_files, folder, corpus=train, employer=employer)
            _drop_others(folder)
        if (found := verified(folder, kind=EMBEDDINGS)) != settings:
            shutil.rmtree(folder)
            message = f"{folder}: was made with {found}, but {self.data}/embeddings with {settings}. Run: dvc repro"
            raise IntegrityError(message)
        return folder

    def _linked(self, news: News) -> Path:
        splits = [path.parent for path in self.news_files]
        files = vector_files(splits)
        settings, train = verified(self.data / "graph", kind=news_graph.KIND), splits[0] / "behaviors.tsv"
        folder = self._folder("graph", settings, [train, *files])
        if not folder.exists():
            clicks = Behaviors.read(train, news)
            together = news_graph.co_clicks(
                clicks.users, clicks.times, clicks.history, clicks.history_offsets, clicks.history_news
            )
            graph = news_graph.build(news.frame, read_vectors(*files), together, settings["relations"])
            news_graph.write(graph, folder, settings)
            _drop_others(folder)
        return folder

    def _folder(self, kind: str, settings: dict[str, Any], files: list[Path]) -> Path:
        """Named after what the table is made of, so that it is found again as long as that is the same."""
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for path in (*self.news_files, *files):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return self.data / TABLES / f"{kind}-{digest.hexdigest()[:16]}"


def _check(params: Params, registry: Registry, settings: dict[str, Any]) -> None:
    """Raise ParamsError if params.yaml asks for other vectors than those that the model knows."""
    model = params.embed.model or registry.load(Embedder, params.embed.provider).default_model
    wanted = {**params.embed.model_dump(mode="json", exclude={"mode"}), "model": model}
    for name, value in wanted.items():
        if settings.get(name) != value:
            trained = f"the vectors of train were made with {settings.get(name)!r}"
            message = f"params.yaml: embed.{name} is {value!r}, but {trained}. Run `dvc repro`, or set it back"
            raise ParamsError(message)


def _drop_others(folder: Path) -> None:
    """Delete the same sort of table of earlier news or settings: what was paid for is in the ledger."""
    kind, _ = folder.name.split("-")
    for other in folder.parent.glob(f"{kind}-*"):
        if other != folder:
            shutil.rmtree(other)
