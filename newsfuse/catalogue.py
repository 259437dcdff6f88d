"""The list of plugins that `newsfuse plugins` prints."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from newsfuse.environment import Environment
from newsfuse.errors import PluginError
from newsfuse.packages import offered
from newsfuse.params import FILE, package_mistakes, packages
from newsfuse.plugin import Cost, Embedder, Encoder, Plugin
from newsfuse.registry import FOLDERS, SHUT, Registry, noun

Row = tuple[str, str, str, str, str]
"""Kind, name, origin, settings with their defaults, needs."""


def show(root: Path) -> None:
    """Print a table of every plugin of the project at `root`; a broken one is listed with its error."""
    table = Table("kind", "name", "origin", "settings", "needs", title="Plugins")
    for row in listed(root):
        table.add_row(*row)
    Console().print(table)


def listed(root: Path) -> Iterator[Row]:
    """A row for each plugin, for each package listed in params.yaml that cannot be used, and for a wrong list."""
    wanted, shut = packages(root), Environment.read().no_plugins
    broken = {} if shut else {name: wrong for name, version in wanted.items() if (wrong := _wrong(name, version))}
    yield from rows(Registry(root / "plugins", {} if shut else {n: v for n, v in wanted.items() if n not in broken}))
    for name, version in wanted.items():
        if shut or name in broken:
            yield "package", name, version, SHUT if shut else f"broken: {broken[name]}", ""
    for mistake in package_mistakes(root):
        yield "package", "", str(FILE), f"broken: {mistake}", ""


def _wrong(name: str, version: str) -> str:
    try:
        offered(name, version)
    except PluginError as error:
        return str(error)
    return ""


def rows(registry: Registry) -> Iterator[Row]:
    """A row for each plugin."""
    for kind in FOLDERS:
        for name in registry.names(kind):
            if not _is_elsewhere(registry, kind, name):
                yield _row(registry, kind, name)


def _is_elsewhere(registry: Registry, kind: type[Plugin], name: str) -> bool:
    """Whether a package offers that name, but as another kind; a broken one is listed everywhere."""
    try:
        return not registry.has(kind, name) and any(registry.has(each, name) for each in FOLDERS)
    except PluginError:
        return False


def _row(registry: Registry, kind: type[Plugin], name: str) -> Row:
    called, origin = noun(kind), registry.origin(kind, name)
    if through := registry.through(kind, name):
        origin += f", {through}"
    try:
        plugin = registry.load(kind, name)
    except PluginError as error:
        return called, name, origin, f"broken: {error}", ""
    needs: list[str] = sorted(plugin.needs) if isinstance(plugin, Encoder) else []
    if isinstance(plugin, Embedder) and plugin.cost is not Cost.NOTHING:
        needs = [plugin.cost]
    return called, name, origin, _settings(plugin), ", ".join(needs)


def _settings(plugin: Plugin) -> str:
    fields = plugin.params.model_fields.items()
    defaults = ((name, field.get_default(call_default_factory=True, validated_data={})) for name, field in fields)
    return ", ".join(f"{name}: {default!r}" for name, default in defaults)
