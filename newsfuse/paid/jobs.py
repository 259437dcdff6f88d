"""Jobs: texts that are handed in now, whose vectors are collected within a day, at a lower price.

A job is written down with a token of ours before anything of it is sent, and by the provider's
name as soon as it has one. A run that dies in between leaves the token, by which the next one finds
the job or learns that there is none. The texts of a job that nobody has collected are on order:
they are not bought again, neither by another job nor at once.
"""

import itertools
import logging
import time
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Connection as Database
from typing import NoReturn

import numpy as np

from newsfuse.blame import blame
from newsfuse.environment import Environment
from newsfuse.errors import (
    BusyError,
    DataError,
    NewsfuseError,
    ParamsError,
    ProviderError,
    RefusedTextsError,
    TransientError,
    UselessAnswerError,
)
from newsfuse.paid import patience
from newsfuse.paid.answers import require_usable
from newsfuse.paid.ledger import HANDED_IN, HANDING_IN, Ledger, Request, keep, settle
from newsfuse.paid.lot import Lot
from newsfuse.paid.packing import packed
from newsfuse.paid.patience import patiently
from newsfuse.paid.payer import Employer, sole_payer
from newsfuse.paid.seller import Seller
from newsfuse.paid.space import Space
from newsfuse.plugin import Mode
from newsfuse.service import Answer, Desk, Job

MAX_INPUTS = 64
"""Texts in one request of a job. It may have many requests, and one that is refused takes its other texts along."""
MOST_REFUSED = 10
"""Requests of a job that may be refused before the fault is rather in the settings."""
LAG = 3
"""Times the usual pause, after which a list of jobs is believed to be whole."""
GIVE_UP = "newsfuse ledger give-up"
log = logging.getLogger(__name__)


def open_jobs(ledger: Ledger, space: Space) -> list[Request]:
    """The jobs of a space that nobody has collected yet, oldest first."""
    return [row for row in ledger.requests(HANDING_IN, HANDED_IN) if row.space == space]


def on_order(ledger: Ledger, space: Space) -> Collection[bytes]:
    """The keys of their texts."""
    return {key for row in open_jobs(ledger, space) for key in row.keys}


def divided(lot: Lot, keys: Collection[bytes]) -> tuple[Lot, Lot]:
    """The texts that have one of the keys, and those that have not."""
    inside = np.array([key in keys for key in lot.keys], np.bool_)
    return lot.at(np.flatnonzero(inside).tolist()), lot.at(np.flatnonzero(~inside).tolist())


def give_up(path: Path, reference: str) -> None:
    """Forget an open job that the provider knows no more, so that its texts may be bought again. Raises ParamsError."""
    if not path.exists():
        message = f"{path}: there is no ledger, so no job is open"
        raise ParamsError(message)
    with sole_payer(path, Employer()), Ledger.writing(path) as ledger:
        rows = {row.reference: row for row in ledger.requests(HANDING_IN, HANDED_IN)}
        if reference not in rows:
            known = ", ".join(map(str, rows)) or "none"
            message = f"{path}: no open job is called '{reference}'. Open: {known}"
            raise ParamsError(message)
        ledger.ended(rows[reference].id, "given up", 0, 0.0, "by hand")


@dataclass
class Haul:
    """What came of one job."""

    seen: np.ndarray
    """bool (texts,): the texts that something was heard of."""
    kept: int = 0
    requests: int = 0
    tokens: int = 0
    usd: float = 0.0
    refused: list[range] = field(default_factory=list)
    """Texts that were refused together: one of them is to blame, and the provider does not say which."""
    troubles: list[NewsfuseError] = field(default_factory=list)

    @property
    def status(self) -> str:
        """As in the ledger."""
        return "done" if self.kept else "useless" if self.tokens else "failed"

    @property
    def note(self) -> str | None:
        """As in the ledger."""
        return f"{type(self.troubles[0]).__name__}: {self.troubles[0]}" if self.troubles else None

    @property
    def failure(self) -> NewsfuseError | None:
        """Why texts are left that handing in again would not help to."""
        if self.kept == len(self.seen):
            return None
        lasting = (error for error in self.troubles if not _heals(error) and not isinstance(error, RefusedTextsError))
        return next(lasting, None)


