"""Structured route for shared parameters: Newton in shares (P4 of docs/theory.md section 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..basics.checks import Array
from ..basics.errors import CodesignError
from ..modeling.design import Point
from ..modeling.information import InformationError
from ..solvers.information.shares import solve_information
from .budget import Budget
from .declaration import Declaration
from .structure import Answer, Structure, register

__all__ = ["InformationStructure"]


@register
@dataclass(frozen=True, eq=False)
class InformationStructure(Structure):
    """A weighted sum of information errors under one budget and level bounds: solvers/information/.

    The terms are blocks of parameters (bands, say) that share the examples of each level: block-diagonal
    information, whose work grows with the number of blocks (docs/theory.md section 7, P4).
    """

    method: ClassVar[str] = "Newton in shares"
    terms: tuple[tuple[float, InformationError], ...]
    name: str
    budget: Budget
    low: Array
    high: Array
    spent: Array
    whole: bool = True

    @classmethod
    def read(cls, program: Declaration) -> InformationStructure | None:
        """None for any other term or constraint, or a level without a price."""
        if len(program.budgets) != 1 or not program.only_budgets_and_boxes:
            return None
        if not all(leaf.is_structured and leaf.as_information is not None for _, leaf in program.leaves):
            return None
        ((name, budget),) = program.budgets.items()
        terms = tuple((weight, leaf.as_information) for weight, leaf in program.leaves if weight > 0)
        if not terms or not np.all(budget.example > 0):
            return None
        spent, box = program.spent, program.box
        low = np.maximum(box.examples_low - spent, 0.0)
        return cls(terms, name, budget, low, np.maximum(box.examples_high - spent, low), spent)

    def solve(self) -> Answer | None:
        try:
            found = solve_information(
                [term.roots for _, term in self.terms],
                [np.sqrt(weight) * term.response for weight, term in self.terms],
                self.budget.example,
                self.budget.room,
                prior=[term.prior for _, term in self.terms],
                low=self.low if self.low.any() else None,
                high=self.high if np.any(np.isfinite(self.high)) else None,
                spent=self.spent if self.spent.any() else None,
            )
        except (CodesignError, ValueError):  # the declared program says what is wrong, in the problem's own names
            return None
        point = Point(found.examples, self.spent, np.zeros(self.spent.size))
        gains = sum(weight * term.gains(term.solution(point.examples)) for weight, term in self.terms)
        examples = found.budget_multiplier * self.budget.example - gains
        return Answer(point, {self.name: found.budget_multiplier}, examples, np.zeros(self.spent.size))
