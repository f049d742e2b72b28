"""Where descents of grids may start, what sampling with them costs, and which the question admits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ..basics.checks import Array
from ..basics.errors import CodesignError
from ..ingredients.evaluations import final_steps, least_steps
from ..ingredients.grids import family_grids, grid_from_steps, log_snr_grid, steps_on_levels
from ..ingredients.levels import Levels
from ..results.plan import Plan
from .node_moves import between
from .question import Study

__all__ = ["FEW", "MOST_STEPS", "GridStarts", "stop_of"]

MOST_STEPS = 10_000  # no grid is longer: beyond, steps change nothing and the exact law takes minutes
FEW = 16  # steps up to which stopping points far from the program's are starts too
_STOPS = 5
_SCATTERED, _SPREADS = 1024, (0.7, 1.5)  # grids of random lengths, whose logarithms spread so, half of them each
_NOTHING = 1e-9  # of the budget: what is left is rounding
_MOST_SPENT = 0.999  # of the budget, by the longest grid
_COUNTED = 64  # steps of the grid that says what a step costs


@dataclass(frozen=True, eq=False)
class GridStarts:
    """Grids of a question around its certified plan.

    Args:
        study: the question.
        plan: the certified program's plan.
        stops: range of the stopping point; None where it is given.
        known: grids by their number of steps that a question like this one led to.
    """

    study: Study
    plan: Plan
    stops: tuple[float, float] | None
    known: Mapping[int, Array] = field(default_factory=dict)

    @property
    def top(self) -> float:
        """The highest noise level of every grid."""
        return float(self.plan.levels.edges[-1])

    @property
    def least(self) -> int:
        """The fewest steps of a grid."""
        return least_steps(self.plan.terminal)

    def usual(self, steps: int) -> list[Array]:
        """The program's density and the usual families, stopping where the program does."""
        plan = self.plan
        own = grid_from_steps(plan.levels, plan.steps, steps, terminal=plan.terminal)
        families = family_grids(steps, plan.stopping_sigma, self.top, plan.terminal).values()
        return [grid for grid in (own, *families) if self.admits(grid)]

    def of(self, steps: int) -> list[Array]:
        """The usual grids, for few steps families that stop elsewhere, and what is known of so many."""
        return [*self.usual(steps), *self.far(steps), *self.known_of(steps)]

    def known_of(self, steps: int) -> list[Array]:
        """What is known of so many steps, where the question admits it."""
        return [grid for grid in (self.known.get(steps),) if grid is not None and self.admits(grid)]

    def far(self, steps: int) -> list[Array]:
        """Of few steps, grids that stop far from each other; none where the stopping point is given."""
        if self.stops is None or steps > FEW:
            return []
        stops = np.geomspace(*self.stops, _STOPS)
        grids = [log_snr_grid(steps, float(s), self.top, terminal=self.plan.terminal) for s in stops]
        return [grid for grid in grids if self.admits(grid)]

    @property
    def any_stop(self) -> float:
        """The stopping point that is given, or the middle of their range."""
        return self.plan.stopping_sigma if self.stops is None else float(np.sqrt(self.stops[0] * self.stops[1]))

    def program(self, steps: int, stop: float) -> list[Array]:
        """The density of the program of so many steps that stops there, whatever the most steps of the question."""
        try:
            plan = replace(self.study, steps=steps).solve(stop)
        except CodesignError:
            return []
        return [grid_from_steps(plan.levels, plan.steps, steps, terminal=plan.terminal)]

    def scattered(self, steps: int) -> Array:
        """(G, K+1) grids of random step lengths: few steps whose errors may cancel have many minima."""
        count = steps - final_steps(self.plan.terminal)
        if steps > FEW or count < 2:
            return np.zeros((0, steps + 1))
        rng = np.random.default_rng(steps)
        spreads = np.resize(_SPREADS, (_SCATTERED, 1))
        lengths = np.exp(spreads * rng.normal(size=(_SCATTERED, count)))
        low, high = self.stops or (self.plan.stopping_sigma, self.plan.stopping_sigma)
        spans = np.log(self.top / (low * (high / low) ** rng.uniform(size=_SCATTERED)))
        shares = np.cumsum(lengths, axis=1) / lengths.sum(axis=1, keepdims=True)
        nodes = self.top * np.exp(-np.insert(shares, 0, 0.0, axis=1) * spans[:, None])
        nodes[:, -1] = self.plan.stopping_sigma if self.stops is None else nodes[:, -1]
        grids = np.pad(nodes, ((0, 0), (0, final_steps(self.plan.terminal))))
        return grids[[self.admits(grid) for grid in grids]]

    def program_grid(self) -> Array:
        """As many steps as the program's, or fewer where the budget then leaves nothing."""
        count = max(self.least, int(float(self.plan.steps.sum()) + final_steps(self.plan.terminal) + 1e-6))
        if self.study.steps is not None:
            count = min(count, int(self.study.steps))
        return grid_from_steps(self.plan.levels, self.plan.steps, min(count, MOST_STEPS), terminal=self.plan.terminal)

    # what the question admits

    def admits(self, sigmas: Array) -> bool:
        """Whether the question's constraints admit a grid."""
        return self.study.admits(sigmas)

    def admissible(self, start: Array, found: Array) -> Array:
        """The descended grid, or as much of the way to it as the constraints admit."""
        if self.admits(found):
            return found
        share, width, best = 0.0, 1.0, start
        for _ in range(12):
            width *= 0.5
            trial = between(start, found, share + width)
            if self.admits(trial):
                share, best = share + width, trial
        return best

    # money

    def money(self, sigmas: Array) -> float:
        """What the grid leaves for training; 1 where nothing is trained."""
        if not self.study.trains:
            return 1.0
        assert self.study.budget is not None
        left = self.study.budget - self._price(sigmas)
        return left if left > _NOTHING * self.study.budget else 0.0

    @cached_property
    def affordable(self) -> float:
        """The most steps that leave something for training."""
        if not self.study.trains:
            return np.inf
        assert self.study.budget is not None
        two, many = (
            self._price(log_snr_grid(count, self.plan.stopping_sigma, self.top, terminal=self.plan.terminal))
            for count in (self.least, _COUNTED)
        )
        price = (many - two) / (_COUNTED - self.least)  # the last step to zero noise is cheaper than others
        left = _MOST_SPENT * self.study.budget - two
        return np.inf if price <= 0 else self.least + max(left / price, 0.0)

    def _price(self, sigmas: Array) -> float:
        """Price of sampling with a grid."""
        prices, model = self.study.prices, self.study.model
        assert prices is not None
        last = final_steps(model.terminal) * prices.final_price(stop_of(sigmas))
        if isinstance(prices.evaluation, float):
            steps = sigmas.size - 1 - final_steps(model.terminal)
            return prices.evaluation * prices.images * model.sampler.evaluations_per_step * steps + last
        levels = Levels.log_uniform(stop_of(sigmas), float(sigmas[0]), 100)
        each = prices.evaluation_price(levels) * model.sampler.evaluations_per_step
        return float(each @ steps_on_levels(levels, sigmas)) + last


def stop_of(sigmas: Array) -> float:
    """The last positive node."""
    return float(sigmas[sigmas > 0][-1])
