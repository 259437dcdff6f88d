"""A new plugin as a package to install, for any project."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from newsfuse.artifact import write_text
from newsfuse.errors import ParamsError
from newsfuse.fetching.archive import placing
from newsfuse.scaffold import name as names
from newsfuse.scaffold import template
from newsfuse.scaffold.kind import Kind
from newsfuse.scaffold.made import Made, commit_note, is_project, plugin_path, require_free

VERSION = "0.1.0"


@dataclass(frozen=True)
class Package:
    """A distribution with one plugin."""

    kind: Kind
    name: str
    """The plugin's."""

    @property
    def distribution(self) -> str:
        """What pip and params.yaml call it."""
        return f"newsfuse-{self.name.replace('_', '-')}"

    @property
    def module(self) -> str:
        """What Python calls it."""
        return f"newsfuse_{self.name}"

    @property
    def settings(self) -> str:
        """What `dvc exp run` is given, in words of a shell, to let it load and to use it."""
        # the inner quotes keep a version such as 1.0 from being written as a number
        return f"""-S '+plugin_packages.{self.distribution}="{VERSION}"' {self.kind.settings(self.name)}"""

    @property
    def files(self) -> dict[Path, str]:
        """All that is in it, by path."""
        words = self._words()
        return {
            Path("README.md"): template.filled("README.md", {**words, "link": self._link_section(words)}),
            Path("pyproject.toml"): template.filled("pyproject.txt", words),
            Path(f"{self.module}.py"): template.renamed(template.plugin(self.kind), self.name),
            Path("tests", f"test_{self.name}.py"): template.filled("test.txt", words),
        }

    @property
    def link(self) -> str:
        """The file in plugins/ that stands for the plugin, since DVC does not look into packages."""
        return template.filled("link.txt", self._words())

    def _link_section(self, words: dict[str, str]) -> str:
        return template.filled("link.md", {**words, "link": self.link}) if self.kind is Kind.EMBEDDER else ""

    def _words(self) -> dict[str, str]:
        return {
            "name": self.name,
            "kind": self.kind,
            "noun": self.kind.replace("_", " "),
            "folder": self.kind.folder,
            "module": self.module,
            "distribution": self.distribution,
            "version": VERSION,
            "settings": self.kind.settings(self.name),
        }


def write(kind: Kind, name: str, folder: Path) -> Made:
    """Write the package into `folder`; where that is a project and the kind an embedder, its file in plugins/ as well.

    Raises ParamsError for a name that will not do and for what is there already, OSError; then nothing is left behind.
    """
    names.check(name, kind, template.plugin(kind))
    package = Package(kind, name)
    home, link = folder / package.distribution, plugin_path(folder, kind, name)
    require_free(home)
    require_free(link)  # a file comes before a package, which would never be loaded
    _require_new(package.module)
    links = (link,) if kind is Kind.EMBEDDER and is_project(folder) else ()
    try:
        for path in links:
            write_text(path, package.link)
        _place(home, package.files)
    except BaseException:
        for path in links:
            path.unlink(missing_ok=True)
        raise
    # by its path where params.yaml does not list yet what the file in plugins/ stands for
    tried = home / f"{package.module}.py" if links else name
    run = f"dvc exp run -n {name} {package.settings}"
    commands = (f"pip install ./{home}", f"newsfuse check-plugin {tried}", run)
    return Made((*(home / path for path in package.files), *links), commands, _note(package, home, links))


def _note(package: Package, home: Path, links: tuple[Path, ...]) -> str:
    if links:
        return commit_note(package.name, *links)
    if package.kind is Kind.EMBEDDER:
        link = plugin_path(Path(), package.kind, package.name)
        return f"In the project it needs a file {link} as well: {home / 'README.md'} has it."
    return ""


def _place(home: Path, files: dict[Path, str]) -> None:
    with placing(home) as draft:
        for path, text in files.items():
            write_text(draft / path, text)


def _require_new(module: str) -> None:
    """Raise ParamsError where somebody's package is installed whose module is called so: pip would replace it."""
    if found := importlib.util.find_spec(module):
        message = f"{module}: a module of that name is installed already ({found.origin}). Choose another name"
        raise ParamsError(message)
