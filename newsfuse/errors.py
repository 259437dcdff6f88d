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


class IntegrityError(NewsfuseError):
    """An artifact is damaged, incomplete, or belongs to other data."""

    exit_code = 7


class StorageError(NewsfuseError):
    """The disk is full or a file may not be written."""

    exit_code = 8


class PluginError(NewsfuseError):
    """A plugin cannot be loaded or breaks its contract; the message names it."""

    exit_code = 9


def nearest(word: str, known: Sequence[str]) -> str:
    """`" Did you mean 'gate'?"` where one of the `known` words is close, else nothing."""
    close = get_close_matches(word, known, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def place(error: Exception) -> str:
    """file:line where `error` arose."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"
