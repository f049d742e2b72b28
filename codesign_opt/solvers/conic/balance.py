"""Balance: a conic program brought to order one by symmetries of its cones.

Rows may be multiplied by whatever maps their cone to itself: a nonnegative row by any factor, a second-order cone by
one factor and a boost in its first two rows, a semidefinite one by a diagonal congruence, an exponential cone by one
factor and a shear, a power cone prod x_i^a_i >= |z| by p_i and prod p_i^a_i. Columns may be multiplied by anything.
The logarithms of these factors that bring the entries of A and b nearest to one are a least-squares problem (Curtis
and Reid 1972), so that neither the user's units nor the powers of them that enter a cone matter to the solver.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from ...basics.checks import Array, Indices, Mask
from ...basics.cones import Cones
from ...basics.factors import symmetric_solver

__all__ = ["Balance", "balanced"]

_ROUNDS = 3
_LOST = 64.0  # powers of two below one: an entry there counts less the further down it is
_FAINT = 0.02  # weight of an entry far below one: it may be small because it does not matter
_BESIDE, _FAINTER = 10.0, 1e-4  # powers of two below the rest of row and column; weights of such where others lead
_DECADES = 10.0  # powers of two that an exponential may be from the rest before it is moved there
_FREE, _FREER = 1e-3, 1e-8  # weights of factors that nothing is known of, near one
_HELD = 1.0  # weight of a column's known size against that of one entry


@dataclass(frozen=True, eq=False)
class Balance:
    """A scaled program: turn' diag(factors) turn shear (A diag(columns), b), and cost_factor diag(columns) c.

    The order of these products matters: c^2 <= a b with a and b twenty decades apart is known by a + b and a - b alone,
    which agree in every digit. `turn` tells them apart exactly before anything is multiplied.
    """

    shear: sparse.csr_array
    turn: sparse.csr_array
    factors: Array
    columns: Array
    cost_factor: float

    def rows(self, values: Any) -> Any:
        """A matrix or a vector of rows, scaled."""
        if sparse.issparse(values):
            turned = sparse.csr_array(self.turn @ (self.shear @ values))
            return self.turn.T @ (sparse.diags_array(self.factors) @ turned)
        return self.turn.T @ (self.factors * (self.turn @ (self.shear @ values)))

    def rounding(self, matrix: sparse.csc_array, right: Array, size: Array, scaled_dual: Array) -> float:
        """Most that rounding of the program's own data can add to scaled_dual . (b - A x), where |x| <= size.

        A program that states c^2 <= a b by a + b and a - b has lost what is below rounding of the larger one: a part
        1 beside 2e17 is not there. A dual that prices the smaller part must pay for that, however small the scaled
        entries are. Entries that agree in every digit have nothing of that part: a variable, or a number, that only
        the other one depends on. Where neither a variable nor a number is left of a part, its number was lost.
        """
        price = np.abs(self.factors * (self.turn @ scaled_dual)) / self.cost_factor
        spread = abs(self.turn) @ abs(self.shear)
        plain = sparse.csr_array(self.turn @ (self.shear @ matrix))
        number = self.turn @ (self.shear @ right)
        empty = (np.asarray(abs(plain).sum(axis=1)).ravel() == 0) & (number == 0)
        # |r0| == |r1| gives 0 and 2 r0: exact; else the sum is as uncertain as its summands
        lost = np.where((number == 0) & ~empty, 0.0, spread @ np.abs(right))
        summands = sparse.csr_array(spread @ abs(matrix)).multiply(plain != 0)
        return float(4 * np.finfo(np.float64).eps * price @ (lost + np.asarray(summands @ size)))

    def primal(self, scaled: Array) -> Array:
        return self.columns * scaled

    def dual(self, scaled: Array) -> Array:
        return np.asarray(self.shear.T @ (self.turn.T @ (self.factors * (self.turn @ scaled)))) / self.cost_factor


def balanced(
    cost: Array, matrix: sparse.csc_array, right: Array, cones: Cones, near: Array, *, known: float = _HELD,
    chosen: Mask | None = None, leading: bool = False,
) -> Balance:  # fmt: skip
    """The factors that bring A and b nearest to one.

    Args:
        near: (N,) sizes that the columns are thought to have; 0 where nothing is known.
        known: how sure that is, as a weight against one entry.
        chosen: (N,) columns that are not auxiliary, where it is known which.
        leading: the largest entries of rows and columns alone: where a sum has one summand that matters and many that
            do not, these would scale it by what it would be without the one.
    """
    shear = _shear(matrix, right, cones, near)
    if cones.exponential and chosen is not None:
        shear = _of_the_rest(matrix, right, cones, near, known, chosen) @ shear
    matrix, right = sparse.csc_array(shear @ matrix), shear @ right
    turn = _rotation(matrix, cones)
    turned = sparse.coo_array(turn @ matrix)
    turned_right = turn @ right
    share = _shares(cones, turn)
    logs, columns = _least_squares(turned, turned_right, share, near, known, leading=leading)
    # powers of four keep the data's digits: their square roots, in the rows between the first two, are powers of two
    factors = np.exp2(share @ (2 * np.round(logs / 2)))
    scale = np.exp2(np.round(columns))
    priced = np.abs(cost * scale)
    top = float(priced.max(initial=0.0))
    return Balance(shear, turn, factors, scale, 1 / top if top > 0 else 1.0)


def _shear(matrix: sparse.csc_array, right: Array, cones: Cones, near: Array) -> sparse.csr_array:
    """(R, R) the exponential cones' own symmetry, (x, y, z) to (x + y log k, y, k z), with k z of the size of y."""
    size = _sizes(matrix, right, near)
    x, y, z = cones.exponential_rows.T
    known = (size[y] > 0) & (size[z] > 0)
    shift = np.zeros(len(x))
    shift[known] = np.round(np.log2(size[y[known]] / size[z[known]]))
    return _sheared(cones, shift)


