"""An article is the sum of its sub-words, and what training never read says nothing."""

import pytest
import torch
from newsfuse_headline import BagOptions, newsfuse_encoders
from newsfuse_headline.bag import Bag
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from newsfuse import Inputs, Need, Texts

DIM = 8
TITLES = (
    "storm hits the coast", "storm warning on the coast", "coast braces for a storm",
    "cup final ends in a draw", "a draw in the cup", "cup winners after the final",
)  # fmt: skip


def bag(titles: tuple[str, ...] = TITLES, abstracts: tuple[str, ...] | None = None, name: str = "headline") -> Bag:
    """An untrained encoder of these articles, before its start."""
    torch.manual_seed(0)
    (plugin,) = (each for each in newsfuse_encoders() if each.name == name)
    inputs = Inputs(len(titles), {Need.TEXTS: Texts(titles, abstracts or titles)})
    module = plugin.build(inputs, DIM, BagOptions())
    assert isinstance(module, Bag)
    return module


def started(titles: tuple[str, ...] = TITLES) -> Bag:
    module = bag(titles)
    module.start()
    return module.eval()


def later(before: Bag, *titles: str) -> Tensor:
    """The vectors of other articles by the same weights."""
    module = bag(titles)
    module.load_state_dict(before.state_dict())
    return module.eval()(torch.arange(len(titles)))


def test_headline_reads_titles_and_abstract_reads_abstracts() -> None:
    news = torch.arange(2)
    headline, abstract = (
        bag(("rain", "rain"), ("snow", "hail"), name).eval()(news) for name in ("headline", "abstract")
    )
    assert torch.equal(headline[0], headline[1])
    assert not torch.equal(abstract[0], abstract[1])


def test_untrained_articles_about_the_same_are_alike() -> None:
    vectors = F.normalize(started()(torch.arange(6)), dim=1)
    cosines = vectors @ vectors.T
    assert cosines[:3, 3:].max() < cosines[:3, :3].min()
    assert cosines[:3, 3:].max() < cosines[3:, 3:].min()


def test_texts_begin_with_a_length_of_about_one() -> None:
    lengths = started()(torch.arange(6)).norm(dim=1)
    assert lengths.mean().item() == pytest.approx(1, abs=1e-4)


def test_a_word_that_training_never_read_adds_nothing() -> None:
    known, more, unknown = later(started(), "storm", "storm 東京", "東京")
    torch.testing.assert_close(known, more)
    assert not unknown.any()


def test_a_new_word_is_understood_by_the_sub_words_it_shares() -> None:
    storm, stormy, cup = F.normalize(later(started(), "storm", "stormy", "cup"), dim=1)
    assert storm @ stormy > 0.5 > storm @ cup


def test_the_order_of_words_does_not_matter() -> None:
    one, other = later(started(), "storm on the coast", "coast the on storm")
    torch.testing.assert_close(one, other)


def test_an_article_without_text_is_zero() -> None:
    module = started(("rain", "", "snow"))
    vectors = module(torch.arange(3))
    assert vectors.isfinite().all()
    assert not vectors[1].any()


@pytest.mark.parametrize("titles", [("",), ("", "?"), ("rain",), ("rain", "rain")])
def test_it_can_start_from_very_little(titles: tuple[str, ...]) -> None:
    assert started(titles)(torch.arange(len(titles))).isfinite().all()


def test_the_start_is_the_same_each_time() -> None:
    assert torch.equal(started().table, started().table)


def test_training_leaves_words_out() -> None:
    module, news = started().train(), torch.arange(6)
    assert not torch.equal(module(news), module(news))


def test_training_reaches_only_the_rows_of_the_sub_words_that_it_reads() -> None:
    module = started()
    module(torch.arange(3)).sum().backward()
    gradient = module.table.grad
    assert gradient is not None
    with torch.no_grad():
        module.table.sub_(gradient)
    assert gradient.any()
    assert not later(module, "東京").any()
