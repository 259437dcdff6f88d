"""Encoder "gnn": an article's place in the news graph, by GraphSAGE with mean aggregation.

Hamilton, Ying, Leskovec 2017, "Inductive Representation Learning on Large Graphs", algorithm 1 with the
mean aggregator of section 3.3 (https://arxiv.org/abs/1706.02216). How we differ: neighbours are averaged per relation
and every relation has weights of its own (as in Schlichtkrull et al. 2018); the vectors are not normalised after
each layer, since the model normalises every view.

Entities start from their vectors, categories from random ones, and all articles from one and the same: what
tells articles apart is whom they are linked to. So a new article needs no training, only its links.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from newsfuse import Encoder, Graph, Inputs, Need, Neighbours, Options, Vocabulary, hookimpl
from newsfuse.chance import drawn_by, fraction
from newsfuse.errors import PluginError

Backend = Literal["auto", "dgl", "torch"]
Mean = Callable[[Tensor, Tensor, Tensor], Tensor]
"""values (S, D), offsets (T + 1,), sources (E,) -> (T, D): see `torch_mean`."""

log = logging.getLogger(__name__)


class GnnOptions(Options):
    """`options.gnn` of params.yaml."""

    layers: int = Field(default=2, ge=1, le=3)
    """How many steps away an article still hears: 2 reaches articles that share an entity."""
    fanout: int = Field(default=10, ge=1)
    """At most so many neighbours per node and relation are drawn for a training step; evaluation takes all."""
    width: int | None = Field(default=None, ge=1)
    """Values of a node inside the graph, at most model.dim, which it is unless set: the work grows with its square."""
    backend: Backend = "auto"
    """What averages neighbours: DGL where it is installed and supports the device, else torch. Same numbers."""


@hookimpl
def newsfuse_encoders() -> Iterable[Encoder]:
    """Offer "gnn"."""
    return [Encoder("gnn", build, GnnOptions, frozenset({Need.GRAPH}), prior=0.5)]


def build(inputs: Inputs, dim: int, options: GnnOptions) -> nn.Module:
    """Make the encoder. Raises PluginError if `options.backend` is dgl and there is none."""
    width = min(dim, options.width or dim)
    return Gnn(inputs.graph, dim, options.layers, width=width, fanout=options.fanout, backend=options.backend)


@dataclass(frozen=True)
class Block:
    """One layer's work: S sources send messages to T targets, which are among the sources."""

    sources: Tensor
    """int64 (S,): sorted node numbers."""
    targets: Tensor
    """int64 (T,): sorted node numbers."""
    own: Tensor
    """int64 (T,): where among the sources each target is."""
    spans: dict[str, slice]
    """Where among the targets the nodes of each kind are."""
    senders: dict[str, slice]
    """Where among the sources."""
    edges: dict[str, tuple[Tensor, Tensor]]
    """By relation (offsets, places): the i-th target of the kind that hears hears the sources of the kind that sends
    at `places[offsets[i]:offsets[i + 1]]`, counted among these."""


