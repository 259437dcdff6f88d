"""Free space on every disk that stages write to, beside what they will need of it."""

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from newsfuse import entities
from newsfuse.doctor import cache
from newsfuse.doctor.finding import MEGABYTE, Finding, ok, warning
from newsfuse.doctor.tree import SPLITS, Tree
from newsfuse.environment import Environment
from newsfuse.paid.ledger import location
from newsfuse.params import Params
from newsfuse.plugin import Cost, Embedder
from newsfuse.root import project_root

NUMBER_BYTES = 4
"""Of a vector, and of the model's weights."""
ROW_BYTES = 512
"""Of an article beside its vector, in all artifacts together: ids, edges, weights in the fusion."""
PLAIN_MODEL = 16_000_000
"""Bytes of a model that knows no article by name, with its checkpoints."""
STATES = 4
"""A trained row of weights stands in the model and, with two moments, in a checkpoint."""
SPARE = 64_000_000
"""Bytes beside artifacts: metrics, DVC's own notes, Git's objects, logs."""
PIECE = 1 << 20
TEMPORARY = "temporary files"


@dataclass(frozen=True)
class Place:
    """A folder that is written to, or will be."""

    what: str
    path: Path
    n_bytes: float
    """What stages will put there."""

    @property
    def nearest(self) -> Path:
        """Itself, or the folder in which it will be made."""
        return next(each for each in (self.path, *self.path.parents) if each.exists())


def disks(tree: Tree) -> Iterator[Finding]:
    """A line for each disk, with all that will be put there."""
    found: defaultdict[int, list[Place]] = defaultdict(list)
    for place in _places(tree):
        found[place.nearest.stat().st_dev].append(place)
    for places in found.values():
        yield _line(places)


def _line(places: list[Place]) -> Finding:
    usage, needed = shutil.disk_usage(places[0].nearest), sum(each.n_bytes for each in places) + SPARE
    free = f"{usage.free / MEGABYTE:,.0f} MB of {usage.total / MEGABYTE:,.0f} MB are free"
    told = f"disk of {', '.join(each.what for each in places)}: {free}, stages may need {needed / MEGABYTE:,.0f} MB"
    if usage.free >= needed:
        return ok(told)
    if all(each.what == TEMPORARY for each in places):
        return warning(told, 'free some space, or: export TMPDIR="$HOME"')
    return warning(
        told, "free some space there; what no branch needs of DVC's cache: dvc gc --workspace --all-branches"
    )


def _places(tree: Tree) -> Iterator[Place]:
    made = artifacts(tree, tree.params) if tree.params and not tree.missing else {}
    total, environment, root = sum(made.values()), Environment.read(), project_root()
    yield Place("data/", (tree.root / "data").absolute(), total)
    if root:
        behaviors = sum(path.stat().st_size for path in tree.data.glob("*/behaviors.tsv"))
        yield Place("DVC's cache", cache.location(root), total)  # a copy, where the disk cannot share blocks
        yield Place("parsed files", root / ".newsfuse", min(behaviors, environment.cache_mb * MEGABYTE))
    # in its log, then in its file
    yield Place("the ledger", location(environment).parent, 2 * made.get("embeddings", 0) if _is_bought(tree) else 0)
    # not `tempfile.gettempdir`, which writes to find out, and fails on the full disk that is to be told of
    yield Place(TEMPORARY, Path(os.environ.get("TMPDIR") or "/tmp"), 0)  # noqa: S108 - nothing is written


def artifacts(tree: Tree, params: Params) -> Mapping[str, float]:
    """About how many bytes each stage will write, rather too many. The files of the data set must be there."""
    articles = sum(_lines(tree.file(split, "news.tsv")) for split in SPLITS)
    vectors = sum(path.stat().st_size for path in tree.data.glob(f"*/{entities.FILE}"))
    by_name = articles * params.model.dim * NUMBER_BYTES * STATES if "id" in params.chosen_encoders else 0
    return {
        "embeddings": articles * len(params.embed.texts) * params.embed.dimensions * NUMBER_BYTES,
        "graph": articles * ROW_BYTES + vectors,  # numbers take more room in text
        "model": PLAIN_MODEL + by_name,
        "predictions": tree.file("dev", "behaviors.tsv").stat().st_size,  # an id and its label take as much there
    }


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(piece.count(b"\n") for piece in iter(lambda: file.read(PIECE), b"")) + 1


def _is_bought(tree: Tree) -> bool:
    """Whether vectors go through the ledger."""
    if tree.registry is None or tree.params is None:
        return False
    return tree.registry.load(Embedder, tree.params.embed.provider).cost is not Cost.NOTHING
