"""evaluate: dev is scored, once, by the trained model."""

import json
import logging
from pathlib import Path

from newsfuse.artifact import write_text
from newsfuse.assembly import Artifacts
from newsfuse.behaviors import Behaviors
from newsfuse.checkpoint import Checkpoint
from newsfuse.device import device
from newsfuse.evaluation import Evaluation
from newsfuse.news import News
from newsfuse.params import Params
from newsfuse.registry import Registry
from newsfuse.scoring import score
from newsfuse.stage import run

log = logging.getLogger("newsfuse")


def evaluate(params: Params, registry: Registry) -> None:
    """Write metrics/evaluate/metrics.json and data/<dataset>/predictions/."""
    data = Path("data", params.dataset)
    files = [data / split / "news.tsv" for split in ("train", "dev")]
    news = News.read(*files)
    dev = Behaviors.read(data / "dev" / "behaviors.tsv", news)

    checkpoint = Checkpoint.read(data / "model")
    artifacts = Artifacts.read(data, checkpoint.architecture.needs(registry))
    model = checkpoint.model(registry, artifacts.inputs(news, checkpoint.known, files)).to(device())
    scored = score(model, dev, checkpoint.architecture.history)

    warm = checkpoint.known.news.numbers(news.ids) > 0
    evaluation = Evaluation(dev, scored.candidates, (dev.candidate_news >= 0) & warm[dev.candidate_news])
    metrics = evaluation.metrics(drop_unknown=params.evaluate.unknown_candidates == "drop")
    evaluation.write(data / "predictions", news.ids, checkpoint.architecture.to_json())
    write_text(Path("metrics/evaluate/metrics.json"), json.dumps(metrics, indent=1) + "\n")
    if evaluation.is_constant:
        log.warning("the model gives all candidates of an impression the same score: it ranks nothing")


if __name__ == "__main__":
    run(evaluate)
