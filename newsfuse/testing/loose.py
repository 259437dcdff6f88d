"""A plugin file that lies in no project: all that it offers."""

from pathlib import Path

import pluggy

from newsfuse import hookspecs
from newsfuse.blame import blame
from newsfuse.errors import PluginError
from newsfuse.offers import offers
from newsfuse.packages import GROUP
from newsfuse.plugin import Plugin
from newsfuse.registry import FOLDERS, import_file


def loose(path: Path) -> list[Plugin]:
    """Import the file and call its hooks. Raises PluginError naming file and line, also where it offers nothing."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    with blame(str(path)):
        # not the stem alone: the file may be called as a module of Python is
        manager.register(import_file(path, f"{__name__}.{path.stem}"))
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
