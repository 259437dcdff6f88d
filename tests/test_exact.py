"""Linear algebra in whole numbers: right, by numpy as an oracle, and exact, by Python's integers."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import sparse

from newsfuse.exact import Sparse, combined, eigen, orthonormal, right_singular, short

RNG = np.random.default_rng


def of_spectrum(n: int, m: int, values: np.ndarray, seed: int = 0) -> np.ndarray:
    """(n, m), whole numbers, with these singular values but for rounding."""
    left, right = (
        np.linalg.qr(RNG(seed + side).standard_normal((size, len(values))))[0] for side, size in enumerate((n, m))
    )
    return np.rint(left * values @ right.T * 2.0**20)


@pytest.mark.parametrize(
    "like", [np.ones, lambda shape: RNG(0).standard_normal(shape) * np.logspace(-30, 30, shape[1])]
)
def test_dot_products_of_short_columns_are_exact(like: Callable[[tuple[int, int]], np.ndarray]) -> None:
    """Also of the worst columns there are: as long as allowed, and no term of a sign of its own."""
    table, _ = short(like((700, 3)))
    assert (np.rint(table) == table).all()
    exactly = [[sum(int(a) * int(b) for a, b in zip(x, y, strict=True)) for y in table.T] for x in table.T]
    assert (table.T @ table).astype(object).tolist() == exactly
    assert max(map(max, exactly)) <= 2**53
    assert min(exactly[i][i] for i in range(3)) > 2**48  # and few bits are given away


def test_rounding_loses_what_is_left_of_26_bits() -> None:
    table = RNG(0).standard_normal((1000, 5)) * np.logspace(-9, 9, 5)
    rounded, unit = short(table)
    assert (np.abs(rounded * unit - table) <= np.linalg.norm(table, axis=0) * 2.0**-25).all()


def test_a_product_with_a_sparse_matrix_is_exact_after_rounding() -> None:
    matrix = sparse.random(300, 200, 0.2, random_state=0, data_rvs=lambda n: RNG(0).integers(-(2**20), 2**20, n))
    matrix, table = matrix.tocsr().astype(np.float64), RNG(1).standard_normal((200, 70))
    found = Sparse.of(matrix) @ table
    np.testing.assert_allclose(found, matrix @ table, rtol=1e-4, atol=1)
    backwards = matrix[:, ::-1].tocsr()
    backwards.sort_indices()
    assert (Sparse.of(backwards) @ table[::-1]).tobytes() == found.tobytes()  # by other sums on the way


def test_columns_become_orthonormal_and_dependent_ones_zeros() -> None:
    table = RNG(0).standard_normal((400, 20))
    table[:, 7] = table[:, 3] - 2 * table[:, 5]
    found, left = orthonormal(table)
    others = np.delete(found, 7, axis=1)
    np.testing.assert_allclose(others.T @ others, np.eye(19), atol=1e-6)
    assert not found[:, 7].any()
    assert left[7] == 0
    assert np.linalg.matrix_rank(np.hstack([table, others]), tol=1e-4) == 19
    np.testing.assert_allclose(left[:7], np.abs(np.diag(np.linalg.qr(table)[1]))[:7], rtol=1e-5)


def test_columns_are_combined_as_a_product_does() -> None:
    rounded, _ = short(RNG(0).standard_normal((500, 9)))
    weights = RNG(1).standard_normal((9, 4)) * [1e-6, 1, 1e3, 1e9]
    np.testing.assert_allclose(combined(rounded, weights) / (rounded @ weights), 1, rtol=1e-3)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 30, 31])
def test_eigenvalues_and_vectors_are_those_of_lapack(k: int) -> None:
    square = RNG(k).standard_normal((k, k))
    matrix = square + square.T
    values, vectors = eigen(matrix)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[::-1], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(k), atol=1e-12)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-6)


@pytest.mark.parametrize(("n", "m"), [(300, 200), (200, 300)])
def test_singular_vectors_are_those_of_lapack_but_for_their_signs(n: int, m: int) -> None:
    matrix = of_spectrum(n, m, 100 * 0.9 ** np.arange(60))
    values, vectors = right_singular(Sparse.of(sparse.csr_matrix(matrix)), 20, 0)
    _, wanted, right = np.linalg.svd(matrix)
    np.testing.assert_allclose(values, wanted[:20], rtol=1e-4)
    np.testing.assert_allclose(np.abs((right[:20] * vectors.T).sum(axis=1)), 1, atol=1e-3)


def test_the_largest_element_of_a_singular_vector_is_positive() -> None:
    _, vectors = right_singular(Sparse.of(sparse.csr_matrix(of_spectrum(50, 40, np.arange(30, 0, -1.0)))), 10, 0)
    assert (np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0) > 0).all()


def test_past_the_rank_of_a_matrix_singular_vectors_are_zeros() -> None:
    matrix = np.outer(np.arange(30), np.arange(20)) + np.outer(np.arange(30) ** 2, np.ones(20))
    values, vectors = right_singular(Sparse.of(sparse.csr_matrix(matrix.astype(np.float64))), 6, 0)
    assert (values > 0).tolist() == [True, True, False, False, False, False]
    assert not vectors[:, 2:].any()
