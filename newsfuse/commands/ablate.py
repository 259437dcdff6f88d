"""`newsfuse ablate`: what each encoder is worth, by training without it."""

from pathlib import Path
from typing import Annotated

import typer

from newsfuse.stage import guarded


def ablate(
    *,
    leave_one_out: Annotated[
        bool,
        typer.Option("--leave-one-out", help="All encoders that are on, and each left out once; not every subset."),
    ] = False,
    fusions: Annotated[str, typer.Option(help="Such as late,gate, instead of the one in params.yaml.")] = "",
    seeds: Annotated[str, typer.Option(help="Such as 0,1,2, instead of the one in params.yaml.")] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set-param", "-S", help="Another setting, as for dvc exp run; may be repeated."),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Runs side by side; those of DVC 3.67 get into each other's way.")
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what is done and what would run; queue nothing.")
    ] = False,
    md: Annotated[Path | None, typer.Option(help="Write Markdown; - is standard output.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write CSV, all digits; - is standard output.")] = None,
) -> None:
    """Train every subset of the encoders that are on, through DVC's queue; what is done already is not run again."""
    from newsfuse.ablation import ablate as door  # noqa: PLC0415 - other commands need not wait for polars
    from newsfuse.ablation.variants import Asked  # noqa: PLC0415 - see above

    files = {form: path for form, path in {"md": md, "csv": csv}.items() if path}

    def work() -> None:
        asked = Asked.parse(fusions, seeds, settings or (), leave_one_out=leave_one_out)
        if dry_run:
            door.preview(asked, Path(), files)
        else:
            door.ablate(asked, Path(), files, jobs=jobs)

    guarded(work, verbose=False)


COMMANDS = (ablate,)
