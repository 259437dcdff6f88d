"""Experiments that are done, by name and under whatever commit: how well each ranks, and what it cost."""

from collections.abc import Iterable
from dataclasses import dataclass
from shlex import join
from typing import TYPE_CHECKING, Any

from newsfuse.errors import IntegrityError
from newsfuse.experiments import COST, RESULTS, Clock

if TYPE_CHECKING:
    from dvc.repo import Repo


@dataclass(frozen=True)
class Finished:
    """The results of an experiment."""

    auc: float
    ndcg10: float
    dollars: float | None
    """None where not known, as the next."""
    minutes: float | None


def finished(repo: "Repo", names: Iterable[str]) -> dict[str, Finished]:
    """Those of the `names` that are experiments, with their results.

    Raises IntegrityError for one whose metrics are gone, since DVC runs no other of its name.
    """
    from dvc.repo.experiments.collect import collect_rev  # noqa: PLC0415 - half a second, as in newsfuse.revisions
    from dvc.repo.experiments.utils import exp_refs  # noqa: PLC0415 - see above

    wanted, clock = set(names), Clock(repo)
    revisions = {each.name: repo.scm.get_ref(str(each)) for each in exp_refs(repo.scm) if each.name in wanted}
    states = {name: collect_rev(repo, revision) for name, revision in revisions.items()}
    metrics = {name: _metrics(state.data.metrics if state.data else {}) for name, state in states.items()}
    if gone := sorted(name for name, found in metrics.items() if not {"auc", "ndcg10"} <= found.keys()):
        forget = join(["dvc", "exp", "remove", *gone])
        message = (
            f"{', '.join(gone)}: the metrics are in neither DVC's cache nor a remote. To run again, first: {forget}"
        )
        raise IntegrityError(message)
    return {
        name: Finished(found["auc"], found["ndcg10"], found.get("dollars"), clock.minutes(states[name]))
        for name, found in metrics.items()
    }


def _metrics(files: dict[str, Any]) -> dict[str, Any]:
    """Of evaluate and embed, {} where they cannot be read."""
    found = [files.get(path, {}).get("data") for path in (COST, RESULTS)]
    return {name: value for each in found if isinstance(each, dict) for name, value in each.items()}
