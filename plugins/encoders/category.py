"""The section an article stands in: category and subcategory."""

from torch import Tensor, nn

from newsfuse import Encoder, Inputs, Need, Options, Vocabulary, hookimpl

UNKNOWN = 0


class Category(nn.Module):
    """The sum of a vector for the category and one for the subcategory; an unknown or empty one adds nothing."""

    category_rows: Tensor
    subcategory_rows: Tensor

    def __init__(self, category: Vocabulary, subcategory: Vocabulary, dim: int) -> None:
        super().__init__()
        self.category = nn.Embedding(category.size, dim, padding_idx=UNKNOWN)
        self.subcategory = nn.Embedding(subcategory.size, dim, padding_idx=UNKNOWN)
        for table in (self.category, self.subcategory):
            nn.init.normal_(table.weight[1:], std=dim**-0.5)  # length 1: short enough for a few steps to turn it
        self.register_buffer("category_rows", category.rows, persistent=False)
        self.register_buffer("subcategory_rows", subcategory.rows, persistent=False)

    def forward(self, news: Tensor) -> Tensor:
        """(M,) -> (M, dim)"""
        return self.category(self.category_rows[news]) + self.subcategory(self.subcategory_rows[news])


def build(inputs: Inputs, dim: int, options: Options) -> Category:
    """A Category over the names that training saw."""
    return Category(*inputs.categories, dim)


@hookimpl
def newsfuse_encoders() -> list[Encoder]:
    """The encoder `category`: articles of one section are alike even untrained."""
    return [Encoder("category", build, needs=frozenset({Need.CATEGORIES}), prior=0.5)]
