"""Derivatives of the joint program's optimal value by the envelope theorem (docs/theory.md section 8)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...basics.checks import Array
from .dual import LevelDual
from .program import JointProgram
from .proof import JointSolution

__all__ = ["Sensitivity", "sensitivity", "stopping_slope"]


class Sensitivity(NamedTuple):
    """Derivatives of the optimal value (docs/theory.md section 8).

    Attributes:
        budget: (J,) by each budget.
        example_price: by the logarithm of a factor common to all prices of examples.
        step_price: by the logarithm of a factor common to all prices of steps.
    """

    budget: Array
    example_price: float
    step_price: float


def sensitivity(program: JointProgram, found: JointSolution) -> Sensitivity:
    """Derivatives of the optimal value by the envelope theorem: the multipliers times what is bought.

    >>> import numpy as np
    >>> from codesign_opt.solvers.joint.newton import solve_joint
    >>> one = np.ones(3)
    >>> row, budget = np.ones((1, 3)), np.array([12.0])
    >>> program = JointProgram(one, 0 * one, one, row, 1, row, row, budget)
    >>> found = sensitivity(program, solve_joint(program))
    >>> bool(abs(found.budget @ program.budgets + found.example_price + found.step_price) < 1e-9)
    True
    """
    eta = found.budget_multipliers
    return Sensitivity(
        -eta,
        float(eta @ (program.examples_prices @ found.examples)),
        float(eta @ (program.steps_prices @ found.steps)),
    )


def stopping_slope(before: JointProgram, after: JointProgram, found: JointSolution, distance: float) -> float:
    """d value / d stopping point: the change of the Lagrangian between two programs at one design and its multipliers.

    Args:
        before, after: the programs at two neighbouring stopping points, on the same number of levels.
        found: the solution at either of them or between.
        distance: stopping point of `after` minus that of `before`, not 0.

    Raises:
        ValueError: the programs differ in levels, bands, budgets, order or form, or distance is 0.
    """
    alike = [(p.size, p.order, p.form, p.response.shape) for p in (before, after)]
    if alike[0] != alike[1]:
        raise ValueError("stopping_slope: the two programs must have the same levels, bands, order and form.")
    if before.budgets.size != after.budgets.size:
        raise ValueError("stopping_slope: the two programs must have the same budgets.")
    if not np.isfinite(distance) or distance == 0:
        raise ValueError(f"stopping_slope: distance is {distance}; it must be finite and not 0.")
    # by the envelope theorem the optimum's first-order change is that of the Lagrangian at a fixed design: no solve,
    # and no noise of two solves in a small difference
    with np.errstate(all="ignore"):
        return (_lagrangian(after, found) - _lagrangian(before, found)) / distance


def _lagrangian(program: JointProgram, found: JointSolution) -> float:
    dual = LevelDual(program, list(range(program.budgets.size)))
    at = dual.objective(dual.spent + found.examples, found.steps)
    cost = program.examples_prices @ found.examples + program.steps_prices @ found.steps
    return float(at.value + at.constant) + float(found.budget_multipliers @ (cost - program.budgets))
