"""`newsfuse fetch`: MIND from a mirror, or out of archives at hand, into data/<name>, where DVC tracks it.

In steps that each end with a file under its final name, so that a run which was stopped anywhere is gone on with:
the part of an archive, the unpacked split, its .dvc file.
"""

import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from shlex import quote

from filelock import FileLock, Timeout

from newsfuse.environment import Environment
from newsfuse.errors import BusyError, DataError, IntegrityError, InterruptedRunError, ParamsError, ProviderError
from newsfuse.fetching import consent, mirrors
from newsfuse.fetching.archive import placing, require, unpack
from newsfuse.fetching.download import Terms, download
from newsfuse.fetching.fingerprint import FILE, Fingerprint, recall, remember
from newsfuse.fetching.meter import Meter
from newsfuse.fetching.mirrors import Archive, Dataset
from newsfuse.fetching.partial import Partial
from newsfuse.root import enclosing
from newsfuse.terminal import tell
from newsfuse.tracked import track

HOME = "https://msnews.github.io"
ROOM = 3.5
"""Bytes unpacked per byte of an archive, about (MIND-small's: 3.1): a download that cannot be unpacked is not begun."""


def fetch(dataset: Dataset, zips: Sequence[Path] = (), *, accepted: bool = False) -> None:
    """Lay out data/<dataset>/train, dev and so on, in the current folder, and have DVC track them.

    Out of `zips` where any are given, else downloaded once the licence is accepted. What is there already stays as it
    is. Raises ParamsError, ProviderError, IntegrityError, DataError, StorageError, BusyError, InterruptedRunError.
    """
    _require_root()
    folder, archives = Path("data", dataset), mirrors.archives(dataset)
    given, places = _by_split(dataset, zips), mirrors.chosen(Environment.read())
    missing = [archive for archive in archives if not _there(folder / archive.split)]
    wanted = [archive for archive in missing if archive.split in given or not zips]
    if wanted and not zips:
        consent.require(accepted=accepted)
    with _going_on(folder), _alone(folder) if wanted else nullcontext():
        try:
            for archive in wanted:
                if archive.split in given:
                    _lay_out(folder, archive, given[archive.split])
                else:
                    _download(folder, archive, places)
        except (DataError, IntegrityError, ProviderError):  # of one archive: train and dev do without test
            _finish(folder, archives)
            raise
        _finish(folder, archives)


# --- what there is


def _require_root() -> None:
    """Raise ParamsError inside a DVC project but not in its root, where data/ is."""
    here = Path.cwd()
    root = enclosing(here) or here
    if root != here:
        message = f"the project's root is {root}. Fetch there: cd {quote(str(root))}"
        raise ParamsError(message)


def _by_split(dataset: Dataset, zips: Sequence[Path]) -> Mapping[str, Path]:
    """Which of the archives is which split, by their names. Raises ParamsError."""
    given: dict[str, Path] = {}
    for path in zips:
        split = _split(dataset, path)
        if given.setdefault(split, path) is not path:
            message = f"--from-zip: {given[split]} and {path} are both {split}"
            raise ParamsError(message)
    return given


def _split(dataset: Dataset, path: Path) -> str:
    splits = [archive.split for archive in mirrors.archives(dataset)]
    words = re.findall(r"[a-z]+", path.stem.lower())
    named = [split for split in splits if split in words]
    other = [word for word in words if word.startswith("mind") and word not in {"mind", f"mind{dataset}"}]
    if len(named) != 1 or other:
        message = (
            f"--from-zip: {path} is not named as an archive of MIND {dataset}; "
            f"expected a name such as MIND{dataset}_train.zip or train.zip (of {', '.join(splits)})"
        )
        raise ParamsError(message)
    if not path.is_file():
        message = f"--from-zip: there is no file {path}"
        raise ParamsError(message)
    return named[0]


def _there(folder: Path) -> bool:
    """Whether the split is in place. Raises DataError where something else is."""
    if not folder.exists():
        return False
    try:
        require(folder, folder)
    except DataError as error:
        message = f"{error}. It is not touched: move it away and run again"
        raise DataError(message) from error
    tell(f"{folder}: is there already and stays as it is")
    return True


# --- what is done


