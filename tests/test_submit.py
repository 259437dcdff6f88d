"""`newsfuse submission`, in a project whose stages have run: dev as it was evaluated, test scored by the model."""

import json
import re
import shutil
from contextlib import chdir
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from house import House
from openai_server import OpenAIServer
from sklearn.metrics import roc_auc_score
from test_evaluation import project
from test_ranking import mrr_score, ndcg_score_of_mind

from newsfuse import Need, testset
from newsfuse.artifact import writing
from newsfuse.checkpoint import Checkpoint
from newsfuse.news import News
from newsfuse.paid.payer import Employer
from newsfuse.params import load
from stages.embed import embed
from stages.evaluate import evaluate
from stages.graph import graph
from stages.train import train


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was evaluated, untrained; its test split is dev, without labels."""
    folder = project(tmp_path_factory.mktemp("submit"), epochs=0, encoders=("gnn", "llm"))
    with chdir(folder):
        for stage in (embed, graph, train, evaluate):
            stage(*load(Path()))
    shutil.copytree(folder / "data/tiny/dev", folder / "data/tiny/test")
    unlabel(folder / "data/tiny/test/behaviors.tsv")
    return folder


@pytest.fixture
def house(evaluated: Path, tmp_path: Path) -> House:
    """A copy, for one test."""
    return House(Path(shutil.copytree(evaluated, tmp_path / "a house")))


def unlabel(path: Path) -> None:
    path.write_text(re.sub(r"(N\d+)-[01]", r"\1", path.read_text(encoding="utf-8")), encoding="utf-8")


def submitted(house: House, name: str = "prediction.zip") -> str:
    with ZipFile(house.root / name) as archive:
        assert archive.namelist() == ["prediction.txt"]
        return archive.read("prediction.txt").decode()


def predicted(house: House) -> str:
    return (house.root / "data/tiny/predictions/prediction.txt").read_text(encoding="utf-8")


def tables(house: House) -> dict[str, int]:
    """When each table of the test split was written."""
    return {path.name: path.stat().st_mtime_ns for path in (house.root / "data/tiny/test-tables").iterdir()}


def test_dev_is_handed_in_as_it_was_evaluated(house: House) -> None:
    done = house.newsfuse("submission", "--split", "dev")
    assert done.code == 0, done.text
    assert submitted(house) == predicted(house)
    assert "Written: prediction.zip, 240 impressions, checked against data/tiny/dev/behaviors.tsv" in done.text


def test_the_official_script_finds_the_metrics_of_the_evaluation(house: House) -> None:
    """Which reads ranks and scores them by 1 / rank, with numpy's own sort: ranks are never tied."""
    house.newsfuse("submission", "--split", "dev")
    lines = (house.root / "data/tiny/dev/behaviors.tsv").read_text(encoding="utf-8").splitlines()
    truth = (line.split("\t")[4].split() for line in lines)
    found = (json.loads(line.split()[1]) for line in submitted(house).splitlines())
    pairs = [
        (np.array([int(word[-1]) for word in words], "float32"), 1 / np.array(ranks))
        for words, ranks in zip(truth, found, strict=True)
    ]
    means = {
        "auc": np.mean([roc_auc_score(y_true, y_score) for y_true, y_score in pairs]),
        "mrr": np.mean([mrr_score(y_true, y_score) for y_true, y_score in pairs]),
        "ndcg5": np.mean([ndcg_score_of_mind(y_true, y_score, 5) for y_true, y_score in pairs]),
        "ndcg10": np.mean([ndcg_score_of_mind(y_true, y_score, 10) for y_true, y_score in pairs]),
    }
    metrics = json.loads((house.root / "metrics/evaluate/metrics.json").read_text(encoding="utf-8"))
    assert means == pytest.approx({name: metrics[name] for name in means}, abs=1e-6)


def test_test_without_labels_is_ranked_as_dev_was(house: House) -> None:
    done = house.newsfuse("submission", "--out", "out.zip")
    assert done.code == 0, done.text
    assert submitted(house, "out.zip") == predicted(house)