class Gnn(nn.Module):
    """GraphSAGE over the news graph.

    Training draws at most `fanout` neighbours per node and relation and computes only the nodes that the
    batch can hear. Evaluation takes all neighbours. It, too, computes each node once per call, but two steps
    from an article lies most of the graph: ask for all articles in one call rather than in many small ones.
    The graph is no part of the state dict, so weights load into a Gnn over another graph.
    """

    def __init__(
        self,
        graph: Graph,
        dim: int,
        layers: int = 2,
        *,
        width: int | None = None,
        fanout: int = 10,
        backend: Backend = "auto",
    ) -> None:
        """`graph` gives the nodes, their links and, by its vocabularies, the shapes of the weights.

        Inside the graph a node has `width` values, all `dim` of them unless said otherwise; the others are zero in the
        end, which changes no angle.
        """
        super().__init__()
        width = width or dim
        self.zeros = dim - width
        if backend == "dgl":
            require_dgl()
        self.fanout, self.backend = fanout, backend
        self.links = nn.ModuleDict({name: Links(neighbours) for name, neighbours in graph.relations.items()})
        self.heard = _relations_heard(list(graph.relations), layers)
        self.inputs = Inlet(graph, width, _kinds_heard(self.heard[0]))
        self.layers = nn.ModuleList(SageLayer(width, relations) for relations in self.heard)

    @torch.no_grad()
    def start(self) -> None:
        """Begin with the mean article at zero: what all have in common would make all look alike.

        On the shipped data untrained cosines then rank dev .65 instead of .62 (AUC, three seeds).
        """
        last = cast("SageLayer", self.layers[-1])
        articles = torch.arange(self.inputs.n_articles, device=last.own.bias.device)
        last.own.bias.sub_(self.eval()(articles).mean(dim=0)[: len(last.own.bias)])
        self.train()

    def forward(self, news: Tensor) -> Tensor:
        """int64 (M,) -> (M, D)."""
        blocks = self.blocks(news)
        mean = mean_for(self.backend, news.device.type)
        values: Tensor = self.inputs(blocks[0].sources)
        for depth, (layer, block) in enumerate(zip(self.layers, blocks, strict=True), 1):
            values = layer(values, block, mean)
            values = values if depth == len(blocks) else functional.relu(values)
        return functional.pad(values[torch.searchsorted(blocks[-1].targets, news)], (0, self.zeros))

    def blocks(self, news: Tensor) -> list[Block]:
        """What each layer has to compute for `news`, first layer first."""
        blocks: list[Block] = []
        wanted = self._distinct([news])
        for depth in reversed(range(len(self.heard))):
            blocks.insert(0, self._block(wanted, self.heard[depth], alike=depth == 0))
            wanted = blocks[0].sources
        return blocks

    def _block(self, targets: Tensor, relations: Sequence[str], *, alike: bool) -> Block:
        """`alike`: before the first layer all articles are the same, so one stands for all, and one neighbour says all.

        In training on a graph of MIND-small's size this leaves a seventh of the sources.
        """
        spans = self.inputs.spans(targets)
        drawn = {name: self._drawn(name, targets[spans[_ends(name)[1]]], alike=alike) for name in relations}
        own = self._one_article(targets) if alike else targets
        sources = self._distinct([own, *(nodes for _, nodes in drawn.values())])
        senders = self.inputs.spans(sources)
        edges = {
            name: (offsets, torch.searchsorted(sources[senders[_ends(name)[0]]], nodes))
            for name, (offsets, nodes) in drawn.items()
        }
        return Block(sources, targets, torch.searchsorted(sources, own), spans, senders, edges)

    def _distinct(self, nodes: list[Tensor]) -> Tensor:
        # marking beats sorting: there are far more edges than nodes
        marked = torch.zeros(self.inputs.n_nodes, dtype=torch.bool, device=nodes[0].device)
        marked[torch.cat(nodes)] = True
        return marked.nonzero().squeeze(1)

    def _drawn(self, relation: str, nodes: Tensor, *, alike: bool) -> tuple[Tensor, Tensor]:
        links = cast("Links", self.links[relation])
        if alike and _ends(relation)[0] == "article":
            offsets, sources = links.draw(nodes, 1)
            return offsets, self._one_article(sources)
        return links.draw(nodes, self.fanout if self.training else None)

    def _one_article(self, nodes: Tensor) -> Tensor:
        """The same nodes, but article 0 for every article."""
        return torch.where(nodes < self.inputs.n_articles, 0, nodes)


class SageLayer(nn.Module):
    """h'_v = W h_v + b + sum over relations r of W_r mean(h_u for the neighbours u of v in r)."""

    def __init__(self, dim: int, relations: Sequence[str]) -> None:
        """Only the relations that something later listens to have weights."""
        super().__init__()
        self.relations = tuple(relations)
        self.own = nn.Linear(dim, dim)
        self.heard = nn.ModuleDict({name: nn.Linear(dim, dim, bias=False) for name in relations})
        self._start_as_mean()

    @torch.no_grad()
    def _start_as_mean(self) -> None:
        """Begin as the sum of what a node is and hears, so that untrained articles with like neighbours are alike."""
        nn.init.zeros_(self.own.bias)
        for linear in (self.own, *self.heard.values()):
            nn.init.eye_(cast("nn.Linear", linear).weight)

    def forward(self, values: Tensor, block: Block, mean: Mean) -> Tensor:
        """(S, D) -> (T, D)."""
        # the first layer has fewer sources than targets
        if len(values) < len(block.own):
            own = self.own(values).index_select(0, block.own)
        else:
            own = self.own(values.index_select(0, block.own))
        kinds, senders = _by_kind(own, block.spans), _by_kind(values, block.senders)
        for name in self.relations:
            source, kind = _ends(name)
            kinds[kind] = kinds[kind] + self._hear(name, senders[source], block.edges[name], mean)
        return torch.cat(list(kinds.values()))

    def _hear(self, relation: str, values: Tensor, edges: tuple[Tensor, Tensor], mean: Mean) -> Tensor:
        """Values of the kind that sends -> what each node of the kind that hears makes of them."""
        weights, hearers = self.heard[relation], len(edges[0]) - 1
        # a mean of products is the product of the mean: the matrix goes where there are fewer rows, such as categories
        heard: Tensor = mean(weights(values), *edges) if len(values) < hearers else weights(mean(values, *edges))
        return heard


