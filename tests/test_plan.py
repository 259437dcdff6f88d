"""`newsfuse plan`: what it would cost, before it costs anything."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from filelock import FileLock
from house import House, table
from hypothesis import given
from hypothesis import strategies as st
from openai_server import OpenAIServer

from newsfuse.environment import Environment
from newsfuse.news import News
from newsfuse.paid.ledger import HANDING_IN, Ledger
from newsfuse.paid.lot import Lot
from newsfuse.paid.order import Order
from newsfuse.paid.seller import Seller
from newsfuse.params import load
from newsfuse.synth import synth

TITLE = "The council votes on the bridge"
TOKENS, TWO_LINES = 8, 16
"""ceil(31 / 4) of the title alone, ceil(63 / 4) of title and the same again as an abstract."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House.build(tmp_path_factory.mktemp("plan") / "a house")


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House.build(tmp_path / "a house")


def noted(text: str, name: str) -> str:
    """The rest of the line that begins with `name:`."""
    (found,) = re.findall(rf"^{name}: +(.*)$", text, re.MULTILINE)
    return str(found)


# --- the table


def test_dev_counts_only_what_train_has_not(house: House) -> None:
    house.fill("train", [("N1", TITLE, ""), ("N2", TITLE, ""), ("N3", TITLE, TITLE), ("N4", "Four", "")])
    house.fill("dev", [("N4", "Four", ""), ("N5", TITLE, ""), ("N6", "Six", "")])
    rows = table(house.newsfuse("plan").text)
    assert rows == {
        "train": ["4", "3", "0", "3", "25", "$0.0000"],  # 8 + 16 + 1
        "dev": ["2", "1", "0", "1", "1", "$0.0000"],  # N5 has the text of N1
        "total": ["6", "4", "0", "4", "26", "$0.0000"],
    }


def test_what_is_in_the_ledger_is_not_to_be_paid_again(house: House) -> None:
    house.fill("train", [("N1", TITLE, ""), ("N2", TITLE, TITLE)])
    house.fill("dev", [("N3", "Three", "")])
    with OpenAIServer() as server:
        house.embed(server)
        assert table(house.newsfuse("plan", OPENAI_BASE_URL=server.url).text)["total"][1:4] == ["3", "3", "0"]
        house.fill("dev", [("N3", "Three", ""), ("N4", "Four", "")])
        rows = table(house.newsfuse("plan", OPENAI_BASE_URL=server.url).text)
    assert rows["train"][1:4] == ["2", "2", "0"]
    assert rows["dev"][1:4] == ["2", "1", "1"]
    assert rows["total"][1:4] == ["4", "3", "1"]


def test_texts_of_an_open_job_are_not_to_be_paid_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(house.root)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    params, registry = load(Path())
    seller, files = Seller.of(params, registry), [house.news("train"), house.news("dev")]
    order = Order.of(News.read(*files), params.embed.texts, seller, files)
    house.ledger.parent.mkdir()
    with Ledger.writing(house.ledger) as ledger:
        ledger.refer(ledger.sent(seller.space, order.lot.keys[:7], 70, status=HANDING_IN, reference="token"), "batch_7")
    outcome = house.newsfuse("plan")
    assert table(outcome.text)["total"][1:4] == ["500", "7", "493"]
    assert noted(outcome.text, "On order").startswith("7 of the texts")


def test_files_that_are_named_take_the_place_of_the_data_set(house: House) -> None:
    house.fill("train", [("N1", TITLE, ""), ("N2", "Two", "")])
    house.fill("dev", [("N1", TITLE, ""), ("N3", "Three", "")])
    both = house.newsfuse("plan", "dev/news.tsv", "train/news.tsv", cwd="data/tiny")
    assert {name: cells[0] for name, cells in table(both.text).items()} == {
        "dev/news.tsv": "2", "train/news.tsv": "1", "total": "3",
    }  # fmt: skip
    one = house.newsfuse("plan", "data/tiny/dev/news.tsv")
    assert {name: cells[0] for name, cells in table(one.text).items()} == {"data/tiny/dev/news.tsv": "2"}
    assert "Next:" not in one.text


def test_the_prices_of_all_models_stand_side_by_side(original: House) -> None:
    outcome = original.newsfuse("plan", "--compare", "--dimensions", "1536")
    assert "500 articles, 1536 dimensions" in outcome.text
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in outcome.text.splitlines() if "│" in line]
    prices = {after[0]: row[1:] for row, after in pairwise(lines) if row[0] == "openai"}
    assert prices == {
        "text-embedding-3-small": ["500", "19,796", "0.02", "$0.0004", "$0.0002"],
        "text-embedding-3-large": ["500", "19,796", "0.13", "$0.0026", "$0.0013"],
        "text-embedding-ada-002": ["500", "19,796", "0.1", "$0.0020", "$0.0010"],
    }
    assert ["lsa", "", "", "", "$0.0000", ""] in lines
    assert ["sentence_transformers", "500", "19,796", "0", "$0.0000", ""] in lines


