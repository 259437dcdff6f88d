"""Whose code failed: errors out of a plugin carry the plugin's name."""

from collections.abc import Iterator
from contextlib import contextmanager

from newsfuse.errors import NewsfuseError, PluginError, place


@contextmanager
def blame(origin: str) -> Iterator[None]:
    """Turn whatever a plugin's code raises into a PluginError that names `origin` and file:line."""
    try:
        yield
    except (NewsfuseError, MemoryError):
        raise
    except Exception as error:
        if (
            type(error).__name__ == "OutOfMemoryError"
        ):  # torch's: not the plugin's fault, and torch is not imported here
            raise
        message = f"{origin}: {type(error).__name__}: {error} ({place(error)})"
        raise PluginError(message) from error
