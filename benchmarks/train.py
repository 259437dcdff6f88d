"""Training on data of MIND-small's size, against the machine's own float32 GEMM and against a per-row Dataset.

    python benchmarks/train.py [--encoders gnn,id,llm] [--fusion attention] [--user-encoder attention]
        [--batch-size 64] [--clicks 8000] [--rounds 5] [--threads 2]

Three things take turns in every round: a GEMM of 2048 x 2048 float32 matrices, newsfuse.training (in both precisions),
and the same model fed as peers feed theirs: a `Dataset` that makes tensors for one click at a time from Python lists,
the default collate, histories padded to `model.history`, an article encoded once for each cell that holds it, torch's
own AdamW and clipping. Encoders, fusion, user encoder, loss, batch size and number of negatives are the same for both.

Utilisation is useful operations per second over those of the GEMM. Useful are multiplications and additions of matrix
products, forward and backward: counted by torch, less what the user encoder computes for padding, less the fusion
where there is only one view to fuse, plus 12 D h^2 for self-attention among h clicks (which torch does not count on a
CPU: scores and mixture, 2 D h^2 each, and twice that backward). Elementwise work counts for nothing.

With one thread seconds are those of the processor, which hardly depend on what else the machine does; with more they
are those of the wall, and the machine has to be quiet.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from newsfuse.assembly import Architecture, Artifacts
from newsfuse.batches import Batch, Clicks
from newsfuse.behaviors import Behaviors
from newsfuse.device import seed_everything
from newsfuse.embeddings import Embeddings
from newsfuse.entities import read_vectors
from newsfuse.graph import build
from newsfuse.news import News
from newsfuse.params import Params, load
from newsfuse.recommender import Recommender
from newsfuse.registry import Registry
from newsfuse.split import split
from newsfuse.synth import synth
from newsfuse.training import Trainer
from newsfuse.vocabularies import Vocabularies
from newsfuse.words import Words

NEWS, IMPRESSIONS, DIMENSIONS = 65_238, 224_000, 256
SIDE, PRODUCTS = 2048, 10
PER_ROW_SHARE, COUNTED = 8, 20
"""The slow side gets an eighth of the clicks; operations are counted on this many batches."""


@dataclass(frozen=True)
class Subject:
    """What is trained, on what."""

    params: Params
    registry: Registry
    artifacts: Artifacts
    news: News
    lessons: Behaviors
    validation: Behaviors

    def model(self) -> Recommender:
        """Untrained; the same every time."""
        seed_everything(0)
        architecture = Architecture.of(self.params)
        known = Vocabularies.of(self.news, self.lessons.mentioned(), self.artifacts.graph)
        return architecture.build(self.registry, self.artifacts.inputs(self.news, known, []))

    @property
    def history(self) -> int:
        """Clicks of a user that are read."""
        return self.params.model.history


def subject(folder: Path, params: Params, registry: Registry) -> Subject:
    """Synthetic news and clicks; vectors are random, since their values cost no time."""
    news = News.read(folder / "train" / "news.tsv")
    lessons, validation = split(Behaviors.read(folder / "train" / "behaviors.tsv", news))
    vectors = np.random.default_rng(0).normal(size=(len(news), DIMENSIONS)).astype(np.float32)
    entities = read_vectors(folder / "train" / "entity_embedding.vec")
    graph = build(news.frame, entities, np.zeros((2, 0), dtype=np.int64), ("category", "entity"))
    artifacts = Artifacts(Embeddings(Words(news.ids.sort()), vectors), graph, texts=True)
    return Subject(params, registry, artifacts, news, lessons, validation.take(np.arange(100)))


# --- what is measured


def clock() -> float:
    """Seconds: of the clock on the wall, or of the processor where only one thread computes."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def gemm() -> float:
    """Float32 operations per second."""
    left, right = torch.randn(2, SIDE, SIDE)
    started = clock()
    for _ in range(PRODUCTS):
        torch.mm(left, right)
    return 2 * SIDE**3 * PRODUCTS / (clock() - started)


