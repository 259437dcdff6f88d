"""Other losses and other scorers than the model's own, on the last days of train: what would a plugin of either gain?

    python benchmarks/alternatives.py data/mind-sample [--seeds 3] [--only binary,views] [--refit]

The last days of a data set's train are scored, once; the days before them choose the epoch, and what is left teaches.
dev is not read. Vectors are those of lsa, settings those of params.yaml, but nothing is learned again unless --refit
asks for it. Each alternative replaces one thing, starts where the default starts, and is paired with the default:
intervals and p (Holm's) are of a bootstrap over users of the difference between the means over seeds. Times are of the
processor: an epoch of impressions with its validation, and scoring the last days.
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from newsfuse.assembly import Architecture, Artifacts
from newsfuse.behaviors import Behaviors
from newsfuse.bootstrap import Estimate, bootstrap, holm
from newsfuse.device import seed_everything
from newsfuse.embeddings import Embeddings
from newsfuse.entities import read_vectors
from newsfuse.epochs import Epoch
from newsfuse.graph import build
from newsfuse.learning import Learner
from newsfuse.losses import Loss
from newsfuse.news import News
from newsfuse.params import Params, Train, load, options
from newsfuse.plugin import Embedder
from newsfuse.ranking import ranking, unknown_last
from newsfuse.recommender import SCALE, Recommender
from newsfuse.registry import Registry
from newsfuse.scoring import score
from newsfuse.split import split
from newsfuse.training import Trainer
from newsfuse.verdict import chance, signed
from newsfuse.vocabularies import Vocabularies
from newsfuse.words import Words

HIDDEN, RANK = 32, 64
PAIRS = 1 << 14
"""Of a user and an article, scored at once: (16384, 768) float32 are 50 MB."""
METRICS = ("auc", "ndcg10")


class Pairwise(Loss):
    """The click against each other article, by how far it is ahead of it."""

    def __init__(self, of_margin: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.of_margin = of_margin

    def forward(self, scores: Tensor) -> Tensor:
        """(B, C), -inf where no article is, the click in column 0 -> ()"""
        others = scores[:, 1:]
        losses = self.of_margin(scores[:, :1] - others)  # of no article: infinitely far ahead, nothing to learn
        return (losses.sum(dim=1) / others.isfinite().sum(dim=1).clamp(min=1)).mean()


def bpr() -> Pairwise:
    """Logistic (Rendle et al. 2009)."""
    return Pairwise(lambda margin: F.softplus(-margin))


def hinge() -> Pairwise:
    """Nothing is left to learn where the click is ahead by 1, a tenth of the untrained scale (Joachims 2002)."""
    return Pairwise(lambda margin: F.relu(1 - margin))


class Student(Learner):
    """A Learner with another loss."""

    def __init__(self, loss: Callable[[], Loss], learner: Learner) -> None:
        """In place of `learner`, which has taught nothing yet."""
        vars(self).update(vars(learner))
        self.loss = loss

    def _lost(self) -> Loss:
        return self.loss()


class Views(nn.Module):
    """A small MLP over each view's dot product and the length of the user's, and how much the user clicked."""

    def __init__(self, model: Recommender) -> None:
        super().__init__()
        self.views = model.width // model.dim
        self.mlp = mlp(2 * self.views + 1)

    def forward(self, users: Tensor, articles: Tensor, clicks: Tensor) -> Tensor:
        """(..., W), (..., W), logarithms of the number of clicks (..., 1) -> what is added to dot products (...)"""
        theirs, own = (each.unflatten(-1, (self.views, -1)) for each in (users, articles))
        dots, lengths = (theirs * own).sum(dim=-1), torch.linalg.vector_norm(theirs, dim=-1)
        known = torch.cat([lengths, clicks], dim=-1).expand(*dots.shape[:-1], -1)
        return self.mlp(torch.cat([SCALE * dots, known], dim=-1)).squeeze(-1)


class Product(nn.Module):
    """An MLP over the elementwise product (He et al. 2017, NeuMF)."""

    def __init__(self, model: Recommender) -> None:
        super().__init__()
        self.mlp = mlp(model.width)

    def forward(self, users: Tensor, articles: Tensor, _clicks: Tensor) -> Tensor:
        """As Views."""
        # of two vectors of length 1 and W values: what nn.Linear's start is made for
        return self.mlp(users.shape[-1] * users * articles).squeeze(-1)


class Pair(nn.Module):
    """An MLP over user, article and their elementwise product (He et al. 2017, NeuMF)."""

    def __init__(self, model: Recommender) -> None:
        super().__init__()
        self.mlp = mlp(3 * model.width)

    def forward(self, users: Tensor, articles: Tensor, _clicks: Tensor) -> Tensor:
        """As Views."""
        theirs, own = (each.shape[-1] ** 0.5 * each for each in (users.expand_as(articles), articles))
        return self.mlp(torch.cat([theirs, own, theirs * own], dim=-1)).squeeze(-1)


class Bilinear(nn.Module):
    """user . M article, M of low rank beside the identity."""

    def __init__(self, model: Recommender) -> None:
        super().__init__()
        self.user = nn.Linear(model.width, RANK, bias=False)
        self.article = nn.Linear(model.width, RANK, bias=False)
        nn.init.zeros_(self.article.weight)

    def forward(self, users: Tensor, articles: Tensor, _clicks: Tensor) -> Tensor:
        """As Views."""
        return users.shape[-1] ** 0.5 * (self.user(users) * self.article(articles)).sum(dim=-1)


def mlp(values: int) -> nn.Sequential:
    """With one hidden layer; 0 at first."""
    last = nn.Linear(HIDDEN, 1, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Linear(values, HIDDEN), nn.GELU(), last)


class Scored(Recommender):
    """A Recommender with another scorer.

    Vectors are one value longer: of a user the logarithm of the number of clicks, of an article 0. The library hands
    a user's vector to scoring, and nothing else of him or her.
    """

    def __init__(self, model: Recommender, scorer: Callable[[Recommender], nn.Module]) -> None:
        """`model`: untrained, whose parts are taken over."""
        nn.Module.__init__(self)
        vars(self).update(vars(model))
        self.scorer = scorer(model)

    def fuse(self, views: Tensor) -> Tensor:
        """(M, V, D) -> (M, W + 1)"""
        return F.pad(super().fuse(views), (0, 1))

    def users(self, history: Tensor, clicked: Tensor) -> Tensor:
        """(B, H, W + 1), (B, H) -> (B, W + 1)"""
        clicks = clicked.sum(dim=1, keepdim=True).log1p()
        return torch.cat([super().users(history[..., :-1], clicked), clicks], dim=1)

    def match(self, articles: Tensor, history: Tensor, clicked: Tensor, candidates: Tensor) -> Tensor:
        """As Recommender's."""
        return self._scores(self.users(articles[history], clicked).unsqueeze(1), articles[candidates])

    def score(self, users: Tensor, articles: Tensor, offsets: Tensor, places: Tensor) -> Tensor:
        """As Recommender's, but of pairs of rows that are copied."""
        owner = torch.repeat_interleave(offsets.diff())
        parts = zip(owner.split(PAIRS), places.split(PAIRS), strict=True)
        return torch.cat([self._scores(users[own], articles[shown]) for own, shown in parts])

    def _scores(self, users: Tensor, articles: Tensor) -> Tensor:
        clicks, users, articles = users[..., -1:], users[..., :-1], articles[..., :-1]
        return self.log_scale.exp() * ((users * articles).sum(dim=-1) + self.scorer(users, articles, clicks))


