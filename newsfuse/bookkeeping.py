"""The ledger looked at, checked and made smaller: `newsfuse ledger status`, `verify`, `compact`. Nothing is sent."""

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from rich.table import Table

from newsfuse.artifact import flush
from newsfuse.environment import Environment
from newsfuse.errors import IntegrityError, StorageError, printable
from newsfuse.paid import jobs
from newsfuse.paid.ledger import (
    HANDED_IN,
    HANDING_IN,
    Ledger,
    NewerLedgerError,
    location,
    project,
)
from newsfuse.paid.payer import Employer, at_work, sole_payer
from newsfuse.paid.space import Space
from newsfuse.salvage import COLUMNS, passes, rescue, sound, unknown
from newsfuse.terminal import dollars, show, tell

MEANINGS = {
    "sent": "never answered, may have been billed",
    "done": "brought vectors",
    "failed": "brought none, not billed",
    "useless": "brought none, taken for billed",
    HANDING_IN: "a job about to be handed in",
    HANDED_IN: "a job that the provider works off",
    "given up": "a job that is waited for no longer",
    "imported": "vectors from a folder, for nothing",
}
AS_STORED = [f"iif(typeof({name}) = 'blob', {name}, NULL)" for name in ("key", "sha256", "vector")]
"""A flipped bit may turn a blob into text, which sqlite3 would not even read."""
COMPANIONS = ("-wal", "-journal")
"""What SQLite keeps beside a file: beside another file of the same name it would be that one's ruin."""
MEGABYTE = 1e6
SUMS = "status, count(*), sum(texts), sum(tokens_estimated), sum(tokens), sum(usd)"
OPEN_JOBS = "SELECT at, status, texts, reference FROM spend WHERE status IN (?, ?) ORDER BY id"
LATEST = "SELECT at, status, texts, tokens, usd, note FROM spend ORDER BY id DESC LIMIT ?"


@dataclass(frozen=True)
class Holding:
    """The vectors of one space."""

    space: Space
    keys: Sequence[bytes]
    """Sorted."""


def holdings(ledger: Ledger) -> list[Holding]:
    """All vectors of the ledger, by space. Raises IntegrityError, StorageError."""
    spaces = {number: _space(text) for number, text in ledger.query("SELECT id, space FROM spend")}
    keys: defaultdict[str, list[bytes]] = defaultdict(list)
    for key, request, dimensions in ledger.query("SELECT key, request, length(vector) / 4 FROM vectors"):
        space = spaces.get(request)
        whose = space if space and space.dimensions == dimensions else unknown(dimensions)
        keys[whose.to_json()].append(key)
    return [Holding(Space.from_json(space), sorted(keys[space])) for space in sorted(keys)]


def _space(text: str) -> Space | None:
    with suppress(ValueError, TypeError):
        return Space.from_json(text)
    return None


def require_room(folder: Path, n_bytes: int) -> None:
    """Raise StorageError unless so much can be written to the folder."""
    if (free := shutil.disk_usage(folder).free) < n_bytes:
        found = f"{free / MEGABYTE:,.1f} MB are free, {n_bytes / MEGABYTE:,.1f} MB are needed; nothing was changed"
        message = f"{folder}: {found}. Free some space and run again"
        raise StorageError(message)


def n_bytes_of(path: Path) -> int:
    """Of a ledger, its log included."""
    files = (path, *(_beside(path, end) for end in COMPANIONS))
    return sum(file.stat().st_size for file in files if file.exists())


def _beside(path: Path, end: str) -> Path:
    return path.with_name(f"{path.name}{end}")


# --- status


def status(*, latest: int) -> None:
    """Print what is in the ledger, what was spent, and the latest requests. Takes no lock. Raises NewsfuseError."""
    path = location(Environment.read())
    if not path.exists():
        tell(f"{path}: not there yet. It is made by the first run that has something to keep")
        return
    with Ledger.reading(path) as ledger:
        tell(_described(ledger))
        show(_holdings_table(ledger))
        show(_sums_table(ledger))
        for remark in _remarks(ledger):
            tell(remark)
        if latest:
            show(_latest_table(ledger, latest))


def _described(ledger: Ledger) -> str:
    (journal,), (schema,) = *ledger.query("PRAGMA journal_mode"), *ledger.query("PRAGMA user_version")
    size = f"{n_bytes_of(ledger.path) / MEGABYTE:,.1f} MB"
    return f"{ledger.path}\n{size}, schema {schema}, journal mode {journal}"


