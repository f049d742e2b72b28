"""Descent of a grid's exact error, a sum of squares, by damped Newton steps in log sigma (docs/theory.md section 7.8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..basics.checks import Array

__all__ = ["DescendedNodes", "EndCost", "GridResiduals", "descend_nodes"]

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


@dataclass(frozen=True)
class EndCost:
    """What the stopping point costs beside the grid's error: a value with two derivatives by log sigma.

    Args:
        low, high: logarithms of the range in which the stopping point may move.
        cost: log sigma to (value, slope, curvature); None where the stopping point costs nothing else.
    """

    low: float
    high: float
    cost: Callable[[float], tuple[float, float, float]] | None = None

    def at(self, log_sigma: float) -> tuple[float, float, float]:
        """Value, slope and curvature."""
        return (0.0, 0.0, 0.0) if self.cost is None else self.cost(log_sigma)


class DescendedNodes(NamedTuple):
    """A grid at a local minimum, its error with what its end costs, and the moves it took."""

    sigmas: Array
    error: float
    moves: int


def descend_nodes(
    residuals: Callable[[Array], GridResiduals],
    sigmas: Array,
    end: EndCost | None = None,
    *,
    moves: int = 60,
    enough: float = 1e-8,
) -> DescendedNodes:
    """Local minimum of |residuals|^2, plus the cost of the end, over the nodes below the first.

    Newton steps with J'J and the curvature of the steps' own errors for the Hessian, damped in relative changes of
    the steps in log sigma, so that every iterate is a grid. Never worse than `sigmas`.

    Args:
        residuals: of a grid (K+1,).
        sigmas: (K+1,) descending grid to start from.
        end: what a free last positive node costs; None keeps it.
        moves: the most evaluations.
        enough: relative decrease of the error below which two moves in a row end the descent.
    """
    tail = sigmas[sigmas == 0]
    logs = np.log(sigmas[sigmas > 0])
    if end is not None:
        logs = _within(logs, end)
    free = slice(1, logs.size if end is not None else logs.size - 1)

    def grid(at: Array) -> Array:
        nodes = np.exp(at)
        nodes[0] = sigmas[0]
        if end is None:
            nodes[-1] = sigmas[logs.size - 1]
        return np.concatenate([nodes, tail])

    def value(found: GridResiduals, at: Array) -> float:
        total = float(found.values @ found.values) + (end.at(float(at[-1]))[0] if end is not None else 0.0)
        return total if np.isfinite(total) else np.inf

    now = residuals(grid(logs))
    best, damping, small, count = value(now, logs), _DAMPING, 0, 1
    pairs: list[tuple[Array, Array]] = []
    while count < moves and free.stop > free.start and small < 2 and best > 0 and damping < _MOST:
        model = _newton(now, logs, end, best)
        model = model._replace(hessian=_corrected(model.hessian, pairs))
        move = _move(model, logs, free, end, damping)
        trial = logs + move
        found = residuals(grid(trial))
        count += 1
        after = value(found, trial)
        promised = -float(2 * model.slope @ move + move @ model.hessian @ move)
        if not after < best:
            damping *= 8.0
            small += 0 <= promised < enough * best
            continue
        gain = (best - after) / max(promised, 1e-300)
        damping = max(damping * (0.2 if gain > 0.5 else 1.0 if gain > 0.1 else 4.0), _LEAST)
        small = small + 1 if best - after < enough * best else 0
        change = _slope(found, trial, end) - model.slope
        pairs = [*pairs[-_PAIRS + 1 :], (move, change)]
        logs, now, best = trial, found, after
    return DescendedNodes(grid(logs), best, count)


class _Model(NamedTuple):
    """Half the gradient and half the Hessian of the error by log sigma, and the metric of relative step lengths."""

    slope: Array
    hessian: Array
    metric: Array


def _newton(now: GridResiduals, logs: Array, end: EndCost | None, error: float) -> _Model:
    steps = logs[:-1] - logs[1:]
    metric = _chain(error / steps**2)
    hessian = now.by_node.T @ now.by_node + _chain(np.maximum(now.curvature, 0.0))
    if end is not None:
        hessian[-1, -1] += 0.5 * max(end.at(float(logs[-1]))[2], 0.0)
    return _Model(_slope(now, logs, end), hessian, metric)


def _slope(now: GridResiduals, logs: Array, end: EndCost | None) -> Array:
    slope = now.by_node.T @ now.values
    if end is not None:
        slope[-1] += 0.5 * end.at(float(logs[-1]))[1]
    return slope


def _corrected(hessian: Array, pairs: list[tuple[Array, Array]]) -> Array:
    """BFGS updates by how the slope changed over the last moves: what the model's curvature misses."""
    for move, change in pairs:
        rise, image = float(move @ change), hessian @ move
        bend = float(move @ image)
        if rise > 1e-3 * bend > 0:
            hessian = hessian + np.outer(change, change) / rise - np.outer(image, image) / bend
    return hessian


def _chain(weights: Array) -> Array:
    """Sum over steps j of weight_j (x_j - x_{j+1})^2 as a matrix."""
    size = weights.size + 1
    matrix = np.zeros((size, size))
    flat = matrix.reshape(-1)
    flat[:: size + 1][:-1] += weights
    flat[:: size + 1][1:] += weights
    flat[1 :: size + 1] = flat[size :: size + 1] = -weights
    return matrix


def _move(model: _Model, logs: Array, free: slice, end: EndCost | None, damping: float) -> Array:
    """The damped Newton step, with the end inside its range and every step in log sigma within its limits."""
    matrix = model.hessian + damping * model.metric
    matrix.reshape(-1)[:: logs.size + 1] *= 1 + 1e-12  # definite where nodes coincide
    move = np.zeros(logs.size)
    move[free] = np.linalg.solve(matrix[free, free], -model.slope[free])
    if end is not None:
        held = float(np.clip(move[-1], end.low - logs[-1], end.high - logs[-1]))
        if held != move[-1]:
            move[-1], inner = held, slice(1, logs.size - 1)
            move[inner] = np.linalg.solve(matrix[inner, inner], -(model.slope[inner] + matrix[inner, -1] * held))
    # each step within its own limits, then all scaled to the same end
    steps, span = -np.diff(logs), logs[0] - logs[-1] - move[-1]
    moved = np.clip(steps - np.diff(move), _SHORTEST * steps, steps / _SHORTEST)
    moved = np.maximum(moved * span / moved.sum(), _FLOOR * span / steps.size)
    nodes = logs[0] - span * np.append(0.0, np.cumsum(moved)) / moved.sum()
    nodes[-1] = logs[-1] + move[-1]
    return np.asarray(nodes - logs)


def _within(logs: Array, end: EndCost) -> Array:
    """The nodes scaled so that the last lies in its range."""
    stop = float(np.clip(logs[-1], end.low, end.high))
    if stop == logs[-1]:
        return logs
    scaled = logs[0] + (logs - logs[0]) * (stop - logs[0]) / (logs[-1] - logs[0])
    scaled[-1] = stop
    return scaled
