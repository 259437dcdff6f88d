"""Embeddings by a model that runs on this machine, with sentence-transformers. Free; what they cost is time.

`embed.model` is a folder, or the name of a model on the Hugging Face hub. What is on this disk is read from there
and the network is not asked. A model that is not is downloaded into the hub's own cache, with a warning that says
so; HF_HUB_OFFLINE=1 forbids it. Code that comes with a model is never run, and no weights but safetensors are read.

A vector's key holds what is in a folder, so that a model trained anew does not get its old vectors; of a model on
the hub it holds the name and the `revision`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from newsfuse import Answer, Cost, Embedder, Options, Service, hookimpl
from newsfuse.errors import ParamsError, PluginError, ProviderError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)

ORGANISATION = "sentence-transformers"  # whose models may be named without it, as the library has it
DEFAULT_MODEL = f"{ORGANISATION}/all-MiniLM-L6-v2"
HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")  # all else can only be a folder

# A model has no limit of its own: it reads the first max_seq_length tokens of any text, 32 texts at a time.
MAX_INPUTS = 256  # a few seconds on two cores, which is what a crash loses and how often progress shows
MAX_TEXT_BYTES = 1_000_000  # more than any model reads; a text beyond would only keep the tokeniser busy
MAX_TOKENS = MAX_INPUTS * MAX_TEXT_BYTES  # of any such texts


class SentenceTransformersOptions(Options):
    """Settings of the sentence_transformers embedder."""

    prompt: str = ""
    """Put in front of every text, as some models want it ("query: "). Empty: the model's own default, if it has one."""
    revision: str = ""
    """Commit, tag or branch on the hub; empty: the main branch."""


@dataclass(frozen=True)
class Local:
    """A loaded model."""

    model: SentenceTransformer
    name: str
    prompt: str

    def embed(self, texts: Sequence[str]) -> Answer:
        """float32 (len(texts), E), as the model makes them; ProviderError where they are not finite."""
        made = self.model.encode(list(texts), prompt=self.prompt or None, show_progress_bar=False)
        vectors = np.asarray(made, np.float32)
        if not np.isfinite(vectors).all():
            msg = f"'{self.name}' gave vectors that are not finite: damaged weights, or too few bits for them"
            raise ProviderError(msg)
        return Answer(vectors)


def build(
    corpus: Sequence[str],
    model: str | None,
    dimensions: int,
    options: SentenceTransformersOptions,
) -> Service:
    """The model as a service that costs nothing; it is loaded only once a text has no vector yet.

    Connecting raises ParamsError, PluginError and ProviderError.
    """
    return Service(
        connect=partial(connected, model or DEFAULT_MODEL, dimensions, options),
        host=fingerprint(Path(model or DEFAULT_MODEL)),
        usd_per_million_tokens=0.0,
        max_inputs=MAX_INPUTS,
        max_tokens=MAX_TOKENS,
        max_text_bytes=MAX_TEXT_BYTES,
        max_in_flight=1,
    )


