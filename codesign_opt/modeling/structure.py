"""The structured part of a problem: what the dual Newton method of solvers/joint.py can take.

Score error, discretisation, budgets and level bounds separate over levels (docs/theory.md section 7).
Without further parts the structured solution is the answer; with them it is the point around which the
declared program is scaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._validate import Array
from ..coefficients import Coefficients
from ..coupling import Coupling, Local, PerLevel, PerStep, Settled
from ..solvers.joint import JointSolution, solve_joint
from ..solvers.joint_program import JointProgram
from .constraints import BoxConstraint
from .design import Box, Design, Point
from .reference import Budget
from .scaling import Row, jacobians
from .terms import Bound, Discretization, ScoreError, Truncation

if TYPE_CHECKING:
    from .problem import Problem

__all__ = ["Structure", "coupling_form"]


def coupling_form(coupling: Coupling) -> str | None:
    """The name of M in the structured solver, or None where examples are pooled."""
    if isinstance(coupling, PerLevel):
        return None
    if isinstance(coupling, Local):
        return coupling.form
    if isinstance(coupling, PerStep):
        return "per_step"
    return "settled" if isinstance(coupling, Settled) else None


@dataclass(frozen=True, eq=False)
class Structure:
    """A joint program, and whether it is the whole problem.

    Attributes:
        program: for solvers/joint.py.
        whole: False where the problem has further terms or constraints.
        names: names of the bounds behind the program's budgets, in order.
    """

    program: JointProgram
    whole: bool
    names: tuple[str, ...]

    @classmethod
    def of(cls, problem: Problem, budgets: Sequence[tuple[str, Budget]], box: Box) -> Structure | None:
        """The structured part; None where a quantity is given, examples are pooled, or there are no budgets."""
        leaves = list(problem.objective.leaves())
        table = problem.table
        form = None if table is None else coupling_form(table.coupling)
        if table is None or form is None or not budgets or not problem.decides_steps or problem.examples is not None:
            return None
        if any(budget.room <= 0 for _, budget in budgets):
            return None
        known = [(w, leaf) for w, leaf in leaves if isinstance(leaf, (ScoreError, Discretization, Truncation))]
        scores = [(w, leaf.table) for w, leaf in known if isinstance(leaf, ScoreError)]
        errors = [(w, leaf.table) for w, leaf in known if isinstance(leaf, Discretization)]
        if len(scores) > 1 or len(errors) > 1:
            return None
        program = _program(table, scores, errors, [b for _, b in budgets], box, problem.spent_examples, form)
        constrained = [item for item in problem.constraints if not _is_structured(item.what, budgets, item.name)]
        return cls(program, len(known) == len(leaves) and not constrained, tuple(name for name, _ in budgets))

    def solve(self) -> JointSolution | None:
        """The certified optimum of the structured part, or None."""
        return solve_joint(self.program)

    def multipliers(self, found: JointSolution, rows: Sequence[Row], point: Point, design: Design) -> list[Array]:
        """Multipliers of the declared rows: the budgets', and the reduced gradients where a level bound is tight."""
        by_name = dict(zip(self.names, found.budget_multipliers, strict=True))
        examples, steps = self._reduced_gradients(found, point)
        result = []
        for row in rows:
            if row.bound is not None:
                result.append(np.array([by_name[row.name]]))
                continue
            # an entry bounds one level: its slope is +1 or -1 there, and its multiplier minus the gradient over it
            slopes = jacobians(row.stated, design)
            tight = np.abs(np.ravel(np.asarray(row.stated.value))) <= 1e-9 * row.size
            pull = -np.ravel(examples @ slopes[0] + steps @ slopes[1])
            result.append(np.where(tight, np.maximum(pull, 0.0), 0.0))
        return result

    def _reduced_gradients(self, found: JointSolution, point: Point) -> tuple[Array, Array]:
        """Derivative of the Lagrangian by each level's examples and steps, the level bounds left out."""
        p = self.program
        eta, total = found.budget_multipliers, point.examples
        with np.errstate(divide="ignore", invalid="ignore"):
            x = p.kappa / point.steps
            factor, slope = _coupling_of(p.form).factor(x), _coupling_of(p.form).slope(x)
            per_example = np.where(p.errors > 0, p.errors / total, 0.0)
            examples = eta @ p.examples_prices - np.where(p.errors > 0, per_example * factor / total, 0.0)
            if p.final_window is not None:
                examples = examples - found.window_multiplier * p.final_window
            pull = (per_example + p.floors) * slope * x / point.steps
            pull = pull + p.order * (found.band_multipliers @ p.response) * point.steps ** (-p.order - 1.0)
        return examples, eta @ p.steps_prices - np.where(np.isfinite(pull), pull, 0.0)


def _coupling_of(form: str) -> Coupling:
    if form == "per_step":
        return PerStep(1.0)
    return Settled(np.ones(1)) if form == "settled" else Local(1.0, form=form)


def _is_structured(what: Any, budgets: Sequence[tuple[str, Budget]], name: str) -> bool:
    if isinstance(what, BoxConstraint):
        return True
    return isinstance(what, Bound) and any(name == known for known, _ in budgets)


def _program(
    table: Coefficients,
    scores: list[tuple[float, Coefficients]],
    errors: list[tuple[float, Coefficients]],
    budgets: list[Budget],
    box: Box,
    spent: Array,
    form: str,
) -> JointProgram:
    zero = np.zeros(len(table.levels))
    weight, score = scores[0] if scores else (0.0, table)
    steps_weight, response = (errors[0][0], errors[0][1].step_response) if errors else (0.0, zero[None])
    return JointProgram(
        weight * score.example_error,
        weight * score.floor_error,
        score.kappa,
        np.sqrt(steps_weight) * response,
        table.order,
        np.array([b.example for b in budgets]),
        np.array([b.step for b in budgets]),
        np.array([b.room for b in budgets]),
        spent=spent if np.any(spent > 0) else None,
        examples_low=box.examples_low if np.any(box.examples_low > 0) else None,
        examples_high=box.examples_high if np.any(np.isfinite(box.examples_high)) else None,
        steps_low=box.steps_low if np.any(box.steps_low > 0) else None,
        steps_high=box.steps_high if np.any(np.isfinite(box.steps_high)) else None,
        final_error=weight * score.final_score,
        final_window=score.final_window,
        form=form,
    )
