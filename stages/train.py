"""train: the chosen encoders, fusion and user encoder learn from train's clicks; its last day validates."""

from pathlib import Path

from newsfuse.assembly import Architecture, Artifacts
from newsfuse.behaviors import Behaviors
from newsfuse.checkpoint import Checkpoint
from newsfuse.curves import Curves
from newsfuse.device import device, seed_everything
from newsfuse.news import News
from newsfuse.params import Params
from newsfuse.recommender import Recommender
from newsfuse.registry import Registry
from newsfuse.stage import run
from newsfuse.tensorboard import TensorBoard
from newsfuse.training import train as trained
from newsfuse.vocabularies import Vocabularies


def train(params: Params, registry: Registry) -> None:
    """Write data/<dataset>/model, metrics/train (curves) and metrics/speed."""
    TensorBoard.require()  # first: without it, minutes of reading would end in a refusal
    data = Path("data", params.dataset)
    news = News.read(data / "train" / "news.tsv")
    behaviors = Behaviors.read(data / "train" / "behaviors.tsv", news)
    architecture = Architecture.of(params)
    artifacts = Artifacts.read(data, architecture.needs(registry))

    def untrained(lessons: Behaviors) -> tuple[Vocabularies, Recommender]:
        known = Vocabularies.of(news, lessons.mentioned(), artifacts.graph)
        seed_everything(params.seed)
        inputs = artifacts.inputs(news, known, [data / "train" / "news.tsv"])
        return known, architecture.build(registry, inputs).to(device())

    with Curves(Path("metrics")) as curves:
        known, model, best = trained(
            untrained, behaviors, params.train, history=params.model.history, seed=params.seed, report=curves.epoch
        )
        curves.best(best)
    Checkpoint(architecture, known, model.state_dict()).write(
        data / "model", {"seed": params.seed, **params.train.model_dump()}
    )


if __name__ == "__main__":
    run(train)
