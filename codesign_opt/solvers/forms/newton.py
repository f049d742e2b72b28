"""The Newton system of the interior-point method: blocks of one level each, dense forms, and a few borders.

Four quantities a level: T, p, n, u. Everything but the forms couples quantities of one level alone, so that all that
no form touches is eliminated level by level, and what remains is one or two dense matrices of the number of levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import LinAlgError
from scipy.linalg.lapack import dpotrf, dpotrs

from ...basics.checks import Array, Mask

__all__ = ["NewtonSystem"]

Solver = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class NewtonSystem:
    """(blocks + dense + sum_j rate_j border_j border_j') x = rhs, positive definite; factored once for every rhs.

    Args:
        blocks: (L, 4, 4) symmetric.
        dense: (L, L) positive semidefinite by quantity, 0 to 3.
        borders: (J, 4, L).
        rates: (J,) > 0.
        frozen: (4, L) quantities that do not move: their rows are left out.
        pooling: (L, L) K, where the first quantity of the blocks is K T instead of T; sides and solutions are of T.
        own: (L,) diagonal of T beside them.
    """

    blocks: Array
    dense: Mapping[int, Array]
    borders: Array
    rates: Array
    frozen: Mask
    pooling: Array | None = None
    own: Array | float = 0.0

    def factored(self) -> Callable[[Array], tuple[Array, Array]] | None:
        """rhs (4, L) -> x (4, L) and rate_j border_j' x (J,), which would lose its digits if it were made from x.

        None where the matrix is not positive definite to rounding.
        """
        try:
            inner = self._without_borders()
            moving = ~self.frozen
            borders = (self.borders * moving).reshape(len(self.borders), -1)
            across = inner(self.borders * moving).reshape(len(self.borders), -1)
            core = np.linalg.inv(np.diag(1 / self.rates) + borders @ across.T)
        except (LinAlgError, np.linalg.LinAlgError):
            return None

        def solve(side: Array) -> tuple[Array, Array]:
            found = inner((side * moving)[None]).reshape(-1)
            pulls = core @ (borders @ found)
            return (found - pulls @ across).reshape(self.frozen.shape), pulls

        return solve

    def _without_borders(self) -> Solver:
        """(k, 4, L) -> (k, 4, L), by elimination of what no form touches."""
        moving = (~self.frozen).T  # (L, 4)
        if self.pooling is not None:
            moving = moving | (np.arange(4) == 0)  # what serves a level moves with the examples of others
        blocks = self.blocks * (moving[:, :, None] & moving[:, None, :]) + np.eye(4) * ~moving[:, None, :]
        kept = sorted({*self.dense, *([] if self.pooling is None else [0])})
        gone = [q for q in range(4) if q not in kept]
        inverse = np.linalg.inv(blocks[:, gone][:, :, gone])
        upper = blocks[:, kept][:, :, gone]
        across = inverse @ upper.transpose(0, 2, 1)
        outer = self._dense(kept, blocks[:, kept][:, :, kept] - upper @ across)

        def solve(sides: Array) -> Array:
            right = sides.transpose(2, 1, 0)  # (L, 4, k)
            alone = inverse @ right[:, gone]
            found = np.empty_like(right)
            found[:, kept] = outer(right[:, kept] - self._served(upper @ alone, back=True))
            found[:, gone] = alone - across @ self._served(found[:, kept])
            return found.transpose(2, 1, 0)

        return solve

    def _served(self, values: Array, *, back: bool = False) -> Array:
        """(L, d, k) with K T for T, or for a derivative by K T (`back`) that by T."""
        if self.pooling is None:
            return values
        mixed = values.copy()
        mixed[:, 0] = self._pooled.T @ values[:, 0] if back else self._pooled @ values[:, 0]
        return mixed

    @cached_property
    def _pooled(self) -> Array:
        assert self.pooling is not None
        return np.asarray(self.pooling * ~self.frozen[0])

    def _dense(self, kept: list[int], reduced: Array) -> Solver:
        """(L, d, k) -> (L, d, k) of the quantities with forms: together where a level couples them."""
        size, count = len(reduced), len(kept)
        if count == 1 or not np.any(reduced[:, 0, 1]):
            alone = [_factored(self._own_block(q, reduced[:, i, i])) for i, q in enumerate(kept)]
            return lambda right: np.stack([solve(right[:, i]) for i, solve in enumerate(alone)], axis=1)
        matrix = np.zeros((count * size, count * size))
        for i, q in enumerate(kept):
            at = slice(i * size, (i + 1) * size)
            matrix[at, at] = self._own_block(q, reduced[:, i, i])
            for j in range(i):  # the first of two is T, if either is
                block = np.diag(reduced[:, i, j]) if self.pooling is None else reduced[:, i, j, None] * self._pooled
                matrix[at, j * size : (j + 1) * size] = block
        together = _factored(matrix)

        def solve(right: Array) -> Array:
            found = together(right.transpose(1, 0, 2).reshape(count * size, -1))
            return found.reshape(count, size, -1).transpose(1, 0, 2)

        return solve

    def _own_block(self, quantity: int, diagonal: Array) -> Array:
        """(L, L) of one quantity: what is left of the blocks, and its form."""
        pooled = self.pooling is not None and quantity == 0
        moving = ~self.frozen[quantity]
        form = self.dense.get(quantity)
        block = np.zeros((moving.size, moving.size)) if form is None else form * moving
        if not moving.all():
            block *= moving[:, None]
        if pooled:
            block += (self._pooled.T * diagonal) @ self._pooled
            diagonal = self.own + ~moving
        block.flat[:: moving.size + 1] += diagonal
        return block


def _factored(matrix: Array) -> Solver:
    """By Cholesky of the lower half, scaled to a unit diagonal: quantities differ by twelve decades."""
    diagonal = np.diagonal(matrix).copy()
    if not np.all(diagonal > 0):
        raise LinAlgError("not positive definite")
    scale = 1 / np.sqrt(diagonal)
    matrix *= scale
    matrix *= scale[:, None]
    # rows here are columns to LAPACK: our lower half is its upper one
    factor, failed = dpotrf(matrix.T, lower=0, overwrite_a=1)
    if failed:
        raise LinAlgError("not positive definite")
    return lambda right: scale[:, None] * dpotrs(factor, scale[:, None] * right, lower=0)[0]
