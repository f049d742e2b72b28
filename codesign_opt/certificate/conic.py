"""Lower bounds from the conic dual, for what has no separable form: kinks, cones, auxiliary variables.

docs/theory.md section 8.3. For min c'x subject to A x + s = b with s in K, every z in the dual cone K* gives, at every
feasible x, c'x >= -b'z + (c + A'z)'x: add z'(A x + s - b) = 0 and drop z's >= 0. Where |x_j| <= X_j, what z leaves of a
column costs |c + A'z|_j X_j (Jansson 2004; Jansson, Chaykin and Keil 2007). A solver's z lies in K* and meets the
equations only about: it is moved into K* cone by cone, corrected within K*, and what is left is charged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import sparse

from ..basics.checks import Array, Indices, Mask
from ..basics.cones import Cones
from ..basics.factors import symmetric_solver

__all__ = ["ConicProgram", "into_dual"]

_EPS = float(np.finfo(np.float64).eps)
_CORRECTIONS = 8


@dataclass(frozen=True, eq=False)
class ConicProgram:
    """min cost . x subject to matrix x + s = right, s in the cones.

    Args:
        cost: (N,) c.
        matrix: (R, N) A.
        right: (R,) b.
        cones: of the R rows, in order.

    >>> import numpy as np
    >>> from scipy import sparse
    >>> program = ConicProgram(np.ones(1), sparse.csc_array([[-1.0]]), np.array([-2.0]), Cones(nonnegative=1))  # x >= 2
    >>> round(program.lower_bound(np.array([0.9]), np.zeros(1), np.full(1, np.inf)), 9)
    1.8
    """

    cost: Array
    matrix: sparse.csc_array
    right: Array
    cones: Cones

    @cached_property
    def _transposed(self) -> sparse.csr_array:
        return sparse.csr_array(self.matrix.T)

    @cached_property
    def _magnitude(self) -> sparse.csr_array:
        return abs(self._transposed)

    def reduced(self, dual: Array) -> Array:
        """(N,) c + A'z."""
        return np.asarray(self.cost + self._transposed @ dual)

    def constant(self, dual: Array) -> float:
        """-b'z, rounded down."""
        return float(-self.right @ dual) - 4 * _EPS * float(np.abs(self.right) @ np.abs(dual))

    def lower_bound(self, dual: Array, low: Array, high: Array) -> float:
        """No feasible x with low <= x <= high costs less; -inf where a needed bound is infinite.

        `dual` may be any numbers: it is moved into the dual cone first. Rounding of c + A'z is charged where both
        bounds of a column are finite.
        """
        inside = into_dual(dual, self.cones)
        slope = self.reduced(inside)
        with np.errstate(invalid="ignore"):
            least = np.where(slope > 0, slope * low, np.where(slope < 0, slope * high, 0.0))
        size = np.maximum(np.abs(low), np.abs(high))
        charged = self.rounding(inside, np.where(np.isfinite(size), size, 0.0))
        return self.constant(inside) + float(least.sum()) - charged

    def rounding(self, dual: Array, size: Array) -> float:
        """Most that rounding of c + A'z can change of its product with a point of these magnitudes."""
        return float(4 * _EPS * (np.abs(self.cost) + self._magnitude @ np.abs(dual)) @ size)

    def columns(self, kept: Mask) -> ConicProgram:
        """The same program with some columns only."""
        return replace(self, cost=self.cost[kept], matrix=self.matrix[:, kept])

    def corrected(self, dual: Array, free: Mask) -> Array:
        """A point of K* near `dual` whose c + A'z vanishes on the columns `free`, as far as rounding lets it.

        Each correction is the least in the metric of the dual barrier at z: it moves entries in proportion to their
        distance from the boundary, so that small ones stay in the cone (Nesterov and Nemirovskii 1994).
        """
        needed = sparse.csr_array(self._transposed[np.flatnonzero(free)])
        best = z = into_dual(dual, self.cones)
        wanted = self.cost[free]
        least = float(np.abs(wanted + needed @ z).sum())
        for _ in range(_CORRECTIONS):
            left = wanted + needed @ z
            try:
                step = _least_step(needed, metric_root(z, self.cones), -left)
            except np.linalg.LinAlgError:  # a metric whose entries span all that floats do
                break
            if step is None:
                break
            z = into_dual(z + step, self.cones)
            size = float(np.abs(wanted + needed @ z).sum())
            if not size < 0.5 * least:
                return z if size < least else best
            best, least = z, size
        return best


