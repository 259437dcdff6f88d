"""The embed stage in this process, with the real openai client and a real server on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from openai_server import OpenAIServer, vector
from small import ROOT

from newsfuse.artifact import verified
from newsfuse.embeddings import KIND, Embeddings
from newsfuse.errors import AuthenticationError, NewsfuseError, ParamsError, ProviderError, RefusedTextsError
from newsfuse.exchange import take_in
from newsfuse.news import TEXT_VERSION, News
from newsfuse.paid.ledger import Ledger
from newsfuse.paid.space import Space
from newsfuse.params import load
from stages.embed import embed

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "sk-CANARY-0123456789abcdef"
DIMENSIONS = 8
ARTIFACT = {"ids.txt", "keys", "manifest.json", "vectors.npy"}
TITLES = {
    "train": {f"N{number}": f"title {number % 25}" for number in range(30)},  # five texts are those of two articles
    "dev": {f"N{number}": f"title {number % 25}" for number in range(27, 37)},  # three articles are in both files
}
TEXTS = 25
ARTICLES = 37
TOKENS = 10 * 1 + 15 * 2
"""As the server bills them: bytes / 4, rounded down. The estimator rounds up."""


@dataclass(frozen=True)
class Stage:
    """A project with the embed stage's inputs, in which we are, and the server that it pays."""

    root: Path
    server: OpenAIServer
    patch: pytest.MonkeyPatch

    @property
    def folder(self) -> Path:
        return self.root / "data" / "mine" / "embeddings"

    @property
    def ledger(self) -> Path:
        return self.root / ".newsfuse" / "ledger.sqlite"

    def write(self, titles: dict[str, dict[str, str]] = TITLES, *, backwards: bool = False) -> None:
        for split, articles in titles.items():
            path = self.root / "data" / "mine" / split / "news.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [f"{name}\tsports\tgolf\t{title}\tnot read\t\t[]\t[]\n" for name, title in articles.items()]
            path.write_text("".join(lines[::-1] if backwards else lines), encoding="utf-8")

    def set(self, **embed: Any) -> None:  # noqa: ANN401 - any setting of the section
        """params.yaml as shipped, but for these settings of `embed`."""
        shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        shipped["embed"] |= {"provider": "openai", "dimensions": DIMENSIONS, "fields": ["title"], **embed}
        (self.root / "params.yaml").write_text(yaml.safe_dump({**shipped, "dataset": "mine"}), encoding="utf-8")

    def run(self, **variables: object) -> dict[str, bytes]:
        """Run the stage with these NEWSFUSE_ variables -> its artifact, file by file."""
        with self.patch.context() as patch:
            for name, value in variables.items():
                patch.setenv(f"NEWSFUSE_{name.upper()}", str(value))
            embed(*load(Path()))
        return self.artifact()

    def artifact(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def metrics(self) -> dict[str, float]:
        found: dict[str, float] = json.loads((self.root / "metrics" / "embed.json").read_text(encoding="utf-8"))
        return found

    def forget(self) -> None:
        """As if the stage had never run."""
        for folder in (self.folder, self.ledger.parent, self.root / "metrics"):
            shutil.rmtree(folder, ignore_errors=True)
        self.server.forget()

    def as_program(self, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
        command = [sys.executable, "-m", "stages.embed"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "NEWSFUSE_", "DVC_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr("newsfuse.paid.patience.BACKOFF_S", 0.001)
    with OpenAIServer() as server:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.chdir(tmp_path)
        (tmp_path / ".dvc").mkdir()
        (tmp_path / "plugins").symlink_to(ROOT / "plugins")
        made = Stage(tmp_path, server, monkeypatch)
        made.write()
        made.set()
        yield made


def refused(stage: Stage, kind: type[NewsfuseError], **variables: object) -> str:
    """The message of the error that the stage ends in; it leaves neither an artifact nor metrics."""
    with pytest.raises(NewsfuseError) as caught:
        stage.run(**variables)
    assert type(caught.value) is kind
    assert not stage.folder.exists()
    assert not (stage.root / "metrics" / "embed.json").exists()
    assert KEY not in str(caught.value)
    return str(caught.value)


# the artifact


def test_every_article_gets_the_vector_of_its_own_text(stage: Stage) -> None:
    stage.server.mode = "reversed"
    stage.run(max_inputs=4)
    found = Embeddings.read(stage.folder)
    titles = TITLES["dev"] | TITLES["train"]
    assert found.ids.words.to_list() == sorted(titles)
    assert found.vectors.shape == (ARTICLES, DIMENSIONS)
    assert found.vectors.dtype == np.float32
    for news_id, row in zip(found.ids.words, found.vectors, strict=True):
        np.testing.assert_array_equal(row, vector(titles[news_id], DIMENSIONS))


def test_a_text_is_sent_once_however_many_articles_have_it(stage: Stage) -> None:
    stage.run()
    assert sorted(stage.server.texts) == sorted({f"title {number}" for number in range(25)})


def test_the_keys_are_those_of_the_articles_in_the_order_of_their_ids(stage: Stage) -> None:
    artifact = stage.run()
    assert artifact.keys() == ARTIFACT
    texts = News.read(*(stage.root / "data" / "mine" / split / "news.tsv" for split in TITLES)).texts(["title"])
    space = Space("openai", stage.server.host, "text-embedding-3-small", DIMENSIONS, TEXT_VERSION, {})
    lines = artifact["keys"].decode().splitlines()
    assert lines == [key.hex() for key in space.keys(texts)]
    assert len(lines) == ARTICLES
    with Ledger.reading(stage.ledger) as ledger:
        assert ledger.missing([bytes.fromhex(line) for line in lines]) == []


def test_the_manifest_says_what_made_the_vectors_and_not_how_they_were_asked_for(stage: Stage) -> None:
    stage.run(concurrency=3)
    assert verified(stage.folder, kind=KIND) == {
        "provider": "openai",
        "host": stage.server.host,
        "model": "text-embedding-3-small",
        "dimensions": DIMENSIONS,
        "fields": ["title"],
        "views": "together",
        "options": {},
        "text": TEXT_VERSION,
    }


@pytest.mark.parametrize("provider", ["openai", "lsa"])
def test_views_that_are_apart_have_a_vector_each_side_by_side(stage: Stage, provider: str) -> None:
    apart = {"fields": ["title", "abstract"], "views": "apart"}
    stage.set(provider=provider, **apart)
    stage.run()
    found = Embeddings.read(stage.folder)
    assert (found.vectors.shape, found.views) == ((ARTICLES, 2 * DIMENSIONS), 2)
    both = found.of(found.ids.words, []).reshape(ARTICLES, 2, DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(both, axis=2), 1, rtol=1e-5)
    np.testing.assert_array_equal(both[:, 1], np.tile(both[0, 1], (ARTICLES, 1)))  # one abstract is that of all
    if provider == "openai":
        assert len(np.unique(both[:, 0], axis=0)) == TEXTS
        assert sorted(stage.server.texts) == sorted({*TITLES["train"].values(), *TITLES["dev"].values(), "not read"})


def test_a_lost_ledger_is_rebuilt_from_views_that_are_apart_for_nothing(stage: Stage) -> None:
    stage.set(fields=["title", "abstract"], views="apart")
    first = stage.run()
    stage.server.forget()
    shutil.rmtree(stage.ledger.parent)
    take_in([stage.folder])
    assert stage.run() == first
    assert stage.server.requests == 0


def test_the_bytes_are_the_same_however_the_texts_were_bought(stage: Stage) -> None:
    reference = stage.run()
    for concurrency, max_inputs, mode in ((1, 1, "ok"), (8, 3, "reversed"), (16, 2, "ok"), (8, 7, "no_usage")):
        stage.forget()
        stage.server.mode = mode
        stage.server.before = lambda number: time.sleep(0.03 * (number % 3))  # answers arrive in another order
        assert stage.run(concurrency=concurrency, max_inputs=max_inputs) == reference
        assert stage.server.twice == 0


def test_the_order_of_the_lines_changes_nothing_and_costs_nothing(stage: Stage) -> None:
    reference = stage.run()
    stage.write(backwards=True)
    assert stage.run() == reference
    assert stage.server.requests == 1


def test_it_is_what_numpy_writes(stage: Stage, tmp_path: Path) -> None:
    artifact = stage.run()
    np.save(tmp_path / "again.npy", np.load(stage.folder / "vectors.npy", allow_pickle=False))
    assert (tmp_path / "again.npy").read_bytes() == artifact["vectors.npy"]


# what it costs


def test_a_paying_and_a_reusing_run_differ_in_their_metrics_alone(stage: Stage) -> None:
    paying = stage.run(max_inputs=10)
    dollars = round(TOKENS * 0.02 / 1e6, 6)
    assert stage.metrics() == {
        "texts": TEXTS,
        "paid": TEXTS,
        "reused": 0,
        "requests": 3,
        "tokens": TOKENS,
        "dollars": dollars,
    }
    shutil.rmtree(stage.folder)  # as DVC does before a stage runs
    reusing = stage.run()
    assert stage.metrics() == {"texts": TEXTS, "paid": 0, "reused": TEXTS, "requests": 0, "tokens": 0, "dollars": 0.0}
    assert reusing == paying
    assert stage.server.requests == 3


def test_a_new_article_costs_its_own_text_and_a_renamed_one_nothing(stage: Stage) -> None:
    stage.run()
    articles = {**TITLES["train"], "N99": "title 99"}
    articles["M0"] = articles.pop("N0")
    stage.write({**TITLES, "train": articles})
    stage.run()
    assert stage.server.texts[TEXTS:] == ["title 99"]
    assert stage.metrics() == {"texts": 26, "paid": 1, "reused": 25, "requests": 1, "tokens": 2, "dollars": 0.0}


def test_what_was_paid_for_needs_no_key(stage: Stage) -> None:
    paying = stage.run()
    stage.patch.delenv("OPENAI_API_KEY")
    assert stage.run(budget_usd=0) == paying
    stage.write({**TITLES, "dev": {"N99": "title 99"}})
    with pytest.raises(AuthenticationError, match=r"1 texts have no vectors yet: about 2 tokens, \$0\.0000\. Nothing"):
        stage.run()
    assert stage.server.requests == 1


def test_other_dimensions_another_model_and_another_server_are_other_vectors(stage: Stage) -> None:
    stage.run()
    changes: list[dict[str, Any]] = [{"dimensions": 16}, {"model": "text-embedding-3-large"}]
    for number, change in enumerate(changes, 2):
        stage.set(**change)
        stage.run()
        assert stage.server.billed == number * TEXTS
    stage.set()
    with OpenAIServer() as other:
        stage.patch.setenv("OPENAI_BASE_URL", other.url)
        stage.run()
        assert other.billed == TEXTS


def test_an_embedder_that_costs_nothing_has_metrics_too_and_no_ledger(stage: Stage) -> None:
    stage.set(provider="lsa")
    stage.write({"train": {"N1": "red apple", "N2": "green pear", "N3": "red pear"}, "dev": {"N4": "red apple"}})
    artifact = stage.run()
    assert artifact.keys() == ARTIFACT - {"keys"}
    assert stage.metrics() == {"texts": 3, "paid": 0, "reused": 3, "requests": 0, "tokens": 0, "dollars": 0.0}
    assert not stage.ledger.parent.exists()


# other servers


def test_a_server_that_answers_in_floats_gives_the_same_bytes(stage: Stage) -> None:
    reference = stage.run()
    stage.forget()
    stage.server.base64_known = False
    assert stage.run() == reference


def test_a_server_that_takes_few_texts_at_a_time_gets_few(stage: Stage) -> None:
    stage.run(max_inputs=4)
    assert sorted(len(body["input"]) for body in stage.server.bodies) == [1, 4, 4, 4, 4, 4, 4]


def test_dimensions_that_a_server_ignores_are_refused_and_nothing_is_kept(stage: Stage) -> None:
    stage.server.mode = "wrong_dimension"
    message = refused(stage, ProviderError)
    assert message.startswith(
        f"{stage.server.host}: vector 24 has 16 numbers, asked were 8. "
        "If the model has one size only, say so: embed.dimensions=16. Gave up after 2 requests. "
        "0 texts are paid and kept"
    )
    assert stage.server.requests == 2
    with Ledger.reading(stage.ledger) as ledger:
        assert [each.status for each in ledger.requests()] == ["useless", "useless"]


def test_a_server_that_knows_no_encoding_is_asked_without_and_gives_the_same_bytes(stage: Stage) -> None:
    reference = stage.run()
    stage.forget()
    stage.server.mode, stage.server.unknown, stage.server.base64_known = "picky", frozenset({"encoding_format"}), False
    assert stage.run(max_inputs=5, retries=0) == reference
    refusals = [body for body in stage.server.bodies if "encoding_format" in body]
    assert len(refusals) == 1  # by the first request, which goes alone
    assert (stage.server.requests, stage.server.twice) == (6, 0)


def test_a_server_of_one_size_that_knows_no_dimensions_is_asked_without(stage: Stage) -> None:
    stage.set(dimensions=1536)
    reference = stage.run()
    stage.forget()
    stage.server.mode, stage.server.unknown = "picky", frozenset({"dimensions"})
    assert stage.run() == reference


# mistakes and mishaps


def test_a_misspelt_variable_is_told_before_anything_is_sent(stage: Stage) -> None:
    assert refused(stage, ParamsError, bugdet_usd="0").startswith("NEWSFUSE_BUGDET_USD: no such variable.")
    assert stage.server.requests == 0


def test_a_refused_text_is_told_with_file_line_and_id_and_all_others_are_kept(stage: Stage) -> None:
    stage.write({**TITLES, "dev": {"N98": "title 3", "N99": "bad title"}})
    stage.server.mode, stage.server.poison = "poisonous", "bad"
    done = stage.as_program()
    assert done.returncode == RefusedTextsError.exit_code == 3
    *log, told = done.stderr.splitlines()
    assert told == (
        f"ERROR: the provider refuses 1 texts: data/mine/dev/news.tsv:2 (N99): {stage.server.host} answered HTTP 400: "
        "'$.input' is invalid. Change or remove them. 25 texts are paid and kept ($0.0000 was spent), "
        "1 are left (about $0.0000); run again to continue"
    )
    space = f"openai at {stage.server.host}, text-embedding-3-small, 8 dimensions"
    assert log == [f"INFO: {space}: 26 texts, of which 26 have no vector yet"]
    assert stage.server.twice == 0
    assert not stage.folder.exists()


def test_as_a_program_it_ends_with_0_and_says_what_it_does(stage: Stage) -> None:
    done = stage.as_program()
    assert (done.returncode, done.stdout) == (0, "")
    assert "25 texts, of which 25 have no vector yet" in done.stderr
    assert stage.artifact().keys() == ARTIFACT
    assert stage.ledger.stat().st_mode & 0o777 == 0o600
