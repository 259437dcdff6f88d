"""Which vectors are the same: a key that changes in vain is paid for again, one that does not serves a wrong vector."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsfuse.paid.space import Space

SPACE = Space("openai", "", "text-embedding-3-small", 1536, 1, {"b": [1, None], "a": "é"})
TEXT = 'Straße "gesperrt"\n雨'
CANONICAL = (
    '{"space":{"dimensions":1536,"host":"","model":"text-embedding-3-small","options":{"a":"é","b":[1,null]},'
    '"provider":"openai","schema":1,"text":1},"words":"Straße \\"gesperrt\\"\\n雨"}'
)
words = st.text(st.characters(codec="utf-8"), max_size=20)
settings = st.dictionaries(words, st.none() | st.booleans() | st.integers() | words, max_size=3)


def test_a_key_is_the_sha256_of_canonical_json() -> None:
    assert SPACE.keys([TEXT]) == [hashlib.sha256(CANONICAL.encode()).digest()]


def test_a_key_that_was_paid_for_is_found_for_ever() -> None:
    (key,) = SPACE.keys([TEXT])
    assert key.hex() == "9e7963adc0818d91b6218afdaa4b17c54c8e5add08479422f48c836c5f7f3ba0"


@pytest.mark.parametrize(
    "change",
    [
        {"provider": "other"},
        {"host": "127.0.0.1:8080"},
        {"model": "text-embedding-3-large"},
        {"dimensions": 1535},
        {"text": 2},
        {"options": {}},
        {"options": {"b": [1, None], "a": "e"}},
    ],
    ids=str,
)
def test_whatever_decides_a_vector_changes_its_key(change: dict[str, Any]) -> None:
    assert replace(SPACE, **change).keys([TEXT]) != SPACE.keys([TEXT])


def test_the_order_of_settings_changes_nothing() -> None:
    turned = replace(SPACE, options=dict(reversed([*SPACE.options.items()])))
    assert list(turned.options) != list(SPACE.options)
    assert turned.keys([TEXT]) == SPACE.keys([TEXT])
    assert turned.to_json() == SPACE.to_json()


@given(st.lists(words))
def test_texts_have_the_same_key_exactly_if_they_are_the_same(texts: list[str]) -> None:
    keys = SPACE.keys(texts)
    assert len(keys) == len(texts)
    assert len(set(keys)) == len(set(texts))
    assert [SPACE.keys([text])[0] for text in texts] == keys


@given(st.builds(Space, words, words, words, st.integers(1), st.integers(0), settings))
def test_a_space_survives_being_written_down(space: Space) -> None:
    assert Space.from_json(space.to_json()) == space
    assert json.loads(space.to_json()) == space.to_dict()


def test_a_reader_is_told_provider_host_model_and_size() -> None:
    assert str(SPACE) == "openai, text-embedding-3-small, 1536 dimensions"
    assert str(replace(SPACE, host="localhost:80")) == "openai at localhost:80, text-embedding-3-small, 1536 dimensions"
