"""What DVC draws, and what evaluate writes for it."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from project import ROOT, Outcome, Project, missing
from sklearn.metrics import auc as area
from sklearn.metrics import roc_curve
from small import behave

from newsfuse import csr
from newsfuse.diagnostics import BINS, POINTS, calibration, intervals, roc, write
from newsfuse.evaluation import Evaluation
from newsfuse.harmless import harmless, plain, write_csv
from newsfuse.ranking import ranking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEFINED: dict[str, dict[str, Any]] = {
    name: plot
    for entry in yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    for name, plot in entry.items()
}
TEMPLATES = sorted((ROOT / ".dvc" / "plots").glob("*.json"))
CURVES, TABLES = "metrics/train/plots/metrics", "metrics/evaluate/plots"
HOSTILE = (
    "</script><script>alert(1)</script>",
    '<!--<script>"',
    "<img src=x onerror=alert(1)>",
    "\x1b[31m\u202e<DVC_METRIC_DATA>",
    "=cmd|' /C calc'!A0",
)
"""Categories: each would become an element, or worse, where it is taken for HTML."""
Scored = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Scores, labels and offsets."""


def scored(seed: int, n: int = 200, *, levels: int = 0) -> Scored:
    """n impressions of 0 to 9 candidates; `levels`: how many different scores there are, 0 for no ties."""
    rng = np.random.default_rng(seed)
    offsets = csr.offsets(rng.integers(0, 10, n))
    scores = rng.normal(size=offsets[-1])
    scores = np.round(scores * levels) / levels if levels else scores
    return scores, (rng.random(offsets[-1]) < 0.3).astype(np.int8), offsets


