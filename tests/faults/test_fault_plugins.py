"""Plugins that are broken: told by name before anything is paid, and in nobody's way once they are off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from faults.buyer import BATCHES

if TYPE_CHECKING:
    from faults.book import Measured
    from faults.buyer import Buyer
    from openai_server import OpenAIServer

GOOD = """\
from newsfuse import Encoder, hookimpl


def build(inputs, dim, options):
    raise NotImplementedError


@hookimpl
def newsfuse_encoders():
    return [Encoder("mine", build)]
"""
MINE = "newsfuse-mine 0.1.0 (newsfuse_mine)"
LISTED = "params.yaml: plugin_packages"
ONE = "newsfuse-mine: 0.1.0"


@dataclass(frozen=True)
class Broken:
    """What is wrong with a package, and what must be told."""

    done: str
    told: str
    """With {file} for where its module is."""
    source: str = GOOD
    version: str = "0.1.0"
    listed: str = ONE


FAULTS = {
    "import": Broken(
        "an encoder of a package imports what is not there",
        f"{MINE}: cannot be loaded: ModuleNotFoundError: No module named 'no_such_module' ({{file}}:2)",
        f"\nimport no_such_module\n{GOOD}",
    ),
    "exit": Broken(
        "an encoder of a package ends the program when it is imported",
        f"{MINE}: cannot be loaded: SystemExit: 0 ({{file}}:2)",
        f"\nraise SystemExit(0)\n{GOOD}",
    ),
    "hook": Broken(
        "a hook with an argument too many",
        "Argument(s) {{'dim'}} are declared in the hookimpl but can not be found in the hookspec ({file}:8)",
        GOOD.replace("newsfuse_encoders()", "newsfuse_encoders(dim)"),
    ),
    "build": Broken(
        "`build` with an argument too few",
        f"{MINE}: Encoder 'mine': build takes (inputs, dim), expected a function build(inputs, dim, options): "
        "too many positional arguments ({file}:4)",
        GOOD.replace("dim, options", "dim"),
    ),
    "clash": Broken(
        "two packages with an encoder of one name",
        f"{LISTED}: {MINE} and newsfuse-same 0.1.0 (newsfuse_same) both offer 'mine'; list one of them",
        listed=f"{ONE}, newsfuse-same: 0.1.0",
    ),
    "absent": Broken(
        "a package that is not installed",
        f"{LISTED}: 'newsfuse-absent' is not installed. Install it: pip install newsfuse-absent==0.1.0",
        listed=f"{ONE}, newsfuse-absent: 0.1.0",
    ),
    "version": Broken(
        "a package in another version",
        f"{LISTED}: 'newsfuse-mine' 0.1.0 is asked for, 0.2.0 is installed. Install the one: pip install "
        'newsfuse-mine==0.1.0, or list the other: {{"newsfuse-mine": "0.2.0"}}',
        version="0.2.0",
    ),
}


def install(buyer: Buyer, name: str, source: str, version: str) -> None:
    """A package with an encoder called 'mine'."""
    site, module = buyer.root.parent / "site", name.replace("-", "_")
    info = site / f"{module}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[newsfuse]\nmine = {module}\n", encoding="utf-8")
    (site / f"{module}.py").write_text(source, encoding="utf-8")


def equipped(buyer: Buyer, broken: Broken) -> Buyer:
    """One with the package installed beside another, listed, and its encoder turned on."""
    install(buyer, "newsfuse-mine", broken.source, broken.version)
    install(buyer, "newsfuse-same", GOOD, "0.1.0")
    buyer.edit("params.yaml", r"encoders:[^\n]*\n(  .*\n)+", "encoders:\n  category: true\n  mine: true\n")
    buyer.edit("params.yaml", r"plugin_packages:.*", f"plugin_packages: {{{broken.listed}}}")
    return buyer.under(PYTHONPATH=str(buyer.root.parent / "site"))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_plugin_is_told_by_name_before_anything_is_paid(
    buyer: Buyer, server: OpenAIServer, measured: Measured, fault: str
) -> None:
    broken = FAULTS[fault]
    refused = equipped(buyer, broken).embed()
    assert (refused.code, server.requests, buyer.ledger.exists()) == (9, 0, False), refused.text
    told = broken.told.format(file=buyer.root.parent / "site" / "newsfuse_mine.py")
    assert refused.text.startswith("ERROR: ")
    assert told in refused.text
    assert "Traceback" not in refused.text
    measured(18, broken.done, code=9, requests=server.requests, twice=0)


def test_a_broken_plugin_is_in_nobodys_way_when_it_is_off(
    buyer: Buyer, server: OpenAIServer, unbroken: dict[str, str], measured: Measured
) -> None:
    host = equipped(buyer, FAULTS["import"])
    host.edit("params.yaml", "  mine: true\n", "  mine: false\n")
    assert host.embed().code == 0
    assert buyer.artifact() == unbroken
    assert server.requests == BATCHES
    done = "a package that cannot be imported is listed, its encoder off"
    measured(18, done, code=0, requests=BATCHES, twice=server.twice)
