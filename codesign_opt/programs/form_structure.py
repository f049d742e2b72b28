"""Structured route for quadratic forms of inverse powers under budgets: an interior-point method (3.3, 6.3, 7.4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..basics.checks import Array
from ..modeling.algebra import Term
from ..modeling.coherent import CoherentScore
from ..modeling.design import Point
from ..modeling.discretization import Discretization
from ..modeling.gram import GramDiscretization
from ..modeling.terms import ScoreError
from ..solvers.forms.interior import solve_forms
from ..solvers.forms.program import FormProgram
from ..solvers.joint.program import JointProgram
from .declaration import Declaration
from .joint_structure import JointStructure, joint_program
from .structure import Answer, Structure, register

__all__ = ["FormStructure", "form_program"]


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
        pooling, form = table.pooling, table.coupling.known_form
        if (not forms and pooling is None) or form is None:
            return None
        known = (ScoreError, CoherentScore, Discretization, GramDiscretization)
        if not all((isinstance(leaf, known) or leaf.fixed) and leaf.is_structured for _, leaf in leaves):
            return None
        scores = [(w, leaf.table) for w, leaf in leaves if isinstance(leaf, ScoreError)]
        if len(scores) > 1:
            return None
        joint = joint_program(program, table, form, scores, [], shifted=False)
        if not program.decides_steps:
            given = np.zeros(len(table.levels)) if program.steps is None else program.steps
            joint = replace(joint, steps_low=given, steps_high=given)
        stated = form_program(joint, leaves, pooling)
        return cls(stated, tuple(program.budgets), program.spent, JointStructure.read(program))

    def solve(self) -> Answer | None:
        found = solve_forms(self.program)
        if found is None:
            return None if self.stand_in is None else self.stand_in.solve()
        point = Point(np.maximum(found.examples - self.spent, 0.0), self.spent, found.steps)
        prices = dict(zip(self.names, map(float, found.budget_multipliers), strict=True))
        return Answer(point, prices, found.examples_gradient, found.steps_gradient)


def form_program(joint: JointProgram, leaves: Iterable[tuple[float, Term]], pooling: Array | None) -> FormProgram:
    """The program for the solver: score error, budgets and bounds as they are stated, and the forms of the leaves.

    Args:
        joint: with examples spent alone; its response is not read.
        leaves: (weight, term), at most one of them a score error.
        pooling: (L, L) that of the coupling, or None.
    """
    signed, examples, steps = list[Array](), list[Array](), list[Array]()
    prior, last = None, 0.0
    for weight, leaf in leaves:
        if isinstance(leaf, CoherentScore):
            examples.append(weight * leaf.form)
        elif isinstance(leaf, GramDiscretization) and leaf.majorised:
            steps.append(weight * leaf.gram)
        elif isinstance(leaf, GramDiscretization):
            signed.append(np.sqrt(weight) * leaf.rows)
        elif isinstance(leaf, Discretization):
            steps.append(weight * _square(leaf))
        elif isinstance(leaf, ScoreError):
            prior, last = leaf.table.prior_examples, leaf.table.final_prior
    rows = np.concatenate(signed) if signed else None
    return FormProgram(joint, _sum(examples), _sum(steps), rows, pooling, prior, last)


def _square(term: Discretization) -> Array:
    """(L, L) of the squared band sums."""
    rows = term.table.step_response
    return np.asarray(rows.T @ rows)


def _sum(forms: list[Array]) -> Array | None:
    return sum(forms[1:], forms[0]) if forms else None