def _download(folder: Path, archive: Archive, places: Sequence[str]) -> None:
    """Download an archive and lay it out. It is deleted then, and also where it is not what it should be."""
    partial, environment = Partial.of(folder / archive.name), Environment.read()
    size = archive.known.bytes if archive.known else None
    terms = Terms(size, attempts=environment.retries + 1, timeout_s=environment.timeout_s, room=ROOM)
    try:
        with Meter(archive.name) as meter:
            download([f"{place}/{archive.name}" for place in places], partial, terms, meter.show)
        _lay_out(folder, archive, partial.path)
    except ProviderError as error:
        raise _by_hand(archive, partial, error) from error
    except (IntegrityError, DataError) as error:
        partial.discard()
        message = f"{error}. It was deleted: run again, or name another mirror: {mirrors.VARIABLE}=https://..."
        raise type(error)(message) from error
    partial.discard()


def _by_hand(archive: Archive, partial: Partial, error: ProviderError) -> ProviderError:
    names = " ".join(each.name for each in mirrors.archives(archive.dataset))
    kept = f"{partial.size:,} bytes of it are kept, and the same command goes on from there.\n" if partial.size else ""
    return ProviderError(
        f"{archive.name}: no mirror sent it.\n{error}\n{kept}"
        f"By hand: accept the licence at {HOME}, download {names.replace(' ', ', ')}, then type: "
        f"newsfuse fetch {archive.dataset} --from-zip {names}\n"
        f"Another mirror: {mirrors.VARIABLE}=https://... newsfuse fetch {archive.dataset}"
    )


def _lay_out(folder: Path, archive: Archive, path: Path) -> None:
    """Unpack an archive into its split, once it is verified, and remember it."""
    found = _verified(folder, archive, path)
    with placing(folder / archive.split) as draft:
        unpack(path, draft)
        remember(folder, archive.name, found)  # not before: what cannot be unpacked is not worth remembering
    tell(f"{folder / archive.split}: {archive.name}, {found}")


def _verified(folder: Path, archive: Archive, path: Path) -> Fingerprint:
    """Its sha256. Raises IntegrityError unless it is what is known beforehand, and what was fetched earlier."""
    found = Fingerprint.of(path)
    if archive.known and (md5 := Fingerprint.of(path, archive.known.algorithm)) != archive.known:
        message = f"{path} is not {archive.name}: {md5}, expected {archive.known}"
        raise IntegrityError(message)
    earlier = recall(folder, archive.name)
    if earlier not in {None, found}:
        message = (
            f"{path} is not the {archive.name} that was fetched first: {found}, expected {earlier}, as {folder / FILE} "
            "has it. Should MIND's authors have replaced it, and you want the new one, remove it from there"
        )
        raise IntegrityError(message)
    return found


def _finish(folder: Path, archives: Sequence[Archive]) -> None:
    """Have DVC track what it does not yet, and say what is left to do."""
    splits = [folder / archive.split for archive in archives]
    there = [split for split in splits if split.exists()]
    new = [split for split in there if not split.with_name(f"{split.name}.dvc").exists()]
    if linked := [split for split in new if not split.resolve().is_relative_to(Path.cwd())]:
        tell(f"{linked[0]}: is a link to elsewhere, which DVC does not track: queued experiments will not find it")
        return
    if new:
        track(new)
    if new and Path(".git").exists():
        add = f"git add {folder / FILE} && " if (folder / FILE).exists() else ""  # not of what was there before
        tell(f"Keep it: {add}git commit -m 'Add MIND {folder.name}'")
    for split in splits:
        if split not in there:
            tell(f"{split}: is not there yet; get it: newsfuse fetch {folder.name}")
    if len(there) > 1:
        tell(f"Run on it: dvc exp run -S dataset={folder.name}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raise BusyError where another process fetches the same."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".fetch.lock"
    path.touch()  # where it cannot be, FileLock would try for ever
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout as error:
        message = f"{folder}: another process is fetching it. Wait for that one"
        raise BusyError(message) from error


@contextmanager
def _going_on(folder: Path) -> Iterator[None]:
    """Say at Ctrl-C what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        parts = [f", {path.stat().st_size:,} bytes of {path.stem} among it" for path in sorted(folder.glob("*.part"))]
        message = f"interrupted. What is there is kept{''.join(parts)}: the same command goes on from there"
        raise InterruptedRunError(message, signal.SIGINT) from None