def test_labels_of_test_change_nothing(house: House) -> None:
    assert house.newsfuse("submission", "--out", "without.zip").code == 0
    shutil.copy(house.root / "data/tiny/dev/behaviors.tsv", house.root / "data/tiny/test/behaviors.tsv")
    assert house.newsfuse("submission", "--out", "with.zip").code == 0
    assert (house.root / "with.zip").read_bytes() == (house.root / "without.zip").read_bytes()


def test_parts_change_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testset, "PART", 100)
    assert house.newsfuse("submission").code == 0
    assert submitted(house) == predicted(house)


def test_articles_of_test_are_embedded_and_linked_once(house: House) -> None:
    assert house.newsfuse("submission").code == 0
    before = tables(house)
    assert house.newsfuse("submission").code == 0
    assert tables(house) == before
    assert sorted(name.split("-")[0] for name in before) == ["embeddings", "graph"]


def test_an_encoder_that_reads_words_is_given_those_of_test(house: House) -> None:
    with chdir(house.root):
        split, (params, registry) = testset.TestSet.of(Path("data/tiny")), load(Path())
        news = News.read(*split.news_files)
        found = split.tables(params, registry, frozenset({Need.TEXTS}), news, Employer())
        inputs = found.inputs(news, Checkpoint.read(Path("data/tiny/model")).known, split.news_files)
    assert list(inputs.texts.titles) == news.frame["title"].to_list()


def test_other_news_are_embedded_anew_and_the_old_vectors_go(house: House) -> None:
    assert house.newsfuse("submission").code == 0
    before, ranked = tables(house), submitted(house)
    news = house.news("test")
    rows = [line.split("\t") for line in news.read_text(encoding="utf-8").splitlines()]
    moved = ["\t".join([*row[:3], *other[3:5], *row[5:]]) for row, other in zip(rows, rows[::-1], strict=True)]
    news.write_text("\n".join(moved) + "\n", encoding="utf-8")
    assert house.newsfuse("submission").code == 0
    assert len(tables(house)) == 2
    assert tables(house).keys().isdisjoint(before)
    assert submitted(house) != ranked


def test_an_article_of_which_nothing_is_known_ranks_last(house: House, caplog: pytest.LogCaptureFixture) -> None:
    path = house.root / "data/tiny/test/behaviors.tsv"
    path.write_text(path.read_text(encoding="utf-8").replace("\n", " N999999\n", 1), encoding="utf-8")
    done = house.newsfuse("submission")
    assert done.code == 0, done.text
    first = submitted(house).splitlines()[0]
    ranks = [int(rank) for rank in first.split(" ")[1][1:-1].split(",")]
    assert ranks[-1] == len(ranks)
    assert "1 candidates are of articles without a line in news.tsv (such as N999999)" in caplog.text


def test_vectors_by_other_settings_than_the_models_are_refused_before_any_are_made(house: House) -> None:
    house.choose(provider="openai")
    done = house.newsfuse("submission", OPENAI_API_KEY="sk-test")
    assert done.code == 2
    assert "embed.provider is 'openai', but the vectors of train were made with 'lsa'. Run `dvc repro`" in done.text
    assert not (house.root / "data/tiny/test-tables").exists()


