"""What an embedder whose vectors cost something is: a place that turns one batch of texts into vectors.

The plugin does just that and says by the class of an error what went wrong: AuthenticationError,
QuotaError and ProviderError end the run, TransientError may heal, UselessAnswerError was billed all
the same, RefusedTextsError means that one of the texts is to blame. All else is newsfuse.paid's
business: what is missing, batches, retries, pace, budget, and that nothing is paid for twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    import numpy as np

    from newsfuse.errors import NewsfuseError


@dataclass(frozen=True)
class Allowance:
    """What a server says it will still take in this window of time, and how long the window lasts."""

    left: int
    """Requests or tokens."""
    reset_s: float


@dataclass(frozen=True)
class Answer:
    """What came back for a batch of n texts."""

    vectors: np.ndarray
    """float32 (n, dimensions), in the order of the texts."""
    tokens: int | None = None
    """What was billed, where the server tells."""
    requests: Allowance | None = None
    budget: Allowance | None = None
    """Of tokens."""


class Connection(Protocol):
    """An open connection to a service; several threads may use it at once."""

    def embed(self, texts: Sequence[str]) -> Answer:
        """Send one request. Raises the errors above, and asks again only where a refusal shows how to ask rightly."""
        ...


@dataclass(frozen=True)
class Job:
    """Where a job that was handed in stands."""

    reference: str
    """The provider's name for it."""
    state: str
    """The provider's word for it, such as in_progress."""
    ended: bool
    """Whether nothing more will come, and what came can be collected."""
    done: int = 0
    """Requests of it that have been answered."""
    requests: int = 0
    results: tuple[str, ...] = ()
    """Where the answers are, as the provider names it."""
    failure: NewsfuseError | None = None
    """Why the whole job came to nothing; TransientError where it may be handed in again as it is."""


class Desk(Connection, Protocol):
    """A connection that also takes jobs (`embed.mode: batch`): handed in now, collected within a day."""

    def hand_in(self, texts: Sequence[str], parts: Sequence[range], token: str) -> Job:
        """Hand in a job of one request for each part of the texts.

        `token`, unique, is stored with it. After a TransientError the job may exist all the same, and
        `find` tells; after any other error it does not.
        """
        ...

    def find(self, token: str) -> Job | None:
        """The job that was handed in with this token, should the program have died before it learnt its reference."""
        ...

    def look(self, reference: str) -> Job:
        """How far the job is."""
        ...

    def collect(self, job: Job) -> Iterator[tuple[range, Answer | NewsfuseError]]:
        """What came of each part of a job that has ended, in any order.

        A part that never had its turn may be absent, or a TransientError. An answer that cannot be
        told to belong to a part comes with an empty range. Raises TransientError where not all that
        was answered can be read.
        """
        ...


@dataclass(frozen=True)
class Service:
    """Where vectors come from, as an embedder's `build` describes it; nothing is opened or asked for yet."""

    connect: Callable[[], AbstractContextManager[Connection]]
    """Opens a connection. Raises AuthenticationError without a key."""
    host: str
    """Part of every vector's key: "" for the provider's own server, else host and port, or what tells a model apart."""
    usd_per_million_tokens: float | None
    """None where the price is not known."""
    max_inputs: int
    """Texts in one request."""
    max_tokens: int
    """Tokens in one request, of all its texts."""
    max_text_bytes: int
    """A longer text is cut there, at a whole character: UTF-8 bytes bound the tokens of a byte-level BPE from above."""
    max_in_flight: int = 64
    """Requests at once: 1 for a model on this machine."""
    batch_discount: float = 0.5
    """What `embed.mode: batch` costs, as a share of the price."""
    max_job_texts: int = 50_000
    """Texts in one job."""
    max_job_bytes: int = 8_000_000
    """UTF-8 bytes in one job, of all its texts."""
