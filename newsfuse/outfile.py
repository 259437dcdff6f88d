"""A file that somebody asked a command to write."""

from pathlib import Path

from newsfuse.artifact import write_text
from newsfuse.errors import StorageError


def write(path: Path, text: str) -> None:
    """Write `text`: there whole or not at all. Raises StorageError, and another name may help."""
    try:
        write_text(path, text)
    except OSError as error:
        message = f"{path}: could not be written: {error.strerror or error}. Name another file"
        raise StorageError(message) from error
