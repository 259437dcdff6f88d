"""train: the chosen encoders, fusion and user encoder learn from train's clicks; its last day validates."""

from pathlib import Path

from newsfuse.assembly import Architecture, Artifacts
from newsfuse.behaviors import Behaviors
from newsfuse.checkpoint import Checkpoint
from newsfuse.curves import Curves
from newsfuse.device import device, seed_everything
from newsfuse.news import News
from newsfuse.params import Params
from newsfuse.registry import Registry
from newsfuse.split import split
from newsfuse.stage import run
from newsfuse.training import Trainer
from newsfuse.vocabularies import Vocabularies


def train(params: Params, registry: Registry) -> None:
    """Write data/<dataset>/model, metrics/train (curves) and metrics/speed."""
    data = Path("data", params.dataset)
    news = News.read(data / "train" / "news.tsv")
    lessons, validation = split(Behaviors.read(data / "train" / "behaviors.tsv", news))

    architecture = Architecture.of(params)
    artifacts = Artifacts.read(data, architecture.needs(registry))
    known = Vocabularies.of(news, lessons.mentioned(), artifacts.graph)
    seed_everything(params.seed)
    model = architecture.build(registry, artifacts.inputs(news, known, [data / "train" / "news.tsv"])).to(device())

    trainer = Trainer(model, lessons, validation, params.train, history=params.model.history, seed=params.seed)
    with Curves(Path("metrics")) as curves:
        best = trainer.fit(curves.epoch)
        curves.best(best)
    Checkpoint(architecture, known, model.state_dict()).write(
        data / "model", {"seed": params.seed, **params.train.model_dump()}
    )


if __name__ == "__main__":
    run(train)
