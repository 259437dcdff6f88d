"""What the documents say is so."""

import re
import tomllib
from pathlib import Path

from newsfuse import Need, hookspecs
from newsfuse.offers import BUILDS

ROOT = Path(__file__).parents[1]


def test_every_dependency_is_pinned_and_justified() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[=;<>\[ ]", line)[0].lower() for line in project["dependencies"]}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if "==" in line}
    justified = set(re.findall(r"^\| ([a-z-]+) \|", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE)) - {
        "package"
    }
    assert names - pinned == set()
    assert names == justified


def test_every_hook_is_documented_with_its_signature() -> None:
    text = (ROOT / "docs/plugins.md").read_text()
    for name in vars(hookspecs):
        if name.startswith("newsfuse_"):
            kind = getattr(hookspecs, name).__annotations__["return"]
            assert f"def {name}() -> Iterable[{kind.__args__[0].__name__}]: ..." in text


def test_what_build_takes_is_documented_as_the_plugin_classes_have_it() -> None:
    text = (ROOT / "docs/plugins.md").read_text().replace("\\|", "|")
    for kind, names in BUILDS.items():
        found = re.search(rf"^\| `{kind.__name__}` \| `build\((.+?)\)`", text, re.MULTILINE)
        assert found, kind
        documented = dict(each.split(": ") for each in found[1].split(", "))
        assert tuple(documented) == names
        types = ", ".join(documented.values()).replace("Options", "Any")
        assert kind.__annotations__["build"].startswith(f"Callable[[{types}], ")


def test_every_need_is_documented() -> None:
    text = (ROOT / "docs/plugins.md").read_text()
    for need in Need:
        assert f"| `Need.{need.name}` | `{need.value}` |" in text


def test_links_between_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page}: {link}"


def test_ci_runs_the_two_commands_of_the_readme() -> None:
    script = (ROOT / ".ci/run").read_text()
    for command in ("make run", "make test"):
        assert f"\n{command}\n" in (ROOT / "README.md").read_text()
        assert command in script