def each(scores: np.ndarray, labels: np.ndarray, offsets: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scores and labels of one impression after the other."""
    for start, end in pairwise(offsets):
        yield scores[start:end], labels[start:end]


def predictions(seed: int) -> Evaluation:
    """Of 60 impressions of 20 users; some candidates are unknown."""
    scores, labels, offsets = scored(seed, 60)
    scores = np.where(np.arange(len(scores)) % 17 > 0, scores, np.nan)
    impressions = [list(zip(*pair, strict=True)) for pair in each(scores, labels, offsets)]
    return evaluated(*impressions, users=np.arange(60) % 20)


def evaluated(
    *impressions: list[tuple[float, int]], users: np.ndarray | None = None, drop_unknown: bool = False
) -> Evaluation:
    """Of impressions with a score, NaN for an unknown candidate, and a label for each candidate."""
    scores = np.array([score for impression in impressions for score, _ in impression])
    shown = [[(-1 if np.isnan(score) else 0, int(label)) for score, label in each] for each in impressions]
    behaviors = behave(*(([0], candidates) for candidates in shown))
    behaviors = replace(behaviors, users=np.zeros(len(shown), np.int32) if users is None else users)
    news = pl.DataFrame({"id": ["N0"], "category": ["sports"]})
    return Evaluation(behaviors, scores, np.array([True]), news, drop_unknown=drop_unknown)


# DVC's side


def fill(root: Path, seed: int) -> None:
    """Every file that a plot reads, with hostile categories."""
    rng = np.random.default_rng(seed)
    sources = {path: column for plot in DEFINED.values() for path, column in plot["y"].items()}
    for path, column in sources.items():
        if path.startswith(CURVES):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            rows = [f"{epoch}\t{rng.random()}" for epoch in range(3)]
            (root / path).write_text("\n".join([f"step\t{column}", *rows]) + "\n", encoding="utf-8")
    write(root / TABLES, predictions(seed))
    n = len(HOSTILE)
    means = {"mean": rng.random(n), "impressions": [9] * n, "candidates": [99] * n}
    weights = {"weight": rng.random(n), "articles": [9] * n}
    tables = {
        "slices": {"slice": ["category"] * n, "value": HOSTILE, "metric": ["auc"] * n, **means},
        "weights": {"encoder": ["llm"] * n, "group": ["category"] * n, "value": HOSTILE, **weights},
        "lost": {"encoder": ["llm", "gnn"], "auc_lost": [0.1, 0], "low": [0.05, -0.01], "high": [0.2, 0.01]},
    }
    for name, table in tables.items():
        write_csv(root / TABLES / f"{name}.csv", pl.DataFrame(table))
    write_csv(root / "metrics/embed/cost.csv", pl.DataFrame({"provider": "openai", "dollars": rng.random()}))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with nothing but plots, their templates and their files, of two commits: `before` and HEAD."""
    if reason := missing():
        pytest.skip(reason)
    project = Project(tmp_path_factory.mktemp("plots") / "a project")
    project.root.mkdir()
    project.must("git", "init", "--quiet")
    project.dvc("init", "--quiet")
    shutil.copytree(ROOT / ".dvc" / "plots", project.root / ".dvc" / "plots")
    plots = yaml.safe_dump({"plots": [{name: plot} for name, plot in DEFINED.items()]})
    (project.root / "dvc.yaml").write_text(plots, encoding="utf-8")
    fill(project.root, 0)
    project.commit()
    project.must("git", "tag", "before")
    fill(project.root, 1)
    project.commit()
    return project


def plots(project: Project, *arguments: str) -> dict[str, Any]:
    """The one figure of each plot; none may have failed."""
    shown = json.loads(project.must("dvc", "plots", *arguments, "--json").text)
    assert shown.get("errors", []) == []
    assert {name for name, figures in shown["data"].items() if len(figures) != 1} == set()
    return {name: figures[0] for name, figures in shown["data"].items()}


def titles(spec: object) -> set[str]:
    """Every text called a title, wherever it stands, and the title of the whole."""
    parts = spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else []
    found = (
        {spec[key] for key in ("title", "text") if isinstance(spec.get(key), str)} if isinstance(spec, dict) else set()
    )
    return found.union(*map(titles, parts))


def test_every_plot_is_shown_with_its_title_the_names_of_its_axes_and_data(drawn: Project) -> None:
    shown = plots(drawn, "show")
    assert set(shown) == set(DEFINED)
    for name, plot in DEFINED.items():
        content = shown[name]["content"]
        assert titles({**content, "data": None}) >= {plot["title"], plot["x_label"], plot["y_label"]}, name
        assert content["data"]["values"], name
        assert "DVC_METRIC" not in json.dumps(content).replace("\\u003cDVC_METRIC_DATA>", ""), name


def test_a_diff_has_both_revisions_in_every_plot(drawn: Project) -> None:
    shown = plots(drawn, "diff", "before", "HEAD")
    assert set(shown) == set(DEFINED)
    for name, figure in shown.items():
        assert {row["rev"] for row in figure["content"]["data"]["values"]} == {"before", "HEAD"}, name


def test_an_editor_can_fill_in_data_and_sizes_by_itself(drawn: Project) -> None:
    for name, figure in plots(drawn, "diff", "before", "--split").items():
        content = json.dumps(figure["content"])
        for anchor in ("<DVC_METRIC_DATA>", "<DVC_METRIC_PLOT_WIDTH>", "<DVC_METRIC_TITLE>"):
            assert anchor in figure["anchor_definitions"], name
            assert f'"{anchor}"' in content, name


def test_a_table_without_rows_is_no_error_and_no_plot(drawn: Project, tmp_path: Path) -> None:
    project = drawn.copy(tmp_path / "a project")
    table = project.root / TABLES / "weights.csv"
    table.write_text(project.lines(f"{TABLES}/weights.csv")[0] + "\n", encoding="utf-8")
    shown = json.loads(project.must("dvc", "plots", "show", "--json", "weights", "lost").text)
    assert "errors" not in shown
    assert {name: len(figures) for name, figures in shown["data"].items()} == {"weights": 0, "lost": 1}


class Elements(HTMLParser):
    """Counts the elements of a page, as a browser would make them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] += 1
        self.found.update(f"{tag} {name}" for name, _ in attrs if name.startswith("on"))


def test_no_element_of_dvcs_page_comes_from_the_data(drawn: Project, tmp_path: Path) -> None:
    drawn.dvc("plots", "show", "--out", str(tmp_path))
    elements = Elements()
    elements.feed((tmp_path / "index.html").read_text(encoding="utf-8"))
    n = len(DEFINED)
    once = dict.fromkeys(["html", "head", "title", "style", "body"], 1)
    assert elements.found == {**once, "div": n, "script": n + 3}  # three are Vega's own


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_is_used_and_takes_data_titles_and_axes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    json.loads(text)
    assert path.stem in {plot.get("template") for plot in DEFINED.values()}
    for anchor in ("DATA", "TITLE", "X", "Y", "X_LABEL", "Y_LABEL", "PLOT_WIDTH"):
        assert f"<DVC_METRIC_{anchor}>" in text


def test_what_our_templates_make_is_what_vega_lites_schema_allows(drawn: Project) -> None:
    altair = pytest.importorskip("altair")
    own = {path.stem for path in TEMPLATES}  # DVC's own do not: a bandwidth is no number there
    names = [name for name, plot in DEFINED.items() if plot.get("template") in own]
    assert len(names) >= len(own)
    shown = plots(drawn, "diff", "before", "HEAD")
    for name in names:
        altair.Chart.from_dict(shown[name]["content"], validate=True)


def test_every_file_of_a_plot_is_in_an_out_of_a_stage() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    outs = [str(out) for stage in stages for out in stage["outs"]]
    sources = {path for plot in DEFINED.values() for path in plot["y"]}
    assert {path for path in sources if not any(path == out or path.startswith(f"{out}/") for out in outs)} == set()


def test_every_plot_and_every_template_is_explained() -> None:
    rows = re.findall(r"(?m)^\| (`[^|]+`) \|", (ROOT / "docs" / "plots.md").read_text(encoding="utf-8"))
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert Counter(names) == Counter([*DEFINED, *(path.stem for path in TEMPLATES)])


def test_the_pipeline_writes_every_file_that_a_plot_reads(reproduced: tuple[Project, Outcome]) -> None:
    project, outcome = reproduced
    assert outcome.code == 0, outcome.text
    assert set(plots(project, "show")) == set(DEFINED)


# text


@given(st.text())
def test_harmless_text_is_printable_has_no_bracket_and_can_be_read_back(text: str) -> None:
    shown = harmless(text)
    assert shown.isprintable()
    assert "<" not in shown
    assert json.loads(f'"{shown}"') == text


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201"])
def test_harmless_text_is_no_formula_to_a_spreadsheet(text: str) -> None:
    assert harmless(text) == f"\\u{ord(text[0]):04x}{text[1:]}"
    assert plain(harmless(text)) == text


@pytest.mark.parametrize("text", ["news", "Kunst & Kultur", "R&B > rock", "spor't", "体育", "børn 👶", "1-5", ""])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert harmless(text) == text


def test_a_table_comes_back_from_its_csv_with_nan_left_empty(tmp_path: Path) -> None:
    table = pl.DataFrame({"value": ["a,b", "c\nd", None], "mean": [0.5, math.nan, None], "n": [1, 2, 3]})
    write_csv(tmp_path / "new" / "a.csv", table)
    expected = pl.DataFrame({"value": ["a,b", "c\\nd", None], "mean": [0.5, None, None], "n": [1, 2, 3]})
    assert_frame_equal(pl.read_csv(tmp_path / "new" / "a.csv"), expected)


# figures


@pytest.mark.parametrize("levels", [0, 2], ids=["no ties", "many ties"])
def test_the_roc_curve_is_the_mean_of_those_of_all_impressions(levels: int) -> None:
    data = scored(3, levels=levels)
    fpr, *rest = roc(*data).get_columns()
    defined = [
        roc_curve(labels, scores, drop_intermediate=False) for scores, labels in each(*data) if len(set(labels)) == 2
    ]
    # just right of each point, where a curve that rises there has risen
    expected = np.mean([np.interp(np.minimum(fpr[1:].to_numpy() + 1e-9, 1), x, y) for x, y, _ in defined], axis=0)
    assert len(fpr) == POINTS + 1 <= 200
    np.testing.assert_allclose(rest[0].to_numpy(), [0, *expected], atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([0, 1, 3]))
def test_the_area_below_the_roc_curve_is_the_auc(seed: int, levels: int) -> None:
    data = scored(seed, 40, levels=levels)
    assert area(*roc(*data).to_numpy().T) == pytest.approx(ranking(*data).means()["auc"], abs=0.01)


def test_calibration_is_that_of_a_plain_loop() -> None:
    data = scored(5, 300)
    predicted, observed = [], []
    for scores, labels in each(*data):
        if labels.any():
            predicted += [math.exp(score) / sum(math.exp(other) for other in scores) for score in scores]
            observed += [label / sum(labels) for label in labels]
    parts = np.array_split(np.argsort(predicted), BINS)
    found = calibration(*data)
    counts = found["candidates"].to_numpy()
    assert counts.sum() == len(predicted)
    assert np.ptp(counts) <= 1
    for column, values in (("predicted", predicted), ("observed", observed)):
        loop = [np.mean(np.take(values, part)) for part in parts]
        # which parts have the candidates that are over is free
        np.testing.assert_allclose(found[column].to_numpy(), loop, atol=0.05)
        assert found[column].to_numpy() @ counts == pytest.approx(sum(values))


def test_scores_that_clicks_were_drawn_from_are_calibrated_and_twice_of_them_are_not() -> None:
    rng = np.random.default_rng(7)
    scores = rng.normal(size=(20_000, 8))
    clicked = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)  # a draw from the softmax
    labels, offsets = np.eye(8, dtype=np.int8)[clicked].ravel(), np.arange(20_001) * 8
    right, wrong = (calibration(scores.ravel() * scale, labels, offsets) for scale in (1, 2))
    assert np.abs(np.subtract(*right.to_numpy().T[:2])).max() < 0.01
    assert np.abs(np.subtract(*wrong.to_numpy().T[:2])).max() > 0.1


def test_intervals_are_around_the_means_that_metrics_json_has() -> None:
    ranked = ranking(*scored(11))
    found = intervals(ranked, np.arange(200) // 4)
    assert found["metric"].to_list() == ["AUC", "MRR", "nDCG@5", "nDCG@10"]
    np.testing.assert_allclose(found["mean"].to_numpy(), list(ranked.means().values()))
    assert ((found["low"] < found["mean"]) & (found["mean"] < found["high"])).all()


@pytest.mark.parametrize("drop_unknown", [True, False])
def test_candidates_without_a_score_rank_last_or_do_not_count(tmp_path: Path, *, drop_unknown: bool) -> None:
    clicked = [(2.0, 1), (1.0, 0), (0.0, 0), (math.nan, 1)]
    write(tmp_path, evaluated(clicked, drop_unknown=drop_unknown))
    means = dict(pl.read_csv(tmp_path / "intervals.csv").select("metric", "mean").iter_rows())
    assert means["AUC"] == (1 if drop_unknown else 0.5)
    assert pl.read_csv(tmp_path / "calibration.csv")["candidates"].sum() == (3 if drop_unknown else 4)


@pytest.mark.parametrize("clicked", [0, 1])
def test_impressions_with_one_sort_of_candidate_make_no_curve(tmp_path: Path, clicked: int) -> None:
    write(tmp_path, evaluated([(1.0, clicked), (2.0, clicked)]))
    assert pl.read_csv(tmp_path / "roc.csv").is_empty()
    assert pl.read_csv(tmp_path / "calibration.csv").height == (2 if clicked else 0)