def _least_step(needed: sparse.csr_array, root: sparse.csc_array, gap: Array) -> Array | None:
    """The step d = F w of least |w| with needed d = gap, F the root of the metric; None where that is singular.

    By [[-I, (N F)'], [N F, 0]], which stays as sparse as the program where N F F' N' fills up.
    """
    spread = sparse.csr_array(needed @ root)
    size = np.sqrt(np.asarray(spread.multiply(spread).sum(axis=1)).ravel())
    scale = 1 / np.where(size > 0, size, 1.0)
    scaled = sparse.diags_array(scale) @ spread
    equations, rows = spread.shape
    blocks = [[-sparse.eye_array(rows), scaled.T], [scaled, 1e-13 * sparse.eye_array(equations)]]
    try:
        solve = symmetric_solver(sparse.block_array(blocks, format="csc"))
    except RuntimeError:
        return None
    step, left = np.zeros(rows), gap
    for _ in range(3):  # iterative refinement: the regularisation and the condition leave something
        step = step + root @ solve(np.concatenate([np.zeros(rows), scale * left]))[:rows]
        left = gap - needed @ step
    return step if np.all(np.isfinite(step)) else None


def into_dual(dual: Array, cones: Cones) -> Array:
    """The point moved into the dual cone, by a little more than rounding."""
    z = np.where(np.isfinite(dual), dual, 0.0)
    z[cones.nonnegative_rows] = np.maximum(z[cones.nonnegative_rows], 0.0)
    for rows in cones.second_order_rows:
        block = z[rows]
        tail = np.linalg.norm(block[:, 1:], axis=1) * (1 + 4 * _EPS * rows.shape[1])
        z[rows[:, 0]] = np.maximum(block[:, 0], tail)
    for order, span in cones.semidefinite_rows:
        z[span] = _into_semidefinite(z[span], order)
    if cones.exponential:
        z[cones.exponential_rows] = _into_exponential(z[cones.exponential_rows])
    for exponents, rows in cones.power_rows:
        z[rows] = _into_power(z[rows], exponents)
    return z


def _into_semidefinite(entries: Array, order: int) -> Array:
    """Shifted along the identity until the least eigenvalue is surely >= 0."""
    matrix = _matrix(entries, order)
    least = float(np.linalg.eigvalsh(matrix)[0])
    margin = 8 * order * _EPS * float(np.linalg.norm(matrix))
    if least < margin:
        rows, columns = _triangle(order)
        entries = entries + np.where(rows == columns, margin - least, 0.0)
    return entries


def _triangle(order: int) -> tuple[Indices, Indices]:
    """Row and column of every entry of the upper triangle, by column."""
    columns, rows = np.tril_indices(order)
    return rows, columns


def _matrix(entries: Array, order: int) -> Array:
    rows, columns = _triangle(order)
    matrix = np.zeros((order, order))
    values = np.where(rows == columns, entries, entries / np.sqrt(2))
    matrix[rows, columns] = matrix[columns, rows] = values
    return matrix


def _into_exponential(block: Array) -> Array:
    """K* of y exp(x/y) <= z: u < 0 and -u exp(v/u - 1) <= w, or u = 0 with v, w >= 0.

    The violated inequality is mended in w or in v, by the smaller change.
    """
    u, v, w = np.minimum(block[:, 0], 0.0), block[:, 1], np.maximum(block[:, 2], 0.0)
    with np.errstate(all="ignore"):
        top = -u * np.exp(np.minimum(v / u - 1, 700.0)) * (1 + 8 * _EPS * (2 + np.abs(v / u)))
        shift = np.log(w / -u)
        level = u * (1 + shift)
        level = level + 8 * _EPS * np.abs(u) * (2 + np.abs(shift))
        flat = u > -1e-300
        lacking = ~flat & ~((top <= w) & np.isfinite(top))
        raise_v = lacking & (w > 0) & np.isfinite(level) & ~(top - w <= level - v)
    raised_w = np.where(lacking & ~raise_v & np.isfinite(top), np.maximum(top, w), w)
    raised_v = np.where(raise_v, np.maximum(level, v), np.where(flat, np.maximum(v, 0.0), v))
    moved = np.stack([np.where(flat, 0.0, u), raised_v, raised_w], axis=1)
    with np.errstate(all="ignore"):
        good = flat | (-u * np.exp(raised_v / u - 1) <= raised_w)
    return np.where(good[:, None], moved, np.stack([np.zeros_like(u), np.maximum(v, 0.0), w], axis=1))


def _into_power(block: Array, a: Array) -> Array:
    """K* of prod x_i^a_i >= |z|: prod (u_i/a_i)^a_i >= |w|; mended in w, the last coordinate."""
    u, w = np.maximum(block[:, :-1], 0.0), block[:, -1:]
    top = np.prod((u / a) ** a, axis=1, keepdims=True) * (1 - 16 * _EPS)
    return np.concatenate([u, np.clip(w, -top, top)], axis=1)


