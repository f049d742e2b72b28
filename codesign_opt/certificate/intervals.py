"""Bounds of the columns of a conic program that its rows imply, by intervals (docs/theory.md section 8.3).

Of a row A x + s = b with s in an interval, each entry a x_j is at most what is left when all others are at their
least; cones bound their rows by each other: a second-order cone's by its head, a power cone's last by the others, an
exponential cone's first by its third, a semidefinite matrix's entries by its diagonal.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ..basics.checks import Array, Indices
from ..basics.cones import Cones
from .conic import ConicProgram

__all__ = ["implied_bounds"]

_SWEEPS = 15
_ROUNDING = 1e-13  # of the sum of magnitudes in a row, that each implied bound is moved outwards
_GAIN = 1e-3  # relative change below which another sweep is not worth it


def implied_bounds(program: ConicProgram, low: Array, high: Array) -> tuple[Array, Array]:
    """(N,) bounds of every column at points that meet all rows and low <= x <= high; infinite where nothing follows.

    >>> import numpy as np
    >>> from scipy import sparse
    >>> rows = sparse.csc_array([[1.0, 1.0], [0.0, -1.0], [1.0, 0.0]])  # x + y = 3; |x - 1| <= y
    >>> program = ConicProgram(np.ones(2), rows, np.array([3.0, 0.0, 1.0]), Cones(zero=1, second_order=(2,)))
    >>> low, high = implied_bounds(program, np.array([0.0, -np.inf]), np.full(2, np.inf))
    >>> np.round(low, 6).tolist(), np.round(high, 6).tolist()
    ([0.0, 0.0], [3.0, 3.0])
    """
    by_row = sparse.csr_array(program.matrix)
    by_row.eliminate_zeros()
    i = np.repeat(np.arange(by_row.shape[0]), np.diff(by_row.indptr))
    j, a = by_row.indices, by_row.data
    low, high = low.astype(np.float64), high.astype(np.float64)
    least, most = _free(program.cones)
    for _ in range(_SWEEPS):
        before = low.copy(), high.copy()
        bottom, top, size = _activity(i, j, a, low, high, by_row.shape[0])
        _within_cones(program, bottom, top, size, least, most)
        _tightened(program.right, (i, j, a), (least, most), low, high)
        if not _moved(before, (low, high)):
            break
    return low, high


def _free(cones: Cones) -> tuple[Array, Array]:
    """(R,) bounds of s that the cones alone imply."""
    least, most = np.full(len(cones), -np.inf), np.full(len(cones), np.inf)
    least[: cones.zero] = most[: cones.zero] = 0.0
    least[cones.nonnegative_rows] = 0.0
    for rows in cones.second_order_rows:
        least[rows[:, 0]] = 0.0
    for order, span in cones.semidefinite_rows:
        least[span.start + _diagonal(order)] = 0.0
    least[cones.exponential_rows[:, 1:]] = 0.0
    for _, rows in cones.power_rows:
        least[rows[:, :-1]] = 0.0
    return least, most


def _diagonal(order: int) -> Indices:
    return np.cumsum(np.arange(1, order + 1)) - 1


def _activity(i: Indices, j: Indices, a: Array, low: Array, high: Array, rows: int) -> tuple[Array, Array, Array]:
    """(R,) least and most of A x, and the sum of the magnitudes that both are made of."""
    small = np.where(a > 0, a * low[j], a * high[j])
    large = np.where(a > 0, a * high[j], a * low[j])
    size = np.maximum(np.where(np.isfinite(small), np.abs(small), 0), np.where(np.isfinite(large), np.abs(large), 0))
    sums = (np.bincount(i, part, rows).astype(np.float64) for part in (small, large, size))
    return next(sums), next(sums), next(sums)


def _within_cones(program: ConicProgram, bottom: Array, top: Array, size: Array, least: Array, most: Array) -> None:
    """Narrow the bounds of s = b - A x by its rows, then by what the cones say of rows together."""
    cones, right = program.cones, program.right
    margin = _ROUNDING * (size + np.abs(right))
    np.maximum(least, right - top - margin, out=least)
    np.minimum(most, right - bottom + margin, out=most)
    for rows in cones.second_order_rows:
        head = np.maximum(most[rows[:, :1]], 0.0)
        most[rows[:, 1:]] = np.minimum(most[rows[:, 1:]], head)
        least[rows[:, 1:]] = np.maximum(least[rows[:, 1:]], -head)
    for order, span in cones.semidefinite_rows:
        root = np.sqrt(np.maximum(most[span.start + _diagonal(order)], 0.0))
        columns, rows = np.tril_indices(order)
        with np.errstate(invalid="ignore"):
            edge = np.where(rows == columns, 1.0, np.sqrt(2.0)) * root[rows] * root[columns] * (1 + _ROUNDING)
        edge = np.where(np.isnan(edge), np.inf, edge)
        most[span], least[span] = np.minimum(most[span], edge), np.maximum(least[span], -edge)
    for exponents, rows in cones.power_rows:
        with np.errstate(invalid="ignore"):
            edge = np.prod(np.maximum(most[rows[:, :-1]], 0.0) ** exponents, axis=1) * (1 + _ROUNDING)
        edge = np.where(np.isnan(edge), np.inf, edge)
        most[rows[:, -1]] = np.minimum(most[rows[:, -1]], edge)
        least[rows[:, -1]] = np.maximum(least[rows[:, -1]], -edge)
    _within_exponential(cones, least, most)


def _within_exponential(cones: Cones, least: Array, most: Array) -> None:
    """x <= y log(z / y), at most z / e: the largest over the interval of y at the largest z."""
    x, y, z = cones.exponential_rows.T
    if not len(x):
        return
    finite = np.isfinite(most[z])
    top = np.where(finite, np.maximum(most[z], 0.0), 1.0)
    at = np.clip(top / np.e, np.maximum(least[y], 0.0), np.maximum(most[y], np.maximum(least[y], 0.0)))
    with np.errstate(divide="ignore", invalid="ignore"):
        edge = np.where(at > 0, at * (np.log(top) - np.log(at)), 0.0)
    edge = edge + _ROUNDING * (np.abs(edge) + at)
    most[x] = np.where(finite, np.minimum(most[x], edge), most[x])


def _tightened(
    right: Array, entries: tuple[Indices, Indices, Array], cone: tuple[Array, Array], low: Array, high: Array
) -> None:
    """Narrow the bounds of the columns by b - most <= A x <= b - least."""
    i, j, a = entries
    least, most = cone
    rows = len(right)
    for small, edge in ((True, right - least), (False, right - most)):
        # a x_j <= edge - (least of the others); with the signs turned, a x_j >= edge - (most of the others)
        part = np.where((a > 0) == small, a * low[j], a * high[j])
        open_ = ~np.isfinite(part)
        finite = np.where(open_, 0.0, part)
        total, size = np.bincount(i, finite, rows), np.bincount(i, np.abs(finite), rows)
        others_open = np.bincount(i, open_, rows)[i] - open_
        bound = edge[i] - (total[i] - finite)
        bound = bound + (1 if small else -1) * _ROUNDING * (size[i] + np.abs(right)[i])
        usable = (others_open == 0) & np.isfinite(bound)
        value = np.where(usable, bound / a, np.nan)
        above = usable & ((a > 0) == small)
        below = usable & ~((a > 0) == small)
        np.minimum.at(high, j[above], value[above])
        np.maximum.at(low, j[below], value[below])


def _moved(before: tuple[Array, Array], after: tuple[Array, Array]) -> bool:
    for old, new in zip(before, after, strict=True):
        changed = old != new
        if np.any(np.isinf(old[changed])):
            return True
        if np.any(np.abs(old[changed] - new[changed]) > _GAIN * np.maximum(np.abs(old[changed]), 1e-300)):
            return True
    return False
