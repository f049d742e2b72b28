"""Schedules as shortest paths: the least sum of interval costs over a grid of candidates, whatever the cost.

Loss-adaptive schedules, Align Your Steps and GITS all choose K + 1 of N nodes, ends included, so that a sum of
costs of the intervals between them is least. They differ in the cost; what finds the nodes is here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import isotonic_regression

from ...basics.checks import AT_ONCE, Array, Indices, boolean, entries, integer, matrix, number, takes, vector
from ...basics.user_code import answer_on

__all__ = ["coordinate_search", "monotone", "shortest_path", "shortest_path_of_lines"]

IntervalCost = Callable[[Array, Array], Array]
Line = tuple[float, float, int]  # slope, intercept, index
_ZOOM = np.linspace(0.0, 1.0, 11)[1:-1]  # trial places between two neighbours
_ROUNDS = 11  # each narrows the search to a fifth: 2e-8 of the distance between the neighbours


def shortest_path(cost: Array, intervals: int, *, growth: float = 1.0) -> Indices:
    """Indices of K + 1 nodes from first to last with the least sum_k growth^k cost[i_k, i_(k+1)], O(K N^2).

    Args:
        cost: (N, N), of which only entries above the diagonal are read; any sign.
        intervals: K, from 1 to N - 1.
        growth: factor per interval on the cost of later ones; GITS takes 1.15, the others 1.

    Returns:
        (K+1,) ascending indices, 0 and N - 1 included; of paths that cost the same, one.

    Raises:
        ValueError: a cost that is not square, more intervals than fit, growth <= 0.

    >>> shortest_path(np.array([[0.0, 1.0, 9.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]), 2).tolist()
    [0, 1, 2]
    """
    table = matrix(cost, "cost")
    size, intervals = table.shape[0], _fits(table.shape[0], intervals)
    table = np.where(np.tri(size, dtype=bool), np.inf, matrix(cost, "cost", shape=(size, size)))
    factor = number(growth, "growth", positive=True)
    value, following = table[:, -1], []
    for _ in range(intervals - 1):
        with np.errstate(over="ignore"):  # such a path is infinitely long
            total = table + factor * value
        following.append(total.argmin(axis=1))
        value = total.min(axis=1)
    path = [0]
    for step in reversed(following):
        path.append(int(step[path[-1]]))
    return np.array([*path, size - 1])


def shortest_path_of_lines(axis: Array, slopes: Array, intervals: int) -> Indices:
    """Shortest path for the cost (u_j - u_i) l_i with l non-increasing, in O(K N) by a moving convex hull.

    What a path costs at node j is the lowest of the lines that its predecessors draw, with slopes l_i in u_j:
    lines come in order of falling slope and are asked in order of growing u, so each enters and leaves once.

    Args:
        axis: (N,) ascending u.
        slopes: (N,) non-increasing l; `monotone` makes it so.
        intervals: K, from 1 to N - 1.

    Returns:
        (K+1,) ascending indices: those of `shortest_path` on the same cost.

    Raises:
        ValueError: sizes that differ, slopes that grow, more intervals than fit.

    >>> shortest_path_of_lines(np.array([0.0, 1.0, 2.0, 3.0]), np.array([4.0, 1.0, 1.0, 1.0]), 2).tolist()
    [0, 1, 3]
    """
    u = vector(axis, "axis", ascending=True)
    slope = vector(slopes, "slopes", length=u.size)
    size, intervals = u.size, _fits(u.size, intervals)
    if np.any(np.diff(slope) > 0):
        i = int(np.argmax(np.diff(slope) > 0))
        raise ValueError(f"slopes grow from {slope[i]:g} to {slope[i + 1]:g} at index {i}; use `monotone` first.")
    places, gradient = u.tolist(), slope.tolist()
    value = [0.0, *[np.inf] * (size - 1)]
    came: list[list[int]] = []
    for k in range(1, intervals + 1):
        value, source = _relax(places, gradient, value, k)
        came.append(source)
    path = [size - 1]
    for source in reversed(came):
        path.append(source[path[-1]])
    return np.array(path[::-1])


def _relax(u: list[float], slope: list[float], value: list[float], first: int) -> tuple[list[float], list[int]]:
    """One more interval: the least value[i] + (u_j - u_i) slope_i over i < j, for every j >= first."""
    size = len(u)
    best, source = [np.inf] * size, [0] * size
    hull: list[Line] = []  # the lines that are lowest somewhere
    front = 0
    for j in range(first, size):
        i = j - 1
        line = (slope[i], value[i] - u[i] * slope[i], i)
        higher = len(hull) > front and hull[-1][0] == line[0] and hull[-1][1] <= line[1]
        if value[i] < np.inf and not higher:
            while len(hull) > front and hull[-1][0] == line[0]:
                hull.pop()
            while len(hull) - front >= 2 and _never_lowest(hull[-2], hull[-1], line):
                hull.pop()
            hull.append(line)
        while front + 1 < len(hull) and _at(hull[front + 1], u[j]) < _at(hull[front], u[j]):
            front += 1
        best[j], source[j] = _at(hull[front], u[j]), hull[front][2]
    return best, source


def _at(line: Line, u: float) -> float:
    return line[0] * u + line[1]


def _never_lowest(left: Line, middle: Line, right: Line) -> bool:
    return (right[1] - left[1]) * (left[0] - middle[0]) <= (middle[1] - left[1]) * (left[0] - right[0])


def monotone(values: Array, weights: Array | None = None, *, decreasing: bool = True) -> Array:
    """The monotone sequence nearest to the values in (weighted) least squares: isotonic regression.

    A risk falls with the signal-to-noise ratio; one that was measured does so only up to its noise.

    Args:
        values: (N,).
        weights: (N,) > 0, or None for equal ones; the inverse variance of every value is best.
        decreasing: non-increasing (True) or non-decreasing.

    Raises:
        ValueError: sizes that differ, a weight that is not positive.

    >>> monotone(np.array([3.0, 1.0, 2.0])).tolist()
    [3.0, 1.5, 1.5]
    """
    wanted = vector(values, "values")
    weight = None if weights is None else vector(weights, "weights", length=wanted.size, positive=True)
    return np.asarray(isotonic_regression(wanted, weights=weight, increasing=not boolean(decreasing, "decreasing")).x)


@takes(cost=callable)
def coordinate_search(
    cost: IntervalCost, nodes: Array, *, frozen: Array | None = None, sweeps: int = 300, tolerance: float = 1e-9
) -> Array:
    """Nodes that no single move improves: each in turn goes to the best place between its neighbours.

    The sum of cost(x_k, x_(k+1)) never grows. Every second node is moved at once, as these do not touch.

    Args:
        cost: cost(left, right) of intervals, arrays of one shape, any of it smooth in both.
        nodes: (K+1,) ascending start; the ends stay.
        frozen: (K+1,) True where a node must stay, or None.
        sweeps: most passes over all nodes.
        tolerance: it ends when no node has moved by more.

    Returns:
        (K+1,) ascending nodes.

    Raises:
        ValueError: nodes that do not ascend, frozen of another length.

    >>> coordinate_search(lambda a, b: (b - a) ** 2, np.array([0.0, 0.1, 1.0])).round(6).tolist()
    [0.0, 0.5, 1.0]
    """
    x = np.array(vector(nodes, "nodes", minimum_length=2, ascending=True))
    movable = np.ones(x.size, dtype=bool)
    if frozen is not None:
        kept = entries(frozen, "frozen", most=x.size)
        movable = ~np.array([boolean(one, f"frozen[{k}]") for k, one in enumerate(kept)], dtype=bool)
        if movable.size != x.size:
            raise ValueError(f"frozen has {movable.size} entries; {x.size} are needed, one for each node.")
    movable[[0, -1]] = False
    small = number(tolerance, "tolerance", nonnegative=True)
    groups = [np.flatnonzero(movable & (np.arange(x.size) % 2 == parity)) for parity in (0, 1)]
    for _ in range(integer(sweeps, "sweeps", minimum=1, maximum=AT_ONCE)):
        before = x.copy()
        for group in groups:
            if group.size:
                x[group] = _between(cost, x[group - 1], x[group], x[group + 1])
        if np.max(np.abs(x - before)) <= small:
            break
    return x


def _between(cost: IntervalCost, left: Array, here: Array, right: Array) -> Array:
    """(G,) the best place between two neighbours each, by narrowing a row of trial places; `here` if none is better."""

    def total(x: Array) -> Array:
        shape = np.broadcast_shapes(x.shape, left.shape)
        ends = np.broadcast_to(left, shape), np.broadcast_to(x, shape), np.broadcast_to(right, shape)
        first, second = (answer_on(cost, ends[k : k + 2], "coordinate_search: cost(left, right)") for k in (0, 1))
        return first + second

    low, high, best = left, right, here
    lowest = total(here)
    for _ in range(_ROUNDS):
        trials = low + (high - low) * _ZOOM[:, None]
        values = total(trials)
        row, each = values.argmin(axis=0), np.arange(left.size)
        better = values[row, each] < lowest
        best = np.where(better, trials[row, each], best)
        lowest = np.minimum(lowest, values[row, each])
        reach = (high - low) / (_ZOOM.size + 1)
        low, high = np.maximum(best - reach, left), np.minimum(best + reach, right)
    return best


def _fits(size: int, intervals: int) -> int:
    found = integer(intervals, "intervals", minimum=1)
    if found > size - 1:
        raise ValueError(f"intervals is {found}, but {size} candidates have {size - 1} at most; take more candidates.")
    return found
