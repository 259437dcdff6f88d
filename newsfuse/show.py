"""The list of experiments as a table that fits a terminal: what differs, how well it ranks, what it cost."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.table import Table

from newsfuse import sheet, terminal
from newsfuse.errors import ParamsError, nearest, printable
from newsfuse.experiments import DONE, Experiment, Kind, listed
from newsfuse.ranking import METRICS

SHORTEST_NAME = 12
"""Characters of an experiment's name that are shown, whatever else there is to show."""
LONGEST_VALUE = 16
BEST_HIGH = {name: METRICS[name] for name in ("auc", "ndcg10")}
BEST_LOW = ("dollars", "minutes")
ABOVE = (Kind.WORKSPACE, Kind.HEAD)
"""What is listed first, whatever the order."""


@dataclass(frozen=True)
class Column:
    """One thing about every experiment."""

    name: str
    """In full: `train.lr`."""
    header: str
    """As short as is clear: `lr`."""
    values: Sequence[Any]
    """One for each experiment, None where there is none."""
    written: Callable[[Any], str]
    is_number: bool = True

    @property
    def cells(self) -> list[str]:
        """The values as they are shown."""
        return ["-" if value is None else _line(self.written(value)) for value in self.values]

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return max(map(cell_len, [self.header, *self.cells]))


def show(root: Path, *, all_commits: bool, sort: str, form: str) -> None:
    """Print the experiments of the project at `root`; `form`: "table", "md" or "csv".

    Raises ParamsError where there are none, or nothing is called `sort`.
    """
    experiments = ordered(listed(root, all_commits=all_commits), sort)
    columns = [*results(experiments), *settings(experiments)]
    if form == "table":
        _print(experiments, columns)
    else:
        terminal.tell({"md": markdown, "csv": comma_separated}[form](experiments, columns).rstrip("\n"))


def ordered(experiments: Sequence[Experiment], sort: str) -> list[Experiment]:
    """The workspace and HEAD, then the others from best to worst, or by a setting; unknown ones last."""
    name, is_setting = _sorted_by(experiments, sort)
    first = [each for each in experiments if each.kind in ABOVE]
    others = [each for each in experiments if each.kind not in ABOVE]
    known = [each for each in others if _value(each, name) is not None]
    known.sort(key=lambda each: _rank(_value(each, name)), reverse=not is_setting and name not in BEST_LOW)
    return [*first, *known, *(each for each in others if _value(each, name) is None)]


def _sorted_by(experiments: Sequence[Experiment], sort: str) -> tuple[str, bool]:
    """The name of the metric or setting that `sort` means, which may be a header, and whether it is a setting."""
    columns = settings(experiments)
    headers = {column.header: column.name for column in columns} | {header: name for name, header in BEST_HIGH.items()}
    name = headers.get(sort, sort)
    if any(name in each.params for each in experiments):
        return name, True
    if name in {*BEST_HIGH, *BEST_LOW} or any(name in each.metrics for each in experiments):
        return name, False
    known = [*BEST_HIGH, *BEST_LOW, *(column.name for column in columns)]
    message = f"--sort {sort}: no metric or setting has this name.{nearest(sort, known)} Shown: {', '.join(known)}"
    raise ParamsError(message)


def _value(experiment: Experiment, name: str) -> Any:  # noqa: ANN401 - what a setting is
    """None where there is none, or one that is no number."""
    found = experiment.minutes if name == "minutes" else experiment.metrics.get(name, experiment.params.get(name))
    return None if isinstance(found, float) and math.isnan(found) else found


def _rank(value: object) -> tuple[bool, float, str]:
    """Numbers by size, before everything else by its letters."""
    is_number = isinstance(value, int | float)
    return not is_number, float(value) if isinstance(value, int | float) else 0.0, str(value)


def results(experiments: Sequence[Experiment]) -> list[Column]:
    """How well each ranks, and what it cost."""

    def column(name: str, header: str, written: Callable[[Any], str]) -> Column:
        values = [_value(each, name) for each in experiments]
        return Column(name, header, [value if isinstance(value, int | float) else None for value in values], written)

    columns = [column(name, header, lambda value: f"{value:.4f}") for name, header in BEST_HIGH.items()]
    columns.append(column("dollars", "dollars", lambda value: f"{value:.4f}"))
    return [*columns, column("minutes", "minutes", lambda value: f"{value:.1f}" if value >= 1 else f"{value:.2f}")]


