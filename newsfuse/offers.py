"""What a plugin's module offers, checked once: what is wrong with it must not turn up at other plugins."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

from newsfuse.blame import blame, defined
from newsfuse.errors import PluginError
from newsfuse.plugin import Embedder, Encoder, Fusion, Need, Options, Plugin, UserEncoder

BUILDS: Mapping[type[Plugin], tuple[str, ...]] = {
    Embedder: ("corpus", "model", "dimensions", "options"),
    Encoder: ("inputs", "dim", "options"),
    Fusion: ("dim", "start", "options"),
    UserEncoder: ("dim", "history", "options"),
}
"""What `build` of each kind is called with."""


def offers(hook: Callable[[], object], kind: type[Plugin], origin: str) -> list[Plugin]:
    """What the hook offers, plugins of that kind. Raises PluginError naming `origin` and file:line."""
    with blame(origin, hook):
        found = hook()
        plugins = list(found) if isinstance(found, Iterable) else [None]
    right = [plugin for plugin in plugins if isinstance(plugin, kind)]
    if len(right) < len(plugins):
        message = f"{origin}: offers {found!r}, expected a list of newsfuse.{kind.__name__} ({defined(hook)})"
        raise PluginError(message)
    for complaint, place in (each for plugin in right for each in _complaints(plugin)):
        message = f"{origin}: {complaint} ({place or defined(hook)})"
        raise PluginError(message)
    return right


def _complaints(plugin: Plugin) -> Iterator[tuple[str, str]]:
    """What is wrong with it, and file:line, "" where it is not in the plugin's own file."""
    called = f"{type(plugin).__name__} '{plugin.name}'"
    if wrong := _uncallable(plugin.build, BUILDS[type(plugin)]):
        yield f"{called}: {wrong}", defined(plugin.build)
    if not (isinstance(plugin.params, type) and issubclass(plugin.params, Options)):
        yield f"{called}: params is {plugin.params!r}, expected a subclass of newsfuse.Options", ""
    if isinstance(plugin, Encoder):
        if not (isinstance(plugin.needs, set | frozenset) and plugin.needs <= set(Need)):
            known = ", ".join(f"Need.{need.name}" for need in Need)
            yield f"{called}: needs is {plugin.needs!r}, expected a frozenset of {known}", ""
        if not (isinstance(plugin.prior, int | float) and 0 < plugin.prior < math.inf):
            yield f"{called}: prior is {plugin.prior!r}, expected a number above 0", ""


def _uncallable(build: object, arguments: tuple[str, ...]) -> str:
    """Why `build` cannot be called with these, "" where it can, or where Python cannot tell."""
    expected = f"expected a function build({', '.join(arguments)})"
    if not callable(build):
        return f"build is {build!r}, {expected}"
    try:
        signature = inspect.signature(build)
    except (TypeError, ValueError):
        return ""
    try:
        signature.bind(*arguments)
    except TypeError as error:
        return f"build takes {signature}, {expected}: {error}"
    return ""
