"""`newsfuse compare`: the figures, the words, the files, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import shutil
import statistics
from collections import Counter
from contextlib import chdir
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from predictions import predict
from project import Project, missing
from scipy import stats
from typer.testing import CliRunner, Result

from newsfuse import comparison, times
from newsfuse.artifact import writing
from newsfuse.bootstrap import Estimate, bootstrap, holm
from newsfuse.cli import app
from newsfuse.csr import offsets, owners
from newsfuse.errors import DataError
from newsfuse.provenance import Provenance
from newsfuse.ranking import ranking
from newsfuse.slices import sliced

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

METRICS = ("auc", "mrr", "ndcg5", "ndcg10")
LABEL = "+1|<b>"
HOSTILE = "=1|<img src=x onerror=alert(1)>`*_\\"
IMPRESSIONS, USERS = 400, 120


def shown(categories: Sequence[str] = ("news", "sports"), users: int = USERS) -> pl.DataFrame:
    """Candidates of IMPRESSIONS, one of each clicked, without scores."""
    rng = np.random.default_rng(0)
    ends = offsets(rng.integers(3, 9, size=IMPRESSIONS))
    owner, n = owners(ends), int(ends[-1])
    clicked = np.zeros(n, np.int8)
    clicked[ends[:-1] + rng.integers(np.diff(ends))] = 1
    return pl.DataFrame({
        "impression": pl.Series(owner + 1).cast(pl.String),
        "user": pl.Series(rng.integers(users, size=IMPRESSIONS)[owner]).cast(pl.Int32),
        "news": [f"N{number}" for number in range(n)],
        "clicked": clicked,
        "warm": rng.random(n) < 0.5,
        "category": pl.Series(np.array(categories)[rng.integers(len(categories), size=n)]),
        "history": pl.Series(rng.integers(30, size=IMPRESSIONS)[owner]).cast(pl.Int32),
        "hour": pl.Series(rng.integers(7, 9, size=IMPRESSIONS)[owner]).cast(pl.Int8),
    })  # fmt: skip


def scored(table: pl.DataFrame, signal: float, seed: int) -> pl.DataFrame:
    """What a run predicts that ranks clicked articles so far above others, in deviations of its noise."""
    noise = np.random.default_rng(100 + seed).standard_normal(len(table))
    return table.with_columns(score=pl.Series(noise + signal * table["clicked"].to_numpy()))


def auc(table: pl.DataFrame, metric: str = "auc", among: np.ndarray | None = None) -> np.ndarray:
    """A metric of each impression."""
    keep = np.ones(len(table), dtype=bool) if among is None else among
    sizes = np.bincount(table["impression"].cast(pl.Int64).to_numpy()[keep], minlength=IMPRESSIONS + 1)[1:]
    values: np.ndarray = getattr(
        ranking(table["score"].to_numpy()[keep], table["clicked"].to_numpy()[keep], offsets(sizes)), metric
    )
    return values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with predictions: `good` ranks better than `bad`, `other` as `good` with another seed."""
    (tmp_path / "params.yaml").write_text("dataset: tiny\n")
    for seed, (name, signal) in enumerate({"bad": 0.3, "good": 1.0, "other": 1.0, "alike": 0.3}.items()):
        predict(tmp_path / name, scored(shown(), signal, seed))
    return tmp_path


def table_of(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / name / "scores.parquet")


def compare(folder: Path, *words: str, columns: int = 120) -> Result:
    with chdir(folder):
        return CliRunner().invoke(app, ["compare", *words], env={"COLUMNS": str(columns)})


def findings(folder: Path, *words: str) -> dict[tuple[str, str, str], dict[str, str]]:
    """The rows of the CSV by slice, metric and run."""
    done = compare(folder, *words, "--csv", "-")
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    return {(row["slice"], row["metric"], row["run"]): row for row in rows}


def test_each_run_has_the_means_that_evaluate_has(folder: Path) -> None:
    found = findings(folder, "bad", "good")
    for name in ("bad", "good"):
        for metric in METRICS:
            expected = float(auc(table_of(folder, name), metric).mean())
            assert float(found["all", metric, name]["value"]) == pytest.approx(expected, abs=1e-6)


