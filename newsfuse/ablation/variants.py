"""Which runs an ablation is made of: subsets of the encoders, fusions and seeds, each under a name of its own."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from newsfuse.ablation import overrides
from newsfuse.ablation.sources import Sources
from newsfuse.errors import ParamsError
from newsfuse.params import Params, load
from newsfuse.plugin import Fusion

LONGEST = 60
"""Characters of the encoders in a name: with its hash, a reference of Git is also the name of a file."""
HASH = 8
"""Characters of a hash in a name."""


@dataclass(frozen=True)
class Asked:
    """What a user asks for. Empty fusions and seeds: the one that params.yaml has."""

    fusions: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    settings: tuple[str, ...] = ()
    """Others, as `dvc exp run -S` takes them."""
    leave_one_out: bool = False

    @classmethod
    def parse(cls, fusions: str, seeds: str, settings: Sequence[str], *, leave_one_out: bool) -> "Asked":
        """Lists as a user types them: `late,gate` and `0,1,2`, or nothing. Raises ParamsError for anything else."""
        numbers = _listed("--seeds", seeds)
        if wrong := [each for each in numbers if not each.isdecimal()]:
            message = (
                f"--seeds {seeds}: {wrong[0]!r} is no seed; expected whole numbers from 0 on, such as --seeds 0,1,2"
            )
            raise ParamsError(message)
        return cls(_listed("--fusions", fusions), tuple(map(int, numbers)), tuple(settings), leave_one_out)


@dataclass(frozen=True)
class Variant:
    """One run."""

    encoders: tuple[str, ...]
    fusion: str
    seed: int
    settings: tuple[str, ...]
    """All that it changes in params.yaml, as `dvc exp run -S` takes them."""
    name: str = ""
    """Of its experiment: what was chosen, and a hash of all that decides the result."""


def variants(asked: Asked, root: Path) -> list[Variant]:
    """The runs of the project at `root`, those of one seed after the other; of each the one with all encoders first.

    Nothing is run and nothing changed. Raises ParamsError and PluginError as `newsfuse.params.load` does, for each
    fusion; ParamsError and DataError as `Sources.of`.
    """
    given = overrides.parsed(asked.settings)
    params, raw = _checked(given, asked.fusions, root)
    sources = Sources.of(root, raw).identity
    fusions, seeds = asked.fusions or (params.fusion,), asked.seeds or (params.seed,)
    subsets = list(_subsets(params.chosen_encoders, leave_one_out=asked.leave_one_out))
    chosen = ((seed, fusion, subset) for seed in seeds for fusion in fusions for subset in subsets)
    return [_variant(subset, fusion, seed, given, raw, sources) for seed, fusion, subset in chosen]


def _checked(settings: Sequence[str], fusions: Sequence[str], root: Path) -> tuple[Params, dict[str, Any]]:
    """The settings with which all runs begin, checked with each fusion; and as params.yaml has them."""
    with overrides.tried(settings, root) as trial:
        params, registry = load(root, trial)
        raw = yaml.safe_load(trial.read_text(encoding="utf-8"))
        mistakes = [registry.unknown(Fusion, fusion, "--fusions") for fusion in fusions]
        if told := [mistake for mistake in mistakes if mistake]:
            raise ParamsError("\n".join(told))
    for fusion in fusions:
        with overrides.tried([*settings, f"fusion={fusion}"], root) as trial:
            load(root, trial)
    return params, raw


def _subsets(encoders: tuple[str, ...], *, leave_one_out: bool) -> Iterator[tuple[str, ...]]:
    """All of them, then without one, and so on."""
    if leave_one_out and len(encoders) == 1:
        found = f"--leave-one-out: only one encoder is on ({encoders[0]}), and without it there is none"
        message = f"{found}. Add another, such as: -S encoders.llm=true"
        raise ParamsError(message)
    least = len(encoders) - 1 if leave_one_out else 1
    for size in range(len(encoders), least - 1, -1):
        yield from combinations(encoders, size)


def _variant(  # noqa: PLR0917 - what a run is made of
    encoders: tuple[str, ...],
    fusion: str,
    seed: int,
    given: tuple[str, ...],
    raw: dict[str, Any],
    sources: str,
) -> Variant:
    on = {name: name in encoders for name in raw["encoders"]}
    switched = tuple(f"encoders.{name}=false" for name, was in raw["encoders"].items() if was and not on[name])
    variant = Variant(encoders, fusion, seed, (*given, *switched, f"fusion={fusion}", f"seed={seed}"))
    params = raw | {"encoders": on, "fusion": fusion, "seed": seed}
    return replace(variant, name=_name(variant, params, sources))


def _name(variant: Variant, params: dict[str, Any], sources: str) -> str:
    # str: what YAML takes for a date
    decides = json.dumps([params, sources], sort_keys=True, default=str)
    chosen = f"{plain('+'.join(variant.encoders))}-{plain(variant.fusion)}-{variant.seed}"
    return f"{chosen}-{hashlib.sha256(decides.encode()).hexdigest()[:HASH]}"


def plain(text: str) -> str:
    """`text` as far as a reference of Git, a shell and `newsfuse compare` take it for a name."""
    plain = re.sub(r"[^A-Za-z0-9_+-]", "_", text)
    if len(plain) <= LONGEST:
        return plain
    return f"{plain[: LONGEST - HASH - 1]}_{hashlib.sha256(text.encode()).hexdigest()[:HASH]}"


def _listed(option: str, words: str) -> tuple[str, ...]:
    found = tuple(word.strip() for word in words.split(",")) if words else ()
    if not all(found) or len(set(found)) < len(found):
        message = f"{option} {words}: expected names with commas between, each once"
        raise ParamsError(message)
    return found
