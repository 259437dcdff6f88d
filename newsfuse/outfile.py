"""Where a command writes what somebody asked for: a file, or standard output."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from newsfuse.artifact import write_text
from newsfuse.errors import ParamsError, StorageError

STDOUT = Path("-")
log = logging.getLogger(__name__)


def require_one_at_stdout(files: Mapping[str, Path], options: str) -> None:
    """Raise ParamsError where two of the `files` are standard output; `options` are those that name them."""
    if list(files.values()).count(STDOUT) > 1:
        message = f"-: only one of {options} can be written to standard output"
        raise ParamsError(message)


def deliver(path: Path, text: str) -> None:
    """Print the text where `path` is STDOUT, else write it, and say so. Raises StorageError."""
    if path == STDOUT:
        sys.stdout.write(text)
        return
    write(path, text)
    log.info("Written: %s", path)


def write(path: Path, text: str) -> None:
    """Write `text`: there whole or not at all. Raises StorageError, and another name may help."""
    try:
        write_text(path, text)
    except StorageError as error:
        message = f"{error}. Or name another file"
        raise StorageError(message) from error
