"""A file from the first of its mirrors that has it, gone on with where an earlier download broke off.

A part is gone on with only where the server says that it sends the rest of the same file (If-Range and Content-Range,
https://www.rfc-editor.org/rfc/rfc9110#section-14); else the download starts over. Whether the whole is what was wanted
is for the caller to verify.
"""

import logging
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import NoReturn
from urllib.parse import urljoin, urlsplit

import requests

from newsfuse import __version__
from newsfuse.errors import IntegrityError, ProviderError, StorageError, TransientError
from newsfuse.fetching.mirrors import is_here, is_safe
from newsfuse.fetching.partial import Origin, Partial
from newsfuse.paid.patience import patiently

CHUNK = 8192
"""Bytes: when a connection breaks, what is read of a chunk is lost."""
MOST_BYTES = 4 << 30
"""Of a file whose size nobody knows beforehand. MIND's largest archive has half a GiB."""
MOST_REDIRECTS = 5
HEALING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
"""Refusals that may be over soon, beside those from 500."""
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")

log = logging.getLogger(__name__)
Show = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Terms:
    """What holds for a download wherever it comes from."""

    size: int | None = None
    """Its bytes, where they are known beforehand."""
    attempts: int = 6
    """At each mirror."""
    timeout_s: float = 60.0
    """How long a server may be silent."""
    room: float = 0.0
    """So many times its size have to be free beside it for what comes after."""


def download(urls: Sequence[str], partial: Partial, terms: Terms, show: Show) -> str:
    """Complete `partial`; returns the URL that did it. `show` is told how far it is: (bytes, of how many).

    Raises ProviderError, with a line for each mirror, when none sent it all; IntegrityError when one has a file of
    another size; StorageError. In all cases but the second `partial` stays, to be gone on with.
    """
    failures = []
    for url in urls:
        try:
            patiently(terms.attempts, Transfer(url, partial, terms, show).attempt)
        except ProviderError as error:
            failures.append(f"{url}: {error}")
        else:
            return url
    raise ProviderError("\n".join(failures))


