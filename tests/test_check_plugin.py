"""`newsfuse check-plugin`: what a name means, what is printed, and the exit code."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_registry import install

from newsfuse.commands.plugins import check_plugin
from newsfuse.plugin import Encoder
from newsfuse.registry import FOLDERS, Registry
from newsfuse.scaffold.kind import Kind
from newsfuse.testing.cost import Peak, bill

ROOT = Path(__file__).parents[1]
MEAN = """
from torch import nn
from newsfuse import Fusion, hookimpl

class Mean(nn.Module):
    def forward(self, views):
        return views.mean(dim=1)

def build(dim, start, options):
    return Mean()

@hookimpl
def newsfuse_fusions():
    return [Fusion("{name}", build)]
"""
LAST = """
from torch import nn
from newsfuse import UserEncoder, hookimpl

class Mean(nn.Module):
    def forward(self, history, clicked):
        return (history * clicked.unsqueeze(2)).sum(dim=1) / clicked.sum(dim=1, keepdim=True)

def build(dim, history, options):
    return Mean()

@hookimpl
def newsfuse_user_encoders():
    return [UserEncoder("{name}", build)]
"""
NEIGHBOURS = ("views.mean(dim=1)", "views.mean(dim=1) + views.mean(dim=(0, 1))")
FIRST_ALONE = ("views.mean(dim=1)", "views[:, 0]")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is no project, to work in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def project(here: Path) -> Path:
    """A project without plugins, to work in."""
    for folder in FOLDERS.values():
        (here / "plugins" / folder).mkdir(parents=True)
    (here / "params.yaml").write_text("plugin_packages: {}\n", encoding="utf-8")
    return here


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages; what is imported from there is forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "guest_headline", raising=False)
    return folder


def write(path: Path, source: str, name: str = "mine") -> Path:
    path.write_text(source.format(name=name), encoding="utf-8")
    return path


def check(name: str, kind: Kind | None = None) -> int:
    """The exit code."""
    try:
        check_plugin(name, kind=kind)
    except SystemExit as error:
        return int(str(error.code))
    return 0


def states(printed: str) -> dict[str, str]:
    """By promise: ok, BROKEN or skipped."""
    lines = (line.split(maxsplit=1) for line in printed.splitlines() if line.startswith(("  ok ", "  BR", "  sk")))
    return {promise.partition(":")[0]: state for state, promise in lines}


def test_a_sound_file_gets_a_line_for_each_promise_and_its_costs(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project / "plugins/fusions/mine.py", MEAN)
    write(project / "plugins/fusions/other.py", MEAN, "other")
    assert check("mine") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("fusion 'mine' (plugins/fusions/mine.py)\n  ok       its name can be used\n")
    assert set(states(printed).values()) == {"ok", "skipped"} if not torch.cuda.is_available() else {"ok"}
    title, mine, other = printed.splitlines()[-3:]
    assert title.split() == ["10,000", "articles,", "forwards", "and", "backwards", "seconds", "MB", "to", "build"]
    assert (mine.split()[0], other.split()[0]) == ("mine", "other")
    assert mine.split()[2] == other.split()[2] != "0.0"  # as much memory, being the same


def test_a_broken_promise_is_told_with_what_was_found_and_what_to_do(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project / "plugins/fusions/mine.py", MEAN.replace(*NEIGHBOURS))
    assert check("mine") == 9
    printed, error = capsys.readouterr()
    (told,) = printed.split("  BROKEN   articles are fused apart\n")[1:]
    assert told.startswith("           row 0 changes when it is asked for alone\n           In eval() a row may depend")
    assert error == f"ERROR: fusion 'mine' breaks 1 of {len(states(printed))} promises\n"


def test_all_broken_promises_are_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project / "plugins/fusions/mine.py", MEAN.replace(*FIRST_ALONE).replace("build)", "build, params=Lax)"))
    with (project / "plugins/fusions/mine.py").open("a", encoding="utf-8") as file:
        file.write("\nfrom newsfuse import Options\nclass Lax(Options, extra='ignore'):\n    pass\n")
    assert check("mine") == 9
    found = states(capsys.readouterr().out)
    assert {promise for promise, state in found.items() if state == "BROKEN"} == {
        "unknown settings are refused",
        "every view is reached",
    }


def test_no_line_is_wider_than_a_terminal(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project / "plugins/fusions/mine.py", MEAN.replace(*NEIGHBOURS))
    check("mine")
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_name_of_nothing_is_told_with_the_nearest(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project / "plugins/fusions/mine.py", MEAN)
    assert check("mime", Kind.FUSION) == 2
    assert capsys.readouterr().err == "ERROR: no fusion is called 'mime'. Did you mean 'mine'? Known: mine\n"


def test_outside_a_project_a_name_of_nothing_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("gate") == 2
    assert f"{here} is no newsfuse project: only packages count here" in capsys.readouterr().err


def test_a_file_is_checked_outside_a_project(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here / "json.py", MEAN)  # called as a module of Python is, which must not be replaced by it
    assert check("json.py") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("fusion 'mine' (json.py)\n")
    assert printed.endswith("  outside a newsfuse project there are no built-ins to compare with\n")
    assert not hasattr(sys.modules["json"], "Mean")


def test_a_file_of_the_project_may_be_given_by_its_path(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project / "plugins/fusions/mine.py", MEAN, "nome")
    assert check("plugins/fusions/mine.py") == 9  # there the name must be the file's
    assert "one Fusion called 'mine' is expected" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("mine.py") == 2
    assert capsys.readouterr().err == "ERROR: mine.py: there is no such file\n"


def test_a_file_without_a_hook_is_told_which_there_are(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "mine.py").write_text("", encoding="utf-8")
    assert check("mine.py") == 9
    assert capsys.readouterr().err.startswith("ERROR: mine.py: offers no plugin. Mark one of the functions newsfuse_")


def test_a_file_of_another_kind_than_asked_for_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here / "mine.py", MEAN)
    assert check("mine.py", Kind.USER_ENCODER) == 2
    assert capsys.readouterr().err == "ERROR: mine.py: offers no user encoder\n"


@pytest.mark.parametrize("name", ["mine", "plugins/fusions/mine.py", "loose.py"])
def test_a_file_that_cannot_be_imported_is_told_with_its_line(
    project: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (project / "plugins/fusions/mine.py", project / "loose.py"):
        path.write_text("\n\nimport no_such_module\n", encoding="utf-8")
    assert check(name) == 9
    printed, error = capsys.readouterr()
    assert printed == ""
    assert "ModuleNotFoundError: No module named 'no_such_module'" in error
    assert f"{name.removeprefix('plugins/fusions/').removesuffix('.py')}.py:3)" in error
    assert "Traceback" not in error


def test_a_name_of_several_kinds_checks_all_of_them(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project / "plugins/fusions/mine.py", MEAN)
    write(project / "plugins/user_encoders/mine.py", LAST)
    assert check("mine") == 0
    printed = capsys.readouterr().out
    assert "fusion 'mine' (plugins/fusions/mine.py)\n" in printed
    assert "user encoder 'mine' (plugins/user_encoders/mine.py)\n" in printed


def test_with_a_kind_only_that_one_is_checked(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "plugins/fusions/mine.py").write_text("1 / 0", encoding="utf-8")
    write(project / "plugins/user_encoders/mine.py", LAST)
    assert check("mine", Kind.USER_ENCODER) == 0
    assert "fusion" not in capsys.readouterr().out


def test_a_broken_namesake_keeps_no_other_from_being_checked(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "plugins/fusions/mine.py").write_text("1 / 0", encoding="utf-8")
    write(project / "plugins/user_encoders/mine.py", LAST)
    assert check("mine") == 9
    printed, error = capsys.readouterr()
    assert "BROKEN" not in printed
    assert states(printed)["users are encoded apart"] == "ok"
    assert "ZeroDivisionError" in error


def test_an_installed_package_is_checked_without_being_listed(
    here: Path, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "newsfuse-headline", {"guest_headline": MEAN.format(name="headline")})
    assert check("headline") == 0
    assert capsys.readouterr().out.startswith("fusion 'headline' (newsfuse-headline 0.1.0 (guest_headline))\n")


def test_a_file_of_the_project_comes_before_a_package(
    project: Path, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "newsfuse-headline", {"guest_headline": MEAN.format(name="headline")})
    write(project / "plugins/fusions/headline.py", MEAN, "headline")
    assert check("headline") == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("fusion")] == [
        "fusion 'headline' (plugins/fusions/headline.py)"
    ]


def test_a_broken_package_is_told_with_version_and_line(
    here: Path, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "newsfuse-headline", {"guest_headline": "\n1 / 0"})
    assert check("headline") == 9
    told = "ERROR: newsfuse-headline 0.1.0 (guest_headline): cannot be loaded: ZeroDivisionError: division by zero"
    assert capsys.readouterr().err == f"{told} ({site / 'guest_headline.py'}:2)\n"


def test_with_plugins_shut_out_no_package_is_looked_at(
    here: Path, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NEWSFUSE_NO_PLUGINS", "1")
    install(site, "newsfuse-headline", {"guest_headline": "raise SystemExit('ran')"})
    assert check("headline") == 2
    assert "NEWSFUSE_NO_PLUGINS" in capsys.readouterr().err


def test_a_plugin_that_fails_on_many_articles_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project / "plugins/fusions/mine.py", MEAN.replace("views.mean(dim=1)", "views.mean(dim=1)[:5000].clone()"))
    path = project / "plugins/fusions/mine.py"
    path.write_text(path.read_text().replace("[:5000].clone()", " / (len(views) < 5000 or 1 // 0)"), encoding="utf-8")
    assert check("mine") == 9
    printed = capsys.readouterr().out
    assert "  BROKEN   it works through ten thousand articles\n           ZeroDivisionError" in printed


def test_memory_is_the_most_that_tensors_held_at_once() -> None:
    kept = torch.ones(1000)
    with Peak() as peak:
        first = kept + 1  # 4,000 bytes
        first[:10] += 1  # a view, changed in place: nothing new
        del first
        second = kept[:500] + 1  # 2,000
        third = kept[:600] + 1  # 2,400
        del second, third
    assert peak.most == 4400


def test_memory_counts_what_is_kept_for_the_gradient() -> None:
    weight = torch.ones(1000, requires_grad=True)
    with Peak() as peak:
        output = (weight * 2).exp().exp()  # of the three results, all of 4,000 bytes, the exps are kept
        output.sum().backward()
    assert peak.most >= 12_000


def test_an_encoder_s_bill_is_the_same_in_every_run() -> None:
    encoder = Registry(ROOT / "plugins", {}).load(Encoder, "id")
    assert bill(encoder).peak_mb == bill.__wrapped__(encoder).peak_mb > 10


def test_the_command_checks_a_shipped_plugin() -> None:
    command = [sys.executable, "-m", "newsfuse.cli", "check-plugin", "mean", "--kind", "user_encoder"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("user encoder 'mean' (plugins/user_encoders/mean.py)\n")
    assert result.stdout.splitlines()[-1].split()[0] == "attention"
