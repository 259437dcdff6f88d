"""Installed packages that params.yaml lists: each is there in the version that is asked for, or nothing is done."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any, Self

from newsfuse.errors import PluginError

GROUP = "newsfuse"
LISTED = "params.yaml: plugin_packages"
NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)


@dataclass(frozen=True)
class Guest:
    """A plugin of an installed package: an entry point, nothing of which is imported yet."""

    distribution: str
    version: str
    point: metadata.EntryPoint
    folder: str
    """Where the package is installed."""
    editable: bool
    """Whether its code may change without its version: `pip install --editable`."""

    @classmethod
    def of(cls, point: metadata.EntryPoint, found: metadata.Distribution) -> Self:
        """An entry point of an installed distribution."""
        return cls(found.name, found.version, point, str(found.locate_file("")), editable=_is_editable(found))

    @property
    def origin(self) -> str:
        """Package, version, and the module, since a package may have one for each of its plugins."""
        return f"{self.distribution} {self.version} ({self.point.value}{', editable' if self.editable else ''})"

    def load(self) -> object:
        """What its entry point names, imported. Raises PluginError where that is not there, and whatever it raises."""
        if not self.point.pattern.match(self.point.value):
            what = "is no 'module' or 'module:object'"
            raise self._unusable(what)
        try:
            found: object = import_module(self.point.module)
        except ModuleNotFoundError as error:
            if error.name and f"{self.point.module}.".startswith(f"{error.name}."):  # else a module that it imports
                what = f"names a module that is not there, '{error.name}'"
                raise self._unusable(what) from error
            raise
        for name in filter(None, (self.point.attr or "").split(".")):
            if not hasattr(found, name):
                what = f"names an object that is not there, '{name}'"
                raise self._unusable(what)
            found = getattr(found, name)
        return found

    def _unusable(self, what: str) -> PluginError:
        entry = f"its entry point {self.point.name} = {self.point.value}"
        return PluginError(f"{self.origin}: cannot be loaded: {entry} {what} (installed in {self.folder})")


def guests(packages: Mapping[str, str]) -> dict[str, Guest]:
    """The plugins of these packages (distribution name to exact version), by name; none of them is imported.

    Raises PluginError that tells at once of all that are not as asked for: not installed, another version, no plugin,
    listed twice, or with a plugin of the same name as another's.
    """
    found: list[Guest] = []
    wrong = list(_twice(packages))
    for name, version in packages.items():
        try:
            found += offered(name, version)
        except PluginError as error:
            wrong.append(str(error))
    wrong += [] if wrong else _clashes(found)
    if wrong:
        raise PluginError("\n".join(wrong))
    return {guest.point.name: guest for guest in found}


def offered(name: str, version: str) -> list[Guest]:
    """The plugins of one package. Raises PluginError unless it is installed in this version and has any."""
    found = _installed(name, version)
    try:
        points = [point for point in found.entry_points if point.group == GROUP]
        guests = [Guest.of(point, found) for point in points]
    except Exception as error:
        raise _damaged(name, version, error) from error
    if not guests:
        lacks = f"it has no entry point in the group '{GROUP}'"
        message = f"{LISTED}: '{name}' {version} brings no plugin: {lacks}. Take it out of the list"
        raise PluginError(message)
    return guests


def canonical(name: str) -> str:
    """The name as all its spellings have it: `Newsfuse_Headline` is `newsfuse-headline`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed(name: str, version: str) -> metadata.Distribution:
    if not NAME.fullmatch(name):
        message = f"{LISTED}: '{name}' is no name of a package; expected such as newsfuse-headline"
        raise PluginError(message)
    try:
        found = metadata.distribution(name)
        there = found.version
    except metadata.PackageNotFoundError as error:
        message = f"{LISTED}: '{name}' is not installed. Install it: pip install {name}=={version}"
        raise PluginError(message) from error
    except Exception as error:
        raise _damaged(name, version, error) from error
    if there != version:
        choice = f"Install the one: pip install {name}=={version}, or list the other: {json.dumps({name: there})}"
        message = f"{LISTED}: '{name}' {version} is asked for, {there} is installed. {choice}"
        raise PluginError(message)
    return found


def _damaged(name: str, version: str, error: Exception) -> PluginError:
    again = f"Install it again: pip install --force-reinstall --no-deps {name}=={version}"
    found = f"the metadata of '{name}' cannot be read: {type(error).__name__}: {error}"
    return PluginError(f"{LISTED}: {found}. {again}")


def _twice(packages: Iterable[str]) -> Iterator[str]:
    spelt: dict[str, str] = {}
    for name in packages:
        if (other := spelt.setdefault(canonical(name), name)) != name:
            yield f"{LISTED}: '{other}' and '{name}' are the same package; list it once"


def _clashes(guests: Iterable[Guest]) -> Iterator[str]:
    first: dict[str, Guest] = {}
    for guest in guests:
        if (other := first.setdefault(guest.point.name, guest)) is not guest:
            yield f"{LISTED}: {other.origin} and {guest.origin} both offer '{guest.point.name}'; list one of them"


def _is_editable(found: metadata.Distribution) -> bool:
    source: Any = json.loads(found.read_text("direct_url.json") or "{}")
    return bool(source.get("dir_info", {}).get("editable"))
