"""One stopping point of a program with quadratic forms: solved in arrays, proved as a declared program is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..basics.checks import Array
from ..certificate.lagrangian import LagrangianBound
from ..modeling import Point, ScoreError, Term
from ..models.coefficients import Coefficients
from ..solvers.forms.interior import solve_forms
from ..solvers.forms.program import FormSolution
from .budgets import Limits
from .question import Study

__all__ = ["FormStop", "solved_forms"]

_ENOUGH = 1e-3  # of the tolerance: the proof loses up to a hundred times what the solver leaves open
_OVERSPENT = 1e-10  # of a budget: nothing is proved of a point that breaks one


@dataclass(frozen=True, eq=False)
class FormStop:
    """The optimum at one stopping point, and its proof.

    Attributes:
        point: the design.
        cause, discretization: its error of finite steps, and what that is called.
        gap, relative_gap: between its error and the lower bound; the second of what the design can change.
        prices: (J,) multipliers of the study's budgets.
        method: what found it.
    """

    point: Point
    cause: str
    discretization: float
    gap: float
    relative_gap: float
    prices: Array
    method: str


def solved_forms(study: Study, table: Coefficients) -> FormStop | None:
    """The certified optimum, no cvxpy asked; None where the program is another, or the proof fails.

    The lower bound is the Lagrangian's of docs/theory.md section 8.1, by the terms' own `add_to`, as for the declared
    program: only the declaration around it is left out.
    """
    program = study.forms(table)
    found = None if program is None else solve_forms(program, enough=_ENOUGH * study.tolerance)
    if found is None:
        return None
    spent = study.spent(table)
    known = np.zeros(len(table.levels)) if spent is None else spent
    point = Point(np.maximum(found.examples - known, 0.0), known, found.steps)
    limits = study.budgets.of(table)
    if np.any(_paid(limits, point) > (1 + _OVERSPENT) * limits.left):
        return None
    score, steps = ScoreError(table), study.discretization(table)
    reducible, floor = score.levels_value(point)
    disc = float(steps.level_parts(point)["discretization"].sum())
    error = float(reducible.sum() + floor.sum()) + score.final_value(point)[0] + disc
    gap = error - _bound(study, (score, steps), limits, found, point) + table.final_floor
    if not (np.isfinite(error) and gap <= study.tolerance * error):
        return None
    return FormStop(point, steps.cause, disc, gap, gap / error, found.budget_multipliers, found.method)


def _paid(limits: Limits, point: Point) -> Array:
    return np.asarray(limits.example_prices @ point.new_examples + limits.step_prices @ point.steps)


def _bound(study: Study, terms: tuple[ScoreError, Term], limits: Limits, found: FormSolution, point: Point) -> float:
    """Lower bound of the terms under the budgets."""
    size = point.steps.size
    bound = LagrangianBound(size, point.spent, fixed_examples=None if study.trains else np.zeros(size))
    bound.examples_box = (bound.examples_box[0], limits.most_examples)
    bound.steps_box = (bound.steps_box[0], limits.most_steps)
    for term in terms:
        term.add_to(bound, 1.0, point)
    for price, left, example, step in zip(
        found.budget_multipliers.tolist(), limits.left.tolist(), limits.example_prices, limits.step_prices, strict=True
    ):
        bound.add_linear(-price * left, price * example, price * step)
    return bound.value()
