"""Descent of the measured error of a grid in the logarithms of its noise levels, held-out draws deciding."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...basics.checks import AT_ONCE, Array, boolean, choice, entries, instance, integer, takes
from ...basics.fields import holds
from ...ingredients.grids import edm_grid, log_snr_grid
from ..runs.fine_solution import Draws, Reference
from .grid_error import GridErrors, objective_of, starting_at
from .grid_runs import GridRuns, differentiable

__all__ = ["USUAL_STOPS", "DescendedGrid", "DescentRules", "descend_grid", "usual_grids"]

USUAL_STOPS = (0.002, 0.01, 0.03, 0.06)
_SMALL = 2e-3
_WORTH = 6  # moves that must be affordable before another start is descended
_JUMPS = 2  # grids with a node elsewhere that are descended after the best
_TRUST = float(np.log(8.0))  # every step in log sigma stays within this factor of its start


@dataclass(frozen=True, eq=False)
class DescendedGrid:
    """The grid with the smallest held-out error that the descent met.

    Attributes:
        sigmas: (K+1,) the grid.
        start: (K+1,) the start it came from, one of those given.
        held_out, held_out_before: errors on the held-out draws of both; the choice among iterates (and, on all
            draws, among starts) was made on them, so report the error on other draws.
        descent: errors on the draws that were descended.
        batches: calls of the denoiser by all processes.
        steps: accepted moves of the descent that found it.
        reason: why that stopped.
    """

    sigmas: Array
    start: Array
    held_out: GridErrors
    held_out_before: GridErrors
    descent: GridErrors
    batches: int
    steps: int
    reason: str

    def __post_init__(self) -> None:
        errors = dict.fromkeys(("held_out", "held_out_before", "descent"), GridErrors)
        holds(self, sigmas="node", start="node", batches=int, steps=int, reason=str, **errors)

    def __repr__(self) -> str:
        ratio = float(self.held_out.mean.value / self.held_out_before.mean.value)
        return (
            f"DescendedGrid({self.sigmas.size - 1} steps, held-out error {ratio:.3f} of the start's, "
            f"{self.batches} batches, stopped: {self.reason})"
        )


def usual_grids(
    steps: int,
    sigma_max: float,
    *,
    stops: Iterable[float] = USUAL_STOPS,
    terminal: str = "denoise",
) -> list[Array]:
    """Starts for `descend_grid`: EDM's rho = 7 and log-SNR grids at some stopping points.

    >>> len(usual_grids(5, 80.0))
    8
    """
    families = (edm_grid, log_snr_grid)
    return [
        family(steps, stop, sigma_max, terminal=terminal) for stop in entries(stops, "stops") for family in families
    ]


@dataclass(frozen=True)
class DescentRules:
    """What a descent lowers, how it takes slopes, and when it stops.

    Args:
        objective: "mean", "geometric" or "trimmed", see `objective_of`.
        patience: accepted moves without progress on the held-out draws.
        gradient: "autograd", "differences", or "auto": autograd where the denoiser has gradients.

    Raises:
        ValueError: a field out of its range, by name.

    >>> DescentRules(objective="geometric").patience
    3
    """

    objective: str = "mean"
    patience: int = 3
    gradient: str = "auto"

    def __post_init__(self) -> None:
        objective_of(self.objective)
        object.__setattr__(self, "patience", integer(self.patience, "DescentRules.patience", minimum=1))
        choice(self.gradient, "DescentRules.gradient", ("auto", "autograd", "differences"))

    @property
    def value(self) -> Callable[[Array], tuple[float, Array]]:
        """The objective of squared errors, and its slope by each."""
        return objective_of(self.objective)

    def autograd(self, reference: Reference) -> bool:
        """Whether slopes are taken by backward passes."""
        instance(reference, Reference, "DescentRules.autograd: reference")
        if self.gradient == "auto":
            return differentiable(reference.denoiser, reference.draws)
        return self.gradient == "autograd"


@takes(reference=Reference, held_out=Draws, rules=DescentRules)
def descend_grid(
    reference: Reference,
    held_out: Draws,
    starts: Iterable[Any],
    *,
    rules: DescentRules | None = None,
    budget: int = 1500,
    free_stop: bool = True,
    folder: str | Path | None = None,
) -> DescendedGrid:
    """Local minimum of the measured error |run(grid) - fine|^2 over log sigma_k, stopped by held-out draws.

    Quasi-Newton on the logarithm of the objective, with the Gauss-Newton matrix of the terminal
    residuals at the start. Slopes are taken by forward differences, node k re-run from node k - 1 on
    (about K^2 / 2 steps), so that any callable serves; or by one backward pass (priced at four runs)
    where the denoiser has gradients. The unknowns are logarithms of the steps in log sigma: every
    iterate is a grid. docs/theory.md section 3, "Any denoiser".

    Args:
        reference: the fine solution; its draws are descended.
        held_out: independent draws; the iterate with the smallest objective on them is returned.
        starts: grids of one length and terminal map; the best by objective over all draws is descended, then the next
            best as long as the budget lasts, then the best grid met with a node put past its neighbour: few steps have
            several local minima.
        rules: what is lowered, slopes, and when to stop: the mean, three idle moves, unless given.
        budget: batches (calls of the denoiser), the fine solutions included.
        free_stop: whether the last positive level moves, down to the reference's stopping point.
        folder: where finished runs are kept, so that a killed descent goes on.

    Raises:
        ValueError: a malformed argument, held-out draws that are the descended ones, or a budget that
            does not cover the starts.

    >>> import torch, codesign_opt as co
    >>> lam = torch.tensor([1.0, 0.1], dtype=torch.float64)
    >>> denoiser = lambda x, sigma: x * lam / (lam + sigma[:, None] ** 2)
    >>> draws = [Draws((2,), 8, 10.0, name=name, like=lam) for name in ("descent", "held out")]
    >>> reference = Reference(denoiser, co.Euler(), draws[0], 0.01, steps=32)
    >>> found = descend_grid(reference, draws[1], [co.edm_grid(4, 0.01, 10.0)])
    >>> bool(found.held_out.mean.value < 0.6 * found.held_out_before.mean.value)
    True
    """
    budget = integer(budget, "budget", minimum=1, maximum=AT_ONCE)
    free_stop = boolean(free_stop, "free_stop")
    rules = DescentRules() if rules is None else rules
    grids = _checked_starts(starts, reference)
    if (held_out.seed, held_out.name) == (reference.draws.seed, reference.draws.name):
        raise ValueError("held_out has the seed and name of the descended draws; give it another name.")
    autograd = rules.autograd(reference)
    question: dict[str, Any] = {"what": "grid descent", "held_out": held_out.describe()}
    question |= {"starts": [grid.tolist() for grid in grids], "objective": rules.objective, "free_stop": free_stop}
    question |= {"jumps": _JUMPS}  # a descent without them would read these runs as its own
    ledger = reference.items_in(folder, question | {"autograd": autograd})
    runs = GridRuns(reference, reference.with_draws(held_out), ledger, autograd)
    runs.batches += runs.fine_cost()
    needed = runs.batches + sum(runs.cost(grid) + runs.other_cost(grid) for grid in grids)
    if needed > budget:
        raise ValueError(f"budget is {budget} batches; the fine solution and the starts alone take {needed}.")
    found = [_State.at(grid, runs) for grid in grids]
    found.sort(key=lambda state: _on_all_draws(rules, state))
    best = _best_descent(found, runs, rules, budget, free_stop)
    return best.result(runs.batches)


def _checked_starts(starts: Iterable[Any], reference: Reference) -> list[Array]:
    grids = [starting_at(grid, reference) for grid in entries(starts, "starts")]
    if not grids or len({(grid.size, bool(grid[-1] == 0)) for grid in grids}) != 1:
        raise ValueError("starts must hold at least one grid, all of one number of steps and one terminal map.")
    return grids


def _best_descent(found: list[_State], runs: GridRuns, rules: DescentRules, budget: int, free_stop: bool) -> _Finished:
    """Descents from the best start on, then from jumps of the best grid met, as long as the budget lasts."""
    waiting = list(found)
    best: _Finished | None = None
    jumped: _Finished | None = None
    while True:
        if not waiting and best is not jumped:
            assert best is not None
            waiting, jumped = _jumps(best, runs, rules, budget), best
        if not waiting:
            break
        start = waiting.pop(0)
        descent = _Descent(runs, rules, budget, _FreeSteps.of(start.grid, free_stop, runs.reference.stopping_sigma)[0])
        if best is not None and not descent.affords(_WORTH * descent.move_cost(start.grid)):
            break  # too little is left for another start to arrive anywhere
        there = _descended(start, runs, rules, budget, free_stop)
        if best is None or _on_all_draws(rules, there.state) < _on_all_draws(rules, best.state):
            best = there
    assert best is not None
    return best


def _descended(start: _State, runs: GridRuns, rules: DescentRules, budget: int, free_stop: bool) -> _Finished:
    """The descent from one start."""
    space, unknowns = _FreeSteps.of(start.grid, free_stop, runs.reference.stopping_sigma)
    descent = _Descent(runs, rules, budget, space)
    if unknowns.size < (1 if free_stop else 2):
        return _Finished(start, start, 0, "no node is free")
    if not descent.affords(runs.slope_cost(start.grid)):
        return _Finished(replace(start, unknowns=unknowns), start, 0, "budget")
    state, taken, reason = descent.descend(*descent.begin(replace(start, unknowns=unknowns)))
    return _Finished(state, start, taken, reason)


def _jumps(best: _Finished, runs: GridRuns, rules: DescentRules, budget: int) -> list[_State]:
    """Grids with one node of the best put into a neighbouring interval, the least errors first."""
    grids = jumped_grids(best.state.grid)
    cost = runs.cost(best.state.grid) * (len(grids) + _JUMPS) + runs.other_cost(best.state.grid) * _JUMPS
    if not grids or runs.batches + cost > budget:
        return []
    values = [rules.value(runs.errors(grid))[0] for grid in grids]
    return [_State.at(grids[i], runs) for i in np.argsort(values, kind="stable")[:_JUMPS]]


def jumped_grids(grid: Array) -> list[Array]:
    """Grids in which one node between the first and the last positive one is amid an interval beside its own.

    A descent moves nodes and never past each other: how many lie above a stretch of levels is its start's.

    >>> [made.round(3).tolist() for made in jumped_grids(np.array([16.0, 8.0, 4.0, 1.0, 0.0]))]
    [[16.0, 4.0, 2.0, 1.0, 0.0], [16.0, 11.314, 8.0, 1.0, 0.0]]
    """
    positive, found = grid[grid > 0], []
    for i in range(1, positive.size - 1):
        rest = np.delete(positive, i)
        for j in (i - 2, i):  # between rest[j] and rest[j + 1]: the node's own interval is j = i - 1
            if 0 <= j < rest.size - 1:
                middle = float((rest[j] * rest[j + 1]) ** 0.5)
                found.append(np.concatenate([np.insert(rest, j + 1, middle), grid[positive.size :]]))
    return found


def _on_all_draws(rules: DescentRules, state: _State) -> float:
    """Objective on all draws: descents are compared on twice the draws that one of them stops on."""
    return rules.value(np.concatenate([state.errors, state.held_out]))[0]


@dataclass(frozen=True, eq=False)
class _FreeSteps:
    """Grids by unknowns, the logarithms of the steps in log sigma; steps beyond the range are scaled into it."""

    top: float
    span: float
    free_stop: bool
    tail: Array

    @classmethod
    def of(cls, grid: Array, free_stop: bool, lowest: float) -> tuple[_FreeSteps, Array]:
        positive = grid[grid > 0]
        low = min(lowest, float(positive[-1])) if free_stop else float(positive[-1])
        span = float(np.log(positive[0] / low))
        return cls(float(positive[0]), span, free_stop, grid[positive.size :]), np.log(-np.diff(np.log(positive)))

    def steps(self, unknowns: Array) -> Array:
        steps = np.exp(unknowns)
        return self.span * steps / steps.sum() if self._whole(unknowns) else steps

    def _whole(self, unknowns: Array) -> bool:
        return not self.free_stop or float(np.exp(unknowns).sum()) > self.span

    def grid(self, unknowns: Array) -> Array:
        logs = -np.cumsum(self.steps(unknowns))
        return np.concatenate([[self.top], self.top * np.exp(logs), self.tail])

    def slope(self, unknowns: Array) -> Array:
        """(nodes, unknowns) d log sigma_k / d unknown_i: minus the step for i <= k, less its share of the range."""
        steps = self.steps(unknowns)
        slope = -np.tril(np.broadcast_to(steps, (steps.size, steps.size)))
        return slope + np.outer(np.cumsum(steps), steps / self.span) if self._whole(unknowns) else slope


@dataclass(frozen=True, eq=False)
class _State:
    """An accepted grid: unknowns, objective, its slope by the unknowns, and errors on both sets of draws."""

    unknowns: Array
    grid: Array
    value: float
    slope: Array
    errors: Array
    held_out: Array

    @classmethod
    def at(cls, grid: Array, runs: GridRuns) -> _State:
        """A start, measured on both sets of draws."""
        nothing = np.zeros(0)
        return cls(nothing, grid, 0.0, nothing, runs.errors(grid), runs.errors(grid, held_out=True))


@dataclass(frozen=True, eq=False)
class _Finished:
    """A descent that ended: its best state, where it began, accepted moves, why it stopped."""

    state: _State
    start: _State
    taken: int
    reason: str

    def result(self, batches: int) -> DescendedGrid:
        state, start = self.state, self.start
        return DescendedGrid(
            sigmas=state.grid,
            start=start.grid,
            held_out=GridErrors(state.held_out),
            held_out_before=GridErrors(start.held_out),
            descent=GridErrors(state.errors),
            batches=batches,
            steps=self.taken,
            reason=self.reason,
        )


@dataclass(eq=False)
class _Descent:
    """Quasi-Newton (BFGS) on the logarithm of the objective, from the Gauss-Newton matrix at the start."""

    runs: GridRuns
    rules: DescentRules
    budget: int
    space: _FreeSteps

    def affords(self, batches: int) -> bool:
        return self.runs.batches + batches <= self.budget

    def move_cost(self, grid: Array) -> int:
        return self.runs.cost(grid) + self.runs.other_cost(grid) + self.runs.slope_cost(grid)

    def begin(self, start: _State) -> tuple[_State, Array]:
        """The start with its slope and curvature, Gauss-Newton where it costs at most a quarter of what is left."""
        grid, unknowns = start.grid, start.unknowns
        value, weights = self.rules.value(start.errors)
        by_logs = self.space.slope(unknowns)
        if self.runs.differences_cost(grid) <= max(
            0.25 * (self.budget - self.runs.batches), self.runs.slope_cost(grid)
        ):
            nodes, matrix = self.runs.differences(grid, weights / value)
            curvature = by_logs.T @ matrix @ by_logs
            curvature += 1e-3 * np.diag(curvature).max() * np.eye(unknowns.size)
        else:
            nodes = self.runs.slope(grid, weights / value)
            curvature = np.eye(unknowns.size) * max(float(np.linalg.norm(by_logs.T @ nodes)), 1e-12)
        return replace(start, value=value, slope=by_logs.T @ nodes), curvature

    def descend(self, now: _State, curvature: Array) -> tuple[_State, int, str]:
        origin, best, taken, idle, small = now.unknowns, now, 0, 0, 0
        while True:
            if not np.any(now.slope):
                return best, taken, "no slope: no node is free"
            if not self.affords(self.move_cost(now.grid)):
                return best, taken, "budget"
            there = self._line_search(now, self._direction(now, curvature, origin), origin)
            if there is None:
                return best, taken, "no lower error along the descent direction"
            curvature = _updated(curvature, there.unknowns - now.unknowns, there.slope - now.slope)
            small = small + 1 if there.value > (1 - _SMALL) * now.value else 0
            now, taken = there, taken + 1
            better = self._held_out(now) < self._held_out(best)
            best, idle = (now, 0) if better else (best, idle + 1)
            if idle >= self.rules.patience:
                return best, taken, "held-out error stopped falling"
            if small >= 2:
                return best, taken, "converged"

    def _held_out(self, state: _State) -> float:
        return self.rules.value(state.held_out)[0]

    def _direction(self, now: _State, curvature: Array, origin: Array) -> Array:
        """Newton direction among the unknowns that are not held by the trust bounds."""
        away = now.unknowns - origin
        held = ((away >= _TRUST - 1e-9) & (now.slope < 0)) | ((away <= 1e-9 - _TRUST) & (now.slope > 0))
        move, free = np.zeros(now.unknowns.size), np.flatnonzero(~held)
        move[free] = -np.linalg.solve(curvature[np.ix_(free, free)], now.slope[free])
        return move / max(1.0, float(np.abs(move).max(initial=0.0)))

    def _line_search(self, now: _State, move: Array, origin: Array) -> _State | None:
        """The first point along `move` with enough less error, shortened by parabolas; None after five tries."""
        length = 1.0
        for _ in range(5):
            there = np.clip(now.unknowns + length * move, origin - _TRUST, origin + _TRUST)
            gain = float(now.slope @ (there - now.unknowns))
            grid = self.space.grid(there)
            if gain >= 0 or not self.affords(self.move_cost(grid)):
                return None
            errors = self.runs.errors(grid)
            value, weights = self.rules.value(errors)
            rise = float(np.log(value / now.value))
            if rise <= 1e-4 * gain:
                held_out = self.runs.errors(grid, held_out=True)
                slope = self.space.slope(there).T @ self.runs.slope(grid, weights / value)
                return _State(there, grid, value, slope, errors, held_out)
            length *= min(0.5, max(0.1, -gain / (2 * (rise - gain))))
        return None


def _updated(curvature: Array, move: Array, change: Array) -> Array:
    """BFGS update, damped (Powell 1978) so that it stays positive definite."""
    bent = curvature @ move
    own, found = float(move @ bent), float(move @ change)
    if own <= 0:
        return curvature
    share = 1.0 if found >= 0.2 * own else 0.8 * own / (own - found)
    change = share * change + (1 - share) * bent
    return curvature - np.outer(bent, bent) / own + np.outer(change, change) / float(move @ change)
