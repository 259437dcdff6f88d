"""Which plugins a name means: of the project, of any installed package, or of a file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from newsfuse.environment import Environment
from newsfuse.errors import ParamsError, PluginError, nearest
from newsfuse.packages import GROUP
from newsfuse.params import FILE, plugins
from newsfuse.plugin import Plugin
from newsfuse.registry import FOLDERS, SHUT, Registry, noun
from newsfuse.testing.kit import kind_of
from newsfuse.testing.loose import loose

Kinds = tuple[type[Plugin], ...]


@dataclass(frozen=True)
class Found:
    """A plugin that the name means."""

    kind: type[Plugin]
    origin: str
    """A file, or a package with its version."""
    load: Callable[[], Plugin]
    """Raises PluginError."""


def found(name: str, kinds: Kinds, root: Path) -> list[Found]:
    """Every plugin of one of the `kinds` that `name` means, seen from the folder `root`.

    Raises ParamsError, with the nearest names, where there is none; PluginError for a file or package that
    cannot be imported, so that nobody can tell what it offers.
    """
    if name.endswith(".py") or "/" in name:
        return _of_file(Path(name), kinds, root)
    registries = [*_project(root), *_installed(name)]
    there = {(each.kind, each.origin): each for registry in registries for each in _of_registry(registry, name, kinds)}
    if not there:
        raise ParamsError(_nothing(name, kinds, root))
    own = {kind for kind, origin in there if origin.startswith("plugins/")}  # comes first, as in a run
    return [each for (kind, origin), each in there.items() if origin.startswith("plugins/") or kind not in own]


def siblings(kind: type[Plugin], root: Path) -> Iterator[Plugin]:
    """The plugins of that kind that the project at `root` has as files, the broken ones left out; none elsewhere."""
    for registry in _project(root):
        for name in registry.names(kind):
            try:
                if registry.origin(kind, name).startswith("plugins/"):
                    yield registry.load(kind, name)
            except PluginError:
                continue


def _of_file(path: Path, kinds: Kinds, root: Path) -> list[Found]:
    if not path.is_file():
        message = f"{path}: there is no such file"
        raise ParamsError(message)
    for registry in _project(root):
        for kind in kinds:
            own = path.resolve() == (root / "plugins" / FOLDERS[kind] / path.name).resolve()
            if own and (there := list(_of_registry(registry, path.stem, (kind,)))):
                return there
    offered = [plugin for plugin in loose(path) if isinstance(plugin, kinds)]
    if not offered:
        message = f"{path}: offers no {' or '.join(map(noun, kinds))}"
        raise ParamsError(message)
    return [_there(plugin, str(path)) for plugin in offered]


def _there(plugin: Plugin, origin: str) -> Found:
    return Found(kind_of(plugin), origin, lambda: plugin)


def _project(root: Path) -> list[Registry]:
    return [plugins(root)] if (root / FILE).is_file() else []


def _installed(name: str) -> list[Registry]:
    """One for each distribution that has an entry point of that name, whether params.yaml lists it or not."""
    points = metadata.entry_points(group=GROUP, name=name)
    shut = Environment.read().no_plugins
    return [
        Registry(Path("no plugins"), {each.dist.name: each.dist.version}, shut=shut) for each in points if each.dist
    ]


def _of_registry(registry: Registry, name: str, kinds: Kinds) -> Iterator[Found]:
    for kind in kinds:
        if name in registry.names(kind) and registry.has(kind, name):
            yield Found(kind, registry.origin(kind, name), partial(registry.load, kind, name))


def _nothing(name: str, kinds: Kinds, root: Path) -> str:
    shut = Environment.read().no_plugins
    files = {each for registry in _project(root) for kind in kinds for each in registry.names(kind)}
    known = sorted(files | {point.name for point in metadata.entry_points(group=GROUP) if not shut})
    message = f"no {' or '.join(map(noun, kinds))} is called '{name}'.{nearest(name, known)}"
    where = "" if (root / FILE).is_file() else f". {root.resolve()} is no newsfuse project: only packages count here"
    return f"{message} Known: {', '.join(known) or 'none'}{where}{f'. {SHUT}' if shut else ''}"
