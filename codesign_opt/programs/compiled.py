"""A problem compiled around a reference: variables, rows, the cvxpy declaration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cvxpy as cp
import numpy as np

from ..basics.checks import Array
from ..certificate.verdict import Certificate
from ..modeling.algebra import Term
from ..modeling.design import Box, Design, Point
from ..modeling.terms import Truncation
from .plain import is_plain_bound, is_plain_term
from .proof import Leaf
from .rows import PLACEHOLDER, BudgetRow, Row
from .scaling import rows_of, scaled_expression

if TYPE_CHECKING:
    from .problem import Problem

__all__ = ["Compiled", "Solved", "compile_problem"]


@dataclass(eq=False)
class Compiled:
    """A program declared in cvxpy relative to a reference, and how to read it back."""

    design: Design
    box: Box
    leaves: list[Leaf]
    rows: list[Row]
    unit: float
    declared: cp.Problem | None

    @property
    def terms(self) -> list[tuple[float, Term]]:
        """(weight, term) of the objective."""
        return [(leaf.weight, leaf.term) for leaf in self.leaves]


@dataclass(eq=False)
class Solved:
    """A candidate with its proof and everything needed to describe it."""

    point: Point
    compiled: Compiled
    multipliers: list[Array]
    certificate: Certificate
    attempts: list[dict[str, Any]]


def compile_problem(problem: Problem, reference: Point, box: Box, *, declare: bool = True) -> Compiled:
    """Declare the program in variables relative to `reference`, objective and rows of order one.

    Without `declare` the leaves and rows are built for the certificate and no cvxpy problem is.
    """
    design = replace(problem.design(reference), steps_low=box.steps_low)
    leaves: list[Leaf] = []
    auxiliary: list[cp.Constraint] = []
    for weight, leaf in problem.objective.leaves():
        if not declare and is_plain_term(leaf):
            leaves.append(Leaf(weight, leaf, PLACEHOLDER))
            continue
        expression, constraints, _ = scaled_expression(leaf, design)
        leaves.append(Leaf(weight, leaf, expression, tuple(constraints)))
        auxiliary += constraints
    in_numbers = not declare and all(is_plain_term(leaf) for _, leaf in problem.objective.leaves())
    rows: list[Row] = []
    for item in problem.constraints:
        rows += [BudgetRow.of(item, design)] if in_numbers and is_plain_bound(item) else rows_of(item, design)
    moving = [leaf for leaf in leaves if not isinstance(leaf.term, Truncation)]
    sizes = [
        abs(leaf.weight * (leaf.term.value(design, reference) - leaf.term.constant(design, reference)))
        for leaf in moving
    ]
    unit = sum(size for size in sizes if np.isfinite(size)) or 1.0
    if not declare:
        return Compiled(design, box, leaves, rows, unit, None)
    total = sum((leaf.weight / unit) * leaf.expression for leaf in moving)
    objective = cp.Minimize(total if isinstance(total, cp.Expression) else cp.Constant(0.0))
    declared = cp.Problem(objective, [row.constraint for row in rows] + auxiliary)
    return Compiled(design, box, leaves, rows, unit, declared)
