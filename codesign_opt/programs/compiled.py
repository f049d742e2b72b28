"""A problem compiled around a reference: variables, rows, the cvxpy declaration."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import cvxpy as cp
import numpy as np

from ..basics.checks import Array
from ..certificate.verdict import Certificate
from ..modeling.algebra import Term
from ..modeling.design import Box, Design, Point
from ..modeling.differentiable import has_kinks
from ..modeling.own_variables import OwnProgram, own_variables
from .declaration import Declaration
from .rows import PLACEHOLDER, BudgetRow, Row
from .scaling import rows_of, scaled_expression

__all__ = ["Compiled", "Leaf", "Solved", "compile_problem"]

_REMEMBERED = 8  # points whose values are kept


class Leaf(NamedTuple):
    """One summand of the objective: its weight, the term, its scaled expression, its own constraints."""

    weight: float
    term: Term
    expression: cp.Expression
    auxiliary: tuple[cp.Constraint, ...] = ()


@dataclass(eq=False)
class Compiled:
    """A program declared in cvxpy relative to a reference, and how to read it back.

    Attributes:
        in_numbers: whether nothing in it is a cvxpy expression: the library's own terms and budgets are known to
            be convex and proved from numbers, and building expressions takes longer than solving such a program.
    """

    design: Design
    box: Box
    leaves: list[Leaf]
    rows: list[Row]
    unit: float
    declared: cp.Problem | None
    in_numbers: bool = False
    _told: list[tuple[Point, dict[int, tuple[Term, float]]]] = field(default_factory=list, repr=False)

    def value(self, term: Term, point: Point) -> float:
        """A term of the program at a point; where a value is a program of its own, it is asked for again and again."""
        told = next((values for known, values in self._told if known is point), None)
        if told is None:
            told = {}
            self._told = [*self._told[-_REMEMBERED:], (point, told)]
        if id(term) not in told:
            told[id(term)] = (term, term.value(self.design, point))  # the term stays, and its id with it
        return told[id(term)][1]

    @property
    def terms(self) -> list[tuple[float, Term]]:
        """(weight, term) of the objective."""
        return [(leaf.weight, leaf.term) for leaf in self.leaves]

    @cached_property
    def kinked(self) -> bool:
        """Whether a part of the user's has kinks or variables of its own: tangents of it prove little or nothing."""
        parts = [leaf.expression for leaf in self.leaves if not leaf.term.scales_itself]
        for row in self.rows:
            if row.bound is None or not all(term.scales_itself for _, term in row.bound.term.leaves()):
                parts.append(row.stated)
        return any(has_kinks(part) for part in parts) or bool(own_variables(parts, self.design))

    def set(self, point: Point) -> None:
        """Give the variables the values that make the expressions, where there are any, equal to `point`."""
        if self.in_numbers:
            return
        self.design.set(point)
        if self._settled:
            program = self._own_program
            if program.has_parameters:  # whose values may change
                del self._own_program
            program.settle()

    @cached_property
    def _own_program(self) -> OwnProgram:
        rows = [sign * row.stated / row.size for row in self._settled for sign in ((1, -1) if row.equality else (1,))]
        return OwnProgram.of(self.design, None, [part for row in self._settled for part in row.auxiliary], rows)

    @cached_property
    def _settled(self) -> list[Row]:
        """Rows with variables of their own, which take the values that violate the rows least."""
        rows = [row for row in self.rows if row.budget is None and not row.box and row.at is None]
        return [row for row in rows if own_variables([row.stated, *row.auxiliary], self.design)]

    def infeasibility(self, point: Point) -> float:
        """Largest violation of a row relative to its measure, at `point`, to which the variables are set."""
        return max((row.violation(point) for row in self.rows), default=0.0)


@dataclass(eq=False)
class Solved:
    """A candidate with its proof and everything needed to describe it."""

    point: Point
    compiled: Compiled
    multipliers: list[Array]
    certificate: Certificate
    attempts: list[dict[str, Any]]


def compile_problem(program: Declaration, reference: Point, box: Box, *, declare: bool = True) -> Compiled:
    """Declare the program in variables relative to `reference`, objective and rows of order one.

    Without `declare` the leaves and rows are built for the certificate and no cvxpy problem is.
    """
    design = program.design(reference).with_least_steps(box.steps_low)
    leaves: list[Leaf] = []
    for weight, term in program.leaves:
        if not declare and term.known_convex:
            leaves.append(Leaf(weight, term, PLACEHOLDER))
        else:
            expression, constraints, _ = scaled_expression(term, design)
            leaves.append(Leaf(weight, term, expression, tuple(constraints)))
    numbers = not declare and all(term.known_convex for _, term in program.leaves)
    rows: list[Row] = []
    for item in program.constraints:
        budget = program.budgets.get(item.name)
        if numbers and budget is not None:
            rows.append(BudgetRow.of(item, budget, design))
        else:
            rows += rows_of(item, design, budget)
    if not declare:
        in_numbers = numbers and all(isinstance(row, BudgetRow) for row in rows)
        return Compiled(design, box, leaves, rows, 1.0, None, in_numbers)
    unit = _unit(leaves, design, reference)
    moving = [(leaf.weight / unit) * leaf.expression for leaf in leaves if not leaf.expression.is_constant()]
    objective = cp.Minimize(sum(moving[1:], start=moving[0]) if moving else cp.Constant(0.0))
    auxiliary = [constraint for leaf in leaves for constraint in leaf.auxiliary]
    auxiliary += [constraint for row in rows for constraint in row.auxiliary]
    declared = cp.Problem(objective, [row.constraint for row in rows] + auxiliary)
    return Compiled(design, box, leaves, rows, unit, declared)


def _unit(leaves: list[Leaf], design: Design, reference: Point) -> float:
    """Size of what the design can change of the objective, at the reference."""
    sizes = [
        abs(leaf.weight * (leaf.term.value(design, reference) - leaf.term.constant(design, reference)))
        for leaf in leaves
    ]
    return sum(size for size in sizes if np.isfinite(size)) or 1.0