class Inlet(nn.Module):
    """The vectors that nodes have before the first layer."""

    def __init__(self, graph: Graph, dim: int, kinds: frozenset[str]) -> None:
        """Only `kinds` of nodes get parameters: nobody hears the others."""
        super().__init__()
        self.n_articles, self.n_nodes = graph.n_articles, graph.n_nodes
        self.n_linked = graph.n_articles + len(graph.entities.rows)
        # short beside what it hears, which says more; not zero, or the weights that pass it on would not learn at first
        self.article = nn.Parameter(0.1 * torch.randn(dim) * dim**-0.5)
        self.entity = EntityVectors(graph.entities, graph.entity_vectors, dim) if "entity" in kinds else None
        self.category = RowVectors(graph.categories, dim) if "category" in kinds else None

    def spans(self, nodes: Tensor) -> dict[str, slice]:
        """Where the nodes of each kind are in the sorted `nodes`."""
        firsts = torch.tensor([self.n_articles, self.n_linked], device=nodes.device)
        entities, categories = torch.searchsorted(nodes, firsts).tolist()
        return {
            "article": slice(0, entities),
            "entity": slice(entities, categories),
            "category": slice(categories, len(nodes)),
        }

    def forward(self, nodes: Tensor) -> Tensor:
        """int64 (S,), sorted -> (S, D)."""
        spans = self.spans(nodes)
        articles = spans["article"]
        parts = [self.article.expand(articles.stop - articles.start, -1)]
        if self.entity is not None:
            parts.append(self.entity(nodes[spans["entity"]] - self.n_articles))
        if self.category is not None:
            parts.append(self.category(nodes[spans["category"]] - self.n_linked))
        return torch.cat(parts)


class RowVectors(nn.Module):
    """One learned vector per known value; the unknown ones share row 0."""

    rows: Tensor

    def __init__(self, vocabulary: Vocabulary, dim: int) -> None:
        """Rows start small, about as long as an entity's vector; row 0 starts at zero, which says nothing."""
        super().__init__()
        self.register_buffer("rows", vocabulary.rows, persistent=False)
        self.table = nn.Embedding(vocabulary.size, dim)
        nn.init.normal_(self.table.weight, std=dim**-0.5)
        with torch.no_grad():
            self.table.weight[0] = 0

    def forward(self, items: Tensor) -> Tensor:
        """int64 (n,) -> (n, D)."""
        values: Tensor = self.table(self.rows[items])
        return values


class EntityVectors(RowVectors):
    """The projected vector of an entity plus what training adds to it."""

    vectors: Tensor

    def __init__(self, vocabulary: Vocabulary, vectors: Tensor, dim: int) -> None:
        """What training adds starts at zero for an entity with a vector (W floats, not all zero)."""
        super().__init__(vocabulary, dim)
        self.register_buffer("vectors", vectors, persistent=False)
        with torch.no_grad():
            self.table.weight[vocabulary.rows[vectors.any(dim=1)]] = 0
        self.projection = nn.Linear(vectors.shape[1], dim, bias=False) if vectors.shape[1] else None
        if self.projection is not None:
            # keeps the angles between the vectors, as far as `dim` allows
            nn.init.orthogonal_(self.projection.weight)

    def forward(self, items: Tensor) -> Tensor:
        """int64 (n,) -> (n, D)."""
        learned = super().forward(items)
        return learned if self.projection is None else learned + self.projection(self.vectors[items])


class Links(nn.Module):
    """Who hears whom in one relation, on the device of the model."""

    offsets: Tensor
    sources: Tensor

    def __init__(self, neighbours: Neighbours) -> None:
        """Holds the arrays of `neighbours`."""
        super().__init__()
        self.key: int | None = None
        self.register_buffer("offsets", neighbours.offsets, persistent=False)
        self.register_buffer("sources", neighbours.sources, persistent=False)

    def redraw(self, key: int) -> None:
        """Let every node hear other neighbours from now on, the same in every batch that it is in."""
        self.key = key

    def draw(self, nodes: Tensor, fanout: int | None) -> tuple[Tensor, Tensor]:
        """Neighbours of `nodes` (n,), all or about `fanout` of them: offsets (n + 1,), node numbers.

        A node with more than `fanout` neighbours has its list cut into `fanout` equal stretches and hears one node
        of each, drawn evenly: no neighbour is favoured, and the work does not grow with the list
        (a category has thousands). A neighbour on a cut is now and then drawn twice.
        """
        starts, degrees = self.offsets[nodes], self.offsets[nodes + 1] - self.offsets[nodes]
        counts = degrees if fanout is None else degrees.clamp(max=fanout)
        offsets = functional.pad(counts.cumsum(0), (1, 0))
        hearer = torch.repeat_interleave(counts)
        nth = torch.arange(len(hearer), device=nodes.device) - offsets[hearer]
        if fanout is not None:
            nth = self._stretched(nth, nodes[hearer], degrees[hearer], fanout)
        return offsets, self.sources[starts[hearer] + nth]

    def _stretched(self, nth: Tensor, hearers: Tensor, degrees: Tensor, fanout: int) -> Tensor:
        where = fraction(drawn_by(self.key), hearers * fanout + nth)
        drawn = ((nth + where) * (degrees / fanout)).long()
        return torch.where(degrees > fanout, torch.minimum(drawn, degrees - 1), nth)


