"""Descent of a grid's measured error from one start: Newton's method with a Gauss-Newton matrix and secants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ...basics.checks import Array
from .grid_runs import GridRuns

__all__ = ["Descent", "FreeSteps", "State"]

_SMALL = 2e-3
_TRUST = float(np.log(8.0))  # every step in log sigma stays within this factor of its start
_RIDGE = 1e-3  # of the largest curvature
_WORTH_A_MATRIX = 3  # times a gradient by backward passes, that differences with their Gauss-Newton matrix may cost


@dataclass(frozen=True, eq=False)
class FreeSteps:
    """Grids by unknowns, the logarithms of the steps in log sigma; steps beyond the range are scaled into it."""

    top: float
    span: float
    free_stop: bool
    tail: Array

    @classmethod
    def of(cls, grid: Array, free_stop: bool, lowest: float) -> tuple[FreeSteps, Array]:
        """The space of a grid, and where it lies in there."""
        positive = grid[grid > 0]
        low = min(lowest, float(positive[-1])) if free_stop else float(positive[-1])
        span = float(np.log(positive[0] / low))
        return cls(float(positive[0]), span, free_stop, grid[positive.size :]), np.log(-np.diff(np.log(positive)))

    def steps(self, unknowns: Array) -> Array:
        """Steps in log sigma."""
        steps = np.exp(unknowns)
        return self.span * steps / steps.sum() if self._whole(unknowns) else steps

    def _whole(self, unknowns: Array) -> bool:
        return not self.free_stop or float(np.exp(unknowns).sum()) > self.span

    def grid(self, unknowns: Array) -> Array:
        """The noise levels."""
        logs = -np.cumsum(self.steps(unknowns))
        return np.concatenate([[self.top], self.top * np.exp(logs), self.tail])

    def slope(self, unknowns: Array) -> Array:
        """(nodes, unknowns) d log sigma_k / d unknown_i: minus the step for i <= k, less its share of the range."""
        steps = self.steps(unknowns)
        slope = -np.tril(np.broadcast_to(steps, (steps.size, steps.size)))
        return slope + np.outer(np.cumsum(steps), steps / self.span) if self._whole(unknowns) else slope


@dataclass(frozen=True, eq=False)
class State:
    """A grid with its errors on both sets of draws and, once it is descended from, objective, slope, Gauss-Newton."""

    grid: Array
    errors: Array
    held_out: Array
    unknowns: Array = field(default_factory=lambda: np.zeros(0))
    value: float = 0.0
    slope: Array = field(default_factory=lambda: np.zeros(0))
    gram: Array | None = None

    @classmethod
    def at(cls, grid: Array, runs: GridRuns) -> State:
        """A start, measured on both sets of draws."""
        return cls(grid, runs.errors(grid), runs.errors(grid, held_out=True))


@dataclass(eq=False)
class Descent:
    """Quasi-Newton on the logarithm of the objective, a few moves at a time.

    The Hessian is the Gauss-Newton matrix of the terminal residuals plus what secants say that it lacks (structured
    BFGS): the residuals of a grid are not small, so that what it lacks counts. The matrix comes anew with every move
    where slopes are differences or little dearer than a backward pass, else from the start alone.

    Args:
        runs: of grids, on both sets of draws.
        value: the objective of squared errors and its slope by each.
        budget: batches of all descents.
        patience: moves without progress on the held-out draws.
        space: grids by unknowns.
        start: where it begins.

    Attributes:
        best: the state with the least held-out objective.
        taken: accepted moves.
        reason: why it ended; empty as long as it has not.
    """

    runs: GridRuns
    value: Callable[[Array], tuple[float, Array]]
    budget: int
    patience: int
    space: FreeSteps
    start: State
    best: State = field(init=False)
    taken: int = field(default=0, init=False)
    reason: str = field(default="", init=False)
    _now: State = field(init=False)
    _curvature: Array = field(default_factory=lambda: np.zeros(0), init=False)
    _idle: int = field(default=0, init=False)
    _small: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.best = self._now = self.start

    def affordable(self, share: float) -> int:
        """Moves that a share of what is left of the budget pays."""
        return int(share * (self.budget - self.runs.batches) / self._move_cost(self._now.grid))

    def affords(self, moves: int) -> bool:
        """Whether so many moves are left in the budget."""
        return self.runs.batches + moves * self._move_cost(self._now.grid) <= self.budget

    def run(self, moves: int | None = None) -> None:
        """So many moves, or all until it ends."""
        until = np.inf if moves is None else self.taken + moves
        if not self._curvature.size and not self.reason:
            self._begin()
        while not self.reason and self.taken < until:
            self._move()

    def _takes_matrix(self, grid: Array) -> bool:
        """Whether a move's slope comes with a Gauss-Newton matrix."""
        cost, left = self.runs.differences_cost(grid), self.budget - self.runs.batches
        return cost <= max(self.runs.slope_cost(grid), min(_WORTH_A_MATRIX * self.runs.slope_cost(grid), 0.1 * left))

    def _slope_cost(self, grid: Array) -> int:
        return self.runs.differences_cost(grid) if self._takes_matrix(grid) else self.runs.slope_cost(grid)

    def _move_cost(self, grid: Array) -> int:
        return self.runs.cost(grid) + self.runs.other_cost(grid) + self._slope_cost(grid)

    def _begin(self) -> None:
        """The start with its slope and curvature, Gauss-Newton where it costs at most a quarter of what is left."""
        grid = self.start.grid
        dear = self.runs.differences_cost(grid) > 0.25 * (self.budget - self.runs.batches)
        cost = self.runs.slope_cost(grid) if dear else self.runs.differences_cost(grid)
        if self.runs.batches + cost > self.budget:
            self.reason = "budget"
            return
        unknowns = self.start.unknowns
        self._now = self._sloped(grid, unknowns, self.start.errors, self.start.held_out, matrix=not dear)
        self.best, gram = self._now, self._now.gram
        size = max(float(np.linalg.norm(self._now.slope)), 1e-12)
        self._curvature = np.eye(unknowns.size) * size if gram is None else _ridged(gram)

    def _sloped(self, grid: Array, unknowns: Array, errors: Array, held_out: Array, *, matrix: bool) -> State:
        """A state with objective, slope and, if asked for, Gauss-Newton matrix."""
        value, weights = self.value(errors)
        by_logs, gram = self.space.slope(unknowns), None
        if matrix:
            nodes, by_nodes = self.runs.differences(grid, weights / value)
            gram = by_logs.T @ by_nodes @ by_logs
        else:
            nodes = self.runs.slope(grid, weights / value)
        return State(grid, errors, held_out, unknowns, value, by_logs.T @ nodes, gram)

    def _move(self) -> None:
        now = self._now
        if not np.any(now.slope):
            self.reason = "no slope: no node is free"
            return
        if not self.affords(1):
            self.reason = "budget"
            return
        there = self._line_search(now, self._direction(now))
        if there is None:
            self.reason = "no lower error along the descent direction"
            return
        curvature = _refreshed(self._curvature, now.gram, there.gram)
        self._curvature = _updated(curvature, there.unknowns - now.unknowns, there.slope - now.slope)
        self._small = self._small + 1 if there.value > (1 - _SMALL) * now.value else 0
        self._now, self.taken = there, self.taken + 1
        better = self.value(there.held_out)[0] < self.value(self.best.held_out)[0]
        self.best, self._idle = (there, 0) if better else (self.best, self._idle + 1)
        if self._idle >= self.patience:
            self.reason = "held-out error stopped falling"
        elif self._small >= 2:
            self.reason = "converged"

    def _direction(self, now: State) -> Array:
        """Newton direction among the unknowns that are not held by the trust bounds."""
        away = now.unknowns - self.start.unknowns
        held = ((away >= _TRUST - 1e-9) & (now.slope < 0)) | ((away <= 1e-9 - _TRUST) & (now.slope > 0))
        move, free = np.zeros(now.unknowns.size), np.flatnonzero(~held)
        move[free] = -np.linalg.solve(self._curvature[np.ix_(free, free)], now.slope[free])
        return move / max(1.0, float(np.abs(move).max(initial=0.0)))

    def _line_search(self, now: State, move: Array) -> State | None:
        """The first point along `move` with enough less error, shortened by parabolas; None after five tries."""
        length, origin = 1.0, self.start.unknowns
        for _ in range(5):
            there = np.clip(now.unknowns + length * move, origin - _TRUST, origin + _TRUST)
            gain = float(now.slope @ (there - now.unknowns))
            grid = self.space.grid(there)
            if gain >= 0 or self.runs.batches + self._move_cost(grid) > self.budget:
                return None
            errors = self.runs.errors(grid)
            rise = float(np.log(self.value(errors)[0] / now.value))
            if rise <= 1e-4 * gain:
                held_out = self.runs.errors(grid, held_out=True)
                return self._sloped(grid, there, errors, held_out, matrix=self._takes_matrix(grid))
            length *= min(0.5, max(0.1, -gain / (2 * (rise - gain))))
        return None


def _ridged(gram: Array) -> Array:
    return gram + _RIDGE * np.diag(gram).max() * np.eye(len(gram))


def _refreshed(curvature: Array, before: Array | None, after: Array | None) -> Array:
    """The Hessian with its Gauss-Newton part replaced; that part alone where the rest makes it indefinite."""
    if before is None or after is None:
        return curvature
    moved = curvature + after - before
    lowest = float(np.linalg.eigvalsh(moved)[0])
    return moved if lowest > _RIDGE * np.diag(after).max() else _ridged(after)


def _updated(curvature: Array, move: Array, change: Array) -> Array:
    """BFGS update, damped (Powell 1978) so that it stays positive definite."""
    bent = curvature @ move
    own, found = float(move @ bent), float(move @ change)
    if own <= 0:
        return curvature
    share = 1.0 if found >= 0.2 * own else 0.8 * own / (own - found)
    change = share * change + (1 - share) * bent
    return curvature - np.outer(bent, bent) / own + np.outer(change, change) / float(move @ change)