def _holdings_table(ledger: Ledger) -> Table:
    table = Table("provider", "host", "model", title="Vectors", title_justify="left")
    for name in ("dimensions", "vectors"):
        table.add_column(name, justify="right")
    for holding in holdings(ledger):
        space = holding.space
        table.add_row(space.provider, space.host, space.model, f"{space.dimensions}", f"{len(holding.keys):,}")
    return table


def _sums_table(ledger: Ledger) -> Table:
    table = Table("requests", title="Requests", title_justify="left")
    for name in ("number", "texts", "tokens", "dollars"):
        table.add_column(name, justify="right")
    rows = list(ledger.query(f"SELECT {SUMS} FROM spend GROUP BY status"))  # noqa: S608 - ours
    for name, number, texts, estimated, tokens, usd in rows:
        billed = f"about {estimated:,}" if tokens is None else f"{tokens:,}"
        table.add_row(
            f"{name}: {MEANINGS.get(name, '?')}",
            f"{number:,}",
            f"{texts:,}",
            billed,
            "" if usd is None else dollars(usd),
        )
    table.add_section()
    number, texts, tokens, usd = (sum(row[column] or 0 for row in rows) for column in (1, 2, 4, 5))
    table.add_row("total", f"{number:,}", f"{texts:,}", f"{tokens:,}", dollars(usd))
    return table


def _remarks(ledger: Ledger) -> Iterator[str]:
    if who := at_work(ledger.path):
        yield f"{who} is at work with it now: what it waits for an answer to is among the requests marked sent"
    for at, state, texts, reference in ledger.query(OPEN_JOBS, HANDING_IN, HANDED_IN):
        yield f"Job {reference}: {texts:,} texts, {state} at {at}. Collect it: dvc repro embed"
    ((bad,),) = ledger.query("SELECT count(*) FROM quarantine")
    if bad:
        yield f"Quarantine: {bad:,} rows that `newsfuse ledger verify` found bad. They are used for nothing"


def _latest_table(ledger: Ledger, latest: int) -> Table:
    table = Table("sent at", "status", title="Latest requests", title_justify="left")
    for name in ("texts", "tokens", "dollars"):
        table.add_column(name, justify="right")
    table.add_column("note", overflow="fold")
    for at, state, texts, tokens, usd, note in ledger.query(LATEST, latest):
        billed = "" if tokens is None else f"{tokens:,}"
        cost = "" if usd is None else dollars(usd)
        table.add_row(at, state, f"{texts:,}", billed, cost, printable(note or ""))
    return table


# --- verify


def verify(*, rebuild: bool) -> None:
    """Check the ledger as a file and every row in it; what is bad is set aside, what is good is kept.

    Raises IntegrityError, with what was done, if anything was bad; StorageError; NewerLedgerError unless `rebuild`.
    """
    path = location(Environment.read())
    if not path.exists():
        tell(f"{path}: not there yet, so there is nothing to verify")
        return
    with sole_payer(path, Employer()):
        if damage := _damage(path, rebuild=rebuild):
            raise IntegrityError(_rebuilt(path, damage))
        if bad := _bad_rows(path):
            raise IntegrityError(_quarantined(path, bad))
        with Ledger.reading(path) as ledger:
            ((vectors, requests),) = ledger.query("SELECT (SELECT count(*) FROM vectors), (SELECT count(*) FROM spend)")
    tell(f"{path}: all is well, {vectors:,} vectors and {requests:,} requests")


def _damage(path: Path, *, rebuild: bool) -> str:
    """What is wrong with the file beyond single vectors, "" if nothing is."""
    try:
        with Ledger.reading(path) as ledger:
            ledger.require_whole()
            rows = ledger.query(f"SELECT {', '.join(COLUMNS)} FROM spend")  # noqa: S608 - our own names
            unsound = sum(sound(*row) is None for row in rows)
    except NewerLedgerError as error:
        if not rebuild:
            raise
        return str(error)
    except IntegrityError as error:
        return str(error).partition(". ")[0]  # the rest is a remedy: this one
    return f"{path}: {unsound} lines of the spend table are unreadable" if unsound else ""


def _bad_rows(path: Path) -> list[int]:
    """Row ids of the vectors that do not pass their sha256, or are no vectors."""
    with Ledger.reading(path) as ledger:
        rows = ledger.query(f"SELECT rowid, {', '.join(AS_STORED)} FROM vectors")  # noqa: S608 - ours
        return [number for number, *row in rows if not passes(*row)]


def _quarantined(path: Path, bad: Sequence[int]) -> str:
    with Ledger.writing(path) as ledger:
        with ledger.transaction() as database:
            rows = [(number,) for number in bad]
            columns = "key, request, sha256, vector"
            move = f"INSERT INTO quarantine ({columns}) SELECT {columns} FROM vectors WHERE rowid = ?"  # noqa: S608
            database.executemany(move, rows)
            database.executemany("DELETE FROM vectors WHERE rowid = ?", rows)
        found = f"{path}: {len(bad):,} vectors did not pass their sha256 and are in quarantine now"
        return f"{found}. {_remedy(ledger, len(bad))}"


