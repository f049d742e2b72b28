"""Budgets: what a question allows, stated once for declared programs, structured solvers and bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..basics.checks import Array, ndim
from ..ingredients.levels import Bins, Levels
from ..ingredients.prices import Prices
from ..modeling import Compute, Steps, named
from ..modeling.constraints import Named
from ..models.coefficient_batch import CoefficientBatch
from ..models.coefficients import Coefficients

__all__ = ["COMPUTE", "STEPS", "Budgets", "Limits"]

COMPUTE, STEPS = "budget", "steps"  # the names of the bounds, and so of their shadow prices

Tabulate = Callable[[Callable[[Levels | Bins], Array]], Array]


@dataclass(frozen=True, eq=False)
class Limits:
    """J budgets on levels: sum over levels of example price x examples + step price x steps <= left.

    Args:
        example_prices, step_prices: (J, L) for one table, (R, J, L) for a batch of R.
        left: (J,) or (R, J) amounts, the last step to zero taken off.
        amounts: (J,) amounts as they are stated.
    """

    example_prices: Array
    step_prices: Array
    left: Array
    amounts: Array

    @property
    def most_examples(self) -> Array:
        """(L,) or (R, L) examples that the budgets pay for where all is spent on one level."""
        return self._most(self.example_prices)

    @property
    def most_steps(self) -> Array:
        """(L,) or (R, L) steps, likewise."""
        return self._most(self.step_prices)

    def _most(self, prices: Array) -> Array:
        paid = np.divide(self.amounts[:, None], prices, out=np.full_like(prices, np.inf), where=prices > 0)
        return np.asarray(paid.min(axis=-2))


@dataclass(frozen=True, eq=False)
class Budgets:
    """Compute and steps that a question allows; either may be missing.

    Args:
        prices, compute: what compute costs and how much there is; None where only steps are limited.
        steps: number of steps, the last to zero included, or None.
    """

    prices: Prices | None
    compute: float | None
    steps: float | None

    @property
    def per_level(self) -> bool:
        """Whether a price is an array, which belongs to the levels of one stopping point."""
        given = () if self.prices is None else (self.prices.example, self.prices.evaluation)
        return any(not callable(price) and ndim(price) > 0 for price in given)

    def declared(self) -> list[Named]:
        """The bounds in the modelling language."""
        bounds = []
        if self.prices is not None and self.compute is not None:
            bounds.append(named(COMPUTE, Compute(self.prices) <= self.compute))
        if self.steps is not None:
            bounds.append(named(STEPS, Steps() <= self.steps))
        return bounds

    def of(self, table: Coefficients, *, interval: bool = False) -> Limits:
        """The limits on one table's levels.

        Args:
            interval: whether they shall hold for every stopping point below the table's: then the last step
                costs nothing where its price is a function of sigma.
        """
        final = self._final_prices(np.array([table.stopping_sigma]), interval)[0]
        return self._limits(table, lambda price: price(table.levels), np.ones(len(table.levels)), final)

    def of_batch(self, table: CoefficientBatch, *, interval: bool = False) -> Limits:
        """The limits on the levels of R tables; 0 where a table lacks the level."""
        levels = table.levels
        final = self._final_prices(levels.stops, interval)
        return self._limits(table, lambda price: levels.spread(price(levels.bins)), levels.used.astype(float), final)

    def _limits(self, table: Coefficients | CoefficientBatch, tabulate: Tabulate, one: Array, final: Array) -> Limits:
        examples, steps, left, amounts = [], [], [], []
        if self.prices is not None and self.compute is not None:
            examples.append(tabulate(self.prices.example_price))
            steps.append(tabulate(self.prices.evaluation_price) * table.evaluations_per_step)
            left.append(self.compute - table.final_steps * final)
            amounts.append(self.compute)
        if self.steps is not None:
            examples.append(np.zeros_like(one))
            steps.append(one)
            left.append(np.full_like(final, self.steps - table.final_steps))
            amounts.append(self.steps)
        return Limits(np.stack(examples, axis=-2), np.stack(steps, axis=-2), np.stack(left, axis=-1), np.array(amounts))

    def _final_prices(self, stops: Array, interval: bool) -> Array:
        """(R,) price of the last step to zero at each stopping point."""
        if self.prices is None or (interval and callable(self.prices.evaluation)):
            return np.zeros(stops.size)
        return np.array([self.prices.final_price(float(stop)) for stop in stops])
