"""A lower bound from the prices of a plan of another problem like this one (docs/theory.md section 8.1)."""

from __future__ import annotations

import numpy as np

from ..results.plan import Plan
from .compiled import compile_problem
from .plan_point import point_of
from .problem import Problem
from .proof import lagrangian

__all__ = ["bound_by_prices"]


@np.errstate(over="ignore", divide="ignore", invalid="ignore")  # as where programs are solved
def bound_by_prices(problem: Problem, plan: Plan) -> float:
    """Lower bound of a problem's optimum from a plan's prices and tangents at its densities; -inf where rows have none.

    Any prices bound the optimum from below, and any point may be the tangents': nothing is solved. Of a problem whose
    coefficients differ little the bound falls short of its optimum by the square of that.

    Args:
        problem: what is bounded; its rows are known by the names of the plan's.
        plan: certified, of a similar problem.

    Raises:
        CodesignError: something has no gradient at the plan's densities.
    """
    program = problem.declaration
    point = point_of(program, plan)
    compiled = compile_problem(program, program.recentred(point), program.box, declare=False)
    multipliers = []
    for row in compiled.rows:
        price = plan.shadow_prices.get(row.name)
        if row.box:  # bounds of single levels are kept, whatever their price
            multipliers.append(np.zeros(row.size.size))
        elif row.size.size != 1 or price is None or np.ndim(price):
            return -np.inf
        else:
            multiplier = row.price_sign * float(price)
            multipliers.append(np.array([multiplier if row.equality else max(multiplier, 0.0)]))
    compiled.set(point)
    bound = lagrangian(compiled, multipliers, point).value()
    return bound if np.isfinite(bound) else -np.inf
