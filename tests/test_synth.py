"""The synthetic data set: MIND's format to the letter, the same bytes for a seed, and the signals that it promises."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score

from newsfuse.synth import synth

TINY = Path(__file__).parents[1] / "data" / "tiny"
SPLITS = ("train", "dev")
FILES = ("news.tsv", "behaviors.tsv", "entity_embedding.vec")

Scorer = Callable[[list[str], list[str]], np.ndarray]
"""(history, candidates) -> a score per candidate"""


def rows(path: Path) -> list[list[str]]:
    """Split at tabs and nothing else: there is no quoting."""
    return [line.split("\t") for line in path.read_text(encoding="utf-8").removesuffix("\n").split("\n")]


def news(split: str, folder: Path = TINY) -> dict[str, list[str]]:
    return {row[0]: row for row in rows(folder / split / "news.tsv")}


def behaviors(split: str, folder: Path = TINY) -> list[list[str]]:
    return rows(folder / split / "behaviors.tsv")


def labelled(row: list[str]) -> list[tuple[str, int]]:
    return [(token.rpartition("-")[0], int(token.rpartition("-")[2])) for token in row[4].split(" ")]


def mentioned(split: str, folder: Path = TINY) -> set[str]:
    return {
        name for row in behaviors(split, folder) for name in [*row[3].split(), *(pair[0] for pair in labelled(row))]
    }


def moments(split: str) -> list[datetime]:
    return [datetime.strptime(row[2], "%m/%d/%Y %I:%M:%S %p") for row in behaviors(split)]  # noqa: DTZ007 - MIND's times have no zone


def entities(text: str) -> list[str]:
    try:
        return [entity["WikidataId"] for entity in json.loads(text)]
    except ValueError:
        return []


def every_article() -> dict[str, list[str]]:
    return news("train") | news("dev")


# --- the same bytes


def contents(folder: Path) -> dict[str, bytes]:
    return {f"{split}/{name}": (folder / split / name).read_bytes() for split in SPLITS for name in FILES}


def test_the_default_set_is_data_tiny_byte_for_byte(tmp_path: Path) -> None:
    synth(tmp_path)
    assert contents(tmp_path) == contents(TINY)


def test_another_seed_gives_other_files(tmp_path: Path) -> None:
    synth(tmp_path, seed=1)
    made, tiny = contents(tmp_path), contents(TINY)
    assert all(made[name] != tiny[name] for name in made)


def test_nothing_but_the_six_files_is_left_in_the_folder(tmp_path: Path) -> None:
    synth(tmp_path, news=100, impressions=100)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {f"{split}/{name}" for split in SPLITS for name in FILES}


def test_data_tiny_is_small_enough_for_git() -> None:
    sizes = [len(text) for text in contents(TINY).values()]
    assert max(sizes) < 1_000_000
    assert sum(sizes) < 1_500_000


@pytest.mark.parametrize(("articles", "impressions"), [(99, 2000), (500, 99)])
def test_too_small_a_set_is_refused(tmp_path: Path, articles: int, impressions: int) -> None:
    with pytest.raises(ValueError, match="at least 100"):
        synth(tmp_path, news=articles, impressions=impressions)


# --- the format


@pytest.mark.parametrize("split", SPLITS)
def test_an_article_has_the_eight_columns_of_mind(split: str) -> None:
    table = rows(TINY / split / "news.tsv")
    assert {len(row) for row in table} == {8}
    assert all(row[0][0] == "N" and row[0][1:].isdecimal() for row in table)
    assert all(row[1] and row[2] and row[3] and row[5].startswith("https://") for row in table)
    assert len({row[0] for row in table}) == len(table)


@pytest.mark.parametrize("split", SPLITS)
def test_an_impression_has_the_five_columns_of_mind_and_the_next_number(split: str) -> None:
    table = behaviors(split)
    assert {len(row) for row in table} == {5}
    assert [row[0] for row in table] == [str(number) for number in range(1, len(table) + 1)]
    assert all(row[1][0] == "U" and row[1][1:].isdecimal() for row in table)


@pytest.mark.parametrize("split", SPLITS)
def test_every_impression_has_a_click_and_a_candidate_that_was_not_clicked(split: str) -> None:
    assert all({label for _, label in labelled(row)} == {0, 1} for row in behaviors(split))


@pytest.mark.parametrize("split", SPLITS)
def test_no_article_comes_twice_in_a_history_or_among_the_candidates(split: str) -> None:
    for row in behaviors(split):
        for ids in (row[3].split(), [name for name, _ in labelled(row)]):
            assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("split", SPLITS)
def test_every_id_in_behaviors_has_a_line_in_the_news_of_its_split(split: str) -> None:
    assert mentioned(split) <= set(news(split))


@pytest.mark.parametrize("split", SPLITS)
def test_a_user_has_one_history_within_a_split(split: str) -> None:
    histories = {(row[1], row[3]) for row in behaviors(split)}
    assert len(histories) == len({user for user, _ in histories})


def test_times_are_written_without_leading_zeros() -> None:
    texts = [row[2] for split in SPLITS for row in behaviors(split)]
    assert not any(text.startswith("0") or "/0" in text or " 0" in text for text in texts)
    assert {text[-3:] for text in texts} == {" AM", " PM"}


def test_dev_is_the_day_after_several_days_of_train() -> None:
    train, dev = ({moment.toordinal() for moment in moments(split)} for split in SPLITS)
    assert len(train) == 5
    assert dev == {max(train) + 1}


@pytest.mark.parametrize("split", SPLITS)
def test_a_vector_is_a_wikidata_id_and_a_hundred_numbers(split: str) -> None:
    table = rows(TINY / split / "entity_embedding.vec")
    assert {len(row) for row in table} == {101}
    assert len({row[0] for row in table}) == len(table)
    assert all(abs(float(number)) < 1 for row in table for number in row[1:])


@pytest.mark.parametrize("split", SPLITS)
def test_nearly_every_entity_of_a_split_has_a_vector_and_no_other_entity_has(split: str) -> None:
    vectors = {row[0] for row in rows(TINY / split / "entity_embedding.vec")}
    named = {entity for row in news(split).values() for column in row[6:] for entity in entities(column)}
    assert 0.8 < len(named & vectors) / len(named) < 1
    assert len(vectors - named) <= 2  # those that only broken lists name


def test_an_entity_is_described_as_in_mind() -> None:
    keys = {"Label", "Type", "WikidataId", "Confidence", "OccurrenceOffsets", "SurfaceForms"}
    lists = [json.loads(row[6]) for row in every_article().values() if row[6].endswith("]")]
    assert {frozenset(entity) for listed in lists for entity in listed} == {frozenset(keys)}


# --- what was planted


def test_the_default_set_has_500_articles_and_2000_impressions() -> None:
    assert len(every_article()) == 500
    assert [len(behaviors(split)) for split in SPLITS] == [1400, 600]


def test_an_article_of_both_splits_has_the_same_line_in_both() -> None:
    train, dev = news("train"), news("dev")
    both = train.keys() & dev.keys()
    assert len(both) > 50
    assert all(train[name] == dev[name] for name in both)


def test_most_candidates_of_dev_are_new_and_some_are_known() -> None:
    known = mentioned("train")
    new = [name not in known for row in behaviors("dev") for name, _ in labelled(row)]
    assert 0.5 < np.mean(new) < 0.9


def test_most_candidates_of_the_last_training_day_were_not_shown_before() -> None:
    days = [moment.toordinal() for moment in moments("train")]
    earlier, last = (
        [row for row, day in zip(behaviors("train"), days, strict=True) if (day == max(days)) == late]
        for late in (False, True)
    )
    known = {name for row in earlier for name, _ in labelled(row)}
    new = [name not in known for row in last for name, _ in labelled(row)]
    assert np.mean(new) > 0.5


@pytest.mark.parametrize("split", SPLITS)
def test_a_few_users_have_no_history(split: str) -> None:
    empty = [row[3] == "" for row in behaviors(split)]
    assert 0 < np.mean(empty) < 0.1


def test_some_users_of_dev_are_new_and_some_are_known() -> None:
    train, dev = ({row[1] for row in behaviors(split)} for split in SPLITS)
    assert dev - train
    assert dev & train


def test_about_a_tenth_of_articles_have_no_abstract() -> None:
    assert 0.05 < np.mean([row[4] == "" for row in every_article().values()]) < 0.15


def test_about_a_tenth_of_articles_have_no_entities() -> None:
    assert 0.05 < np.mean([row[6:] == ["[]", "[]"] for row in every_article().values()]) < 0.15


def test_a_few_articles_have_a_broken_list_of_entities() -> None:
    broken = [any(not column.endswith("]") for column in row[6:]) for row in every_article().values()]
    assert 0.005 < np.mean(broken) < 0.05


def test_some_titles_begin_with_a_quote_that_is_never_closed() -> None:
    titles = [row[3] for row in every_article().values()]
    assert 0 < sum(title.startswith('"') and title.count('"') == 1 for title in titles) < 25


def test_no_text_names_an_entity() -> None:
    articles = every_article().values()
    words = {word.strip('".').lower() for row in articles for column in row[3:5] for word in column.split()}
    listed = [json.loads(column) for row in articles for column in row[6:] if column.endswith("]")]
    labels = {entity["Label"].lower() for some in listed for entity in some}
    assert len(labels) > 50
    assert not labels & words


# --- the signals, by scorers that learn nothing


def auc(scorer: Scorer, folder: Path = TINY) -> float:
    """Mean AUC over the impressions of dev."""
    found = []
    for row in behaviors("dev", folder):
        candidates, labels = zip(*labelled(row), strict=True)
        found.append(roc_auc_score(labels, scorer(row[3].split(), list(candidates))))
    return float(np.mean(found))


def cosine(vectors: np.ndarray, ids: list[str]) -> Scorer:
    """Of each candidate with the mean of the history; 0 without a history."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    row = {name: number for number, name in enumerate(ids)}

    def score(history: list[str], candidates: list[str]) -> np.ndarray:
        mean = unit[[row[name] for name in history]].sum(axis=0)
        return np.asarray(unit[[row[name] for name in candidates]] @ mean / max(float(np.linalg.norm(mean)), 1e-9))

    return score


