"""Rows: constraints of the declared program, with their size, their excess and their slopes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, Indices
from ..modeling.algebra import Bound
from ..modeling.constraints import Named
from ..modeling.design import Design, Point
from ..modeling.gradients import jacobians, linearise, row_size
from .budget import Budget

__all__ = ["PLACEHOLDER", "BudgetRow", "Row", "jacobians", "linearise", "row_size"]

_LOST = 1e-6  # of the pieces of a row
_ROUNDING = 64 * float(np.finfo(np.float64).eps)  # of them, what sums over levels round


@dataclass(eq=False)
class Row:
    """One scaled constraint: expression / size <= 0 (or == 0), and what it was before.

    Attributes:
        name: the user's name.
        expression: entries that must be <= 0 (or == 0), in user units.
        size: (N,) size of each entry at the reference.
        constraint: the cvxpy constraint on expression / size.
        price_sign: +1 where raising the user's right-hand side tightens (>=), -1 where it relaxes (<=).
        limit: the right-hand side, where it is one number.
        bound: the bound behind the row, or None.
        box: whether the row is a bound on single levels, which the certificate takes exactly.
        levels: (N,) the level that each entry of a level bound is about; None for other rows.
        uniform: whether the right-hand side that the user wrote is one number for all entries.
        limits: (N,) size of the number that each entry is compared with; None: that of `limit`.
        exact: the expression as the user wrote it, where `expression` was rescaled by a guess; the
            certificate trusts this one alone.
        budget: the same as prices and room, where it is linear; else None.
        own: of a bound whose terms have auxiliary variables: for each term the constraints on them.
        at: the value of such a row at a point, which does not set those variables.
        auxiliary: constraints on variables of the row's own.
    """

    name: str
    expression: cp.Expression
    size: Array
    constraint: cp.Constraint
    equality: bool = False
    price_sign: float = -1.0
    limit: float | None = None
    bound: Bound | None = None
    box: bool = False
    levels: Indices | None = None
    uniform: bool = False
    limits: Array | None = None
    exact: cp.Expression | None = None
    budget: Budget | None = None
    own: tuple[tuple[cp.Constraint, ...], ...] = ()
    at: Callable[[Point], float] | None = None
    auxiliary: tuple[cp.Constraint, ...] = ()

    @property
    def stated(self) -> cp.Expression:
        """The expression that proofs use."""
        return self.expression if self.exact is None else self.exact

    def excess(self, point: Point) -> Array:
        """(N,) violation in the row's own units, at `point`, to which the variables are set."""
        if self.budget is not None:
            return np.array([max(-self.budget.left(point.new_examples, point.steps), 0.0)])
        value = np.ravel(np.asarray(self.stated.value if self.at is None else self.at(point), dtype=np.float64))
        return np.abs(value) if self.equality else np.maximum(value, 0.0)

    def violation(self, point: Point) -> float:
        """Largest violation relative to `measure`, at `point`, to which the variables are set."""
        excess = self.excess(point)
        return float(np.max(excess / self.measure(point))) if excess.any() else 0.0

    def holds(self, point: Point, tolerance: float) -> bool:
        """Whether no violation is larger than `tolerance`, or than evaluating the row rounds, at `point`, to which the
        variables are set: far out a difference of large numbers has no digits.
        """
        excess = self.excess(point)
        rounding = _ROUNDING * self._pieces(point)
        return bool(np.all(excess <= np.maximum(tolerance * self.measure(point), rounding))) if excess.any() else True

    def measure(self, point: Point) -> Array:
        """(N,) what a violation of each entry is held against: the number that its author compares with.

        Where that is 0 or both sides vary, it is the size of the pieces; a number below a millionth of what is
        subtracted to meet it is lost in rounding.
        """
        limits = np.full(self.size.size, 0.0 if self.limit is None else abs(self.limit))
        return _measure(limits if self.limits is None else self.limits, self._pieces(point))

    def _pieces(self, point: Point) -> Array:
        """(N,) sum of the magnitudes of what each entry is made of."""
        limit = 0.0 if self.limit is None else abs(self.limit)
        if self.at is None:
            return row_size(cp.reshape(self.expression, (self.size.size,), order="C"), limit)
        return np.array([max(abs(self.at(point)) + 2 * limit, limit) or self.size[0]])

    def multipliers(self, objective_unit: float) -> Array:
        """(N,) multipliers per unit of the user's row, from the dual of the scaled one."""
        dual = self.constraint.dual_value
        value = np.zeros(self.size.size) if dual is None else np.ravel(np.asarray(dual, dtype=np.float64))
        if not self.equality:
            value = np.maximum(value, 0.0)
        return value * objective_unit / self.size


def _measure(limits: Array, pieces: Array) -> Array:
    """(N,) the limits where there are any, else the pieces, of entries far below the largest a share of that."""
    return np.where(limits > 0, np.maximum(limits, _LOST * pieces), np.maximum(pieces, _LOST * float(np.max(pieces))))


PLACEHOLDER: Any = None  # stands where an expression would, and is not read
_HOLDS: Any = None


@dataclass(eq=False)
class BudgetRow(Row):
    """A budget as the certificate needs it, in numbers."""

    @classmethod
    def of(cls, item: Named, budget: Budget, design: Design) -> BudgetRow:
        """The row of a bound that is a linear budget."""
        bound = item.what
        assert isinstance(bound, Bound)
        row = cls(item.name, PLACEHOLDER, np.ones(1), _HOLDS, limit=bound.limit, bound=bound, budget=budget)
        row.size = np.array([row._size(design.reference)])
        return row

    def _paid(self, point: Point) -> float:
        assert self.budget is not None
        return float(self.budget.example @ point.new_examples + self.budget.step @ point.steps)

    def _size(self, point: Point) -> float:
        assert self.budget is not None
        assert self.limit is not None
        return max(self._paid(point) + abs(self.budget.room), abs(self.limit)) or 1.0

    def _pieces(self, point: Point) -> Array:
        return np.array([self._size(point)])
