"""Texts become lists of buckets: what shares sub-words shares buckets, the same in every run."""

import numpy as np
from newsfuse_headline.subwords import LONGEST, Subwords

MANY = 2**20
"""So many buckets that no two sub-words of a test share one by chance."""


def buckets(text: str, shortest: int = 3, longest: int = 3) -> list[list[int]]:
    """The buckets of each word of the text, in its order."""
    found = Subwords.of([text], shortest, longest, MANY)
    words = np.split(found.buckets, found.word_offsets[1:-1])
    return [words[word].tolist() for word in found.text_words]


def test_a_word_is_its_runs_of_letters_between_marks_and_itself() -> None:
    (word,) = buckets("where")
    assert len(word) == len(set(word)) == len(["<where>", "<wh", "whe", "her", "ere", "re>"])


def test_a_run_at_the_end_of_a_word_is_another_than_within() -> None:
    (cat,), (caterer,) = buckets("cat"), buckets("caterer")
    assert len(set(cat) & set(caterer)) == 2  # "<ca" and "cat", not "at>"


def test_words_of_one_stem_share_buckets() -> None:
    elect, election, golf = buckets("elect election golf")
    assert len(set(elect) & set(election)) > 2
    assert not set(elect) & set(golf)


def test_case_and_punctuation_do_not_count() -> None:
    assert buckets("Rain, rain!") == buckets("rain rain")


def test_letters_of_any_script_count() -> None:
    assert len(buckets("Émile 東京 3")) == 3


def test_only_the_first_letters_of_a_long_word_are_read() -> None:
    assert buckets("a" * LONGEST) == buckets("a" * 1000)


def test_with_no_runs_asked_for_a_word_is_one_bucket() -> None:
    assert [len(word) for word in buckets("rain and snow", 2, 1)] == [1, 1, 1]


def test_the_words_of_a_text_are_its_own() -> None:
    found = Subwords.of(["rain snow", "", "snow"], 3, 3, MANY)
    assert np.diff(found.text_offsets).tolist() == [2, 0, 1]
    assert found.text_words[1] == found.text_words[2] != found.text_words[0]


def test_texts_may_say_nothing() -> None:
    for texts in ([], [""], ["", "?!"]):
        found = Subwords.of(texts, 3, 5, MANY)
        assert (len(found.text_offsets), len(found.text_words), len(found.buckets)) == (len(texts) + 1, 0, 0)


def test_the_same_bucket_in_every_run() -> None:
    (word,) = buckets("rain", 2, 1)
    assert word == [580490]


def test_buckets_are_filled_evenly() -> None:
    found = Subwords.of([" ".join(f"word{number}" for number in range(20_000))], 2, 1, 100)
    counts = np.bincount(found.buckets, minlength=100)
    assert counts.sum() == 20_000
    assert ((counts - 200) ** 2 / 200).sum() < 150  # chi-squared of 99 degrees of freedom, p < .001