def settings(experiments: Sequence[Experiment]) -> list[Column]:
    """The settings that are not the same in all, in the order of params.yaml."""
    readable = [each for each in experiments if each.params]
    names = list(dict.fromkeys(name for each in readable for name in each.params))
    differing = [name for name in names if len({repr(each.params.get(name)) for each in readable}) > 1]
    headers = shortest(differing, taken=["experiment", "state", *BEST_HIGH.values(), *BEST_LOW])
    return [
        Column(name, _line(header), [each.params.get(name) for each in experiments], _written, is_number=False)
        for name, header in zip(differing, headers, strict=True)
    ]


def shortest(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """The fewest last parts of each dotted name that no other one ends with; the whole name where there are none."""

    def ending(name: str) -> str:
        parts = name.split(".")
        endings = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        alone = (each for each in endings if sum(f".{other}".endswith(f".{each}") for other in [*names, *taken]) == 1)
        return next(alone, name)

    return [ending(name) for name in names]


def _line(text: str) -> str:
    return printable(text).replace("\n", " ")


def _written(value: object) -> str:
    """As YAML has it, more or less."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(_written, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def shortened(text: str, width: int) -> str:
    """`text` without its middle, where names of one series differ least; at most `width` columns of a terminal."""
    if cell_len(text) <= width:
        return text
    head, tail = width // 2, width - width // 2 - 1
    beginning = next(text[:end] for end in range(len(text), -1, -1) if cell_len(text[:end]) <= head)
    return f"{beginning}…{next(text[start:] for start in range(len(text) + 1) if cell_len(text[start:]) <= tail)}"


def _names(experiments: Sequence[Experiment]) -> Column:
    labels = [each.name + (f" ({each.kind})" if each.kind in {Kind.HEAD, Kind.COMMIT} else "") for each in experiments]
    return Column("experiment", "experiment", labels, str, is_number=False)


def _states(experiments: Sequence[Experiment]) -> list[Column]:
    """None where all is well."""
    states = [each.state for each in experiments]
    return [Column("state", "state", states, str, is_number=False)] if {*states} != {DONE} else []


def _print(experiments: Sequence[Experiment], columns: Sequence[Column]) -> None:
    shown, left_out = fitted(_names(experiments), [*_states(experiments), *columns], terminal.width())
    terminal.show(table(experiments, shown))
    if left_out:
        terminal.tell(f"No room for {', '.join(column.name for column in left_out)}: use a wider terminal, or --csv")


def table(experiments: Sequence[Experiment], columns: Sequence[Column]) -> Table:
    """A row for each, with a gap below the workspace and HEAD."""
    drawn = sheet.grid()
    for column in columns:
        drawn.add_column(column.header, justify="right" if column.is_number else "left", no_wrap=True)
    for each, row in zip(experiments, zip(*(column.cells for column in columns), strict=True), strict=True):
        drawn.add_row(*row, end_section=each.kind is ABOVE[-1])
    return drawn


def fitted(names: Column, columns: Sequence[Column], width: int) -> tuple[list[Column], list[Column]]:
    """The columns that fit, names shortened as far as need be, and those at the right that do not."""
    columns = [_compact(each) for each in columns]
    count, least = len(columns), min(SHORTEST_NAME, names.width)
    while count and least + sum(sheet.GAP + each.width for each in columns[:count]) > width:
        count -= 1
    room = max(least, width - sum(sheet.GAP + each.width for each in columns[:count]))
    labels = replace(names, values=[shortened(label, room) for label in names.cells])
    return [labels, *columns[:count]], columns[count:]


def _compact(column: Column) -> Column:
    cells = [shortened(cell, LONGEST_VALUE) for cell in column.cells]
    return replace(column, header=shortened(column.header, LONGEST_VALUE), values=cells, written=str)


def markdown(experiments: Sequence[Experiment], columns: Sequence[Column]) -> str:
    """A table for a pull request, nothing shortened."""
    columns = [_names(experiments), *_states(experiments), *columns]
    rows = zip(*(column.cells for column in columns), strict=True)
    return sheet.markdown_table(
        [column.header for column in columns], rows, [not column.is_number for column in columns]
    )


def comma_separated(experiments: Sequence[Experiment], columns: Sequence[Column]) -> str:
    """All digits, full names, and nothing where something is not known."""
    values = zip(*(column.values for column in columns), strict=True)
    rows = [
        [each.name, str(each.kind), each.state, *map(_plain, row)]
        for each, row in zip(experiments, values, strict=True)
    ]
    return sheet.comma_separated(["experiment", "kind", "state", *(column.name for column in columns)], rows)


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, float) else _written(value)
