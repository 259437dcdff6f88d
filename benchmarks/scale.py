"""What training takes of each process, and what processes tell each other: counted here, computed for other sizes.

    python benchmarks/scale.py [--encoders category,gnn,id,llm] [--batch-size 64] [--data data/small]

Counted on data of MIND-small's size (synthetic, unless --data names a folder with train/): bytes of the arrays of
behaviors and of the lessons made from them, of the model's tables and parameters, what a step keeps for its backward
pass, and how many operations it consists of, each of which is at least one launch on a GPU. None of this depends on
the machine. The figures for MIND-large follow from these by the numbers of impressions, articles and users.
"""

import argparse
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from train import IMPRESSIONS, NEWS, Subject, subject  # type: ignore[import-not-found] # the file beside it

from newsfuse.batches import Batch, Clicks, Histories
from newsfuse.descent import Descent
from newsfuse.losses import UNSHOWN
from newsfuse.params import load
from newsfuse.recommender import Recommender
from newsfuse.synth import synth

MB = 1e6
IMPRESSIONS_LARGE, ARTICLES_LARGE, USERS_LARGE = 2_200_000, 161_000, 711_000
"""Of MIND-large's train, roughly; articles of all its splits."""
BATCHES = 10
Operation = Any
"""One of PyTorch's, which have no type of their own."""


class Counted(TorchDispatchMode):
    """How many operations PyTorch does, but for those that only look at a tensor another way."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.n = 0

    def __torch_dispatch__(
        self, func: Operation, _types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever the operation returns
        """Do it."""
        made = func(*args, **(kwargs or {}))
        given = [each.untyped_storage().data_ptr() for each in args if isinstance(each, Tensor) and _is_plain(each)]
        is_view = isinstance(made, Tensor) and _is_plain(made) and made.untyped_storage().data_ptr() in given
        self.n += not is_view or func._schema.name.endswith("_")  # noqa: SLF001 - in place
        return made


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided


@dataclass(frozen=True)
class Step:
    """What a step of training consists of, on average over some batches."""

    clicks: float
    articles: float
    """Distinct ones."""
    kept: float
    """Bytes that the forward pass keeps for the backward pass, beside weights and tables."""
    operations: float


def step_of(model: Recommender, settings: Any, batches: Sequence[Batch]) -> Step:  # noqa: ANN401 - Train
    """Count some steps."""
    descent = Descent(model.train(), settings, len(batches))
    own = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}
    operations = 0

    def keep(tensor: Tensor) -> Tensor:
        if _is_plain(tensor) and tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    total = 0
    for batch in batches:
        kept.clear()
        with Counted() as counted:
            with saved_tensors_hooks(keep, lambda tensor: tensor):
                scores = model(batch.news, batch.history, batch.clicked, batch.candidates)
                height = -scores.masked_fill(~batch.shown, UNSHOWN).log_softmax(dim=1)[:, 0].mean()
            total += sum(kept.values())
            descent.step(height)
        operations += counted.n
    n = len(batches)
    return Step(
        sum(len(each.clicked) for each in batches) / n, sum(len(each.news) for each in batches) / n, total / n,
        operations / n,
    )  # fmt: skip


def nbytes(*holders: object) -> int:
    """Of the arrays in some dataclasses."""
    values = (getattr(each, field.name) for each in holders for field in fields(each))  # type: ignore[arg-type]
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray))


def report(case: Subject, tell: Callable[[str], None]) -> None:
    """Count, compute and print."""
    settings, model, behaviors = case.params.train, case.model(), case.lessons
    clicks, histories = Clicks.of(behaviors), Histories.of(behaviors)
    lessons = clicks.batches(settings.batch_size, negatives=settings.negatives, history=case.history, key=0)
    step = step_of(model, settings, list(islice(lessons, BATCHES)))
    shown = (nbytes(behaviors), nbytes(clicks) + nbytes(histories))
    tables, parameters = (sum(each.nbytes for each in group) for group in (model.buffers(), model.parameters()))
    # of embedding tables there is a row for each article or entity
    rows = sum(each.weight.nbytes for each in model.modules() if isinstance(each, nn.Embedding))
    more, wider = IMPRESSIONS_LARGE / len(behaviors), ARTICLES_LARGE / len(case.news)
    large = parameters - rows + rows * wider
    tell(f"encoders {', '.join(case.params.chosen_encoders)}; fusion {case.params.fusion}; "
         f"user encoder {case.params.user_encoder}; {settings.batch_size} clicks a batch")  # fmt: skip
    tell(f"{'':44}{'counted':>12}{'MIND-large':>12}")
    rows_of = [
        ("impressions learned from", len(behaviors), IMPRESSIONS_LARGE),
        ("clicks, and histories, a pass", len(clicks) + len(histories), len(clicks) * more + 0.9 * USERS_LARGE),
        ("articles", len(case.news), ARTICLES_LARGE),
    ]
    for name, here, there in rows_of:
        tell(f"{name:44}{here:12,.0f}{there:12,.0f}")
    bytes_of = [
        ("behaviors, MB", shown[0], shown[0] * more),
        ("lessons (on the device where that is CUDA), MB", shown[1], shown[1] * more),
        ("tables of the model, MB", tables, tables * wider),
        ("parameters, MB", parameters, large),
        ("AdamW's moments and a dense gradient, MB", 3 * parameters, 3 * large),
        ("kept for a backward pass, MB", step.kept, math.nan),
        ("gradients told at each step, MB", parameters, large),
    ]
    for name, here, there in bytes_of:
        tell(
            f"{name:44}{here / MB:12,.1f}" + (f"{there / MB:12,.1f}" if not math.isnan(there) else f"{'the same':>12}")
        )
    tell(f"{'kept for a backward pass, KB a click':44}{step.kept / step.clicks / 1e3:12,.0f}")
    tell(f"{'distinct articles of a batch':44}{step.articles:12,.0f}")
    tell(f"{'operations of a step':44}{step.operations:12,.0f}")


def main(arguments: argparse.Namespace) -> None:
    """Synthetic data of MIND-small's size or a folder, and the settings of params.yaml but for those that are given."""
    params, registry = load(Path())
    chosen = arguments.encoders.split(",") if arguments.encoders else params.chosen_encoders
    train = params.train.model_copy(update={"batch_size": arguments.batch_size or params.train.batch_size})
    # what averages neighbours on a GPU, where DGL's wheels cannot
    options = {**params.options, "gnn": {**params.options.get("gnn", {}), "backend": "torch"}}
    wanted = {"encoders": {name: name in chosen for name in params.encoders}, "train": train, "options": options}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(arguments.data or folder)
        if not arguments.data:
            synth(data, news=NEWS, impressions=IMPRESSIONS)
        report(subject(data, params.model_copy(update=wanted), registry), print)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", default="", help="such as category,gnn,id,llm; else those of params.yaml")
    parser.add_argument("--batch-size", type=int, default=0, help="else that of params.yaml")
    parser.add_argument("--data", help="a folder with train/, instead of synthetic data")
    return parser.parse_args()


if __name__ == "__main__":
    main(parsed())