def test_an_embedder_that_is_broken_does_not_hide_the_others(house: House) -> None:
    (house.root / "plugins/embedders/mine.py").write_text("import nowhere\n", encoding="utf-8")
    outcome = house.newsfuse("plan", "--compare", OPENAI_BASE_URL="http://elsewhere.example")
    assert outcome.code == 0
    assert "lsa" in table(outcome.text)
    assert re.search(r"^mine: plugins/embedders/mine.py: cannot be loaded", outcome.text, re.MULTILINE)
    assert re.search(r"^openai: OPENAI_BASE_URL: 'http://elsewhere.example' would not", outcome.text, re.MULTILINE)


def test_what_is_asked_for_on_the_command_line_is_what_is_planned(original: House) -> None:
    model = ["--provider", "openai", "--model", "text-embedding-3-large", "--dimensions", "3072"]
    outcome = original.newsfuse("plan", *model, "--mode", "batch")
    assert outcome.text.startswith("openai, text-embedding-3-large, 3072 dimensions")
    assert table(outcome.text)["total"][-1] == "$0.0013"  # 19,796 tokens at $0.13 per million, and half of that
    settings = [
        "embed.provider=openai", "embed.model=text-embedding-3-large", "embed.dimensions=3072", "embed.mode=batch",
    ]  # fmt: skip
    assert noted(outcome.text, "Next") == "dvc exp run " + " ".join(f"-S {setting}" for setting in settings)


def test_another_provider_does_not_get_the_model_of_the_first(house: House) -> None:
    house.choose(model="text-embedding-3-large")
    assert house.newsfuse("plan").text.startswith("openai, text-embedding-3-large, 8 dimensions")
    told = house.newsfuse("plan", "--provider", "sentence_transformers").text
    assert told.startswith("sentence_transformers, sentence-transformers/all-MiniLM-L6-v2, 8 dimensions")
    assert noted(told, "Price") == "nothing but time on this machine"


def test_a_free_embedder_is_called_free(house: House) -> None:
    house.choose(provider="lsa")
    outcome = house.newsfuse("plan")
    assert outcome.code == 0
    assert outcome.text.splitlines() == [
        "lsa costs nothing and is made anew where it is needed: nothing to pay, nothing to keep",
        "What others would cost: newsfuse plan --compare",
    ]


# --- the lines below it


def test_price_and_estimator_are_told_with_their_source(original: House) -> None:
    text = original.newsfuse("plan").text
    assert noted(text, "Estimate").startswith("a token is 4 bytes of UTF-8, rounded up for each text")
    where = "https://platform.openai.com/docs/pricing, "
    assert re.fullmatch(rf"\$0.02 per million tokens \({where}.*20\d\d.*\)", noted(text, "Price"))
    assert noted(text, "Ledger") == f"{original.ledger} (not there yet)"
    assert noted(text, "Next") == "dvc repro embed"
    said = original.newsfuse("plan", NEWSFUSE_USD_PER_MILLION_TOKENS="2000", NEWSFUSE_BUDGET_USD="50")
    assert noted(said.text, "Price") == "$2000 per million tokens (NEWSFUSE_USD_PER_MILLION_TOKENS)"
    assert table(said.text)["total"][-1] == "$39.5920"
    assert noted(said.text, "Budget") == "$50 for one run (NEWSFUSE_BUDGET_USD)"


def test_a_budget_that_is_too_small_comes_with_one_that_is_not(house: House) -> None:
    price = {"NEWSFUSE_USD_PER_MILLION_TOKENS": "1000"}
    outcome = house.newsfuse("plan", **price)
    assert outcome.code == 0
    allow = re.search(
        r"too little, nothing would be sent. Allow it: export (NEWSFUSE_BUDGET_USD)=(.+)$", outcome.text, re.MULTILINE
    )
    assert allow
    with OpenAIServer() as server:
        key = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-test", **price}
        assert house.run("stages.embed", **key).code == 5
        assert server.requests == 0
        assert house.run("stages.embed", **key, **{allow.group(1): allow.group(2)}).code == 0


# --- the estimate


@pytest.mark.parametrize("seed", [1, 2])
def test_the_estimate_is_within_15_percent_of_what_is_billed_for_news(house: House, seed: int) -> None:
    synth(house.root / "data/tiny", news=1000, impressions=100, seed=seed)
    with OpenAIServer() as server:
        estimated = int(table(house.newsfuse("plan", OPENAI_BASE_URL=server.url).text)["total"][4].replace(",", ""))
        house.embed(server)
    billed = json.loads((house.root / "metrics/embed.json").read_text(encoding="utf-8"))["tokens"]
    assert 0.85 * billed <= estimated <= 1.15 * billed


