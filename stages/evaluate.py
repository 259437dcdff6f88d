"""evaluate: dev is scored, once, by the trained model."""

import json
import logging
from pathlib import Path

from newsfuse import diagnostics, lists
from newsfuse.artifact import write_text
from newsfuse.assembly import Artifacts
from newsfuse.baselines import baselines
from newsfuse.behaviors import Behaviors
from newsfuse.checkpoint import Checkpoint
from newsfuse.coldmask import ColdMask
from newsfuse.evaluation import Evaluation, rounded
from newsfuse.explanation import explain
from newsfuse.harmless import write_csv
from newsfuse.inputs import Inputs
from newsfuse.news import News
from newsfuse.params import Params
from newsfuse.plugin import Need
from newsfuse.processes import together
from newsfuse.recommender import Recommender
from newsfuse.registry import Registry
from newsfuse.scoring import score
from newsfuse.stage import run
from newsfuse.team import Team
from newsfuse.views import Views

log = logging.getLogger("newsfuse")


def evaluate(params: Params, registry: Registry) -> None:
    """Write metrics/evaluate/metrics.json, metrics/evaluate/plots/ and data/<dataset>/predictions/."""
    together(assess, params, registry, 1)


def assess(params: Params, registry: Registry, team: Team) -> None:
    """The stage's work, by a process of a team: all of them score, one does the rest."""
    data, plots = Path("data", params.dataset), Path("metrics/evaluate/plots")
    files = [data / split / "news.tsv" for split in ("train", "dev")]
    news = News.read(*files)
    train, dev = (Behaviors.read(data / split / "behaviors.tsv", news) for split in ("train", "dev"))

    dev.require_distinct(data / "dev" / "behaviors.tsv")

    checkpoint = Checkpoint.read(data / "model")
    checkpoint.known.require_of(news)
    needs, history = checkpoint.architecture.needs(registry), checkpoint.architecture.history
    inputs = Artifacts.read(data, needs | {Need.EMBEDDINGS}).inputs(news, checkpoint.known, files)

    def model(tables: Inputs) -> Recommender:
        return checkpoint.model(registry, tables).to(team.device)

    views, seen = Views.of(model(inputs), dev.mentioned()), checkpoint.known.news.numbers(news.ids) > 0
    scores = team.scores(views.scorer(history).candidates, dev)
    mask = ColdMask.draw(dev.candidate_news, seen, params.evaluate.cold_mask, params.seed)
    masked = {"masked": scores}
    if mask.tells(inputs, needs):
        forgetful = model(mask.applied(inputs))
        masked["masked"] = team.scores(lambda some: score(forgetful, some, history).candidates, dev)
    if not team.leads:
        return

    evaluation = Evaluation(dev, scores, seen, news.frame, drop_unknown=params.evaluate.drop_unknown)
    tables = (train, dev, evaluation.categories, inputs.embeddings.numpy())
    metrics = evaluation.metrics() | lists.metrics(scores, *tables)
    others = baselines(*tables, history=history, seed=params.seed)
    if params.evaluate.cold_mask:
        others |= masked
        metrics["masked_share"] = mask.share
    explanation = explain(views, evaluation, history)
    metrics |= evaluation.brief(others) | explanation.metrics

    evaluation.write(data / "predictions", checkpoint.architecture.to_json(), explanation.articles)
    write_csv(plots / "slices.csv", evaluation.slices.drop("name"))
    explanation.write(plots)
    diagnostics.write(plots, evaluation)
    write_text(Path("metrics/evaluate/metrics.json"), json.dumps(rounded(metrics), indent=1) + "\n")
    if evaluation.is_constant:
        log.warning("the model gives all candidates of an impression the same score: it ranks nothing")


if __name__ == "__main__":
    run(evaluate)
