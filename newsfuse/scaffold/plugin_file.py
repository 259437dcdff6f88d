"""A new plugin as a file of the project."""

from pathlib import Path

from newsfuse.artifact import write_text
from newsfuse.errors import ParamsError
from newsfuse.root import enclosing
from newsfuse.scaffold import name as names
from newsfuse.scaffold import template
from newsfuse.scaffold.kind import Kind
from newsfuse.scaffold.made import Made, commit_note, is_project, plugin_path, require_free


def write(kind: Kind, name: str, root: Path) -> Made:
    """Write plugins/<kind>s/<name>.py in the project at `root`.

    Raises ParamsError for a name that will not do, for a file that is there, and where there is no project; OSError.
    """
    module = template.plugin(kind)
    names.check(name, kind, module)
    if not is_project(root):
        raise ParamsError(_no_project(root.resolve()))
    path = plugin_path(root, kind, name)
    require_free(path)
    write_text(path, template.renamed(module, name))
    run = f"dvc exp run -n {name} {kind.settings(name)}"
    return Made(
        (path,), (f"newsfuse check-plugin {name}", run, f"newsfuse compare HEAD {name}"), commit_note(name, path)
    )


def _no_project(folder: Path) -> str:
    root = enclosing(folder)
    remedy = f"Its root is {root}: go there" if root and is_project(root) else "Go to one"
    found = f"{folder}: is not the root of a newsfuse project, which has params.yaml and plugins/"
    return f"{found}. {remedy}, or let --package write a package, which may be anywhere"
