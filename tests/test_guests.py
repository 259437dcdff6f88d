"""Plugins of others in a real project: installed packages, links to them, and what is broken beside what is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from project import Outcome, Project

if TYPE_CHECKING:
    from pathlib import Path

EMBEDDER = """
from newsfuse import Embedder, hookimpl
import numpy as np

def build(corpus, model, dimensions, options):
    return lambda texts: np.full((len(texts), dimensions), {value}, dtype=np.float32)

@hookimpl
def newsfuse_embedders():
    return [Embedder("foo", build)]
"""
ENCODER = """
import torch
from torch import nn

from newsfuse import Encoder, hookimpl


class Mine(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.calls, self.vector = 0, nn.Parameter(torch.ones(dim))

    def forward(self, news):
        self.calls += 1
        {body}
        return self.vector.expand(len(news), -1)


class Refused(torch.autograd.Function):
    @staticmethod
    def forward(context, vector):
        return vector.clone()

    @staticmethod
    def backward(context, gradient):
        raise RuntimeError("no way back")


def build(inputs, dim, options):
    return Mine(dim)


@hookimpl
def newsfuse_encoders():
    return [Encoder("mine", build)]
"""
MODEL = "data/tiny/model"


@dataclass(frozen=True)
class Host(Project):
    """A project with installed packages beside it."""

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "PYTHONPATH": str(self.root.parent / "site")}

    def install(self, name: str, plugin: str, source: str, version: str) -> None:
        """A package of one plugin, in the place of any other version of it."""
        site, module = self.root.parent / "site", name.replace("-", "_")
        info = site / f"{module}.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[newsfuse]\n{plugin} = {module}\n", encoding="utf-8")
        (site / f"{module}.py").write_text(source, encoding="utf-8")

    def link(self, version: str) -> None:
        """To newsfuse-foo."""
        link = f'"""Vectors of a guest."""\n\nPACKAGE = "newsfuse-foo=={version}"\n'
        (self.root / "plugins/embedders/foo.py").write_text(link, encoding="utf-8")

    def list(self, packages: str) -> None:
        self.edit("params.yaml", r"(?m)^plugin_packages:.*$", f"plugin_packages: {packages}")


@pytest.fixture
def host(project: Project) -> Host:
    """One with an embedder of a package, and its link."""
    host = Host(project.root)
    host.install("newsfuse-foo", "foo", EMBEDDER.format(value="1.0"), "1.2.0")
    host.edit("params.yaml", "provider: lsa", "provider: foo")
    host.edit("params.yaml", "  lsa: {}", "  foo: {}")
    host.list("{newsfuse-foo: 1.2.0}")
    host.link("1.2.0")
    return host


def refused(outcome: Outcome) -> str:
    """What a stage said when it refused a plugin."""
    assert outcome.code == 9, outcome.text
    assert "Traceback" not in outcome.text
    return next(line for line in outcome.text.splitlines() if line.startswith("ERROR: "))


def test_an_embedder_of_a_package_runs_through_its_link_and_again_in_another_version(host: Host) -> None:
    assert "foo" in host.must("newsfuse", "plan").text
    assert host.dvc("repro", "embed").ran == ["embed"]
    first = host.hashes("data/tiny/embeddings")

    host.install("newsfuse-foo", "foo", EMBEDDER.format(value="2.0"), "1.3.0")
    told = refused(host.stage("embed"))
    assert "'newsfuse-foo' 1.2.0 is asked for, 1.3.0 is installed" in told
    host.list("{newsfuse-foo: 1.3.0}")
    assert "links newsfuse-foo 1.2.0, but params.yaml: plugin_packages lists 1.3.0" in refused(host.stage("embed"))
    host.link("1.3.0")
    assert host.dvc("repro", "embed").ran == ["embed"]
    assert host.hashes("data/tiny/embeddings") != first


def test_a_package_of_something_else_reruns_neither_embed_nor_graph(host: Host) -> None:
    host.dvc("repro", "embed")
    host.install("newsfuse-mine", "mine", ENCODER.format(body=""), "0.1.0")
    host.list("{newsfuse-foo: 1.2.0, newsfuse-mine: 0.1.0}")
    assert host.dvc("repro", "embed", "graph").ran == []
    assert host.would_run()[:1] == ["train"]


def test_an_embedder_of_a_package_without_a_link_is_told_what_to_write(host: Host) -> None:
    (host.root / "plugins/embedders/foo.py").unlink()
    outcome = host.run("newsfuse", "plan")
    assert outcome.code == 2
    assert 'Write plugins/embedders/foo.py: PACKAGE = "newsfuse-foo==1.2.0"' in outcome.text


def test_broken_files_beside_those_that_are_used_stop_nothing_and_rerun_neither_embed_nor_graph(
    project: Project,
) -> None:
    broken = {
        "encoders/unfinished": "def newsfuse_encoders(",
        "encoders/lacking": "import no_such_module\n",
        "fusions/misspelt": "from newsfuse import hookimpl\n@hookimpl\ndef newsfuse_fusion(): return []\n",
        "embedders/lacking": "import no_such_module\n",
    }
    for name, source in broken.items():
        (project.root / f"plugins/{name}.py").write_text(source, encoding="utf-8")
    assert project.dvc("repro").ran == ["train", "evaluate"]


RAISES = "if self.calls == 20: raise ValueError('had enough')"
LETS_NOTHING_BACK = "if self.calls == 20: return Refused.apply(self.vector).expand(len(news), -1)"


def with_mine(project: Project, body: str, where: str) -> Path:
    """Turn an encoder on that is written here."""
    file = project.root / where
    file.write_text(ENCODER.format(body=body), encoding="utf-8")
    project.edit("params.yaml", r"(?m)^encoders:[^\n]*\n", "encoders:\n  mine: true\n")
    return file


def test_a_plugin_that_raises_in_the_middle_of_training_names_itself_and_leaves_the_model_that_was_there(
    project: Project,
) -> None:
    before, file = project.hashes(MODEL), with_mine(project, LETS_NOTHING_BACK, "plugins/encoders/mine.py")
    told = refused(project.stage("train"))
    assert told == f"ERROR: plugins/encoders/mine.py: RuntimeError: no way back ({file}:26)"
    assert project.hashes(MODEL) == before
    assert not list((project.root / "data/tiny").glob(".model*"))


def test_a_package_that_raises_in_the_middle_of_training_under_dvc_leaves_no_half_model(project: Project) -> None:
    host = Host(project.root)
    host.install("newsfuse-mine", "mine", ENCODER.format(body=RAISES), "0.1.0")
    host.list("{newsfuse-mine: 0.1.0}")
    host.edit("params.yaml", r"(?m)^encoders:[^\n]*\n", "encoders:\n  mine: true\n")
    outcome = host.run("dvc", "repro")
    assert outcome.code == 255
    assert outcome.ran == ["train"]
    place = host.root.parent / "site" / "newsfuse_mine.py"
    assert f"ERROR: newsfuse-mine 0.1.0 (newsfuse_mine): ValueError: had enough ({place}:15)\n" in outcome.text
    assert not (host.root / MODEL).exists()
    assert not list((host.root / "data/tiny").glob(".model*"))