def test_a_difference_has_the_interval_of_the_paired_bootstrap_over_users(folder: Path) -> None:
    first, second = table_of(folder, "bad"), table_of(folder, "good")
    users = first.group_by("impression", maintain_order=True).first()["user"].to_numpy()
    expected = bootstrap((auc(second) - auc(first))[:, None], users)
    row = findings(folder, "bad", "good")["all", "auc", "good"]
    own = [float(row[name]) for name in ("difference", "low", "high", "p")]
    assert own == pytest.approx([expected.mean[0], expected.low[0], expected.high[0], expected.p[0]], abs=1e-6)
    assert (row["impressions"], row["users"]) == (str(IMPRESSIONS), str(len(np.unique(users))))


def test_the_reference_has_no_difference(folder: Path) -> None:
    row = findings(folder, "bad", "good")["all", "auc", "bad"]
    assert [row[name] for name in ("difference", "low", "high", "p", "p_corrected", "spread")] == [""] * 6


def test_seeds_are_averaged_in_each_impression_and_their_spread_is_shown(folder: Path) -> None:
    row = findings(folder, "bad", "late=good,other")["all", "auc", "late"]
    good, other, bad = (auc(table_of(folder, name)) for name in ("good", "other", "bad"))
    users = table_of(folder, "bad").group_by("impression", maintain_order=True).first()["user"].to_numpy()
    expected = bootstrap(((good + other) / 2 - bad)[:, None], users)
    assert row["seeds"] == "2"
    assert float(row["value"]) == pytest.approx((good.mean() + other.mean()) / 2, abs=1e-6)
    assert float(row["spread"]) == pytest.approx(statistics.stdev([good.mean(), other.mean()]), abs=1e-6)
    assert (float(row["low"]), float(row["high"])) == pytest.approx((expected.low[0], expected.high[0]), abs=1e-6)
    assert " sd " in compare(folder, "bad", "late=good,other").stdout
    assert " sd " not in compare(folder, "bad", "good").stdout


def test_p_values_are_corrected_for_all_comparisons_of_their_table(folder: Path) -> None:
    found = findings(folder, "bad", "good", "alike")
    names = {row["slice"] for row in found.values()} - {"all"}
    tables = [[("all", metric) for metric in METRICS]] + [[(name, metric) for name in names] for metric in METRICS]
    for table in tables:
        rows = [found[name, metric, run] for name, metric in table for run in ("good", "alike")]
        corrected = holm(np.array([float(row["p"] or "nan") for row in rows]))
        np.testing.assert_allclose([float(row["p_corrected"] or "nan") for row in rows], corrected, atol=1e-9)


def test_slices_are_those_of_evaluate(folder: Path) -> None:
    found = findings(folder, "bad", "good")
    table = table_of(folder, "good")
    masks = {each.name: each.mask for each in sliced(table) if each.mask.any()}
    assert {row["slice"] for row in found.values()} == {"all", *masks}
    assert {"warm", "cold", "history_1_5", "category_news", "hour_07"} < masks.keys()
    for name, mask in masks.items():
        for metric in METRICS:
            values = auc(table, metric, mask)
            row = found[name, metric, "good"]
            assert float(row["value"]) == pytest.approx(float(np.nanmean(values)), abs=1e-6)
            assert row["impressions"] == str((~np.isnan(values)).sum())


def test_predictions_of_an_older_version_have_fewer_slices_and_it_is_said(folder: Path) -> None:
    for name in ("bad", "good"):
        predict(folder / f"old-{name}", table_of(folder, name).drop("category", "history", "hour"))
    found = findings(folder, "old-bad", "old-good")
    assert {row["slice"] for row in found.values()} == {"all", "warm", "cold"}
    said = "The predictions of old-bad lack category, history, hour: an older version of newsfuse made them."
    assert said in compare(folder, "old-bad", "old-good", "--slices").stdout
    assert "lack" not in compare(folder, "bad", "good", "--slices").stdout