@dataclass(frozen=True)
class Alternative:
    """The default, but for one thing."""

    loss: Callable[[], Loss] | None = None
    train: Mapping[str, Any] = field(default_factory=dict)
    """Settings of params.yaml's `train`."""
    scorer: Callable[[Recommender], nn.Module] | None = None


DEFAULT = "default"
ALTERNATIVES = {
    DEFAULT: Alternative(),
    "binary": Alternative(train={"loss": "binary"}),
    "bpr": Alternative(loss=bpr),
    "hinge": Alternative(loss=hinge),
    "softmax-48": Alternative(train={"negatives": 48}),
    "no-pretraining": Alternative(train={"pretrain_epochs": 0}),
    "no-smoothing": Alternative(train={"label_smoothing": 0}),
    "views": Alternative(scorer=Views),
    "product": Alternative(scorer=Product),
    "pair": Alternative(scorer=Pair),
    "bilinear": Alternative(scorer=Bilinear),
}
"""The default: softmax over a click and `train.negatives` others (Wu et al. 2019, NRMS), of scaled dot products.
softmax-48: nearly all that is shown beside the click (Cao et al. 2007, ListNet). The two without something are
neither loss nor scorer: a loss that gains as much as they do gains nothing of its own.
"""


@dataclass(frozen=True)
class Data:
    """A data set's train. Row i of every table is article i of `news`."""

    news: News
    behaviors: Behaviors
    artifacts: Artifacts

    @classmethod
    def read(cls, folder: Path, params: Params, registry: Registry) -> "Data":
        """Of a folder with `news.tsv` and `behaviors.tsv`. The graph has no entity vectors and no co-clicks."""
        news = News.read(folder / "news.tsv")
        texts, own = news.texts(params.embed.fields), options(registry, Embedder, "lsa", params.options)
        embed: Any = registry.load(Embedder, "lsa").build(texts, None, params.embed.dimensions, own)
        graph = build(news.frame, read_vectors(), np.zeros((2, 0), dtype=np.int64), params.graph.relations)
        artifacts = Artifacts(Embeddings(Words(news.ids), embed(texts)), graph)
        return cls(news, Behaviors.read(folder / "behaviors.tsv", news), artifacts)