def _rebuilt(path: Path, damage: str) -> str:
    """Put a ledger of all good rows in the place of the damaged one, which is kept -> what to tell."""
    new, kept = _beside(path, ".rebuilt"), _name_to_keep(path)
    damaged = kept if kept.exists() else path
    require_room(path.parent, 2 * n_bytes_of(damaged))  # the new file and its log
    try:
        saved = rescue(damaged, new)
        if not saved.vectors and not saved.requests:
            away = f"mv {path} {path}.broken && newsfuse ledger import {_artifacts()}"
            message = f"{damage}. No row of a ledger was found in it, and it was left as it is. Start anew: {away}"
            raise IntegrityError(message)
        _set_aside(path, kept)
        new.replace(path)
        flush(path.parent)
    finally:
        for end in ("", *COMPANIONS, "-shm", ".new"):
            _beside(new, end).unlink(missing_ok=True)
    with Ledger.reading(path) as ledger:
        found = f"{saved.vectors:,} vectors and {saved.requests:,} requests were saved, {saved.bad:,} rows were bad"
        place = f"They are in a new ledger in its place; the damaged one is kept: {kept}"
        return f"{damage}. {found}. {place}. {_remedy(ledger, saved.bad)}"


def _name_to_keep(path: Path) -> Path:
    """What a damaged ledger will be called; its second name already, if an earlier attempt was interrupted."""
    names = (_beside(path, f".damaged{'' if number == 1 else f'.{number}'}") for number in count(1))
    return next(name for name in names if not name.exists() or name.samefile(path))


def _set_aside(path: Path, kept: Path) -> None:
    """Give the damaged file a second name and take its log away; at no moment is the ledger's own name free."""
    if not kept.exists():
        try:
            kept.hardlink_to(path)
        except OSError:  # not every file system has links
            shutil.copy2(path, kept)
    for end in COMPANIONS:
        if _beside(path, end).exists():
            _beside(path, end).replace(_beside(kept, end))
    _beside(path, "-shm").unlink(missing_ok=True)


def _remedy(ledger: Ledger, bad: int) -> str:
    lost = max(bad, _lost(ledger))
    if not lost:
        return "See whether anything is to be paid again: newsfuse plan"
    told = f"At least {lost:,} texts that were paid for have no vector any more"
    return (
        f"{told}. Bring them back for nothing: newsfuse ledger import {_artifacts()}. See what is left: newsfuse plan"
    )


def _lost(ledger: Ledger) -> int:
    """Texts without a vector although their request brought one for each; of a job, not all texts need to have one."""
    whole = (request for request in ledger.requests("done", "imported") if request.reference is None)
    return len(ledger.missing(list({key for request in whole for key in request.keys})))


def _artifacts() -> str:
    """The embeddings of this project that a ledger can be rebuilt with."""
    root = project(Path.cwd())
    found = sorted(path.parent for path in root.glob("data/*/embeddings/keys"))
    return " ".join(os.path.relpath(folder) for folder in found) or "data/<dataset>/embeddings"


# --- jobs


def give_up(job: str) -> None:
    """Forget an open job, whose texts are then bought again. Raises ParamsError, BusyError."""
    path = location(Environment.read())
    jobs.give_up(path, job)
    tell(f"{path}: {job} is forgotten. See what is to pay: newsfuse plan")


# --- compact


def compact(*, drop_quarantined: bool) -> None:
    """Give unused pages back to the disk. Raises NewsfuseError."""
    path = location(Environment.read())
    if not path.exists():
        tell(f"{path}: not there yet, so there is nothing to compact")
        return
    # SQLite would put a copy of the whole ledger where all users of this machine put theirs
    os.environ["SQLITE_TMPDIR"] = str(path.parent)
    with sole_payer(path, Employer()):
        before = n_bytes_of(path)
        with Ledger.writing(path) as ledger:
            ledger.require_whole()
            require_room(path.parent, 2 * before)
            dropped = _dropped(ledger) if drop_quarantined else 0
            list(ledger.query("VACUUM"))
            list(ledger.query("PRAGMA wal_checkpoint(TRUNCATE)"))
        after = n_bytes_of(path)
    tell(f"{path}: {before:,} bytes before, {after:,} bytes after, {dropped:,} quarantined rows dropped")


def _dropped(ledger: Ledger) -> int:
    with ledger.transaction() as database:
        return database.execute("DELETE FROM quarantine").rowcount
