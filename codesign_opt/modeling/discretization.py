"""Discretisation error from rows of one sign: the sharp form and its separable upper bound (equations 3.1, 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import cvxpy as cp
import numpy as np

from ..basics.causes import DISCRETIZATION
from ..basics.checks import Array, vector
from ..certificate.lagrangian import LagrangianBound
from ..models.coefficients import Coefficients
from .algebra import Term, check_table
from .design import Design, Point

__all__ = ["Discretization", "SeparableDiscretization"]


@dataclass(frozen=True, eq=False, repr=False)
class Discretization(Term):
    """Squared error of taking finite steps: sum_b (sum_l R_bl / n_l^q)^2, coherent along the path.

    Convex in the steps for every order q >= 1: a square of a nonnegative sum of convex functions
    (docs/theory.md section 3, equation 3.1 "sharp"). Response magnitudes are used: exact where a
    response keeps one sign along the path, an upper model otherwise.
    """

    structured: ClassVar[bool] = True
    scales_itself: ClassVar[bool] = True
    monotone: ClassVar[bool] = True
    table: Coefficients

    def __post_init__(self) -> None:
        check_table(self.table, "Discretization")

    @property
    def known_convex(self) -> bool:
        return True

    @property
    def needs_examples(self) -> bool:
        return False

    @property
    def coefficients(self) -> Coefficients:
        return self.table

    @property
    def cause(self) -> str:
        """What its error is called among a plan's parts."""
        return DISCRETIZATION

    def expression(self, design: Design) -> cp.Expression:
        c = self.table
        with np.errstate(divide="ignore", invalid="ignore"):  # a level without steps is one on which there is no error
            rows = np.where(c.step_response == 0, 0.0, c.step_response / design.reference.steps**c.order)
        rows = rows[np.any(rows > 0, axis=1)]
        if not rows.size:
            return cp.Constant(0.0)
        inverse = cp.inv_pos(design.step_variable) if c.order == 1 else cp.power(design.step_variable, -c.order)
        size = float(np.linalg.norm(rows.sum(axis=1)))  # rows of order one, whatever the unit of the error
        return size**2 * cp.sum_squares((rows / size) @ inverse)

    def _addends(self, point: Point) -> Array:
        """(B, L) R_bl / n_l^q, 0 where there is no response."""
        with np.errstate(divide="ignore", invalid="ignore"):
            addends = self.table.step_response / point.steps**self.table.order
        return np.where(self.table.step_response > 0, addends, 0.0)

    def band_sums(self, point: Point) -> Array:
        """(B,) S_b = sum_l R_bl / n_l^q, square root of each band's error."""
        return self._addends(point).sum(axis=1)

    def levels_value(self, point: Point) -> Array:
        """(L,) each level's share of the error, sum_b S_b R_bl / n_l^q."""
        return self.level_parts(point)["discretization"]

    def value(self, design: Design, point: Point) -> float:
        return float((self.band_sums(point) ** 2).sum())

    def constant(self, design: Design, point: Point) -> float:
        return self.value(design, point) if design.fixed_steps else 0.0

    def parts(self, design: Design, point: Point) -> dict[str, float]:
        return {self.cause: self.value(design, point)}

    def level_parts(self, point: Point) -> Mapping[str, Array]:
        addends = self._addends(point)
        sums = addends.sum(axis=1)
        on = addends > 0  # elsewhere nothing, also where a level without steps makes S_b infinite
        shares = np.multiply(sums[:, None], addends, out=np.zeros_like(addends), where=on)
        return {"discretization": np.asarray(shares.sum(axis=0)), "bands": sums**2}

    def derivatives(self, design: Design, point: Point) -> Mapping[str, Array]:
        """By the logarithm of `response`: of each of its rows (B,), and of each of its levels (L,)."""
        told = self.level_parts(point)
        return {"log response of bands": 2 * told["bands"], "log response of levels": 2 * told["discretization"]}

    def add_to(self, bound: LagrangianBound, weight: float, point: Point) -> bool:
        sums = self.band_sums(point)
        sums = np.where(np.isfinite(sums), sums, 0.0)  # a candidate without steps has no tangent; 0 is below it
        bound.powers.append((float(self.table.order), weight * 2 * sums @ self.table.step_response))
        bound.constant -= weight * float(sums @ sums)
        return True

    def __repr__(self) -> str:
        return f"Discretization({self.table!r})"


@dataclass(frozen=True, eq=False, repr=False)
class SeparableDiscretization(Term):
    """Separable upper bound of the discretisation error, equal to it at reference steps (equation 3.2).

    sum_l D_l / n_l^(2q), D_l = sum_b S_b R_bl n_ref^q. Solve, take the solution's steps as the next
    reference, repeat: each round cannot increase the sharp error (majorise and minimise).

    Args:
        table: the coefficients.
        reference_steps: (L,) steps at which bound and error agree, > 0.
    """

    structured: ClassVar[bool] = True
    scales_itself: ClassVar[bool] = True
    monotone: ClassVar[bool] = True
    table: Coefficients
    reference_steps: Array

    def __post_init__(self) -> None:
        check_table(self.table, "SeparableDiscretization")
        name = "SeparableDiscretization.reference_steps"
        steps = vector(self.reference_steps, name, length=len(self.table.levels), positive=True)
        object.__setattr__(self, "reference_steps", steps)

    @property
    def needs_examples(self) -> bool:
        return False

    @property
    def coefficients(self) -> Coefficients:
        return self.table

    @property
    def weights(self) -> Array:
        """(L,) D_l."""
        q = self.table.order
        sums = (self.table.step_response / self.reference_steps**q).sum(axis=1)
        return (sums @ self.table.step_response) * self.reference_steps**q

    def expression(self, design: Design) -> cp.Expression:
        power = 2 * self.table.order
        weights = self.weights / design.reference.steps**power
        return cp.sum(cp.multiply(weights, cp.power(design.step_variable, -power)))

    def value(self, design: Design, point: Point) -> float:
        return float(np.sum(self.weights / point.steps ** (2 * self.table.order)))

    def parts(self, design: Design, point: Point) -> dict[str, float]:
        return {DISCRETIZATION: self.value(design, point)}

    def add_to(self, bound: LagrangianBound, weight: float, point: Point) -> bool:
        bound.powers.append((2.0 * self.table.order, weight * self.weights))
        return True
