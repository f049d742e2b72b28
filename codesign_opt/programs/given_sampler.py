"""Structured route where the sampler is given: water-filling (P1 of docs/theory.md section 7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.optimize import brentq

from ..basics.checks import Array
from ..basics.errors import CodesignError
from ..modeling.design import Point
from ..modeling.discretization import Discretization
from ..modeling.terms import ScoreError
from ..models.coefficients import Coefficients
from ..solvers.waterfill.fill import waterfill
from .declaration import Declaration
from .structure import Answer, Structure, register

__all__ = ["SettledStructure"]


@register
@dataclass(frozen=True, eq=False)
class SettledStructure(Structure):
    """Score error for a sampler that is given, under one budget that examples enter: P1 of docs/theory.md section 7.

    Without a last evaluation this is water-filling. With one, an example's price falls by its use there:
    T = max(e, t sqrt(W / (c - theta w))) with e the examples spent and those that the untrained denoiser is worth, and
    theta solves one increasing equation.

    Attributes:
        weight: (L,) W, reducible error times examples, steps included.
        price, room: of the budget.
        name: of the budget.
        others: names of budgets that no example enters.
        final_error, window: A_r and w of the last evaluation.
        spent: (L,).
        steps: (L,).
        prior, final_prior: (L,) examples that the untrained denoiser is worth, and to the last evaluation.
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
    prior: Array
    final_prior: float
    whole: bool = True

    @classmethod
    def read(cls, program: Declaration) -> SettledStructure | None:
        """None where examples are pooled, bounded level by level or limited by more than one budget."""
        score, priced = _only_score(program), _only_price(program)
        if program.steps is None or score is None or priced is None:
            return None
        (weight, table), (name, price, room) = score, priced
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = table.coupling.factor(table.kappa / program.steps)
        if not np.all(np.isfinite(factor)):
            return None
        others = tuple(other for other in program.budgets if other != name)
        return cls(
            weight * table.example_error * factor, price, room, name, others,
            weight * table.final_score, table.final_window, program.spent, program.steps,
            table.prior_examples, table.final_prior,
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
            gain = np.where(self.weight > 0, self.weight / (point.examples + self.prior) ** 2, 0.0)
        if self.final_error > 0:
            near = float(self.window @ point.examples) + self.final_prior
            gain = gain + self.final_error / near**2 * self.window
        multipliers = {self.name: eta, **dict.fromkeys(self.others, 0.0)}
        return Answer(point, multipliers, eta * self.price - gain, np.zeros(new.size))

    def _filled(self) -> tuple[Array, float]:
        found = waterfill(self.weight, self.price, self.room, spent=self.spent + self.prior)
        return found.examples, float(found.multiplier)

    def _windowed(self) -> tuple[Array, float]:
        inside = self.window > 0
        ceiling = float((self.price[inside] / self.window[inside]).min()) * (1 - 1e-15)

        def shape(theta: float) -> Array:
            return np.sqrt(self.weight / (self.price - theta * self.window))

        def short(theta: float) -> float:
            return float(np.sqrt(theta) * (self.window @ shape(theta)) - np.sqrt(self.final_error))

        if np.any(self.spent + self.prior > 0) or self.final_prior > 0:
            return self._windowed_above(shape, ceiling)
        rates = shape(brentq(short, 0.0, ceiling, xtol=1e-300, rtol=1e-15))
        scale = self.room / float(self.price @ rates)
        return scale * rates, scale**-2.0

    def _windowed_above(self, shape: Callable[[float], Array], ceiling: float) -> tuple[Array, float]:
        """The same where some examples are known: t is one number, too, and falls as theta grows."""
        known = self.spent + self.prior
        beside = self.final_prior - float(self.window @ self.prior)

        def short(theta: float) -> float:
            rates = shape(theta)
            scale = _scale(rates, self.price, known, self.room)
            near = self.window @ np.maximum(rates, known / scale) + beside / scale
            return float(np.sqrt(theta) * near - np.sqrt(self.final_error))

        rates = shape(brentq(short, 0.0, ceiling, xtol=1e-300, rtol=1e-15))
        scale = _scale(rates, self.price, known, self.room)
        return np.maximum(scale * rates - known, 0.0), scale**-2.0


def _scale(rates: Array, price: Array, spent: Array, room: float) -> float:
    """t at which the examples max(0, t rates - spent) cost the room: on one segment between two breakpoints."""
    positive = rates > 0
    begins = spent[positive] / rates[positive]
    order = np.argsort(begins)
    slopes = np.cumsum((price * rates)[positive][order])
    paid = np.cumsum((price * spent)[positive][order])
    reached = (room + paid) / slopes  # where the first k levels alone, all above what is spent, cost the room
    last = np.append(begins[order][1:], np.inf)
    return float(reached[np.argmax(reached <= last)])


def _only_score(program: Declaration) -> tuple[float, Coefficients] | None:
    """Weight and table of the one score error, beside terms that a given sampler makes constants; else None."""
    terms = [leaf for _, leaf in program.leaves]
    if not all((isinstance(t, (ScoreError, Discretization)) or t.fixed) and t.is_structured for t in terms):
        return None
    found = [(weight, leaf.table) for weight, leaf in program.leaves if isinstance(leaf, ScoreError)]
    if len(found) != 1 or found[0][1].coupling.solver_form(program.levels) is None:
        return None
    return found[0]


def _only_price(program: Declaration) -> tuple[str, Array, float] | None:
    """Name, prices and room of the one budget that examples enter, where there are budgets only; else None."""
    if program.steps is None or len(program.budgets) != len(program.constraints):
        return None
    rooms = {name: budget.left(steps=program.steps) for name, budget in program.budgets.items()}
    priced = [(name, budget) for name, budget in program.budgets.items() if np.any(budget.example > 0)]
    if len(priced) != 1 or not np.all(priced[0][1].example > 0) or min(rooms.values()) < 0:
        return None
    ((name, budget),) = priced
    return (name, budget.example, rooms[name]) if rooms[name] > 0 else None
