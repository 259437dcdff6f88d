"""The cold mask: some of the articles that training saw are scored as if it had not."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from newsfuse.csr import offsets, owners
from newsfuse.inputs import Graph, Inputs, Neighbours
from newsfuse.plugin import Need

CO_CLICK = "co_click"
"""The relation of the graph that an article has because somebody clicked it."""


@dataclass(frozen=True)
class ColdMask:
    """Which articles to hide, so that a larger share of dev's candidates is new to the model.

    Of the distinct candidate articles of MIND's dev 32 % are new, of those of its test 87.5 %: what a model
    owes to articles that it knows by name counts for less there than on dev.
    """

    hidden: np.ndarray
    """bool (N,): by article row."""
    share: float
    """Of the distinct candidate articles, how many are new to the model, those that are hidden among them."""

    @classmethod
    def draw(cls, candidates: np.ndarray, seen: np.ndarray, share: float, seed: int) -> "ColdMask":
        """Seen candidate articles, drawn at random, as many as it takes for `share` of the distinct ones to be new.

        `candidates`: int (candidates,), rows of articles, -1 (unknown) for none; `seen`: bool (N,), whether training
        saw the article. Nothing is hidden where the share is that large already.
        """
        shown = np.unique(candidates[candidates >= 0])
        known = shown[seen[shown]]
        new = len(shown) - len(known)
        more = max(0, round(share * len(shown)) - new)
        hidden = np.zeros(len(seen), dtype=bool)
        hidden[np.random.default_rng(seed).permutation(known)[:more]] = True
        return cls(hidden, (new + more) / max(1, len(shown)))

    def tells(self, inputs: Inputs, needs: frozenset[Need]) -> bool:
        """Whether a model whose encoders have these needs may score otherwise under the mask."""
        by_name = Need.SEEN in needs
        by_clicks = Need.GRAPH in needs and CO_CLICK in inputs.graph.relations
        return bool(self.hidden.any()) and (by_name or by_clicks)

    def applied(self, inputs: Inputs) -> Inputs:
        """The same tables, but that the hidden articles are unknown by name and nobody clicked them."""
        hidden, seen = torch.from_numpy(self.hidden), inputs.seen
        tables: dict[Need, object] = dict(inputs.tables)
        tables[Need.SEEN] = replace(seen, rows=seen.rows.masked_fill(hidden, 0))
        if Need.GRAPH in tables:
            tables[Need.GRAPH] = _unclicked(inputs.graph, self.hidden)
        return replace(inputs, tables=tables)


def _unclicked(graph: Graph, hidden: np.ndarray) -> Graph:
    """The graph without the co-clicks of the hidden articles (N,)."""
    relations = graph.relations.items()
    kept = {name: _without(each, hidden) if name == CO_CLICK else each for name, each in relations}
    return replace(graph, relations=kept)


def _without(neighbours: Neighbours, hidden: np.ndarray) -> Neighbours:
    ends, sources = neighbours.offsets.numpy(), neighbours.sources.numpy()
    gone = np.zeros(len(ends) - 1, dtype=bool)
    gone[: len(hidden)] = hidden  # articles are the first nodes
    owner = owners(ends)
    kept = ~gone[owner] & ~gone[sources]
    counts = np.bincount(owner[kept], minlength=len(gone))
    return Neighbours(torch.from_numpy(offsets(counts)), torch.from_numpy(sources[kept]))
