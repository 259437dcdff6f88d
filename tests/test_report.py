"""The page that `newsfuse report` writes: what it says, and what a real browser makes of it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import threading
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import left_behind
import numpy as np
import polars as pl
import pytest
import vl_convert
import yaml
from browser import Browser, started
from hypothesis import example, given, settings
from hypothesis import strategies as st
from predictions import predict
from project import Project, missing
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from newsfuse.cli import app
from newsfuse.errors import IntegrityError, ParamsError, StorageError
from newsfuse.report import charts
from newsfuse.report.evidence import gathered
from newsfuse.report.examples import EACH, extremes
from newsfuse.report.figures import MOST
from newsfuse.report.page import write
from newsfuse.report.section import Figure, Table, legible
from newsfuse.report.slices import slices

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECTIONS = [
    "Results", "Other runs", "Slices", "What the encoders are worth", "Training", "Impressions ranked well and badly",
    "What was run", "All metrics",
]  # fmt: skip
MEGABYTE = 1 << 20
READABLE = 4.5
"""Contrast of text that WCAG 2.2 asks for, success criterion 1.4.3."""


# ---------------------------------------------------------------- what it says


@dataclass
class Parsed(HTMLParser):
    """Elements with their attributes, headings, table rows and paragraphs of a page."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)
    within: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in {"th", "td"}:
            self.rows[-1].append("")
        if tag in {"h1", "h2", "h3", "p", "style", "th", "td"}:
            self.within.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        if self.within and self.within[-1] == tag:
            self.within.pop()

    def handle_data(self, data: str) -> None:
        if self.within:
            self.texts[self.within[-1]][-1] += data
        if self.within and self.within[-1] in {"th", "td"}:
            self.rows[-1][-1] += data


