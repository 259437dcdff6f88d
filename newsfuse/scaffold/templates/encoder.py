"""The encoder `mine`: so far, a linear map of the vectors that the embed stage made.

An encoder is one view of an article, and a fusion makes one vector of all views. newsfuse's docs/plugins.md has
all that an encoder may read and must promise. Whether this one does is tried by

    newsfuse check-plugin mine
"""

from pydantic import Field
from torch import Tensor, nn

from newsfuse import Encoder, Inputs, Need, Options, hookimpl


class MineOptions(Options):
    """What `options.mine` in params.yaml may set; all else there is refused."""

    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of values that training does not see. -S +options.mine.dropout=0.3 sets it."""


class Mine(nn.Module):
    """A learned linear map of the vectors of the articles' texts."""

    table: Tensor

    def __init__(self, table: Tensor, dim: int, dropout: float) -> None:
        """`table`: float32 (N, E), row i of article i"""
        super().__init__()
        # not saved with the weights: evaluation has more articles than training, and brings its own table
        self.register_buffer("table", table, persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(table.shape[1], dim, bias=False)  # what all articles share tells none of them apart

    def forward(self, news: Tensor) -> Tensor:
        """int64 (M,), numbers of articles -> float32 (M, dim)

        Row i is of article news[i] alone, whatever else is in `news`. Only its direction counts: the model brings
        every view to length 1. All values are finite, and a gradient reaches every parameter.
        """
        return self.project(self.dropout(self.table[news]))


def build(inputs: Inputs, dim: int, options: MineOptions) -> nn.Module:
    """The module. Of the tables in `inputs`, those may be read that `needs`, below, declares."""
    return Mine(inputs.embeddings, dim, options.dropout)


@hookimpl
def newsfuse_encoders() -> list[Encoder]:
    """The encoder `mine`."""
    return [
        Encoder(
            "mine",
            build,
            MineOptions,
            needs=frozenset({Need.EMBEDDINGS}),
            prior=0.1,  # the view's weight before training: 1 if it ranks well untrained, little if it is random
        ),
    ]
