"""Shortest paths whose neighbouring intervals must be alike: exact over pairs of nodes, or by a beam in windows.

The cost of a path gains weight sum_k |h_(k+1) - h_k|^exponent, h_k = x_(i_(k+1)) - x_(i_k): it couples three nodes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...basics.checks import AT_ONCE, Array, Indices, integer, matrix, number, takes, vector
from ...basics.user_code import answer_on
from .interval_cost import _fits

__all__ = ["beam_path", "path_cost", "smooth_path"]

RowCost = Callable[[Indices, Indices], Array]

_STEEPEST = 100.0  # exponent
_LARGEST = np.log(1e300)
_COST = "beam_path: cost(i, j)"


def path_cost(cost: Array, places: Array, path: Indices, *, weight: float = 0.0, exponent: float = 2.0) -> float:
    """Sum of interval costs of one path and its penalty, weight sum |h_(k+1) - h_k|^exponent.

    >>> path_cost(np.ones((3, 3)), np.array([0.0, 1.0, 3.0]), np.array([0, 1, 2]), weight=2.0)
    4.0
    """
    at, costs = vector(places, "places"), matrix(cost, "cost")
    index = vector(path, "path", nonnegative=True).astype(np.intp)
    if costs.shape != (at.size, at.size) or index.max() >= at.size:
        raise ValueError(
            f"path_cost: cost has shape {costs.shape} and path reaches {index.max()}, of {at.size} places."
        )
    weight, exponent = number(weight, "weight"), number(exponent, "exponent", positive=True)
    bends = np.diff(at[index], 2)
    return float(costs[index[:-1], index[1:]].sum() + weight * (np.abs(bends) ** exponent).sum())


def smooth_path(cost: Array, places: Array, intervals: int, *, weight: float, exponent: float = 2.0) -> Indices:
    """Exact least cost plus smoothness penalty, by a program over pairs of nodes, O(K N^3).

    The loss-adaptive schedule's equation (F.1) (entropy-based convergence, 2026, appendix F.2), solved exactly.

    Args:
        cost: (N, N), read above the diagonal.
        places: (N,) ascending, in which steps should be alike: log-SNR.
        intervals: K, from 1 to N - 1.
        weight: >= 0; with 0 the path is that of `shortest_path`.
        exponent: power of the differences, >= 1.

    Returns:
        (K+1,) ascending indices, 0 and N - 1 included.

    Raises:
        ValueError: sizes that do not match, a value out of its range.

    >>> costs = np.array([[0.0, 0.0, 0.1, 9.0], [0.0, 0.0, 9.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0] * 4])
    >>> x = np.array([0.0, 0.1, 1.0, 2.0])
    >>> [smooth_path(costs, x, 2, weight=w).tolist() for w in (0.0, 1.0)]
    [[0, 1, 3], [0, 2, 3]]
    """
    x = vector(places, "places", ascending=True)
    table = matrix(cost, "cost", shape=(x.size, x.size))
    size, intervals = x.size, _fits(x.size, intervals)
    penalty, power = _penalty(weight, exponent, x)
    value = np.full((size, size), np.inf)  # of paths whose last interval is (j, l)
    value[0, 1:] = table[0, 1:]
    came = []
    for k in range(2, intervals + 1):
        value, source = _extend(table, x, value, k, intervals, penalty, power)
        came.append(source)
    last = int(value[:-1, -1].argmin())
    path = [size - 1, last]
    for source in reversed(came):
        path.append(int(source[path[-1], path[-2]]))
    return np.array(path[::-1])


def _extend(
    table: Array, x: Array, value: Array, k: int, intervals: int, penalty: float, power: float
) -> tuple[Array, Indices]:
    """Paths of k intervals from those of k - 1: the best i before every pair (j, l)."""
    size = x.size
    longer, source = np.full((size, size), np.inf), np.zeros((size, size), dtype=np.intp)
    ends = size - (intervals - k)  # room for the intervals that are still to come
    for j in range(k - 1, ends - 1):
        targets = np.arange(j + 1, ends) if k < intervals else np.array([size - 1])
        before = np.flatnonzero(np.isfinite(value[:j, j]))
        bend = np.abs((x[targets] - x[j])[None, :] - (x[j] - x[before])[:, None])
        total = value[before, j][:, None] + penalty * (bend * bend if power == 2 else bend**power)
        row = total.argmin(axis=0)
        longer[j, targets] = table[j, targets] + total[row, np.arange(targets.size)]
        source[j, targets] = before[row]
    return longer, source


@takes(cost=callable)
def beam_path(
    cost: RowCost,
    places: Array,
    intervals: int,
    *,
    weight: float,
    exponent: float = 2.0,
    beam: int = 8,
    window: int = 12,
    spread: int = 16,
) -> Indices:
    """Nearly least cost plus smoothness penalty for many candidates: the paper's algorithm 2, beam and window.

    Of all paths that end at a node the `beam` best are kept. A path is tried on the nodes around the place where
    its last step would repeat, and on a few over the whole range (entropy-based convergence, 2026, appendix F.2).

    Args:
        cost: cost(i, j) of intervals for index arrays that broadcast.
        places, intervals, weight, exponent: as in `smooth_path`.
        beam: paths kept per node.
        window: nodes tried on both sides of the predicted one.
        spread: nodes tried over the whole range.

    Returns:
        (K+1,) ascending indices.

    Raises:
        ValueError: as in `smooth_path`.

    >>> beam_path(lambda i, j: (j - i) ** 2.0, np.arange(9.0), 2, weight=1.0).tolist()
    [0, 4, 8]
    """
    x = vector(places, "places", ascending=True)
    size, intervals = x.size, _fits(x.size, intervals)
    penalty, power = _penalty(weight, exponent, x)
    width, wide = (
        integer(window, "window", minimum=1, maximum=AT_ONCE),
        integer(spread, "spread", minimum=0, maximum=AT_ONCE),
    )
    kept = integer(beam, "beam", minimum=1)
    shared = np.unique(np.linspace(0, size - 1, wide).round().astype(np.intp)) if wide else np.zeros(0, np.intp)
    end = np.arange(1, size - intervals + 1) if intervals > 1 else np.array([size - 1])
    value = answer_on(cost, (np.zeros_like(end), end), _COST)
    step = x[end] - x[0]
    history: list[tuple[Indices, Indices]] = [(end, np.zeros_like(end))]  # ends of the kept paths, and their parents
    for k in range(2, intervals + 1):
        latest = size - 1 - (intervals - k)  # room for the intervals that are still to come
        tried = np.full((end.size, 1), latest) if k == intervals else _tried(x, end, step, latest, width, shared)
        parent, column = np.nonzero((tried > end[:, None]) & (tried <= latest))
        target = tried[parent, column]
        length = x[target] - x[end[parent]]
        total = value[parent] + answer_on(cost, (end[parent], target), _COST)
        if penalty:
            with np.errstate(over="ignore"):
                total += penalty * np.abs(length - step[parent]) ** power
        order = np.lexsort((total, target))
        order = order[_rank_in_group(target[order]) < kept]
        history.append((target[order], parent[order]))
        end, value, step = target[order], total[order], length[order]
    at, path = int(value.argmin()), []
    for ends, parents in reversed(history):
        path.append(int(ends[at]))
        at = int(parents[at])
    return np.array([0, *path[::-1]])


def _tried(x: Array, end: Indices, step: Array, latest: int, width: int, shared: Indices) -> Indices:
    """(paths, trials) nodes around where each path's step would repeat, and the shared ones; -1 where one is twice."""
    centre = np.clip(np.searchsorted(x, x[end] + step), end + 1, latest)[:, None]
    near = centre + np.arange(-width, width + 1)
    far = np.where(np.abs(shared - centre) <= width, -1, shared)
    return np.concatenate([near, far], axis=1)


def _rank_in_group(sorted_keys: Indices) -> Indices:
    """Place of every entry among the equal keys before it."""
    start = np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]])
    first = np.maximum.accumulate(np.where(start, np.arange(sorted_keys.size), 0))
    return np.arange(sorted_keys.size) - first


def _penalty(weight: float, exponent: float, places: Array) -> tuple[float, float]:
    power = number(exponent, "exponent", positive=True, maximum=_STEEPEST)
    if power < 1:
        raise ValueError(f"exponent is {power:g}; it must be >= 1.")
    penalty, span = number(weight, "weight", nonnegative=True), float(places[-1] / 2 - places[0] / 2)
    if np.log(max(penalty, 1.0)) + power * (np.log(span) + np.log(2.0)) > _LARGEST:
        raise ValueError(
            f"weight is {penalty:g} and exponent {power:g} on places {2 * span:.3g} apart; the penalty leaves float64, "
            "rescale the places."
        )
    return penalty, power
