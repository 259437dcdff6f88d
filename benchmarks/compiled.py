"""Whether torch.compile pays for the steps of training, the time that it takes to compile included.

    python benchmarks/compiled.py [--encoders gnn,id,llm] [--fusion attention] [--user-encoder attention]
        [--batch-size 256] [--steps 40]

The same batches go through the model as it is and through one whose llm encoder, fusion and user encoder were compiled
(the others look up rows with sparse gradients or follow links, which torch.compile leaves as they are), each a step of
training, in turns, so that whatever else the machine does meets both; medians of the ratios. Sizes change from batch to
batch, so they are compiled as dynamic ones. What compiling costs is the processor's time that the first steps take
longer than later ones do, that of the C++ compiler included; it is spent again in every process.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import torch
from train import IMPRESSIONS, NEWS, Subject, command_line, cpu, subject  # type: ignore[import-not-found] # the file beside it

from newsfuse.batches import Batch, Clicks
from newsfuse.descent import Descent
from newsfuse.losses import UNSHOWN
from newsfuse.params import load
from newsfuse.recommender import Recommender
from newsfuse.synth import synth

os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # in this process, whose time is counted
WARM = 20
"""Steps in which sizes that were not met yet may still have something compiled."""
WHOLE_RUN = 12_000
"""Steps of a whole run on MIND-small: ten epochs of 45,000 histories and three of 230,000 clicks, in batches of 128."""


def spent() -> float:
    """Seconds of the processor, those of the C++ compiler included."""
    return sum(os.times()[:4])


def compiled(model: Recommender) -> Recommender:
    """The same model, its dense parts compiled for any size. What is ours between them is a few operations."""
    dense = [model.encoders["llm"]] if "llm" in model.encoders else []
    for part in (*dense, model.fusion, model.user_encoder):
        part.compile(dynamic=True)
    return model


def steps(case: Subject, model: Recommender) -> Callable[[Batch], float]:
    """A function that does a step of training and says how long it took."""
    descent = Descent(model.train(), case.params.train, WHOLE_RUN)

    def step(batch: Batch) -> float:
        started = spent()
        model.redraw(0)
        scores = model(batch.news, batch.history, batch.clicked, batch.candidates).masked_fill(~batch.shown, UNSHOWN)
        descent.step((scores.logsumexp(dim=1) - scores[:, 0]).mean())
        return spent() - started

    return step


def report(case: Subject, batches: Sequence[Batch]) -> None:
    """Measure and print."""
    plain, made = steps(case, case.model()), steps(case, compiled(case.model()))
    pairs = [(plain(batch), made(batch)) for batch in batches]
    first, later = pairs[:WARM], pairs[WARM:]
    own, other = (statistics.median(column) for column in zip(*later, strict=True))
    cost = sum(two for _, two in first) - other * len(first)
    ratio = statistics.median(one / two for one, two in later)
    gain = own - own / ratio
    print(f"{cpu()}, one thread, torch {torch.__version__}")
    print(f"encoders {', '.join(case.params.chosen_encoders)}; fusion {case.params.fusion}; "
          f"user encoder {case.params.user_encoder}; {case.params.train.batch_size} clicks a batch")  # fmt: skip
    print(f"a step as it is         {1000 * own:8.1f} ms, median of {len(later)}")
    print(f"compiled                {1000 * other:8.1f} ms, {ratio:.2f} times as fast")
    print(f"to compile              {cost:8.1f} s")
    print(f"pays after              {cost / gain:8,.0f} steps" if gain > 0 else "pays                       never")


def main(arguments: argparse.Namespace) -> None:
    """Synthetic data of MIND-small's size, and the settings of params.yaml but for those that are given."""
    torch.set_num_threads(1)  # so that the processor's time is the time that it takes
    params, registry = load(Path())
    chosen = arguments.encoders.split(",") if arguments.encoders else params.chosen_encoders
    train = params.train.model_copy(update={"batch_size": arguments.batch_size or params.train.batch_size})
    parts = {"fusion": arguments.fusion or params.fusion, "user_encoder": arguments.user_encoder or params.user_encoder}
    wanted = {"encoders": {name: name in chosen for name in params.encoders}, "train": train, **parts}
    with tempfile.TemporaryDirectory() as folder:
        synth(Path(folder), news=NEWS, impressions=IMPRESSIONS)
        case = subject(Path(folder), params.model_copy(update=wanted), registry)
        lessons = Clicks.of(case.lessons).batches(
            train.batch_size, negatives=train.negatives, history=case.history, key=0
        )
        report(case, list(islice(lessons, WARM + arguments.steps)))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = command_line(__doc__)
    parser.add_argument("--steps", type=int, default=40, help="measured after the first ones")
    return parser.parse_args()


if __name__ == "__main__":
    main(parsed())
