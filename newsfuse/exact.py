"""Linear algebra with the same bits on every processor, whatever its vector units and however many its threads.

What a sum of floating-point numbers is depends on their order, and that on the processor and on the kernels that a
library has for it. Here every sum is of whole numbers and stays below 2 ** 53, so that float64 holds it and all
its parts exactly, in any order: before each product, the factors are rounded to whole numbers that are small enough.
All else is done element by element with + - * / and square roots, which IEEE 754 rounds in one way only, or does not
depend on an order (the largest of). There is no LAPACK, no logarithm, and no sum of what is not whole.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

BITS = 52
"""Of a dot product, by its factors' lengths; the 53rd bit is for what rounding to whole numbers adds to those."""
ROUGH = 15
"""Bits of the numbers that lengths are estimated with: 2 ** 23 of their squares can be summed."""
ROWS, COLUMNS = 512, 64
"""What is worked on at once: few enough to stay in the processor's cache."""
RANDOM = 2**20
"""The largest of the numbers that the truncated SVD starts from."""
ITERATIONS, OVERSAMPLING = 5, 10
"""Of the truncated SVD; scikit-learn's has as many unless it is told otherwise."""
DEPENDENT = 2.0**-40
"""A column of which less than this share (of its square) is left without its predecessors is their combination."""
SWEEPS, SMALL = 30, 2.0**-30
"""Jacobi's method ends, after about 7 sweeps, when nothing off the diagonal is above this share of the largest."""


def whole(table: np.ndarray, bits: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) -> (n, k) whole numbers, as float64, and (k,) powers of two that make them `table` again.

    Each column is scaled so that its numbers are at most 2 ** bits in size, then rounded.
    """
    up = np.ldexp(1.0, bits - sizes(table))
    rounded = np.empty_like(table)
    for part in _parts(table):
        np.rint(np.multiply(table[part], up, out=rounded[part]), out=rounded[part])
    return rounded, 1 / up


def short(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same, scaled so that each column's length is at most 2 ** (BITS / 2).

    The dot product of two such columns is exact, and so is each part of it (Cauchy and Schwarz).
    """
    top = sizes(table)
    up, squares = np.ldexp(1.0, ROUGH - top), np.zeros(table.shape[1])
    for part in _parts(table):
        # rounded up, so that no length comes out too small
        squares += np.square(np.ceil(np.abs(table[part]) * up)).sum(0)
    return whole(table, BITS // 2 + ROUGH - (np.frexp(squares)[1] + 1) // 2)


def sizes(table: np.ndarray) -> np.ndarray:
    """(n, k) -> (k,) int: b such that no number of the column is larger in size than 2 ** b."""
    return np.frexp(np.max([np.abs(table[part]).max(0) for part in _parts(table)], axis=0))[1]


def _parts(table: np.ndarray) -> list[slice]:
    return [slice(start, start + ROWS) for start in range(0, len(table), ROWS)]


def products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n, k), (n, l) -> (k, l): of columns."""
    (left, left_unit), (right, right_unit) = short(left), short(right)
    return np.asarray(left.T @ right * left_unit[:, None] * right_unit)


def combined(table: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n, k), (k, l) -> (n, l): the product of whole numbers as `short` makes them and `weights`, which are rounded."""
    widest = int(sizes(table).max()) + len(weights).bit_length()
    weights, unit = whole(weights, BITS - widest)
    product = table @ weights
    return np.multiply(product, unit, out=product)


def orthonormal(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) -> (n, k), (k,): columns at right angles, of length 1, that span the same; and how long they were before.

    The latter is of what each column has beside its predecessors. Where that is nothing, the column becomes zeros.
    """
    rounded, unit = short(table)
    weights = _straightened(rounded.T @ rounded)
    diagonal = np.diag(weights)
    return combined(rounded, weights), np.where(diagonal == 0, 0, unit / np.where(diagonal == 0, 1, diagonal))


def _straightened(gram: np.ndarray) -> np.ndarray:
    """(k, k) -> (k, k), upper triangular: the inverse of Cholesky's factor, by elimination beside the identity."""
    k, before = len(gram), np.diag(gram)
    work = np.hstack([gram, np.eye(k)])
    for j in range(k):
        pivot = work[j, j]
        work[j] = work[j] / np.sqrt(pivot) if pivot > DEPENDENT * before[j] else 0
        work[j + 1 :] -= work[j, j + 1 : k, None] * work[j]
    return np.ascontiguousarray(work[:, k:].T)