def _sizes(matrix: sparse.csc_array, right: Array, near: Array) -> Array:
    """(R,) the largest summand of each row, where columns have these sizes."""
    entries = np.asarray(abs(matrix).multiply(near[None, :]).max(axis=1).todense()).ravel()
    return np.asarray(np.maximum(entries, np.abs(right)))


def _sheared(cones: Cones, shift: Array) -> sparse.csr_array:
    """(R, R) the shear with base-2 logarithms of k in `shift`."""
    x, y, z = cones.exponential_rows.T
    diagonal = np.ones(len(cones))
    diagonal[z] = np.exp2(shift)
    off = sparse.coo_array((np.log(2.0) * shift, (x, y)), shape=(len(cones), len(cones)))
    return sparse.csr_array(sparse.diags_array(diagonal) + off)


def _of_the_rest(
    matrix: sparse.csc_array, right: Array, cones: Cones, near: Array, known: float, chosen: Mask,
) -> sparse.csr_array:  # fmt: skip
    """(R, R) the shear that makes exponentials of the design as large as what they are added to.

    An exponential that is a hundred decades above or below the rest at the reference will be of its size at the
    optimum, and k z = y there. A factor for z alone, in the least squares of the balance, finds that k; within some
    decades the solver needs none.
    """
    x, y, z = cones.exponential_rows.T
    size = _sizes(matrix, right, near)
    by_row = sparse.csr_array(matrix)
    others = np.asarray(abs(by_row[x]) @ ~chosen).ravel()
    free = z[(size[z] == 0) & (others == 0) & (size[y] > 0)]
    shift = np.zeros(len(x))
    if free.size:
        turn = _rotation(matrix, cones)
        own = sparse.coo_array((np.ones(len(free)), (free, free)), shape=(len(cones), len(cones)))
        share = sparse.csr_array(_shares(cones, turn) + own)
        logs = _least_squares(sparse.coo_array(turn @ matrix), turn @ right, share, near, known, _FREER)[0]
        wanted = logs[free]
        shift[np.isin(z, free)] = np.round(np.sign(wanted) * np.maximum(np.abs(wanted) - _DECADES, 0.0))
    return _sheared(cones, shift)


def _rotation(matrix: sparse.csc_array, cones: Cones) -> sparse.csr_array:
    """(R, R) orthogonal, symmetric: the first two rows p, q of a cone to (p + q, p - q)/sqrt(2) where that is sparser.

    cvxpy states c^2 <= a b as |(a - b, 2 c)| <= a + b; its symmetries are factors of a and b.
    """
    size = len(cones)
    diagonal, pairs = np.ones(size), []
    by_row = sparse.csr_array(matrix)
    for rows in cones.second_order_rows:
        if rows.shape[1] < 2:
            continue
        first, second = by_row[rows[:, 0]], by_row[rows[:, 1]]
        plus, minus = first + second, first - second
        counts = [np.diff(_clean(part).indptr) for part in (first, second, plus, minus)]
        pairs.append(rows[counts[2] + counts[3] < counts[0] + counts[1]][:, :2])
    both = np.concatenate(pairs) if pairs else np.zeros((0, 2), dtype=np.intp)
    half = np.sqrt(0.5)
    diagonal[both[:, 0]], diagonal[both[:, 1]] = half, -half
    off = (np.full(2 * len(both), half), (both.ravel(), both[:, ::-1].ravel()))
    return sparse.csr_array(sparse.diags_array(diagonal) + sparse.coo_array(off, shape=(size, size)))