def parsed(page: Path) -> Parsed:
    found = Parsed()
    found.feed(page.read_text(encoding="utf-8"))
    found.close()
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return left_behind.lay_out(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def page(root: Path) -> Path:
    out = root / "report.html"
    write("workspace", root, out, [left_behind.another(root, "<b>other")])
    return out


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Path:
    """A project of the test's own."""
    shutil.copytree(root, tmp_path / "project", ignore=shutil.ignore_patterns("*.html"))
    return tmp_path / "project"


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No chart is drawn, which takes nine tenths of the time and is not what the test is about."""
    monkeypatch.setattr(vl_convert, "vegalite_to_svg", lambda _, **__: "<svg></svg>")


def test_nothing_is_said_to_be_missing_where_all_is_there(page: Path) -> None:
    found = parsed(page)
    assert found.texts["h2"] == SECTIONS
    # made without Git and DVC
    assert [text for text in found.texts["p"] if "is missing" in text] == [
        "dvc.lock of 'workspace' is missing or cannot be read. dvc repro writes it."
    ]


@pytest.mark.usefixtures("undrawn")
def test_a_section_without_its_input_says_which_stage_makes_it(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("dataset: tiny\n")
    write("workspace", tmp_path, tmp_path / "report.html", [])
    found = parsed(tmp_path / "report.html")
    assert found.texts["h2"] == SECTIONS
    notes = " ".join(found.texts["p"])
    for stage in ("embed", "train", "evaluate"):
        assert f"The {stage} stage makes it: dvc repro {stage}." in notes


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("metrics/evaluate/metrics.json", "[1"),
        ("metrics/evaluate/metrics.json", "[1]"),
        ("metrics/embed.json", "\0"),
        ("metrics/train/metrics.json", '{"best": 3}'),
        ("metrics/train/plots/metrics/validation/auc.tsv", "step\tloss\n1\t2\n"),
        ("metrics/evaluate/plots/weights.csv", "encoder,group\nllm,all\n"),
        ("metrics/evaluate/plots/weights.csv", ""),
        ("metrics/evaluate/plots/lost.csv", "encoder,auc_lost,low,high\nllm,much,0,1\n"),
        ("data/tiny/predictions/articles.parquet", "no table"),
        ("data/tiny/dev/news.tsv", "one column\n"),
        ("dvc.lock", "- a list"),
        ("dvc.lock", "stages: {train: [], embed: {deps: [{md5: 1}, x], params: {}}}"),
        ("params.yaml", "dataset: tiny\nencoders: [llm]\nembed: lsa\nfusion: {a: 1}\nplugin_packages:\nevaluate: 1\n"),
        ("metrics/embed.json", '{"dollars": "few", "texts": [1]}'),
        ("metrics/evaluate/metrics.json", '{"auc": {"a": 1}, "random_auc": "half", "cosine_auc": NaN}'),
    ],
)
def test_a_damaged_input_costs_its_own_part_only(folder: Path, path: str, text: str) -> None:
    (folder / path).write_text(text)
    write("workspace", folder, folder / "report.html", [])
    assert parsed(folder / "report.html").texts["h2"] == SECTIONS


@pytest.mark.parametrize("name", ["scores.parquet", "manifest.json"])
def test_damaged_predictions_are_refused_and_no_page_is_written(folder: Path, name: str) -> None:
    (folder / "data/tiny/predictions" / name).write_text("{}")
    with pytest.raises(IntegrityError, match=r"Make it again: rm -rf .*predictions && .* dvc repro --single-item eval"):
        write("workspace", folder, folder / "report.html", [])
    with pytest.raises(IntegrityError, match=r"run '.*data/tiny/predictions': its predictions are damaged"):
        write("data/tiny/predictions", folder, folder / "report.html", [])
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("rows", [slice(0), slice(1)])
def test_a_run_in_which_nothing_is_defined_has_a_page(folder: Path, rows: slice) -> None:
    predictions = folder / "data/tiny/predictions"
    predict(predictions, pl.read_parquet(predictions / "scores.parquet")[rows])
    write("workspace", folder, folder / "report.html", ["data/tiny/predictions"])
    found = parsed(folder / "report.html")
    assert found.texts["h2"] == SECTIONS
    assert not any(row[0] == "21+" for row in found.rows)  # nobody reads a slice of nothing


def test_a_project_without_a_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="run this in the root of a newsfuse project"):
        write("workspace", tmp_path, tmp_path / "report.html", [])


@pytest.mark.usefixtures("undrawn")
def test_a_page_that_cannot_be_written_says_so(root: Path) -> None:
    with pytest.raises(StorageError, match=r"report\.html: could not be written: .* Or name another file"):
        write("workspace", root, root / "params.yaml" / "report.html", [])


def test_the_metrics_are_those_of_the_scores(root: Path, page: Path) -> None:
    aucs = [roc_auc_score(clicked, scores) for clicked, scores in _impressions(root)]
    (mean,) = [row[1] for row in parsed(page).rows if row[:1] == ["AUC"]]
    value, low, _, high = mean.split()
    assert float(value) == pytest.approx(np.mean(aucs), abs=5e-5)
    assert float(low) < float(value) < float(high)


def test_slices_are_those_of_plain_loops(root: Path) -> None:
    frame = pl.read_parquet(root / "data/tiny/predictions/scores.parquet")
    with gathered("workspace", root) as evidence:
        tables = [block for block in slices(evidence).blocks if isinstance(block, Table)]
    found = {row[0]: row for table in tables for row in table.rows if table.columns[0] == "history"}
    assert sum(int(row[-1].value) for row in found.values() if isinstance(row[-1], Figure)) == left_behind.IMPRESSIONS
    aucs = [
        roc_auc_score(rows["clicked"], rows["score"])
        for _, rows in frame.group_by("impression")
        if rows["history"][0] == 0
    ]
    figure = found["0"][1]
    assert isinstance(figure, Figure)
    assert float(figure.value) == pytest.approx(np.mean(aucs), abs=5e-5)


@pytest.mark.usefixtures("undrawn")
def test_a_run_set_beside_itself_differs_by_nothing(root: Path) -> None:
    write("workspace", root, root / "same.html", ["data/tiny/predictions"])
    (row,) = [row for row in parsed(root / "same.html").rows if row[:1] == ["data/tiny/predictions"]]
    assert row[1] == "+0.0000 0.0000 to 0.0000"


@pytest.mark.usefixtures("undrawn")
def test_a_run_on_other_impressions_is_not_compared(folder: Path) -> None:
    other = left_behind.another(folder, "other")
    table = pl.read_parquet(folder / other / "scores.parquet")
    predict(folder / other, table.with_columns(news=pl.lit("N1")))
    write("workspace", folder, folder / "report.html", [other])
    assert any("cannot be compared: impression" in text for text in parsed(folder / "report.html").texts["p"])


def test_the_same_runs_give_the_same_bytes(root: Path, page: Path) -> None:
    write("workspace", root, root / "again.html", ["others/<b>other"])
    assert (root / "again.html").read_bytes() == page.read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_headlines_are_shown_only_of_the_data_that_was_evaluated(folder: Path) -> None:
    assert _headlines(folder)
    news = folder / "data/tiny/dev/news.tsv"
    md5 = hashlib.md5(news.read_bytes(), usedforsecurity=False).hexdigest()
    deps = [{"path": f"data/tiny/{split}/news.tsv", "md5": md5} for split in ("train", "dev")]
    (folder / "dvc.lock").write_text(json.dumps({"stages": {"evaluate": {"deps": deps}}}))
    assert _headlines(folder)
    news.write_text(news.read_text() + "N99\tnews\tworld\tOther\t\t\t[]\t[]\n")
    assert not _headlines(folder)
    assert any("Headlines are not known here" in text for text in parsed(folder / "report.html").texts["p"])


def _headlines(folder: Path) -> list[str]:
    """Those of the folder's report."""
    write("workspace", folder, folder / "report.html", [])
    return re.findall(r"headline \d", (folder / "report.html").read_text(encoding="utf-8"))


@pytest.mark.usefixtures("undrawn")
def test_settings_that_changed_after_the_run_are_named(folder: Path) -> None:
    lock = {"stages": {"train": {"params": {"params.yaml": {"fusion": "gate", "dataset": "tiny"}}}}}
    (folder / "dvc.lock").write_text(json.dumps(lock))
    write("workspace", folder, folder / "report.html", [])
    assert any("with other values of: fusion." in text for text in parsed(folder / "report.html").texts["p"])


@pytest.mark.usefixtures("undrawn")
def test_a_setting_that_came_or_went_after_the_run_is_named(folder: Path) -> None:
    used = {"options": {"gnn": {"width": 3}}, "fusion": "late"}
    lock = {"stages": {"train": {"params": {"params.yaml": used}}}}
    (folder / "dvc.lock").write_text(json.dumps(lock))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params |= {"options": {"llm": {"width": 3}}, "fusion": "late"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    write("workspace", folder, folder / "report.html", [])
    named = "with other values of: options.gnn.width, options.llm.width. "
    assert any(named in text for text in parsed(folder / "report.html").texts["p"])


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("users", [29, 30])
def test_few_users_have_no_interval(folder: Path, users: int) -> None:
    predictions = folder / "data/tiny/predictions"
    table = pl.read_parquet(predictions / "scores.parquet")
    numbers = table["impression"].rle_id() % users
    predict(predictions, table.with_columns(user=numbers.cast(table["user"].dtype)))
    write("workspace", folder, folder / "report.html", [])
    (mean,) = [row[1] for row in parsed(folder / "report.html").rows if row[:1] == ["AUC"]]
    assert (" to " in mean) == (users == 30)


@given(
    aucs=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, float("nan")]), max_size=12),
    data=st.data(),
)
def test_examples_are_the_best_and_the_worst_and_none_is_both(aucs: list[float], data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(2, 5), min_size=len(aucs), max_size=len(aucs)))
    best, worst = extremes(np.array(aucs), np.array(sizes, dtype=np.int64))
    defined = [row for row, auc in enumerate(aucs) if auc == auc]  # noqa: PLR0124 - not NaN
    order = sorted(defined, key=lambda row: (-aucs[row], -sizes[row], row))
    assert best.tolist() == order[: min(EACH, (len(defined) + 1) // 2)]
    assert set(worst) & set(best) == set()
    assert len(worst) <= EACH
    left = [row for row in defined if row not in best]
    assert [aucs[row] for row in worst] == sorted(aucs[row] for row in left)[: len(worst)]


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    for name in [name for name in sys.modules if name.startswith("newsfuse.report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    monkeypatch.chdir(root)
    result = CliRunner().invoke(app, ["report"])
    assert result.exit_code == ParamsError.exit_code
    assert "pip install 'newsfuse[report]'" in result.output


def _impressions(root: Path) -> list[tuple[list[int], list[float]]]:
    frame = pl.read_parquet(root / "data/tiny/predictions/scores.parquet")
    groups = frame.group_by("impression", maintain_order=True)
    return [(rows["clicked"].to_list(), rows["score"].to_list()) for _, rows in groups]


# ---------------------------------------------------------------- another revision

STAGES = """\
stages:
  evaluate:
    cmd: python make.py
    params: [fusion]
    deps: [make.py]
    outs: ["data/${dataset}/predictions"]
    metrics: [metrics/evaluate/metrics.json]
"""
MAKE = """\
import json
from pathlib import Path

import polars as pl
import yaml

from newsfuse.artifact import writing

fusion = yaml.safe_load(Path("params.yaml").read_text())["fusion"]
right = fusion == "gate"
with writing(Path("data/tiny/predictions"), kind="evaluate", settings={}) as draft:
    frame = pl.DataFrame({"impression": ["1", "1"], "user": [0, 0], "news": ["N1", "N2"], "clicked": [1, 0]})
    scores = pl.Series([float(right), 0.5])
    frame.with_columns(score=scores, warm=pl.lit(True)).write_parquet(draft / "scores.parquet")
Path("metrics/evaluate").mkdir(parents=True, exist_ok=True)
Path("metrics/evaluate/metrics.json").write_text(json.dumps({"auc": float(right)}))
"""


def test_an_experiment_is_reported_from_the_cache_and_nothing_is_checked_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := missing():
        pytest.skip(reason)
    project = Project(tmp_path / "a project")
    (project.root / "plugins/fusions").mkdir(parents=True)
    (project.root / "plugins/fusions/gate.py").write_text("# gate\n")
    params = "dataset: tiny\nfusion: late\n"
    for name, text in {"dvc.yaml": STAGES, "make.py": MAKE, "params.yaml": params}.items():
        (project.root / name).write_text(text)
    (project.root / ".gitignore").write_text("data\nmetrics\n/report.html\n")
    project.must("git", "init", "--quiet")
    project.must("dvc", "init", "--quiet")
    project.dvc("repro", "--quiet")
    project.commit()
    project.dvc("exp", "run", "--quiet", "--name", "gated", "-S", "fusion=gate")
    project.must("git", "checkout", "--quiet", "--", ".")
    project.dvc("checkout", "--quiet")
    for name, value in project.environment().items():
        monkeypatch.setenv(name, value)

    said = project.must("newsfuse", "report", "gated", "--against", "workspace").text
    assert "report.html: written" in said
    rows = parsed(project.root / "report.html").rows
    assert ["fusion", "gate"] in rows
    assert ["AUC", "1.0000"] in rows  # one user has no interval
    assert ["auc", "1.0000"] in rows
    assert ["fusion", "gate", "plugins/fusions/gate.py", hashlib.sha256(b"# gate\n").hexdigest()[:12]] in rows
    (beside,) = [row for row in rows if row[0] == "workspace"]
    assert beside[1] == "-1.0000"
    assert beside[-1] == "fusion: late"
    assert project.changes() == []

    failed = project.run("newsfuse", "report", "gatet")
    assert failed.code == ParamsError.exit_code
    assert "Did you mean 'gated'?" in failed.text


# ---------------------------------------------------------------- what is in it


def test_the_page_has_nothing_that_runs_or_asks(page: Path) -> None:
    elements = parsed(page).elements
    assert {tag for tag, _ in elements} & {"script", "img", "iframe", "object", "embed", "form", "base"} == set()
    for _, attributes in elements:
        assert [name for name in attributes if name.startswith("on") or name in {"src", "style", "srcdoc"}] == []
        assert all((attributes.get(name) or "#").startswith(("#", "data:,")) for name in ("href", "xlink:href"))


def test_the_page_has_an_icon_so_that_no_browser_asks_for_one(page: Path) -> None:
    assert ("link", {"rel": "icon", "href": "data:,"}) in parsed(page).elements


def test_the_page_is_small(page: Path) -> None:
    assert page.stat().st_size < MEGABYTE


def test_the_page_stays_small_with_long_names_and_thousands_of_categories(folder: Path) -> None:
    predictions = folder / "data/tiny/predictions"
    categories = [f"{number} {'long ' * 10_000}" for number in range(left_behind.IMPRESSIONS)]
    table = pl.read_parquet(predictions / "scores.parquet")
    table = table.with_columns(category=pl.Series(np.repeat(categories, left_behind.CANDIDATES)))
    predict(predictions, table)
    weights = [("gnn", "category", f"{number}", 0.5, 1) for number in range(5_000)]
    columns = ["encoder", "group", "value", "weight", "articles"]
    pl.DataFrame(weights, columns, orient="row").write_csv(folder / "metrics/evaluate/plots/weights.csv")
    write("workspace", folder, folder / "report.html", [])
    assert (folder / "report.html").stat().st_size < MEGABYTE
    assert len([row for row in parsed(folder / "report.html").rows if " long " in row[0]]) == MOST


@given(st.lists(st.text(st.characters(), min_size=1), min_size=1, max_size=20))
@example([f"{'x' * length}\U0001f600{'x' * 40}" for length in range(30)])
@settings(max_examples=10, deadline=None)
def test_any_names_can_be_drawn_and_none_hides_another(names: list[str]) -> None:
    rows = [(name, place, 0.0, 1.0) for place, name in enumerate(dict.fromkeys(map(legible, names)))]
    chart = charts.intervals(pl.DataFrame(rows, charts.INTERVALS, orient="row"), caption="", x="")
    for drawing in (chart.wide, chart.narrow):
        (marks,) = re.findall(r'<g class="mark-symbol role-mark layer_1_marks".*?</g>', drawing, re.DOTALL)
        assert len(set(re.findall(r' transform="translate\([^,]+,([^)]+)\)"', marks))) == len(rows)


def test_no_control_character_is_left(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [char for char in text if not char.isprintable() and char != "\n"] == []


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with started(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


class Served(ThreadingHTTPServer):
    """The page at any address, and who asked for what: a browser asks servers for more than it asks files for."""

    def __init__(self, page: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.page = page
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/report.html"


class Answer(BaseHTTPRequestHandler):
    server: Served

    def do_GET(self) -> None:  # noqa: N802 - the base class's name
        self.server.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.server.page)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


def serve(page: bytes) -> Iterator[Served]:
    with Served(page) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def served(page: Path) -> Iterator[Served]:
    yield from serve(page.read_bytes())


@pytest.mark.parametrize("width", [1000, 360])
def test_every_chart_draws(browser: Browser, page: Path, width: int) -> None:
    browser.open(page.as_uri(), width=width)
    charts = browser.value("""[...document.querySelectorAll("figure.chart")].map(figure => {
        const drawn = [...figure.querySelectorAll("svg")].filter(svg => svg.getBoundingClientRect().width > 0);
        const marks = drawn.flatMap(svg => [...svg.querySelectorAll("[class*=mark-][class*=role-mark] *")]);
        return [drawn.length, marks.filter(mark => mark.getBoundingClientRect().width > 0).length];
    })""")
    assert len(charts) == parsed(page).elements.count(("figure", {"class": "chart"}))
    assert len(charts) >= 11
    assert all(drawn == 1 and marks > 0 for drawn, marks in charts)


@pytest.mark.parametrize("width", [1000, 360])
def test_labels_of_charts_are_not_cut_off(browser: Browser, page: Path, width: int) -> None:
    browser.open(page.as_uri(), width=width)
    beyond = browser.value("""[...document.querySelectorAll("svg")].flatMap(svg => {
        const box = svg.getBoundingClientRect();
        return [...svg.querySelectorAll("text")].filter(text => {
            const own = text.getBoundingClientRect();
            return own.width && (own.left < box.left - 1 || own.right > box.right + 1);
        }).map(text => text.textContent);
    })""")
    assert beyond == []


def test_the_browser_asks_for_the_page_alone_and_complains_of_nothing(browser: Browser, served: Served) -> None:
    browser.open(served.url)
    assert browser.requested() == [served.url]
    assert browser.console() == []
    assert served.asked == ["/report.html"]


def test_hostile_titles_are_text(browser: Browser, page: Path) -> None:
    browser.open(page.as_uri())
    assert browser.value("window.harmed") is None
    assert (
        browser.value("document.querySelectorAll('script, img, a[href^=javascript], b, [onload], [onerror]').length")
        == 0
    )
    text = browser.value("document.body.textContent")
    for title in left_behind.SHOWN:
        assert f"{title} headline" in text
    assert browser.value("document.title") == "workspace – newsfuse report"  # noqa: RUF001 - a dash


def test_what_gets_into_the_page_all_the_same_neither_runs_nor_asks(browser: Browser, page: Path) -> None:
    harm = """<script>window.harmed = 1</script><img src="/asked.png" onerror="window.harmed = 2">
        <link rel="stylesheet" href="/asked.css"><iframe src="/asked.html"></iframe><style>h1 { color: red }</style>"""
    text = page.read_text(encoding="utf-8").replace("</main>", f"{harm}</main>")
    for server in serve(text.encode()):
        browser.open(server.url)
        assert browser.value("window.harmed") is None
        assert browser.value("getComputedStyle(document.querySelector('h1')).color") != "rgb(255, 0, 0)"
        assert server.asked == ["/report.html"]
        assert len(browser.console()) >= 4  # the policy's refusals: the log that is empty elsewhere does see them


@pytest.mark.parametrize("width", [320, 360, 1000])
def test_the_page_does_not_scroll_sideways(browser: Browser, page: Path, width: int) -> None:
    browser.open(page.as_uri(), width=width)
    assert browser.value("document.documentElement.scrollWidth") == width
    beyond = browser.value("""[...document.querySelectorAll("main *")].filter(
        each => !each.closest(".scroll, svg") && each.getBoundingClientRect().right > innerWidth + 1).length""")
    assert beyond == 0


def test_a_wide_table_scrolls_in_its_own_box(browser: Browser, page: Path) -> None:
    browser.open(page.as_uri(), width=320)
    boxes = "[...document.querySelectorAll('.scroll')]"
    assert browser.value(f"{boxes}.some(box => box.scrollWidth > box.clientWidth)")
    assert browser.value(f"{boxes}.every(box => getComputedStyle(box).overflowX === 'auto')")


def test_figures_stand_right_in_digits_of_one_width(browser: Browser, page: Path) -> None:
    browser.open(page.as_uri())
    style = "getComputedStyle(document.querySelector('td.number'))"
    assert browser.value(f"{style}.textAlign") == "right"
    assert "tabular-nums" in browser.value(f"{style}.fontVariantNumeric")


def test_dark_mode_changes_colours_of_text_and_charts(browser: Browser, page: Path) -> None:
    looks = []
    for dark in (False, True):
        browser.open(page.as_uri(), dark=dark)
        looks.append(_colours(browser))
    light, dark_ones = looks
    assert all(one != other for one, other in zip(light, dark_ones, strict=True))
    assert _brightness(light[0]) > 0.8
    assert _brightness(dark_ones[0]) < 0.1


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_marks_can_be_told_from_the_paper(browser: Browser, page: Path, *, dark: bool) -> None:
    browser.open(page.as_uri(), dark=dark)
    paper, *inks = _colours(browser)
    assert min(_contrast(ink, paper) for ink in inks) >= READABLE


def test_print_has_no_backgrounds_and_dark_ink_even_in_dark_mode(browser: Browser, page: Path) -> None:
    browser.open(page.as_uri(), dark=True, media="print")
    assert browser.value("getComputedStyle(document.documentElement).colorScheme") == "light"
    backgrounds = "[...document.querySelectorAll('*')].map(each => getComputedStyle(each).backgroundColor)"
    assert set(browser.value(backgrounds)) == {"rgba(0, 0, 0, 0)"}
    assert _brightness(browser.value("getComputedStyle(document.body).color")) < 0.1
    assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"


def _colours(browser: Browser) -> list[str]:
    """Of the paper, and then of text, remarks, links, labels in charts, and marks."""
    style = "getComputedStyle(document.querySelector('{}')).{}"
    where = {"html": "backgroundColor", "h1": "color", ".lead": "color", "nav a": "color", "svg text": "fill",
             "svg .mark-symbol path": "fill"}  # fmt: skip
    return [browser.value(style.format(selector, name)) for selector, name in where.items()]


def _contrast(one: str, other: str) -> float:
    """Contrast ratio, https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""
    dark, light = sorted(map(_brightness, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def _brightness(colour: str) -> float:
    """Relative luminance of rgb(r, g, b), https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    parts = np.array([int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
