"""EB-NeRD's bundle becomes MIND's files: in the true schema, with every oddity that a bundle may have."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from contextlib import chdir
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from project import Project, missing
from typer.testing import CliRunner, Result

from newsfuse import ebnerd
from newsfuse.behaviors import Behaviors
from newsfuse.cli import app
from newsfuse.ebnerd import take_in
from newsfuse.errors import DataError, IntegrityError, NewsfuseError, ParamsError, StorageError
from newsfuse.news import News

NOON = datetime(2023, 5, 18, 12, 0, 3, 999_999)  # noqa: DTZ001 - EB-NeRD's times have no zone

ARTICLE = {
    "article_id": pl.Int32, "title": pl.String, "subtitle": pl.String, "last_modified_time": pl.Datetime("us"),
    "premium": pl.Boolean, "body": pl.String, "published_time": pl.Datetime("us"), "image_ids": pl.List(pl.Int64),
    "article_type": pl.String, "url": pl.String, "ner_clusters": pl.List(pl.String),
    "entity_groups": pl.List(pl.String), "topics": pl.List(pl.String), "category": pl.Int16,
    "subcategory": pl.List(pl.Int16), "category_str": pl.String, "total_inviews": pl.Int32,
    "total_pageviews": pl.Int32, "total_read_time": pl.Float32, "sentiment_score": pl.Float32,
    "sentiment_label": pl.String,
}  # fmt: skip
BEHAVIOR = {
    "impression_id": pl.UInt32, "article_id": pl.Int32, "impression_time": pl.Datetime("us"), "read_time": pl.Float32,
    "scroll_percentage": pl.Float32, "device_type": pl.Int8, "article_ids_inview": pl.List(pl.Int32),
    "article_ids_clicked": pl.List(pl.Int32), "user_id": pl.UInt32, "is_sso_user": pl.Boolean, "gender": pl.Int8,
    "postcode": pl.Int8, "age": pl.Int8, "is_subscriber": pl.Boolean, "session_id": pl.UInt32,
    "next_read_time": pl.Float32, "next_scroll_percentage": pl.Float32,
}  # fmt: skip
HISTORY = {
    "user_id": pl.UInt32, "impression_time_fixed": pl.List(pl.Datetime("us")),
    "scroll_percentage_fixed": pl.List(pl.Float32), "article_id_fixed": pl.List(pl.Int32),
    "read_time_fixed": pl.List(pl.Float32),
}  # fmt: skip

Row = dict[str, Any]


def article(number: int, title: str | None = "title", subtitle: str | None = "", **more: object) -> Row:
    return {"article_id": number, "title": title, "subtitle": subtitle, "category": 118, "subcategory": [133]} | more


def shown(number: int, user: int, in_view: list[int] | None, clicked: list[int] | None, when: datetime = NOON) -> Row:
    return {
        "impression_id": number, "user_id": user, "impression_time": when, "article_ids_inview": in_view,
        "article_ids_clicked": clicked,
    }  # fmt: skip


def clicks(user: int, articles: list[int], minutes: list[int] | None = None) -> Row:
    times = [NOON + timedelta(minutes=each) for each in minutes or range(len(articles))]
    return {"user_id": user, "article_id_fixed": articles, "impression_time_fixed": times}


PLAIN = {
    "articles": [article(1), article(2), article(3)],
    "behaviors": [shown(10, 5, [1, 2], [1])],
    "history": [clicks(5, [3])],
}


@dataclass
class Bundle:
    """A bundle with the same rows in train and validation."""

    articles: list[Row] = field(default_factory=lambda: PLAIN["articles"])
    behaviors: list[Row] = field(default_factory=lambda: PLAIN["behaviors"])
    history: list[Row] = field(default_factory=lambda: PLAIN["history"])
    splits: tuple[str, ...] = ("train", "validation")

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        frame(self.articles, ARTICLE).write_parquet(folder / "articles.parquet")
        for split in self.splits:
            (folder / split).mkdir(exist_ok=True)
            behaviors = frame(self.behaviors, BEHAVIOR)
            if split == "test":
                outcomes = ("article_id", "article_ids_clicked", "next_read_time", "next_scroll_percentage")
                behaviors = behaviors.drop(outcomes).with_columns(is_beyond_accuracy=False)
            behaviors.write_parquet(folder / split / "behaviors.parquet")
            frame(self.history, HISTORY).write_parquet(folder / split / "history.parquet")
        return folder


def frame(rows: list[Row], schema: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema, orient="row")


def lines(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data/ebnerd"


def test_a_bundle_becomes_minds_files_to_the_letter(tmp_path: Path, out: Path) -> None:
    bundle = Bundle(
        articles=[
            article(30, "Anden\ttitel\r\n", " med  'citat\" ", url="https://ebnerd.dk/30", subcategory=[130, 131]),
            article(4, None, None, subcategory=[], category=None),
            article(5, "nobody reads it"),
        ],
        behaviors=[
            shown(2, 7, [30, 4], [4], datetime(2023, 5, 18, 0, 5, 59)),  # noqa: DTZ001 - see NOON
            shown(1, 8, [4, 30, 999], [30, 999], datetime(2023, 12, 1, 13, 0, 0)),  # noqa: DTZ001 - see NOON
        ],
        history=[clicks(7, [4, 30, 4, 777]), clicks(99, [5])],
    )
    take_in(bundle.write(tmp_path / "bundle"), out, history=50)
    assert lines(out / "train/news.tsv") == [
        ["N4", "", "", "", "", "", "[]", "[]"],
        ["N30", "118", "130_131", "Anden titel", "med 'citat\"", "https://ebnerd.dk/30", "[]", "[]"],
    ]
    assert lines(out / "train/behaviors.tsv") == [
        ["2", "U7", "05/18/2023 12:05:59 AM", "N4 N30 N4 N777", "N30-0 N4-1"],
        ["1", "U8", "12/01/2023 01:00:00 PM", "", "N4-0 N30-1 N999-1"],
    ]
    assert contents(out / "dev") == contents(out / "train")
    assert list(contents(out)) == [
        f"{split}/{name}.tsv" for split in ("dev", "train") for name in ("behaviors", "news")
    ]


def test_what_is_odd_is_mended_as_stated_and_counted(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Bundle(
        behaviors=[
            shown(1, 5, [1, 2, 1], [2, 2]),
            shown(2, 5, [1, 2], [3]),
            shown(3, 5, [1, 2], []),
            shown(4, 5, [1], None),
            shown(5, 5, [], [1]),
            shown(6, 6, None, [1]),
        ],
        articles=[article(1), article(2, "", None), article(3)],
    )
    take_in(bundle.write(tmp_path / "bundle"), out, history=50)
    assert [(row[0], row[4]) for row in lines(out / "train/behaviors.tsv")] == [
        ("1", "N1-0 N2-1"), ("2", "N1-0 N2-0"), ("3", "N1-0 N2-0"), ("4", "N1-0")
    ]  # fmt: skip
    counted = {
        name.strip(): int(number)
        for _, name, number, *_ in (line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line)
    }
    assert counted == {
        "impressions": 4, "candidates": 7, "clicks": 1, "users": 2, "articles": 3,
        "candidates that were in view twice, kept once": 1, "clicks on what was not in view, left out": 3,
        "impressions with nothing in view, left out": 2, "impressions without a click": 3,
        "users without a history": 1, "articles without a text": 1,
    }  # fmt: skip


def test_the_latest_clicks_are_kept_oldest_first_whatever_the_order_of_the_rows(tmp_path: Path, out: Path) -> None:
    bundle = Bundle(history=[clicks(5, [9, 8, 7, 6, 5], [5, 1, 4, 2, 3])])
    take_in(bundle.write(tmp_path / "bundle"), out, history=3)
    assert lines(out / "train/behaviors.tsv")[0][3] == "N5 N7 N9"


def test_news_has_the_articles_that_are_mentioned_after_the_cut(tmp_path: Path, out: Path) -> None:
    bundle = Bundle(articles=[article(number) for number in range(1, 9)], history=[clicks(5, [8, 7, 6])])
    take_in(bundle.write(tmp_path / "bundle"), out, history=2)
    assert [row[0] for row in lines(out / "train/news.tsv")] == ["N1", "N2", "N6", "N7"]


def test_a_test_split_has_no_labels_and_may_repeat_an_impression_id(tmp_path: Path, out: Path) -> None:
    behaviors = [shown(0, 5, [2, 1], None), shown(0, 5, [3], None)]
    Bundle().write(tmp_path / "bundle")
    Bundle(behaviors=behaviors, splits=("test",)).write(tmp_path / "bundle")
    take_in(tmp_path / "bundle", out, history=50)
    assert [row[4] for row in lines(out / "test/behaviors.tsv")] == ["N2 N1", "N3"]
    found = Behaviors.read(out / "test/behaviors.tsv", News.read(out / "test/news.tsv"), labelled=False)
    assert found.candidate_offsets.tolist() == [0, 2, 3]


def test_batches_leave_no_mark_and_the_same_bundle_gives_the_same_bytes(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    behaviors = [shown(number, number % 7, [1 + number % 3, 4 + number % 2], [1]) for number in range(60)]
    history = [clicks(user, [1 + user % 3] * user) for user in range(6)]
    bundle = Bundle(behaviors=behaviors, history=history).write(tmp_path / "bundle")
    take_in(bundle, out, history=3)
    monkeypatch.setattr(ebnerd, "IMPRESSIONS", 7)
    monkeypatch.setattr(ebnerd, "USERS", 2)
    take_in(bundle, out.with_name("again"), history=3)
    assert contents(out.with_name("again")) == contents(out)


@pytest.mark.parametrize("inner", ["", "ebnerd_demo/", "deep/er/"])
def test_a_zip_file_is_as_good_as_its_folder(tmp_path: Path, out: Path, inner: str) -> None:
    bundle = Bundle(splits=("train", "validation", "test")).write(tmp_path / "bundle")
    take_in(bundle, out, history=50)
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/._articles.parquet", b"no parquet")
        for path in sorted(bundle.rglob("*.parquet")):
            archive.write(path, f"{inner}{path.relative_to(bundle)}")
    take_in(tmp_path / "bundle.zip", out.with_name("zipped"), history=50)
    assert contents(out.with_name("zipped")) == contents(out)
    assert sorted(path.name for path in out.parent.iterdir()) == ["ebnerd", "zipped"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("../../evil", b"never written", "member '../../evil' leads out of its folder"),
        ("/tmp/evil", b"never written", "member '/tmp/evil' has an absolute path"),  # noqa: S108
        ("zeros.parquet", bytes(1 << 20), "member 'zeros.parquet' unpacks to more than 100 times its size"),
    ],
)
def test_a_zip_file_that_is_up_to_no_good_is_refused(
    tmp_path: Path, out: Path, name: str, content: bytes, words: str
) -> None:
    bundle = Bundle().write(tmp_path / "bundle")
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(bundle.rglob("*.parquet")):
            archive.write(path, path.relative_to(bundle))
        archive.writestr(name, content)
    told = refusal(tmp_path / "bundle.zip", out, IntegrityError)
    assert told == f"{tmp_path}/bundle.zip: {words}; EB-NeRD's archives are not so, and nothing was unpacked"


def test_a_folder_around_the_bundle_is_entered(tmp_path: Path, out: Path) -> None:
    Bundle().write(tmp_path / "download/ebnerd_small")
    take_in(tmp_path / "download", out, history=50)
    assert lines(out / "train/behaviors.tsv")[0][0] == "10"


ids = st.integers(0, 2**31 - 1) | st.integers(0, 9)
in_view = st.lists(ids, max_size=6)
impression = st.tuples(in_view, st.lists(st.integers(0, 5), max_size=3), st.integers(0, 3), st.integers(0, 10**9))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(impression, min_size=1, max_size=8),
    st.dictionaries(st.integers(0, 3), st.lists(ids, max_size=6)),
    st.sets(ids).map(lambda known: known | {1}),
    st.integers(1, 4),
)
def test_reading_the_files_gives_what_the_bundle_says(
    impressions: list[tuple[list[int], list[int], int, int]], past: dict[int, list[int]], known: set[int], latest: int
) -> None:
    behaviors = [
        shown(row, user, view, [view[place] for place in picks if place < len(view)], NOON + timedelta(seconds=seconds))
        for row, (view, picks, user, seconds) in enumerate([([1], [0], 0, 0), *impressions])
    ]
    with TemporaryDirectory() as folder:
        bundle = Bundle([article(each) for each in known], behaviors, [clicks(*each) for each in past.items()])
        take_in(bundle.write(Path(folder, "bundle")), Path(folder, "out"), history=latest)
        news = News.read(Path(folder, "out/train/news.tsv"))
        found = Behaviors.read(Path(folder, "out/train/behaviors.tsv"), news)
    expected = [row for row in behaviors if row["article_ids_inview"]]
    assert found.impressions.to_list() == [str(row["impression_id"]) for row in expected]
    assert found.times.tolist() == [row["impression_time"].replace(microsecond=0) for row in expected]
    names = [*news.ids.to_list(), None]  # -1 is the last
    for number, row in enumerate(expected):
        own = slice(*found.candidate_offsets[number : number + 2])
        view = list(dict.fromkeys(row["article_ids_inview"]))
        assert [names[each] for each in found.candidate_news[own]] == [
            f"N{each}" if each in known else None for each in view
        ]
        assert found.labels[own].tolist() == [each in row["article_ids_clicked"] for each in view]
        own = slice(*found.history_offsets[found.history[number] : found.history[number] + 2])
        kept = [f"N{each}" for each in past.get(row["user_id"], [])[-latest:] if each in known]
        assert [names[each] for each in found.history_news[own]] == kept


def spoil(bundle: Path, file: str, change: pl.Expr | pl.Series | None = None, drop: str | None = None) -> None:
    table = pl.read_parquet(bundle / file)
    (table.drop(drop) if drop else table.with_columns(change)).write_parquet(bundle / file)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "articles.parquet",
            pl.lit(1).alias("title"),
            "articles.parquet: column 'title' has the type Int32; expected text",
        ),
        ("articles.parquet", pl.lit(1).alias("article_id"), "articles.parquet:2: article_id 1 is there already"),
        ("articles.parquet", pl.lit(None, pl.Int32).alias("article_id"), "articles.parquet:1: no article_id"),
        (
            "train/behaviors.parquet",
            pl.lit("1 2").alias("article_ids_inview"),
            "column 'article_ids_inview' has the type String; expected lists of whole numbers",
        ),
        (
            "train/behaviors.parquet",
            pl.lit("x").alias("impression_time"),
            "has the type String; expected dates with times",
        ),
        ("validation/behaviors.parquet", pl.lit(-4).alias("user_id"), "behaviors.parquet:1: user_id -4 is below 0"),
        (
            "train/behaviors.parquet",
            pl.lit(None, pl.Datetime).alias("impression_time"),
            "parquet:1: no impression_time",
        ),
        ("train/behaviors.parquet", pl.Series("article_ids_inview", [[-4, 2]]), "parquet:1: id -4 is below 0"),
        (
            "train/history.parquet",
            pl.Series("article_id_fixed", [[1, 2, 3]]),
            "history.parquet:1: article_id_fixed and impression_time_fixed differ in length (3 and 1)",
        ),
        (
            "train/behaviors.parquet",
            pl.lit([], pl.List(pl.Int32)).alias("article_ids_inview"),
            "no impression with an article",
        ),
    ],
)
def test_a_wrong_table_is_refused_by_file_column_and_row(
    tmp_path: Path, out: Path, file: str, change: pl.Expr | pl.Series, message: str
) -> None:
    bundle = Bundle().write(tmp_path / "bundle")
    spoil(bundle, file, change)
    assert message in refusal(bundle, out)


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("articles.parquet", "subtitle"),
        ("train/behaviors.parquet", "article_ids_clicked"),
        ("train/history.parquet", "user_id"),
    ],
)
def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path, out: Path, file: str, column: str) -> None:
    bundle = Bundle().write(tmp_path / "bundle")
    spoil(bundle, file, drop=column)
    message = refusal(bundle, out)
    assert f"{bundle / file}: no column '{column}' (" in message
    assert "Found: " in message


def test_a_split_of_other_articles_is_refused(tmp_path: Path, out: Path) -> None:
    message = refusal(Bundle(articles=[article(77)]).write(tmp_path / "bundle"), out)
    assert message.endswith(
        "train: not one of the articles mentioned there is in articles.parquet: is it of another bundle?"
    )


def test_a_user_with_two_histories_is_refused(tmp_path: Path, out: Path) -> None:
    bundle = Bundle(history=[clicks(5, [3]), clicks(6, [3]), clicks(5, [1])]).write(tmp_path / "bundle")
    assert "train/history.parquet: user_id 5 has more than one row; expected one history" in refusal(bundle, out)


@pytest.mark.parametrize("file", ["articles.parquet", "train/behaviors.parquet", "validation/history.parquet"])
def test_a_missing_file_and_one_that_is_no_parquet_are_told_apart(tmp_path: Path, out: Path, file: str) -> None:
    bundle = Bundle().write(tmp_path / "bundle")
    whole = (bundle / file).read_bytes()
    (bundle / file).unlink()
    assert refusal(bundle, out) == f"{bundle / file}: not found"
    for wrong in (b"", b"PAR1", b"PK\3\4 something else", whole[: len(whole) // 2]):
        (bundle / file).write_bytes(wrong)
        assert f"{bundle / file}: not readable as a parquet file (" in refusal(bundle, out)


def test_what_is_no_bundle_at_all_is_refused(tmp_path: Path, out: Path) -> None:
    assert "not found; expected the folder of an EB-NeRD bundle, or its zip file" in refusal(tmp_path / "none", out)
    (tmp_path / "notes.txt").write_text("not a zip")
    assert "notes.txt: not readable as a zip file (" in refusal(tmp_path / "notes.txt", out)
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty", out) == f"{tmp_path / 'empty/articles.parquet'}: not found"


def refusal(bundle: Path, out: Path, kind: type[NewsfuseError] = DataError) -> str:
    """What an import is refused with; nothing is left of it."""
    with pytest.raises(kind) as error:
        take_in(bundle, out, history=50)
    assert not out.parent.exists() or not list(out.parent.iterdir())
    return str(error.value)


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, ["import", "ebnerd", *words], env={"COLUMNS": "120"})


def test_the_command_writes_below_data_and_says_what_to_type_next(tmp_path: Path) -> None:
    Bundle().write(tmp_path / "bundle")
    with chdir(tmp_path):
        done = invoke("bundle", "--name", "danish", "--history", "1")
    assert done.exit_code == 0
    assert "dvc add data/danish/train data/danish/dev\nRun on it: dvc exp run -S dataset=danish\n" in done.stdout
    assert (tmp_path / "data/danish/train/behaviors.tsv").exists()


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    Bundle().write(tmp_path / "bundle")
    (tmp_path / "data/ebnerd").mkdir(parents=True)
    with chdir(tmp_path):
        done, escape = invoke("bundle"), invoke("bundle", "--name", "../else")
    assert (done.exit_code, escape.exit_code) == (ParamsError.exit_code, ParamsError.exit_code)
    assert "data/ebnerd: is there already; nothing was changed" in done.stderr
    assert not list((tmp_path / "data/ebnerd").iterdir())


def test_below_the_root_of_a_project_nothing_is_written(tmp_path: Path) -> None:
    Bundle().write(tmp_path / "notes/bundle")
    (tmp_path / ".dvc").mkdir()
    with chdir(tmp_path / "notes"):
        done = invoke("bundle")
    assert done.exit_code == ParamsError.exit_code
    assert f"the project's root is {tmp_path}, and stages read its data/. Go there: cd {tmp_path}" in done.stderr
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["bundle"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    Bundle(behaviors=[shown(row, 5, [1, 2], [1]) for row in range(500)]).write(tmp_path / "bundle")
    words = [sys.executable, "-m", "newsfuse.cli", "import", "ebnerd", "bundle"]
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "limited", *words]
    done = subprocess.run(limited, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == StorageError.exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_the_data_set_is_tracked_so_that_experiments_see_it(tmp_path: Path) -> None:
    project = Project(tmp_path / "a project")
    project.root.mkdir()
    project.must("git", "init", "--quiet")
    project.must("dvc", "init", "--quiet")
    project.commit()
    Bundle().write(tmp_path / "bundle")
    done = project.must("newsfuse", "import", "ebnerd", "../bundle")
    assert (
        "Tracked by DVC, to be committed: data/ebnerd/train.dvc data/ebnerd/dev.dvc data/ebnerd/.gitignore" in done.text
    )
    assert project.changes() == [f"A  data/ebnerd/{name}" for name in (".gitignore", "dev.dvc", "train.dvc")]
    assert not project.dvc("data", "status").text.count("not_in_cache")


def test_a_failure_of_dvc_is_told_with_what_is_left_to_type(tmp_path: Path) -> None:
    Bundle().write(tmp_path / "bundle")
    (tmp_path / ".dvc").mkdir()
    with chdir(tmp_path), pytest.raises(NewsfuseError) as error:
        take_in(Path("bundle"), Path("data/ebnerd"), history=50)
    assert isinstance(error.value, StorageError)
    assert str(error.value).endswith("type: dvc add data/ebnerd/train data/ebnerd/dev")
    assert (tmp_path / "data/ebnerd/dev/news.tsv").exists()
