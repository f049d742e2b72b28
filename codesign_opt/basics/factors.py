"""Factors of sparse symmetric systems."""

from __future__ import annotations

from collections.abc import Callable

from scipy import sparse
from scipy.sparse.linalg import splu

from .checks import Array

__all__ = ["symmetric_solver"]


def symmetric_solver(matrix: sparse.csc_array) -> Callable[[Array], Array]:
    """x = matrix^-1 b for a symmetric matrix that is definite, or quasi-definite: [[-E, F'], [F, G]], E and G definite.

    Such a matrix has an L D L' without pivots in any order (Vanderbei 1995), so that the order may be the one of least
    fill, by minimum degree.

    Raises:
        RuntimeError: the matrix is singular.

    >>> solve = symmetric_solver(sparse.csc_array([[-1.0, 2.0], [2.0, 3.0]]))
    >>> [round(float(x), 12) for x in solve(sparse.csc_array([[-1.0, 2.0], [2.0, 3.0]]) @ [1.0, 2.0])]
    [1.0, 2.0]
    """
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return lambda right: factors.solve(right)
