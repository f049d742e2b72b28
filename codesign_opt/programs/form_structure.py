"""Structured route for quadratic forms of inverse powers under budgets: an interior-point method (3.3, 6.3, 7.4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..basics.checks import Array
from ..modeling.coherent import CoherentScore
from ..modeling.design import Point
from ..modeling.discretization import Discretization
from ..modeling.gram import GramDiscretization
from ..modeling.terms import ScoreError
from ..solvers.forms.interior import solve_forms
from ..solvers.forms.program import FormProgram
from .declaration import Declaration
from .joint_structure import JointStructure, joint_program
from .structure import Answer, Structure, register

__all__ = ["FormStructure"]


@register
@dataclass(frozen=True, eq=False)
class FormStructure(Structure):
    """Score error, also coherent, and discretisation, also by Gram matrices, under budgets and level bounds.

    Attributes:
        program: for the solver.
        names: names of the bounds behind the program's budgets, in order.
        spent: (L,) examples already spent.
        stand_in: the same problem with separable terms for the forms: a reference where the method does not get there.
        whole: always; with further terms or constraints the stand-in is near enough for a reference.
    """

    method: ClassVar[str] = "interior point"
    program: FormProgram
    names: tuple[str, ...]
    spent: Array
    stand_in: JointStructure | None
    whole: bool = True

    @classmethod
    def read(cls, program: Declaration) -> FormStructure | None:
        """None without forms, and where something else than forms, score error, budgets and level bounds is there."""
        leaves = program.leaves
        forms = [(w, leaf) for w, leaf in leaves if isinstance(leaf, (CoherentScore, GramDiscretization))]
        table = program.table
        if table is None or not program.only_budgets_and_boxes:
            return None
        pooling, form = table.coupling.pooling(table.levels), table.coupling.known_form
        if (not forms and pooling is None) or form is None:
            return None
        known = (ScoreError, CoherentScore, Discretization, GramDiscretization)
        if not all((isinstance(leaf, known) or leaf.fixed) and leaf.is_structured for _, leaf in leaves):
            return None
        scores = [(w, leaf.table) for w, leaf in leaves if isinstance(leaf, ScoreError)]
        if len(scores) > 1:
            return None
        grams = [(w, leaf) for w, leaf in forms if isinstance(leaf, GramDiscretization)]
        signed = [np.sqrt(w) * leaf.rows for w, leaf in grams if not leaf.majorised]
        examples = [w * leaf.form for w, leaf in forms if isinstance(leaf, CoherentScore)]
        steps = [w * leaf.gram for w, leaf in grams if leaf.majorised]
        steps += [w * _square(leaf) for w, leaf in leaves if isinstance(leaf, Discretization)]
        joint = joint_program(program, table, form, scores, [], shifted=False)
        if not program.decides_steps:
            given = np.zeros(len(table.levels)) if program.steps is None else program.steps
            joint = replace(joint, steps_low=given, steps_high=given)
        rows = np.concatenate(signed) if signed else None
        prior = (scores[0][1].prior_examples, scores[0][1].final_prior) if scores else (None, 0.0)
        stated = FormProgram(joint, _sum(examples), _sum(steps), rows, pooling, *prior)
        return cls(stated, tuple(program.budgets), program.spent, JointStructure.read(program))

    def solve(self) -> Answer | None:
        found = solve_forms(self.program)
        if found is None:
            return None if self.stand_in is None else self.stand_in.solve()
        point = Point(np.maximum(found.examples - self.spent, 0.0), self.spent, found.steps)
        prices = dict(zip(self.names, map(float, found.budget_multipliers), strict=True))
        return Answer(point, prices, found.examples_gradient, found.steps_gradient)


def _square(term: Discretization) -> Array:
    """(L, L) of the squared band sums."""
    rows = term.table.step_response
    return np.asarray(rows.T @ rows)


def _sum(forms: list[Array]) -> Array | None:
    return sum(forms[1:], forms[0]) if forms else None