def _by_kind(values: Tensor, spans: dict[str, slice]) -> dict[str, Tensor]:
    # one split: the gradient of each slice by itself would be a tensor of zeros as large as the whole
    parts = values.split([span.stop - span.start for span in spans.values()])
    return dict(zip(spans, parts, strict=True))


def _ends(relation: str) -> tuple[str, str]:
    """Kinds of source and target: "entity>article" says both, a relation without ">" is between articles."""
    source, _, target = relation.partition(">")
    return (source, target) if target else ("article", "article")


def _relations_heard(relations: Sequence[str], layers: int) -> list[list[str]]:
    """For each layer, first to last, the relations whose messages can still reach an article."""
    heard: list[list[str]] = []
    listening = frozenset({"article"})
    for _ in range(layers):
        heard.insert(0, [name for name in sorted(relations) if _ends(name)[1] in listening])
        listening = _kinds_heard(heard[0])
    return heard


def _kinds_heard(relations: Sequence[str]) -> frozenset[str]:
    return frozenset({"article"} | {_ends(name)[0] for name in relations})


def torch_mean(values: Tensor, offsets: Tensor, sources: Tensor) -> Tensor:
    """(S, D) -> (T, D): the i-th row is the mean of `values[sources[offsets[i]:offsets[i + 1]]]`, zeros for none."""
    # a bag of embeddings is exactly a set of neighbours, and needs no (E, D) table of messages
    return functional.embedding_bag(sources, values, offsets, mode="mean", include_last_offset=True)


def dgl_mean(values: Tensor, offsets: Tensor, sources: Tensor) -> Tensor:
    """Message passing by DGL: the same as `torch_mean`."""
    dgl = require_dgl()
    edges = ("csc", (offsets, sources, sources.new_empty(0)))
    block = dgl.create_block(edges, num_src_nodes=len(values), num_dst_nodes=len(offsets) - 1)
    block.srcdata["value"] = values
    block.update_all(dgl.function.copy_u("value", "message"), dgl.function.mean("message", "mean"))
    mean: Tensor = block.dstdata["mean"]
    return mean


@cache
def mean_for(backend: Backend, device: str) -> Mean:
    """Choose what averages neighbours on this type of device. Raises PluginError if DGL is asked for and cannot."""
    if backend == "torch":
        return torch_mean
    try:
        _try_dgl(device)
    except PluginError as error:
        if backend == "dgl":
            raise
        log.info("gnn: neighbours are averaged by torch: %s", error)
        return torch_mean
    return dgl_mean


def require_dgl() -> Any:  # noqa: ANN401 dgl has no type hints
    """The module dgl. Raises PluginError where it is missing or does not load."""
    # without this, importing dgl writes a file into the home folder
    os.environ.setdefault("DGLBACKEND", "pytorch")
    try:
        dgl = import_module("dgl")
    except (ImportError, OSError, AttributeError, RuntimeError) as error:
        message = (
            f"plugin gnn: dgl cannot be imported ({error}). Install it (pip install dgl==1.1.3 packaging, for Python "
            "3.11 and older), or set options.gnn.backend to auto or torch"
        )
        raise PluginError(message) from error
    # dgl's kernel for Intel's libxsmm writes past its blocks where few nodes hear many, and the process dies of it
    dgl.use_libxsmm(flag=False)
    return dgl


def _try_dgl(device: str) -> None:
    dgl = require_dgl()
    try:
        dgl.graph(([0], [0])).to(torch.device(device))
    except Exception as error:  # dgl raises an error class of its own, and torch others
        message = (
            f"plugin gnn: this dgl does not support the device '{device}' ({error}). "
            "Set options.gnn.backend to auto or torch"
        )
        raise PluginError(message) from error
