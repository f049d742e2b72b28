"""Limits of the length of a step: stable steps, and steps short enough for the error model."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, scale_of, shown
from ..models.coefficients import Coefficients
from .constraints import BoxConstraint, Number
from .design import Box, Design, Point
from .step_limits import StepLimits, variance_limit

__all__ = ["StabilityCap", "TrustCap"]


class _LongestStep(BoxConstraint):
    """Steps at most a multiple of some length on every level: steps >= `least` / multiple."""

    @abstractmethod
    def _least(self, design: Design) -> Array:
        """(L,) steps where the multiple is one."""

    def _multiple(self) -> float:
        return 1.0

    def box(self, design: Design) -> Box:
        return replace(Box.empty(len(design)), steps_low=self._least(design) / self._multiple())

    def relaxed(self, design: Design, amount: cp.Expression, beyond: float = 0.0) -> list[cp.Constraint]:
        least = self._least(design)
        at = np.flatnonzero(least > 0)
        longer = cp.inv_pos(self._multiple() + beyond + amount)
        return [design.steps[at] >= cp.multiply(least[at], longer)] if at.size else []

    def shortfall(self, design: Design, point: Point) -> float:
        least = self._least(design)
        at = least > 0
        with np.errstate(divide="ignore"):
            return float(np.max(least[at] / point.steps[at] - self._multiple(), initial=0.0))

    def price_rate(self, design: Design, point: Point) -> Array:
        """(L,) change of the least steps per unit of the multiple."""
        return -self._least(design) / self._multiple() ** 2


@dataclass(frozen=True, eq=False)
class StabilityCap(_LongestStep):
    """Steps short enough that Euler-Maruyama keeps every direction's sign: step <= v_min/((1+eta^2) sigma).

    The binding direction is the smallest eigenvalue. ODE and ancestral samplers in sigma need no
    cap: their multipliers lie in (0, 1] for every real step, and the constraint is empty
    (docs/theory.md section 3, Stability).
    """

    table: Coefficients

    def __post_init__(self) -> None:
        _check_ratio(
            self.table, "StabilityCap", needed=isinstance(self.table, Coefficients) and self.table.positivity > 0
        )

    @property
    def written_number(self) -> Number:
        """Length of a step over the longest stable one: 1 as stated."""
        return Number("multiple of the stable step", 1.0, "length of a step over the longest stable one")

    def _least(self, design: Design) -> Array:
        ratio = self.table.variance_ratio
        if self.table.positivity == 0 or ratio is None:
            return np.zeros(len(design))
        _check_levels(self.table, design, "StabilityCap")
        return self.table.positivity * ratio * design.log_width

    def step_limits(self, design: Design) -> StepLimits | None:
        if self.table.positivity == 0 or self.table.variance_ratio is None:
            return None
        return variance_limit(self.table, 1 / self.table.positivity)


@dataclass(frozen=True, eq=False)
class TrustCap(_LongestStep):
    """Steps within `kappa` v_min/sigma, near where the leading-order error model (3.1) holds."""

    table: Coefficients
    kappa: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kappa", scale_of(self.kappa, "TrustCap.kappa"))
        _check_ratio(self.table, "TrustCap", needed=True)

    @property
    def written_number(self) -> Number:
        """kappa, in units of v_min / sigma."""
        return Number("kappa", self.kappa, "v_min / sigma")

    def _multiple(self) -> float:
        return self.kappa

    def _least(self, design: Design) -> Array:
        _check_levels(self.table, design, "TrustCap")
        return np.asarray(self.table.variance_ratio) * design.log_width

    def step_limits(self, design: Design) -> StepLimits | None:
        return variance_limit(self.table, self.kappa)


def _check_levels(table: Coefficients, design: Design, owner: str) -> None:
    if len(table.levels) != len(design):
        raise ValueError(
            f"{owner}: its table has {len(table.levels)} levels from sigma = {table.levels.edges[0]:.4g}, the program "
            f"{len(design)} from {design.levels.edges[0]:.4g}; take the table that the program is on."
        )


def _check_ratio(table: Any, owner: str, *, needed: bool) -> None:
    if not isinstance(table, Coefficients):
        raise ValueError(f"{owner}.table is {shown(table)}; give Coefficients, from model.coefficients(...) or arrays.")
    if needed and table.variance_ratio is None:
        raise ValueError(f"{owner} needs Coefficients.variance_ratio; this table has none.")
