"""Discretisation error of measured responses: the Gram form (3.4), signed or entrywise positive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import cvxpy as cp
import numpy as np
from scipy.optimize import nnls

from ..basics.causes import POSITIVE_GRAM, SIGNED_GRAM
from ..basics.checks import Array, Mask, choice
from ..certificate.lagrangian import LagrangianBound
from ..models.coefficients import Coefficients
from .algebra import Term, check_table
from .design import Design, Point
from .positive_form import declared_form, form_as_written, form_gradient, positive_part

__all__ = ["GramDiscretization"]

MODELS = ("signed", "positive")
_RESOLUTION = 1e-6  # of the error without cancellation; a tolerance of 1e-6 is taken of it where the rest cancels


@dataclass(frozen=True, eq=False, repr=False)
class GramDiscretization(Term):
    """Squared error of finite steps with measured signs: u' G u, G = R'R, u_l = n_l^(-q).

    Equation (3.4), docs/theory.md section 3: the rows of `table.response` are the responses to a step at each
    level, in any orthogonal basis or for any draws of noise, with their signs, and errors of different levels
    may cancel. Two models, and a plan says which one it used:

    "signed": the form as it is. Convex in u, and a budget of steps is convex in u, so it is exact where
        steps serve nothing else: programs for the sampler alone. A lower bound on a level's steps
        (Floor, Cap of the step size, stability) is an upper bound on u. With a score error that depends on
        the steps it is solved as u >= n^(-q): exact where (G u)_l >= 0 at the solution, and then certified;
        refused with NotCertifiedError otherwise.
    "positive": G+ = max(G, 0) entrywise, an upper model that is convex in the steps, for programs in which a
        score error depends on the steps too: exact <= G+ <= sharp rows (3.1) <= norms.

    Args:
        table: the coefficients, with signed rows in `response`.
        model: "signed" or "positive".

    Raises:
        ValueError: `table` is no Coefficients, `model` is neither.

    >>> from codesign_opt import Coefficients, Levels, Steps
    >>> from codesign_opt.programs.problem import Problem
    >>> levels = Levels.log_uniform(0.01, 10.0, 2)
    >>> rows = np.array([[0.8, -1.0], [0.6, 0.0]]) / levels.log_width**2  # u_1^2 + u_2^2 - 1.6 u_1 u_2
    >>> table = Coefficients(levels, np.zeros(2), np.zeros(2), rows, terminal="rescale")
    >>> plan = Problem(GramDiscretization(table), [Steps() <= 4.0]).solve()
    >>> round(plan.error, 6), plan.steps.round(4).tolist()
    (0.1, [2.0, 2.0])
    """

    structured: ClassVar[bool] = True
    scales_itself: ClassVar[bool] = True
    table: Coefficients
    model: str = "signed"

    def __post_init__(self) -> None:
        check_table(self.table, "GramDiscretization")
        choice(self.model, "GramDiscretization.model", MODELS)

    @property
    def needs_examples(self) -> bool:
        return False

    @property
    def coefficients(self) -> Coefficients:
        return self.table

    @property
    def name(self) -> str:
        return f"GramDiscretization({self.model})"

    @property
    def cause(self) -> str:
        """What its error is called among a plan's parts."""
        return POSITIVE_GRAM if self.majorised else SIGNED_GRAM

    @property
    def majorised(self) -> bool:
        return self.model == "positive"

    @property
    def known_convex(self) -> bool:
        """Of the positive model: completing its matrix only to check that is half of a program's making."""
        return self.model == "positive"

    @property
    def advice(self) -> str:
        if self.model == "positive":
            return ""
        return (
            "GramDiscretization(signed) is exact only where longer steps, which cancel errors, harm nothing else; "
            'use model="positive".'
        )

    @cached_property
    def rows(self) -> Array:
        """(B, L) signed rows R, so that the error is |R u|^2; at most L of them, equivalent to the given ones."""
        rows = self.table.response * self.table.log_width ** (self.table.order + 1)
        if len(rows) > rows.shape[1]:  # only R'R matters
            rows = np.asarray(np.linalg.qr(rows, mode="r"))
        return rows

    @cached_property
    def gram(self) -> Array:
        """(L, L) the Gram matrix of the model: G, or max(G, 0)."""
        gram = self.rows.T @ self.rows
        return gram if self.model == "signed" else positive_part(gram)

    @property
    def _used(self) -> Mask:
        return np.any(self.table.response != 0, axis=0)

    def inverse(self, point: Point) -> Array:
        """(L,) u = n^(-q), 0 where no row needs steps."""
        with np.errstate(divide="ignore"):
            return np.where(self._used, np.maximum(point.steps, 0.0) ** -float(self.table.order), 0.0)

    def levels_value(self, point: Point) -> Array:
        """(L,) each level's share of the error, u_l (G u)_l; a share may be negative in the signed model."""
        u = self.inverse(point)
        if self.model == "positive":
            return form_gradient(self.gram, u)
        if np.any(np.isinf(u)):
            return np.where(self._used, np.inf, 0.0)
        return u * ((self.rows @ u) @ self.rows)

    def value(self, design: Design, point: Point) -> float:
        if self.model == "positive":
            return float(self.levels_value(point).sum())
        u = self.inverse(point)
        return float(np.sum((self.rows @ u) ** 2)) if np.all(np.isfinite(u)) else np.inf

    def constant(self, design: Design, point: Point) -> float:
        return self.value(design, point) if design.fixed_steps else 0.0

    def resolution(self, design: Design, point: Point) -> float:
        if self.model == "positive":
            return 0.0
        alone = np.abs(self.rows) @ self.inverse(point)
        return _RESOLUTION * float(alone @ alone)

    def parts(self, design: Design, point: Point) -> dict[str, float]:
        return {self.cause: self.value(design, point)}

    def level_parts(self, point: Point) -> Mapping[str, Array]:
        return {"discretization": self.levels_value(point)}

    def remarks(self, design: Design, point: Point) -> list[str]:
        if design.fixed_steps:
            return []
        value = self.value(design, point)
        if self.model == "positive":
            signed = float(np.sum((self.rows @ self.inverse(point)) ** 2))
            return [f"discretization is an upper model, G+ of (3.4); with its signs it is {signed:.6g} for this plan"]
        # sums of responses at 1e-6 of their size, squared 1e-12: far below what a measurement knows of them
        if 0 <= value <= 1e-6 * self.resolution(design, point) and self._used.any():
            return ["the signed responses cancel at this plan; leading order says nothing of what is left"]
        return []

    def expression(self, design: Design) -> cp.Expression:
        """The form itself for the positive model; the signed one is not convex in the steps alone."""
        if self.model == "signed":
            raise TypeError(f"{self.name} has auxiliary variables; it enters a problem's objective as a term.")
        return form_as_written(self._relative_gram(design), float(self.table.order), design.step_variable)

    def formulation(self, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:
        if design.fixed_steps or not self._used.any():
            return cp.Constant(self.value(design, design.reference)), []
        if self.model == "positive":
            return declared_form(self._relative_gram(design), float(self.table.order), design.step_variable)
        return self._signed(design)

    def _relative_gram(self, design: Design) -> Array:
        unit = self.inverse(design.reference)
        return self.gram * unit * unit[:, None]

    def _signed(self, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:
        """|R u|^2 with u >= n^(-q), and u at most what a lower bound on steps leaves."""
        order, on = float(self.table.order), np.flatnonzero(self._used)
        rows = (self.rows * self.inverse(design.reference))[:, on]
        size = float(np.linalg.norm(np.abs(rows).sum(axis=1)))  # rows of order one, whatever the error's unit
        u = cp.Variable(on.size, name="inverse steps")
        x = design.step_variable[on]
        constraints = [u >= (cp.inv_pos(x) if order == 1 else cp.power(x, -order))]
        low = np.zeros(on.size) if design.steps_low is None else (design.steps_low / design.reference.steps)[on]
        held = np.flatnonzero(low > 0)
        if held.size:
            constraints.append(u[held] <= low[held] ** -order)
        return size**2 * cp.sum_squares((rows / size) @ u), constraints

    def floor_prices(self, design: Design, auxiliary: Sequence[cp.Constraint]) -> Array:
        """(L,) price per step that `u <= low^(-q)`, a constraint of the term's own, keeps of lower bounds on steps.

        Per unit of the declared objective, from the dual values of its last solution.
        """
        prices, order = np.zeros(len(design)), float(self.table.order)
        if len(auxiliary) < 2 or design.steps_low is None:
            return prices
        on = np.flatnonzero(self._used)
        held = on[design.steps_low[on] > 0]
        low, unit = design.steps_low[held], design.reference.steps[held]
        prices[held] = np.maximum(auxiliary[1].dual_value, 0.0) * order * (low / unit) ** (-order - 1) / unit
        return prices

    def recovered(self, design: Design, point: Point, auxiliary: Sequence[cp.Constraint]) -> Point:
        """Fewer steps where the solved u exceeds n^(-q): at an optimum that only happens where steps cost nothing.

        There u_l > n_l^(-q) makes the multiplier of u_l >= n_l^(-q) zero and with it the price of a step.
        """
        own = {v.id for v in design.variables}
        found = [v for constraint in auxiliary for v in constraint.variables() if v.id not in own]
        if self.model == "positive" or not found or found[0].value is None:
            return point
        on, order = np.flatnonzero(self._used), float(self.table.order)
        steps = point.steps.copy()
        unit = design.reference.steps[on]
        fewer = unit * np.maximum(np.asarray(found[0].value, dtype=np.float64), 1e-300) ** (-1 / order)
        least = np.zeros(on.size) if design.steps_low is None else design.steps_low[on]
        steps[on] = np.minimum(steps[on], np.maximum(fewer, least))
        return Point(point.new_examples, point.spent, steps)

    def add_to(self, bound: LagrangianBound, weight: float, point: Point) -> bool:
        if self.model == "positive":
            self._add_positive(bound, weight, point)
        else:
            self._add_signed(bound, weight, point)
        return True

    def _add_positive(self, bound: LagrangianBound, weight: float, point: Point) -> None:
        """The tangent in log n: the form is convex in log n, too, and -log n keeps the bound curved."""
        share = weight * self.levels_value(point)
        if not np.all(np.isfinite(share)):
            return  # a level without steps: zero is a bound of the form
        slope = 2 * self.table.order * share
        logs = np.log(np.where(share > 0, point.steps, 1.0))
        bound.add_logarithms(float(share.sum() + slope @ logs), np.zeros_like(share), slope)

    def _add_signed(self, bound: LagrangianBound, weight: float, point: Point) -> None:
        """|s|^2 >= 2 p s - |p|^2 for every p: separable in n^(-q), with coefficients 2 R'p."""
        u = self.inverse(point)
        if not np.all(np.isfinite(u)):
            return  # a level without steps: zero is a bound of the form
        sums = self.rows @ u
        if bound.fixed_steps is not None:
            bound.constant += weight * float(sums @ sums)
            return
        p = _supporting(self.rows, sums, self._used & (bound.steps_box[0] <= 0))
        bound.powers.append((float(self.table.order), weight * 2 * p @ self.rows))
        bound.constant -= weight * float(p @ p)

    def __repr__(self) -> str:
        return f"GramDiscretization({self.table!r}, model={self.model!r})"


def _supporting(rows: Array, sums: Array, free: Mask) -> Array:
    """(B,) p nearest to S with R'p >= 0 on the free levels, on which u has no upper bound.

    There a negative coefficient of n^(-q) would make the bound -inf. At the optimum p = S meets this but for
    rounding; the nearest p loses only the square of that. p = 0, a bound of zero, where no such p is found.
    """
    lengths = np.linalg.norm(rows, axis=0)
    size = float(np.linalg.norm(sums))
    free = free & (lengths > 0)
    if size == 0 or np.all((sums @ rows)[free] >= 0):
        return sums
    columns, unit = rows[:, free] / lengths[free], sums / size
    # p must meet rows @ p >= 0 as computed: products of unit vectors of some ten entries round by less than 1e-14, and
    # 1e-12 is for where that was not enough; directions that oppose each other leave no room at all, hence 0
    for margin in (1e-14, 1e-12, 0.0):
        # least distance programming (Lawson and Hanson, chapter 23): min |z| with columns' (unit + z) >= margin
        system = np.vstack([columns, margin - unit @ columns])
        target = np.zeros(len(system))
        target[-1] = 1.0
        residual = system @ nnls(system, target, maxiter=50 * system.shape[1])[0] - target
        if residual[-1] >= 0:
            continue
        p = sums - size * residual[:-1] / residual[-1]
        if np.all((p @ rows)[free] >= 0):
            return np.asarray(p)
    return np.zeros_like(sums)
