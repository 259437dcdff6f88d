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

TORCH = """
T_destination add_module apply bfloat16 buffers call_super_init children clear compile cpu cuda double dump_patches
eval extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu items keys
load_state_dict modules mtia named_buffers named_children named_modules named_parameters parameters pop
register_backward_hook register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook
register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module
register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state
set_submodule share_memory state_dict to to_empty train training type update values xpu zero_grad
"""
"""What a torch.nn.ModuleDict, which holds the encoders by name, has already; written out, since torch loads slowly."""

KEPT = frozenset({"fusion", "user_encoder", *TORCH.split()})
"""Names that no encoder may have: the model's own parts, and what torch would take for something else."""


def is_kept(name: str) -> bool:
    """Whether an encoder may not be called so; torch and Python keep all names that begin with _ to themselves."""
    return name in KEPT or name.startswith("_")


def offers(hook: Callable[[], object], kind: type[Plugin], origin: str) -> list[Plugin]:
    """What the hook offers, plugins of that kind. Raises PluginError naming `origin` and file:line."""
    with blame(origin, hook):
        found = hook()
        plugins = list(found) if isinstance(found, Iterable) else [None]
    right = [plugin for plugin in plugins if type(plugin) is kind]  # a subclass could override what the registry reads
    if len(right) < len(plugins):
        itself = " itself, not of a subclass" if any(_is_derived(plugin, kind) for plugin in plugins) else ""
        message = f"{origin}: offers {found!r}, expected a list of newsfuse.{kind.__name__}{itself} ({defined(hook)})"
        raise PluginError(message)
    for complaint, place in (each for plugin in right for each in _complaints(plugin)):
        message = f"{origin}: {complaint} ({place or defined(hook)})"
        raise PluginError(message)
    return right


def _is_derived(plugin: object, kind: type[Plugin]) -> bool:
    return isinstance(plugin, kind) and type(plugin) is not kind


def _complaints(plugin: Plugin) -> Iterator[tuple[str, str]]:
    """What is wrong with it, and file:line, "" where it is not in the plugin's own file."""
    called = f"{type(plugin).__name__} '{plugin.name}'"
    if wrong := _uncallable(plugin.build, BUILDS[type(plugin)]):
        yield f"{called}: {wrong}", defined(plugin.build)
    if not (isinstance(plugin.params, type) and issubclass(plugin.params, Options)):
        yield f"{called}: params is {plugin.params!r}, expected a subclass of newsfuse.Options", ""
    if isinstance(plugin, Encoder):
        if is_kept(str(plugin.name)):
            kept = f"'{plugin.name}' is a name that the model keeps for itself"
            yield f"{kept}. Choose another, such as 'my_{plugin.name}'", ""
        if not (isinstance(plugin.needs, frozenset) and plugin.needs <= set(Need)):
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
