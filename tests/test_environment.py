"""Environment variables that change no result."""

import re
from pathlib import Path

import pytest

from newsfuse.environment import Environment
from newsfuse.errors import ParamsError

KNOWN = (
    "Known: NEWSFUSE_DEVICE, NEWSFUSE_LEDGER, NEWSFUSE_BUDGET_USD, NEWSFUSE_CONCURRENCY, NEWSFUSE_MAX_INPUTS, "
    "NEWSFUSE_USD_PER_MILLION_TOKENS, NEWSFUSE_RETRIES, NEWSFUSE_TIMEOUT_S, NEWSFUSE_CACHE_MB, "
    "NEWSFUSE_BOOKMARK_MINUTES, NEWSFUSE_TENSORBOARD, NEWSFUSE_MIRROR, NEWSFUSE_NO_PLUGINS"
)


def refused(**variables: str) -> str:
    with pytest.raises(ParamsError) as caught:
        Environment.read(variables)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_without_variables_the_documented_defaults_hold() -> None:
    assert Environment.read({}).model_dump() == {
        "device": "auto",
        "ledger": None,
        "budget_usd": 1.0,
        "concurrency": 8,
        "max_inputs": None,
        "usd_per_million_tokens": None,
        "retries": 5,
        "timeout_s": 60.0,
        "cache_mb": 2000,
        "bookmark_minutes": 10.0,
        "tensorboard": None,
        "mirror": None,
        "no_plugins": False,
    }


def test_every_variable_is_read() -> None:
    read = Environment.read(
        {
            "NEWSFUSE_DEVICE": "cpu",
            "NEWSFUSE_LEDGER": "/elsewhere/ledger.sqlite",
            "NEWSFUSE_BUDGET_USD": "2.5",
            "NEWSFUSE_CONCURRENCY": "16",
            "NEWSFUSE_MAX_INPUTS": "32",
            "NEWSFUSE_USD_PER_MILLION_TOKENS": "0",
            "NEWSFUSE_RETRIES": "0",
            "NEWSFUSE_TIMEOUT_S": "0.5",
            "NEWSFUSE_CACHE_MB": "0",
            "NEWSFUSE_BOOKMARK_MINUTES": "0",
            "NEWSFUSE_TENSORBOARD": "curves",
            "NEWSFUSE_MIRROR": "https://mirror.example",
        }
    )
    assert read == Environment(
        device="cpu",
        ledger=Path("/elsewhere/ledger.sqlite"),
        budget_usd=2.5,
        concurrency=16,
        max_inputs=32,
        usd_per_million_tokens=0.0,
        retries=0,
        timeout_s=0.5,
        cache_mb=0,
        bookmark_minutes=0.0,
        tensorboard=Path("curves"),
        mirror="https://mirror.example",
    )


def test_without_an_argument_the_process_own_variables_are_read_at_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWSFUSE_CONCURRENCY", "3")
    assert Environment.read().concurrency == 3
    monkeypatch.setenv("NEWSFUSE_CONCURRENCY", "4")
    assert Environment.read().concurrency == 4


@pytest.mark.parametrize("nothing", ["", " ", "\t\n"])
def test_an_empty_variable_counts_as_unset(nothing: str) -> None:
    names = [f"NEWSFUSE_{name.upper()}" for name in Environment.model_fields]
    assert Environment.read(dict.fromkeys(names, nothing)) == Environment()


def test_space_around_a_value_does_no_harm() -> None:
    assert Environment.read({"NEWSFUSE_DEVICE": " cpu\n", "NEWSFUSE_RETRIES": " 7 "}) == Environment(
        device="cpu", retries=7
    )


def test_variables_of_others_are_left_alone() -> None:
    assert Environment.read({"OPENAI_API_KEY": "x", "NEWSFUSEBUDGET": "7", "DVC_ROOT": "/"}) == Environment()


def test_a_misspelt_variable_is_refused_with_the_nearest_name() -> None:
    message = refused(NEWSFUSE_BUGDET_USD="0.1")
    assert message == f"NEWSFUSE_BUGDET_USD: no such variable. Did you mean 'NEWSFUSE_BUDGET_USD'? {KNOWN}"


def test_all_mistakes_are_told_at_once() -> None:
    message = refused(NEWSFUSE_BUDGET_USD="much", NEWSFUSE_CONCURRENCY="0", NEWSFUSE_RETRYS="1", NEWSFUSE_RETRIES="1")
    assert [line.partition(":")[0] for line in message.splitlines()] == [
        "NEWSFUSE_BUDGET_USD",
        "NEWSFUSE_CONCURRENCY",
        "NEWSFUSE_RETRYS",
    ]
    assert "found 'much'" in message
    assert "greater than or equal to 1, found '0'" in message


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("DEVICE", "gpu"),
        ("BUDGET_USD", "-0.01"),
        ("BUDGET_USD", "inf"),
        ("BUDGET_USD", "nan"),
        ("BUDGET_USD", "$1"),
        ("CONCURRENCY", "0"),
        ("CONCURRENCY", "257"),
        ("CONCURRENCY", "2.5"),
        ("MAX_INPUTS", "0"),
        ("USD_PER_MILLION_TOKENS", "-1"),
        ("RETRIES", "-1"),
        ("RETRIES", "101"),
        ("TIMEOUT_S", "0"),
        ("TIMEOUT_S", "inf"),
        ("CACHE_MB", "-1"),
        ("BOOKMARK_MINUTES", "-1"),
        ("NO_PLUGINS", "2"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_was_found(name: str, wrong: str) -> None:
    assert re.fullmatch(
        rf"NEWSFUSE_{name}: Input should be .+, found '{re.escape(wrong)}'", refused(**{f"NEWSFUSE_{name}": wrong})
    )


@pytest.mark.parametrize(("name", "bound"), [("BUDGET_USD", "0"), ("CONCURRENCY", "256"), ("RETRIES", "100")])
def test_the_ends_of_a_range_are_allowed(name: str, bound: str) -> None:
    assert getattr(Environment.read({f"NEWSFUSE_{name}": bound}), name.lower()) == float(bound)
