"""The meaning of an article's text: the embed stage's vectors, to which training adds a little."""

import torch
from pydantic import Field
from scipy.linalg import eigh
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from newsfuse import Encoder, Inputs, Need, Options, hookimpl


class LlmOptions(Options):
    """Settings of the llm encoder."""

    rank: int = Field(default=64, ge=0)
    """Of the adapter that corrects the vectors; 0: a full matrix projects them, at a fraction of the speed."""


class Adapter(nn.Module):
    """A frozen table plus a learned correction of low rank, which is zero at first (Houlsby et al. 2019, section 2).

    Vectors of more than `dim` values are first brought to `dim`, by a matrix that does not learn either.
    Starting from random numbers was measured to end below the untrained cosine, which this start equals.
    """

    table: Tensor
    directions: Tensor

    def __init__(self, table: Tensor, dim: int, rank: int) -> None:
        """`table`: float32 (N, E), rows of length 1"""
        super().__init__()
        narrow = table.shape[1] <= dim
        self.register_buffer("table", F.pad(table, (0, dim - table.shape[1])) if narrow else table, persistent=False)
        # kept with the weights, since another table, as evaluation has it, has other principal directions
        self.register_buffer("directions", table.new_empty(0) if narrow else start(table, dim))
        self.down = nn.Linear(dim, rank)
        self.up = nn.Linear(rank, dim, bias=False)
        nn.init.zeros_(self.up.weight)
        self.spread = dim**0.5  # of a vector of length 1 and `dim` values: what nn.Linear's start is made for

    def forward(self, news: Tensor) -> Tensor:
        """(M,) -> (M, dim)"""
        vectors = self.table[news]
        if len(self.directions):
            vectors = vectors @ self.directions.T
        return vectors + self.up(F.gelu(self.down(self.spread * vectors)))


class Projection(nn.Module):
    """A frozen table times a full matrix, which starts as the adapter's table does."""

    table: Tensor

    def __init__(self, table: Tensor, dim: int) -> None:
        """`table`: float32 (N, E), rows of length 1"""
        super().__init__()
        self.register_buffer("table", table, persistent=False)
        self.project = nn.Linear(table.shape[1], dim, bias=False)
        with torch.no_grad():
            self.project.weight.copy_(start(table, dim))

    def forward(self, news: Tensor) -> Tensor:
        """(M,) -> (M, dim)"""
        return self.project(self.table[news])


def start(table: Tensor, dim: int) -> Tensor:
    """(dim, E): the identity or, of more columns than `dim`, the leading principal directions of the rows.

    They are not centred, so that dot products are kept best.
    """
    columns = table.shape[1]
    if columns <= dim:
        return torch.eye(dim, columns)
    # scipy computes just the leading ones, torch all: of 3,072 columns a twelfth is needed
    _, leading = eigh((table.T @ table).double().numpy(), subset_by_index=(columns - dim, columns - 1))
    return torch.from_numpy(leading.T[::-1].copy()).float()


def build(inputs: Inputs, dim: int, options: LlmOptions) -> Adapter | Projection:
    """Either of them, over the vectors of the embed stage."""
    table = F.normalize(inputs.embeddings, dim=1)
    return Adapter(table, dim, options.rank) if options.rank else Projection(table, dim)


@hookimpl
def newsfuse_encoders() -> list[Encoder]:
    """The encoder `llm`, which ranks well untrained."""
    return [Encoder("llm", build, LlmOptions, frozenset({Need.EMBEDDINGS}), prior=1.0)]
