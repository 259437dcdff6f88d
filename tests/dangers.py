"""What our code must not do, found in its syntax: run what a file says, or hand words to a shell."""

from __future__ import annotations

import ast
import builtins
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MODULES = frozenset({
    "_pickle", "cloudpickle", "cPickle", "dbm", "dill", "joblib", "jsonpickle", "marshal", "pickle", "shelve",
})  # fmt: skip
"""That read objects, whose code then runs."""
CALLS = frozenset({
    "eval", "exec",
    "numpy.load", "numpy.save", "numpy.savez", "numpy.savez_compressed",
    "numpy.lib.format.open_memmap", "numpy.lib.format.read_array", "numpy.lib.format.write_array",
    "os.popen", "os.system", "pty.spawn", "shutil.unpack_archive", "subprocess.getoutput", "subprocess.getstatusoutput",
    "tempfile.mktemp",
    "torch.jit.load", "torch.load", "torch.package.PackageImporter", "torch.save",
    "yaml.full_load", "yaml.full_load_all", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all",
})  # fmt: skip
"""By whatever name they were imported, called or not."""
METHODS = frozenset({"deserialize", "extractall", "read_pickle", "to_pickle"})
"""Of whatever object."""
SWITCHES = {"allow_pickle": None, "shell": False, "trust_remote_code": False, "verify": True, "weights_only": True}
"""Arguments by name, and the one value that is harmless; None: not even to be named."""


def dangers(source: str) -> list[str]:
    """Each of them in a file of Python, as often as it is there, in order of their names."""
    tree = ast.parse(source)
    names = dict(_imported(tree))
    return sorted(found for node in ast.walk(tree) for found in _of(node, names))


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(the name here, what it is the name of) of all imports, wherever they stand."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (top, top)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _of(node: ast.AST, names: Mapping[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        yield from (f"import {name}" for name in modules if name.partition(".")[0] in MODULES)
        if isinstance(node, ast.ImportFrom):
            yield from (name for alias in node.names if (name := f"{node.module}.{alias.name}") in CALLS)
    elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
        if (name := _dotted(node, names)) in CALLS:
            yield name
        if isinstance(node, ast.Attribute) and node.attr in METHODS:
            yield f".{node.attr}"
    elif isinstance(node, ast.keyword) and node.arg in SWITCHES:
        value = node.value.value if isinstance(node.value, ast.Constant) else ...
        if SWITCHES[node.arg] is None or value is not SWITCHES[node.arg]:
            yield f"{node.arg}="


def _dotted(node: ast.expr, names: Mapping[str, str]) -> str:
    """`numpy.load` for `np.load`, "" for what has no such name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id if hasattr(builtins, node.id) else "")
    if isinstance(node, ast.Attribute) and (of := _dotted(node.value, names)):
        return f"{of}.{node.attr}"
    return ""
