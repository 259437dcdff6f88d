"""`newsfuse doctor` in real Git and DVC projects in which every stage has run: healthy, and ill in known ways."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections import namedtuple
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from openai_server import OpenAIServer
from project import ROOT, Outcome, Project
from small import behave

from newsfuse import arrays
from newsfuse.artifact import MANIFEST, again, writing
from newsfuse.doctor import dataset, disk, leak, machine, vectors
from newsfuse.doctor.examination import SUBJECTS, Subject, examine
from newsfuse.doctor.finding import Finding, Level, exit_code, failure, ok, warning
from newsfuse.doctor.lock import Lock
from newsfuse.doctor.loss import FLOOR, LEAK, guessed
from newsfuse.doctor.sheet import tell_all
from newsfuse.doctor.tree import Tree
from newsfuse.doctor.vectors import ALIKE, CORPUS, MOST_UNLIKE, OF_THE_MIDDLE, SAMPLE, agreement
from newsfuse.errors import DataError, IntegrityError, ParamsError, PluginError, StorageError
from newsfuse.parsed import Parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "sk-CANARY-0123456789abcdef"
DATA = "data/tiny"
MADE = ("embeddings", "graph", "model", "predictions")


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project of the test, in which we are."""
    for name, value in project.environment().items():
        monkeypatch.setenv(name, value)
    for name in [each for each in os.environ if each.startswith(("DVC_ROOT", "NEWSFUSE_", "OPENAI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(project.root)
    return project


def found(*levels: Level) -> list[str]:
    """What is found in the current folder, of these levels."""
    return [finding.found for _, finding in examine(Path()) if finding.level in levels]


def faults() -> list[str]:
    return found(Level.WARNING, Level.FAILURE)


def code() -> int:
    return exit_code(finding for _, finding in examine(Path()))


def doctor(project: Project, **variables: str) -> Outcome:
    exports = [f"export {name}='{value}'" for name, value in variables.items()]
    return project.run("bash", "-c", "\n".join([*exports, "newsfuse doctor"]))


def forge(folder: Path, change: Callable[[Path], object]) -> None:
    """Change an artifact as if its stage had written it so: the manifest has the right sha256 of what is wrong."""
    manifest = json.loads((folder / MANIFEST).read_text())
    copy = folder.with_name("forged")
    shutil.copytree(folder, copy)
    change(copy)
    with writing(folder, kind=manifest["kind"], settings=manifest["settings"]) as draft:
        for path in copy.iterdir():
            if path.name != MANIFEST:
                shutil.copy2(path, draft / path.name)
    shutil.rmtree(copy)


def shuffle_lines(path: Path) -> list[str]:
    """Every line at another place -> the lines as they are now."""
    lines = path.read_text().splitlines()
    moved = lines[1:] + lines[:1]
    path.write_text("".join(f"{line}\n" for line in moved))
    return moved


def line_of(project: Project, news_id: str) -> str:
    """file:line of an article, of train if it is there."""
    for split in ("train", "dev"):
        path = f"{DATA}/{split}/news.tsv"
        for number, line in enumerate(project.lines(path), 1):
            if line.startswith(f"{news_id}\t"):
                return f"{path}:{number} ({news_id})"
    raise AssertionError(news_id)


def snapshot(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Size, time and contents of every file, and the folders."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        if path.is_file()
        else (0, path.stat().st_mtime_ns, "")
        for path in sorted(folder.rglob("*"))
    }


# --- healthy


def test_a_healthy_project_is_found_healthy_and_left_as_it_was(project: Project) -> None:
    before = snapshot(project.root.parent)
    outcome = doctor(project)
    assert outcome.code == 0, outcome.text
    levels = re.findall(r"^  (ok|warning|failure)\b", outcome.text, re.MULTILINE)
    assert set(levels) == {"ok"}, outcome.text
    assert outcome.text.endswith(f"{len(levels)} ok, 0 warnings, 0 failures\n")
    for subject in SUBJECTS:
        assert re.search(rf"^{subject.name}$", outcome.text, re.MULTILINE), subject.name
    assert snapshot(project.root.parent) == before


def test_the_page_shows_what_is_said_of_a_healthy_project(here: Project) -> None:
    (shown,) = re.findall(r"```text\n(.*?)\n```", (ROOT / "docs/doctor.md").read_text(), re.DOTALL)
    documented = re.findall(r"^  ok +(.*)", shown.split("\ndata set\n")[1], re.MULTILINE)
    subjects = {subject.name for subject in SUBJECTS if subject.needs}
    told = [finding.found for subject, finding in examine(Path()) if subject in subjects]
    assert [re.sub(r"[\d.,:]+", "#", line) for line in documented] == [re.sub(r"[\d.,:]+", "#", line) for line in told]


def test_the_thresholds_of_the_page_are_those_of_the_code() -> None:
    text = " ".join((ROOT / "docs/doctor.md").read_text().split())
    for words in (
        f"more than {dataset.MOST_UNKNOWN:.0%}".replace("%", " %"),
        f"more than {dataset.MOST_KNOWN_CLICKS:.0%}".replace("%", " %"),
        f"fewer than {dataset.LEAST_LEARNABLE:.0%}".replace("%", " %"),
        f"more than {leak.MOST_EARLY:.0%}".replace("%", " %"),
        f"warning: more than {leak.SOME_READ:.1%}; failure: more than {leak.MOST_READ:.0%}".replace("%", " %"),
        f"warning: more than {leak.SOME_CLICKED:.0%}; failure: more than {leak.MOST_CLICKED:.0%}".replace("%", " %"),
        f"more than {MOST_UNLIKE:.0%} of the sample".replace("%", " %"),
        f"below {LEAK:g} nats".replace("0.", "."),
        f"above {FLOOR:g} of it".replace("0.", "."),
        f"below {ALIKE:g} is a failure only where".replace("0.", "."),
        f"below {OF_THE_MIDDLE:g} of the median".replace("0.", "."),
        f"up to {SAMPLE:,} vectors anew, fitted to up to {CORPUS:,}",
    ):
        assert words in text, words


@pytest.mark.slow
def test_programs_are_told_the_same_in_json(project: Project) -> None:
    outcome = project.must("newsfuse", "doctor", "--json")
    told = json.loads(outcome.text)
    assert told["exit_code"] == 0
    assert {each["level"] for each in told["findings"]} == {"ok"}
    assert [*dict.fromkeys(each["subject"] for each in told["findings"])] == [each.name for each in SUBJECTS]


def test_where_nothing_has_run_yet_nothing_is_wrong(here: Project) -> None:
    for name in MADE:
        shutil.rmtree(here.root / DATA / name)
    shutil.rmtree(here.root / "metrics")
    (here.root / "dvc.lock").unlink()
    assert faults() == []
    missing = [line for line in found(Level.OK) if "not made yet" in line]
    assert [name for name in MADE if any(f"{DATA}/{name}: " in line for line in missing)] == list(MADE)


@pytest.mark.slow
def test_a_read_only_checkout_can_be_examined(project: Project, tmp_path: Path) -> None:
    place = tmp_path / "read-only"
    place.mkdir()
    bound = subprocess.run(["mount", "--bind", project.root, place], capture_output=True, check=False)
    if bound.returncode:
        pytest.skip("only root may mount a folder")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        outcome = doctor(Project(place))
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
    assert outcome.code == 0, outcome.text
    assert re.findall(r"^  warning +(.*)", outcome.text, re.MULTILINE) == [
        f"{place}/.dvc/cache: DVC's cache may not be written here, so no stage can keep what it makes"
    ]


# --- vectors


def test_a_vector_table_with_shuffled_ids_is_a_failure_that_names_the_first(project: Project) -> None:
    """The bug of the project that this one replaces: all is consistent, and no vector is its article's."""
    forge(project.root / DATA / "embeddings", lambda folder: shuffle_lines(folder / "ids.txt"))
    outcome = doctor(project)
    assert outcome.code == IntegrityError.exit_code
    (line,) = [line for line in outcome.text.splitlines() if "shuffled" in line]
    assert line.startswith(f"  failure  {DATA}/embeddings: ")
    first = (project.root / DATA / "embeddings/ids.txt").read_text().splitlines()[:40]
    named = re.findall(r"\((N\d+)\)", line)
    assert len(named) == 3
    assert set(named) <= set(first)
    assert line_of(project, named[0]) in line


@pytest.mark.slow
def test_the_fix_for_shuffled_ids_works(project: Project) -> None:
    forge(project.root / DATA / "embeddings", lambda folder: shuffle_lines(folder / "ids.txt"))
    (fix,) = re.findall(r"^ +fix: (.*)", doctor(project).text, re.MULTILINE)
    project.must("bash", "-c", fix)
    assert doctor(project).code == 0


@pytest.mark.slow
def test_a_table_that_was_edited_afterwards_names_the_file_and_the_articles(here: Project) -> None:
    shuffle_lines(here.root / DATA / "embeddings/ids.txt")
    edited, shuffled = found(Level.FAILURE)
    assert edited.startswith(f"{DATA}/embeddings/ids.txt: missing or damaged")
    assert "shuffled" in shuffled
    assert code() == IntegrityError.exit_code


def test_two_articles_that_changed_places_are_found(here: Project) -> None:
    def swap(folder: Path) -> None:
        ids = (folder / "ids.txt").read_text().splitlines()
        vectors = np.load(folder / "vectors.npy")
        similar = vectors @ vectors.T
        first, second = np.unravel_index(np.argmin(similar), similar.shape)
        vectors[[first, second]] = vectors[[second, first]]
        swapped.extend([ids[first], ids[second]])
        arrays.save(folder / "vectors.npy", vectors)

    swapped: list[str] = []
    forge(here.root / DATA / "embeddings", swap)
    (line,) = faults()
    assert "2 of 500 articles" in line
    assert set(re.findall(r"\((N\d+)\)", line)) == set(swapped)


@pytest.mark.slow
def test_missing_vectors_are_a_failure_with_their_places(here: Project) -> None:
    def cut(folder: Path) -> None:
        ids = (folder / "ids.txt").read_text().splitlines()
        arrays.save(folder / "vectors.npy", np.load(folder / "vectors.npy")[7:])
        (folder / "ids.txt").write_text("".join(f"{each}\n" for each in ids[7:]))
        lost.extend(ids[:7])

    lost: list[str] = []
    forge(here.root / DATA / "embeddings", cut)
    (line,) = faults()
    assert f"7 of 500 articles have no vector, first {line_of(here, lost[0])}" in line
    assert code() == DataError.exit_code


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_vectors_that_say_nothing_are_a_failure(here: Project, value: float) -> None:
    def flatten(folder: Path) -> None:
        arrays.save(folder / "vectors.npy", np.full_like(np.load(folder / "vectors.npy"), value))

    forge(here.root / DATA / "embeddings", flatten)
    assert any("say nothing" in line or "no numbers" in line for line in found(Level.FAILURE))


def test_after_an_edit_of_the_news_vectors_are_out_of_date_and_not_called_shuffled(here: Project) -> None:
    here.edit(f"{DATA}/train/news.tsv", r"\t(\w+) ", r"\tunheard \1 ")
    lines = faults()
    assert lines
    assert all("out of date" in line for line in lines), lines
    assert any(f"({DATA}/train/news.tsv changed since embed ran)" in line for line in lines)
    assert code() == 0


def test_other_settings_than_those_that_made_it_are_told(here: Project) -> None:
    here.edit("params.yaml", "dimensions: 256", "dimensions: 128")
    here.edit("params.yaml", "fusion: late", "fusion: gate")
    lines = faults()
    assert any("embeddings: made with other settings (dimensions 256, now 128)" in line for line in lines)
    assert any('model: made with other settings (fusion "late", now "gate")' in line for line in lines)
    assert code() == 0


@pytest.mark.slow
def test_training_settings_that_were_changed_since_are_told_and_the_loss_is_judged_by_those_that_were(
    here: Project,
) -> None:
    (before,) = [line for line in found(Level.OK) if line.startswith("training loss: ")]
    here.edit("params.yaml", "lr: 0.0003", "lr: 0.01")
    here.edit("params.yaml", "  negatives: 4", "  negatives: 1")
    (line,) = faults()
    assert line == f"{DATA}/model: made with other settings (lr 0.0003, now 0.01, negatives 4, now 1)"
    assert code() == 0
    told = found(Level.OK)
    assert before in told
    assert any("articles that train mentions, in their order" in each for each in told)


@pytest.mark.slow
def test_settings_for_dev_that_were_changed_since_are_told(here: Project) -> None:
    here.edit("params.yaml", "cold_mask: 0.875", "cold_mask: 0")
    (line,) = faults()
    assert line == f"{DATA}/predictions: made with other settings (cold_mask 0.875, now 0.0)"
    here.edit("dvc.lock", "cold_mask: 0.875", "cold_mask: 0")
    assert faults() == []


@pytest.mark.slow
def test_an_edit_of_the_library_does_not_hide_shuffled_ids(here: Project) -> None:
    here.append("newsfuse/news.py", "# a word\n")
    assert all("out of date (newsfuse/news.py changed since" in line for line in faults())
    assert code() == 0
    forge(here.root / DATA / "embeddings", lambda folder: shuffle_lines(folder / "ids.txt"))
    assert any("shuffled" in line for line in found(Level.FAILURE))


def test_right_vectors_that_a_fit_to_some_articles_cannot_tell_are_not_called_shuffled(
    here: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "CORPUS", 20)
    (line,) = faults()
    assert "of 500 articles have a vector of little likeness to what their text gives, such as N" in line
    assert code() == 0
    forge(here.root / DATA / "embeddings", lambda folder: shuffle_lines(folder / "ids.txt"))
    assert any("shuffled" in line for line in found(Level.FAILURE))


def test_nothing_is_said_of_a_text_without_a_term_of_the_articles_that_were_looked_at(
    here: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = np.load(here.root / DATA / "embeddings/vectors.npy")
    fresh[[3, 77]] = 0
    monkeypatch.setattr(vectors, "CORPUS", 100)
    monkeypatch.setattr(vectors, "_fresh", lambda *_: fresh)
    assert faults() == []


def test_similarities_tell_whose_a_vector_is_however_the_space_is_turned() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(200, 16)).astype(np.float32)
    turned = table @ np.linalg.qr(rng.normal(size=(16, 16)))[0].astype(np.float32)
    assert agreement(table, turned).min() > 0.99
    moved = np.roll(table, 1, axis=0)
    assert agreement(moved, turned).max() < ALIKE


# --- bought vectors


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


@pytest.fixture
def bought(here: Project, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project, with vectors that were paid for."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("NEWSFUSE_USD_PER_MILLION_TOKENS", "0.02")
    here.edit("params.yaml", "provider: lsa", "provider: openai")
    here.edit("params.yaml", "dimensions: 256", "dimensions: 8")
    subprocess.run(["python", "-m", "stages.embed"], check=True, capture_output=True)
    return here


def test_bought_vectors_are_compared_with_their_texts_and_the_ledger(bought: Project, server: OpenAIServer) -> None:
    scratch = ".newsfuse/ledger.sqlite-shm"  # SQLite's own, which every reader touches
    before, requests = snapshot(bought.root), server.requests
    lines = found(Level.OK)
    assert any("500 articles have the keys of their texts" in line for line in lines)
    assert any("500 vectors are those of the ledger" in line for line in lines)
    assert any("nothing is to be paid" in line for line in lines)
    assert any("ledger.sqlite: whole, " in line for line in lines)
    assert server.requests == requests
    after = snapshot(bought.root)
    assert [path for path in after if after[path] != before.get(path) and not path.endswith(scratch)] == []


def test_bought_vectors_with_shuffled_ids_are_named_by_their_keys(bought: Project) -> None:
    moved: list[str] = []
    forge(bought.root / DATA / "embeddings", lambda folder: moved.extend(shuffle_lines(folder / "ids.txt")))
    (line,) = [line for line in found(Level.FAILURE) if "shuffled" in line]
    assert "500 of 500 articles have the vector of another article's text" in line
    assert f"first {line_of(bought, moved[0])}" in line


def test_bought_vectors_in_the_rows_of_others_differ_from_the_ledger(bought: Project) -> None:
    def roll(folder: Path) -> None:
        arrays.save(folder / "vectors.npy", np.roll(np.load(folder / "vectors.npy"), 1, axis=0))

    forge(bought.root / DATA / "embeddings", roll)
    assert any("another vector than the ledger has" in line for line in found(Level.FAILURE))


@pytest.mark.slow
def test_a_key_is_asked_for_only_where_something_is_to_be_paid_and_never_shown(project: Project) -> None:
    project.edit("params.yaml", "provider: lsa", "provider: openai")
    without, present = doctor(project), doctor(project, OPENAI_API_KEY=KEY)
    assert (without.code, present.code) == (0, 0)
    (told,) = re.findall(r"^  warning +(openai.*)\n +fix: (.*)$", without.text, re.MULTILINE)
    assert told[0].startswith("openai: 500 texts are to be paid, about $")
    assert told[0].endswith("and OPENAI_API_KEY is not set")
    assert told[1] == "export the key, or take the free embedder: dvc exp run -S embed.provider=lsa"
    assert "the key is present" in present.text
    assert "CANARY" not in present.text


def test_a_budget_that_is_too_small_is_a_warning(project: Project) -> None:
    project.edit("params.yaml", "provider: lsa", "provider: openai")
    outcome = doctor(project, OPENAI_API_KEY=KEY, NEWSFUSE_BUDGET_USD="0")
    assert outcome.code == 0
    assert "warning  openai: about $" in outcome.text
    assert "Allow it: export NEWSFUSE_BUDGET_USD=" in outcome.text


@pytest.mark.slow
def test_a_damaged_ledger_is_a_failure_and_the_rest_is_looked_at_all_the_same(here: Project) -> None:
    (here.root / ".newsfuse").mkdir(exist_ok=True)
    (here.root / ".newsfuse/ledger.sqlite").write_bytes(b"no ledger")
    (line,) = faults()
    assert "ledger.sqlite: is no ledger of newsfuse" in line
    assert code() == IntegrityError.exit_code
    assert any("scores tell the candidates" in line for line in found(Level.OK))


def test_a_bad_row_of_the_ledger_is_a_failure(bought: Project) -> None:
    path = bought.root / ".newsfuse/ledger.sqlite"
    vector = np.load(bought.root / DATA / "embeddings/vectors.npy")[3].tobytes()
    bought.must(
        "python", "-c", f"import sqlite3; sqlite3.connect({str(path)!r}).execute('PRAGMA wal_checkpoint(TRUNCATE)')"
    )
    damaged = path.read_bytes()
    assert damaged.count(vector) == 1
    path.write_bytes(damaged.replace(vector, bytes([vector[0] ^ 1]) + vector[1:]))
    assert any("1 of 500 vectors do not pass their sha256" in line for line in found(Level.FAILURE))


# --- train and dev


def test_dev_clicks_leaked_into_train_are_a_failure(project: Project) -> None:
    leaked = project.lines(f"{DATA}/dev/behaviors.tsv")[:50]
    project.append(f"{DATA}/train/behaviors.tsv", "".join(f"{line}\n" for line in leaked))
    outcome = doctor(project)
    assert outcome.code == DataError.exit_code
    told = "50 of dev's 600 impressions are in train as well (user, time and candidates)"
    first = f"first {DATA}/dev/behaviors.tsv:1 and {DATA}/train/behaviors.tsv:1401"
    assert f"  failure  {told}, {first}\n           fix: remove them from train/behaviors.tsv" in outcome.text


def test_leaked_impressions_are_known_in_another_order_and_under_another_id(here: Project) -> None:
    columns = here.lines(f"{DATA}/dev/behaviors.tsv")[4].split("\t")
    columns[0], columns[4] = "999999", " ".join(reversed(columns[4].split(" ")))
    here.append(f"{DATA}/train/behaviors.tsv", "\t".join(columns) + "\n")
    assert any("1 of dev's 600 impressions are in train as well" in line for line in found(Level.FAILURE))


def test_leaked_impressions_with_a_changed_time_are_a_warning(here: Project) -> None:
    columns = here.lines(f"{DATA}/dev/behaviors.tsv")[4].split("\t")
    columns[2] = "11/9/2019 9:00:00 AM"
    here.append(f"{DATA}/train/behaviors.tsv", "\t".join(columns) + "\n")
    assert any("1 of dev's 600 impressions are in train at another time" in line for line in found(Level.WARNING))


@pytest.mark.parametrize(("n", "level"), [(20, Level.WARNING), (60, Level.FAILURE)])
def test_clicks_of_dev_planted_in_train_beside_others_and_at_another_time_are_found(
    here: Project, n: int, level: Level
) -> None:
    others = [line.split("\t")[0] for line in here.lines(f"{DATA}/train/news.tsv")[:9]]
    shown = " ".join(f"{each}-0" for each in others)
    for number, line in enumerate(here.lines(f"{DATA}/dev/behaviors.tsv")[:n], 1):
        _, user, _, history, candidates = line.split("\t")
        clicked = next(each for each in candidates.split() if each.endswith("-1"))
        row = [str(900000 + number), user, f"11/11/2019 9:00:{number % 60:02} AM", history, f"{shown} {clicked}"]
        here.append(f"{DATA}/train/behaviors.tsv", "\t".join(row) + "\n")
    (told,) = [line for line in found(level) if "are the user's clicks in train as well" in line]
    assert f"first {DATA}/dev/behaviors.tsv:1 (N" in told


@pytest.mark.slow
def test_a_dev_set_that_is_not_later_than_train_is_a_failure(here: Project) -> None:
    text = here.text(f"{DATA}/dev/behaviors.tsv").replace("11/14/2019", "11/12/2019")
    (here.root / f"{DATA}/dev/behaviors.tsv").write_text(text)
    assert any("600 of dev's 600 impressions are not later than train's last" in line for line in found(Level.FAILURE))
    assert code() == DataError.exit_code


@pytest.mark.parametrize(("n", "level"), [(60, Level.WARNING), (600, Level.FAILURE)])
def test_dev_clicks_in_the_histories_of_train_are_found(here: Project, n: int, level: Level) -> None:
    dev = [line.split("\t") for line in here.lines(f"{DATA}/dev/behaviors.tsv")[:n]]
    clicked = {row[1]: [each[:-2] for each in row[4].split() if each.endswith("-1")] for row in dev}
    rows = [line.split("\t") for line in here.lines(f"{DATA}/train/behaviors.tsv")]
    for row in rows:
        row[3] = " ".join([*row[3].split(), *clicked.get(row[1], [])])
    (here.root / f"{DATA}/train/behaviors.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    assert any("clicks are in the user's history in train, first" in line for line in found(level))


def test_histories_that_hold_the_click_are_a_warning(here: Project) -> None:
    rows = [line.split("\t") for line in here.lines(f"{DATA}/dev/behaviors.tsv")]
    for row in rows[100:]:
        row[3] = " ".join([*row[3].split(), *(each[:-2] for each in row[4].split() if each.endswith("-1"))])
    (here.root / f"{DATA}/dev/behaviors.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    (line,) = [line for line in found(Level.WARNING) if "the history has already" in line]
    assert f"first {DATA}/dev/behaviors.tsv:101 (" in line


def test_clicks_that_a_history_has_are_found_candidate_by_candidate(tmp_path: Path) -> None:
    path = tmp_path / "behaviors.tsv"
    path.write_text(
        "1\tU1\t11/9/2019 9:00:00 AM\tN1 N2\tN2-1 N3-0 N1-0\n"
        "2\tU2\t11/9/2019 9:00:00 AM\t\tN2-1 N3-0\n"
        "3\tU3\t11/9/2019 9:00:00 AM\tN3\tN2-1 N3-1\n"
    )
    assert dataset.clicked_again(Parsed.read(path, labelled=True)).tolist() == [0, 6]


@pytest.mark.slow
def test_a_wrong_line_is_told_once_with_its_place(here: Project) -> None:
    here.append(f"{DATA}/dev/behaviors.tsv", "1\tU1\tyesterday\tN1\tN2-1\n")
    (line,) = found(Level.FAILURE)
    assert line.startswith(f"{DATA}/dev/behaviors.tsv:601: 'yesterday' is no time")
    assert code() == DataError.exit_code


def test_a_data_set_that_is_not_there_is_a_failure_with_the_way_to_it(here: Project) -> None:
    here.edit("params.yaml", "dataset: tiny", "dataset: small")
    (finding,) = [finding for _, finding in examine(Path()) if finding.level is Level.FAILURE]
    assert "data/small/train/news.tsv" in finding.found
    assert finding.fix == "newsfuse fetch small --accept-license"
    assert finding.exit_code == DataError.exit_code


def test_unknown_articles_are_a_warning_above_the_share_that_real_data_has(here: Project) -> None:
    text = re.sub(r"\bN(\d*[37])-([01])", r"X\1-\2", here.text(f"{DATA}/dev/behaviors.tsv"))
    (here.root / f"{DATA}/dev/behaviors.tsv").write_text(text)
    assert any("have no line in a news.tsv, such as X" in line for line in found(Level.WARNING))


# --- graph, model, predictions


def test_a_graph_with_shuffled_articles_is_a_failure(here: Project) -> None:
    forge(here.root / DATA / "graph", lambda folder: shuffle_lines(folder / "articles.txt"))
    assert any("graph: ids are out of order, first N" in line for line in found(Level.FAILURE))


def test_a_graph_with_the_edges_of_others_names_the_articles(here: Project) -> None:
    def swap(folder: Path) -> None:
        with np.load(folder / "graph.npz") as file:
            held = dict(file)
        held["edges_category"][0] = np.roll(held["edges_category"][0], 2)
        arrays.save_all(folder / "graph.npz", held)

    forge(here.root / DATA / "graph", swap)
    (line,) = found(Level.FAILURE)
    assert "articles have other neighbours than the data gives them, first data/tiny/" in line


def test_a_model_that_knows_other_articles_is_a_failure(here: Project) -> None:
    forge(here.root / DATA / "model", lambda folder: shuffle_lines(folder / "news.txt"))
    (line,) = found(Level.FAILURE)
    assert line.startswith(f"{DATA}/model/news.txt: not what train mentions, first N")


def test_predictions_of_other_candidates_are_a_failure(here: Project) -> None:
    def roll(folder: Path) -> None:
        table = pl.read_parquet(folder / "scores.parquet")
        table.with_columns(pl.col("news").reverse()).write_parquet(folder / "scores.parquet")

    forge(here.root / DATA / "predictions", roll)
    (line,) = found(Level.FAILURE)
    assert "candidates are not those of dev, first N" in line
    assert f"{DATA}/dev/behaviors.tsv:1" in line


CONSTANT = '''\
"""The same vector for every article."""

from torch import Tensor, nn

import torch

from newsfuse import Encoder, Inputs, Options, hookimpl


class Same(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.ones(dim))

    def forward(self, news: Tensor) -> Tensor:
        return self.vector.expand(len(news), -1)


def build(inputs: Inputs, dim: int, options: Options) -> Same:
    return Same(dim)


@hookimpl
def newsfuse_encoders() -> list[Encoder]:
    return [Encoder("same", build)]
'''


def test_a_model_trained_to_a_constant_is_a_failure(project: Project) -> None:
    (project.root / "plugins/encoders/same.py").write_text(CONSTANT)
    for name in ("category", "gnn", "llm"):
        project.edit("params.yaml", rf"  {name}: true", f"  {name}: false")
    project.edit("params.yaml", "encoders:.*\n", "encoders:\n  same: true\n")
    for stage in ("train", "evaluate"):
        assert project.stage(stage).code == 0
    outcome = doctor(project)
    assert outcome.code == IntegrityError.exit_code, outcome.text
    failed = re.findall(r"^  failure +(.*)", outcome.text, re.MULTILINE)
    assert failed == [
        f"{DATA}/predictions: the model gives all candidates of an impression one score: it ranks nothing"
    ]
    assert "where guessing has" in "".join(re.findall(r"^  warning +(.*)", outcome.text, re.MULTILINE))


def test_scores_that_differ_by_rounding_alone_are_constant(here: Project) -> None:
    def blur(folder: Path) -> None:
        table = pl.read_parquet(folder / "scores.parquet")
        noise = pl.Series(3.0 + 1e-7 * np.random.default_rng(0).normal(size=len(table)))
        table.with_columns(score=noise).write_parquet(folder / "scores.parquet")

    forge(here.root / DATA / "predictions", blur)
    assert any("it ranks nothing" in line for line in found(Level.FAILURE))


def test_a_validation_loss_of_next_to_nothing_is_a_failure(here: Project) -> None:
    path = here.root / "metrics/train/plots/metrics/validation/loss.tsv"
    path.write_text("step\tloss\n0\t1.6\n1\t0.01\n")
    assert any("something gives the clicks away" in line for line in found(Level.FAILURE))


@pytest.mark.slow
def test_training_that_ends_where_guessing_begins_is_a_warning(here: Project) -> None:
    (here.root / "metrics/train/plots/metrics/train/loss.tsv").write_text("step\tloss\n2\t1.6095\n")
    assert any("the model learned nothing" in line for line in found(Level.WARNING))
    assert code() == 0


def test_an_untrained_model_that_was_best_is_a_warning(here: Project) -> None:
    here.edit("metrics/train/metrics.json", r'"epoch": \d+', '"epoch": 0')
    assert any("the untrained model was best" in line for line in found(Level.WARNING))


def test_the_loss_of_guessing_counts_what_was_shown_beside_each_click() -> None:
    behaviors = behave(([], [(1, 1), (2, 0)]), ([], [(1, 1), (2, 1), (3, 0), (4, 0), (5, 0)]), ([], [(1, 1)]))
    assert guessed(behaviors, 2) == pytest.approx((np.log(2) + 2 * np.log(3)) / 3)


# --- machine, settings, disks


@pytest.mark.slow
def test_a_device_that_is_asked_for_and_not_there_is_a_failure(project: Project) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    outcome = doctor(project, NEWSFUSE_DEVICE="cuda")
    assert outcome.code == ParamsError.exit_code
    assert "  failure  NEWSFUSE_DEVICE: cuda is asked for, but PyTorch" in outcome.text


def test_every_mistake_of_the_settings_has_its_line(project: Project) -> None:
    project.edit("params.yaml", "fusion: late", "fusion: gaet")
    project.edit("params.yaml", "batch_size: 64", "batch_size: 0")
    outcome = doctor(project)
    assert outcome.code == ParamsError.exit_code
    failed = re.findall(r"^  failure +(.*)", outcome.text, re.MULTILINE)
    assert len(failed) == 2
    assert any("Did you mean 'gate'?" in line for line in failed)
    assert any("train.batch_size" in line for line in failed)
    assert "Traceback" not in outcome.text


def test_a_broken_plugin_is_a_failure_and_the_data_is_looked_at_all_the_same(here: Project) -> None:
    (here.root / "plugins/fusions/late.py").write_text("import nowhere_to_be_found\n")
    (line,) = found(Level.FAILURE)
    assert "late" in line
    assert code() == PluginError.exit_code
    assert any("no impression of dev is in train" in line for line in found(Level.OK))


def test_other_versions_than_the_constraints_are_a_warning_with_the_pins(here: Project) -> None:
    here.edit("constraints.txt", r"(?m)^polars==.*", "polars==0.0.1")
    (finding,) = [finding for _, finding in examine(Path()) if finding.level is not Level.OK]
    assert "polars" in finding.found
    assert finding.fix == "pip install polars==0.0.1"


def test_what_raises_in_one_check_hides_no_other(here: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(tree: object) -> Iterator[Finding]:
        yield ok("first")
        message = "a fault"
        raise ValueError(message)

    def fine(tree: object) -> Iterator[Finding]:
        yield ok("second")

    monkeypatch.setattr("newsfuse.doctor.examination.SUBJECTS", (Subject("one", (broken, fine)),))
    first, fault, second = (finding for _, finding in examine(Path()))
    assert (first.found, second.found) == ("first", "second")
    assert "broken could not be checked: ValueError: a fault (" in fault.found
    assert (fault.level, fault.exit_code) == (Level.FAILURE, 1)


def test_without_cuda_beside_a_driver_both_ways_to_it_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.version.cuda", None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    (finding,) = machine.computing(Tree(Path()))
    assert finding.level is Level.WARNING
    assert finding.fix == "make run TORCH=cuda; in a container, take its variant for a GPU: docs/image.md"


def test_the_cache_of_dvc_is_not_gone_through(here: Project) -> None:
    assert f"{here.root}/.dvc/cache: DVC's cache, writable" in found(Level.OK)


@pytest.mark.slow
def test_settings_of_dvc_that_it_cannot_use_are_a_failure(here: Project) -> None:
    (here.root / ".dvc/config").write_text("[cache]\n    colour = red\n")
    told = found(Level.FAILURE)
    assert told
    assert all(".dvc/config: DVC cannot use it: " in line for line in told)
    assert code() == ParamsError.exit_code


def test_a_full_disk_is_a_warning_before_any_stage_starts(project: Project) -> None:
    for name in MADE:
        shutil.rmtree(project.root / DATA / name)
    shutil.rmtree(project.root / ".dvc/cache")
    small = project.root / ".dvc/cache"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=65536", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        outcome = doctor(project)
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)
    assert outcome.code == 0
    (line,) = re.findall(r"^  warning +(.*)", outcome.text, re.MULTILINE)
    assert line.startswith("disk of DVC's cache: 0 MB of 0 MB are free, stages may need ")


def test_where_no_temporary_file_can_be_written_the_disks_are_told(
    here: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> str:
        message = "No usable temporary directory found"
        raise FileNotFoundError(message)

    monkeypatch.setattr("tempfile.gettempdir", full)
    assert next(disk.disks(Tree(Path()))).found.startswith("disk of data/, ")


@pytest.mark.slow
def test_every_disk_is_asked_what_all_folders_on_it_need(here: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")  # noqa: PYI024 - as shutil has it
    for free, level in ((10**12, Level.OK), (10**6, Level.WARNING)):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: usage(10**12, 0, free))
        lines = [finding for subject, finding in examine(Path()) if subject == "disk space"]
        assert {each.level for each in lines} == {level}
        assert "data/, DVC's cache, parsed files, the ledger" in lines[0].found


def test_the_estimate_is_above_what_stages_wrote(here: Project) -> None:
    tree = Tree(Path())
    assert tree.params
    for name, estimate in disk.artifacts(tree, tree.params).items():
        written = sum(path.stat().st_size for path in (here.root / DATA / name).iterdir())
        assert 0 < written < estimate, name


# --- the parts


def test_the_worst_failure_decides_and_warnings_do_not() -> None:
    ill = [failure(ParamsError, "a"), failure(DataError, "b"), failure(StorageError, "c")]
    assert exit_code([ok("fine"), warning("hm", "look")]) == 0
    assert exit_code(ill) == DataError.exit_code
    assert exit_code([*ill, failure(IntegrityError, "d")]) == IntegrityError.exit_code
    assert exit_code([Finding(Level.FAILURE, "e", exit_code=99)]) == 99


def test_the_lock_tells_which_files_changed(here: Project) -> None:
    lock = Lock.read(Path())
    assert lock.changed("embed") == []
    assert lock.made("train", Path(f"{DATA}/model"))
    assert not lock.made("train", Path("data/small/model"))
    here.append(f"{DATA}/train/news.tsv", "\n")
    assert Lock.read(Path()).changed("embed") == [f"{DATA}/train/news.tsv"]
    (here.root / "dvc.lock").write_text("stages: [")
    assert Lock.read(Path()).stages == {}


@pytest.mark.parametrize("stage", ["[1]", "1", "{deps: 3, outs: 3, params: 3}", "{deps: [3], params: [3]}"])
def test_a_lock_that_dvc_did_not_write_tells_nothing(tmp_path: Path, stage: str) -> None:
    (tmp_path / "dvc.lock").write_text(f"stages: {{embed: {stage}}}")
    lock = Lock.read(tmp_path)
    assert (lock.changed("embed"), lock.made("embed", tmp_path / "data"), lock.params("embed")) == ([], False, {})


def test_what_makes_an_artifact_again_is_quoted_and_forced_only_where_asked() -> None:
    plain, forced = (again(Path("a b"), "embed", force=force) for force in (False, True))
    assert plain == "rm -rf 'a b' && chmod -R u+w \"$(dvc cache dir)\" && dvc repro --single-item embed"
    assert forced == plain.replace("repro", "repro --force")


def test_no_control_character_gets_into_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("newsfuse.doctor.sheet.examine", lambda _: [("a", warning("b\x1b", "c\x1b"))])
    tell_all(Path(), as_json=True)
    (line,) = json.loads(capsys.readouterr().out)["findings"]
    assert "\x1b" not in line["found"] + line["fix"]
