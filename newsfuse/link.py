"""A file in plugins/ that stands for a plugin of an installed package: for DVC, which watches files."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from newsfuse.errors import PluginError

VARIABLE = "PACKAGE"
PINNED = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*==\s*([A-Za-z0-9][A-Za-z0-9.!+_-]*)\s*")
EXPECTED = f'{VARIABLE} = "newsfuse-headline==0.1.0"'


@dataclass(frozen=True)
class Link:
    """The package that the file names, in the version that it names."""

    distribution: str
    version: str
    place: str
    """file:line"""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


def read(path: Path) -> Link | None:
    """The link in a file, which is not run for it; None where the file is a plugin itself.

    Raises PluginError for a link that is not `PACKAGE = "name==version"`, and for one in a file that does more.
    """
    text = path.read_bytes()
    if VARIABLE.encode() not in text:  # nearly always; to parse each plugin would take as long as to import it
        return None
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError):  # told, with the line, when it is imported
        return None
    lines = [each for each in statements if _is_link(each)]
    if not lines:
        return None
    place = f"{path}:{lines[-1].lineno}"
    others = [each for each in statements if each not in lines and not _is_text(each)]
    if others or len(lines) > 1:
        beside = f"line {(others or lines)[0].lineno}"
        message = (
            f"{VARIABLE} makes the file a link to a package, and then nothing else may be in it, as {beside} is. "
            f"A file that is a plugin itself has no {VARIABLE} ({place})"
        )
        raise PluginError(message)
    return _parsed(lines[0], place)


def _parsed(line: ast.stmt, place: str) -> Link:
    value = line.value if isinstance(line, ast.Assign | ast.AnnAssign) else None
    text = value.value if isinstance(value, ast.Constant) else None
    found = PINNED.fullmatch(text) if isinstance(text, str) else None
    if not found:
        message = f"{ast.unparse(line)} is no link to a package; expected such as {EXPECTED} ({place})"
        raise PluginError(message)
    return Link(found[1], found[2], place)


def _is_link(statement: ast.stmt) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return any(isinstance(target, ast.Name) and target.id == VARIABLE for target in targets)


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
