"""The embedder "lsa": the same vectors everywhere, made from the training articles alone."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machine import machines
from small import ROOT, plugins

from newsfuse.plugin import Embedder

LSA = plugins().load(Embedder, "lsa")
FIRST, SECOND = ("ba", "do", "ki", "mu", "ze", "po", "ri", "xu"), ("la", "no", "ri", "su", "te", "vo", "zi", "ka")
WORDS = ["".join(syllables) for syllables in product(FIRST, SECOND, SECOND)]


def texts(n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=12)) for _ in range(n)]


def embed(corpus: list[str], asked: list[str], dimensions: int = 8, **options: int) -> np.ndarray:
    fitted: Any = LSA.build(corpus, None, dimensions, LSA.params.model_validate(options))
    return np.asarray(fitted(asked))


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


# so many texts that BLAS shares them out among threads
PROGRAM = """
import hashlib, json, sys
sys.path.insert(0, "tests")
from test_lsa import embed, texts
from threadpoolctl import threadpool_info
vectors = embed(texts(1500, 0), texts(100, 1), dimensions=64)
blas = [(pool["architecture"], pool["num_threads"]) for pool in threadpool_info() if pool["internal_api"] == "openblas"]
print(json.dumps([hashlib.sha256(vectors.tobytes()).hexdigest(), blas]))
"""


def test_vectors_are_the_same_bytes_on_any_processor_with_any_number_of_threads_in_any_process() -> None:
    digests: set[str] = set()
    kernels: set[tuple[str, int]] = set()
    for hash_seed, settings in enumerate(machines().values()):
        environment = {**os.environ, **settings, "PYTHONHASHSEED": str(hash_seed)}
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
        done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
        digest, blas = json.loads(done.stdout)
        digests.add(digest)
        kernels.update((name, number) for name, number in blas)
    assert len(digests) == 1
    # what plays another machine has come through to the library
    assert len(kernels) >= len(machines()) - 1, kernels


def test_the_fit_is_to_the_corpus_alone() -> None:
    """What else is asked for, as dev's articles are, changes no vector of train's."""
    corpus = texts(50, 0)
    alone, beside = embed(corpus, corpus), embed(corpus, [*corpus, *texts(50, 1), "words of tomorrow"])
    assert beside[: len(corpus)].tobytes() == alone.tobytes()


def test_another_corpus_gives_other_vectors() -> None:
    asked = texts(5, 2)
    assert not np.allclose(embed(texts(50, 0), asked), embed(texts(50, 1), asked))


def test_texts_on_one_thing_are_alike() -> None:
    """Also where they have no word in common: what they share is a word of a third text."""
    corpus = ["ship harbour", "harbour storm", "ship storm", "bread milk", "milk price", "bread price"] * 3
    ship, storm, milk = embed(corpus, ["ship", "storm", "milk"], dimensions=2, ngrams=1, characters=0)
    assert cosine(ship, storm) > 0.99
    assert abs(cosine(ship, milk)) < 0.01


def test_a_text_without_a_known_word_is_zeros() -> None:
    vectors = embed(texts(50, 0), ["unheard of", texts(1, 0)[0]])
    assert not vectors[0].any()
    assert vectors[1].any()


def test_columns_past_the_rank_of_the_corpus_are_zero() -> None:
    vectors = embed(["ba la", "do no", "ba do"], ["ba", "do"], dimensions=50)
    assert vectors.shape == (2, 50)
    assert vectors.dtype == np.float32
    assert not vectors[:, 3:].any()


def test_rare_terms_are_left_out() -> None:
    corpus = ["bala dono", "bala dono kiri", "bala musu dono"]
    assert not embed(corpus, ["kiri"], min_articles=2).any()
    assert embed(corpus, ["kiri"], min_articles=1).any()


def test_runs_of_words_are_terms() -> None:
    corpus = ["bala dono", "dono bala", "kiri musu"] * 5
    one, other = embed(corpus, corpus[:2], ngrams=1)
    np.testing.assert_allclose(one, other, atol=1e-6)
    one, other = embed(corpus, corpus[:2], ngrams=2)
    assert not np.allclose(one, other, atol=1e-3)


def test_words_with_parts_in_common_are_alike() -> None:
    """As forms of one word are, and compounds; without parts of words they have nothing in common."""
    corpus = ["harbour", "harbours", "bread", "breads", "storm", "storms"] * 3
    asked = ["harbours", "harbour", "storm"]
    harbours, harbour, storm = embed(corpus, asked, dimensions=3, ngrams=1)
    assert cosine(harbours, harbour) > 0.99
    assert abs(cosine(harbours, storm)) < 0.01
    harbours, harbour, _ = embed(corpus, asked, dimensions=6, ngrams=1, characters=0)
    assert abs(cosine(harbours, harbour)) < 0.01


def test_words_that_one_article_in_ten_has_are_left_out() -> None:
    """But only of more than a hundred articles."""
    for articles, known in ((2000, False), (500, True)):
        corpus = [text + " kizeka" * (number % 10 == 0) for number, text in enumerate(texts(articles, 0))]
        assert embed(corpus, ["kizeka"], characters=0).any() == known


@pytest.mark.parametrize("options", [{"ngrams": 0}, {"ngrams": 4}, {"characters": 9}, {"min_articles": 0}])
def test_settings_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"(greater|less) than or equal"):
        LSA.params.model_validate(options)


def test_loading_the_plugin_does_not_load_scikit_learn() -> None:
    """Every stage checks the settings of the embedder, and only embed uses it."""
    program = (
        "import sys; from pathlib import Path; from newsfuse import Embedder; from newsfuse.registry import Registry;"
        "Registry(Path('plugins'), {}).load(Embedder, 'lsa'); print('sklearn' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=Path(ROOT), check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "False"
