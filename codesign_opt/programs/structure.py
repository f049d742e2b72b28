"""The structured part of a problem: what the Newton methods of solvers/ can take.

Score error, discretisation, budgets and level bounds separate over levels (docs/theory.md section 7).
Without further parts the structured solution is the answer; with them it is the point around which the
declared program is scaled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..basics.checks import Array
from ..ingredients.coupling import Coupling, Local, PerLevel, PerStep, Settled, Transfer
from ..modeling.algebra import Bound
from ..modeling.constraints import BoxConstraint
from ..modeling.design import Box, Design, Point
from .budget import Budget
from .rows import Row, jacobians

if TYPE_CHECKING:
    from .problem import Problem

__all__ = ["Answer", "Structure", "coupling_form"]


def coupling_form(coupling: Coupling) -> str | None:
    """The name of M in the structured solver, or None where examples are pooled."""
    if isinstance(coupling, (PerLevel, Transfer)):
        return None
    if isinstance(coupling, Local):
        return coupling.form
    if isinstance(coupling, PerStep):
        return "per_step"
    return "settled" if isinstance(coupling, Settled) else None


@dataclass(frozen=True, eq=False)
class Answer:
    """What a structured solver returned, with all that the certificate needs.

    Attributes:
        point: the candidate.
        budget_multipliers: by the budget's name.
        examples_gradient, steps_gradient: (L,) derivatives of the Lagrangian, the level bounds left out.
        tangent: where the certificate takes its tangents, if not at the candidate: every tangent is a bound.
    """

    point: Point
    budget_multipliers: dict[str, float]
    examples_gradient: Array
    steps_gradient: Array
    tangent: Point | None = None

    def multipliers(self, rows: Sequence[Row], design: Design) -> list[Array]:
        """Multipliers of the declared rows: the budgets', and the gradients where a level bound is tight."""
        design.set(self.point)
        result = []
        for row in rows:
            if row.bound is not None:
                result.append(np.array([self.budget_multipliers[row.name]]))
                continue
            # an entry bounds one level: its slope is +1 or -1 there, and its multiplier minus the gradient over it
            slopes = jacobians(row.stated, design)
            tight = np.abs(np.ravel(np.asarray(row.stated.value))) <= 1e-9 * row.size
            pull = -np.ravel(self.examples_gradient @ slopes[0] + self.steps_gradient @ slopes[1])
            result.append(np.where(tight, np.maximum(pull, 0.0), 0.0))
        return result


class Structure(ABC):
    """A part of a problem that a structured solver takes, and whether it is the whole problem."""

    method: ClassVar[str]
    whole: bool

    @classmethod
    @abstractmethod
    def read(cls, problem: Problem, budgets: Sequence[tuple[str, Budget]], box: Box) -> Structure | None:
        """The structure of a problem, or None where it has another."""

    @abstractmethod
    def solve(self) -> Answer | None:
        """The optimum of the structured part, or None."""


def _unknown(problem: Problem, budgets: Sequence[tuple[str, Budget]]) -> bool:
    """Whether the problem has constraints other than its budgets and level bounds."""
    names = {name for name, _ in budgets}
    return any(
        not (isinstance(item.what, BoxConstraint) or (isinstance(item.what, Bound) and item.name in names))
        for item in problem.constraints
    )
