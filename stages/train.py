"""train: the chosen encoders, fusion and user encoder learn from train's clicks; its last day validates."""

from pathlib import Path

from newsfuse.artifact import MANIFEST
from newsfuse.assembly import Architecture, Artifacts
from newsfuse.behaviors import Behaviors
from newsfuse.bookmarks import bookmarks
from newsfuse.checkpoint import Checkpoint
from newsfuse.curves import Curves
from newsfuse.device import seed_everything
from newsfuse.news import News
from newsfuse.params import Params
from newsfuse.processes import together
from newsfuse.recipe import Recipe
from newsfuse.recommender import Recommender
from newsfuse.registry import Registry
from newsfuse.stage import run
from newsfuse.team import Team
from newsfuse.tensorboard import TensorBoard
from newsfuse.training import train as trained
from newsfuse.vocabularies import Vocabularies


def train(params: Params, registry: Registry) -> None:
    """Write data/<dataset>/model, metrics/train (curves) and metrics/speed."""
    TensorBoard.require()  # first: without it, minutes of reading would end in a refusal
    together(learn, params, registry, params.train.processes)


def learn(params: Params, registry: Registry, team: Team) -> None:
    """The stage's work, by a process of a team: all of them learn, one writes."""
    data = Path("data", params.dataset)
    read = [data / "train" / "news.tsv", data / "train" / "behaviors.tsv"]
    news = News.read(read[0])
    behaviors = Behaviors.read(read[1], news)
    architecture = Architecture.of(params)
    artifacts = Artifacts.read(data, architecture.needs(registry))

    def untrained(lessons: Behaviors) -> tuple[Vocabularies, Recommender]:
        known = Vocabularies.of(news, lessons.mentioned(), artifacts.graph)
        seed_everything(params.seed)
        return known, architecture.build(registry, artifacts.inputs(news, known, read[:1])).to(team.device)

    recipe = Recipe.of(params, [*read, data / "embeddings" / MANIFEST, data / "graph" / MANIFEST], team)
    with bookmarks(recipe, team) as marks, Curves(Path("metrics"), writes=team.leads) as curves:
        settings, history = params.train, params.model.history
        known, model, best = trained(
            untrained,
            behaviors,
            settings,
            history=history,
            seed=params.seed,
            report=curves.epoch,
            team=team,
            bookmarks=marks,
        )
        curves.best(best)
        if team.leads:
            made_by = {"seed": params.seed, **settings.model_dump()}
            Checkpoint(architecture, known, model.state_dict()).write(data / "model", made_by)
        marks.drop()


if __name__ == "__main__":
    run(train)
