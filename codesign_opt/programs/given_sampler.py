"""Structured route where the sampler is given: water-filling (P1 of docs/theory.md section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.optimize import brentq

from ..basics.checks import Array
from ..basics.errors import CodesignError
from ..modeling.design import Box, Point
from ..modeling.terms import ScoreError
from ..solvers.waterfill.fill import waterfill
from .budget import Budget
from .plain import is_plain_problem
from .structure import Answer, Structure

if TYPE_CHECKING:
    from .problem import Problem

__all__ = ["SettledStructure"]


@dataclass(frozen=True, eq=False)
class SettledStructure(Structure):
    """Score error for a sampler that is given, under one budget that examples enter: P1 of docs/theory.md section 7.

    Without a last evaluation this is water-filling. With one, and nothing spent, an example's price falls by its
    use there: T = t sqrt(W / (c - theta w)), and theta solves one increasing equation.

    Attributes:
        weight: (L,) W, reducible error times examples, steps included.
        price, room: of the budget.
        name: of the budget.
        others: names of budgets that no example enters.
        final_error, window: A_r and w of the last evaluation.
        spent: (L,).
        steps: (L,).
    """

    method: ClassVar[str] = "water-filling"
    weight: Array
    price: Array
    room: float
    name: str
    others: tuple[str, ...]
    final_error: float
    window: Array
    spent: Array
    steps: Array
    whole: bool = True

    @classmethod
    def read(cls, problem: Problem, budgets: Sequence[tuple[str, Budget]], box: Box) -> SettledStructure | None:
        """None where examples are pooled, bounded level by level or limited by more than one budget."""
        if problem.steps is None or problem.examples is not None or not is_plain_problem(problem):
            return None
        scores = [(w, leaf.table) for w, leaf in problem.objective.leaves() if isinstance(leaf, ScoreError)]
        free = not np.any(box.examples_low > 0) and bool(np.all(np.isinf(box.examples_high)))
        if len(scores) != 1 or not free or (np.any(problem.spent_examples > 0) and scores[0][1].final_score > 0):
            return None
        if scores[0][1].coupling.pooling(problem.levels) is not None:
            return None
        rooms = [budget.room - float(budget.step @ problem.steps) for _, budget in budgets]
        priced = [i for i, (_, budget) in enumerate(budgets) if np.any(budget.example > 0)]
        if len(priced) != 1 or not np.all(budgets[priced[0]][1].example > 0) or min(rooms) < 0:
            return None
        (i,), (weight, table) = priced, scores[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = table.coupling.factor(table.kappa / problem.steps)
        if rooms[i] <= 0 or not np.all(np.isfinite(factor)):
            return None
        others = tuple(name for j, (name, _) in enumerate(budgets) if j != i)
        return cls(
            weight * table.example_error * factor, budgets[i][1].example, rooms[i], budgets[i][0], others,
            weight * table.final_score, table.final_window, problem.spent_examples, problem.steps,
        )  # fmt: skip

    def solve(self) -> Answer | None:
        if not np.any(self.weight > 0):
            return None
        try:
            new, eta = self._filled() if self.final_error == 0 else self._windowed()
        except (CodesignError, ValueError):  # the declared program says what is wrong
            return None
        point = Point(new, self.spent, self.steps)
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.where(self.weight > 0, self.weight / point.examples**2, 0.0)
        if self.final_error > 0:
            gain = gain + self.final_error / float(self.window @ point.examples) ** 2 * self.window
        multipliers = {self.name: eta, **dict.fromkeys(self.others, 0.0)}
        return Answer(point, multipliers, eta * self.price - gain, np.zeros(new.size))

    def _filled(self) -> tuple[Array, float]:
        found = waterfill(self.weight, self.price, self.room, spent=self.spent)
        return found.examples, float(found.multiplier)

    def _windowed(self) -> tuple[Array, float]:
        inside = self.window > 0
        ceiling = float((self.price[inside] / self.window[inside]).min()) * (1 - 1e-15)

        def shape(theta: float) -> Array:
            return np.sqrt(self.weight / (self.price - theta * self.window))

        def short(theta: float) -> float:
            return float(np.sqrt(theta) * (self.window @ shape(theta)) - np.sqrt(self.final_error))

        rates = shape(brentq(short, 0.0, ceiling, xtol=1e-300, rtol=1e-15))
        scale = self.room / float(self.price @ rates)
        return scale * rates, scale**-2.0
