"""The information program on a working set of levels: its value, gradient and Hessian (docs/theory.md section 7.5).

    min over shares u of sum over blocks tr G^T (P0 + sum_l u_l B_l^T B_l)^-1 G,   sum u = 1, 0 <= u <= cap

With Y = M^-1 G the gradient is -g_l = -|B_l Y|^2 and the Hessian 2 <C_l, C_j> with C_l = M^(-1/2) B_l^T B_l Y. Levels
that are neither used nor nearly worth using move together, in one bundle with fixed proportions: the Hessian is as
small as the support of the optimum, and M never loses a direction that only they determine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import qr, solve_triangular

from ...basics.checks import Array, Indices
from .coordinates import root_of
from .knapsack import knapsack

__all__ = ["Block", "Bundle", "Master", "Point"]


@dataclass(frozen=True, eq=False)
class Block:
    """One block of parameters in whitened coordinates: roots (L, k, R), response (R, r), prior (R, R)."""

    roots: Array
    response: Array
    prior: Array


@dataclass(eq=False)
class Point:
    """Shares of the levels on their own and of the bundle (last, if any), with everything that follows from them.

    Attributes:
        shares: (n,).
        value: the objective.
        prior: the part tr Y^T P0 Y of it that no share buys.
        gains: (n,) g of the own levels, then of the bundle.
        every: (L,) g of all levels.
        solutions, factors: Y and the triangle of M, a block each.
    """

    shares: Array
    value: float = 0.0
    prior: float = 0.0
    gains: Array = field(default_factory=lambda: np.empty(0))
    every: Array = field(default_factory=lambda: np.empty(0))
    solutions: list[Array] = field(default_factory=list)
    factors: list[Array] = field(default_factory=list)


@dataclass(eq=False)
class Bundle:
    """Which levels have a share of their own; the others' proportions (sum 1) and information per block."""

    own: Indices
    mix: Array
    information: list[Array]

    @property
    def present(self) -> bool:
        """Whether any level is in it."""
        return bool(self.information)

    def split(self, shares: Array) -> tuple[Array, float]:
        """Shares of the levels on their own, and the bundle's."""
        return (shares[:-1], float(shares[-1])) if self.present else (shares, 0.0)


