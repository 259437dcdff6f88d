"""The sheet that `newsfuse doctor` prints."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from newsfuse.doctor.examination import examine
from newsfuse.doctor.finding import Finding, Level, exit_code
from newsfuse.errors import printable
from newsfuse.terminal import tell


def tell_all(root: Path, *, as_json: bool) -> int:
    """Examine the project at `root` and print what was found, line by line or as one JSON object -> the exit code."""
    found = list(examine(root)) if as_json else list(_told(examine(root)))
    code = exit_code(finding for _, finding in found)
    if as_json:
        print(_json(found, code))  # noqa: T201 - for a program, not for rich
    else:
        counts = Counter(finding.level for _, finding in found)
        tell(f"\n{counts[Level.OK]} ok, {counts[Level.WARNING]} warnings, {counts[Level.FAILURE]} failures")
    return code


def _told(found: Iterable[tuple[str, Finding]]) -> Iterable[tuple[str, Finding]]:
    """The same, each printed on its way under its subject."""
    before = ""
    for subject, finding in found:
        if subject != before:
            tell(f"\n{subject}" if before else subject)
        tell("\n".join(_lines(finding)))
        before = subject
        yield subject, finding


def _lines(finding: Finding) -> Iterable[str]:
    yield f"  {finding.level:8} {finding.found}"
    if finding.fix:
        yield f"  {'':8} fix: {finding.fix}"


def _json(found: Iterable[tuple[str, Finding]], code: int) -> str:
    lines = [
        {
            "subject": subject,
            "level": finding.level,
            "found": printable(finding.found),
            "fix": printable(finding.fix),
            "exit_code": finding.exit_code,
        }
        for subject, finding in found
    ]
    return json.dumps({"exit_code": code, "findings": lines}, indent=1)
