"""Weighted sums along an axis, held against scipy's sparse matrices."""

import numpy as np
import pytest
from scipy import sparse

from wsisr.slides.axis_weights import AxisWeights


def taps(
    seed: int, rows: int, length: int, per_row: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    row = draws.permutation(np.repeat(np.arange(rows), per_row))
    weight = draws.normal(size=len(row))
    weight[draws.random(len(row)) < 0.2] = 0
    return row, draws.integers(0, length, len(row)), weight


@pytest.mark.parametrize(
    ("rows", "length", "per_row"), [(1, 1, 1), (5, 3, 2), (40, 100, 9), (64, 1024, 17)]
)
def test_sums_are_those_of_a_sparse_matrix_to_the_bit(rows: int, length: int, per_row: int) -> None:
    row, column, weight = taps(rows, rows, length, per_row)
    # A pixel that comes more than twice in a row is added up in an order that scipy leaves open.
    _, first, count = np.unique(row * length + column, return_index=True, return_counts=True)
    few = np.isin(row * length + column, (row * length + column)[first[count <= 2]])
    row, column, weight = row[few], column[few], weight[few]
    weights = AxisWeights.of(row, column, weight, (rows, length))
    matrix = sparse.csr_array((weight.astype(np.float32), (row, column)), shape=(rows, length))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    assert len(weights) == rows
    np.testing.assert_array_equal(weights.starts, matrix.indptr)
    np.testing.assert_array_equal(weights.columns, matrix.indices)
    np.testing.assert_array_equal(weights.weights, matrix.data)
    draws = np.random.default_rng(0)
    for pixels in (
        draws.integers(0, 256, (length, 1100), np.uint8),  # more than a block
        draws.normal(size=(length, 7)).astype(np.float32),
        draws.random((7, length)).astype(np.float32).T,
    ):
        np.testing.assert_array_equal(weights @ pixels, matrix @ pixels.astype(np.float32))


def test_weights_of_a_row_are_added_up_as_scipy_does() -> None:
    row, column = np.repeat(np.arange(30), 20), np.tile(np.arange(20), 30)
    weight = np.random.default_rng(1).random(600) + 0.1
    matrix = sparse.csr_array((weight.astype(np.float32), (row, column)), shape=(30, 20))
    weights = AxisWeights.of(row, column, weight, (30, 20))
    np.testing.assert_array_equal(weights.sums(), matrix.sum(axis=1))


def test_pixels_of_another_length_are_refused() -> None:
    weights = AxisWeights.of(np.array([0]), np.array([2]), np.array([1.0]), (1, 3))
    with pytest.raises(ValueError, match="2 rows of pixels for weights of 3"):
        weights @ np.zeros((2, 1), np.uint8)
