"""Descent of the measured error of a grid in the logarithms of its noise levels, held-out draws deciding."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...basics.checks import Array, choice, integer
from ..runs.fine_solution import Draws, Reference
from .grid_error import GridErrors, objective_of, starting_at
from .grid_runs import GridRuns, differentiable
from .newton_descent import Descent, FreeSteps, State

__all__ = ["DescendedGrid", "DescentRules", "descend_grid"]

_WORTH = 6  # moves that must be affordable before another start is descended
_STARTS, _FIRST_MOVES = 4, 2  # at most so many starts take so many moves before the best of them goes on,
_TRIALS = 0.4  # which may take this share of the budget that is left


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

    def __repr__(self) -> str:
        ratio = float(self.held_out.mean.value / self.held_out_before.mean.value)
        return (
            f"DescendedGrid({self.sigmas.size - 1} steps, held-out error {ratio:.3f} of the start's, "
            f"{self.batches} batches, stopped: {self.reason})"
        )


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
        if self.gradient == "auto":
            return differentiable(reference.denoiser, reference.draws)
        return self.gradient == "autograd"


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
        starts: grids of one length and terminal map; the best by objective over all draws is descended, then
            the next best as long as the budget lasts: few steps have several local minima.
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
    integer(budget, "budget", minimum=1)
    rules = DescentRules() if rules is None else rules
    grids = _checked_starts(starts, reference)
    if (held_out.seed, held_out.name) == (reference.draws.seed, reference.draws.name):
        raise ValueError("held_out has the seed and name of the descended draws; give it another name.")
    autograd = rules.autograd(reference)
    question: dict[str, Any] = {"what": "grid descent", "held_out": held_out.describe()}
    question |= {"starts": [grid.tolist() for grid in grids], "objective": rules.objective, "free_stop": free_stop}
    ledger = reference.items_in(folder, question | {"autograd": autograd})
    runs = GridRuns(reference, reference.with_draws(held_out), ledger, autograd)
    runs.batches += runs.fine_cost()
    needed = runs.batches + sum(runs.cost(grid) + runs.other_cost(grid) for grid in grids)
    if needed > budget:
        raise ValueError(f"budget is {budget} batches; the fine solution and the starts alone take {needed}.")
    found = [State.at(grid, runs) for grid in grids]
    found.sort(key=lambda state: _on_all_draws(rules, state))
    best = _best_descent(found, runs, rules, budget, free_stop)
    return DescendedGrid(
        best.best.grid, best.start.grid, GridErrors(best.best.held_out), GridErrors(best.start.held_out),
        GridErrors(best.best.errors), runs.batches, best.taken, best.reason,
    )  # fmt: skip


def _checked_starts(starts: Iterable[Any], reference: Reference) -> list[Array]:
    grids = [starting_at(grid, reference) for grid in starts]
    if not grids or len({(grid.size, bool(grid[-1] == 0)) for grid in grids}) != 1:
        raise ValueError("starts must hold at least one grid, all of one number of steps and one terminal map.")
    return grids


def _best_descent(found: list[State], runs: GridRuns, rules: DescentRules, budget: int, free_stop: bool) -> Descent:
    """A few moves from each of the best starts, then all from the best of them on, as long as the budget lasts."""
    waiting = [_descent(start, runs, rules, budget, free_stop) for start in found]
    begun: list[Descent] = []
    while waiting and (not begun or waiting[0].affords(_WORTH)):  # else too little is left for another to arrive
        count = min(_STARTS, max(1, waiting[0].affordable(_TRIALS) // _FIRST_MOVES))
        group, waiting = waiting[:count], waiting[count:]
        for descent in group:
            descent.run(_FIRST_MOVES)
        for descent in sorted(group, key=lambda each: _on_all_draws(rules, each.best)):
            if descent.affords(_WORTH) or not begun:
                descent.run()
            begun.append(descent)
    return min(begun, key=lambda descent: _on_all_draws(rules, descent.best))


def _descent(start: State, runs: GridRuns, rules: DescentRules, budget: int, free_stop: bool) -> Descent:
    space, unknowns = FreeSteps.of(start.grid, free_stop, runs.reference.stopping_sigma)
    descent = Descent(runs, rules.value, budget, rules.patience, space, replace(start, unknowns=unknowns))
    if unknowns.size < (1 if free_stop else 2):
        descent.reason = "no node is free"
    return descent


def _on_all_draws(rules: DescentRules, state: State) -> float:
    """Objective on all draws: descents are compared on twice the draws that one of them stops on."""
    return rules.value(np.concatenate([state.errors, state.held_out]))[0]
