"""What commands print: lines to read and to copy, tables, dollars."""

from rich.console import Console
from rich.table import Table

from newsfuse.errors import printable


def tell(text: str) -> None:
    """Print a line that no terminal's width breaks: it may have a command to copy."""
    _console().print(printable(text), soft_wrap=True)


def show(table: Table) -> None:
    """Print a table."""
    _console().print(table)


def width() -> int:
    """Columns of the terminal; 80 where there is none."""
    return _console().width


def dollars(usd: float) -> str:
    """Tiny amounts too: a thousand titles cost hundredths of a cent."""
    return f"${usd:,.4f}"


def _console() -> Console:
    # not in rich's markup: a provider's words and file names are shown as they are
    return Console(highlight=False, markup=False, emoji=False)
