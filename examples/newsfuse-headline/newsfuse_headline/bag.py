"""An article as the sum of its sub-words' vectors."""

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.extmath import randomized_svd
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from newsfuse_headline.subwords import Subwords

FAINT = 1e-3
"""Directions of the start that are weaker than this share of the first one are rounding, or nearly so."""


class Bag(nn.Module):
    """A bag of hashed sub-words (Bojanowski et al. 2017, section 3.2), of a text for each article.

    The weights are a row per bucket, however many articles there are. A row whose sub-words are in no training text
    starts at zero and stays there: at evaluation it adds nothing, and a text of nothing else is a zero vector.
    """

    text_offsets: Tensor
    text_words: Tensor
    word_offsets: Tensor
    buckets: Tensor

    def __init__(self, subwords: Subwords, n_buckets: int, dim: int, dropout: float = 0.0) -> None:
        """`dropout`: share of the words that a training step leaves out, drawn anew for each."""
        super().__init__()
        self.dropout = dropout
        self.table = nn.Parameter(torch.randn(n_buckets, dim) * dim**-0.5)
        for name in ("text_offsets", "text_words", "word_offsets", "buckets"):
            self.register_buffer(name, torch.from_numpy(getattr(subwords, name)), persistent=False)

    @torch.no_grad()
    def start(self) -> None:
        """Begin where texts that share rare sub-words are alike: latent semantic analysis (Deerwester et al. 1990).

        What all texts have in common is left out (as in Arora et al. 2017, "A Simple but Tough-to-Beat Baseline for
        Sentence Embeddings", algorithm 1; their mean, here). Texts have a length of about 1: it decides how far
        a training step turns them.
        """
        counts = self._counts()
        n, _ = counts.shape
        rarity = np.log((n + 1) / counts.getnnz(axis=0).clip(1))
        table = np.zeros(self.table.shape)
        found = rarity[:, None] * directions(counts @ sparse.diags(rarity), table.shape[1])
        table[:, : found.shape[1]] = found
        lengths = np.linalg.norm(counts @ table, axis=1)
        self.table.copy_(torch.from_numpy(table / max(FAINT, lengths.mean())))

    def _counts(self) -> sparse.csr_matrix:
        """How often a text has a bucket's sub-words: float64 (N, buckets)."""
        words = ones(self.text_offsets, self.text_words, len(self.word_offsets) - 1)
        return (words @ ones(self.word_offsets, self.buckets, len(self.table))).tocsr()

    def forward(self, news: Tensor) -> Tensor:
        """(M,) -> (M, dim)"""
        words, text_starts = lists(self.text_offsets, self.text_words, news)
        # a batch has many words more than once: each is summed up once
        distinct, places = words.unique(return_inverse=True)
        buckets, word_starts = lists(self.word_offsets, self.buckets, distinct)
        vectors = F.embedding_bag(buckets, self.table, word_starts, mode="sum")
        kept = F.dropout(vectors.new_ones(len(places)), self.dropout, self.training)
        return F.embedding_bag(places, vectors, text_starts, mode="sum", per_sample_weights=kept)


def lists(offsets: Tensor, values: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of a CSR, the lists of `rows` (M,) one after the other, and where each begins (M,)."""
    starts, lengths = offsets[rows], offsets[rows + 1] - offsets[rows]
    begins = lengths.cumsum(0) - lengths
    moved = torch.arange(int(lengths.sum()), device=rows.device) + (starts - begins).repeat_interleave(lengths)
    return values[moved], begins


def ones(offsets: Tensor, columns: Tensor, width: int) -> sparse.csr_matrix:
    """Of a CSR, the matrix that counts how often each list has each of `width` values."""
    ends, at = offsets.cpu().numpy(), columns.cpu().numpy()
    return sparse.csr_matrix((np.ones(len(at)), at, ends), shape=(len(ends) - 1, width))


def directions(rows: sparse.csr_matrix, most: int) -> np.ndarray:
    """The leading directions of the rows, brought to length 1, without that of their mean: (columns, k), k <= `most`"""
    lengths = np.sqrt(rows.multiply(rows).sum(axis=1)).A1
    unit = sparse.diags(1 / np.where(lengths > 0, lengths, 1)) @ rows
    # two iterations of the randomised method (Halko et al. 2011, algorithm 4.4) rank as well as exact ones here
    _, strengths, found = randomized_svd(unit, min(most, *unit.shape), n_iter=2, random_state=0)
    mean = unit.mean(axis=0).A1
    mean /= max(FAINT, np.linalg.norm(mean))
    strong = found[strengths > FAINT * strengths[0]].T
    return strong - np.outer(mean, mean @ strong)
