"""NetworkProbe: the live denoiser behind an EstimatedModel, which measures grids instead of predicting them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...basics.checks import Array
from ...ingredients.grids import check_grid
from ..draws.statistics import squares
from ..draws.streams import agreed, my_share, sum_over_processes
from ..runs.fine_solution import Draws, Reference, gathered
from ..runs.step_rule import StepRule
from .grid_descent import DescentRules, descend_grid, usual_grids
from .grid_error import GridErrors, batches_of_run, residual, starting_at
from .responses import step_responses

__all__ = ["NetworkProbe"]

_RULES = DescentRules(patience=5)
_ALWAYS = 200  # batches of a run that is measured whatever the budget


@dataclass(frozen=True, eq=False)
class NetworkProbe:
    """Measures responses and errors of grids on a denoiser, and descends the error of a grid.

    Three sets of draws: one is descended, a second stops the descent, a third measures what is said.

    Args:
        reference: the fine solution, with the draws that responses and descents are measured on.
        rest: the same with fewer steps, for the fine runs behind coarse steps.
        nodes: (M,) noise levels of the responses, ascending.
        held_out: draws that stop a descent.
        report: draws that errors are measured on.
        budget: batch evaluations of measuring responses again and of one descent.
        round_cost: what measuring the responses again takes of it.
        folder: where finished items are kept; None for memory.
        tell: what to do with a line of progress.
    """

    reference: Reference
    rest: Reference
    nodes: Array
    held_out: Draws
    report: Draws
    budget: int = 2000
    round_cost: int = 0
    folder: Path | None = None
    tell: Callable[[str], None] = print
    _known: dict[bytes, Any] = field(default_factory=dict, repr=False)

    def respond(self, sigmas: Array) -> tuple[Array, Array]:
        """(M,) ascending levels and (B, M) rows, measured at the step sizes of this grid."""
        sigmas = agreed(sigmas)
        found = step_responses(self.rest, self.nodes, StepRule.of_grid(sigmas), folder=self._place("responses", sigmas))
        self.tell(f"responses at the steps of a grid of {sigmas.size - 1}: {found.calls} batch evaluations")
        return found.sigma, found.scaled_response

    @property
    def affords_response(self) -> bool:
        """Whether measuring the responses once more leaves more than that for a descent."""
        return self.budget >= 2.5 * self.round_cost

    def after_response(self) -> NetworkProbe:
        """The same probe with what one measurement of responses took gone from its budget."""
        return replace(self, budget=max(0, self.budget - self.round_cost))

    def errors(self, sigmas: Array) -> GridErrors:
        """Squared distances of the grid's outputs to the fine solution, on the draws kept for reports."""
        sigmas = self._checked(sigmas)
        key = sigmas.tobytes()
        if key not in self._known:
            solution = self.reference.with_draws(self.report)
            ends = self._known.setdefault(b"ends", {})
            parts = {}
            for chunk in my_share(self.report.chunks):
                if chunk not in ends:
                    with torch.no_grad():
                        ends[chunk] = solution.terminal_states(chunk)
                parts[chunk] = squares(residual(solution, sigmas, chunk, ends[chunk]))
            self._known[key] = GridErrors(gathered(self.report, parts))
        return self._known[key]

    def error(self, sigmas: Array) -> Any:
        """Mean squared distance to the fine solution, with its standard error."""
        return self.errors(sigmas).mean

    def affords(self, sigmas: Array) -> bool:
        """Whether a run of this grid is short enough to be measured: a plan measures some eight grids."""
        terminal = check_grid(sigmas).terminal
        one = self.report.chunks * batches_of_run(self.reference.sampler, sigmas.size - 1, terminal)
        return one <= max(self.budget // 8, self.report.chunks * _ALWAYS)

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
        starts = starts[: self._affordable(steps)]
        if not starts:
            self.tell(f"descent of {steps} steps: {self.budget} batch evaluations do not cover one run; left as it is")
            return sigmas
        place = self._place("descent-free" if free_stop else "descent", sigmas)
        found = descend_grid(
            self.reference, self.held_out, starts, rules=_RULES, budget=self.budget, free_stop=free_stop, folder=place
        )
        self.tell(f"descent of {steps} steps: {found!r}")
        return found.sigmas

    def _affordable(self, steps: int) -> int:
        """How many starts a quarter of the budget can run, behind the fine solutions."""
        chunks = self.reference.draws.chunks + self.held_out.chunks
        one = batches_of_run(self.reference.sampler, steps, self.reference.terminal)
        left = self.budget - chunks * self.reference.path().calls()
        return max(int(left >= 2 * chunks * one), left // (4 * chunks * one))

    def _place(self, what: str, sigmas: Array) -> Path | None:
        if self.folder is None:
            return None
        digest = hashlib.blake2b(np.ascontiguousarray(sigmas).tobytes(), digest_size=6).hexdigest()
        return self.folder / what / f"{sigmas.size - 1}-{digest}"
