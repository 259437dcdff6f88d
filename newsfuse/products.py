"""Dot products of some pairs of rows of two tables, read where they lie."""

import warnings

import torch
from torch import Tensor

PAIRS = 1 << 16
"""Of rows copied at once where they are: 200 MB each for 768 values."""


def products(left: Tensor, right: Tensor, offsets: Tensor, places: Tensor) -> Tensor:
    """(n, W), (m, W) -> (p,): of row i of `left` with the rows `places[offsets[i]:offsets[i + 1]]` of `right`.

    Without gradient. A product of the two tables where somebody looks at it: 2.5 times as fast as pairs of rows that
    are copied and multiplied, on a CPU. Other devices do just that: what cuSPARSE makes of an article that is shown
    twice was never tried.
    """
    if left.device.type != "cpu":
        return _copied(left, right, torch.repeat_interleave(offsets.diff()), places)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        # not checked: an impression may show an article twice
        wanted = torch.sparse_csr_tensor(
            offsets, places, left.new_zeros(len(places)), (len(left), len(right)), check_invariants=False
        )
    found: Tensor = torch.sparse.sampled_addmm(wanted, left, right.T, beta=0).values()
    return found


def _copied(left: Tensor, right: Tensor, owners: Tensor, places: Tensor) -> Tensor:
    pairs = zip(owners.split(PAIRS), places.split(PAIRS), strict=True)
    return torch.cat([(left[own] * right[other]).sum(dim=1) for own, other in pairs])
