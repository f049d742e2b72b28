"""Descent of a grid's exact error, a sum of squares: damped Newton steps in log sigma (docs/theory.md section 7.8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..basics.checks import Array

__all__ = ["Cost", "DescendedNodes", "Descent", "GridResiduals", "NodeErrors", "descend_nodes"]

_DAMPING, _LEAST, _MOST = 1e-2, 1e-9, 1e9
_SHORTEST = 0.2  # a step in log sigma keeps at least this share of its length in one move, and grows at most 1/this
_FLOOR = 1e-3  # no step is shorter than this share of the mean step in log sigma
_PAIRS = 8  # moves whose change of slope corrects the Hessian


class GridResiduals(NamedTuple):
    """A grid's squared error as a sum of squares, with what a Newton step needs.

    Args:
        values: (R,) residuals, whose squares sum to the error.
        by_node: (R, P) derivatives by log sigma of the positive nodes.
        curvature: (P-1,) sum of residuals times their second derivatives by the length of each step in log sigma.
    """

    values: Array
    by_node: Array
    curvature: Array


class NodeErrors(NamedTuple):
    """Something for the errors of every positive node: amounts, or weights of a sum.

    Args:
        reducible, floor: (P,) error per 1/m, and what no example removes.
        untrained: (P,) error without any example; None where nothing bounds it.
    """

    reducible: Array
    floor: Array
    untrained: Array | None = None


Cost = Callable[[Array], tuple[float, Array]]
"""What a grid (K+1,) costs beside its own error, and the (P,) derivatives by log sigma of its positive nodes."""


class DescendedNodes(NamedTuple):
    """A grid at a local minimum, its error with what its end costs, and the moves it took."""

    sigmas: Array
    error: float
    moves: int


@dataclass(frozen=True)
class Descent:
    """What descends, and how far.

    Args:
        residuals: of a grid (K+1,); their squares sum to its error.
        cost: what the grid costs beside; None where nothing.
        stops: logarithms of the range of the last positive node; None keeps it.
        moves: the most evaluations.
        enough: relative decrease below which two moves in a row end the descent.
    """

    residuals: Callable[[Array], GridResiduals]
    cost: Cost | None = None
    stops: tuple[float, float] | None = None
    moves: int = 60
    enough: float = 1e-8


def descend_nodes(sigmas: Array, how: Descent) -> DescendedNodes:
    """Local minimum of |residuals|^2 plus cost over the nodes below the first; never worse than `sigmas`.

    Newton steps with J'J and the curvature of the steps' own errors for the Hessian, corrected by the slopes of the
    last moves, damped in relative changes of the steps in log sigma, so that every iterate is a grid.

    Args:
        sigmas: (K+1,) descending grid to start from.
        how: what descends.
    """
    tail, kept = sigmas[sigmas == 0], sigmas[sigmas > 0]
    logs = np.log(kept) if how.stops is None else _within(np.log(kept), how.stops)
    free = slice(1, logs.size if how.stops is not None else logs.size - 1)

    def at(logs: Array) -> _Here:
        nodes = np.exp(logs)
        nodes[0] = kept[0]
        if how.stops is None:
            nodes[-1] = kept[-1]
        return _here(how, np.concatenate([nodes, tail]), logs)

    now, damping, small, count = at(logs), _DAMPING, 0, 1
    pairs: list[tuple[Array, Array]] = []
    while count < how.moves and free.stop > free.start and small < 2 and now.error > 0 and damping < _MOST:
        hessian = _corrected(now.hessian, pairs)
        move = _move(now, hessian, free, how.stops, damping)
        found = at(now.logs + move)
        count += 1
        promised = -float(2 * now.slope @ move + move @ hessian @ move)
        if not found.error < now.error:
            damping *= 8.0
            small += 0 <= promised < how.enough * now.error
            continue
        won = now.error - found.error
        gain = won / max(promised, 1e-300)
        damping = max(damping * (0.2 if gain > 0.5 else 1.0 if gain > 0.1 else 4.0), _LEAST)
        small = small + 1 if won < how.enough * now.error else 0
        pairs = [*pairs[-_PAIRS + 1 :], (move, found.slope - now.slope)]
        now = found
    return DescendedNodes(now.sigmas, now.error, count)


class _Here(NamedTuple):
    """A grid with its error, and half the gradient and half the Hessian of that by log sigma."""

    sigmas: Array
    logs: Array
    error: float
    slope: Array
    hessian: Array


def _here(how: Descent, sigmas: Array, logs: Array) -> _Here:
    found = how.residuals(sigmas)
    error, slope = float(found.values @ found.values), found.by_node.T @ found.values
    if how.cost is not None:
        value, rate = how.cost(sigmas)
        error, slope = error + value, slope + 0.5 * rate
    hessian = found.by_node.T @ found.by_node + _chain(np.maximum(found.curvature, 0.0))
    return _Here(sigmas, logs, error if np.isfinite(error) else np.inf, slope, hessian)


def _corrected(hessian: Array, pairs: list[tuple[Array, Array]]) -> Array:
    """BFGS updates by how the slope changed over the last moves: what the model's curvature misses."""
    corrected = hessian.copy() if pairs else hessian
    for move, change in pairs:
        rise, image = float(move @ change), corrected @ move
        bend = float(move @ image)
        if rise > 1e-3 * bend > 0:
            corrected += change[:, None] * (change / rise)
            corrected -= image[:, None] * (image / bend)
    return corrected


def _chain(weights: Array) -> Array:
    """Sum over steps j of weight_j (x_j - x_{j+1})^2 as a matrix."""
    size = weights.size + 1
    matrix = np.zeros((size, size))
    flat = matrix.reshape(-1)
    flat[:: size + 1][:-1] += weights
    flat[:: size + 1][1:] += weights
    flat[1 :: size + 1] = flat[size :: size + 1] = -weights
    return matrix


def _move(now: _Here, hessian: Array, free: slice, stops: tuple[float, float] | None, damping: float) -> Array:
    """The damped Newton step, with the end inside its range and every step in log sigma within its limits."""
    logs = now.logs
    matrix = hessian + damping * _chain(now.error / (logs[:-1] - logs[1:]) ** 2)
    matrix.reshape(-1)[:: logs.size + 1] *= 1 + 1e-12  # definite where nodes coincide
    move = np.zeros(logs.size)
    move[free] = np.linalg.solve(matrix[free, free], -now.slope[free])
    if stops is not None:
        held = float(np.clip(move[-1], stops[0] - logs[-1], stops[1] - logs[-1]))
        if held != move[-1]:
            move[-1], inner = held, slice(1, logs.size - 1)
            move[inner] = np.linalg.solve(matrix[inner, inner], -(now.slope[inner] + matrix[inner, -1] * held))
    # each step within its own limits, then all scaled to the same end
    steps, span = -np.diff(logs), logs[0] - logs[-1] - move[-1]
    moved = np.clip(steps - np.diff(move), _SHORTEST * steps, steps / _SHORTEST)
    moved = np.maximum(moved * span / moved.sum(), _FLOOR * span / steps.size)
    nodes = logs[0] - span * np.append(0.0, np.cumsum(moved)) / moved.sum()
    nodes[-1] = logs[-1] + move[-1]
    return np.asarray(nodes - logs)


def _within(logs: Array, stops: tuple[float, float]) -> Array:
    """The nodes scaled so that the last lies in its range."""
    stop = float(np.clip(logs[-1], *stops))
    if stop == logs[-1]:
        return logs
    scaled = logs[0] + (logs - logs[0]) * (stop - logs[0]) / (logs[-1] - logs[0])
    scaled[-1] = stop
    return scaled
