"""Several runs as one: scores made comparable inside each impression, matched by name, and written as predictions."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from house import table as cells
from hypothesis import given
from hypothesis import strategies as st
from predictions import Candidate, predict, table
from project import Project
from scipy.stats import zscore
from typer.testing import CliRunner, Result

from newsfuse.cli import app
from newsfuse.csr import offsets
from newsfuse.ensemble import ensemble, standardised
from newsfuse.errors import DataError, NewsfuseError, ParamsError

NAN = float("nan")
FIRST: list[Candidate] = [
    ("7", "N1", 0, 0.3), ("7", "N2", 1, 0.1), ("7", "N3", 0, 0.2), ("7", None, 0, None),
    ("2", "N3", 0, 5.0), ("2", "N1", 1, 5.0),
]  # fmt: skip
"""Two impressions: one with an unknown article, one that this run does not rank."""
SECOND: list[Candidate] = [
    ("7", "N1", 0, -40.0), ("7", "N2", 1, 80.0), ("7", "N3", 0, 50.0), ("7", None, 0, None),
    ("2", "N3", 0, 1.0), ("2", "N1", 1, 3.0),
]  # fmt: skip


def combine(folder: Path, *runs: list[Candidate]) -> pl.DataFrame:
    """The scores of the ensemble of runs a, b, ..."""
    for name, run in zip("abc", runs, strict=False):
        predict(folder / name, table(run))
    ensemble("abc"[: len(runs)], folder, folder / "out")
    return pl.read_parquet(folder / "out/scores.parquet")


def invoke(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["ensemble", *words, "--out", str(folder / "out")], env={"COLUMNS": "120"})


score = st.one_of(st.just(NAN), st.integers(-999, 999).map(lambda number: number / 8))


@given(st.lists(st.lists(score, max_size=8), max_size=8))
def test_scores_are_standardised_as_scipy_does_it_for_each_impression_by_itself(impressions: list[list[float]]) -> None:
    flat = np.array([score for each in impressions for score in each])
    found = standardised(flat, offsets(np.array([len(each) for each in impressions], dtype=np.int64)))
    expected = np.full(len(flat), NAN)
    for each, own in zip(impressions, np.split(expected, np.cumsum([len(each) for each in impressions])), strict=False):
        known = ~np.isnan(each)
        scores = np.array(each)[known]
        own[known] = zscore(scores) if len(set(scores)) > 1 else 0  # scipy has NaN for equal scores
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("constant", [0.1, 1 / 3, 1e9 + 1 / 3, -7.0])
def test_equal_scores_become_exact_zeros(constant: float) -> None:
    for n in range(1, 40):
        assert standardised(np.full(n, constant), np.array([0, n])).tolist() == [0.0] * n


def test_the_ensemble_is_the_mean_of_standardised_scores(tmp_path: Path) -> None:
    found = combine(tmp_path, FIRST, SECOND)
    first = (zscore([0.3, 0.1, 0.2]) + zscore([-40, 80, 50])) / 2
    assert found["score"].to_list() == pytest.approx([*first, None, -0.5, 0.5], abs=1e-15)
    assert found.drop("score").equals(table(FIRST).drop("score"))


def test_a_prediction_ranks_unknown_articles_last(tmp_path: Path) -> None:
    combine(tmp_path, FIRST, SECOND)
    assert (tmp_path / "out/prediction.txt").read_text() == "7 [2,3,1,4]\n2 [2,1]\n"


def test_rows_are_matched_by_impression_and_article_whatever_their_order(tmp_path: Path) -> None:
    plain = combine(tmp_path / "plain", FIRST, SECOND)
    other = [SECOND[row] for row in (5, 4, 3, 0, 2, 1)]
    assert combine(tmp_path / "shuffled", FIRST, other).equals(plain)


def test_two_unknown_articles_of_an_impression_keep_their_own_clicks(tmp_path: Path) -> None:
    first: list[Candidate] = [("1", None, 1, None), ("1", "N1", 0, 0.5), ("1", None, 0, None), ("1", "N2", 0, 0.25)]
    second = [first[row] for row in (3, 0, 1, 2)]
    found = combine(tmp_path, first, second)
    assert found.select("news", "clicked", "score").rows() == [
        (None, 1, None), ("N1", 0, 1.0), (None, 0, None), ("N2", 0, -1.0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (SECOND[:1] + SECOND[2:], "impression 7: candidate N2 is in 'a' and not in 'b'"),
        (SECOND[:4], "impression 2: candidate N3 (and 1 more) is in 'a' and not in 'b'"),
        ([*SECOND, ("9", "N1", 1, 0.5)], "impression 9: candidate N1 is in 'b' and not in 'a'"),
        ([("7", "N1", 1, -40.0), *SECOND[1:]], "impression 7: candidate N1 was clicked in only one of 'a' and 'b'"),
        ([*SECOND[:3], ("7", "N9", 0, 0.5), *SECOND[4:]], "candidate without an article is in 'a' and not in 'b'"),
        ([*SECOND, ("7", "N8", 0, 0.5)], "run 'b': impression 7 is there twice"),
    ],
)
def test_runs_on_other_data_are_refused_with_the_first_difference(
    tmp_path: Path, second: list[Candidate], message: str
) -> None:
    with pytest.raises(DataError) as error:
        combine(tmp_path, FIRST, second)
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", "b", "a"]])
def test_two_or_more_runs_are_needed_each_once(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ParamsError, match="expected two or more, each once"):
        ensemble(names, tmp_path, tmp_path / "out")


def test_an_ensemble_replaces_an_older_one_but_no_other_folder(tmp_path: Path) -> None:
    combine(tmp_path, FIRST, SECOND)
    combine(tmp_path, FIRST, FIRST[:4] + SECOND[4:])
    for folder in (tmp_path / "a", tmp_path):
        before = sorted(folder.iterdir())
        with pytest.raises(ParamsError, match="is there already and is no ensemble"):
            ensemble(["a", "b"], tmp_path, folder)
        assert sorted(folder.iterdir()) == before


def test_the_same_runs_give_the_same_bytes_and_an_ensemble_is_a_run_too(tmp_path: Path) -> None:
    combine(tmp_path, FIRST, SECOND)
    before = [path.read_bytes() for path in sorted((tmp_path / "out").iterdir())]
    combine(tmp_path, FIRST, SECOND)
    assert [path.read_bytes() for path in sorted((tmp_path / "out").iterdir())] == before
    ensemble(["out", "a"], tmp_path, tmp_path / "both")
    assert sorted(json.loads((tmp_path / "both/manifest.json").read_text())["settings"]["runs"]) == ["a", "out"]


def test_the_table_has_the_metrics_of_each_run_and_of_the_ensemble(tmp_path: Path) -> None:
    folders = [str(predict(tmp_path / name, table(run))) for name, run in (("a", FIRST), ("b", SECOND))]
    done = invoke(tmp_path, *folders)
    found = {Path(name).name: values for name, values in cells(done.stdout).items()}
    # in impression 7, a and the ensemble have the click before the unknown article only: third, 1 pair of 3;
    # in impression 2, a has a tie, half a pair, which is settled for the later candidate
    assert found == {
        "a": ["0.4167", "0.6667", "0.7500", "0.7500"],
        "b": ["1.0000", "1.0000", "1.0000", "1.0000"],
        "ensemble": ["0.6667", "0.6667", "0.7500", "0.7500"],
    }
    assert done.exit_code == 0
    assert f"Written: {tmp_path / 'out'}" in done.stdout


def test_unknown_candidates_count_as_params_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text("dataset: tiny\nevaluate: {unknown_candidates: drop}\n")
    monkeypatch.chdir(tmp_path)
    predict(tmp_path / "a", table(FIRST))
    predict(tmp_path / "b", table(SECOND))
    done = CliRunner().invoke(app, ["ensemble", "a", "b"], env={"COLUMNS": "120"})
    assert cells(done.stdout)["a"][0] == "0.2500"
    assert (tmp_path / "data/tiny/ensemble/prediction.txt").exists()


def test_runs_that_add_nothing_are_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    combine(tmp_path, FIRST, FIRST, [(*candidate[:3], candidate[3] and 1.0) for candidate in FIRST])
    assert "run 'b' predicts what 'a' does to the last bit: it counts twice" in caplog.text
    assert "run 'c' gives all candidates of an impression the same score: it adds nothing" in caplog.text


def test_a_mistake_is_told_in_words(tmp_path: Path) -> None:
    done = invoke(tmp_path, str(predict(tmp_path / "a", table(FIRST))), str(predict(tmp_path / "b", table(SECOND[:4]))))
    assert done.exit_code == DataError.exit_code
    assert isinstance(done.exception, SystemExit)
    assert not isinstance(done.exception, NewsfuseError)
    assert "only runs on the same data compare" in done.stderr


@pytest.mark.slow
def test_two_seeds_of_the_whole_pipeline_are_ensembled_by_name(project: Project) -> None:
    expected = {}
    for seed in (1, 2):
        project.dvc("exp", "run", "--name", f"seed-{seed}", "--set-param", f"seed={seed}")
        metrics = json.loads(project.text("metrics/evaluate/metrics.json"))
        expected[f"seed-{seed}"] = [metrics[name] for name in ("auc", "mrr", "ndcg5", "ndcg10")]
    shown = cells(project.must("newsfuse", "ensemble", "seed-1", "seed-2").text)
    found = {name: [float(cell) for cell in row] for name, row in shown.items()}
    together = found.pop("ensemble")
    assert found.keys() == expected.keys()
    for name, row in expected.items():  # metrics.json has 6 digits, of which the table rounds to 4
        assert found[name] == pytest.approx(row, abs=6e-5)
        assert together != found[name]
