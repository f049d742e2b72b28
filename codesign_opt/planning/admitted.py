"""Which grids a question admits, and those of the program's density among them (docs/theory.md section 7.8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..basics.checks import Array
from ..ingredients.evaluations import final_steps, least_steps
from ..ingredients.grids import grid_from_steps
from ..results.plan import Plan
from .grid_starts import MOST_STEPS
from .question import Study
from .real_steps import INSIDE, RealSteps

__all__ = ["Admitted"]


@dataclass(frozen=True, eq=False)
class Admitted:
    """Grids whose real steps obey the constraints on single steps, above the program's stopping point.

    Args:
        study: the question.
        plan: the certified program's plan.
        limits: of real steps; None where any grid is admitted.
        reading: how a step is held against them.
    """

    study: Study
    plan: Plan
    limits: RealSteps | None
    reading: str = INSIDE

    def admits(self, sigmas: Array) -> bool:
        """Whether every step of a grid above the program's stopping point obeys."""
        return self.limits is None or self.limits.admits(sigmas, self.reading)

    def grids(self) -> list[Array]:
        """Grids of the program's density, with whole steps around its continuous count."""
        found = [self._grid(count) for count in self._counts()]
        return [grid for grid in found if grid is not None]

    def _grid(self, count: int) -> Array | None:
        plan = self.plan
        grid = grid_from_steps(plan.levels, plan.steps, count, terminal=plan.terminal)
        if self.limits is None or self.admits(grid):
            return grid
        return self.limits.place(plan.steps, count, plan.terminal, self.reading)

    def _counts(self) -> list[int]:
        final = final_steps(self.plan.terminal)
        count = min(float(self.plan.steps.sum()) + final, float(MOST_STEPS))
        low, high = int(np.floor(count + 1e-6)), int(np.ceil(count - 1e-6))
        wanted, least = {low, high}, least_steps(self.plan.terminal)
        if self.study.trains:  # a whole step less may leave much more for training
            wanted.add(low - 1)
        if self.limits is not None:
            fewest = self.limits.least_steps(self.reading)
            if not fewest:
                return []
            least = fewest + final
            wanted |= {least, high - 1, high + 1, high + 2}  # steps inside limits are shorter than their density's
        whole = {max(least, k) for k in wanted}
        if self.study.steps is not None:
            most = int(self.study.steps + 1e-9)
            whole = {k for k in whole if k <= most} or ({most} if most >= least else set())
        return sorted(whole)
