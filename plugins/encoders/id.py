"""The article itself: a learned vector for each one that training saw, one shared by all others."""

import torch
from pydantic import Field
from torch import Tensor, nn

from newsfuse import Encoder, Inputs, Need, Options, Vocabulary, hookimpl
from newsfuse.chance import drawn_by, happens

UNKNOWN = 0


class IdOptions(Options):
    """Settings of the id encoder."""

    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of articles per training batch that are treated as never seen, which trains the shared row."""


class Id(nn.Module):
    """An embedding table over the articles of the training rows; row 0 is the unknown article."""

    rows: Tensor

    def __init__(self, seen: Vocabulary, dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.key: int | None = None
        self.vectors = nn.Embedding(seen.size, dim)
        nn.init.normal_(self.vectors.weight, std=dim**-0.5)  # length 1: short enough for a few steps to turn it
        self.register_buffer("rows", seen.rows, persistent=False)

    def redraw(self, key: int) -> None:
        """Let other articles be unknown from now on."""
        self.key = key

    def forward(self, news: Tensor) -> Tensor:
        """(M,) -> (M, dim)"""
        rows = self.rows[news]
        if self.training and self.dropout:
            rows = torch.where(happens(drawn_by(self.key), rows, self.dropout), UNKNOWN, rows)
        return self.vectors(rows)


def build(inputs: Inputs, dim: int, options: IdOptions) -> Id:
    """An Id over the articles that training saw."""
    return Id(inputs.seen, dim, options.dropout)


@hookimpl
def newsfuse_encoders() -> list[Encoder]:
    """The encoder `id`."""
    return [Encoder("id", build, IdOptions, frozenset({Need.SEEN}))]
