"""What `make audit` says of known vulnerabilities, and that it never takes silence for good news; `make sbom`."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from importlib.metadata import distributions
from typing import TYPE_CHECKING, Any

import pytest
from openai_server import Http
from packaging.utils import canonicalize_name
from project import ROOT

from scripts.audit import (
    CLEAN,
    FOUND,
    LONGEST_DAYS,
    UNKNOWN,
    Allowance,
    Report,
    UnusableError,
    allowances,
    pinned,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TODAY = dt.date(2026, 11, 28)
TOMORROW, YESTERDAY = TODAY + dt.timedelta(days=1), TODAY - dt.timedelta(days=1)
PINNED = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8")))
ENTRY = '[[exception]]\nid = "GHSA-1"\npackage = "lamp"\nreason = "never lit"\nuntil = {until}\n'


def report(*faults: tuple[str, str], skipped: tuple[str, ...] = ()) -> Report:
    """Of a package `lamp` with these vulnerabilities, each with its other name, and of others not looked up."""
    vulns = [{"id": name, "aliases": [alias], "fix_versions": ["2.0"]} for name, alias in faults]
    missing = [{"name": name, "skip_reason": "not found"} for name in skipped]
    return Report.of(json.dumps({"dependencies": [{"name": "lamp", "version": "1.0", "vulns": vulns}, *missing]}))


def allowance(until: dt.date = TODAY, name: str = "GHSA-1", package: str = "lamp") -> Allowance:
    return Allowance(name, package, "never lit", until)


# the verdict


def test_a_vulnerability_is_told_with_all_its_names_and_what_mends_it() -> None:
    code, lines = verdict(report(("PYSEC-1", "GHSA-1")), [], TODAY)
    assert (code, lines) == (FOUND, ["lamp 1.0: PYSEC-1, GHSA-1 (mended in 2.0)"])


@pytest.mark.parametrize("name", ["PYSEC-1", "GHSA-1"])
def test_an_exception_holds_until_its_last_day_by_any_name(name: str) -> None:
    found = report(("PYSEC-1", "GHSA-1"))
    assert verdict(found, [allowance(TODAY, name)], TODAY)[0] == CLEAN
    code, lines = verdict(found, [allowance(YESTERDAY, name)], TODAY)
    assert code == FOUND
    assert lines[0].startswith("lamp 1.0: PYSEC-1")
    assert lines[1].startswith(f"audit.toml: {name} of lamp was allowed until 2026-11-27")


def test_an_exception_is_for_one_package_and_one_vulnerability() -> None:
    found = report(("PYSEC-1", "GHSA-1"), ("PYSEC-2", "GHSA-2"))
    code, lines = verdict(found, [allowance()], TODAY)
    assert (code, lines) == (FOUND, ["lamp 1.0: PYSEC-2, GHSA-2 (mended in 2.0)"])
    assert verdict(report(("PYSEC-1", "GHSA-1")), [allowance(package="lantern")], TODAY)[0] == FOUND


def test_an_exception_of_no_use_must_go() -> None:
    code, lines = verdict(report(), [allowance()], TODAY)
    assert (code, lines) == (FOUND, ["audit.toml: GHSA-1 of lamp is not known any more: take the exception out"])


def test_what_could_not_be_looked_up_is_no_good_news() -> None:
    many = tuple(f"package-{number}" for number in range(9))
    code, lines = verdict(report(skipped=many), [allowance(package="package-1")], TODAY)
    assert code == UNKNOWN  # and whether the exception is of use cannot be told
    assert lines[-2:] == ["... and 4 more", "NOT AUDITED: 9 of 10 packages could not be looked up"]
    code, lines = verdict(report(("PYSEC-1", "GHSA-1"), skipped=("lantern",)), [], TODAY)
    assert code == FOUND
    assert lines[-1] == "NOT AUDITED: 1 of 2 packages could not be looked up"


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"dependencies": [{"name": "lamp"}]}', '{"dependencies": 3}'])
def test_what_is_no_report_is_not_taken_for_one(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Report.of(text)


# exceptions


def test_the_exceptions_that_ship_can_be_used() -> None:
    today = dt.datetime.now(dt.UTC).date()
    assert verdict(report(), allowances(ROOT / "scripts/audit.toml", today), today)[0] in {CLEAN, UNKNOWN}
    example = (ROOT / "scripts/audit.toml").read_text(encoding="utf-8").partition("\n#\n")[2]
    assert re.findall(r"(?m)^# (\w+) =", example) == ["id", "package", "reason", "until"]


def test_an_exception_is_read(tmp_path: Path) -> None:
    path = tmp_path / "audit.toml"
    path.write_text(ENTRY.format(until=TOMORROW))
    assert allowances(path, TODAY) == [allowance(TOMORROW)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ENTRY.format(until=f'"{TOMORROW}"'), "exception 1: until is '2026-11-29'; expected a date"),
        (ENTRY.format(until=f"{TOMORROW}T00:00:00"), "expected a date such as 2026-11-28"),
        (ENTRY.format(until=TODAY + dt.timedelta(days=LONGEST_DAYS + 1)), "is more than 184 days ahead"),
        ('[[exception]]\nid = "GHSA-1"', "exception 1: has id; expected id, package, reason, until"),
        (ENTRY.format(until=TOMORROW).replace('"never lit"', '""'), "expected id, package, reason, until"),
        (ENTRY.format(until=TOMORROW) + "more = 1", "expected id, package, reason, until"),
        ("[[exception", "audit.toml: "),
    ],
)
def test_an_exception_that_cannot_be_used_is_told(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "audit.toml").write_text(text)
    with pytest.raises(UnusableError, match=re.escape(words)):
        allowances(tmp_path / "audit.toml", TODAY)


# the programs


def test_both_programs_and_all_they_need_are_pinned_and_as_in_constraints() -> None:
    text = (ROOT / "scripts/security.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert {"pip_audit", "cyclonedx-bom"} <= {*pins}
    assert not {"pip_audit", "cyclonedx-bom"} & {*PINNED}  # nobody who installs newsfuse gets them
    assert {name: version for name, version in pins.items() if PINNED.get(name, version) != version} == {}


def test_what_the_images_and_the_audit_itself_have_besides_is_looked_up_too() -> None:
    versions = dict(line.split("==") for line in pinned(ROOT))
    assert len(versions) == len(pinned(ROOT))  # pip-audit takes one version of each
    assert {canonicalize_name(name): version for name, version in PINNED.items()}.items() <= versions.items()
    assert {"pip-audit", "setuptools", "nvidia-cudnn-cu13", "cuda-bindings"} <= versions.keys()
    assert not [version for version in versions.values() if not re.fullmatch(r"[\w.]+", version)]


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the programs: that of `make audit`, or a new one."""
    made, pins = ROOT / ".venv/security/installed", ROOT / "scripts/security.txt"
    if made.exists() and made.stat().st_mtime >= pins.stat().st_mtime:
        return made.parent / "bin"
    folder = tmp_path_factory.mktemp("security")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(folder / "bin/python"), "-m", "pip", "install", "-q", "-r", str(pins)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip-audit and cyclonedx-bom cannot be installed: {done.stderr.splitlines()[-1]}")
    return folder / "bin"


