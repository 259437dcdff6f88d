"""The templates: plugins as they are, called `mine`, and the files that make a package of one."""

import re
from importlib import resources
from string import Template

from newsfuse.scaffold.kind import Kind
from newsfuse.scaffold.name import class_name


def plugin(kind: Kind) -> str:
    """A plugin module of that kind, called `mine`."""
    return _text(f"{kind}.py")


def renamed(module: str, name: str) -> str:
    """The same module, called `name`."""
    return re.sub(r"\bMine(?=\b|Options)", class_name(name), re.sub(r"\bmine\b", name, module))


def filled(file: str, words: dict[str, str]) -> str:
    """A file of templates/package with `words` in place of $-names; KeyError where one is missing."""
    return Template(_text(f"package/{file}")).substitute(words)


def _text(path: str) -> str:
    return (resources.files("newsfuse.scaffold") / "templates" / path).read_text(encoding="utf-8")
