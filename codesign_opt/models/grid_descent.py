"""Descents of grids' exact error, a sum of squares: damped Newton steps in log sigma (docs/theory.md section 7.8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..basics.checks import Array

__all__ = [
    "Cost",
    "Costed",
    "Descent",
    "Descents",
    "GridResiduals",
    "NodeErrors",
    "Which",
    "descend_nodes",
    "positive_nodes",
]

_DAMPING, _LEAST, _MOST = 1.0, 1e-9, 1e9
_TRIED = np.array([1 / 6, 1.0, 6.0])  # dampings of a move, times that of the last
_HARDER = 216.0  # where none of them wins
_SHORTEST = 0.2  # a step in log sigma keeps at least this share of its length in one move, and grows at most 1/this
_FLOOR = 1e-3  # no step is shorter than this share of the mean step in log sigma
_TINY = 1e-300
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
    """Something for the errors of every positive node: amounts, or weights of a sum.

    Args:
        reducible, floor: (..., P) error per 1/m, and what no example removes.
        untrained: (..., P) error without any example; None where nothing bounds it.
    """

    reducible: Array
    floor: Array
    untrained: Array | None = None

    def among(self, rows: Which) -> NodeErrors:
        """Those of some grids."""
        untrained = None if self.untrained is None else self.untrained[rows]
        return NodeErrors(self.reducible[rows], self.floor[rows], untrained)


Which = NDArray[np.intp]
"""(G,) which of the starts grids come from."""


class Costed(Protocol):
    """What grids cost, (G,) `values`, and what their derivatives follow from."""

    @property
    def values(self) -> Array: ...

    def slopes(self, rows: Which) -> Array:
        """(R, P) derivatives by log sigma of the positive nodes, of those grids at the rows."""

    def with_residuals(self, rows: Which) -> tuple[GridResiduals | None, Array]:
        """The residuals of those grids, where one gradient tells them too, and `slopes`."""


class Cost(Protocol):
    """What grids cost beside their own errors."""

    def of(self, sigmas: Array, which: Which, sensitivity: Array | None) -> Costed:
        """Of grids (G, K+1) from the starts `which`; `sensitivity` is that of their law, None where not known."""


def positive_nodes(sigmas: Array) -> Array:
    """(..., P) grids without their last zeros; all or none of them end in one."""
    return sigmas[..., : sigmas.shape[-1] - int(sigmas.item(-1) <= 0)]


@dataclass(frozen=True)
class Descent:
    """What descends, and how far.

    Args:
        errors: (G,) of grids (G, K+1), with the sensitivity that the cost asks for, or None.
        residuals: of such grids; their squares sum to the errors.
        cost: what the grids cost beside; None where nothing.
        stops: logarithms of the range of the last positive node; None keeps it.
        moves: the most moves.
        enough: relative decrease below which two moves in a row end the descent.
    """

    errors: Callable[[Array], tuple[Array, Array | None]]
    residuals: Callable[[Array], GridResiduals]
    cost: Cost | None = None
    stops: tuple[float, float] | None = None
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


class _Reached(NamedTuple):
    """Which paths a move took somewhere, what their grids cost there, and the rows of these."""

    which: Which
    costed: Costed | None
    rows: Which

    def among(self, some: NDArray[np.bool_]) -> _Reached:
        return _Reached(self.which[some], self.costed, self.rows[some])


class Descents:
    """Descents of several grids of as many steps, each on its own path, that are evaluated together.

    Newton steps with J'J and the curvature of the steps' own errors for the Hessian, corrected by the slopes of the
    last moves, damped in relative changes of the steps in log sigma, so that every iterate is a grid. Of each move
    several dampings are tried, which takes errors alone. What short grids cost is calls and not numbers, so that one
    evaluation of all costs little more than that of one.

    Args:
        starts: (G, K+1) descending grids.
        how: what descends.
    """

    def __init__(self, starts: Array, how: Descent) -> None:
        nodes = positive_nodes(starts)
        count, size = nodes.shape
        self._how, self._first, self._tail = how, nodes[:, :1], starts[:, size:]
        self._last = nodes[:, -1:] if how.stops is None else None
        self._logs = np.log(nodes) if how.stops is None else _within(np.log(nodes), how.stops)
        self._damping, self._small, self._count = np.full(count, _DAMPING), np.zeros(count), np.ones(count)
        self._pairs = np.zeros((_PAIRS, 2, count, size))  # moves and changes of slope, the oldest first
        self._kept = 0  # of these, at most
        everyone = np.arange(count)
        self._own, self._errors, costed = self._errors_at(everyone, self._logs)
        self._slopes, self._hessians = self._at(everyone, self._logs, costed, everyone)
        self._from, self._reached = self._logs.copy(), list[_Reached]()

    @property
    def sigmas(self) -> Array:
        """(G, K+1) the best grid of each so far."""
        return self._grids(np.arange(len(self._logs)), self._logs)

    @property
    def errors(self) -> Array:
        """(G,) their errors with what they cost."""
        return self._errors

    @property
    def own(self) -> Array:
        """(G,) their errors without it."""
        return self._own

    def go(self, moves: int, among: Which | None = None) -> None:
        """Up to so many moves of each, those before counted; of some `among` them, or of all."""
        chosen = np.arange(len(self._logs)) if among is None else among
        if self._logs.shape[1] < (3 if self._how.stops is None else 2):
            return
        while (active := chosen[self._going(moves)[chosen]]).size:
            self._move(active)

    def _going(self, moves: int) -> NDArray[np.bool_]:
        ended = (self._small >= 2) | ~((self._errors > 0) & np.isfinite(self._errors)) | (self._damping >= _MOST)
        return np.asarray((self._count < moves) & ~ended)

    def _move(self, active: Which) -> None:
        """The best of a few damped moves of each, where one wins."""
        self._catch_up(active)
        logs, slopes, dampings = self._logs[active], self._slopes[active], self._damping[active, None] * _TRIED
        hessians = _corrected(self._hessians[active], self._pairs[_PAIRS - self._kept :][:, :, active])
        moves = _moves(_Model(logs, self._errors[active], slopes, hessians), dampings, self._how.stops)
        tried = logs[:, None] + moves
        own, found, costed = self._errors_at(np.repeat(active, _TRIED.size), tried.reshape(-1, logs.shape[1]))
        errors = found.reshape(dampings.shape)
        best = np.argmin(errors, axis=1)
        rows = np.arange(active.size)
        self._count[active] += 1
        gain = self._errors[active] - errors[rows, best]
        least = self._how.enough * self._errors[active]
        down = gain > 0
        move = moves[:, 0]  # the least damped
        promised = -np.einsum("gp,gp->g", 2 * slopes + np.einsum("gpq,gq->gp", hessians, move), move)
        self._small[active] = np.where(
            down,
            np.where(gain < least, self._small[active] + 1, 0),
            self._small[active] + ((promised >= 0) & (promised < least)),
        )
        self._damping[active] = np.where(
            down, np.maximum(dampings[rows, best], _LEAST), self._damping[active] * _HARDER
        )
        if down.any():
            chosen = (rows * _TRIED.size + best)[down]
            won = active[down]
            self._own[won], self._errors[won] = own[chosen], found[chosen]
            self._logs[won] = tried.reshape(-1, logs.shape[1])[chosen]
            self._reached.append(_Reached(won, costed, chosen))

    def _catch_up(self, active: Which) -> None:
        """The slopes where those that move have got to: those of paths that end are never asked for."""
        waiting, self._reached = self._reached, []
        moves = np.zeros(len(self._logs), dtype=bool)
        moves[active] = True
        for reached in waiting:
            now = moves[reached.which]
            if not now.all():
                self._reached.append(reached.among(~now))
            if now.any():
                self._turn(reached.among(now))

    def _turn(self, reached: _Reached) -> None:
        which, logs = reached.which, self._logs[reached.which]
        slopes, hessians = self._at(which, logs, reached.costed, reached.rows)
        self._kept = min(self._kept + 1, _PAIRS)
        self._pairs[:-1, :, which] = self._pairs[1:, :, which]
        self._pairs[-1, 0, which], self._pairs[-1, 1, which] = logs - self._from[which], slopes - self._slopes[which]
        self._from[which], self._slopes[which], self._hessians[which] = logs, slopes, hessians

    def _grids(self, which: Which, logs: Array) -> Array:
        nodes = np.exp(logs)
        nodes[:, :1] = self._first[which]
        if self._last is not None:
            nodes[:, -1:] = self._last[which]
        return np.concatenate([nodes, self._tail[which]], axis=1)

    def _errors_at(self, which: Which, logs: Array) -> tuple[Array, Array, Costed | None]:
        """(G,) errors alone, and with what the grids cost."""
        sigmas = self._grids(which, logs)
        own, sensitivity = self._how.errors(sigmas)
        costed = None if self._how.cost is None else self._how.cost.of(sigmas, which, sensitivity)
        errors = own if costed is None else own + costed.values
        return own, np.where(np.isfinite(errors), errors, np.inf), costed

    def _at(self, which: Which, logs: Array, costed: Costed | None, rows: Which) -> tuple[Array, Array]:
        """Half the gradients and Hessians of the errors by log sigma; the rows of what the grids cost are known."""
        found, beside = (None, 0.0) if costed is None else costed.with_residuals(rows)
        if found is None:
            found = self._how.residuals(self._grids(which, logs))
        slopes = np.matmul(found.values[:, None, :], found.by_node)[:, 0] + 0.5 * beside
        return slopes, np.matmul(found.by_node.swapaxes(1, 2), found.by_node) + _chain(np.maximum(found.curvature, 0.0))


class _Model(NamedTuple):
    """Quadratic models of errors around grids: (G, P) logs, (G,) errors, half their gradients and Hessians."""

    logs: Array
    errors: Array
    slopes: Array
    hessians: Array


def _corrected(hessians: Array, pairs: Array) -> Array:
    """(G, P, P) after BFGS updates by how the slopes changed over the last moves (M, 2, G, P): what the model's
    curvature misses.

    Each takes away the image of its move and adds the change of slope, as far as both are known to be curved upwards.
    With those before as vectors and weights a move's image takes vectors alone, and all are added at once.
    """
    if not len(pairs):
        return hessians
    moves, changes = pairs.transpose(1, 2, 0, 3)  # (G, M, P) each
    count = moves.shape[1]
    images, rises = np.matmul(moves, hessians), (moves * changes).sum(axis=-1)
    scales = 1 / np.where(rises > 0, rises, 1.0)
    vectors, weights = np.empty((len(moves), 2 * count, moves.shape[2])), np.empty((len(moves), 2 * count))
    vectors[:, ::2] = changes
    for k in range(count):
        move, image, before = moves[:, k], images[:, k], vectors[:, : 2 * k]
        if k:
            share = np.matmul(before, move[:, :, None])[:, :, 0] * weights[:, : 2 * k]
            image = image + np.matmul(share[:, None], before)[:, 0]
        bend = (move * image).sum(axis=-1)
        use = (rises[:, k] > 1e-3 * bend) & (bend > 0)
        vectors[:, 2 * k + 1] = image
        weights[:, 2 * k] = use * scales[:, k]
        weights[:, 2 * k + 1] = use / np.fmin(-bend, -_TINY)
    return hessians + np.matmul((vectors * weights[..., None]).swapaxes(1, 2), vectors)


def _chain(weights: Array) -> Array:
    """Sum over steps j of weight_j (x_j - x_{j+1})^2 as matrices (..., P, P)."""
    size = weights.shape[-1] + 1
    matrix = np.zeros((*weights.shape[:-1], size * size))
    matrix[..., :: size + 1][..., :-1] += weights
    matrix[..., :: size + 1][..., 1:] += weights
    matrix[..., 1 :: size + 1] = matrix[..., size :: size + 1] = -weights
    return matrix.reshape(*weights.shape[:-1], size, size)


def _moves(model: _Model, dampings: Array, stops: tuple[float, float] | None) -> Array:
    """(G, D, P) damped Newton steps, with the end inside its range and every step in log sigma within its limits."""
    logs, size = model.logs, model.logs.shape[1]
    steps = logs[:, :-1] - logs[:, 1:]
    metric = _chain(model.errors[:, None] / steps**2)
    matrices = model.hessians[:, None] + dampings[..., None, None] * metric[:, None]
    matrices.reshape(*dampings.shape, -1)[..., :: size + 1] *= 1 + 1e-12  # definite where nodes coincide
    free = slice(1, size if stops is not None else size - 1)
    moves = np.zeros((*dampings.shape, size))
    moves[..., free] = -np.linalg.solve(matrices[..., free, free], model.slopes[:, None, free, None])[..., 0]
    if stops is not None:
        ends = np.minimum(np.maximum(moves[..., -1], stops[0] - logs[:, -1:]), stops[1] - logs[:, -1:])
        held = ends != moves[..., -1]
        if held.any() and size > 2:
            inner, rest = slice(1, size - 1), matrices[held]
            right = model.slopes[np.nonzero(held)[0], inner] + rest[:, inner, -1] * ends[held][:, None]
            within = np.zeros((int(held.sum()), size))
            within[:, inner] = -np.linalg.solve(rest[:, inner, inner], right[..., None])[..., 0]
            moves[held] = within
        moves[..., -1] = ends
    return _limited(logs[:, None], steps[:, None], moves)


def _limited(logs: Array, steps: Array, moves: Array) -> Array:
    """Each step within its own limits, then all scaled to the same end."""
    span = (logs[..., 0] - logs[..., -1] - moves[..., -1])[..., None]
    moved = np.minimum(np.maximum(steps + moves[..., :-1] - moves[..., 1:], _SHORTEST * steps), steps / _SHORTEST)
    moved = np.maximum(moved * span / moved.sum(axis=-1, keepdims=True), _FLOOR * span / steps.shape[-1])
    share = np.cumsum(moved, axis=-1) / moved.sum(axis=-1, keepdims=True)
    nodes = np.empty_like(moves)
    nodes[..., 0], nodes[..., 1:] = logs[..., 0], logs[..., :1] - span * share
    nodes[..., -1] = logs[..., -1] + moves[..., -1]
    return np.asarray(nodes - logs)


def _within(logs: Array, stops: tuple[float, float]) -> Array:
    """(G, P) the nodes scaled so that the last lies in its range."""
    ends = np.clip(logs[:, -1:], *stops)
    scaled = logs[:, :1] + (logs - logs[:, :1]) * (ends - logs[:, :1]) / (logs[:, -1:] - logs[:, :1])
    scaled[:, -1:] = ends
    return np.where(ends == logs[:, -1:], logs, scaled)
