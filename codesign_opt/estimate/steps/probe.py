"""NetworkProbe: the live denoiser behind an EstimatedModel, which measures grids instead of predicting them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...basics.checks import Array, choice
from ...ingredients.fit_rules import FitRules
from ...ingredients.grids import check_grid
from ...ingredients.measured_error import OBJECTIVES, MeasuredError
from ...samplers.base import Sampler
from ..draws.statistics import squares
from ..draws.streams import agreed, my_share, sum_over_processes
from ..runs.fine_solution import Draws, Reference, gathered
from ..runs.step_rule import StepRule
from ..solver_fit.fit_rows import FittedSolver, fit_rows
from .grid_descent import USUAL_STOPS, DescentRules, descend_grid, usual_grids
from .grid_error import GridErrors, batches_of_run, residual, starting_at
from .grid_runs import rounding_of
from .responses import step_responses
from .stated_error import HEAVY, StatedErrors

__all__ = ["NetworkProbe"]

_PATIENCE = 5
_GRIDS = 4  # that errors are said of: a plan's and its peers'
_HEAVY, _MOST_TIMES = 0.2, 4  # relative standard error from which on a descent takes more draws, and how many times
_MOVES = 6  # of a descent that more draws must leave room for, each some three runs of both sets of draws
_ALWAYS = 200  # batches of a run that is measured whatever the budget


@dataclass(frozen=True, eq=False)
class NetworkProbe:
    """Measures responses and errors of grids on a denoiser, and descends the error of a grid.

    Four sets of draws: one is descended, a second stops the descent, a third chooses among grids, and a fourth, which
    chose nothing, measures what is said (docs/theory.md section 3.5).

    Args:
        reference: the fine solution, with the draws that responses and descents are measured on.
        rest: the same with fewer steps, for the fine runs behind coarse steps.
        nodes: (M,) noise levels of the responses, ascending.
        held_out: draws that stop a descent.
        choosing: draws that grids are compared on.
        said: the draws of what is said, with their fine solutions.
        budget: batch evaluations of one plan: measuring responses again, a descent, the choice among grids, and what is
            said of the chosen one and of others.
        round_cost: what measuring the responses again takes of it.
        fit_budget: batch evaluations of one fit of a solver, beside that budget.
        objective: what is lowered, compared and said of the errors of draws.
        folder: where finished items are kept; None for memory.
        tell: takes a line of progress.
    """

    reference: Reference
    rest: Reference
    nodes: Array
    held_out: Draws
    choosing: Draws
    said: StatedErrors
    budget: int = 2000
    round_cost: int = 0
    fit_budget: int = 5000
    objective: str = "mean"
    folder: Path | None = None
    tell: Callable[[str], None] = print
    _known: dict[bytes | str, Any] = field(default_factory=dict, repr=False)

    def respond(self, sigmas: Array) -> tuple[Array, Array]:
        """(M,) ascending levels and (B, M) rows, measured at the step sizes of this grid."""
        sigmas = agreed(sigmas)
        found = step_responses(self.rest, self.nodes, StepRule.of_grid(sigmas), folder=self._place("responses", sigmas))
        self.tell(f"responses at the steps of a grid of {sigmas.size - 1}: {found.calls} batch evaluations")
        return found.sigma, found.scaled_response

    @property
    def affords_response(self) -> bool:
        """Whether measuring the responses once more leaves half as much again for the rest."""
        return self.budget >= 2.5 * self.round_cost

    def with_objective(self, objective: str) -> NetworkProbe:
        """The same probe, for another statistic of the errors of draws."""
        return replace(self, objective=choice(objective, "objective", OBJECTIVES))

    def after_response(self) -> NetworkProbe:
        """The same probe with what one measurement of responses took gone from its budget."""
        return replace(self, budget=max(0, self.budget - self.round_cost))

    def errors(self, sigmas: Array) -> GridErrors:
        """Squared distances of the grid's outputs to the fine solution, on the draws that choose among grids."""
        sigmas = self._checked(sigmas)
        key = sigmas.tobytes()
        if key not in self._known:
            solution = self.reference.with_draws(self.choosing)
            ends = self._known.setdefault(b"ends", {})
            parts = {}
            for chunk in my_share(self.choosing.chunks):
                if chunk not in ends:
                    with torch.no_grad():
                        ends[chunk] = solution.terminal_states(chunk)
                parts[chunk] = squares(residual(solution, sigmas, chunk, ends[chunk]))
            self._known[key] = GridErrors(gathered(self.choosing, parts))
        return self._known[key]

    def error(self, sigmas: Array) -> Any:
        """The objective of the squared distances to the fine solution, with its standard error, to choose by."""
        return self.errors(sigmas).of(self.objective)

    def fitted(self, sigmas: Array, rules: FitRules) -> FittedSolver:
        """A multistep sampler fitted from this grid and usual ones, on twice the draws that a grid descends."""
        sigmas, rules = self._checked(sigmas), replace(rules, objective=self.objective)
        positive = sigmas[sigmas > 0]
        low, high, bottom = float(positive[-1]), float(positive[0]), self.reference.stopping_sigma
        stops = sorted({low, *(s for s in USUAL_STOPS if rules.free_stop and bottom < s < 0.1 * high)})
        starts = [sigmas, *usual_grids(sigmas.size - 1, high, stops=stops, terminal=self.reference.terminal)]
        draws, name = self.reference.draws, ", ".join(str(value) for value in asdict(rules).values())
        found = fit_rows(
            self.reference.with_draws(replace(draws, count=2 * draws.count, name="fit")),
            self.held_out,
            starts,
            rules=rules,
            budget=self.fit_budget,
            folder=self._place(f"fit, {name}", sigmas),
        )
        self.tell(f"fit of {sigmas.size - 1} steps: {found!r}")
        return found

    def stated(
        self, grids: Mapping[str, Array], samplers: Mapping[str, Sampler] | None = None
    ) -> dict[str, MeasuredError]:
        """What is said of grids, the first of which is a plan's: on draws that chose nothing."""
        checked = {name: self._checked(grid) for name, grid in grids.items()}
        reserve = self._reserve(next(iter(checked.values())))
        found = self.said.state(checked, self.objective, reserve, samplers or {})
        for name, each in found.items():
            self.tell(f"{name}: {each.value:.4g} +- {each.standard_error:.2g}, {each.draws} draws")
        return found

    def affords(self, sigmas: Array) -> bool:
        """Whether a run of this grid is short enough to be measured: a plan measures some eight grids."""
        terminal = check_grid(sigmas).terminal
        one = self.choosing.chunks * batches_of_run(self.reference.sampler, sigmas.size - 1, terminal)
        return one <= max(self.budget // 8, self.choosing.chunks * _ALWAYS)

    @property
    def rounding(self) -> float:
        """Relative rounding of the denoiser's answers."""
        if "rounding" not in self._known:
            self._known["rounding"] = float(agreed(np.array([rounding_of(self.reference)]))[0])
        return float(self._known["rounding"])

    @property
    def calls(self) -> int:
        """Batches that the denoiser was asked for so far, by all processes."""
        return int(sum_over_processes(torch.tensor(float(self.reference.denoiser.calls), dtype=torch.float64)))

    def _checked(self, sigmas: Array) -> Array:
        """The same grid for all processes, inside what was measured."""
        grid, low = (
            starting_at(agreed(np.asarray(sigmas, dtype=np.float64)), self.reference),
            self.reference.stopping_sigma,
        )
        if grid[grid > 0][-1] < low * (1 - 1e-9):
            raise ValueError(
                f"sigmas stops at {grid[grid > 0][-1]:.4g}, below {low:.4g}, where the fine solution stops; measure "
                "with a process that reaches as low."
            )
        return grid

    def descend(self, sigmas: Array, *, free_stop: bool, stops: tuple[float, ...] = ()) -> Array:
        """The best grid met in descents of the measured error from this grid and the usual families.

        With few steps the error has several minima, over grids that stop at different levels too: `stops` are
        further stopping points for the families, besides this grid's own and the fine solution's.
        """
        sigmas = self._checked(sigmas)
        positive = sigmas[sigmas > 0]
        steps, low, high = sigmas.size - 1, float(positive[-1]), float(positive[0])
        bottom = self.reference.stopping_sigma
        ends = sorted({low, bottom, *(stop for stop in stops if bottom < stop < high)}) if free_stop else [low]
        starts = [sigmas, *usual_grids(steps, high, stops=ends, terminal=self.reference.terminal)]
        budget, times = self._for_descent(sigmas), self._times(sigmas)
        starts = starts[: self._affordable(steps, times, budget)]
        if not starts:
            self.tell(f"descent of {steps} steps: {budget} batch evaluations do not cover one run; left as it is")
            return sigmas
        own, held_out = (replace(each, count=times * each.count) for each in (self.reference.draws, self.held_out))
        found = descend_grid(
            self.reference.with_draws(own),
            held_out,
            starts,
            rules=DescentRules(self.objective, _PATIENCE),
            budget=budget,
            free_stop=free_stop,
            folder=self._place(f"descents-{self.objective}" + ("-free" if free_stop else ""), sigmas),
        )
        self.tell(f"descent of {steps} steps on {own.count} draws: {found!r}")
        return found.sigmas

    def _for_descent(self, sigmas: Array) -> int:
        """What is left of the budget behind the choice among grids of as many steps and what is said of them."""
        one = batches_of_run(self.reference.sampler, sigmas.size - 1, check_grid(sigmas).terminal)
        choice = self.choosing.chunks * (self.reference.path().calls() + (_GRIDS + 1) * one)
        return max(0, self.budget - choice - self.said.cost(sigmas, _GRIDS + 1) - self._reserve(sigmas))

    def _reserve(self, sigmas: Array) -> int:
        """What finer fine solutions and more draws may take: found once for a number of steps, at most a third."""
        key = f"{self.objective}, {sigmas.size - 1} steps".encode()
        if key not in self._known:
            asked = self.said.reserve(sigmas, _GRIDS, self.objective, heavy=self._heavy(sigmas))
            self._known[key] = min(asked, self.budget // 3)
        return int(self._known[key])

    def _heavy(self, sigmas: Array) -> bool:
        """Whether few of the draws decide, so that more of them shall be said of."""
        found, more = self.error(sigmas), (self.said.reference.draws.count / self.choosing.count) ** 0.5
        return float(found.standard_error) > HEAVY * more * float(found.value)

    def _times(self, sigmas: Array) -> int:
        """On how many times the draws to descend: more where few of them decide, as the budget covers some moves."""
        found, terminal = self.error(sigmas), check_grid(sigmas).terminal
        one = batches_of_run(self.reference.sampler, sigmas.size - 1, terminal)
        times = 1
        while times < _MOST_TIMES and float(found.standard_error) > _HEAVY * times**0.5 * float(found.value):
            more = [replace(each, count=2 * times * each.count) for each in (self.reference.draws, self.held_out)]
            chunks = sum(each.chunks for each in more)
            if chunks * (self.reference.path().calls() + _MOVES * 3 * one) > self._for_descent(sigmas):
                break
            times *= 2
        return times

    def _affordable(self, steps: int, times: int, budget: int) -> int:
        """How many starts a quarter of a budget can run, behind the fine solutions."""
        draws = [replace(each, count=times * each.count) for each in (self.reference.draws, self.held_out)]
        chunks = sum(each.chunks for each in draws)
        one = batches_of_run(self.reference.sampler, steps, self.reference.terminal)
        left = budget - chunks * self.reference.path().calls()
        return max(int(left >= 2 * chunks * one), left // (4 * chunks * one))

    def _place(self, what: str, sigmas: Array) -> Path | None:
        if self.folder is None:
            return None
        digest = hashlib.blake2b(np.ascontiguousarray(sigmas).tobytes(), digest_size=6).hexdigest()
        return self.folder / what / f"{sigmas.size - 1}-{digest}"