def text_scorer(folder: Path = TINY) -> Scorer:
    articles = news("train", folder) | news("dev", folder)
    vectors = TfidfVectorizer().fit_transform([f"{row[3]} {row[4]}" for row in articles.values()])
    return cosine(vectors.toarray(), list(articles))


def entity_scorer(folder: Path = TINY) -> Scorer:
    articles = news("train", folder) | news("dev", folder)
    files = [folder / split / "entity_embedding.vec" for split in SPLITS]
    vectors = {row[0]: np.array(row[1:], dtype=float) for path in files for row in rows(path)}
    lists = [
        [entity for column in row[6:] for entity in entities(column) if entity in vectors] for row in articles.values()
    ]
    return cosine(
        np.stack([sum((vectors[entity] for entity in listed), np.zeros(100)) for listed in lists]), list(articles)
    )


def category_scorer() -> Scorer:
    articles = every_article()
    kinds = sorted({row[2] for row in articles.values()})
    return cosine(
        np.array([[row[2] == kind for kind in kinds] for row in articles.values()], dtype=float), list(articles)
    )


def popularity_scorer() -> Scorer:
    """Clicks per showing in train; an article that was never shown has the mean."""
    pairs = [pair for row in behaviors("train") for pair in labelled(row)]
    mean = float(np.mean([label for _, label in pairs]))
    shown, clicked = Counter(name for name, _ in pairs), Counter(name for name, label in pairs if label)
    return lambda _, candidates: np.array([(clicked[name] + 5 * mean) / (shown[name] + 5) for name in candidates])