def eigen(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The eigenvalues (k,) of a symmetric matrix (k, k), largest first, and its eigenvectors, the columns of (k, k).

    By Jacobi's method. Half of the rows meet the other half, row i row i + k / 2, and each two are rotated; then all
    move on by a seat, as in a round-robin tournament (Brent and Luk 1985, https://doi.org/10.1137/0906007).
    """
    k = len(matrix)
    size = max(4, k + k % 2)
    work, vectors = np.zeros((size, size)), np.eye(size)
    work[:k, :k] = matrix  # rows of zeros are never rotated
    half = size // 2
    seats = np.r_[0, half, 1 : half - 1, half + 1 : size, half - 1]
    for _ in range(SWEEPS):
        if np.abs(work - np.diag(np.diag(work))).max() <= SMALL * np.abs(work).max():
            break
        for _ in range(size - 1):  # after which everybody is back
            angles = _angles(work)
            work = _rotated(_rotated(work, *angles).T, *angles)[np.ix_(seats, seats)]
            vectors = _rotated(vectors, *angles)[seats]
    values = np.diag(work)[:k]
    order = np.argsort(-values, kind="stable")
    return values[order], np.ascontiguousarray(vectors[order, :k].T)


def _angles(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(k, k) -> (k / 2, 1) twice: cosines and sines of the rotations that make elements (i, i + k / 2) zero."""
    half = len(matrix) // 2
    diagonal, beside = np.diag(matrix), np.diag(matrix, half)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        slope = (diagonal[half:] - diagonal[:half]) / (2 * beside)
        tangent = np.copysign(1, slope) / (np.abs(slope) + np.sqrt(slope * slope + 1))
    tangent = np.where(beside == 0, 0, tangent)
    cosine = 1 / np.sqrt(tangent * tangent + 1)
    return cosine[:, None], (tangent * cosine)[:, None]


def _rotated(rows: np.ndarray, cosine: np.ndarray, sine: np.ndarray) -> np.ndarray:
    half = len(rows) // 2
    upper, lower = np.ascontiguousarray(rows[:half]), np.ascontiguousarray(rows[half:])
    return np.concatenate([cosine * upper - sine * lower, sine * upper + cosine * lower])


@dataclass(frozen=True)
class Sparse:
    """A sparse matrix (n, m) of whole numbers, as float64, that dense tables are multiplied with."""

    matrix: Any
    """Of scipy, in rows."""
    bits: int
    """The sizes of a row's numbers add up to at most 2 ** bits."""

    @classmethod
    def of(cls, matrix: Any) -> "Sparse":  # noqa: ANN401 - scipy has no types
        """Any sparse matrix of scipy's whose elements are whole numbers."""
        rows = matrix.tocsr()
        owners = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        return cls(rows, int(np.frexp(np.bincount(owners, np.abs(rows.data), minlength=1).max())[1]))

    def turned(self) -> "Sparse":
        """The matrix (m, n) of the same elements."""
        return Sparse.of(self.matrix.T)

    def __matmul__(self, table: np.ndarray) -> np.ndarray:
        """(m, k) -> (n, k), of the type that the table has; its numbers are rounded to the bits that are left."""
        product = np.empty((self.matrix.shape[0], table.shape[1]), dtype=table.dtype)
        for part in _columns(table):
            rounded, unit = whole(table[:, part].astype(np.float64, order="C"), BITS - self.bits)
            product[:, part] = self.matrix @ rounded * unit
        return product


def right_singular(terms: Sparse, rank: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The `rank` largest singular values of a sparse matrix (n, m), and their right singular vectors.

    float64 (rank,), and float32 (m, rank), for it may be large. Of each vector the element that is largest in size, the
    first of several, is positive. The vector of a singular value of 0 is zeros.

    By subspace iteration from random vectors (Halko et al. 2011, https://arxiv.org/abs/0909.4061, algorithm 4.4),
    then the eigenvectors of what the subspace sees.
    """
    across = terms.turned()
    basis = _subspace(terms, across, min(rank + OVERSAMPLING, *terms.matrix.shape), seed)
    seen = products(basis, _stepped(terms, across, basis, 0))
    squares, turn = eigen((seen + seen.T) / 2)
    kept = squares[:rank] > DEPENDENT * squares[0]
    values = np.sqrt(np.where(kept, squares[:rank], 0))
    rounded, unit = short(basis)
    left = combined(rounded, turn[:, :rank] * unit[:, None])
    return values, _of_positive_sign(across, left, np.where(kept, 1 / np.where(kept, values, 1), 0))


def _subspace(terms: Sparse, across: Sparse, width: int, seed: int) -> np.ndarray:
    """(n, width): nearly what the left singular vectors of the largest singular values span.

    Each step is shifted by half of the smallest wanted square, as far as that is known, so that the others shrink
    faster (the dynamic shifts of Feng et al. 2024, https://arxiv.org/abs/2404.09276; by Cholesky's pivots, not an SVD).
    """
    start = np.random.default_rng(seed).integers(-RANDOM, RANDOM, (terms.matrix.shape[0], width))
    basis, _ = orthonormal(start.astype(np.float64))
    shift = 0.0
    for _ in range(ITERATIONS):
        basis, left = orthonormal(_stepped(terms, across, basis, shift))
        shift = max(shift, (shift + float(left.min())) / 2)
    return basis


def _stepped(terms: Sparse, across: Sparse, basis: np.ndarray, shift: float) -> np.ndarray:
    """(n, k) -> (n, k): the matrix times its transpose, less `shift`, times `basis`."""
    stepped = np.empty_like(basis)
    for part in _columns(basis):
        stepped[:, part] = terms @ (across @ basis[:, part]) - shift * basis[:, part]
    return stepped


def _of_positive_sign(across: Sparse, left: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n, k), (k,) -> (m, k) float32: of a few columns at a time, for all in float64 would be twice the memory."""
    vectors = np.empty((across.matrix.shape[0], left.shape[1]), dtype=np.float32)
    for part in _columns(left):
        block = across @ left[:, part]
        largest = np.take_along_axis(block, np.abs(block).argmax(0)[None], 0)
        vectors[:, part] = block * (np.where(largest < 0, -1, 1) * weights[part])
    return vectors


def _columns(table: np.ndarray) -> list[slice]:
    return [slice(start, start + COLUMNS) for start in range(0, table.shape[1], COLUMNS)]
