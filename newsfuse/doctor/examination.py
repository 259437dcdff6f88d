"""The examination: every check in its turn, whatever became of those before it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from newsfuse.doctor import books, cache, dataset, disk, leak, loss, machine, model, network, scores, settings, vectors
from newsfuse.doctor.finding import Finding, failure
from newsfuse.doctor.tree import Tree
from newsfuse.doctor.whole import of
from newsfuse.errors import NewsfuseError, StorageError, place

Check = Callable[[Tree], Iterator[Finding]]


@dataclass(frozen=True)
class Subject:
    """What some checks have in common."""

    name: str
    checks: tuple[Check, ...]
    needs: Literal["", "settings", "data"] = ""
    """What has to be there, or they are left out: settings that can be read, or all files of the data set as well."""

    def left_out(self, tree: Tree) -> bool:
        """Whether another subject has told already what is missing for this one."""
        return bool(self.needs and tree.params is None) or (self.needs == "data" and bool(tree.missing))


SUBJECTS = (
    Subject("machine", (machine.versions, machine.computing, machine.graphs)),
    Subject("settings", (settings.settings, settings.bill)),
    Subject("ledger", (books.ledger,)),
    Subject("DVC", (cache.dvc,)),
    Subject("disk space", (disk.disks,)),
    Subject("data set", (dataset.files,), "settings"),
    Subject("impressions", (dataset.mentions, dataset.histories), "data"),
    Subject("train and dev", (leak.shared_impressions, leak.order, leak.clicked_before, leak.read_before), "data"),
    Subject("embeddings", (vectors.vectors,), "data"),
    Subject("graph", (network.graph,), "data"),
    Subject("model", (model.model, loss.losses), "data"),
    Subject("predictions", (scores.predictions,), "data"),
)


def examine(root: Path) -> Iterator[tuple[str, Finding]]:
    """(subject, finding) as they are found, for the project at `root`. Writes nothing, sends nothing."""
    tree, told = Tree(root), set[str]()
    for subject in (each for each in SUBJECTS if not each.left_out(tree)):
        for check in subject.checks:
            for finding in _guarded(check, tree):
                if not finding.exit_code or finding.found not in told:  # one wrong line stops many checks
                    told.add(finding.found)
                    yield subject.name, finding


def _guarded(check: Check, tree: Tree) -> Iterator[Finding]:
    """What the check finds; what it raises is a failure, and no other check's business."""
    try:
        yield from check(tree)
    except NewsfuseError as error:
        yield of(error)
    except OSError as error:
        yield failure(StorageError, f"{check.__name__}: {error}", "mend the permissions, or free some space")
    except Exception as error:  # noqa: BLE001 - a fault of ours must not hide what the others find
        told = f"{check.__name__} could not be checked: {type(error).__name__}: {error} ({place(error)})"
        yield failure(NewsfuseError, told, "this is a fault of newsfuse; please report it with this line")
