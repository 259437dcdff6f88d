"""Names that a new plugin may have: good in Python, in YAML, on a command line and as part of a package's name."""

import ast
import keyword
import re

import yaml

from newsfuse.errors import ParamsError
from newsfuse.offers import is_kept
from newsfuse.scaffold.kind import Kind

FORM = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
MOST = 30
"""Characters; with more, lines of the templates would become too long."""
NUMBERS = ("inf", "nan")
"""`dvc exp run -S fusion=nan` writes a number."""


def check(name: str, kind: Kind, template: str) -> None:
    """Raise ParamsError, with a name that would do, for one that a plugin made from the text `template` cannot have."""
    if not FORM.fullmatch(name) or len(name) > MOST:
        wanted = f"lower-case letters, digits and single underscores, a letter first, at most {MOST} characters"
        raise ParamsError(_refusal(name, f"expected {wanted}", _mended(name)))
    mine = _mended(f"my_{name}")
    words = keyword.iskeyword(name) or keyword.iskeyword(class_name(name))  # none: class None
    if words or name in NUMBERS or not isinstance(yaml.safe_load(name), str):
        raise ParamsError(_refusal(name, "Python, YAML or DVC reads this as something else than a name", mine))
    if class_name(name) in _used(template):
        raise ParamsError(_refusal(name, f"{class_name(name)} is a name that the file needs itself", mine))
    if kind is Kind.ENCODER and is_kept(name):
        raise ParamsError(_refusal(name, "the model keeps this name for itself, so no encoder may have it", mine))


def _used(template: str) -> set[str]:
    """The names in the code, but for those that are replaced."""
    found = {each.id for each in ast.walk(ast.parse(template)) if isinstance(each, ast.Name)}
    return found - {"Mine", "MineOptions"}


def class_name(name: str) -> str:
    """`my_text` -> `MyText`"""
    return "".join(word.capitalize() for word in name.split("_"))


def _mended(name: str) -> str:
    """The name nearest to what was written, "" where nothing of it would do."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)  # MyText: my_text
    words = re.sub(r"[^a-z0-9]+", "_", apart.lower()).lstrip("_0123456789")[:MOST].rstrip("_")
    return words if FORM.fullmatch(words) else ""


def _refusal(name: str, reason: str, instead: str) -> str:
    remedy = f". Try '{instead}'" if instead else ""
    return f"NAME: '{name}': {reason}{remedy}"
