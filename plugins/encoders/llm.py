"""The meaning of an article's text: the embed stage's vectors, projected."""

import torch
from scipy.linalg import eigh
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from newsfuse import Encoder, Inputs, Need, Options, hookimpl


class Llm(nn.Module):
    """A linear projection of a frozen table that starts as the identity.

    With more columns than `dim` it starts as the `dim` leading principal directions (uncentred, so
    that dot products are kept best). Starting from random numbers was measured to end below the
    untrained cosine, which this start equals.
    """

    table: Tensor

    def __init__(self, table: Tensor, dim: int) -> None:
        """`table`: float32 (N, E)"""
        super().__init__()
        table = F.normalize(table, dim=1)
        self.register_buffer("table", table, persistent=False)
        self.project = nn.Linear(table.shape[1], dim, bias=False)
        with torch.no_grad():
            self.project.weight.copy_(_start(table, dim))

    def forward(self, news: Tensor) -> Tensor:
        """(M,) -> (M, dim)"""
        return self.project(self.table[news])


def _start(table: Tensor, dim: int) -> Tensor:
    """(dim, E): the identity, or the leading principal directions of the rows."""
    columns = table.shape[1]
    if columns <= dim:
        return torch.eye(dim, columns)
    # scipy computes just the leading ones, torch all: of 3,072 columns a twelfth is needed
    _, leading = eigh((table.T @ table).double().numpy(), subset_by_index=(columns - dim, columns - 1))
    return torch.from_numpy(leading.T[::-1].copy()).float()


def build(inputs: Inputs, dim: int, options: Options) -> Llm:
    """An Llm over the vectors of the embed stage."""
    return Llm(inputs.embeddings, dim)


@hookimpl
def newsfuse_encoders() -> list[Encoder]:
    """The encoder `llm`, which ranks well untrained."""
    return [Encoder("llm", build, needs=frozenset({Need.EMBEDDINGS}), prior=1.0)]
