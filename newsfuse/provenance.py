"""What is known of a run beside its predictions: the data that its stages read, and what it cost."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from newsfuse.errors import DataError, NewsfuseError
from newsfuse.revisions import opened
from newsfuse.runs import Sort, sort_of
from newsfuse.times import minutes

LOCK, PAID = "dvc.lock", "metrics/embed.json"


@dataclass(frozen=True)
class Provenance:
    """Where a run comes from. A folder of predictions tells nothing of it."""

    name: str
    data: Mapping[str, tuple[str, str]]
    """Path and md5, by the path inside its data set, of what stages read and none of them made."""
    dollars: float | None
    """What its embed stage paid; None where not known."""
    minutes: float | None
    """How long its stages took when what they made was first made; None where not known."""

    @classmethod
    def read(cls, name: str, root: Path) -> "Provenance":
        """Of the run that `name` names as `Run.read` has it, which must be there. Raises ParamsError if it is not."""
        with _reader(name, root) as text:
            return cls(name, _data(_parsed(text, LOCK)), _dollars(_parsed(text, PAID)), minutes(text, root))

    def refuse_other_data(self, first: "Provenance") -> None:
        """Raises DataError, naming the first file, where the stages of two runs are known to have read other data."""
        for place in sorted(self.data.keys() & first.data.keys()):
            (mine, my_md5), (theirs, their_md5) = self.data[place], first.data[place]
            if my_md5 != their_md5:
                found = f"'{self.name}' read {mine} (md5 {my_md5}), '{first.name}' {theirs} (md5 {their_md5})"
                message = f"{found}; only runs on the same data compare. Run one of them again on the other's data"
                raise DataError(message)


@contextmanager
def _reader(name: str, root: Path) -> Iterator[Callable[[str], str]]:
    """What reads a file of the run's state of the project; it raises OSError or ParamsError where there is none."""
    match sort_of(name, root):
        case Sort.WORKSPACE:
            yield lambda path: (root / path).read_text(encoding="utf-8")
        case Sort.FOLDER:
            yield _nothing
        case Sort.REVISION:
            with opened(name, root) as revision:
                yield revision.text


def _nothing(path: str) -> str:
    raise FileNotFoundError(path)


def _parsed(text: Callable[[str], str], path: str) -> dict[str, Any]:
    """The file's mapping, {} where there is none that can be read: what it would say is then not known."""
    try:
        found = yaml.safe_load(text(path))  # as for JSON that newsfuse wrote: it is YAML too
    except (NewsfuseError, OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _data(lock: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    stages = list(lock.get("stages", {}).values())
    made = {out["path"] for stage in stages for out in stage.get("outs", ())}
    read = [dep for stage in stages for dep in stage.get("deps", ()) if dep["path"] not in made]
    parts = [(PurePosixPath(dep["path"]).parts, dep) for dep in read]
    # data/<dataset>/dev/news.tsv: the same data may have another name elsewhere
    return {"/".join(path[2:]): (dep["path"], dep["md5"]) for path, dep in parts if path[0] == "data" and "md5" in dep}


def _dollars(paid: Mapping[str, Any]) -> float | None:
    found = paid.get("dollars")
    return float(found) if isinstance(found, int | float) else None
