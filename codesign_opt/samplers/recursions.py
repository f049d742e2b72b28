"""Recursions of a few states before, all at once: forward or backward substitution in one banded triangle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg.lapack import dtbtrs

from ..basics.checks import Array

__all__ = ["Recursion"]


class Recursion:
    """x_{k+1} = current_k x_k + sum_j earlier_{j,k} x_{k-j}, for many rows at once.

    With L the triangle of 1 on its diagonal and minus the multipliers below, L x = x_0 e_0, and the adjoints of a last
    value are L' y = y_K e_K. Rows follow each other on one diagonal, so that one call works out all of them: K calls on
    one step of a few bands are ten times as dear.

    Args:
        current: (..., K, B) multipliers of the state before.
        earlier: for j = 1, 2, ... the (..., K, B) multipliers of x_{k-j}; those of states before x_0 are not used.

    >>> three = np.ones((3, 1))  # Fibonacci's numbers
    >>> found = Recursion(three, [three])
    >>> found.forward(1.0)[:, 0].tolist(), found.backward(1.0)[:, 0].tolist()
    ([1.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 1.0])
    """

    def __init__(self, current: Array, earlier: Sequence[Array]) -> None:
        *rest, count, bands = np.broadcast_shapes(current.shape, *(rows.shape for rows in earlier))
        triangle = np.zeros((*rest, bands, count + 1, 2 + len(earlier)))
        triangle[..., 0] = 1.0
        np.negative(current.swapaxes(-1, -2), out=triangle[..., :count, 1])
        for back, rows in enumerate(earlier[: count - 1], 1):
            np.negative(rows[..., back:, :].swapaxes(-1, -2), out=triangle[..., : count - back, 1 + back])
        self._shape = (*rest, bands, count + 1)
        self._triangle = triangle.reshape(-1, triangle.shape[-1]).T

    def forward(self, first: Array | float) -> Array:
        """(..., K+1, B) the states from x_0 = first (..., B)."""
        return self._solved(0, first, "N")

    def backward(self, last: Array | float) -> Array:
        """(..., K+1, B) derivatives of last (..., B) times x_K by the states."""
        return self._solved(-1, last, "T")

    def _solved(self, at: int, value: Array | float, trans: str) -> Array:
        states = np.zeros(self._shape)
        states[..., at] = value
        found, _ = dtbtrs(self._triangle, states.reshape(-1, 1), uplo="L", trans=trans, diag="U", overwrite_b=True)
        return np.asarray(found).reshape(self._shape).swapaxes(-1, -2)
