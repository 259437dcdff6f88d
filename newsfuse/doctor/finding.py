"""One line of an examination: all is well, look at this, or this is wrong."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from newsfuse.errors import (
    AuthenticationError,
    BusyError,
    DataError,
    IntegrityError,
    NewsfuseError,
    ParamsError,
    PluginError,
    ProviderError,
    QuotaError,
    StorageError,
)

WORST_FIRST = (
    IntegrityError,  # a result that is there may be wrong, and nothing else would tell
    DataError,  # so may every result to come
    StorageError,  # from here on, the next run fails by itself
    PluginError,
    ParamsError,
    AuthenticationError,
    QuotaError,
    ProviderError,
    BusyError,
    NewsfuseError,  # anything else: a check itself failed
)
"""Classes of faults; the first of them that was found gives the exit code."""
FIRST = 3
"""How many of a kind a line names."""
MEGABYTE = 1e6


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Finding:
    """What was found, and what to do about it."""

    level: Level
    found: str
    fix: str = ""
    """What to type or to change; "" where all is well, or where `found` says it already."""
    exit_code: int = 0
    """Of a failure: that of its class."""


def ok(found: str) -> Finding:
    """All is well, or not made yet."""
    return Finding(Level.OK, found)


def warning(found: str, fix: str) -> Finding:
    """Something to know before a result is believed or a stage is run."""
    return Finding(Level.WARNING, found, fix)


def failure(kind: type[NewsfuseError], found: str, fix: str = "") -> Finding:
    """Something that makes results wrong or a stage fail, of the class of error that says the same elsewhere."""
    return Finding(Level.FAILURE, found, fix, kind.exit_code)


def exit_code(findings: Iterable[Finding]) -> int:
    """That of the worst failure by WORST_FIRST; 0 where there is none."""
    codes = {each.exit_code for each in findings if each.level is Level.FAILURE}
    ordered = [kind.exit_code for kind in WORST_FIRST]
    return min(codes, key=lambda code: ordered.index(code) if code in ordered else len(ordered), default=0)
