"""Structured route for score error and discretisation under budgets: dual Newton (P3 of docs/theory.md section 7)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..basics.checks import Array
from ..ingredients.coupling import Coupling, Local, PerStep, Settled
from ..modeling.coherent import CoherentScore
from ..modeling.design import Point
from ..modeling.discretization import Discretization
from ..modeling.gram import GramDiscretization
from ..modeling.terms import ScoreError
from ..models.coefficients import Coefficients
from ..solvers.joint.newton import JointSolution, solve_joint
from ..solvers.joint.program import JointProgram
from .declaration import Declaration
from .structure import Answer, Structure, register

__all__ = ["JointStructure", "joint_program"]


@register
@dataclass(frozen=True, eq=False)
class JointStructure(Structure):
    """Score error, discretisation, budgets and level bounds: solvers/joint/.

    Attributes:
        program: for the solver.
        whole: False where the problem has further terms or constraints.
        names: names of the bounds behind the program's budgets, in order.
        spent: (L,) examples already spent; those of `program` count what the untrained denoiser is worth, too.
        final_prior: examples that it is worth to the last evaluation.
    """

    method: ClassVar[str] = "dual Newton"
    program: JointProgram
    whole: bool
    names: tuple[str, ...]
    spent: Array
    final_prior: float = 0.0

    @classmethod
    def read(cls, program: Declaration) -> JointStructure | None:
        """None where the sampler is given, examples are pooled, or a term appears twice.

        Quadratic forms are no part of the structure; sharp rows and a separable bound stand in for them in the
        reference, as the library's term does for a subclass of it.
        """
        table, leaves = program.table, program.leaves
        form = None if table is None else table.coupling.solver_form(table.levels)
        if table is None or form is None or not program.decides_steps:
            return None
        typical = [(w * v, leaf) for w, term in leaves for v, leaf in term.stand_in()]
        scores = [(w, leaf.table) for w, leaf in typical if isinstance(leaf, ScoreError)]
        scores += [(w, _stand_in(leaf)) for w, leaf in typical if isinstance(leaf, CoherentScore)]
        errors = [(w, leaf.table) for w, leaf in typical if isinstance(leaf, (Discretization, GramDiscretization))]
        if len(scores) > 1 or len(errors) > 1:
            return None
        known = [(isinstance(t, (ScoreError, Discretization)) or t.fixed) and t.is_structured for _, t in leaves]
        whole = all(known) and program.only_budgets_and_boxes
        last = scores[0][1].final_prior if scores else 0.0
        joint = joint_program(program, table, form, scores, errors)
        return cls(joint, whole, tuple(program.budgets), program.spent, last)

    def solve(self) -> Answer | None:
        found = solve_joint(self.program)
        if found is None:
            return None
        point = Point(found.examples, self.spent, found.steps)
        gradients = self._gradients(found, point)
        prices = dict(zip(self.names, map(float, found.budget_multipliers), strict=True))
        return Answer(point, prices, *gradients, self._tangent(found, point))

    def _tangent(self, found: JointSolution, point: Point) -> Point:
        """The point whose slope of the last evaluation's error is its multiplier: A / near^2 = nu.

        At a flat optimum the candidate's own slope has half the digits of the multipliers, and the bound with it.
        """
        p, nu = self.program, found.window_multiplier
        near = 0.0 if p.final_window is None else float(p.final_window @ point.examples)
        if p.final_error == 0 or near <= 0 or nu <= 0:
            return point
        wanted = float(np.sqrt(p.final_error / nu)) - self.final_prior
        return point if wanted <= 0 else Point(point.examples * (wanted / near) - point.spent, point.spent, point.steps)

    def _gradients(self, found: JointSolution, point: Point) -> tuple[Array, Array]:
        """Derivative of the Lagrangian by each level's examples and steps, the level bounds left out."""
        p = self.program
        eta, total = found.budget_multipliers, found.examples + (0.0 if p.spent is None else p.spent)
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


def _stand_in(term: CoherentScore) -> Coefficients:
    """A table whose score error is the coherent one's separable upper bound."""
    table = term.table
    zero = np.zeros(len(table.levels))
    return replace(
        table, score=term.separable / table.log_width**2, floor=zero, final_score=0.0, final_floor=0.0, untrained=None
    )


def _coupling_of(form: str) -> Coupling:
    if form == "per_step":
        return PerStep(1.0)
    return Settled(np.ones(1)) if form == "settled" else Local(1.0, form=form)


def joint_program(
    program: Declaration,
    table: Coefficients,
    form: str,
    scores: list[tuple[float, Coefficients]],
    errors: list[tuple[float, Coefficients]],
    *,
    shifted: bool = True,
) -> JointProgram:
    """Score error, discretisation, budgets and level bounds of a declaration as arrays.

    `shifted`: with the examples that the untrained denoiser is worth among those spent; else without them.
    """
    zero, box, budgets = np.zeros(len(table.levels)), program.box, program.budgets.values()
    weight, score = scores[0] if scores else (0.0, table)
    prior = score.prior_examples if shifted else zero
    known = program.spent + prior
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
        spent=known if np.any(known > 0) else None,
        examples_low=box.examples_low + prior if np.any(box.examples_low > 0) else None,
        examples_high=box.examples_high + prior if np.any(np.isfinite(box.examples_high)) else None,
        steps_low=box.steps_low if np.any(box.steps_low > 0) else None,
        steps_high=box.steps_high if np.any(np.isfinite(box.steps_high)) else None,
        final_error=weight * score.final_score,
        final_window=score.final_window,
        form=form,
        final_offset=(score.final_prior if shifted else 0.0) - float(score.final_window @ prior),
    )
