"""The structured part of a problem: what the Newton methods of solvers/ can take.

Score error, discretisation, budgets and level bounds separate over levels (docs/theory.md section 7).
Without further parts the structured solution is the answer; with them it is the point around which the
declared program is scaled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np

from ..basics.checks import Array
from ..modeling.design import Design, Point
from .declaration import Declaration
from .rows import Row, jacobians

__all__ = ["Answer", "Structure", "box_multipliers", "register", "structure_of"]


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
        if any(row.bound is None for row in rows):
            design.set(self.point)
        boxes = box_multipliers(rows, design, self.examples_gradient, self.steps_gradient)
        return [
            np.array([self.budget_multipliers[row.name]]) if box is None else box
            for row, box in zip(rows, boxes, strict=True)
        ]


def box_multipliers(
    rows: Sequence[Row], design: Design, by_examples: Array, by_steps: Array, tight: float = 1e-9
) -> list[Array | None]:
    """Multipliers of level bounds from the derivatives of the Lagrangian without them; None for other rows.

    Args:
        rows: with their variables at the candidate.
        design: of the rows.
        by_examples, by_steps: (L,) derivatives.
        tight: share of a row's size within which a bound holds its level.
    """
    pulls: list[tuple[Array, int] | None] = []
    holding = np.zeros((2, len(design)))
    for row in rows:
        if row.bound is not None or row.levels is None:
            pulls.append(None)
            continue
        # an entry bounds one level: its slope is +1 or -1 there, and its multiplier minus the gradient over it
        slopes = jacobians(row.stated, design)
        held = np.abs(np.ravel(np.asarray(row.stated.value))) <= tight * row.size
        pull = -np.ravel(by_examples @ slopes[0] + by_steps @ slopes[1])
        pull = np.where(held, np.maximum(pull, 0.0), 0.0)
        quantity = int(abs(slopes[0]).sum() == 0)  # 0: examples, 1: steps
        np.add.at(holding[quantity], row.levels[pull > 0], 1.0)
        pulls.append((pull, quantity))
    # bounds that coincide on a level hold it together: each pays its share, and the whole is paid once
    return [
        None if found is None else found[0] / np.maximum(holding[found[1]][row.levels], 1.0)
        for row, found in zip(rows, pulls, strict=True)
    ]


class Structure(ABC):
    """A part of a problem that a structured solver takes, and whether it is the whole problem.

    A new one is a file with a subclass under `@register`. It reads a declaration, takes only terms that say
    `is_structured`, and answers with a candidate and multipliers that the certificate is to judge: a wrong answer
    is refused there and the declared program is solved.
    """

    method: ClassVar[str]
    whole: bool

    @classmethod
    @abstractmethod
    def read(cls, program: Declaration) -> Structure | None:
        """The structure of a program that has budgets with room and decides examples, or None where it has another."""

    @abstractmethod
    def solve(self) -> Answer | None:
        """The optimum of the structured part, or None."""


Kind = TypeVar("Kind", bound=type[Structure])
_KINDS: list[type[Structure]] = []


def register(kind: Kind) -> Kind:
    """Let `Problem.solve` ask this structure too, before those that were registered earlier."""
    _KINDS.insert(0, kind)
    return kind


def structure_of(program: Declaration) -> Structure | None:
    """The first structure that reads the program; None where no structured solver applies."""
    budgets = program.budgets.values()
    if program.samplings or not budgets or any(budget.room <= 0 for budget in budgets) or program.examples is not None:
        return None
    found = (kind.read(program) for kind in _KINDS)
    return next((structure for structure in found if structure is not None), None)