def test_a_certain_difference_is_put_in_words(folder: Path) -> None:
    better = compare(folder, "bad", "good").stdout
    row = findings(folder, "bad", "good")["all", "auc", "good"]
    low, high, difference = (f"+{float(row[name]):.4f}".replace("0.", ".") for name in ("low", "high", "difference"))
    assert f"good ranks better than bad: {difference} AUC ({low} to {high}), p <.001; " in better
    assert "noise" not in better
    worse = compare(folder, "good", "bad").stdout
    assert f"bad ranks worse than good: {difference.replace('+', '-')} AUC" in worse
    assert "better" not in worse


def test_no_difference_is_claimed_that_is_not_there(folder: Path) -> None:
    said = compare(folder, "good", "other").stdout
    assert "other and good, no difference that is not noise: " in said
    assert "ranks" not in said


def test_an_interval_without_zero_is_no_claim_when_it_is_one_of_many(folder: Path) -> None:
    names = [f"n{number}" for number in range(8)]
    for number, name in enumerate(names):  # a little better than `bad`, which chance hides in some
        predict(folder / name, scored(shown(), 0.42, 50 + number))
    said = compare(folder, "bad", *names, "--csv", "found.csv").stdout.splitlines()
    rows = list(csv.DictReader((folder / "found.csv").read_text().splitlines()))
    alone = [row for row in rows if row["slice"] == "all" and row["p"] and float(row["p"]) < 0.05]
    unclaimed = [row for row in alone if float(row["p_corrected"]) >= 0.05]
    assert unclaimed
    for row in unclaimed:
        difference = f"+{float(row['difference']):.4f}".replace("0.", ".")
        assert difference in next(line for line in said if line.startswith(f"{row['run']} and bad, no difference that"))
        assert not [line for line in said if line.startswith(f"{row['run']} ranks") and difference in line]


def test_a_difference_that_other_seeds_may_turn_round_is_doubted(folder: Path) -> None:
    predict(folder / "best", scored(shown(), 3.0, 9))
    found = findings(folder, "few=bad,alike", "wild=bad,best")["all", "auc", "wild"]
    groups = [[auc(table_of(folder, name)).mean() for name in names] for names in (("bad", "alike"), ("bad", "best"))]
    theirs = stats.ttest_ind(groups[1], groups[0]).confidence_interval(0.95)
    assert float(found["seed_margin"]) == pytest.approx((theirs.high - theirs.low) / 2, rel=1e-4)
    doubted = compare(folder, "few=bad,alike", "wild=bad,best").stdout
    assert "wild ranks better than few: " in doubted
    assert "wild and few: other seeds may turn this round: seeds alone make up to " in doubted


def test_a_difference_beyond_that_of_seeds_is_not_doubted(folder: Path) -> None:
    for seed in range(3):
        predict(folder / f"low{seed}", scored(shown(), 0.3, seed))
        predict(folder / f"high{seed}", scored(shown(), 3.0, seed))
    said = compare(folder, "low=low0,low1,low2", "high=high0,high1,high2").stdout
    assert "high ranks better than low: " in said
    assert "other seeds may turn" not in said


@pytest.mark.parametrize("reference", ["bad", "low=bad,alike"])
def test_one_seed_beside_several_is_taken_to_vary_as_they_do(folder: Path, reference: str) -> None:
    found = findings(folder, reference, "good")
    margin = found["all", "auc", "good"]["seed_margin"]
    if reference == "bad":
        assert margin == ""
    else:
        sd = float(found["all", "auc", "low"]["spread"])
        assert float(margin) == pytest.approx(stats.t.ppf(0.975, 1) * sd * (1 / 2 + 1) ** 0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("bad", "good"), "a run of one seed stands for that seed only"),
        (("bad", "late=good,other"), "a run of one seed stands for that seed only"),
        (("low=bad,alike", "late=good,other"), "They are of these seeds' mean"),
    ],
)
def test_what_the_interval_does_not_know_is_said(folder: Path, words: tuple[str, ...], said: str) -> None:
    assert said in compare(folder, *words).stdout


