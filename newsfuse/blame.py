"""Whose code failed: errors out of a plugin carry the plugin's name, and the line of its code."""

import inspect
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from newsfuse.errors import NewsfuseError, PluginError

OURS = Path(__file__).parent
STANDARD = Path(sysconfig.get_path("stdlib"))


@contextmanager
def blame(origin: str, code: object = None) -> Iterator[None]:
    """Turn whatever a plugin's code raises into a PluginError that names `origin` and file:line.

    `code` is the function or the torch module that is called: its place is told where the traceback has no line of it.
    """
    try:
        yield
    except NewsfuseError:
        raise
    except BaseException as error:
        if not is_its_own(error):
            raise
        message = f"{origin}: {told(error, code)}"
        raise PluginError(message) from error


def is_its_own(error: BaseException) -> bool:
    """Whether it is the fault of the plugin in whose code it arose: memory, Ctrl-C and our own signals are not."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
        return False
    if isinstance(error, SystemExit):  # of a plugin that calls sys.exit, but not of a signal's handler
        return not _is_in(_frames(error)[-1].filename, OURS)
    return isinstance(error, Exception) and not isinstance(error, MemoryError)  # all other ends are somebody's order


def told(error: BaseException, code: object = None) -> str:
    """What it is, and file:line of the plugin's code."""
    return f"{type(error).__name__}: {error} ({culprit(error) or defined(code) or _end(error)})"


def culprit(error: BaseException) -> str:
    """file:line of the last line of a plugin on the way to `error`, "" if there is none.

    The plugin begins where code is neither ours nor PyTorch's nor Python's, and is what lies in one folder with that.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    theirs = [frame for frame in _frames(error) if is_foreign(frame.filename)]
    own = [frame for frame in theirs if Path(frame.filename).parent == Path(theirs[0].filename).parent]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else ""


def owner(error: BaseException, homes: Mapping[str, set[Path]]) -> str | None:
    """The origin among `homes` whose code is the last in the traceback; None where none of theirs is in it."""
    for frame in reversed(_frames(error)):
        for origin, places in homes.items():
            if any(_is_in(frame.filename, place) for place in places):
                return origin
    return None


def homes(names: Iterable[str]) -> set[Path]:
    """Where the code of modules of these names is, but for PyTorch's and ours: their packages' folders, or files."""
    files = (getattr(sys.modules.get(name), "__file__", None) for name in names)
    paths = {Path(file) for file in files if file and is_foreign(file)}
    return {path.parent if path.with_name("__init__.py").is_file() else path for path in paths}


def defined(code: object) -> str:
    """file:line where a plugin defines a function, or the forward of a torch module; "" where it does not."""
    function = inspect.unwrap(getattr(type(code), "forward", None) or getattr(code, "func", code))  # type: ignore[arg-type]
    written = getattr(function, "__code__", None)
    if written is None or not is_foreign(written.co_filename):
        return ""
    return f"{written.co_filename}:{written.co_firstlineno}"


def is_foreign(filename: str) -> bool:
    """Whether that is the code of a plugin, or of what a plugin uses."""
    torch = getattr(sys.modules.get("torch"), "__file__", None)
    known = filename.startswith("<") or _is_in(filename, OURS) or (torch and _is_in(filename, Path(torch).parent))
    return not known and (not _is_in(filename, STANDARD) or "-packages" in filename)  # site-packages, dist-packages


def _frames(error: BaseException) -> traceback.StackSummary:
    return traceback.extract_tb(error.__traceback__)


def _end(error: BaseException) -> str:
    frame = _frames(error)[-1]
    return f"{frame.filename}:{frame.lineno}"


def _is_in(filename: str, folder: Path) -> bool:
    return Path(filename).is_relative_to(folder)
