"""Descents of grids' exact error, a sum of squares: damped Newton steps in log sigma (docs/theory.md section 7.8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..basics.checks import Array

__all__ = ["Cost", "Descent", "Descents", "GridResiduals", "NodeErrors", "Which", "descend_nodes", "positive_nodes"]

_DAMPING, _LEAST, _MOST = 1e-2, 1e-9, 1e9
_SHORTEST = 0.2  # a step in log sigma keeps at least this share of its length in one move, and grows at most 1/this
_FLOOR = 1e-3  # no step is shorter than this share of the mean step in log sigma
_PAIRS = 8  # moves whose change of slope corrects the Hessian


class GridResiduals(NamedTuple):
    """Squared errors of grids as sums of squares, with what a Newton step needs.

    Args:
        values: (..., R) residuals, whose squares sum to the error.
        by_node: (..., R, P) derivatives by log sigma of the positive nodes.
        curvature: (..., P-1) sum of residuals times their second derivatives by the length of each step in log sigma.
        sensitivity: (..., K+1, B) derivatives of the terminal standard deviations by the denoiser's weights, which
            costs may ask for; None where they are not known.
    """

    values: Array
    by_node: Array
    curvature: Array
    sensitivity: Array | None = None


class NodeErrors(NamedTuple):
    """Something for the reducible error and the floor of every positive node: amounts, or weights of a sum.

    Args:
        reducible, floor: (..., P).
    """

    reducible: Array
    floor: Array


Which = NDArray[np.intp]
"""(G,) which of the starts grids come from."""

Cost = Callable[[Array, Which, Array | None], tuple[Array, Array]]
"""What grids (G, K+1), those of the starts (G,), cost beside their own errors, from their residuals' sensitivity:
(G,) values, and (G, P) derivatives by log sigma of the positive nodes."""


def positive_nodes(sigmas: Array) -> Array:
    """(..., P) grids without their last zeros; all or none of them end in one."""
    return sigmas[..., : sigmas.shape[-1] - int(sigmas[..., -1].min() <= 0)]


@dataclass(frozen=True)
class Descent:
    """What descends, and how far.

    Args:
        residuals: of grids (G, K+1); their squares sum to each one's error.
        cost: what the grids cost beside; None where nothing.
        stops: logarithms of the range of the last positive node; None keeps it. Of shape (G, 2) where each start has
            a range of its own.
        moves: the most evaluations.
        enough: relative decrease below which two moves in a row end the descent.
    """

    residuals: Callable[[Array], GridResiduals]
    cost: Cost | None = None
    stops: tuple[float, float] | Array | None = None
    moves: int = 60
    enough: float = 1e-8


def descend_nodes(sigmas: Array, how: Descent) -> tuple[Array, float]:
    """Local minimum of |residuals|^2 plus cost over the nodes below the first, never worse than `sigmas`; its error.

    Args:
        sigmas: (K+1,) descending grid to start from.
        how: what descends.
    """
    found = Descents(sigmas[None], how)
    found.go(how.moves)
    return found.sigmas[0], float(found.errors[0])


class Descents:
    """Descents of several grids of as many steps, each on its own path, that are evaluated together.

    Newton steps with J'J and the curvature of the steps' own errors for the Hessian, corrected by the slopes of the
    last moves, damped in relative changes of the steps in log sigma, so that every iterate is a grid. What short grids
    cost is calls and not numbers, so that one evaluation of all costs little more than that of one.

    Args:
        starts: (G, K+1) descending grids.
        how: what descends.
    """

    def __init__(self, starts: Array, how: Descent) -> None:
        self._how = how
        self._first, self._last = starts[:, 0], None if how.stops is not None else positive_nodes(starts)[:, -1]
        self._tail = starts[:, positive_nodes(starts).shape[1] :]
        limits = None if how.stops is None else np.broadcast_to(np.asarray(how.stops), (len(starts), 2))
        logs = np.log(positive_nodes(starts))
        if limits is not None:
            logs = np.array([_within(each, pair) for each, pair in zip(logs, limits, strict=True)])
        everyone = np.arange(len(starts))
        here = self._at(everyone, logs)
        self._paths = [_Path(now, None if limits is None else limits[k]) for k, now in enumerate(here)]

    @property
    def sigmas(self) -> Array:
        """(G, K+1) the best grid of each so far."""
        return np.array([path.now.sigmas for path in self._paths])

    @property
    def errors(self) -> Array:
        """(G,) their errors with what they cost."""
        return np.array([path.now.error for path in self._paths])

    def go(self, moves: int, among: Which | None = None) -> None:
        """Up to so many evaluations of each, those before counted; of some `among` them, or of all."""
        chosen = range(len(self._paths)) if among is None else among
        while active := [k for k in chosen if self._paths[k].goes_on(moves)]:
            which = np.array(active)
            tried = np.array([self._paths[k].proposed() for k in active])
            for k, found in zip(active, self._at(which, tried), strict=True):
                self._paths[k].accept(found, self._how.enough)

    def _at(self, which: Which, logs: Array) -> list[_Here]:
        nodes = np.exp(logs)
        nodes[:, 0] = self._first[which]
        if self._last is not None:
            nodes[:, -1] = self._last[which]
        sigmas = np.concatenate([nodes, self._tail[which]], axis=1)
        found = self._how.residuals(sigmas)
        errors = np.einsum("gr,gr->g", found.values, found.values)
        slopes = np.matmul(found.values[:, None, :], found.by_node)[:, 0]
        if self._how.cost is not None:
            values, rates = self._how.cost(sigmas, which, found.sensitivity)
            errors, slopes = errors + values, slopes + 0.5 * rates
        hessians = np.matmul(found.by_node.swapaxes(1, 2), found.by_node) + _chain(np.maximum(found.curvature, 0.0))
        errors = np.where(np.isfinite(errors), errors, np.inf)
        rows = zip(sigmas, logs, errors, slopes, hessians, strict=True)
        return [_Here(grid, at, float(error), slope, hessian) for grid, at, error, slope, hessian in rows]


class _Here(NamedTuple):
    """A grid with its error, and half the gradient and half the Hessian of that by log sigma."""

    sigmas: Array
    logs: Array
    error: float
    slope: Array
    hessian: Array


@dataclass(eq=False)
class _Path:
    """One descent: where it is, how it is damped, and what its last moves told."""

    now: _Here
    stops: Array | None
    damping: float = _DAMPING
    small: int = 0
    count: int = 1
    pairs: list[tuple[Array, Array]] = field(default_factory=list)
    promised: float = 0.0

    @property
    def free(self) -> slice:
        return slice(1, self.now.logs.size - (self.stops is None))

    def goes_on(self, moves: int) -> bool:
        ended = self.small >= 2 or not self.now.error > 0 or self.damping >= _MOST
        return self.count < moves and self.free.stop > self.free.start and not ended

    def proposed(self) -> Array:
        """(P,) log sigma of the nodes after the next move."""
        hessian = _corrected(self.now.hessian, self.pairs)
        move = _move(self.now, hessian, self.free, self.stops, self.damping)
        self.promised = -float(2 * self.now.slope @ move + move @ hessian @ move)
        return np.asarray(self.now.logs + move)

    def accept(self, found: _Here, enough: float) -> None:
        """Go there if it is better; else try a shorter move next."""
        self.count += 1
        before = self.now
        if not found.error < before.error:
            self.damping *= 8.0
            self.small += 0 <= self.promised < enough * before.error
            return
        won = before.error - found.error
        gain = won / max(self.promised, 1e-300)
        self.damping = max(self.damping * (0.2 if gain > 0.5 else 1.0 if gain > 0.1 else 4.0), _LEAST)
        self.small = self.small + 1 if won < enough * before.error else 0
        self.pairs = [*self.pairs[-_PAIRS + 1 :], (found.logs - before.logs, found.slope - before.slope)]
        self.now = found


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
    """Sum over steps j of weight_j (x_j - x_{j+1})^2 as matrices (..., P, P)."""
    size = weights.shape[-1] + 1
    matrix = np.zeros((*weights.shape[:-1], size * size))
    matrix[..., :: size + 1][..., :-1] += weights
    matrix[..., :: size + 1][..., 1:] += weights
    matrix[..., 1 :: size + 1] = matrix[..., size :: size + 1] = -weights
    return matrix.reshape(*weights.shape[:-1], size, size)


def _move(now: _Here, hessian: Array, free: slice, stops: Array | None, damping: float) -> Array:
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


def _within(logs: Array, stops: Array) -> Array:
    """The nodes scaled so that the last lies in its range."""
    stop = float(np.clip(logs[-1], *stops))
    if stop == logs[-1]:
        return logs
    scaled = logs[0] + (logs - logs[0]) * (stop - logs[0]) / (logs[-1] - logs[0])
    scaled[-1] = stop
    return scaled