class Jobs:
    """The jobs of one space: collected, handed in. Only for the holder of `sole_payer`."""

    def __init__(
        self, ledger: Ledger, desk: Desk, seller: Seller, *, employer: Employer, environment: Environment
    ) -> None:
        self._ledger, self._desk, self._seller, self._employer = ledger, desk, seller, employer
        self._attempts = 1 + environment.retries
        self._max_inputs = min(environment.max_inputs or MAX_INPUTS, seller.service.max_inputs)
        self._budget = seller.budget(environment, Mode.BATCH)
        self._open: list[Job] = []
        self.suspects: set[bytes] = set()
        """The keys of texts that were refused together."""

    # --- collecting

    def collect(self) -> list[Haul]:
        """Look how far each open job is, and keep what came of those that have ended.

        Raises NewsfuseError, when all is kept, where something went wrong that handing in again would not mend.
        """
        hauls: list[Haul] = []
        failures: list[NewsfuseError] = []
        for row in open_jobs(self._ledger, self._seller.space):
            job = patiently(self._attempts, self._looked, row)
            if job and job.ended:
                try:
                    haul = patiently(self._attempts, self._collected, row, job)
                except ProviderError as error:
                    _explain(error, row)
                    raise
                self.suspects |= {row.keys[text] for part in haul.refused for text in part}
                hauls.append(haul)
                failures += _told(row, job, haul)
            elif job:
                self._open.append(job)
        if failures:
            raise failures[0]
        return hauls

    def _looked(self, row: Request) -> Job | None:
        """Where a job stands; None if it never came into being."""
        reference = str(row.reference)
        with blame(self._seller.origin):
            job = self._found(reference) if row.status == HANDING_IN else self._known(row, reference)
        if job is None:
            self._ledger.ended(row.id, "failed", 0, 0.0, "it never reached the provider")
        elif row.status == HANDING_IN:
            self._ledger.refer(row.id, job.reference)
        return job

    def _found(self, token: str) -> Job | None:
        """Looked for twice: a list may lag behind what has just been made."""
        if not (job := self._desk.find(token)):
            time.sleep(patience.BACKOFF_S * LAG)
            job = self._desk.find(token)
        return job

    def _known(self, row: Request, reference: str) -> Job:
        try:
            return self._desk.look(reference)
        except TransientError:
            raise
        except ProviderError as error:
            _explain(error, row)
            raise

    def _collected(self, row: Request, job: Job) -> Haul:
        """All that came of a job, in one transaction: it is open, or what it brought is there."""
        haul = Haul(np.zeros(len(row.keys), np.bool_))
        with self._ledger.transaction() as database:
            for part, answer in self._answers(job):
                self._take(database, row, haul, part, answer)
            haul.troubles += filter(None, [job.failure, _wrong_setting(haul)])
            haul.usd = haul.tokens * self._budget.usd_per_token
            settle(database, row.id, haul.status, haul.tokens, haul.usd, note=haul.note)
        return haul

    def _answers(self, job: Job) -> Iterator[tuple[range, Answer | NewsfuseError]]:
        answers = iter(self._desk.collect(job))
        while True:
            with blame(self._seller.origin):  # the plugin, not what is done with its answers
                found = next(answers, None)
            if found is None:
                return
            yield found

    def _take(self, database: Database, row: Request, haul: Haul, part: range, answer: Answer | NewsfuseError) -> None:
        """Keep what is good, note what is not."""
        texts = slice(part.start, part.stop)
        if part.stop > len(row.keys) or haul.seen[texts].any():
            log.warning("%s: one more answer for texts %d to %d is ignored", row.reference, part.start, part.stop)
            return
        haul.seen[texts] = True
        if isinstance(answer, Answer):
            with blame(self._seller.origin):
                require_usable(answer, (len(part), row.space.dimensions))
            keep(database, row.id, row.keys[texts], answer.vectors)
            haul.kept += len(part)
        else:
            haul.troubles.append(answer)
        if isinstance(answer, RefusedTextsError):
            haul.refused.append(part)
        haul.requests += not _heals(answer)
        haul.tokens += _billed(answer, round(row.tokens_estimated * len(part) / row.texts))

    # --- handing in

    def shared_out(self, missing: Lot, mode: Mode) -> tuple[Lot, Lot]:
        """What is to be bought at once, and what by jobs. Raises BusyError where that would buy texts twice.

        In batch mode too, texts that were refused together are asked for at once: that is how the
        one to blame is found, by halves, for next to nothing.
        """
        if mode is Mode.BATCH:
            return divided(missing, self.suspects)
        ordered, rest = divided(missing, on_order(self._ledger, self._seller.space))
        if len(ordered):
            found = f"{len(ordered):,} of {len(missing):,} texts without a vector are on order: {self._state()}"
            wait = "Buying them now would pay for them twice. Run again when the job is done"
            message = f"{found}. {wait}, or cancel it at the provider first: what it has done by then is kept"
            raise BusyError(message)
        return rest, ordered

    def hand_in(self, missing: Lot) -> NoReturn:
        """Hand in what is not on order yet. Raises BusyError, which says where all jobs stand; QuotaError."""
        _, lot = divided(missing, on_order(self._ledger, self._seller.space))
        self._require_hope()
        self._budget.require(lot.tokens)
        service = self._seller.service
        for cut in packed(lot.sizes, max_inputs=service.max_job_texts, max_tokens=service.max_job_bytes):
            self._open.append(self._handed_in(lot.part(*cut)))
        now = f"{len(lot):,} texts were handed in, for about ${self._budget.forecast_usd(lot.tokens):.4f}. "
        later = "The provider may take 24 hours. Run dvc repro again later: it looks, and collects what is done"
        never = f"A job that will never end is forgotten by: {GIVE_UP} and its name"
        message = f"{now if len(lot) else ''}Open jobs: {self._state()}. {later}. {never}"
        raise BusyError(message)

    def _require_hope(self) -> None:
        """Raise ProviderError if the latest job was paid for and brought nothing: the next one would do the same."""
        rows = [row for row in self._ledger.requests("done", "useless") if row.space == self._seller.space]
        if rows and rows[-1].status == "useless" and rows[-1].reference:
            found = f"the last job, {rows[-1].reference}, was paid for and brought nothing ({rows[-1].note})"
            message = f"{found}. Mend the settings, or buy at once, which stops after a request: embed.mode=direct"
            raise ProviderError(message)

    def _handed_in(self, lot: Lot) -> Job:
        self._employer.require()
        token = uuid.uuid4().hex
        request = self._ledger.sent(self._seller.space, lot.keys, lot.tokens, status=HANDING_IN, reference=token)
        job = patiently(self._attempts, self._submitted, request, lot, token, itertools.count())
        self._ledger.refer(request, job.reference)
        log.info("%s: handed in %d texts, about %d tokens", job.reference, len(lot), lot.tokens)
        return job

    def _submitted(self, request: int, lot: Lot, token: str, attempts: Iterator[int]) -> Job:
        """A new job, unless an earlier attempt has made it without our hearing of it."""
        with blame(self._seller.origin):
            if next(attempts) and (job := self._desk.find(token)):
                return job
            try:
                return self._desk.hand_in(lot.texts, self._parts(lot), token)
            except TransientError:
                raise
            except NewsfuseError as error:
                self._ledger.ended(request, "failed", 0, 0.0, f"{type(error).__name__}: {error}")
                raise

    def _state(self) -> str:
        done = (f", {job.done:,} of {job.requests:,} requests done" if job.requests else "" for job in self._open)
        return ", ".join(
            f"{job.reference} ({job.state}{how_far})" for job, how_far in zip(self._open, done, strict=True)
        )

    def _parts(self, lot: Lot) -> list[range]:
        limits = {"max_inputs": self._max_inputs, "max_tokens": self._seller.service.max_tokens}
        return [range(*cut) for cut in packed(lot.sizes, **limits)]


