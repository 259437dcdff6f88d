"""The list of plugins that `newsfuse plugins` prints."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from newsfuse.errors import PluginError
from newsfuse.params import packages
from newsfuse.plugin import Cost, Embedder, Encoder, Plugin
from newsfuse.registry import FOLDERS, Registry


def show(root: Path) -> None:
    """Print a table of every plugin of the project at `root`; a broken one is listed with its error."""
    registry = Registry(root / "plugins", packages(root))
    table = Table("kind", "name", "origin", "settings", "needs", title="Plugins")
    for row in rows(registry):
        table.add_row(*row)
    Console().print(table)


def rows(registry: Registry) -> Iterator[tuple[str, str, str, str, str]]:
    """(kind, name, origin, settings with their defaults, needs) of each plugin."""
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


def _row(registry: Registry, kind: type[Plugin], name: str) -> tuple[str, str, str, str, str]:
    noun, origin = FOLDERS[kind].removesuffix("s").replace("_", " "), registry.origin(kind, name)
    try:
        plugin = registry.load(kind, name)
    except PluginError as error:
        return noun, name, origin, f"broken: {error}", ""
    needs: list[str] = sorted(plugin.needs) if isinstance(plugin, Encoder) else []
    if isinstance(plugin, Embedder) and plugin.cost is not Cost.NOTHING:
        needs = [plugin.cost]
    return noun, name, origin, _settings(plugin), ", ".join(needs)


def _settings(plugin: Plugin) -> str:
    fields = plugin.params.model_fields.items()
    defaults = ((name, field.get_default(call_default_factory=True, validated_data={})) for name, field in fields)
    return ", ".join(f"{name}: {default!r}" for name, default in defaults)
