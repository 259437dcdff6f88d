"""Nothing that others made is run: no file's content, and no words of a shell. SECURITY.md says so."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import subprocess
import zipfile
from dataclasses import fields
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from dangers import dangers
from project import ROOT, missing

from newsfuse import arrays, checkpoint, ebnerd, graph
from newsfuse.artifact import MANIFEST, writing
from newsfuse.checkpoint import Checkpoint
from newsfuse.embeddings import Embeddings
from newsfuse.errors import IntegrityError
from newsfuse.fetching import archive
from newsfuse.vocabularies import Vocabularies
from newsfuse.words import Words
from scripts import audit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
TESTS = re.compile(r"tests/|examples/[^/]+/tests/")
PAGES = re.compile(r"docs/|[^:]+\.md:")
PINNED = re.compile(r"[\w./-]+\.txt:\d+:cloudpickle==\S+( \\)?")
"""What joblib needs, which scikit-learn needs: neither is asked to read or write anything (docs/dependencies.md)."""
OURS = {
    "newsfuse/arrays.py": ["numpy.load", "numpy.load", "numpy.save", "numpy.savez"],
    # taken out of the library's reach
    "plugins/embedders/sentence_transformers.py": ["torch.load"],
}
"""The only places, each of which sees to it that nothing is run."""

SOME = {
    "benchmarks/read.py",
    "examples/newsfuse-headline/measure.py",
    "newsfuse/cli.py",
    "newsfuse/scaffold/templates/encoder.py",
    "plugins/encoders/gnn.py",
    "scripts/audit.py",
    "stages/train.py",
}
"""Programs of each kind."""


def git(*words: str) -> list[str]:
    """The lines that it prints."""
    if reason := missing():
        pytest.skip(reason)
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode < 2, done.stderr
    return done.stdout.splitlines()


# the page


def test_links_of_the_page_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", PAGE)
    assert links
    for path, anchor in links:
        if path.startswith("https://"):
            continue
        headings = re.findall(r"(?m)^#+ (.+)$", (ROOT / path).read_text(encoding="utf-8"))
        names = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
        assert not anchor or anchor in names, f"{path}#{anchor}"


def test_the_page_has_the_limits_of_the_code() -> None:
    gigabytes = archive.MOST_BYTES >> 30, ebnerd.MOST_BYTES >> 30
    assert "more than {} GiB (EB-NeRD: {})".format(*gigabytes) in PAGE
    assert f"more than {archive.MOST_RATIO} times its packed" in PAGE
    assert f"`scripts/audit.py` ends with {audit.UNKNOWN}" in PAGE
    for target in re.findall(r"(?m)^    make (\w+)$", PAGE):
        assert re.search(rf"(?m)^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"))


# the tree


def test_the_word_is_in_tests_and_documentation_alone() -> None:
    found = git("grep", "--untracked", "--line-number", "--ignore-case", "-I", "pickle")
    assert len(found) > 10
    assert [line for line in found if not (TESTS.match(line) or PAGES.match(line) or PINNED.fullmatch(line))] == []


def test_no_code_runs_what_a_file_says() -> None:
    paths = [path for path in git("ls-files", "--cached", "--others", "--exclude-standard") if (ROOT / path).is_file()]
    programs = [path for path in paths if not TESTS.match(path) and is_python(ROOT / path)]
    assert {*programs} >= SOME
    found = {path: dangers((ROOT / path).read_text(encoding="utf-8")) for path in programs}
    assert {path: each for path, each in found.items() if each} == OURS


def is_python(path: Path) -> bool:
    """By its name, or by its first line."""
    if path.suffix:
        return path.suffix == ".py"
    with path.open("rb") as file:
        return re.match(rb"#!.*python", file.readline()) is not None


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", "import pickle"),
        ("def f():\n    from pickle import loads as read", "import pickle"),
        ("import os, dill", "import dill"),
        ("import joblib.memory", "import joblib"),
        ("import shelve", "import shelve"),
        ("import marshal", "import marshal"),
        ("import torch\ntorch.load('x')", "torch.load"),
        ("import torch as t\nt.save({}, 'x')", "torch.save"),
        ("from torch import load\nload('x')", "torch.load"),
        ("import torch\nread = torch.load", "torch.load"),
        ("import torch.jit\ntorch.jit.load('x')", "torch.jit.load"),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", "allow_pickle="),
        ("import numpy as np\nnp.load('x', allow_pickle=False)", "allow_pickle="),
        ("import numpy as np\nnp.load('x')", "numpy.load"),
        ("from numpy.lib import format\nformat.read_array(file)", "numpy.lib.format.read_array"),
        ("import numpy as np\nnp.savez('x', **y)", "numpy.savez"),
        ("import pandas as pd\npd.read_pickle('x')", ".read_pickle"),
        ("frame.to_pickle('x')", ".to_pickle"),
        ("import polars as pl\npl.LazyFrame.deserialize('x')", ".deserialize"),
        ("import yaml\nyaml.load(text, Loader=yaml.Loader)", "yaml.load"),
        ("from yaml import unsafe_load as load\nload(text)", "yaml.unsafe_load"),
        ("import yaml as y\ny.full_load(text)", "yaml.full_load"),
        ("x = [eval(word) for word in words]", "eval"),
        ("exec(text, {})", "exec"),
        ("import subprocess as s\ns.run(words, shell=True)", "shell="),
        ("from subprocess import Popen\nPopen(words, shell=wanted)", "shell="),
        ("import subprocess\nsubprocess.getoutput(words)", "subprocess.getoutput"),
        ("import os\nos.system(words)", "os.system"),
        ("import shutil\nshutil.unpack_archive('x')", "shutil.unpack_archive"),
        ("import tarfile\ntarfile.open('x').extractall()", ".extractall"),
        ("load_model('x', trust_remote_code=True)", "trust_remote_code="),
        ("load_model('x', weights_only=False)", "weights_only="),
        ("import requests\nrequests.get(url, verify=False)", "verify="),
    ],
)  # fmt: skip
def test_the_search_finds_it(source: str, found: str) -> None:
    compile(source, "planted", "exec")
    assert any(each.startswith(found) for each in dangers(source))


@pytest.mark.parametrize(
    "source",
    [
        "import yaml\nyaml.safe_load(text)",
        "model.eval()\nmodel.load('x')",
        "import json\njson.load(file)",
        "from safetensors.torch import load\nload(data)",
        "import subprocess\nsubprocess.run(words, shell=False)",
        "read(trust_remote_code=False, weights_only=True)",
        "import torch\ntorch.load = refuse",
    ],
)
def test_the_search_lets_the_harmless_pass(source: str) -> None:
    assert dangers(source) == []


# arrays


class Harm:
    """What runs when it is read."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return pytest.fail, ("a file's content was run",)