def ours(case: Subject, clicks: int, precision: str) -> float:
    """Clicks per second of an epoch by newsfuse.training: batches, forward, backward, step."""
    rows = np.random.default_rng(1).permutation(len(case.lessons))[:clicks]
    wanted = {"epochs": 1, "pretrain_epochs": 0, "precision": precision}
    settings = case.params.train.model_copy(update=wanted)
    lessons = case.lessons.take(rows)
    trainer = Trainer(case.model(), lessons, case.validation, settings, history=case.history, seed=0)
    marks = [clock()]
    trainer.fit(lambda _: marks.append(clock()))
    untrained, trained = marks[1] - marks[0], marks[2] - marks[1]
    return len(Clicks.of(lessons)) / (trained - untrained)  # both end with the same validation


def peers(case: Subject, clicks: int) -> float:
    """Clicks per second of the per-row version."""
    model, settings = case.model().train(), case.params.train
    lessons = Rows(case.lessons, clicks, settings.negatives, case.history)
    batches = DataLoader(lessons, batch_size=settings.batch_size, shuffle=True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    started = clock()
    for history, clicked, candidates in batches:
        loss = F.cross_entropy(
            per_cell(model, history, clicked, candidates), torch.zeros(len(history), dtype=torch.long)
        )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimiser.step()
    return len(lessons) / (clock() - started)


def per_cell(model: Recommender, history: Tensor, clicked: Tensor, candidates: Tensor) -> Tensor:
    """The model's scores (B, C), every article encoded where it stands."""
    rows, width = history.shape
    articles = model.articles(torch.cat([history, candidates], dim=1).flatten()).view(rows, -1, model.width)
    users = model.users(articles[:, :width] * clicked.unsqueeze(-1), clicked)
    return model.log_scale.exp() * (users.unsqueeze(1) * articles[:, width:]).sum(dim=-1)


class Rows(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Clicks as peers have them: lists in, tensors of one click out."""

    def __init__(self, behaviors: Behaviors, clicks: int, negatives: int, history: int) -> None:
        self.negatives, self.history = negatives, history
        starts, ends = behaviors.history_offsets, behaviors.candidate_offsets
        self.rows: list[tuple[list[int], int, list[int]]] = []
        for row in np.random.default_rng(1).permutation(len(behaviors)):
            read = behaviors.history_news[starts[behaviors.history[row]] : starts[behaviors.history[row] + 1]].tolist()
            shown = behaviors.candidate_news[ends[row] : ends[row + 1]].tolist()
            labels = behaviors.labels[ends[row] : ends[row + 1]].tolist()
            passed_by = [article for article, label in zip(shown, labels, strict=True) if not label]
            self.rows += [(read, a, passed_by) for a, label in zip(shown, labels, strict=True) if label and passed_by]
            if len(self.rows) >= clicks:
                break

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """History (H,), which of it are clicks (H,), candidates (1 + negatives,)."""
        read, clicked, passed_by = self.rows[index]
        latest = read[::-1][: self.history]
        padding = [0] * (self.history - len(latest))
        drawn = random.choices(passed_by, k=self.negatives)  # noqa: S311 - no secret
        used = [True] * len(latest) + [False] * len(padding)
        return torch.tensor(latest + padding), torch.tensor(used), torch.tensor([clicked, *drawn])


def useful_operations(case: Subject) -> float:
    """Of a click, on average over COUNTED batches."""
    settings, model = case.params.train, case.model().train()
    lessons = Clicks.of(case.lessons)
    total, clicks = 0.0, 0
    batches = lessons.batches(settings.batch_size, negatives=settings.negatives, history=case.history, key=0)
    for batch, _ in zip(batches, range(COUNTED), strict=False):
        total, clicks = total + useful(model, batch), clicks + len(batch.history)
    return total / clicks


def useful(model: Recommender, batch: Batch) -> float:
    """Operations of a step that are not for padding."""
    with FlopCounterMode(display=False) as counter:
        model(batch.news, batch.history, batch.clicked, batch.candidates).logsumexp(dim=1).sum().backward()
    parts = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    padding = parts.get("Recommender.user_encoder", 0) * (1 - batch.clicked.float().mean().item())
    idle = parts.get("Recommender.fusion", 0) if len(model.encoders) == 1 else 0
    squares = (batch.clicked.sum(dim=1) ** 2).sum().item() if "Recommender.user_encoder" in parts else 0
    attention = 12 * model.width * squares
    return counter.get_total_flops() - padding - idle + attention


# --- the program


def main(arguments: argparse.Namespace) -> None:
    """Print medians over the rounds, and of ratios within rounds."""
    torch.set_num_threads(arguments.threads)
    params, registry = load(Path())
    chosen = arguments.encoders.split(",") if arguments.encoders else params.chosen_encoders
    encoders = {name: name in chosen for name in params.encoders}
    train = params.train.model_copy(update={"batch_size": arguments.batch_size or params.train.batch_size})
    parts = {"fusion": arguments.fusion or params.fusion, "user_encoder": arguments.user_encoder or params.user_encoder}
    params = params.model_copy(update={"encoders": encoders, "train": train, **parts})
    with tempfile.TemporaryDirectory() as folder:
        data = Path(arguments.data or folder)
        if not arguments.data:
            synth(data, news=NEWS, impressions=IMPRESSIONS)
        case = subject(data, params, registry)
        report(case, arguments)


def report(case: Subject, arguments: argparse.Namespace) -> None:
    """Measure and print."""
    operations = useful_operations(case)
    rounds = list(measured(case, arguments))
    own, half, machine, slow = (statistics.median(column) for column in zip(*rounds, strict=True))
    shares = [clicks * operations / rate for clicks, _, rate, _ in rounds]
    print(f"{cpu()}, {arguments.threads} threads, torch {torch.__version__}")
    names = ", ".join(case.params.chosen_encoders)
    print(f"encoders {names}; fusion {case.params.fusion}; user encoder {case.params.user_encoder}")
    print(f"{case.params.train.batch_size} clicks a batch; medians of {len(rounds)} rounds")
    print(f"GEMM, float32           {machine / 1e9:8.0f} GFLOP/s")
    print(f"useful                  {operations / 1e6:8.1f} MFLOP a click")
    print(f"newsfuse, float32       {own:8.0f} clicks/s")
    print(f"utilisation             {100 * statistics.median(shares):8.0f} % of the GEMM")
    gain = statistics.median(h / o for o, h, _, _ in rounds)
    print(f"newsfuse, bfloat16      {half:8.0f} clicks/s, {gain:.2f} times float32")
    print(f"per-row Dataset         {slow:8.0f} clicks/s")
    print(f"newsfuse / per-row      {statistics.median(o / s for o, _, _, s in rounds):8.1f}")


def measured(case: Subject, arguments: argparse.Namespace) -> Iterator[tuple[float, float, float, float]]:
    """Of each round: our clicks/s in float32 and bfloat16, the GEMM's operations/s, clicks/s of the per-row version."""
    for _ in range(arguments.rounds):
        before = gemm()
        own = ours(case, arguments.clicks, "float32")
        half = ours(case, arguments.clicks, "bfloat16")
        yield own, half, (before + gemm()) / 2, peers(case, arguments.clicks // PER_ROW_SHARE)


def cpu() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def command_line(description: str | None) -> argparse.ArgumentParser:
    """What all that measure training can be told about the model."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", default="", help="such as gnn,id,llm; else those of params.yaml")
    parser.add_argument("--fusion", default="", help="else that of params.yaml")
    parser.add_argument("--user-encoder", default="", help="else that of params.yaml")
    parser.add_argument("--batch-size", type=int, default=0, help="else that of params.yaml")
    return parser


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = command_line(__doc__)
    parser.add_argument("--clicks", type=int, default=8000, help="impressions to train on in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--data", help="a folder with train/, instead of synthetic data")
    return parser.parse_args()


if __name__ == "__main__":
    main(parsed())
