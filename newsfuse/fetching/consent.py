"""The licence of MIND, and the user's word that it is accepted: nothing is downloaded without."""

import sys

from newsfuse.errors import ParamsError
from newsfuse.terminal import tell

LICENCE = "Microsoft Research License Terms"
WHERE = "https://github.com/msnews/MIND/blob/master/MSR%20License_Data.pdf"
TERMS = f"MIND is under the {LICENCE}: for non-commercial research, and not to be passed on. Read them: {WHERE}"


def require(*, accepted: bool) -> None:
    """Ask whoever sits at the terminal, unless `accepted` already. Raises ParamsError without a yes."""
    tell(TERMS)
    if accepted:
        return
    if not sys.stdin.isatty():
        message = "--accept-license is needed where nobody can be asked. Nothing was downloaded"
        raise ParamsError(message)
    if _answer("Do you accept them? [y/N] ").strip().lower() not in {"y", "yes"}:
        message = "the licence was not accepted. Nothing was downloaded"
        raise ParamsError(message)


def _answer(question: str) -> str:
    try:
        return input(question)
    except EOFError:
        return ""