OBJECTS = np.array([Harm()], dtype=object)
STRUCTURED = np.array([(1, Harm())], dtype=[("number", int), ("object", object)])


def npy(array: np.ndarray) -> bytes:
    stream = BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def longer(array: np.ndarray) -> bytes:
    """Its header says that it has a million million numbers."""
    stream = BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f4", "fortran_order": False, "shape": (10**12, len(array))}
    )
    return stream.getvalue() + array.tobytes()


PLANTED = {
    "objects": npy(OBJECTS),
    "records with objects": npy(STRUCTURED),
    "text": npy(np.array(["a", "b"])),
    "a bare object": pickle.dumps(Harm()),
    "more numbers than there are": longer(np.ones(4, np.float32)),
    "a header that is no header": b"\x93NUMPY\x01\x00\x10\x00" + b"__import__('os')",
    "a newer format": b"\x93NUMPY\x09\x00",
    "nothing": b"",
}


def planted(folder: Path, name: str, content: bytes) -> None:
    """Put `content` into an artifact, whose manifest says that it is right."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest.pop("sha256", None)  # its own: one who can write it can take it out
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def zipped(member: str, content: bytes, packing: int = zipfile.ZIP_STORED) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as file:
        file.writestr(member, content)
    return stream.getvalue()


@pytest.mark.parametrize("what", PLANTED)
def test_vectors_that_are_not_numbers_are_refused(what: str, tmp_path: Path) -> None:
    folder = tmp_path / "embeddings"
    Embeddings(Words.of(["N1"]), np.ones((1, 4), np.float32)).write(folder, {})
    planted(folder, "vectors.npy", PLANTED[what])
    with pytest.raises(IntegrityError, match=r"vectors\.npy: no array that newsfuse reads: ") as caught:
        Embeddings.read(folder)
    assert "make it again: dvc repro" in str(caught.value)


@pytest.mark.parametrize("what", PLANTED)
def test_a_graph_whose_arrays_are_not_numbers_is_refused(what: str, tmp_path: Path) -> None:
    made(tmp_path / "graph")
    planted(tmp_path / "graph", graph.ARRAYS, zipped("edges_entity.npy", PLANTED[what]))
    with pytest.raises(IntegrityError, match=r"graph\.npz: no array that newsfuse reads: "):
        graph.read(tmp_path / "graph")


@pytest.mark.parametrize(
    "content",
    [
        zipped("entity_vectors.npy", npy(np.zeros((1000, 1000))), zipfile.ZIP_DEFLATED),
        zipped("../edges_entity.txt", b"no array"),
        zipped("edges_entity.npy", npy(np.zeros((2, 0), np.int32))),  # and no entity vectors
        pickle.dumps(Harm()),
        b"PK\3\4",
    ],
    ids=["packed", "no array", "one is missing", "a bare object", "no zip file"],
)
def test_a_graph_that_is_no_such_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    made(tmp_path / "graph")
    planted(tmp_path / "graph", graph.ARRAYS, content)
    with pytest.raises(IntegrityError, match=r"graph\.npz: no array that newsfuse reads: "):
        graph.read(tmp_path / "graph")


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, pickle.dumps(Harm()), b"\x02" + bytes(7) + b"[}"])
def test_weights_that_are_no_safetensors_are_refused(content: bytes, tmp_path: Path) -> None:
    folder, nothing = tmp_path / "model", Vocabularies(*(Words.of([]) for _ in fields(Vocabularies)))
    with writing(folder, kind=checkpoint.KIND, settings={"architecture": {}, "training": {}}) as draft:
        (draft / "weights.safetensors").write_bytes(content)
        nothing.write(draft)
    with pytest.raises(IntegrityError, match=r"weights\.safetensors: no weights that newsfuse reads"):
        Checkpoint.read(folder)


def made(folder: Path) -> None:
    """A graph of one article."""
    none = Words.of(pl.Series([], dtype=pl.String))
    graph.write(graph.NewsGraph(Words.of(["N1"]), none, none, {}, np.zeros((0, 2), np.float32)), folder, {})


def test_what_is_not_numbers_is_not_written_either(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="an array of object is not one of numbers"):
        arrays.save(tmp_path / "x.npy", OBJECTS)
    with pytest.raises(TypeError, match="is not one of numbers"):
        arrays.save_all(tmp_path / "x.npz", {"x": STRUCTURED})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.asfortranarray(np.ones((3, 2), np.float32)),
        np.zeros((2, 0)),
        np.array([True]),
        np.array("2026-01-01T00:00", "datetime64[s]"),
    ],
)
@pytest.mark.parametrize("mapped", [False, True])
def test_numbers_come_back(array: np.ndarray[Any, Any], tmp_path: Path, *, mapped: bool) -> None:
    arrays.save(tmp_path / "x.npy", array)
    found = arrays.load(tmp_path / "x.npy", mapped=mapped)
    arrays.save_all(tmp_path / "x.npz", {"b": array, "a": array})
    others = arrays.load_all(tmp_path / "x.npz", needed="a")
    assert list(others) == ["b", "a"]
    for each in (found, *others.values()):
        assert each.dtype == array.dtype
        np.testing.assert_array_equal(each, array)
