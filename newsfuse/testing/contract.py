"""What a check is, what comes of it, and the error that lists all promises that a plugin breaks."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn

from newsfuse.blame import is_its_own, told
from newsfuse.plugin import Plugin


class State(StrEnum):
    """What came of a check."""

    OK = "ok"
    BROKEN = "BROKEN"
    SKIPPED = "skipped"


class PromiseError(Exception):
    """A promise is broken: what was found, and what its author can do."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found, remedy)
        self.found, self.remedy = found, remedy


class NotCheckedError(Exception):
    """A promise cannot be checked here; the message says why."""


def breach(found: str, remedy: str) -> NoReturn:
    """Raise PromiseError."""
    raise PromiseError(found, remedy)


def leave_out(why: str) -> NoReturn:
    """Raise NotCheckedError."""
    raise NotCheckedError(why)


@dataclass(frozen=True)
class Check:
    """One promise of a plugin, named as a sentence by the function that holds the plugin to it."""

    holds: Callable[[Any], None]
    """Raises PromiseError or NotCheckedError; its docstring says what is wanted."""
    gate: bool = False
    """Whether, this one broken, no later check could say anything sensible."""

    @property
    def promise(self) -> str:
        """Such as "articles are encoded apart"."""
        return self.holds.__name__.replace("_", " ")


@dataclass(frozen=True)
class Result:
    """What came of one check of one plugin."""

    promise: str
    state: State
    found: str = ""
    """What is wrong, or why nothing was checked."""
    remedy: str = ""
    """What to do about it."""


class ContractError(AssertionError):
    """A plugin breaks promises: all of them, each with what was found and what to do."""


def examine(plugin: Plugin, checks: Iterable[Check]) -> Iterator[Result]:
    """A result for each check, in order. After a broken gate the others are skipped."""
    closed = ""
    for check in checks:
        if closed:
            yield Result(check.promise, State.SKIPPED, f"waits for '{closed}'")
            continue
        result = _result(plugin, check)
        closed = check.promise if check.gate and result.state is State.BROKEN else ""
        yield result


def require(results: Iterable[Result], subject: str) -> None:
    """Raise ContractError, about `subject` such as "encoder 'mine'", where one of the promises is broken."""
    done = list(results)
    broken = [result for result in done if result.state is State.BROKEN]
    if broken:
        lines = (f"{number}. {each.promise}: {each.found}. {each.remedy}" for number, each in enumerate(broken, 1))
        message = "\n".join([f"{subject} breaks {len(broken)} of {len(done)} promises:", *lines])
        raise ContractError(message)


def _result(plugin: Plugin, check: Check) -> Result:
    try:
        check.holds(plugin)
    except PromiseError as error:
        return Result(check.promise, State.BROKEN, error.found, error.remedy)
    except NotCheckedError as error:
        return Result(check.promise, State.SKIPPED, str(error))
    except BaseException as error:
        if not is_its_own(error):
            raise
        return Result(check.promise, State.BROKEN, told(error, plugin.build), f"Wanted: {check.holds.__doc__}")
    return Result(check.promise, State.OK)