class Service(BaseHTTPRequestHandler):
    """OSV's service, https://google.github.io/osv.dev/post-v1-query/, which knows of one vulnerability."""

    asked: list[dict[str, Any]]
    status: int

    def do_POST(self) -> None:  # noqa: N802 - the name that the base class calls
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(query)
        package = query["package"]
        events = [{"introduced": "0"}, {"fixed": "99.0"}]
        fault = {
            "id": "GHSA-1",
            "affected": [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}],
        }
        body = json.dumps({"vulns": [fault]} if package["name"] == "pluggy" else {}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def service() -> Iterator[tuple[str, type[Service]]]:
    """Its address, and what it was asked."""
    own = type("Own", (Service,), {"asked": [], "status": 200})
    with Http(("127.0.0.1", 0), own) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/query", own
        server.shutdown()


def audit(tools: Path, url: str) -> subprocess.CompletedProcess[str]:
    """The program of `make audit`, by its own Python, asking there."""
    where = {"PIP_AUDIT_VULNERABILITY_SERVICE": "osv", "PIP_AUDIT_OSV_URL": url}
    command = [str(tools / "python"), str(ROOT / "scripts/audit.py")]
    return subprocess.run(command, env=os.environ | where, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_package_is_looked_up_and_what_is_known_is_told(tools: Path, service: tuple[str, type[Service]]) -> None:
    url, own = service
    done = audit(tools, url)
    assert done.returncode == FOUND
    assert done.stderr == f"pluggy {PINNED['pluggy']}: GHSA-1 (mended in 99.0)\n"
    assert sorted(f"{each['package']['name']}=={each['version']}" for each in own.asked) == pinned(ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unreachable", "out of order"])
def test_a_service_that_does_not_answer_is_told_by_its_own_exit_code(
    tools: Path, service: tuple[str, type[Service]], kind: str
) -> None:
    url, own = service
    own.status = 503
    done = audit(tools, "http://127.0.0.1:9/" if kind == "unreachable" else url)
    assert done.returncode == UNKNOWN
    assert done.stderr.endswith("NOT AUDITED: pip-audit gave no answer, so nothing is known of any package\n")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


VALID = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
sys.exit(str(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()) or ""))
"""


@pytest.mark.slow
def test_make_sbom_names_all_that_is_installed_as_cyclonedx_has_it(tools: Path, tmp_path: Path) -> None:
    printed = subprocess.run(["make", "-n", "sbom"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    recipe = next(line for line in printed.splitlines() if "cyclonedx-py environment" in line)
    texts = []
    for name in ("once.json", "again.json"):
        own = {
            ".venv/security/bin": str(tools),
            ".venv/bin/python": sys.executable,
            ".sbom.json.draft": str(tmp_path / name),
        }
        command = recipe
        for path, here in own.items():
            command = command.replace(path, shlex.quote(here))
        subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, check=True)
        texts.append((tmp_path / name).read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    assert str(ROOT) not in texts[0]
    checked = subprocess.run(
        [str(tools / "python"), "-c", VALID], input=texts[0], capture_output=True, text=True, check=False
    )
    assert checked.stderr.strip() == ""
    found = json.loads(texts[0])
    assert (found["bomFormat"], found["metadata"]["component"]["name"]) == ("CycloneDX", "newsfuse")
    listed = {(each["name"], each["version"]) for each in found["components"]}
    assert {(each.metadata["Name"], each.version) for each in distributions()} - listed <= {("newsfuse", "0.1.0")}
