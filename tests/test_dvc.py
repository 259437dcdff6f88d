"""The pipeline as its users run it: real dvc, in a real Git and DVC project."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import time
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from project import Outcome, Project

TINY = "data/tiny"
QUICK = ("-S", "train.epochs=0", "-S", "encoders.gnn=false")
"""For experiments of which only matters what is run."""
ALL = ["embed", "graph", "train", "evaluate"]
GAET = (
    "ERROR: params.yaml: fusion: no fusion plugin is called 'gaet'. "
    "Did you mean 'gate'? Known: attention, concat, gate, late, mean"
)


def article(project: Project, news_id: str = "N987654321") -> str:
    """A line for a news.tsv: an article that is not there yet, with a text that none has."""
    fields = project.lines(f"{TINY}/train/news.tsv")[0].split("\t")
    return "\t".join([news_id, *fields[1:3], f"{news_id} breaks the news", *fields[4:]]) + "\n"


def without_last_line(project: Project, path: str) -> None:
    (project.root / path).write_text("".join(f"{line}\n" for line in project.lines(path)[:-1]), encoding="utf-8")


# what is run, and when


def test_the_first_repro_runs_every_stage_and_leaves_only_dvc_lock_to_commit(
    reproduced: tuple[Project, Outcome],
) -> None:
    project, outcome = reproduced
    assert outcome.code == 0, outcome.text
    assert outcome.ran == ALL
    assert len(project.locked()) >= len(ALL)
    assert [path for path in project.locked() if not (project.root / path).exists()] == []
    assert project.changes() == ["?? dvc.lock"]


def test_a_second_repro_runs_nothing(project: Project) -> None:
    outcome = project.dvc("repro")
    assert outcome.ran == []
    assert "Data and pipelines are up to date." in outcome.text
    assert project.changes() == []


def test_changing_the_fusion_reruns_neither_embed_nor_graph(project: Project) -> None:
    assert project.dvc("exp", "run", "-S", "fusion=gate", *QUICK).ran == ["train", "evaluate"]
    assert project.changes() == [" M dvc.lock", " M params.yaml"]


def setting(name: str, value: str) -> Callable[[Project], None]:
    return lambda project: project.edit("params.yaml", rf"(?m)^( *{name}): [^ \n]+", rf"\1: {value}")


def appended(path: str, text: str) -> Callable[[Project], None]:
    return lambda project: project.append(path, text)


def with_article(split: str) -> Callable[[Project], None]:
    return lambda project: project.append(f"{TINY}/{split}/news.tsv", article(project))


def without_an_impression(split: str) -> Callable[[Project], None]:
    return lambda project: without_last_line(project, f"{TINY}/{split}/behaviors.tsv")


def compiled(project: Project) -> None:
    for kind in ("encoders", "fusions", "user_encoders"):
        folder = project.root / "plugins" / kind / "__pycache__"
        folder.mkdir(exist_ok=True)
        (folder / "mean.cpython-311.pyc").write_bytes(os.urandom(8))


def touched(project: Project) -> None:
    for path in project.root.glob("**/*.tsv"):
        path.touch()


@pytest.mark.parametrize(
    ("change", "would_run"),
    [
        pytest.param(setting("fusion", "gate"), ["train"], id="another fusion"),
        pytest.param(setting("lr", "0.5"), ["train"], id="another learning rate"),
        pytest.param(setting("seed", "7"), ["train", "evaluate"], id="another seed"),
        pytest.param(setting("dimensions", "8"), ["embed"], id="other dimensions of the embeddings"),
        pytest.param(setting("unknown_candidates", "drop"), ["evaluate"], id="another way to evaluate"),
        pytest.param(appended("params.yaml", "# noted\n"), [], id="a comment in params.yaml"),
        pytest.param(with_article("train"), ALL, id="an article in train"),
        pytest.param(with_article("dev"), ["embed", "graph", "evaluate"], id="an article in dev"),
        pytest.param(without_an_impression("train"), ["graph", "train", "evaluate"], id="fewer clicks in train"),
        pytest.param(without_an_impression("dev"), ["graph", "evaluate"], id="fewer clicks in dev"),
        pytest.param(touched, [], id="files touched, not changed"),
        pytest.param(appended("plugins/embedders/lsa.py", "# noted\n"), ["embed"], id="the embedder in use"),
        pytest.param(appended("plugins/embedders/openai.py", "# noted\n"), [], id="an embedder not in use"),
        pytest.param(appended("plugins/fusions/mean.py", "# noted\n"), ["train", "evaluate"], id="a fusion"),
        pytest.param(compiled, [], id="compiled plugins"),
        pytest.param(appended("newsfuse/training.py", "# noted\n"), ["train"], id="the training loop"),
    ],
)
def test_a_change_reruns_only_the_stages_that_depend_on_it(
    project: Project, change: Callable[[Project], None], would_run: list[str]
) -> None:
    change(project)
    assert project.would_run() == would_run


def test_other_dev_clicks_rerun_graph_and_evaluate_but_train_nothing(project: Project) -> None:
    before = project.locked()
    without_last_line(project, f"{TINY}/dev/behaviors.tsv")
    assert project.dvc("repro").ran == ["graph", "evaluate"]
    after = project.locked()
    assert {path for path in after if after[path] != before[path]} >= {"metrics/evaluate/metrics.json"}
    assert all(after[f"{TINY}/{out}"] == before[f"{TINY}/{out}"] for out in ("embeddings", "graph", "model"))


def test_the_graph_never_reads_dev_clicks(project: Project) -> None:
    before = project.hashes(f"{TINY}/graph")
    (project.root / TINY / "dev" / "behaviors.tsv").write_bytes(b"\0 no\tclicks\xff\n")
    shutil.rmtree(project.root / TINY / "graph")
    assert project.stage("graph").code == 0
    assert project.hashes(f"{TINY}/graph") == before


def test_the_same_seed_gives_the_same_bytes(project: Project) -> None:
    before = project.locked()
    assert project.dvc("repro", "--force").ran == ALL
    assert project.locked() == before


# mistakes in params.yaml


def test_a_misspelt_plugin_is_named_at_once_and_nothing_is_done(project: Project) -> None:
    outcome = project.run("dvc", "exp", "run", "-S", "fusion=gaet")
    assert outcome.code != 0
    assert GAET in outcome.text.splitlines()
    assert "Traceback" not in outcome.text
    assert outcome.seconds < 30
    assert project.changes() == [" M params.yaml"]


def test_a_misspelt_plugin_stops_the_first_stage_before_anything_is_paid(project: Project) -> None:
    project.edit("params.yaml", r"(?m)^fusion: \w+", "fusion: gaet")
    outcome = project.run("dvc", "repro", "--force")
    assert outcome.ran == ["embed"]
    assert GAET in outcome.text.splitlines()
    assert "exited with 2" in outcome.text


def test_a_model_without_encoders_is_refused(project: Project) -> None:
    encoders = yaml.safe_load(project.text("params.yaml"))["encoders"]
    off = [word for name in encoders for word in ("-S", f"encoders.{name}=false")]
    outcome = project.run("dvc", "exp", "run", *off)
    assert outcome.code != 0
    assert "ERROR: params.yaml: encoders: at least one encoder is needed" in outcome.text


# experiments beside the workspace


def test_an_experiment_in_a_temporary_folder_runs_the_code_of_its_own_copy(project: Project) -> None:
    project.append("newsfuse/curves.py", 'print(f"curves come from {__file__}", flush=True)\n')
    project.commit()
    outcome = project.dvc("exp", "run", "--temp", "-S", "fusion=mean", *QUICK)
    assert outcome.ran == ["train", "evaluate"]
    assert re.search(r"^curves come from .*/\.dvc/tmp/exps/.*/newsfuse/curves\.py$", outcome.text, re.MULTILINE)
    assert project.changes() == []


@pytest.mark.slow
def test_one_command_queues_an_ablation_and_shows_a_column_for_each_encoder(project: Project) -> None:
    toggles = ("-S", "encoders.llm=true,false", "-S", "encoders.gnn=true,false")
    queued = project.dvc("exp", "run", "--queue", *toggles, "-S", "train.epochs=1").text
    names = re.findall(r"Queued experiment '([\w-]+)'", queued)
    assert len(names) == 4
    work_off_queue(project, limit_s=900)

    logs = [project.dvc("queue", "logs", name).text for name in names]
    assert all("Stage 'embed' didn't change, skipping" in log for log in logs)
    rows = [row for row in experiments(project) if row["Experiment"] in names]
    ablation = {(row["encoders.llm"], row["encoders.gnn"]) for row in rows}
    assert ablation == {("True", "True"), ("True", "False"), ("False", "True"), ("False", "False")}
    assert all(0 < float(row["auc"]) < 1 for row in rows)


def work_off_queue(project: Project, limit_s: float) -> None:
    end = time.monotonic() + limit_s
    project.dvc("queue", "start")
    try:
        while re.search("Queued|Running", status := project.dvc("queue", "status").text):
            assert time.monotonic() < end, status
            time.sleep(1)
    finally:
        project.run("dvc", "queue", "stop", "--kill")
    assert "Failed" not in status


def experiments(project: Project) -> list[dict[str, str]]:
    return list(csv.DictReader(project.dvc("exp", "show", "--csv").text.splitlines()))


# data that a user brings


def test_data_that_a_user_brings_is_run_and_can_be_tracked(project: Project) -> None:
    tiny, mine = project.root / TINY, project.root / "data/mine"
    for split in ("train", "dev"):
        shutil.copytree(tiny / split, mine / split)
        (mine / split / "entity_embedding.vec").unlink()  # optional
    assert project.changes() == []
    assert project.dvc("exp", "run", "-S", "dataset=mine", *QUICK).ran == ALL

    project.must("git", "checkout", "--", ".")
    project.dvc("add", "data/mine/train", "data/mine/dev")
    assert project.changes() == ["?? data/mine/dev.dvc", "?? data/mine/train.dvc"]
    project.commit()
    # a copy of the project has the data only if DVC knows it; then its stages were all run before
    outcome = project.dvc("exp", "run", "--temp", "-S", "dataset=mine", *QUICK)
    assert re.findall(r"Stage '(\w+)' is cached", outcome.text) == ALL
    # what DVC does not know, `dvc gc` deletes
    project.dvc("gc", "--workspace", "--force")
    shutil.rmtree(mine / "train")
    project.dvc("checkout", "data/mine/train.dvc")
    assert project.hashes("data/mine/train").keys() == {"behaviors.tsv", "news.tsv"}


# what goes wrong later


def test_a_damaged_artifact_is_refused_and_the_named_command_repairs_it(project: Project) -> None:
    before = project.hashes(f"{TINY}/embeddings")
    damage(project, f"{TINY}/embeddings/vectors.npy")
    outcome = project.stage("train")
    assert outcome.code == 7
    assert f"ERROR: {TINY}/embeddings/vectors.npy: " in outcome.text
    assert "Traceback" not in outcome.text

    project.must("sh", "-c", remedy(outcome))
    assert project.hashes(f"{TINY}/embeddings") == before
    assert project.would_run() == []


def test_the_named_command_repairs_dvcs_cache_too(project: Project) -> None:
    before = project.hashes(f"{TINY}/embeddings")
    size = (project.root / TINY / "embeddings/vectors.npy").stat().st_size
    for path in project.root.glob(".dvc/cache/files/md5/*/*"):
        if path.stat().st_size == size:
            damage(project, str(path.relative_to(project.root)))
    again = "rm -rf data/tiny/embeddings && dvc checkout"
    project.must("sh", "-c", again)
    outcome = project.stage("train")
    assert outcome.code == 7
    project.must("sh", "-c", f"{remedy(outcome)} && {again}")
    assert project.hashes(f"{TINY}/embeddings") == before


def damage(project: Project, path: str) -> None:
    """Flip a byte in the middle, as a bad disk does: size, mode and times stay."""
    file = project.root / path
    before, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)
    file.chmod(before.st_mode)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def remedy(outcome: Outcome) -> str:
    """The shell command that a message about damage ends with."""
    found = re.search(r"Make it again: (.+)$", outcome.text, re.MULTILINE)
    assert found, outcome.text
    return found[1]


def test_embeddings_older_than_the_news_are_refused_naming_the_article(project: Project) -> None:
    # as `dvc freeze` would, but it refuses stages with ${...}
    project.edit("dvc.yaml", r"  embed:\n", "  embed:\n    frozen: true\n")
    line = len(project.lines(f"{TINY}/train/news.tsv")) + 1
    project.append(f"{TINY}/train/news.tsv", article(project))
    outcome = project.run("dvc", "repro", "train")
    assert outcome.ran == ["graph", "train"]
    assert f"ERROR: 1 articles have no vector, first {TINY}/train/news.tsv:{line} (N987654321)" in outcome.text
    assert "exited with 3" in outcome.text


def test_a_stage_that_fails_leaves_the_earlier_ones_done(project: Project) -> None:
    project.append(f"{TINY}/train/news.tsv", article(project))
    project.append("plugins/fusions/late.py", "\n\ndef build(*_): raise ValueError('on purpose')\n")
    outcome = project.run("dvc", "repro")
    assert outcome.ran == ["embed", "graph", "train"]
    assert "ERROR: plugins/fusions/late.py: ValueError: on purpose" in outcome.text
    assert "exited with 9" in outcome.text
    assert project.run("dvc", "repro").ran == ["train"]
    changed = [" M data/tiny/train/news.tsv", " M dvc.lock", " M plugins/fusions/late.py"]
    assert project.changes() == changed


def fields(path: str, line: int, change: Callable[[list[str]], list[str]]) -> Callable[[Project], None]:
    """Change the fields of one line, the first being 1, or of all lines (0)."""

    def edit(project: Project) -> None:
        rows = [row.split("\t") for row in project.lines(path)]
        rows = [change(row) if line in {0, number} else row for number, row in enumerate(rows, 1)]
        (project.root / path).write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")

    return edit


def emptied(path: str) -> Callable[[Project], None]:
    return lambda project: os.truncate(project.root / path, 0)


@pytest.mark.parametrize(
    ("stage", "change", "message"),
    [
        pytest.param(
            "embed",
            fields(f"{TINY}/dev/news.tsv", 3, lambda row: row[:-1]),
            "dev/news.tsv:3: 7 tab-separated columns, expected 8",
            id="a line without its last column",
        ),
        pytest.param(
            "embed",
            fields(f"{TINY}/train/news.tsv", 0, lambda row: row[:4] + row[5:]),
            "train/news.tsv:1: 7 tab-separated columns, expected 8",
            id="news without the abstract column",
        ),
        pytest.param("embed", emptied(f"{TINY}/dev/news.tsv"), "dev/news.tsv:1: the file is empty", id="no news"),
        pytest.param(
            "graph",
            fields(f"{TINY}/train/behaviors.tsv", 2, lambda row: [*row[:-1], f"{row[-1]}7"]),
            "train/behaviors.tsv:2: candidate ",
            id="a label that is neither 0 nor 1",
        ),
        pytest.param(
            "evaluate",
            emptied(f"{TINY}/dev/behaviors.tsv"),
            "dev/behaviors.tsv:1: the file is empty",
            id="no impressions",
        ),
    ],
)
def test_bad_input_is_refused_by_file_and_line_and_nothing_is_left(
    project: Project, stage: str, change: Callable[[Project], None], message: str
) -> None:
    change(project)
    out = {"embed": "embeddings", "graph": "graph", "evaluate": "predictions"}[stage]
    shutil.rmtree(project.root / TINY / out)
    before = contents(project)
    outcome = project.stage(stage)
    assert outcome.code == 3
    assert outcome.text.startswith(f"ERROR: {TINY}/{message}")
    assert "Traceback" not in outcome.text
    assert contents(project) == before


def contents(project: Project) -> set[str]:
    """All that stands in the data set's folder and where metrics are written."""
    folders = (TINY, "metrics/evaluate")
    return {str(path) for folder in folders for path in (project.root / folder).iterdir()}


@pytest.fixture
def default_interrupt() -> Iterator[None]:
    """A program started in the background may have been told to ignore Ctrl-C, and its children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_training_that_is_interrupted_leaves_no_half_model(
    project: Project, default_interrupt: None, number: signal.Signals, code: int
) -> None:
    project.edit("params.yaml", r"epochs: \d+", "epochs: 1000")
    shutil.rmtree(project.root / TINY / "model")  # as DVC does before it runs the stage
    before = contents(project)
    with project.started("python", "-m", "stages.train") as training:
        assert training.stderr
        heard = next(line for line in training.stderr if "epoch 0:" in line)
        training.send_signal(number)
        heard += training.stderr.read()
    assert training.returncode == code
    assert "Traceback" not in heard
    assert contents(project) == before
