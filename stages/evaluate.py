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
from newsfuse.device import device
from newsfuse.evaluation import Evaluation, rounded
from newsfuse.explanation import explain
from newsfuse.harmless import write_csv
from newsfuse.inputs import Inputs
from newsfuse.news import News
from newsfuse.params import Params
from newsfuse.plugin import Need
from newsfuse.recommender import Recommender
from newsfuse.registry import Registry
from newsfuse.scoring import score
from newsfuse.stage import run
from newsfuse.views import Views

log = logging.getLogger("newsfuse")


def evaluate(params: Params, registry: Registry) -> None:
    """Write metrics/evaluate/metrics.json, metrics/evaluate/plots/ and data/<dataset>/predictions/."""
    data, plots = Path("data", params.dataset), Path("metrics/evaluate/plots")
    files = [data / split / "news.tsv" for split in ("train", "dev")]
    news = News.read(*files)
    train, dev = (Behaviors.read(data / split / "behaviors.tsv", news) for split in ("train", "dev"))

    checkpoint = Checkpoint.read(data / "model")
    needs, history = checkpoint.architecture.needs(registry), checkpoint.architecture.history
    inputs = Artifacts.read(data, needs | {Need.EMBEDDINGS}).inputs(news, checkpoint.known, files)

    def model(tables: Inputs) -> Recommender:
        return checkpoint.model(registry, tables).to(device())

    views, seen = Views.of(model(inputs), dev.mentioned()), checkpoint.known.news.numbers(news.ids) > 0
    scores = views.scorer(history).candidates(dev)
    evaluation = Evaluation(dev, scores, seen, news.frame, drop_unknown=params.evaluate.drop_unknown)

    tables = (train, dev, evaluation.categories, inputs.embeddings.numpy())
    metrics = evaluation.metrics() | lists.metrics(scores, *tables)
    others = baselines(*tables, history=history, seed=params.seed)
    if params.evaluate.cold_mask:
        mask = ColdMask.draw(dev.candidate_news, seen, params.evaluate.cold_mask, params.seed)
        tells = mask.tells(inputs, needs)
        others["masked"] = score(model(mask.applied(inputs)), dev, history).candidates if tells else scores
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
