"""The page: one HTML file that asks for nothing from anywhere and runs no script."""

import base64
import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from newsfuse import outfile
from newsfuse.report.ablation import ablation
from newsfuse.report.evidence import Evidence, gathered
from newsfuse.report.examples import examples
from newsfuse.report.explanation import explanation
from newsfuse.report.results import everything, results
from newsfuse.report.section import AbsentError, Section, legible
from newsfuse.report.setup import setup
from newsfuse.report.slices import slices
from newsfuse.report.training import training


def write(name: str, root: Path, out: Path, against: Sequence[str]) -> None:
    """Write the page on the run `name` of the project at `root`. Raises ParamsError, IntegrityError, StorageError."""
    with ExitStack() as stack:
        evidence, *others = (stack.enter_context(gathered(each, root)) for each in dict.fromkeys([name, *against]))
        page = rendered(evidence.name, summary(evidence), sections(evidence, others, root))
    outfile.write(out, page)


def sections(evidence: Evidence, others: Sequence[Evidence], root: Path) -> list[Section]:
    """All there is to say, in order."""
    return [
        results(evidence),
        ablation(evidence, others),
        slices(evidence),
        explanation(evidence),
        training(evidence),
        examples(evidence, root),
        setup(evidence, root),
        everything(evidence),
    ]


def summary(evidence: Evidence) -> str:
    """What was run, in a line."""
    try:
        encoders, fusion = ", ".join(evidence.encoders), evidence.params.get("fusion", "")
    except AbsentError:
        return "A folder of predictions; how they were made is not known."
    commit = f" Commit {evidence.commit}." if evidence.commit else ""
    return f"Data set {evidence.dataset}; encoders {encoders}; fusion {fusion}.{commit}"


def rendered(name: str, summary: str, sections: Sequence[Section]) -> str:
    """The HTML. Every text in it is escaped, and no control character of it is left."""
    environment = Environment(
        loader=PackageLoader("newsfuse.report", ""), autoescape=True, finalize=_finished,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style = resources.files("newsfuse.report").joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    template = environment.get_template("page.html.jinja")
    return template.render(name=name, summary=summary, sections=sections, style=Markup(style), style_sha256=digest)  # noqa: S704 - our own file


def _finished(value: object) -> object:
    return value if isinstance(value, Markup) else legible(str(value))
