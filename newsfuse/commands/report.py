"""`newsfuse report`: a run as a page to show to somebody."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from newsfuse.errors import ParamsError
from newsfuse.stage import guarded
from newsfuse.terminal import tell

EXTRA = ("altair", "jinja2", "markupsafe", "vl_convert")
"""Packages that only a report needs."""


def report(
    run: Annotated[
        str, typer.Argument(help="'workspace', a name or commit that dvc exp show prints, or a predictions folder.")
    ] = "workspace",
    *,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("report.html"),
    against: Annotated[
        list[str] | None, typer.Option(help="Another run to set beside it; may be given several times.")
    ] = None,
) -> None:
    """Write one HTML file about a run: settings, metrics, slices, encoders, curves, examples."""
    guarded(lambda: _write(run, out, against or []), verbose=False)


def _write(run: str, out: Path, against: Sequence[str]) -> None:
    try:
        from newsfuse.report.page import write  # noqa: PLC0415 - it may not be installed, and other commands need not wait
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        message = f"a report needs the package {error.name}. Run: pip install 'newsfuse[report]'"
        raise ParamsError(message) from error
    write(run, Path(), out, against)
    tell(f"{out}: written; it opens in any browser, without a network")


COMMANDS = (report,)