class Clock:
    """Seconds of the processor."""

    def __init__(self) -> None:
        self.last = time.process_time()
        self.epochs: list[float] = []

    def hear(self, epoch: Epoch) -> None:
        """That an epoch has ended."""
        seconds = self.lap()
        if epoch.course == "impressions":
            self.epochs.append(seconds)

    def lap(self) -> float:
        """Since the last time."""
        before, self.last = self.last, time.process_time()
        return self.last - before


@dataclass(frozen=True)
class Outcome:
    """What an alternative, trained with one seed, makes of the last days."""

    values: np.ndarray
    """float64 (n, 2): METRICS of each impression, NaN where undefined."""
    taken: str
    """Epochs of pre-training and of impressions that led to the model."""
    epoch: float
    scoring: float


@dataclass(frozen=True)
class Experiment:
    """An alternative and a seed."""

    data: Data
    alternative: Alternative
    params: Params
    registry: Registry

    @property
    def settings(self) -> Train:
        """Of training."""
        return self.params.train.model_copy(update=dict(self.alternative.train))

    def outcome(self) -> Outcome:
        """Of the last days."""
        clock, (before, last) = Clock(), split(self.data.behaviors)
        model, taken = self.trained(before, clock)
        clock.lap()
        scores = unknown_last(score(model, last, self.params.model.history).candidates)
        scoring, found = clock.lap(), ranking(scores, last.labels, last.candidate_offsets)
        values = np.stack([getattr(found, metric) for metric in METRICS], axis=1)
        epochs = "+".join(str(taken.get(course, 0)) for course in ("histories", "impressions"))
        return Outcome(values, epochs, float(np.mean(clock.epochs)), scoring)

    def trained(self, before: Behaviors, clock: Clock) -> tuple[Recommender, Mapping[str, int]]:
        """As `newsfuse.training.train` does it; and the epochs taken."""
        history, seed = self.params.model.history, self.params.seed
        lessons, choosing = split(before)
        model = self.untrained(lessons)
        trainer = Trainer(model, lessons, choosing, self.settings, history=history, seed=seed)
        trainer.learner = self.taught(trainer.learner)
        taken = trainer.fit(clock.hear).taken
        if self.settings.refit:
            model = self.untrained(before)
            self.taught(Learner(model, before, self.settings, history=history, seed=seed)).repeat(taken)
        return model, taken

    def untrained(self, lessons: Behaviors) -> Recommender:
        """With the alternative's scorer."""
        known = Vocabularies.of(self.data.news, lessons.mentioned(), self.data.artifacts.graph)
        seed_everything(self.params.seed)
        inputs = self.data.artifacts.inputs(self.data.news, known, [])
        model = Architecture.of(self.params).build(self.registry, inputs)
        return Scored(model, self.alternative.scorer) if self.alternative.scorer else model

    def taught(self, learner: Learner) -> Learner:
        """With the alternative's loss."""
        return Student(self.alternative.loss, learner) if self.alternative.loss else learner


