"""Known vulnerabilities of everything that is pinned, by pip-audit, less the exceptions in audit.toml.

`make audit` runs it. It ends with
0: every package was looked up, and nothing is known but what an exception allows for now;
1: something else is known, or an exception has run out or is of no use any more;
2: audit.toml cannot be used;
6: packages could not be looked up, which is no good news and no bad news.

Which service is asked, and where it is, can be set by pip-audit's own variables (PIP_AUDIT_VULNERABILITY_SERVICE: pypi
or osv; PIP_AUDIT_OSV_URL).
"""

import datetime as dt
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CLEAN, FOUND, UNUSABLE, UNKNOWN = 0, 1, 2, 6
PINNED = ("constraints.txt", "scripts/security.txt", "scripts/image/build.txt", "scripts/image/torch-cuda.txt")
"""The files that pin: what is installed, what audits it, and what the images have besides (the rest of theirs is in
constraints.txt, as tests/test_image.py sees to)."""
LONGEST_DAYS = 184
"""Half a year, after which somebody looks at an exception again."""
KEYS = ["id", "package", "reason", "until"]
NAMED = 5
"""Packages that are named where many could not be looked up."""


class UnusableError(Exception):
    """audit.toml is not what it should be; the message says where."""


@dataclass(frozen=True)
class Allowance:
    """A known vulnerability that may stay for a while: an entry of audit.toml."""

    id: str
    package: str
    reason: str
    until: dt.date
    """The last day."""


@dataclass(frozen=True)
class Known:
    """A vulnerability of a package in the version that we have."""

    package: str
    version: str
    ids: Sequence[str]
    """All its names, the usual one first."""
    mended_in: Sequence[str]

    def __str__(self) -> str:
        mended = f"mended in {', '.join(self.mended_in)}" if self.mended_in else "not mended yet"
        return f"{self.package} {self.version}: {', '.join(self.ids)} ({mended})"


@dataclass(frozen=True)
class Report:
    """What pip-audit found."""

    known: Sequence[Known]
    looked_up: frozenset[str]
    """Packages, by their normal names."""
    not_looked_up: Sequence[str]
    """Why not, one sentence each."""

    @classmethod
    def of(cls, text: str) -> "Report":
        """From pip-audit's JSON. Raises ValueError, KeyError, TypeError for anything else."""
        packages: list[dict[str, Any]] = json.loads(text)["dependencies"]
        found = [each for each in packages if "skip_reason" not in each]
        known = [
            Known(each["name"], each["version"], [fault["id"], *fault["aliases"]], fault["fix_versions"])
            for each in found
            for fault in each["vulns"]
        ]
        skipped = [f"{each['name']}: {each['skip_reason']}" for each in packages if "skip_reason" in each]
        return cls(known, frozenset(each["name"] for each in found), skipped)


def allowances(path: Path, today: dt.date) -> list[Allowance]:
    """The exceptions. Raises UnusableError."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("exception", [])
    except (OSError, ValueError) as error:
        message = f"{path}: {error}"
        raise UnusableError(message) from error
    return [_allowance(path, number, entry, today) for number, entry in enumerate(entries, 1)]


def _allowance(path: Path, number: int, entry: dict[str, Any], today: dt.date) -> Allowance:
    wrong = f"{path}: exception {number}: "
    if sorted(entry) != KEYS or not all(isinstance(entry[key], str) and entry[key] for key in KEYS[:3]):
        wrong += f"has {', '.join(sorted(entry)) or 'nothing'}; expected {', '.join(KEYS)}, texts but the last"
        raise UnusableError(wrong)
    if type(entry["until"]) is not dt.date:
        wrong += f"until is {entry['until']!r}; expected a date such as {today}, without quotes"
        raise UnusableError(wrong)
    if entry["until"] > today + dt.timedelta(days=LONGEST_DAYS):
        wrong += f"until {entry['until']} is more than {LONGEST_DAYS} days ahead. Look at it again before that"
        raise UnusableError(wrong)
    return Allowance(**entry)


def complaints(report: Report, allowed: Sequence[Allowance], today: dt.date) -> Iterator[str]:
    """What must be mended, a line each."""
    valid = {(each.package, each.id) for each in allowed if each.until >= today}
    for known in report.known:
        if not any((known.package, name) in valid for name in known.ids):
            yield str(known)
    there = {(known.package, name) for known in report.known for name in known.ids}
    for each in allowed:
        if each.until < today:
            yield f"audit.toml: {each.id} of {each.package} was allowed until {each.until}: mend it, or look again"
        elif each.package in report.looked_up and (each.package, each.id) not in there:
            yield f"audit.toml: {each.id} of {each.package} is not known any more: take the exception out"


def verdict(report: Report, allowed: Sequence[Allowance], today: dt.date) -> tuple[int, list[str]]:
    """The exit code and the lines to print."""
    lines = list(complaints(report, allowed, today))
    found, unknown = bool(lines), report.not_looked_up
    lines += unknown[:NAMED]
    if len(unknown) > NAMED:
        lines.append(f"... and {len(unknown) - NAMED} more")
    if unknown:
        lines.append(
            f"NOT AUDITED: {len(unknown)} of {len(unknown) + len(report.looked_up)} packages could not be looked up"
        )
    if not lines:
        lines.append(f"{len(report.looked_up)} packages looked up, {len(allowed)} exceptions, nothing else is known")
    return FOUND if found else UNKNOWN if unknown else CLEAN, lines


def pinned(root: Path) -> list[str]:
    """A line for each package of PINNED, by its normal name, for whichever platform it is."""
    texts = [(root / path).read_text(encoding="utf-8") for path in PINNED]
    pairs = {pair for text in texts for pair in re.findall(r"(?m)^([\w.-]+)==([^\s;]+)", text)}
    return sorted({f"{re.sub('[-_.]+', '-', name).lower()}=={version}" for name, version in pairs})


def asked(requirements: Sequence[str]) -> str:
    """What pip-audit prints of them; its own words go to standard error."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "requirements.txt")
        path.write_text("\n".join(requirements), encoding="utf-8")
        return _printed(path)


def _printed(requirements: Path) -> str:
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--no-deps", "--disable-pip",
               "--format", "json", "--desc", "off", "--aliases", "on", "--progress-spinner", "off"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments, no shell
    if not done.stdout.strip():  # of a traceback, the last line says why
        print(done.stderr.strip().rpartition("\n")[2], file=sys.stderr)
    return done.stdout


def main() -> int:
    """The exit code."""
    today = dt.datetime.now(dt.UTC).date()
    try:
        allowed = allowances(ROOT / "scripts/audit.toml", today)
    except UnusableError as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    try:
        report = Report.of(asked(pinned(ROOT)))
    except (ValueError, KeyError, TypeError):
        print("NOT AUDITED: pip-audit gave no answer, so nothing is known of any package", file=sys.stderr)
        return UNKNOWN
    code, lines = verdict(report, allowed, today)
    print("\n".join(lines), file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main())
