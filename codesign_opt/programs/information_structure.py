"""Structured route for shared parameters: Newton in shares (P4 of docs/theory.md section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..basics.checks import Array
from ..basics.errors import CodesignError
from ..modeling.design import Box, Point
from ..modeling.information import InformationError
from ..solvers.information.shares import solve_information
from .budget import Budget
from .structure import Answer, Structure, _unknown

if TYPE_CHECKING:
    from .problem import Problem

__all__ = ["InformationStructure"]


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
    def read(cls, problem: Problem, budgets: Sequence[tuple[str, Budget]], box: Box) -> InformationStructure | None:
        """None for any other term or constraint, or a level without a price."""
        if len(budgets) != 1 or _unknown(problem, budgets):
            return None
        (name, budget), terms = budgets[0], []
        for weight, leaf in problem.objective.leaves():
            if not isinstance(leaf, InformationError):
                return None
            if weight > 0:
                terms.append((weight, leaf))
        if not terms or not np.all(budget.example > 0):
            return None
        spent = problem.spent_examples
        low = np.maximum(box.examples_low - spent, 0.0)
        return cls(tuple(terms), name, budget, low, np.maximum(box.examples_high - spent, low), spent)

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
