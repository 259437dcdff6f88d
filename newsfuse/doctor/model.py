"""The model: its files, and what it knows by name."""

from collections.abc import Iterator, Sequence

import numpy as np

from newsfuse.assembly import Architecture
from newsfuse.behaviors import Behaviors
from newsfuse.checkpoint import Checkpoint
from newsfuse.doctor.finding import FIRST, Finding, failure, ok
from newsfuse.doctor.tree import Tree
from newsfuse.doctor.whole import again, currency, folder, settings, usable
from newsfuse.errors import IntegrityError
from newsfuse.split import split
from newsfuse.vocabularies import Vocabularies
from newsfuse.words import Words

STAGE = "train"


def model(tree: Tree) -> Iterator[Finding]:
    """Whether it is whole, current, finite, and knows the articles that train mentions."""
    if not (yield from usable(tree, STAGE)) or (params := tree.params) is None:
        return
    asked = {**Architecture.of(params).to_json(), "seed": params.seed, **params.train.model_dump(mode="json")}
    made = settings(tree, STAGE)
    made = {**made.get("architecture", {}), **made.get("training", {})}
    comparable = yield from currency(tree, STAGE, asked, made)
    checkpoint = Checkpoint.read(folder(tree, STAGE))
    if bad := [name for name, tensor in checkpoint.weights.items() if not tensor.isfinite().all()]:
        told = f"{folder(tree, STAGE)}: weights that are no numbers: {', '.join(bad[:FIRST])}"
        yield failure(IntegrityError, told, again(tree, STAGE))
    if comparable:
        yield from _names(tree, checkpoint)


def _names(tree: Tree, checkpoint: Checkpoint) -> Iterator[Finding]:
    """Articles, categories and subcategories by number, as train mentions them: a shift would swap their weights."""
    lessons, path = _lessons(tree), folder(tree, STAGE)
    expected = Vocabularies.of(tree.train_news, lessons.mentioned(), None)
    for name in ("news", "categories", "subcategories"):
        there, fresh = getattr(checkpoint.known, name), getattr(expected, name)
        if not there.words.equals(fresh.words):
            told = f"{path}/{name}.txt: not what train mentions, first {', '.join(_differing(there, fresh))}"
            yield failure(IntegrityError, told, again(tree, STAGE))
            return
    yield ok(f"{path}: knows the {len(expected.news):,} articles that train mentions, in their order")


def _lessons(tree: Tree) -> Behaviors:
    """What it learned from: all days, or those before validation."""
    everything = tree.behaviors("train", tree.train_news)
    return everything if settings(tree, STAGE).get("training", {}).get("refit") else split(everything)[0]


def _differing(there: Words, fresh: Words) -> Sequence[str]:
    n = min(len(there), len(fresh))
    first = int(np.argmax((there.words[:n] != fresh.words[:n]).to_numpy())) if n else 0
    same = n == 0 or there.words[:n].equals(fresh.words[:n])
    start, longer = (n, there if len(there) > n else fresh) if same else (first, there)
    return longer.words[start : start + FIRST].to_list()
