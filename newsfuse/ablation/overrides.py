"""Settings given on the command line (`-S train.lr=0.1`), read and applied as `dvc exp run` does it."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from newsfuse.dotted import dotted
from newsfuse.errors import ParamsError, nearest
from newsfuse.params import FILE


def parsed(words: Sequence[str]) -> tuple[str, ...]:
    """The words, each a setting of params.yaml. Raises ParamsError for other files, and for several values."""
    from dvc.utils.cli_parse import to_path_overrides  # noqa: PLC0415 - half a second, as in newsfuse.revisions

    by_file = to_path_overrides(words)
    if others := [path for path in by_file if path != str(FILE)]:
        message = f"-S {others[0]}:...: is another file than {FILE}, which alone has settings"
        raise ParamsError(message)
    given = tuple(by_file.get(str(FILE), ()))
    for word in given:
        _refuse_several(word)
    return given


def _refuse_several(word: str) -> None:
    from dvc.utils.hydra import to_hydra_overrides  # noqa: PLC0415 - see `parsed`

    try:
        (override,) = to_hydra_overrides([word])
    except Exception as error:  # of the parser that DVC takes, which is no dependency of ours
        message = f"-S {word}: is not understood; expected a setting and its value, such as -S train.lr=0.1"
        raise ParamsError(message) from error
    if override.is_sweep_override():
        message = f"-S {word}: has several values; give one. Only --fusions and --seeds take several"
        raise ParamsError(message)


@contextmanager
def tried(settings: Sequence[str], root: Path) -> Iterator[Path]:
    """A copy of the project's params.yaml, so changed.

    Raises ParamsError where params.yaml has no such setting, or is not there.
    """
    if not (root / FILE).is_file():
        message = f"{FILE}: not found in {root.resolve()}; run this in the root of a newsfuse project"
        raise ParamsError(message)
    with TemporaryDirectory() as folder:
        trial = Path(shutil.copyfile(root / FILE, Path(folder) / FILE))
        for setting in settings:
            _apply(setting, trial)
        yield trial


def _apply(setting: str, path: Path) -> None:
    from dvc.exceptions import InvalidArgumentError  # noqa: PLC0415 - see `parsed`
    from dvc.utils.hydra import apply_overrides  # noqa: PLC0415 - see `parsed`

    try:
        apply_overrides(path, [setting])
    except InvalidArgumentError as error:
        raise ParamsError(_refusal(setting, path, error)) from error


def _refusal(setting: str, path: Path, error: Exception) -> str:
    if setting.startswith(("+", "~")):
        return f"-S {setting}: cannot be applied to {FILE}: {str(error.__cause__ or error).splitlines()[0]}"
    name = setting.partition("=")[0]
    known = [each for each, _ in dotted(yaml.safe_load(path.read_text(encoding="utf-8")))]
    return f"-S {setting}: {FILE} has no setting '{name}'.{nearest(name, known)} To add one: -S +{setting}"