@given(st.lists(st.text(min_size=1), min_size=1))
def test_the_estimate_is_above_what_is_billed_by_less_than_a_token_a_text(texts: list[str]) -> None:
    billed, estimated = bill(texts), Lot(texts, [], str).tokens
    assert billed <= estimated <= billed + len(texts)


@given(st.lists(st.text(min_size=28), min_size=1))
def test_the_estimate_is_within_15_percent_of_what_is_billed_for_any_texts_of_a_title_s_length(
    texts: list[str],
) -> None:
    billed = bill(texts)
    assert billed <= Lot(texts, [], str).tokens <= 1.15 * billed


def bill(texts: list[str]) -> int:
    """What the server bills, by its own count."""
    answer = OpenAIServer().answer({"input": texts, "model": "any", "dimensions": 1})
    return int(answer["usage"]["total_tokens"])


# --- what it does not need


def test_a_plan_needs_no_key_writes_nothing_and_sends_nothing(house: House) -> None:
    before = house.files()
    with OpenAIServer() as server:
        for words in ([], ["--compare"], ["--mode", "batch"], ["data/tiny/train/news.tsv"]):
            outcome = house.newsfuse("plan", *words, OPENAI_BASE_URL=server.url)
            assert outcome.code == 0, outcome.text
        assert server.requests == 0
    assert house.files() == before


def test_a_plan_does_not_wait_for_who_is_paying(house: House) -> None:
    house.ledger.parent.mkdir()
    with Ledger.writing(house.ledger) as ledger, FileLock(f"{house.ledger}.lock"), ledger.transaction():
        assert house.newsfuse("plan").code == 0


def test_a_plan_may_be_made_anywhere_in_the_project(original: House) -> None:
    assert original.newsfuse("plan", cwd="data/tiny").text == original.newsfuse("plan").text


# --- mistakes


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--provider", "opnai"], "--provider: no embedder plugin is called 'opnai'. Did you mean 'openai'? Known: "),
        (["--model", "text-embedding-3-smal"], "-3-smal' is not known. Did you mean 'text-embedding-3-small'? Known: "),
        (["--provider", "lsa", "--model", "big"], "--model: 'lsa' has no models to choose from, found 'big'"),
        (["--provider", "lsa", "--mode", "batch"], "--mode: 'lsa' has no mode 'batch'. Known: direct"),
        (["--mode", "bach"], "Invalid value for '--mode'"),
        (["--dimensions", "0"], "Invalid value for '--dimensions'"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_answered_with_the_right_one(original: House, words: list[str], told: str) -> None:
    outcome = original.newsfuse("plan", *words)
    assert outcome.code == 2
    assert told in outcome.text
    assert "Traceback" not in outcome.text


def test_a_wrong_name_in_params_yaml_is_blamed_on_params_yaml(house: House) -> None:
    house.choose(model="text-embedding-3-smal")
    outcome = house.newsfuse("plan")
    assert outcome.code == 2
    assert outcome.text.startswith(
        "ERROR: params.yaml: embed.model: the price of 'text-embedding-3-smal' is not known."
    )


def test_a_missing_file_and_a_missing_project_are_told_in_words(original: House, tmp_path: Path) -> None:
    missing = original.newsfuse("plan", "nowhere.tsv")
    assert (missing.code, missing.text) == (3, "ERROR: nowhere.tsv: cannot be read: No such file or directory\n")
    elsewhere = original.newsfuse("plan", cwd=str(tmp_path))
    assert elsewhere.code == 2
    assert elsewhere.text.startswith(f"ERROR: params.yaml: not found in {tmp_path}; run this in the root of")


def test_a_damaged_ledger_is_told_before_any_number(house: House) -> None:
    house.ledger.parent.mkdir()
    house.ledger.write_bytes(b"no ledger")
    outcome = house.newsfuse("plan")
    assert outcome.code == 7
    assert "is no ledger of newsfuse" in outcome.text
    assert house.ledger.read_bytes() == b"no ledger"


def test_a_model_without_a_price_is_planned_once_the_price_is_said(original: House) -> None:
    said = original.newsfuse("plan", "--model", "mine", NEWSFUSE_USD_PER_MILLION_TOKENS="1")
    assert said.code == 0
    assert table(said.text)["total"][-1] == "$0.0198"
    assert Environment.read({}).budget_usd == 1
    assert noted(said.text, "Budget") == "$1 for one run (NEWSFUSE_BUDGET_USD)"


def test_comparing_does_not_go_with_a_choice(house: House) -> None:
    outcome = house.newsfuse("plan", "--compare", "--model", "x", "--mode", "batch")
    assert outcome.code == 2
    assert "ERROR: --compare shows all of them; it does not go with --mode, --model" in outcome.text
