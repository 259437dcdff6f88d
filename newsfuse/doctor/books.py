"""The ledger's health. It is read and never locked: another process may be paying."""

from collections.abc import Iterator

from newsfuse.bookkeeping import AS_STORED, n_bytes_of
from newsfuse.doctor.finding import MEGABYTE, Finding, failure, ok, warning
from newsfuse.doctor.tree import Tree
from newsfuse.environment import Environment
from newsfuse.errors import IntegrityError
from newsfuse.paid.ledger import HANDED_IN, HANDING_IN, Ledger, location
from newsfuse.paid.payer import at_work
from newsfuse.salvage import passes

COUNTS = "SELECT (SELECT count(*) FROM vectors), (SELECT count(*) FROM spend), (SELECT count(*) FROM quarantine)"
VERIFY, COLLECT = "newsfuse ledger verify", "dvc repro embed"


def ledger(tree: Tree) -> Iterator[Finding]:  # noqa: ARG001 - every check is called alike
    """Its structure, every row's sha256, and what waits in it. Raises IntegrityError, StorageError, BusyError."""
    path = location(Environment.read())
    if not path.exists():
        yield ok(f"{path}: not made yet; the first run that pays makes it")
        return
    if path.with_name(f"{path.name}-journal").exists():
        # to open it would roll that back
        yield warning(f"{path}: a run was stopped in the middle of a write, or is at it", f"when none is: {VERIFY}")
        return
    if who := at_work(path):
        yield ok(f"{path}: {who} is at work with it")
    with Ledger.reading(path) as found:
        found.require_whole()
        yield from _contents(found)


def _contents(found: Ledger) -> Iterator[Finding]:
    ((vectors, requests, quarantined),) = found.query(COUNTS)
    rows = found.query(f"SELECT {', '.join(AS_STORED)} FROM vectors")  # noqa: S608 - our own names
    if bad := sum(not passes(*row) for row in rows):
        told = f"{found.path}: {bad:,} of {vectors:,} vectors do not pass their sha256 and would be paid for again"
        yield failure(IntegrityError, told, f"{VERIFY}, which says what brings them back for nothing")
    else:
        size = n_bytes_of(found.path) / MEGABYTE
        yield ok(f"{found.path}: whole, {vectors:,} vectors and {requests:,} requests, {size:,.1f} MB")
    if quarantined:
        told = f"{found.path}: {quarantined:,} bad rows are in quarantine, used for nothing"
        yield warning(told, "newsfuse ledger compact --drop-quarantined")
    if jobs := len(found.requests(HANDING_IN, HANDED_IN)):
        yield warning(f"{found.path}: {jobs} jobs have been handed in and not collected", COLLECT)
