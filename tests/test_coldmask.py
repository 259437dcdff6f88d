"""The cold mask: which articles are hidden, and from what."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import behave, plugins, world

from newsfuse import Inputs, Need
from newsfuse.assembly import Architecture
from newsfuse.coldmask import ColdMask
from newsfuse.inputs import Neighbours
from newsfuse.ranking import ranking
from newsfuse.recommender import Recommender
from newsfuse.scoring import score

EVERYTHING = frozenset(Need)
masks = st.tuples(
    st.lists(st.integers(-1, 19), min_size=1, max_size=60),
    st.lists(st.booleans(), min_size=20, max_size=20),
    st.floats(0, 1),
)


@given(masks)
def test_as_many_candidates_are_new_as_asked_for(drawn: tuple[list[int], list[bool], float]) -> None:
    candidates, seen, share = np.array(drawn[0]), np.array(drawn[1]), drawn[2]
    mask = ColdMask.draw(candidates, seen, share, seed=0)
    shown = np.unique(candidates[candidates >= 0])
    assert (seen & np.isin(np.arange(20), shown))[mask.hidden].all()  # nothing else is hidden
    new = (~seen | mask.hidden)[shown]
    wanted = max(round(share * len(shown)), int((~seen[shown]).sum()))
    assert new.sum() == wanted
    assert mask.share == (wanted / len(shown) if len(shown) else 0)


def test_another_seed_hides_other_articles() -> None:
    candidates, seen = np.arange(40), np.ones(40, dtype=bool)
    once, again, other = (ColdMask.draw(candidates, seen, 0.5, seed).hidden.tolist() for seed in (1, 1, 2))
    assert once == again != other


def test_how_often_and_in_what_order_an_article_is_shown_does_not_matter() -> None:
    seen = np.ones(20, dtype=bool)
    once = ColdMask.draw(np.arange(20), seen, 0.5, 0)
    again = ColdMask.draw(np.repeat(np.arange(20)[::-1], 3), seen, 0.5, 0)
    assert once.hidden.tolist() == again.hidden.tolist()


def of_the_world(*rows: int) -> tuple[Inputs, ColdMask]:
    inputs = world().later
    return inputs, ColdMask(np.isin(np.arange(inputs.n_articles), rows), 0.5)


def test_hidden_articles_are_unknown_by_name_and_others_as_before() -> None:
    inputs, mask = of_the_world(0, 4)
    rows = mask.applied(inputs).seen.rows
    assert (rows[mask.hidden] == 0).all()
    assert (rows == inputs.seen.rows)[~mask.hidden].all()
    assert (inputs.seen.rows[mask.hidden] > 0).all()  # what was read stays as it is
    assert mask.applied(inputs).seen.size == inputs.seen.size


def edges(neighbours: Neighbours) -> set[tuple[int, int]]:
    counts = torch.diff(neighbours.offsets)
    hears = torch.repeat_interleave(torch.arange(len(counts)), counts)
    return set(zip(hears.tolist(), neighbours.sources.tolist(), strict=True))


def test_nobody_clicked_a_hidden_article_and_its_other_links_stay() -> None:
    inputs, mask = of_the_world(0, 4)
    before, after = inputs.graph, mask.applied(inputs).graph
    clicked = edges(before.relations["co_click"])
    gone = {edge for edge in clicked if {0, 4} & set(edge)}
    assert edges(after.relations["co_click"]) == clicked - gone
    assert gone
    assert clicked - gone
    others = before.relations.keys() - {"co_click"}
    assert all(after.relations[name] is before.relations[name] for name in others)


def test_a_mask_tells_for_models_that_know_articles_by_name_or_by_clicks() -> None:
    inputs, mask = of_the_world(0)
    assert mask.tells(inputs, frozenset({Need.SEEN, Need.EMBEDDINGS}))
    assert mask.tells(inputs, frozenset({Need.GRAPH}))
    assert not mask.tells(inputs, frozenset({Need.EMBEDDINGS, Need.CATEGORIES}))
    assert not of_the_world()[1].tells(inputs, EVERYTHING)
    linked = {name: each for name, each in inputs.graph.relations.items() if name != "co_click"}
    without = replace(inputs, tables={**inputs.tables, Need.GRAPH: replace(inputs.graph, relations=linked)})
    assert not mask.tells(without, frozenset({Need.GRAPH}))


def model(inputs: Inputs, *encoders: str) -> Recommender:
    torch.manual_seed(0)
    return Architecture(encoders, "mean", "mean", 16, 0.0, 5, {}).build(plugins(), inputs)


@pytest.fixture(scope="module")
def by_name() -> Recommender:
    """Of the early articles some are liked by everybody, which the model knows by their names alone."""
    made = model(world().train, "id")
    with torch.no_grad():
        dict(made.named_parameters())["encoders.id.vectors.weight"][:] = torch.eye(2, 16)[torch.arange(12) % 2]
        made.everyone[:] = torch.eye(16)[1]
    return made


def test_a_model_that_knows_articles_by_name_alone_ranks_by_chance_under_the_mask(by_name: Recommender) -> None:
    liked = (world().later.seen.rows % 2).numpy()
    seen = (world().later.seen.rows > 0).numpy()
    rows = np.flatnonzero(seen)
    shown = [(int(row), int(liked[row])) for row in rows]
    behaviors = behave(([], shown))
    aucs = []
    for share in (0.0, 1.0):
        mask = ColdMask.draw(behaviors.candidate_news, seen, share, 0)
        masked = model(mask.applied(world().later), "id")
        masked.load_state_dict(by_name.state_dict())
        found = score(masked, behaviors, 5).candidates
        aucs += ranking(found, behaviors.labels, behaviors.candidate_offsets).auc.tolist()
    assert aucs == [1, 0.5]


def test_a_model_without_names_and_clicks_scores_the_same_under_the_mask() -> None:
    inputs, mask = of_the_world(0, 1, 4, 5)
    behaviors = behave(([0, 4], [(1, 1), (5, 0), (3, 0)]))
    encoders = ("category", "llm")
    weights = model(inputs, *encoders).state_dict()
    found = []
    for tables in (inputs, mask.applied(inputs)):
        made = model(tables, *encoders)
        made.load_state_dict(weights)
        found.append(score(made, behaviors, 5).candidates.tolist())
    assert found[0] == found[1]
