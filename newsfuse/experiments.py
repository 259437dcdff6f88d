"""What `dvc exp show` lists: the workspace, commits and their experiments, with settings and results.

From DVC's own structures, not from its table. Nothing is checked out, nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newsfuse.dotted import dotted
from newsfuse.errors import ParamsError
from newsfuse.revisions import SHORT, Revision
from newsfuse.runs import WORKSPACE
from newsfuse.times import FOLDERS, minutes

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.repo.experiments.serialize import ExpRange, ExpState

PARAMS, COST, RESULTS = "params.yaml", "metrics/embed.json", "metrics/evaluate/metrics.json"


class Kind(StrEnum):
    """What a line of the list is."""

    WORKSPACE = "workspace"
    HEAD = "HEAD"
    COMMIT = "commit"
    EXPERIMENT = "experiment"


DONE, UNREADABLE = "done", "unreadable"
"""States beside those that DVC's queue has: queued, running, failed."""


@dataclass(frozen=True)
class Experiment:
    """The workspace, a commit or an experiment."""

    name: str
    """`workspace`, a branch, a tag, an experiment's name, or the start of a commit's hash."""
    kind: Kind
    state: str
    """One of done, queued, running, failed; or unreadable, where dvc.yaml or params.yaml is broken."""
    params: Mapping[str, Any]
    """Settings by their path in params.yaml, such as `train.lr`."""
    metrics: Mapping[str, Any]
    """Of evaluate, and `dollars` of embed; none of one that is not done."""
    minutes: float | None
    """What its stages took, None where that is not known."""


def listed(root: Path, *, all_commits: bool) -> list[Experiment]:
    """The workspace, HEAD and its experiments; with `all_commits` also all other commits that have results.

    Raises ParamsError where there is no DVC project with Git, or no experiment.
    """
    from dvc.exceptions import NotDvcRepoError  # noqa: PLC0415 - half a second, as in newsfuse.revisions
    from dvc.repo import Repo  # noqa: PLC0415 - see above
    from dvc.scm import NoSCMError  # noqa: PLC0415 - see above

    try:
        with Repo(str(root)) as repo:
            states = repo.experiments.show(all_commits=all_commits)
            _require_experiments(states, all_commits=all_commits)
            return list(_experiments(states, repo.scm.get_rev(), Clock(repo).minutes))
    except (NotDvcRepoError, NoSCMError) as error:
        message = f"{root.resolve()}: is in no DVC project with Git, which alone has experiments"
        raise ParamsError(message) from error


def _require_experiments(states: list[ExpState], *, all_commits: bool) -> None:
    if not any(state.experiments for state in states):
        where = "in any commit" if all_commits else "at HEAD; --all-commits also shows those of other commits"
        message = f"no experiment is {where}. Run one, such as: dvc exp run -S fusion=gate"
        raise ParamsError(message)


def _experiments(states: list[ExpState], head: str, took: Took) -> Iterator[Experiment]:
    kinds = {WORKSPACE: Kind.WORKSPACE, head: Kind.HEAD}
    for state in states:
        commit = _experiment(state, kinds.get(state.rev, Kind.COMMIT), DONE if state.data else UNREADABLE, took)
        # not: commits without results, such as those from before there was a pipeline
        if commit.kind is not Kind.COMMIT or state.experiments or commit.metrics:
            yield commit
        for each in state.experiments or []:
            yield _experiment(each.revs[0], Kind.EXPERIMENT, _state(each), took)


Took = Callable[["ExpState"], float | None]


def _state(each: ExpRange) -> str:
    if each.executor and each.executor.state != "success":
        return each.executor.state
    return DONE if each.revs[0].data else UNREADABLE


def _experiment(state: ExpState, kind: Kind, condition: str, took: Took) -> Experiment:
    data = state.data
    # of one that waits, runs or failed DVC has the metrics of the commit that it started from
    # (https://github.com/treeverse/dvc/issues/9787)
    metrics = {**_values(data.metrics, COST), **_values(data.metrics, RESULTS)} if data and condition == DONE else {}
    return Experiment(
        state.name or (state.rev if state.rev == WORKSPACE else state.rev[:SHORT]),
        kind,
        condition,
        _values(data.params, PARAMS) if data else {},
        metrics,
        took(state) if condition == DONE else None,
    )


def _values(files: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The values of a file by their path in it; nothing where the file is not to be had."""
    found = files.get(path, {}).get("data")
    return dict(dotted(found)) if isinstance(found, dict) else {}


class Clock:
    """How long the stages of each state took; of states with the same artifacts only one is read."""

    def __init__(self, repo: Repo) -> None:
        self.repo, self.root = repo, Path(repo.root_dir)
        self._known: dict[tuple[str | None, ...], float | None] = {}

    def minutes(self, state: ExpState) -> float | None:
        """None where it is not known."""
        if state.rev == WORKSPACE:
            return minutes(lambda path: (self.root / path).read_text(encoding="utf-8"), self.root)
        made = self._made(state)
        if made not in self._known:
            self._known[made] = self._read(state.rev) if all(made) else None
        return self._known[made]

    def _made(self, state: ExpState) -> tuple[str | None, ...]:
        """DVC's hash of each stage's artifact, None where that stage has not run."""
        dataset = _values(state.data.params, PARAMS).get("dataset") if state.data else None
        outs = state.data.outs if state.data else {}
        paths = (f"data/{dataset}/{folder}" for folder in FOLDERS.values())
        return tuple(outs[path].hash if path in outs else None for path in paths)

    def _read(self, commit: str) -> float | None:
        with self.repo.switch(commit):
            return minutes(Revision(commit, commit, self.repo).text, self.root)