def fingerprint(folder: Path) -> str:
    """Which model a folder holds, by all of its files; "" where there is no such folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder)} {sha256(path)}".encode())
    return f"sha256 {digest.hexdigest()[:16]}" if files else ""


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def connected(name: str, dimensions: int, options: SentenceTransformersOptions) -> Iterator[Local]:
    """The loaded model, if its vectors are as long as asked for: nothing is cut or filled up."""
    local = Local(loaded(name, options.revision or None), name, options.prompt)
    width = local.embed(["newsfuse"]).vectors.shape[1]  # not every model says it
    if width != dimensions:
        found = f"'{name}' makes vectors of {width} numbers, found {dimensions}"
        msg = f"params.yaml: embed.dimensions: {found}. Set it: -S embed.dimensions={width}"
        raise ParamsError(msg)
    yield local


# --- loading


def loaded(name: str, revision: str | None) -> SentenceTransformer:
    """The model from this disk, else from the hub. Raises ParamsError, PluginError and ProviderError."""
    require_package()
    if "/" not in name and may_be_on_hub(name):
        name = f"{ORGANISATION}/{name}"
    try:
        return opened(name, revision, local=True)
    except ProviderError as error:
        if forbidden := no_download(name):
            msg = f"params.yaml: embed.model: {error}. {forbidden}"
            raise ParamsError(msg) from error
        avoid = "To avoid that: HF_HUB_OFFLINE=1, or a folder as embed.model"
        log.warning("%s. Downloading it into the hub's cache, which may take gigabytes. %s", error, avoid)
    return opened(name, revision, local=False)


def require_package() -> None:
    """Raise PluginError where sentence-transformers is not installed, or not whole."""
    # without it the hub's client calls home, also for a model on this disk; it reads the variable when it is imported
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import sentence_transformers  # noqa: F401, PLC0415 - see `opened`
    except ImportError as error:
        msg = f"sentence_transformers: the package cannot be imported ({error}). Run: pip install 'newsfuse[local]'"
        raise PluginError(msg) from error


def opened(name: str, revision: str | None, *, local: bool) -> SentenceTransformer:
    """The model, from files of this disk alone if `local`; ProviderError says why it cannot be had."""
    import torch  # noqa: PLC0415 - seconds of import, not wanted where plugins are only listed

    try:
        return read(name, revision, local=local)
    except (ParamsError, MemoryError, torch.OutOfMemoryError):  # a full memory is told as such elsewhere
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:300].rstrip(".")
        msg = f"'{name}' cannot be loaded from {'this disk' if local else 'the Hugging Face hub'}: {words}"
        raise ProviderError(msg) from error


def read(name: str, revision: str | None, *, local: bool) -> SentenceTransformer:
    """The model; whatever the library raises."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - see `opened`

    from newsfuse.device import device  # noqa: PLC0415 - imports torch

    require_modules(name, revision, local=local)
    with safetensors_alone():
        return SentenceTransformer(
            name,
            revision=revision,
            device=str(device()),
            local_files_only=local,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )


def require_modules(name: str, revision: str | None, *, local: bool) -> None:
    """Raise FileNotFoundError without a modules.json, for which the library puts a guess: the mean over tokens.

    Other programs leave models without it in the cache, and the guess would be kept for good.
    """
    from sentence_transformers.util import load_file_path  # noqa: PLC0415 - see `opened`

    if load_file_path(name, "modules.json", revision=revision, local_files_only=local):
        return
    if Path(name).is_dir():
        msg = "the folder has no modules.json, so sentence-transformers did not save it"
    elif not may_be_on_hub(name):
        msg = "there is no such folder"
    elif local:
        msg = "it is neither a folder nor in the hub's cache"
    else:
        msg = "the hub does not answer, or has no sentence-transformers model of that name"
    raise FileNotFoundError(msg)


@contextlib.contextmanager
def safetensors_alone() -> Iterator[None]:
    """Keep torch.load from the library, which falls back on it for small layers whatever `use_safetensors` says."""
    import torch  # noqa: PLC0415 - see `opened`

    load, torch.load = torch.load, refuse
    try:
        yield
    finally:
        torch.load = load


def refuse(*_args: object, **_kwargs: object) -> NoReturn:
    """Stand in for torch.load."""
    msg = "some of its weights are in a format that can run code, and newsfuse reads none but safetensors"
    raise ValueError(msg)


# --- hub


def may_be_on_hub(name: str) -> bool:
    """Whether the name is one that the hub may know, and no folder of this disk."""
    return bool(HUB_NAME.fullmatch(name)) and not Path(name).is_dir()


def no_download(name: str) -> str:
    """Why a model may not be downloaded, and what to do instead; empty if it may."""
    if not may_be_on_hub(name):
        return "Set embed.model to a folder that sentence-transformers saved, or to a name on the Hugging Face hub"
    offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    if offline.upper() in {"1", "ON", "YES", "TRUE"}:  # as the hub's own client reads them
        return "HF_HUB_OFFLINE forbids the download: unset it for one run, or set embed.model to a folder"
    return ""


@hookimpl
def newsfuse_embedders() -> list[Embedder]:
    """Offer `sentence_transformers`."""
    return [
        Embedder(
            "sentence_transformers",
            build,
            SentenceTransformersOptions,
            default_model=DEFAULT_MODEL,
            cost=Cost.TIME,
        )
    ]