def test_few_users_give_no_interval_and_no_claim(folder: Path) -> None:
    for name, signal in {"few": 0.0, "sure": 9.0}.items():
        predict(folder / name, scored(shown(users=29), signal, 0))
    row = findings(folder, "few", "sure")["all", "auc", "sure"]
    assert (row["users"], row["low"], row["p"], row["p_corrected"]) == ("29", "", "", "")
    said = compare(folder, "few", "sure").stdout
    assert "sure and few: no interval where fewer than 30 users have the metric." in said
    assert "ranks" not in said


def test_rows_may_be_in_another_order(folder: Path) -> None:
    table = table_of(folder, "good")
    turned = table.with_row_index().sort(-pl.col("impression").cast(pl.Int64), "index").drop("index")
    predict(folder / "turned", turned)
    found, expected = findings(folder, "bad", "turned"), findings(folder, "bad", "good")
    for metric in METRICS:
        turned_row, row = found["all", metric, "turned"], expected["all", metric, "good"]
        assert {**turned_row, "run": ""} == {**row, "run": ""}


def test_runs_on_other_candidates_are_refused(folder: Path) -> None:
    predict(folder / "less", table_of(folder, "good")[:-1])
    done = compare(folder, "bad", "less")
    assert done.exit_code == 3
    assert "is in 'bad' and not in 'less'; only runs on the same data compare" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bad"], "expected two or more"),
        (["bad", "bad"], "expected two or more, each label once"),
        (["bad", "late="], "'late=': a name is missing; expected a run, or a label and its runs: late=one,two,three"),
        (["bad", "=good"], "'=good': a name is missing"),
        (["bad", "late=good,good"], "has good twice"),
        (["bad", "good", "--md", "-", "--csv", "-"], "only one of --md, --csv and --html"),
        (["bad", "data/none"], "'data/none': "),
    ],
)
def test_a_mistake_is_told(folder: Path, words: list[str], said: str) -> None:
    done = compare(folder, *words)
    assert done.exit_code == 2
    assert said in done.stderr


def test_seeds_that_predict_the_same_are_warned_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    predict(folder / "copy", table_of(folder, "good"))
    with caplog.at_level(logging.WARNING):
        compare(folder, "bad", "late=good,copy")
    assert "run 'copy' predicts what 'good' does to the last bit: the spread is too small" in caplog.text


def test_a_file_that_cannot_be_written_is_told(folder: Path) -> None:
    (folder / "taken").mkdir()
    done = compare(folder, "bad", "good", "--md", "taken")
    assert done.exit_code == 8
    assert "taken: could not be written" in done.stderr


