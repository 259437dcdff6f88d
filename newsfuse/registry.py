"""Plugins by name: files under plugins/ first, then installed packages that params.yaml lists."""

import importlib.util
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import pluggy

from newsfuse import hookspecs, link
from newsfuse.blame import defined, is_its_own, told
from newsfuse.errors import PluginError, nearest
from newsfuse.offers import offers
from newsfuse.packages import GROUP, LISTED, Guest, canonical, guests
from newsfuse.plugin import Embedder, Encoder, Fusion, Plugin, UserEncoder

log = logging.getLogger(__name__)

SHUT = "NEWSFUSE_NO_PLUGINS is set, so no installed package is looked at"
P = TypeVar("P", Embedder, Encoder, Fusion, UserEncoder, Plugin)
FOLDERS: Mapping[type[Plugin], str] = {
    Embedder: "embedders",
    Encoder: "encoders",
    Fusion: "fusions",
    UserEncoder: "user_encoders",
}


class Registry:
    """Loads plugins one by one, only those asked for: a broken one cannot hurt a run without it."""

    def __init__(self, folder: Path, packages: Mapping[str, str], *, shut: bool = False) -> None:
        """`folder` has a sub-folder for each kind; `packages` maps distribution names to exact versions.

        `shut`: no package is looked at, as if none were listed. Raises PluginError for packages that are not as listed.
        """
        self.folder = folder
        self.shut_out = tuple(packages) if shut else ()
        """Packages that are listed and not looked at."""
        self._listed = {canonical(name): version for name, version in packages.items()}
        self._guests = {} if shut else guests(packages)
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._offers: list[tuple[Plugin, str]] = []
        """What each loaded module offers, and the module's origin."""

    def names(self, kind: type[Plugin]) -> list[str]:
        """All names that `load` may be asked for, sorted, without importing anything."""
        files = (path.stem for path in (self.folder / FOLDERS[kind]).glob("*.py"))
        return sorted({name for name in files if not name.startswith("_")} | self._guests.keys())

    def unknown(self, kind: type[Plugin] | None, name: str, where: str) -> str | None:
        """What to tell a user whose params.yaml asks, at `where`, for a plugin that is not there."""
        known = self.names(kind) if kind else sorted({name for each in FOLDERS for name in self.names(each)})
        if name in known:
            return None
        called = f"{noun(kind)} " if kind else ""
        shut = f". {SHUT} ({', '.join(self.shut_out)})" if self.shut_out else ""
        return f"{where}: no {called}plugin is called '{name}'.{nearest(name, known)} Known: {', '.join(known)}{shut}"

    def unlinked(self, name: str) -> str | None:
        """What to tell a user whose embedder is a package's and has no file: DVC watches that file alone."""
        if self._file(Embedder, name).is_file() or name not in self._guests:
            return None
        guest, file = self._guests[name], f"plugins/{FOLDERS[Embedder]}/{name}.py"
        line = f'{link.VARIABLE} = "{guest.distribution}=={guest.version}"'
        return f"'{name}' comes from {guest.origin}, and DVC watches a file for each embedder. Write {file}: {line}"

    def load(self, kind: type[P], name: str) -> P:
        """The plugin of that kind and name. Raises PluginError naming the file or the package."""
        if missing := self.unknown(kind, name, "plugins"):
            raise PluginError(missing)
        found, origin = self._called(kind, name), self.origin(kind, name)
        if len(found) != 1:
            instead = (
                " and ".join(source for _, source in found) or f"none in {origin}, which offers {self._all(origin)}"
            )
            message = f"{origin}: one {kind.__name__} called '{name}' is expected, found {instead}"
            raise PluginError(message)
        return found[0][0]

    def has(self, kind: type[Plugin], name: str) -> bool:
        """Whether a plugin of that kind is there: a package tells only once it is loaded. Raises PluginError."""
        return self._file(kind, name).is_file() or bool(self._called(kind, name))

    def namesakes(self, name: str, kind: type[Plugin]) -> list[Plugin]:
        """The plugin of that kind, and those of other kinds that have the same name."""
        others = (each for each in FOLDERS if each is not kind and name in self.names(each) and self.has(each, name))
        return [self.load(each, name) for each in (kind, *others)]

    def origin(self, kind: type[Plugin], name: str) -> str:
        """Where the plugin comes from: a file, or a package with its version."""
        try:
            guest = self._guest(kind, name)
        except PluginError:
            guest = None
        return guest.origin if guest else self._own(kind, name)

    def through(self, kind: type[Plugin], name: str) -> str:
        """What stands between a plugin and its name: the file that links it, or a package that its file hides."""
        if not self._file(kind, name).is_file():
            return ""
        if self.origin(kind, name) != self._own(kind, name):
            return f"linked by {self._own(kind, name)}"
        return f"hides {self._guests[name].origin}" if name in self._guests else ""

    def _own(self, kind: type[Plugin], name: str) -> str:
        return f"plugins/{FOLDERS[kind]}/{name}.py"

    def _file(self, kind: type[Plugin], name: str) -> Path:
        return self.folder / FOLDERS[kind] / f"{name}.py"

    def _guest(self, kind: type[Plugin], name: str) -> Guest | None:
        """The package's plugin of that name, None where a file is the plugin. Raises PluginError for a broken link."""
        path = self._file(kind, name)
        if not path.is_file():
            return self._guests[name]
        try:
            found = link.read(path)
            return self._linked(found, name) if found else None
        except PluginError as error:
            message = f"{self._own(kind, name)}: {error}"
            raise PluginError(message) from error

    def _linked(self, found: link.Link, name: str) -> Guest:
        package, there = canonical(found.distribution), self._listed.get(canonical(found.distribution))
        offered = [guest for guest in self._guests.values() if canonical(guest.distribution) == package]
        if there != found.version:
            wrong = f"lists {there}" if there else "does not list it"
            fix = f'Write there {found.distribution}: "{found.version}"'
            wrong = f"links {found}, but {LISTED} {wrong}. {fix}" + (", or change the link" if there else "")
        elif self.shut_out:
            wrong = f"links {found}. {SHUT}"
        elif name not in {guest.point.name for guest in offered}:
            names = ", ".join(sorted(guest.point.name for guest in offered))
            wrong = f"links {found}, which offers no '{name}' but {names}; the file must be called as the plugin is"
        else:
            return self._guests[name]
        message = f"{wrong} ({found.place})"
        raise PluginError(message)

    def _all(self, origin: str) -> str:
        """What has come from there."""
        found = [f"{type(plugin).__name__} '{plugin.name}'" for plugin, source in self._offers if source == origin]
        return ", ".join(found) or "nothing: is @hookimpl missing?"

    def _called(self, kind: type[P], name: str) -> list[tuple[P, str]]:
        guest = self._guest(kind, name)
        origin = guest.origin if guest else self._own(kind, name)
        if not self._manager.has_plugin(origin):
            self._register(self._import(kind, name, guest, origin), origin)
        return [(plugin, source) for plugin, source in self._offers if isinstance(plugin, kind) and plugin.name == name]

    def _import(self, kind: type[Plugin], name: str, guest: Guest | None, origin: str) -> object:
        try:
            if guest is None:
                return import_file(self._file(kind, name), f"plugins.{FOLDERS[kind]}.{name}")
            if guest.editable:
                log.warning("%s: DVC sees its version only. After an edit: dvc repro --force train", origin)
            return guest.load()
        except BaseException as error:
            if not is_its_own(error) or isinstance(error, PluginError):
                raise
            message = f"{origin}: cannot be loaded: {told(error)}"
            raise PluginError(message) from error

    def _register(self, module: object, origin: str) -> None:
        try:
            self._manager.register(module, name=origin)
            self._manager.check_pending()
            self._offers += [(plugin, origin) for kind in FOLDERS for plugin in self._offered(kind, origin)]
        except (pluggy.PluginValidationError, PluginError, ValueError) as error:
            if self._manager.has_plugin(origin):
                self._manager.unregister(name=origin)
            message = str(error) if isinstance(error, PluginError) else f"{origin}: {error} ({_hook_places(module)})"
            raise PluginError(message) from error

    def _offered(self, kind: type[Plugin], origin: str) -> list[Plugin]:
        # implementation by implementation instead of one hook call, to know who offers what
        hook = getattr(self._manager.hook, f"newsfuse_{FOLDERS[kind]}")
        implementations = [each.function for each in hook.get_hookimpls() if each.plugin_name == origin]
        return [plugin for function in implementations for plugin in offers(function, kind, origin)]


def noun(kind: type[Plugin]) -> str:
    """Such as "user encoder"."""
    return FOLDERS[kind].removesuffix("s").replace("_", " ")


def import_file(path: Path, name: str) -> ModuleType:
    """The file as a module of that name; whatever it raises, and ImportError."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        message = f"{path} is no Python file"
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _hook_places(module: object) -> str:
    """file:line of each hook implementation in the module: pluggy does not say where the wrong one is."""
    hooks = (value for name in dir(module) if hasattr(value := getattr(module, name), f"{GROUP}_impl"))
    return ", ".join(defined(value) for value in hooks)