def metric_root(z: Array, cones: Cones) -> sparse.csc_array:
    """(R, R) block diagonal F: z + F w stays inside K*, about, for |w| < 1.

    F F' is the inverse Hessian of the dual barrier for nonnegative, second-order and semidefinite rows; for exponential
    and power cones, the entries' own sizes along the boundary and the distance from it across.
    """
    blocks: list[tuple[Indices, Array]] = []  # (k, d) rows with (k, d, d) numbers
    first = np.arange(cones.zero + cones.nonnegative)[:, None]
    size = max(float(np.max(np.abs(z), initial=0.0)), 1e-300)
    flat = z[first[:, 0]] ** 2
    flat[: cones.zero] = size**2
    blocks.append((first, flat[:, None, None]))
    for rows in cones.second_order_rows:
        blocks.append((rows, _second_order_metric(z[rows])))
    for order, span in cones.semidefinite_rows:
        blocks.append((np.arange(span.start, span.stop)[None, :], _semidefinite_metric(z[span], order)[None]))
    if cones.exponential:
        rows = cones.exponential_rows
        blocks.append((rows, _metric_across(z[rows], *_exponential_normal(z[rows]))))
    for exponents, rows in cones.power_rows:
        blocks.append((rows, _metric_across(z[rows], *_power_normal(z[rows], exponents))))
    data = np.concatenate([_roots(values).ravel() for _, values in blocks])
    i = np.concatenate([np.repeat(rows, rows.shape[1], axis=1).ravel() for rows, _ in blocks])
    j = np.concatenate([np.tile(rows, (1, rows.shape[1])).ravel() for rows, _ in blocks])
    return sparse.csc_array((data, (i, j)), shape=(len(z), len(z)))


def _roots(blocks: Array) -> Array:
    """(k, d, d) F with F F' each of the blocks, which are positive semidefinite."""
    size = np.sqrt(np.maximum(np.einsum("kii->ki", blocks), 0.0))
    size = np.where(size > 0, size, 1.0)
    values, vectors = np.linalg.eigh(blocks / size[:, :, None] / size[:, None, :])
    return np.asarray(size[:, :, None] * vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :])


def _second_order_metric(block: Array) -> Array:
    """z z' - (det z / 2) J, the inverse Hessian of -log det z."""
    tail = np.linalg.norm(block[:, 1:], axis=1)
    half = 0.5 * np.maximum((block[:, 0] - tail) * (block[:, 0] + tail), 0.0)
    metric = block[:, :, None] * block[:, None, :]
    index = np.arange(block.shape[1])
    metric[:, index, index] += half[:, None] * np.where(index == 0, -1.0, 1.0)
    return metric


def _semidefinite_metric(entries: Array, order: int) -> Array:
    """D -> Z D Z in the coordinates of the triangle."""
    matrix = _matrix(entries, order)
    rows, columns = _triangle(order)
    weight = np.where(rows == columns, 1.0, np.sqrt(2))
    product = matrix[np.ix_(rows, rows)] * matrix[np.ix_(columns, columns)]
    product = product + matrix[np.ix_(rows, columns)] * matrix[np.ix_(columns, rows)]
    return np.asarray(0.5 * weight[:, None] * weight[None, :] * product)


def _metric_across(block: Array, normal: Array, distance: Array) -> Array:
    """In units of the entries' sizes: 1 along the boundary, the squared distance across it."""
    size = np.abs(block)
    scaled = normal * size
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit = scaled / np.where(length > 0, length, 1.0)
    across = (np.clip(distance, 1e-14, 1.0) ** 2 - 1)[:, None, None] * unit[:, :, None] * unit[:, None, :]
    return (np.eye(block.shape[1]) + across) * size[:, :, None] * size[:, None, :]


def _exponential_normal(block: Array) -> tuple[Array, Array]:
    """Gradient of v - u - u log(w / -u) over its size, and that relative distance from 0."""
    u, v, w = np.minimum(block[:, 0], -1e-300), block[:, 1], np.maximum(block[:, 2], 1e-300)
    logs = np.log(w) - np.log(-u)
    size = np.abs(u) * (1 + np.abs(logs)) + np.abs(v)
    slack = v - u - u * logs
    return np.stack([-logs, np.ones_like(u), -u / w], axis=1), slack / size


def _power_normal(block: Array, a: Array) -> tuple[Array, Array]:
    """Gradient of prod (u_i/a_i)^a_i - |w|, and the relative distance from the boundary."""
    u, w = np.maximum(block[:, :-1], 1e-300), block[:, -1]
    top = np.maximum(np.prod((u / a) ** a, axis=1), 1e-300)
    return np.concatenate([a * top[:, None] / u, -np.sign(w)[:, None]], axis=1), 1 - np.abs(w) / top
