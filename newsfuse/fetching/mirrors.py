"""MIND's archives: which there are, where they can be had, and what is known of each before it is downloaded."""

import ipaddress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from newsfuse.environment import Environment
from newsfuse.errors import ParamsError
from newsfuse.fetching.fingerprint import Fingerprint

Dataset = Literal["demo", "small", "large"]
Split = Literal["train", "dev", "test"]

MIRRORS = ("https://recodatasets.z20.web.core.windows.net/newsrec",)
"""Tried in order. MIND's first host, mind201910small.blob.core.windows.net, refuses the public since 2024."""
VARIABLE = "NEWSFUSE_MIRROR"


@dataclass(frozen=True)
class Archive:
    """One zip file of MIND."""

    dataset: Dataset
    split: Split
    known: Fingerprint | None = None
    """None where nobody has published one: then the first download is taken at its word and remembered."""

    @property
    def name(self) -> str:
        """Its file name, the same on all mirrors."""
        return f"MIND{self.dataset}_{self.split}.zip"


ARCHIVES = (
    Archive("demo", "train"),
    Archive("demo", "dev"),
    # md5 and size as other public projects recorded them
    Archive("small", "train", Fingerprint(52_952_752, "md5", "b20a6bc96c834efe55eda7a37d1ac9e4")),
    Archive("small", "dev", Fingerprint(30_948_560, "md5", "e3bac5485be8fc7a9934e85e3b78615f")),
    Archive("large", "train"),
    Archive("large", "dev"),
    Archive("large", "test"),
)


def archives(dataset: Dataset) -> list[Archive]:
    """Those of one data set, train first."""
    return [archive for archive in ARCHIVES if archive.dataset == dataset]


def chosen(environment: Environment) -> list[str]:
    """Where to look, in order: NEWSFUSE_MIRROR (URLs with spaces between), else MIRRORS. Raises ParamsError."""
    bases = (environment.mirror or "").split() or list(MIRRORS)
    for base in bases:
        _check(base)
    return [base.rstrip("/") for base in bases]


def _check(base: str) -> None:
    expected = "expected https://... (or http://... on this machine), several with spaces between"
    try:
        parts = urlsplit(base)
        secret = parts.username or parts.password
        allowed = is_safe(base)
    except ValueError as error:  # such as a port that is no number
        message = f"{VARIABLE}: '{base}' is no URL; {expected}"
        raise ParamsError(message) from error
    if secret:
        message = f"{VARIABLE}: holds a user name or a password; put them into ~/.netrc, which is read"
        raise ParamsError(message)
    if not allowed or parts.query or parts.fragment:
        message = f"{VARIABLE}: '{base}' is no place to download from; {expected}"
        raise ParamsError(message)


def is_safe(url: str) -> bool:
    """Whether nobody on the way can read or change what `url` answers. Raises ValueError for what is no URL."""
    parts = urlsplit(url)
    _ = parts.port  # raises on a port that is no number
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and is_here(url)))


def is_here(url: str) -> bool:
    """Whether the host of `url` is this machine."""
    hostname = urlsplit(url).hostname
    try:
        return hostname == "localhost" or ipaddress.ip_address(hostname or "").is_loopback
    except ValueError:
        return False