class Master:
    """The program restricted to the levels on their own and the bundle."""

    def __init__(self, blocks: Sequence[Block], caps: Array) -> None:
        self.blocks, self.caps = blocks, caps
        self.flat = [block.roots.reshape(-1, block.roots.shape[2]) for block in blocks]

    def bundled(self, own: Indices, mix: Array) -> Bundle:
        """The bundle with these proportions; absent where they are all 0."""
        information: list[Array] = []
        chosen = np.flatnonzero(mix)
        for block in self.blocks if chosen.size else ():
            size = block.roots.shape[2]
            rows = (block.roots[chosen] * np.sqrt(mix[chosen])[:, None, None]).reshape(-1, size)
            information.append(rows.T @ rows)
        return Bundle(own, mix, information)

    def point(self, bundle: Bundle, shares: Array) -> Point:
        """Value and gains at these shares; LinAlgError where M loses a direction."""
        at = Point(shares)
        at.every, bundled = np.zeros(self.caps.size), 0.0
        for i, block in enumerate(self.blocks):
            factor = self._factor(i, bundle, shares)
            # half the solve already gives the value as a sum of squares: nothing cancels in it
            half = solve_triangular(factor, block.response, lower=True, check_finite=False)
            y = solve_triangular(factor, half, lower=True, trans=1, check_finite=False)
            at.value += float((half**2).sum())
            at.prior += float(np.sum(y * (block.prior @ y)))
            # the gains of all levels, in the bundle or not, come with Y: they say whom to take out, and prove the gap
            at.every += ((self.flat[i] @ y) ** 2).reshape(self.caps.size, -1).sum(axis=1)
            if bundle.present:
                bundled += float(np.sum(y * (bundle.information[i] @ y)))
            at.solutions.append(y)
            at.factors.append(factor)
        at.gains = np.append(at.every[bundle.own], [bundled] if bundle.present else [])
        return at

    def _factor(self, i: int, bundle: Bundle, shares: Array) -> Array:
        """Lower triangular L with L L^T = M; from M itself, or from its root where M loses too many digits."""
        block = self.blocks[i]
        inner = block.roots[bundle.own]
        alone, mass = bundle.split(shares)
        rows = (inner * np.sqrt(alone)[:, None, None]).reshape(-1, inner.shape[2])
        rest = block.prior + mass * bundle.information[i] if bundle.present else block.prior
        try:
            factor = np.asarray(np.linalg.cholesky(rows.T @ rows + rest), dtype=np.float64)
            diagonal = np.diag(factor)
            # M's condition is about the square of this ratio: 1e10 leaves six digits, enough for a Newton step. The QR
            # of all rows costs more, and is kept for worse
            if diagonal.min() > 1e-5 * diagonal.max():
                return factor
        except np.linalg.LinAlgError:
            pass
        together = np.vstack([rows, root_of(rest)])
        triangle = qr(together, mode="r", overwrite_a=True, check_finite=False)[0][: together.shape[1]]
        if np.abs(np.diag(triangle)).min() < 1e-14 * np.abs(triangle).max():
            raise np.linalg.LinAlgError("M lost a direction")
        return triangle.T

    def hessian(self, bundle: Bundle, at: Point) -> Array:
        """(n, n) second derivatives by the own shares and the bundle's."""
        n = at.shares.size
        total = np.zeros((n, n))
        for i, block in enumerate(self.blocks):
            y, factor = at.solutions[i], at.factors[i]
            inner = block.roots[bundle.own]
            count, k, size = inner.shape
            seen = (inner.reshape(-1, size) @ y).reshape(count, k, -1)
            half = solve_triangular(factor, inner.reshape(-1, size).T, lower=True, check_finite=False)
            half = half.T.reshape(count, k, size)
            last = np.zeros((0, size))
            if bundle.present:
                last = solve_triangular(factor, bundle.information[i] @ y, lower=True, check_finite=False).T
            # C_l has R r entries, its k x k products k^2 passes over n^2: whichever is less
            total += 2 * (_direct if seen.shape[2] <= k * k else _by_outputs)(half, seen, last)
        return total

    def gap(self, at: Point) -> tuple[float, float]:
        """Relative gap of the equivalence theorem over all levels, and the price of a share there."""
        most, price = knapsack(at.every, self.caps)
        return 1 - at.value / (at.prior + most), price


def _direct(half: Array, seen: Array, last: Array) -> Array:
    """<C_l, C_j> from the C_l themselves: cheaper with few columns of the response."""
    columns: Array = np.matmul(seen.transpose(0, 2, 1), half).reshape(half.shape[0], -1)
    if last.size:
        columns = np.vstack([columns, last.reshape(1, -1)])
    return columns @ columns.T


def _by_outputs(half: Array, seen: Array, last: Array) -> Array:
    """<C_l, C_j> = sum over outputs of (B_l M^-1 B_j^T) o (B_l Y Y^T B_j^T): cheaper with few outputs."""
    count, k, _ = half.shape
    extra = 1 if last.size else 0
    total = np.zeros((count + extra, count + extra))
    inner = total[:count, :count]
    # each output's rows are used k times: copied together once
    parts = [(np.ascontiguousarray(half[:, a]), np.ascontiguousarray(seen[:, a])) for a in range(k)]
    for a in range(k):
        inner += (parts[a][0] @ parts[a][0].T) * (parts[a][1] @ parts[a][1].T)
        for b in range(a):
            mixed = (parts[a][0] @ parts[b][0].T) * (parts[a][1] @ parts[b][1].T)
            inner += mixed + mixed.T
    if extra:
        total[-1, :count] = total[:count, -1] = np.einsum("lkr,lkr->l", seen, half @ last.T)
        total[-1, -1] = np.sum(last**2)
    return total