def both(folder: Path = TINY) -> Scorer:
    """Scaled, because entities are alike or not, while texts share few words even where the topic is the same."""
    text, entity = text_scorer(folder), entity_scorer(folder)
    return lambda history, candidates: 2 * text(history, candidates) + entity(history, candidates)


def test_text_tells_clicks_apart() -> None:
    assert 0.64 < auc(text_scorer()) < 0.74


def test_entities_tell_clicks_apart() -> None:
    assert 0.6 < auc(entity_scorer()) < 0.7


def test_text_and_entities_together_tell_more_than_either() -> None:
    assert auc(both()) > max(auc(text_scorer()), auc(entity_scorer())) + 0.03


def test_popularity_in_train_tells_a_little_about_dev() -> None:
    # .51 without popular articles: a topic that happens to have many friends helps a little
    assert 0.525 < auc(popularity_scorer()) < 0.58


def test_categories_tell_little() -> None:
    assert 0.5 < auc(category_scorer()) < 0.58


def test_text_says_nothing_about_entities() -> None:
    """Articles that mention the same entity are no more alike in their words than any two articles."""
    articles = every_article()
    vectors = TfidfVectorizer().fit_transform([f"{row[3]} {row[4]}" for row in articles.values()])
    named = [set(entities(row[6]) + entities(row[7])) for row in articles.values()]
    alike = (vectors @ vectors.T).toarray()
    sharing = np.array([[bool(one & other) for other in named] for one in named])
    different = ~np.eye(len(named), dtype=np.bool_)
    assert alike[sharing & different].mean() == pytest.approx(alike[~sharing & different].mean(), rel=0.1)


# --- other sizes


def test_a_larger_set_is_as_coherent_and_has_longer_lists(tmp_path: Path) -> None:
    synth(tmp_path, news=3000, impressions=4000)
    assert len(news("train", tmp_path) | news("dev", tmp_path)) == 3000
    assert [len(behaviors(split, tmp_path)) for split in SPLITS] == [2800, 1200]
    assert all(mentioned(split, tmp_path) <= set(news(split, tmp_path)) for split in SPLITS)
    for column in (3, 4):
        small, large = (
            np.mean([len(row[column].split()) for row in behaviors("train", folder)]) for folder in (TINY, tmp_path)
        )
        assert large > 1.3 * small


def test_a_larger_set_has_the_same_signals(tmp_path: Path) -> None:
    synth(tmp_path, news=3000, impressions=4000)
    assert auc(text_scorer(tmp_path), tmp_path) > 0.64
    assert auc(entity_scorer(tmp_path), tmp_path) > 0.6


def test_the_smallest_set_has_a_click_and_a_choice_in_every_impression(tmp_path: Path) -> None:
    synth(tmp_path, news=100, impressions=100)
    for split in SPLITS:
        assert all({label for _, label in labelled(row)} == {0, 1} for row in behaviors(split, tmp_path))
