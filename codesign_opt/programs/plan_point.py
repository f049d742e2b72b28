"""Where a plan of another problem lies among the designs of this one."""

from __future__ import annotations

import numpy as np

from ..basics.checks import Array
from ..modeling.design import Point
from ..results.plan import Plan
from .declaration import Declaration

__all__ = ["point_of"]


def point_of(program: Declaration, plan: Plan) -> Point:
    """The plan's densities on the program's levels; what is given there stays as given.

    Raises:
        ValueError: a sampler of the program's that the plan does not have.
    """
    logs, known = np.log(program.levels.sigma), np.log(plan.levels.sigma)

    def moved(values: Array) -> Array:
        return np.interp(logs, known, values / plan.levels.log_width) * program.levels.log_width

    return Point(
        moved(plan.new_examples) if program.new_examples is None else program.new_examples,
        program.spent,
        moved(plan.steps) if program.steps is None else program.steps,
        {each.name: moved(_steps_of(plan, each.name)) for each in program.samplings},
    )


def _steps_of(plan: Plan, name: str) -> Array:
    if name not in plan.samplings:
        raise ValueError(f"Problem: the plan to start from has no sampler {name!r}; give one of the same samplers.")
    return plan.samplings[name].steps