@dataclass(frozen=True)
class Transfer:
    """From one mirror."""

    url: str
    partial: Partial
    terms: Terms
    show: Show

    def attempt(self) -> None:
        """Send one request and take what comes. Raises TransientError where it is not all and more may come yet."""
        origin = self.partial.origin(self.url)
        if origin and self.partial.size == origin.total:  # a run that was killed before it could verify
            return
        try:
            with self._explained(), _answer(self.url, self._headers(origin), self.terms.timeout_s) as answer:
                self._require_success(answer)
                start, total = self._extent(answer, origin)
                self._begin(answer, start, total)
                self._append(answer, start, total)
        except TransientError as error:
            log.warning("%s: %s", self.url, error)
            raise

    def _headers(self, origin: Origin | None) -> dict[str, str]:
        # without the second, a server may pack what is packed, and then its lengths are not those of the file
        headers = {"User-Agent": f"newsfuse/{__version__}", "Accept-Encoding": "identity"}
        if origin:
            headers["Range"] = f"bytes={self.partial.size}-"
            if origin.validator:
                headers["If-Range"] = origin.validator
        return headers

    def _require_success(self, answer: requests.Response) -> None:
        status, reason = answer.status_code, f"HTTP {answer.status_code} {answer.reason}"
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # the file is shorter now than our part of it
            self._start_over(reason)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in HEALING:
            raise TransientError(reason, _retry_after_s(answer.headers))
        if status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
            raise ProviderError(reason)
        if (packed := answer.headers.get("Content-Encoding", "identity")) != "identity":
            message = f"sends the file packed once more ({packed}), unasked"
            raise ProviderError(message)

    def _extent(self, answer: requests.Response, origin: Origin | None) -> tuple[int, int | None]:
        """(where the body begins in the file, bytes of the whole file where the server says)."""
        if answer.status_code == HTTPStatus.OK:  # the server knows no ranges, or has another version by now
            length = answer.headers.get("Content-Length", "")
            return 0, int(length) if length.isdecimal() else None
        text = answer.headers.get("Content-Range", "")
        found = RANGE.fullmatch(text)
        if not found or not origin or int(found[1]) != self.partial.size or int(found[3]) != origin.total:
            self._start_over(f"answered with the range {text!r}, which does not continue what is here")
        return int(found[1]), int(found[3])

    def _begin(self, answer: requests.Response, start: int, total: int | None) -> None:
        if total is not None:
            self._require_size(total)
        if start:
            log.info("%s: going on at byte %d of %d", self.url, start, total)
        else:
            self.partial.begin(Origin.of(self.url, total, answer.headers))
        self._require_room(start, total or self.terms.size or 0)

    def _append(self, answer: requests.Response, start: int, total: int | None) -> None:
        done, most = start, total or self.terms.size or MOST_BYTES
        with self.partial.path.open("ab") as file:
            for piece in answer.iter_content(CHUNK):
                done += len(piece)
                if done > most:
                    self._refuse(f"sends more than {most:,} bytes")
                file.write(piece)
                self.show(done, total)
        if total is not None and done < total:
            message = f"broke off after {done:,} of {total:,} bytes"
            raise TransientError(message)
        self._require_size(done)

    def _require_size(self, found: int) -> None:
        if self.terms.size not in {None, found}:
            self._refuse(f"has {found:,} bytes, expected {self.terms.size:,}")
        if found > MOST_BYTES:
            self._refuse(f"has {found:,} bytes, more than the {MOST_BYTES:,} allowed")

    def _require_room(self, start: int, total: int) -> None:
        folder, missing = self.partial.path.parent, total - start
        needed, free = missing + math.ceil(total * self.terms.room), shutil.disk_usage(folder).free
        if free < needed:
            message = (
                f"{folder}: {free:,} bytes are free, and about {needed:,} are needed: {missing:,} to download "
                "and the rest to unpack. Free some space and run again"
            )
            raise StorageError(message)

    def _start_over(self, why: str) -> NoReturn:
        self.partial.discard()
        message = f"{why}: starting over"
        raise TransientError(message)

    def _refuse(self, why: str) -> NoReturn:
        self.partial.discard()
        message = f"{self.url}: {why}"
        raise IntegrityError(message)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (requests.exceptions.SSLError, requests.exceptions.ProxyError) as error:  # neither heals by itself
            raise ProviderError(_reason(error)) from error
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            have = self.partial.size
            message = f"{_reason(error)}{f' (after {have:,} bytes)' if have else ''}"
            raise TransientError(message) from error
        except requests.RequestException as error:
            raise ProviderError(_reason(error)) from error
        except OSError as error:  # after those of requests, which are OSErrors too
            message = (
                f"{self.partial.path}: {error.strerror or error}. What was downloaded is kept; "
                "free some space or mend the permissions, and the same command goes on from there"
            )
            raise StorageError(message) from error


class Stationary(requests.Session):
    """Looks at no redirect, not even to prepare for it: the base class would read all of the redirect's own body."""

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002 - as in the base class
        """Nowhere."""


@contextmanager
def _answer(url: str, headers: Mapping[str, str], timeout_s: float) -> Iterator[requests.Response]:
    """The answer at the end of all redirects, none of which may lead to where others could listen."""
    with Stationary() as session:
        for _ in range(MOST_REDIRECTS + 1):
            session.trust_env = not is_here(url)  # no proxy to this machine
            with session.get(url, headers=headers, stream=True, allow_redirects=False, timeout=timeout_s) as answer:
                if not answer.is_redirect:
                    yield answer
                    return
                url = _next(url, answer.headers["Location"])
    message = f"redirects more than {MOST_REDIRECTS} times"
    raise ProviderError(message)


def _next(url: str, location: str) -> str:
    with suppress(ValueError):  # what is no URL leads nowhere
        target = urljoin(url, location)
        if is_safe(target) and (is_here(url) or not is_here(target)):
            log.info("%s redirects to %s", urlsplit(url).netloc, urlsplit(target).netloc)
            return target
    message = f"redirects to {location}, which is not followed: only https is"
    raise ProviderError(message)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """What the server asks for, None where it is absent or a date."""
    text = headers.get("Retry-After", "")
    return float(text) if text.isdecimal() and float(text) else None


def _reason(error: requests.RequestException) -> str:
    """The innermost cause: what requests and urllib3 wrap around it says the URL again, and where an object is."""
    cause: BaseException = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    return f"{type(error).__name__}: {cause}"
