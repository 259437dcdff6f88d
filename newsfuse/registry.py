"""Plugins by name: files under plugins/ first, then installed packages that params.yaml lists."""

import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TypeVar, cast

import pluggy

from newsfuse import hookspecs
from newsfuse.blame import blame
from newsfuse.errors import PluginError, nearest, place
from newsfuse.plugin import Embedder, Encoder, Fusion, Plugin, UserEncoder

GROUP = "newsfuse"
P = TypeVar("P", Embedder, Encoder, Fusion, UserEncoder, Plugin)
FOLDERS: Mapping[type[Plugin], str] = {
    Embedder: "embedders",
    Encoder: "encoders",
    Fusion: "fusions",
    UserEncoder: "user_encoders",
}


class Registry:
    """Loads plugins one by one, only those asked for: a broken one cannot hurt a run without it."""

    def __init__(self, folder: Path, packages: Mapping[str, str]) -> None:
        """`folder` has a sub-folder for each kind; `packages` maps distribution names to exact versions."""
        self.folder = folder
        self._guests = _guests(packages)
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
        noun = f"{FOLDERS[kind].removesuffix('s').replace('_', ' ')} " if kind else ""
        return f"{where}: no {noun}plugin is called '{name}'.{nearest(name, known)} Known: {', '.join(known)}"

    def load(self, kind: type[P], name: str) -> P:
        """The plugin of that kind and name. Raises PluginError naming the file or the package."""
        if missing := self.unknown(kind, name, "plugins"):
            raise PluginError(missing)
        offers, origin = self._called(kind, name), self.origin(kind, name)
        if len(offers) != 1:
            found = " and ".join(source for _, source in offers) or f"none in {origin}"
            message = f"{origin}: one {kind.__name__} called '{name}' is expected, found {found}"
            raise PluginError(message)
        return offers[0][0]

    def has(self, kind: type[Plugin], name: str) -> bool:
        """Whether a plugin of that kind is there: a package tells only once it is loaded. Raises PluginError."""
        return self._file(kind, name).is_file() or bool(self._called(kind, name))

    def namesakes(self, name: str, kind: type[Plugin]) -> list[Plugin]:
        """The plugin of that kind, and those of other kinds that have the same name."""
        others = (each for each in FOLDERS if each is not kind and name in self.names(each) and self.has(each, name))
        return [self.load(each, name) for each in (kind, *others)]

    def origin(self, kind: type[Plugin], name: str) -> str:
        """Where the plugin comes from: a file, or a package with its version."""
        path = self._file(kind, name)
        return f"plugins/{FOLDERS[kind]}/{path.name}" if path.is_file() else _origin(self._guests[name])

    def _file(self, kind: type[Plugin], name: str) -> Path:
        return self.folder / FOLDERS[kind] / f"{name}.py"

    def _called(self, kind: type[P], name: str) -> list[tuple[P, str]]:
        origin = self.origin(kind, name)
        if not self._manager.has_plugin(origin):
            self._register(self._import(kind, name, origin), origin)
        return [(plugin, source) for plugin, source in self._offers if isinstance(plugin, kind) and plugin.name == name]

    def _import(self, kind: type[Plugin], name: str, origin: str) -> ModuleType:
        path = self._file(kind, name)
        try:
            if path.is_file():
                return _import_file(path, f"plugins.{FOLDERS[kind]}.{name}")
            return cast("ModuleType", self._guests[name].load())
        except Exception as error:
            message = f"{origin}: cannot be loaded: {type(error).__name__}: {error} ({place(error)})"
            raise PluginError(message) from error

    def _register(self, module: ModuleType, origin: str) -> None:
        """All that the module offers is checked here, once: what is wrong with it must not turn up at other plugins."""
        try:
            self._manager.register(module, name=origin)
            self._manager.check_pending()
            self._offers += [(plugin, origin) for kind in FOLDERS for plugin in self._offered(kind, origin)]
        except (pluggy.PluginValidationError, PluginError) as error:
            if self._manager.has_plugin(origin):
                self._manager.unregister(name=origin)
            message = str(error) if isinstance(error, PluginError) else f"{origin}: {error} ({_hook_places(module)})"
            raise PluginError(message) from error

    def _offered(self, kind: type[Plugin], origin: str) -> list[Plugin]:
        # implementation by implementation instead of one hook call, to know who offers what
        hook = getattr(self._manager.hook, f"newsfuse_{FOLDERS[kind]}")
        implementations = [each.function for each in hook.get_hookimpls() if each.plugin_name == origin]
        return [plugin for function in implementations for plugin in _call(function, kind, origin)]


def _guests(packages: Mapping[str, str]) -> dict[str, metadata.EntryPoint]:
    guests: dict[str, metadata.EntryPoint] = {}
    for point in (point for name, version in packages.items() for point in _entry_points(name, version)):
        if point.name in guests:
            found = f"{_origin(guests[point.name])} and {_origin(point)}"
            message = f"params.yaml: plugin_packages: {found} both offer '{point.name}'; list one of them"
            raise PluginError(message)
        guests[point.name] = point
    return guests


def _entry_points(distribution: str, version: str) -> list[metadata.EntryPoint]:
    try:
        found = metadata.distribution(distribution)
    except (metadata.PackageNotFoundError, ValueError) as error:  # ValueError: the name is empty
        install = f"Install it: pip install {distribution}=={version}"
        message = f"params.yaml: plugin_packages: '{distribution}' is not installed. {install}"
        raise PluginError(message) from error
    if found.version != version:
        message = f"params.yaml: plugin_packages: '{distribution}' {version} is asked for, {found.version} is installed"
        raise PluginError(message)
    return [point for point in found.entry_points if point.group == GROUP]


def _origin(point: metadata.EntryPoint) -> str:
    # with the module, since a package may have a plugin module for each of its plugins
    return f"{point.dist.name} {point.dist.version} ({point.value})" if point.dist else point.value


def _import_file(path: Path, name: str) -> ModuleType:
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


def _call(hook: Callable[[], object], kind: type[Plugin], origin: str) -> list[Plugin]:
    with blame(origin):
        offers = hook()
        plugins = list(offers) if isinstance(offers, Iterable) else [None]
    right = [plugin for plugin in plugins if isinstance(plugin, kind)]
    if len(right) < len(plugins):
        message = f"{origin}: offers {offers!r}, expected a list of newsfuse.{kind.__name__} ({_place(hook)})"
        raise PluginError(message)
    return right


def _hook_places(module: ModuleType) -> str:
    """file:line of each hook implementation in the module: pluggy does not say where the wrong one is."""
    return ", ".join(_place(value) for value in vars(module).values() if hasattr(value, f"{GROUP}_impl"))


def _place(function: Callable[..., object]) -> str:
    return f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"