def means(found: Sequence[Outcome]) -> np.ndarray:
    """float64 (seeds, 2): of METRICS."""
    return np.stack([np.nanmean(each.values, axis=0) for each in found])


def compared(found: Sequence[Outcome], default: Sequence[Outcome], users: np.ndarray) -> Estimate:
    """The differences in METRICS between the means over seeds."""
    pairs = zip(found, default, strict=True)
    return bootstrap(np.mean([each.values - other.values for each, other in pairs], axis=0), users)


def row(name: str, found: Sequence[Outcome], estimate: Estimate, p: np.ndarray) -> str:
    """A line of the table; `p`: (2,), corrected."""
    mean, sd = means(found).mean(axis=0), means(found).std(axis=0, ddof=1)
    cells = [name]
    for k in range(len(METRICS)):
        difference = f"{signed(estimate.mean[k])} ({signed(estimate.low[k])} to {signed(estimate.high[k])})"
        paired = ["", ""] if name == DEFAULT else [difference, chance(p[k])]
        cells += [f"{mean[k]:.4f}", f"{sd[k]:.4f}", *paired]
    cells += [f"{np.mean([getattr(each, what) for each in found]):.1f}" for what in ("epoch", "scoring")]
    return f"| {' | '.join(cells)} | {' '.join(each.taken for each in found)} |"


def table(found: Mapping[str, Sequence[Outcome]], users: np.ndarray) -> Iterator[str]:
    """Its lines; `found` holds the default as well."""
    estimates = {name: compared(outcomes, found[DEFAULT], users) for name, outcomes in found.items()}
    tested = [name for name in found if name != DEFAULT]
    p = dict(zip(tested, holm(np.array([estimates[name].p for name in tested])), strict=True))
    yield "| | AUC | sd | difference (95 %) | p | nDCG@10 | sd | difference (95 %) | p | s/epoch | s/scoring | epochs |"
    yield "|---" * 12 + "|"
    for name, outcomes in found.items():
        yield row(name, outcomes, estimates[name], p.get(name, np.full(len(METRICS), np.nan)))


def main(arguments: argparse.Namespace) -> None:
    """Train and score all that is asked for, then print the table."""
    torch.set_num_threads(1)
    params, registry = load(Path())
    settings = params.train.model_copy(update={"refit": arguments.refit})
    data = Data.read(arguments.data / "train", params, registry)
    found: dict[str, list[Outcome]] = {}
    for name in dict.fromkeys([DEFAULT, *arguments.only.split(",")]):
        each = (params.model_copy(update={"seed": seed, "train": settings}) for seed in range(arguments.seeds))
        found[name] = [Experiment(data, ALTERNATIVES[name], seeded, registry).outcome() for seeded in each]
        print(f"{name}: AUC {means(found[name])[:, 0].mean():.4f}", file=sys.stderr, flush=True)
    users = split(data.behaviors)[1].users
    print(f"{arguments.data.name}: {len(users):,} impressions of {len(np.unique(users)):,} users, ", end="")
    print("\n".join([f"{arguments.seeds} seeds", "", *table(found, users)]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3, help="2 or more")
    parser.add_argument("--only", default=",".join(ALTERNATIVES), help="names, separated by commas")
    parser.add_argument("--refit", action="store_true")
    logging.disable(logging.WARNING)
    main(parser.parse_args())
