"""Everything that can go wrong in a way a user can mend, each with its exit code."""

import traceback
from collections.abc import Sequence
from difflib import get_close_matches


class NewsfuseError(Exception):
    """A mistake or a mishap that is told in words, without a traceback."""

    exit_code = 1


class ParamsError(NewsfuseError):
    """params.yaml or an environment variable holds something that newsfuse cannot use."""

    exit_code = 2


class DataError(NewsfuseError):
    """A data file is not what MIND's format says; the message names file and line."""

    exit_code = 3


class AuthenticationError(NewsfuseError):
    """A provider wants a key and has none, or refuses the one it was given."""

    exit_code = 4


class QuotaError(NewsfuseError):
    """The provider's quota is used up."""

    exit_code = 5


class ProviderError(NewsfuseError):
    """A provider did not answer usefully, retries included."""

    exit_code = 6


class TransientError(ProviderError):
    """A failure that may heal by itself; `wait_s` is how long the provider asked us to wait, if it did."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class UselessAnswerError(TransientError):
    """An answer without the vectors asked for. It may have been billed, so it gets one second chance only."""


class RefusedTextsError(DataError):
    """The provider refuses a batch because of one of its texts, and may not say which."""


class IntegrityError(NewsfuseError):
    """An artifact is damaged, incomplete, or belongs to other data."""

    exit_code = 7


class StorageError(NewsfuseError):
    """The disk is full or a file may not be written."""

    exit_code = 8


class PluginError(NewsfuseError):
    """A plugin cannot be loaded or breaks its contract; the message names it."""

    exit_code = 9


class BusyError(NewsfuseError):
    """Not now: somebody else is at it, who started this is gone, or a provider is not done yet. Try later."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class InterruptedRunError(NewsfuseError):
    """A signal ended the run in good order; 128 + the signal's number, as shells have it."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


def nearest(word: str, known: Sequence[str]) -> str:
    """`" Did you mean 'gate'?"` where one of the `known` words is close, else nothing."""
    close = get_close_matches(word, known, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def printable(text: str) -> str:
    """`text` without control characters but line ends: an article's id or title must not steer a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def place(error: Exception) -> str:
    """file:line where `error` arose."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"