@pytest.mark.parametrize("form", ["md", "csv", "html"])
def test_a_file_holds_what_standard_output_would(folder: Path, form: str) -> None:
    alone = compare(folder, "bad", "good", "--slices", f"--{form}", "-")
    both = compare(folder, "bad", "good", "--slices", f"--{form}", "out/table")
    assert (folder / "out/table").read_text(encoding="utf-8") == alone.stdout
    assert "good ranks better than bad" in both.stdout
    assert "───" not in alone.stdout


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Two runs, `a` and `b`, whose articles' categories would be markup, a formula, cells and a terminal's colours."""
    (tmp_path / "params.yaml").write_text("dataset: tiny\n")
    for seed, name in enumerate(("a", "b")):
        predict(tmp_path / name, scored(shown([HOSTILE, "news\n\x1b[31m"]), 1.0, seed))
    return tmp_path


class Elements(HTMLParser):
    """The elements of a page, and the text of its cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.cells = set[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - the base class calls it
        self.tags.add(tag)
        if tag in {"td", "th"}:
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def test_names_and_categories_stay_text_in_html(hostile: Path) -> None:
    page = compare(hostile, "a", f"{LABEL}=b", "--slices", "--html", "-").stdout
    found = Elements(page)
    assert not found.tags & {"img", "b"}
    assert {f"category_{HOSTILE}", LABEL} < set(found.cells)
    assert "http" not in page
    assert "\x1b" not in page


def test_names_and_categories_stay_text_in_markdown(hostile: Path) -> None:
    page = compare(hostile, "a", f"{LABEL}=b", "--slices", "--md", "-").stdout
    assert "<" not in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    cells = {line.replace("\\|", "").count("|") - 1 for line in rows}
    assert cells == {4, 6}  # of costs; of metrics and slices
    assert r"category\_=1\|&lt;img src=x onerror=alert(1)&gt;\`\*\_\\ |" in page
    assert "\x1b" not in page


def test_names_and_categories_stay_text_in_csv(hostile: Path) -> None:
    found = findings(hostile, "a", f"{LABEL}=b")
    assert (f"category_{HOSTILE}", "auc", f"'{LABEL}") in found  # what a spreadsheet shows as it is
    assert "\x1b" not in str(found)


def drawn(folder: Path, words: Sequence[str], columns: int) -> str:
    """The tables in a terminal of so many columns, without the sentences below them."""
    return compare(folder, *words, "--slices", columns=columns).stdout.split("\nboth and ")[0]


@pytest.mark.parametrize("name", ["data/tiny/ensemble", "an-experiment-with-a-name-that-is-much-too-long"])
def test_tables_fit_into_eighty_columns_and_nothing_is_cut(folder: Path, name: str) -> None:
    table = shown([name, "x" * 60])
    for seed in range(2):
        predict(folder / f"{name}{seed}", scored(table, 1.0, seed))
    words = [f"{name}0", f"both={name}0,{name}1"]
    narrow, wide = (drawn(folder, words, columns) for columns in (80, 400))
    assert max(len(line) for line in narrow.splitlines() if "differences to" not in line) <= 80
    letters = [Counter("".join(text.split()).replace("─", "")) for text in (narrow, wide)]
    assert letters[0] == letters[1]
    figures = [re.findall(r" ([+-]\.\d{4})  (\S+ to \S+)  ([\d.<]+)$", text, re.MULTILINE) for text in (narrow, wide)]
    assert figures[0] == figures[1]
    assert len(figures[0]) > 10


def test_only_what_is_shown_is_resampled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resampled: list[int] = []

    def counted(values: np.ndarray, users: np.ndarray) -> Estimate:
        resampled.append(values.shape[1])
        return bootstrap(values, users)

    monkeypatch.setattr(comparison, "bootstrap", counted)
    printed = [compare(folder, "bad", "good", *more).stdout for more in ([], ["--slices"], ["--slices", "--csv", "x"])]
    slices = len(list(sliced(table_of(folder, "good"))))
    assert resampled == [4, 4 + slices, 4 + 4 * slices]
    assert printed[1] == printed[2]


def read_from(folder: Path, dataset: str, md5: str) -> Provenance:
    """Of a workspace whose dvc.lock has one file of that data set."""
    lock = {"stages": {"embed": {"deps": [{"path": f"data/{dataset}/dev/news.tsv", "md5": md5}]}}}
    (folder / "dvc.lock").write_text(json.dumps(lock))
    return Provenance.read("workspace", folder)


def test_a_data_set_may_have_two_names(tmp_path: Path) -> None:
    first = read_from(tmp_path, "small", "aa")
    read_from(tmp_path, "mind", "aa").refuse_other_data(first)
    other = read_from(tmp_path, "mind", "bb")
    with pytest.raises(
        DataError, match=r"read data/mind/dev/news.tsv \(md5 bb\), .* data/small/dev/news.tsv \(md5 aa\)"
    ):
        other.refuse_other_data(first)


@pytest.mark.parametrize("lock", ["", "stages: [", "[]", "stages: {}", "\x00"])
def test_what_no_lock_tells_is_not_known(tmp_path: Path, lock: str) -> None:
    (tmp_path / "dvc.lock").write_text(lock)
    assert Provenance.read("workspace", tmp_path) == Provenance("workspace", {}, None, None)


DVC = """\
stages:
  embed:
    cmd: "true"
    deps: [data/tiny/dev/news.tsv]
    outs: [data/tiny/embeddings]
    metrics: [metrics/embed.json]
  evaluate:
    cmd: "true"
    params: [seed]
    deps: [data/tiny/dev, data/tiny/embeddings]
    outs: [data/tiny/graph, data/tiny/model, data/tiny/predictions]
"""


def run(project: Project, name: str, signal: float, seed: int, news: str = "N1") -> None:
    """A tagged commit with what a run made, which took `seed` minutes and cost `seed` dollars."""
    root = project.root
    (root / "params.yaml").write_text(f"dataset: tiny\nseed: {seed}\n")
    for path, text in {
        "data/tiny/dev/news.tsv": news,
        "metrics/embed.json": json.dumps({"dollars": float(seed)}),
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    for kind in ("embeddings", "graph", "model"):
        with writing(root / "data/tiny" / kind, kind=kind, settings={"seed": seed}):
            pass
    predict(root / "data/tiny/predictions", scored(shown(), signal, seed))
    for stage in ("embed", "graph", "train", "evaluate"):
        times.note(stage, root / "data/tiny", 15 * seed)
    project.dvc("commit", "--quiet", "--force")
    project.commit()
    project.must("git", "tag", name)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Tags `low`, `high`, `again` (another seed of `high`) and `elsewhere` (other news), and an experiment `saved`."""
    if reason := missing():
        pytest.skip(reason)
    project = Project(tmp_path_factory.mktemp("compare") / "a project")
    project.root.mkdir()
    (project.root / "dvc.yaml").write_text(DVC)
    (project.root / ".gitignore").write_text("data\n.newsfuse\nmetrics\n")
    project.must("git", "init", "--quiet", "--initial-branch=main")
    project.must("dvc", "init", "--quiet")
    with chdir(project.root):
        run(project, "elsewhere", 1.0, 9, news="N2")
        run(project, "high", 1.0, 2)
        run(project, "again", 1.0, 4)
        run(project, "low", 0.3, 3)
    project.dvc("exp", "save", "--quiet", "--name", "saved")
    return project


@pytest.fixture
def project(original: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    for name, value in original.environment().items():
        monkeypatch.setenv(name, value)
    before = original.hashes("data/tiny/predictions")
    yield original
    assert original.changes() == []
    assert original.hashes("data/tiny/predictions") == before


def test_experiments_tags_and_the_workspace_are_compared_without_checking_anything_out(project: Project) -> None:
    found = findings(project.root, "high", "saved", "workspace", "main")
    for name in ("saved", "workspace", "main"):
        expected = float(auc(scored(shown(), 0.3, 3)).mean())
        assert float(found["all", "auc", name]["value"]) == pytest.approx(expected, abs=1e-6)
    assert float(found["all", "auc", "high"]["value"]) == pytest.approx(auc(scored(shown(), 1.0, 2)).mean(), abs=1e-6)


def test_dollars_and_minutes_are_of_one_run(project: Project) -> None:
    found = findings(project.root, "low", "late=high,again", "workspace")
    cost = {
        name: (found["all", "auc", name]["dollars"], found["all", "auc", name]["minutes"]) for name in ("low", "late")
    }
    assert cost == {"low": ("3.0", "3.0"), "late": ("3.0", "3.0")}
    assert found["all", "auc", "workspace"]["dollars"] == "3.0"


def test_what_a_folder_cost_is_not_known(project: Project) -> None:
    row = findings(project.root, "low", "both=high,data/tiny/predictions")["all", "auc", "both"]
    assert (row["dollars"], row["minutes"]) == ("", "")


def test_runs_on_other_data_are_refused(project: Project) -> None:
    done = compare(project.root, "high", "elsewhere")
    assert done.exit_code == 3
    assert "'elsewhere' read data/tiny/dev" in done.stderr
    assert "only runs on the same data compare" in done.stderr


def test_what_the_cache_has_no_more_is_told_without_a_traceback(project: Project, tmp_path: Path) -> None:
    copy = project.copy(tmp_path / "a project")
    shutil.rmtree(copy.root / ".dvc/cache")
    done = compare(copy.root, "high", "low")
    assert done.exit_code == 7
    assert "'high': its data/tiny/predictions is in neither DVC's cache nor a remote" in done.stderr
