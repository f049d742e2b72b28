"""Programs of the library's own terms and budgets: known to be convex, and proved without a cvxpy expression.

Building expressions takes longer than solving such a program; only what the user wrote needs to be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import cvxpy as cp
import numpy as np
from scipy.optimize import brentq

from ..basics.checks import Array
from ..basics.errors import CodesignError
from ..ingredients.coupling import Local, PerLevel, PerStep, Settled
from ..modeling.algebra import Bound, Term
from ..modeling.constraints import Named
from ..modeling.design import Box, Design, Point
from ..modeling.discretization import Discretization
from ..modeling.terms import Compute, ScoreError, Steps, Truncation
from ..solvers.waterfill.fill import waterfill
from .reference import Budget
from .scaling import Row
from .structure import Answer, Structure

if TYPE_CHECKING:
    from .problem import Problem

__all__ = ["PLACEHOLDER", "BudgetRow", "SettledStructure", "is_plain_bound", "is_plain_problem", "is_plain_term"]

PLACEHOLDER = cp.Constant(0.0)  # stands where an expression would, and is not read
_COUPLINGS = (Local, PerLevel, PerStep, Settled)


def is_plain_term(term: Term) -> bool:
    """Whether a term of the objective is the library's own, its coupling included; a subclass is not."""
    if type(term) not in (ScoreError, Discretization, Truncation):
        return False
    return term.coefficients is not None and type(term.coefficients.coupling) in _COUPLINGS


def is_plain_bound(item: Named) -> bool:
    """Whether a constraint is a budget: a bound on a multiple of Compute or Steps."""
    if not isinstance(item.what, Bound):
        return False
    leaves = list(item.what.term.leaves())
    return len(leaves) == 1 and type(leaves[0][1]) in (Compute, Steps)


def is_plain_problem(problem: Problem) -> bool:
    """Whether nothing in a problem is the user's own."""
    terms = all(is_plain_term(leaf) for _, leaf in problem.objective.leaves())
    return terms and all(isinstance(item, Named) and is_plain_bound(item) for item in problem.constraints)


@dataclass(eq=False)
class BudgetRow(Row):
    """A budget as the certificate needs it, in numbers."""

    budget: Budget | None = None
    design: Design | None = None

    @classmethod
    def of(cls, item: Named, design: Design) -> BudgetRow:
        """The row of a bound for which `is_plain_bound` holds."""
        bound = item.what
        assert isinstance(bound, Bound)
        row = cls(item.name, PLACEHOLDER, np.ones(1), cp.Constant(0.0) <= 0, limit=bound.limit, bound=bound)
        row.budget, row.design = Budget.read(bound, design), design
        row.size = np.array([row._size(design.reference)])
        return row

    def _paid(self, point: Point) -> float:
        assert self.budget is not None
        return float(self.budget.example @ point.new_examples + self.budget.step @ point.steps)

    def _size(self, point: Point) -> float:
        assert self.budget is not None
        assert self.limit is not None
        return max(self._paid(point) + abs(self.budget.room), abs(self.limit)) or 1.0

    def excess(self) -> Array:
        assert self.budget is not None
        assert self.design is not None
        return np.maximum(np.array([self._paid(self.design.point()) - self.budget.room]), 0.0)

    def violation(self) -> float:
        assert self.design is not None
        excess = float(self.excess()[0])
        return excess / self._size(self.design.point()) if excess else 0.0


@dataclass(frozen=True, eq=False)
class SettledStructure(Structure):
    """Score error for a sampler that is given, under one budget that examples enter: P1 of docs/theory.md section 7.

    Without a last evaluation this is water-filling. With one, and nothing spent, an example's price falls by its
    use there: T = t sqrt(W / (c - theta w)), and theta solves one increasing equation.

    Attributes:
        weight: (L,) W, reducible error times examples, steps included.
        price, room: of the budget.
        name: of the budget.
        others: names of budgets that no example enters.
        final_error, window: A_r and w of the last evaluation.
        spent: (L,).
        steps: (L,).
    """

    method: ClassVar[str] = "water-filling"
    weight: Array
    price: Array
    room: float
    name: str
    others: tuple[str, ...]
    final_error: float
    window: Array
    spent: Array
    steps: Array
    whole: bool = True

    @classmethod
    def read(cls, problem: Problem, budgets: Sequence[tuple[str, Budget]], box: Box) -> SettledStructure | None:
        """None where examples are pooled, bounded level by level or limited by more than one budget."""
        if problem.steps is None or problem.examples is not None or not is_plain_problem(problem):
            return None
        scores = [(w, leaf.table) for w, leaf in problem.objective.leaves() if isinstance(leaf, ScoreError)]
        free = not np.any(box.examples_low > 0) and bool(np.all(np.isinf(box.examples_high)))
        if len(scores) != 1 or not free or (np.any(problem.spent_examples > 0) and scores[0][1].final_score > 0):
            return None
        if scores[0][1].coupling.pooling(problem.levels) is not None:
            return None
        rooms = [budget.room - float(budget.step @ problem.steps) for _, budget in budgets]
        priced = [i for i, (_, budget) in enumerate(budgets) if np.any(budget.example > 0)]
        if len(priced) != 1 or not np.all(budgets[priced[0]][1].example > 0) or min(rooms) < 0:
            return None
        (i,), (weight, table) = priced, scores[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = table.coupling.factor(table.kappa / problem.steps)
        if rooms[i] <= 0 or not np.all(np.isfinite(factor)):
            return None
        others = tuple(name for j, (name, _) in enumerate(budgets) if j != i)
        return cls(
            weight * table.example_error * factor, budgets[i][1].example, rooms[i], budgets[i][0], others,
            weight * table.final_score, table.final_window, problem.spent_examples, problem.steps,
        )  # fmt: skip

    def solve(self) -> Answer | None:
        if not np.any(self.weight > 0):
            return None
        try:
            new, eta = self._filled() if self.final_error == 0 else self._windowed()
        except (CodesignError, ValueError):  # the declared program says what is wrong
            return None
        point = Point(new, self.spent, self.steps)
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.where(self.weight > 0, self.weight / point.examples**2, 0.0)
        if self.final_error > 0:
            gain = gain + self.final_error / float(self.window @ point.examples) ** 2 * self.window
        multipliers = {self.name: eta, **dict.fromkeys(self.others, 0.0)}
        return Answer(point, multipliers, eta * self.price - gain, np.zeros(new.size))

    def _filled(self) -> tuple[Array, float]:
        found = waterfill(self.weight, self.price, self.room, spent=self.spent)
        return found.examples, float(found.multiplier)

    def _windowed(self) -> tuple[Array, float]:
        inside = self.window > 0
        ceiling = float((self.price[inside] / self.window[inside]).min()) * (1 - 1e-15)

        def shape(theta: float) -> Array:
            return np.sqrt(self.weight / (self.price - theta * self.window))

        def short(theta: float) -> float:
            return float(np.sqrt(theta) * (self.window @ shape(theta)) - np.sqrt(self.final_error))

        rates = shape(brentq(short, 0.0, ceiling, xtol=1e-300, rtol=1e-15))
        scale = self.room / float(self.price @ rates)
        return scale * rates, scale**-2.0