def _explain(error: ProviderError, row: Request) -> None:
    what = f"This is about the job {row.reference} ({row.texts:,} texts, handed in at {row.at})"
    ways = f"Use the key that it was handed in with; if it is gone for good, forget it: {GIVE_UP} {row.reference}"
    error.args = (f"{error}. {what}. {ways}",)


def _heals(answer: Answer | NewsfuseError) -> bool:
    """Whether a request had no turn, so that it may be handed in again."""
    return isinstance(answer, TransientError) and not isinstance(answer, UselessAnswerError)


def _billed(answer: Answer | NewsfuseError, estimate: int) -> int:
    """Tokens."""
    if isinstance(answer, Answer) and answer.tokens is not None:
        return answer.tokens
    return (
        estimate if isinstance(answer, Answer | UselessAnswerError) else 0
    )  # useless: it may be, and is better counted


def _wrong_setting(haul: Haul) -> NewsfuseError | None:
    if len(haul.refused) <= MOST_REFUSED:
        return None
    first = next(error for error in haul.troubles if isinstance(error, RefusedTextsError))
    many = f"the provider refuses {len(haul.refused)} of {haul.requests} requests, the first with: {first}"
    return DataError(f"{many}. So many refusals suggest a wrong setting (embed.model, the server)")


def _told(row: Request, job: Job, haul: Haul) -> list[NewsfuseError]:
    """Log what came of a job -> its failure, if any, in words."""
    kept = f"{haul.kept:,} of its {row.texts:,} texts are paid and kept (${haul.usd:.4f})"
    log.info("%s: %s, %s%s", job.reference, job.state, kept, f" ({haul.note})" if haul.note else "")
    if failure := haul.failure:
        failure.args = (f"{job.reference}: {failure}. {kept}; run again to continue",)
    return [failure] if failure else []