def test_only_texts_that_are_new_in_test_are_bought_and_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.choose(provider="openai")
    with house.news("test").open("a", encoding="utf-8") as file:
        file.write("N999999\tnews\tworld\tSomething new\tIn test alone\t\t[]\t[]\n")
    with OpenAIServer() as server:
        for name, value in {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-test"}.items():
            monkeypatch.setenv(name, value)
        with chdir(house.root):
            embed(*load(Path()))
        server.texts.clear()
        for _ in range(2):
            done = house.newsfuse("submission", OPENAI_BASE_URL=server.url, OPENAI_API_KEY="sk-test")
            assert done.code == 0, done.text
        assert server.texts == ["Something new\nIn test alone"]


def test_without_a_test_split_the_missing_file_is_named(house: House) -> None:
    shutil.rmtree(house.root / "data/tiny/test")
    done = house.newsfuse("submission")
    assert done.code == 3
    assert "data/tiny/test/news.tsv: is not there" in done.text
    assert "newsfuse submission --split dev" in done.text


def test_a_wrong_line_in_test_leaves_no_archive(house: House) -> None:
    with (house.root / "data/tiny/test/behaviors.tsv").open("a", encoding="utf-8") as file:
        file.write("241\tU1\t11/15/2019 8:55:22 AM\t\tN1-0 N2\n")
    done = house.newsfuse("submission")
    assert done.code == 3
    assert "data/tiny/test/behaviors.tsv:241: candidate 'N1-0' has a label" in done.text
    assert not [name for name in house.files() if "prediction.zip" in name]


def test_predictions_of_other_impressions_are_refused_and_leave_the_old_archive(house: House) -> None:
    (house.root / "prediction.zip").write_text("old", encoding="utf-8")
    with (house.root / "data/tiny/dev/behaviors.tsv").open("a", encoding="utf-8") as file:
        file.write("241\tU1\t11/15/2019 8:55:22 AM\t\tN1-0 N2-1\n")
    done = house.newsfuse("submission", "--split", "dev")
    assert done.code == 3
    assert "prediction.zip/prediction.txt:241: the file ends, but impression '241'" in done.text
    assert (house.root / "prediction.zip").read_text(encoding="utf-8") == "old"
    assert not [name for name in house.files() if name.endswith(".draft")]


def test_an_ensemble_is_handed_in_from_its_folder(house: House) -> None:
    backwards = re.sub(r"\[(.*)\]", lambda found: f"[{','.join(found[1].split(',')[::-1])}]", predicted(house))
    with writing(house.root / "data/tiny/ensemble", kind="ensemble", settings={}) as draft:
        (draft / "prediction.txt").write_text(backwards, encoding="utf-8")
    assert house.newsfuse("submission", "--split", "dev", "--from", "data/tiny/ensemble").code == 0
    assert submitted(house) == backwards


@pytest.mark.parametrize(
    ("folder", "code", "told"),
    [("data/tiny/embeddings", 3, "holds 'embed'; expected predictions"), ("data/tiny/dev", 3, "holds no predictions")],
)
def test_a_folder_without_predictions_is_refused(house: House, folder: str, code: int, told: str) -> None:
    done = house.newsfuse("submission", "--split", "dev", "--from", folder)
    assert (done.code, told in done.text) == (code, True), done.text


def test_damaged_predictions_are_refused(house: House) -> None:
    with (house.root / "data/tiny/predictions/prediction.txt").open("a", encoding="utf-8") as file:
        file.write("x")
    done = house.newsfuse("submission", "--split", "dev")
    assert done.code == 7
    assert "prediction.txt: missing or damaged" in done.text


def test_an_archive_can_be_checked_by_itself(house: House) -> None:
    assert house.newsfuse("submission", "--split", "dev").code == 0
    for words in (["--split", "dev"], ["--behaviors", "data/tiny/dev/behaviors.tsv"], []):
        done = house.newsfuse("submission", "--check", "prediction.zip", *words)
        assert (done.code, "Valid: prediction.zip, 240 impressions" in done.text) == (0, True), done.text
    done = house.newsfuse("submission", "--check", "prediction.zip", "--behaviors", "data/tiny/train/behaviors.tsv")
    assert done.code == 3
    assert "prediction.zip/prediction.txt:1: " in done.text


def test_a_file_to_compare_with_goes_with_a_check(house: House) -> None:
    done = house.newsfuse("submission", "--behaviors", "data/tiny/dev/behaviors.tsv")
    assert (done.code, "goes with --check only" in done.text) == (2, True), done.text


def test_a_full_disk_leaves_no_archive(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("newsfuse.submission.flush", full)
    done = house.newsfuse("submission", "--split", "dev")
    assert done.code == 8
    assert "prediction.zip: could not be written: No space left on device. Nothing was left behind" in done.text
    assert not [name for name in house.files() if "prediction.zip" in name]
