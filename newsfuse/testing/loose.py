"""A plugin file that lies in no project: all that it offers."""

import importlib.util
import sys
from pathlib import Path

import pluggy

from newsfuse import hookspecs
from newsfuse.blame import blame
from newsfuse.errors import PluginError
from newsfuse.offers import offers
from newsfuse.packages import GROUP
from newsfuse.plugin import Plugin
from newsfuse.registry import FOLDERS


def loose(path: Path) -> list[Plugin]:
    """Import the file and call its hooks. Raises PluginError naming file and line, also where it offers nothing."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    with blame(str(path)):
        manager.register(_imported(path))
        manager.check_pending()
    plugins = [
        plugin
        for kind, folder in FOLDERS.items()
        for each in getattr(manager.hook, f"newsfuse_{folder}").get_hookimpls()
        for plugin in offers(each.function, kind, str(path))
    ]
    if not plugins:
        hooks = ", ".join(f"newsfuse_{folder}" for folder in FOLDERS.values())
        message = f"{path}: offers no plugin. Mark one of the functions {hooks} with @newsfuse.hookimpl"
        raise PluginError(message)
    return plugins


def _imported(path: Path) -> object:
    name = f"{__name__}.{path.stem}"  # not the stem alone: the file may be called as a module of Python is
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        message = "is no Python file"
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up there
    spec.loader.exec_module(module)
    return module