def _clean(part: sparse.csr_array) -> sparse.csr_array:
    part = sparse.csr_array(part)
    part.eliminate_zeros()
    return part


def _shares(cones: Cones, turn: sparse.csr_array) -> sparse.csr_array:
    """(R, P) how the logarithm of each row's factor follows from the free ones."""
    size = len(cones)
    owner = cones.cone_of_row
    turned = np.isclose(turn.diagonal(), np.sqrt(0.5))  # first rows of rotated cones
    rotated = turned[owner] & (owner >= cones.zero + cones.nonnegative)
    semidefinite = np.zeros(size, dtype=bool)
    for _, span in cones.semidefinite_rows:
        semidefinite[span] = True
    ones = np.flatnonzero(~rotated & ~semidefinite)
    i, j, w = [ones], [owner[ones]], [np.ones(len(ones))]
    first = np.flatnonzero(turned)
    rest = np.flatnonzero(rotated & ~turned & ~np.isin(np.arange(size), first + 1))
    for rows, column in ((first, first), (first + 1, first + 1)):
        i, j, w = [*i, rows], [*j, column], [*w, np.ones(len(rows))]
    for shift in (0, 1):
        i, j, w = [*i, rest], [*j, owner[rest] + shift], [*w, np.full(len(rest), 0.5)]
    for order, span in cones.semidefinite_rows:
        # X to P X P with P diagonal: an entry has half the logarithm of each of its two diagonal entries' factors
        column, row = np.tril_indices(order)
        entries = np.arange(span.start, span.stop)
        diagonal = entries[column == row]
        for end in (row, column):
            i, j, w = [*i, entries], [*j, diagonal[end]], [*w, np.full(len(entries), 0.5)]
    shares = sparse.coo_array((np.concatenate(w), (np.concatenate(i), np.concatenate(j))), shape=(size, size))
    if not cones.power:
        return sparse.csr_array(shares)
    lil = sparse.lil_array(shares)
    for exponents, rows in cones.power_rows:
        groups: Any = rows.tolist()
        for group, weights in zip(groups, exponents, strict=True):
            for row in group[:-1]:
                lil[row, group[0]], lil[row, row] = 0.0, 1.0
            lil[group[-1], group[:-1]] = weights
    return sparse.csr_array(lil)


def _least_squares(
    entries: sparse.coo_array, right: Array, share: sparse.csr_array, near: Array, known: float, free: float = _FREE,
    *, leading: bool = False,
) -> tuple[Array, Array]:  # fmt: skip
    """Base-2 logarithms of the row parameters (P,) and of the columns' factors (N,)."""
    size, count = entries.shape
    i, j = entries.coords
    there = entries.data != 0
    i, j, value = i[there], j[there], np.abs(entries.data[there])
    fixed = np.flatnonzero(right)
    logs = np.log2(np.concatenate([value, np.abs(right[fixed])]))
    column = sparse.coo_array((np.ones(len(i)), (np.arange(len(i)), j)), shape=(len(logs), count))
    system = sparse.csr_array(sparse.hstack([share[np.concatenate([i, fixed])], column]))
    ridge = np.concatenate([np.full(size, free), np.where(near > 0, known, free)])
    middle = np.concatenate([np.zeros(size), np.log2(np.where(near > 0, near, 1.0))])
    counting, faint = _counting(value, i, j, size, count, leading), _FAINTER if leading else _FAINT
    weight, found = np.concatenate([counting, np.ones(len(fixed))]), middle
    for _ in range(_ROUNDS):
        weighted = sparse.csc_array(system.T @ sparse.diags_array(weight))
        normal = sparse.csc_array(weighted @ system + sparse.diags_array(ridge))
        found = symmetric_solver(normal)(ridge * middle - weighted @ logs)
        below = np.maximum(-(logs + system @ found), 1.0)
        weight = np.where(below > 6, faint * np.minimum(1.0, (_LOST / below) ** 2), 1.0)
    return found[:size], found[size:]


def _counting(value: Array, i: Indices, j: Indices, size: int, count: int, leading: bool) -> Array:
    """1 for entries to begin with; 0 for those that are lost beside the largest of their row and of their column.

    A narrow kernel falls to 1e-200 between levels that have nothing to do with each other. In logarithms one such entry
    would outweigh all others. Where the leading ones are to decide, next to 0 for all that are far below them.
    """
    rows, columns = np.zeros(size), np.zeros(count)
    np.maximum.at(rows, i, value)
    np.maximum.at(columns, j, value)
    beside = np.log2(value) - np.log2(np.minimum(rows[i], columns[j]))
    led = np.where(beside < -_BESIDE, _FAINTER, 1.0) if leading else 1.0
    return np.where(beside < -_LOST, 0.0, led)
