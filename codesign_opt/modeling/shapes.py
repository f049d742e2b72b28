"""The shape of a design over the noise levels: shares of a range, densities that only rise or only fall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, choice, number
from ..basics.errors import EmptySelectionError
from .constraints import UNITS, Constraint, Number, sigma_range
from .design import Design, Point
from .parameters import amount, is_parameter
from .step_limits import StepLimits

__all__ = ["Monotone", "Share"]


@dataclass(frozen=True, eq=False)
class Share(Constraint):
    """At most a fraction of all examples (or steps) inside a range of sigma, as a linear bound.

    sum over the range <= at_most x sum over all levels. A bin on the edge of the range counts in
    proportion to its overlap in log sigma, so that refining the levels changes nothing. `at_most` is a number or a
    cp.Parameter. Nothing at all has no shares: those over the whole range that add up to less than one are refused.
    """

    at_most: Any
    low: float
    high: float
    quantity: str = "examples"

    def __post_init__(self) -> None:
        if not is_parameter(self.at_most):
            object.__setattr__(self, "at_most", number(self.at_most, "Share.at_most", nonnegative=True, maximum=1.0))
        else:
            amount(self.at_most, "Share.at_most")
        object.__setattr__(self, "low", number(self.low, "Share.low", positive=True))
        object.__setattr__(self, "high", number(self.high, "Share.high", positive=True))
        if not self.low < self.high:
            raise ValueError(f"Share.high is {self.high:g}; it must exceed low = {self.low:g}.")
        choice(self.quantity, "Share.quantity", ("examples", "steps"))

    @property
    def name(self) -> str:
        return f"Share({self.quantity}, {sigma_range(self.low, self.high)})"

    @property
    def written_number(self) -> Number:
        """The share, a fraction of all."""
        return Number("at_most", self.at_most, f"share of all {self.quantity}")

    def constraints(self, design: Design) -> list[cp.Constraint]:
        return [(self.inside(design) - self.at_most) @ getattr(design, self.quantity) <= 0]

    def relaxed(self, design: Design, amount: cp.Expression, beyond: float = 0.0) -> list[cp.Constraint]:
        """`amount` of all examples (or steps) of the reference: of those of the design it would not be convex."""
        total = float(getattr(design.reference, self.quantity).sum())
        return [(self.inside(design) - self.at_most - beyond) @ getattr(design, self.quantity) <= total * amount]

    def shortfall(self, design: Design, point: Point) -> float:
        values = getattr(point, self.quantity)
        total = float(values.sum())
        return max(float(self.inside(design) @ values) / total - self.at_most, 0.0) if total > 0 else 0.0

    def price_rate(self, design: Design, point: Point) -> Array:
        """All examples (or steps): so many more may be inside per unit of the share."""
        return np.array([float(getattr(point, self.quantity).sum())])

    def inside(self, design: Design) -> Array:
        """(L,) what part of each level lies in the range."""
        inside = design.levels.overlap(self.low, self.high) / design.log_width
        if not inside.any():
            raise EmptySelectionError(f"Share selects no level between sigma {self.low:g} and {self.high:g}.")
        return inside


@dataclass(frozen=True, eq=False)
class Monotone(Constraint):
    """A density that only rises or only falls with sigma.

    Args:
        direction: "increasing" or "decreasing" in sigma.
        quantity: "density" or "step_density".
    """

    nested: ClassVar[bool] = True
    direction: str
    quantity: str = "density"

    def __post_init__(self) -> None:
        choice(self.direction, "Monotone.direction", ("increasing", "decreasing"))
        choice(self.quantity, "Monotone.quantity", ("density", "step_density"))

    def constraints(self, design: Design) -> list[cp.Constraint]:
        if len(design) < 2:
            return []
        return [self._sign * cp.diff(getattr(design, self.quantity)) <= 0]

    @property
    def _sign(self) -> float:
        return 1.0 if self.direction == "decreasing" else -1.0

    @property
    def written_number(self) -> Number:
        """What the density may go the other way in all, from any level to any later one: 0 as stated."""
        way = "fall" if self.direction == "increasing" else "rise"
        return Number(f"largest {way}", 0.0, UNITS[self.quantity])

    def relaxed(self, design: Design, amount: cp.Expression, beyond: float = 0.0) -> list[cp.Constraint]:
        against = -self._sign * getattr(design, self.quantity)
        unit = float(np.max(design.reference.examples if self.quantity == "density" else design.reference.steps))
        peak = cp.Variable(len(design))  # the largest so far, in `unit`s
        peak.value = np.zeros(len(design))
        rises = [unit * peak[1:] >= unit * peak[:-1]] if len(design) > 1 else []
        return [unit * peak >= against, *rises, unit * peak - against <= amount + beyond]

    def shortfall(self, design: Design, point: Point) -> float:
        values = point.examples if self.quantity == "density" else point.steps
        against = -self._sign * values / design.log_width
        return float(np.max(np.maximum.accumulate(against) - against))

    def step_limits(self, design: Design) -> StepLimits | None:
        return StepLimits(directions=frozenset([self.direction])) if self.quantity == "step_density" else None
