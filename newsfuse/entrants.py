"""What a comparison is between: runs, or groups of runs that differ in their seed only."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from newsfuse.errors import ParamsError

FORM = "expected a run, or a label and its runs: late=one,two,three"


@dataclass(frozen=True)
class Entrant:
    """A label, and the names of the runs that stand for it: one, or one for each seed."""

    label: str
    runs: tuple[str, ...]

    @classmethod
    def parse(cls, word: str) -> "Entrant":
        """`name`, or `label=name,name,...`. Raises ParamsError for anything else."""
        label, is_group, names = word.partition("=")
        runs = tuple(names.split(",")) if is_group else (word,)
        if not label or not all(runs):
            message = f"'{word}': a name is missing; {FORM}"
            raise ParamsError(message)
        if twice := _repeated(runs):
            message = f"'{word}': has {twice} twice, which would make the spread of its seeds too small; each run once"
            raise ParamsError(message)
        return cls(label, runs)


def entrants(words: Sequence[str]) -> tuple[Entrant, ...]:
    """Those that the words say, the reference first. Raises ParamsError unless they are two or more, each once."""
    found = tuple(Entrant.parse(word) for word in words)
    twice = _repeated([entrant.label for entrant in found])
    if twice or len(found) < 2:  # noqa: PLR2004 - it takes two to compare
        message = f"runs: found {', '.join(words)}; expected two or more, each label once; {FORM}"
        raise ParamsError(message)
    return found


def _repeated(names: Sequence[str]) -> str:
    return ", ".join(name for name, times in Counter(names).items() if times > 1)
