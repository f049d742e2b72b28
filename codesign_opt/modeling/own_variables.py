"""Variables of a term's or a constraint's own: beside the design, chosen best for every design.

A term that returns an expression with variables of its own, alone or as (expression, [constraints]), stands for its
least value over them; a constraint with variables of its own asks that some choice of them meets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np

from ..basics.checks import Array, shown
from ..basics.errors import ConvexityError
from ..basics.user_code import told_in
from ..solvers.conic.solve import solve_conic
from .design import Design
from .differentiable import differentiable, differentiable_row
from .parameters import refuse_unset
from .standard_form import StandardForm, standard_form

__all__ = ["OwnProgram", "own_variables", "refuse_whole_numbers", "stated_pair"]

_ROUNDS = 3
_SURE = 10.0
_KNOWN = 1e-2  # relative change of a size at which it is known
_SMALL = 1e-6  # of the largest number on the right-hand side
_PRICE = 1e3  # of a row's violation, against an objective of order one


def stated_pair(term: Any, design: Design) -> tuple[Any, list[cp.Constraint]]:
    """(expression, constraints on variables of its own) behind what a term's `expression(design)` returns."""
    name = term.name
    with told_in(f"the term '{name}'"):
        made = term.expression(design)
    for part in made if isinstance(made, tuple) else (made,):
        refuse_unset(f"the term '{name}'", part)
    if not isinstance(made, tuple):
        return differentiable(made) if isinstance(made, cp.Expression) else made, []
    if len(made) != 2 or not isinstance(made[1], (list, tuple)):
        raise TypeError(
            f"{name}.expression returned {shown(made)}; return an expression, or (expression, [constraints])."
        )
    stated = differentiable(made[0]) if isinstance(made[0], cp.Expression) else made[0]
    return stated, [differentiable_row(part) for part in made[1]]


def own_variables(stated: Iterable[Any], design: Design) -> list[cp.Variable]:
    """The variables in expressions or constraints that are not the design's, each once."""
    theirs = {variable.id for variable in design.variables}
    found = {v.id: v for item in stated for v in item.variables() if v.id not in theirs}
    return list(found.values())


def refuse_whole_numbers(name: str, variables: Sequence[cp.Variable]) -> None:
    """ConvexityError where a variable is boolean or integer."""
    for variable in variables:
        kind = next((kind for kind in ("boolean", "integer") if variable.attributes[kind]), None)
        if kind is not None:
            raise ConvexityError(
                f"{name} uses the {kind} variable '{variable.name()}', which has no convex program; let it vary in "
                "[0, 1] or over the reals, or solve once for each choice and keep the best."
            )


@dataclass(frozen=True, eq=False)
class OwnProgram:
    """Gives own variables the values that are best at the design's: least objective, rows <= 0 violated least.

    The design's variables keep their values. Where the solver finds nothing, own variables keep theirs. Built once,
    it serves any values of the design's variables, but those of the parameters that it was built with.
    """

    design: Design
    objective: cp.Expression | None
    excess: cp.Variable
    total: cp.Variable
    wanted: Sequence[cp.Variable]
    form: StandardForm
    has_parameters: bool

    @classmethod
    def of(
        cls,
        design: Design,
        objective: cp.Expression | None,
        constraints: Sequence[cp.Constraint],
        rows: Sequence[cp.Expression],
    ) -> OwnProgram:
        """The program in cvxpy's standard form."""
        constraints = [part for part in constraints if own_variables([part], design)]
        stated = [*rows, *constraints] if objective is None else [objective, *rows, *constraints]
        excess, total = cp.Variable(nonneg=True), cp.Variable()
        limits = [excess >= 0, *(row <= excess for row in rows), *constraints]
        limits += [total == 0] if objective is None else [objective <= total]
        problem = cp.Problem(cp.Minimize(_PRICE * excess + total), limits)
        wanted, changing = own_variables(stated, design), bool(problem.parameters())
        return cls(design, objective, excess, total, wanted, standard_form(problem), changing)

    def settle(self) -> None:
        """Set the own variables."""
        size, near = 1.0, None
        for round_ in range(_ROUNDS):  # the sizes of objective and variables show at the first answer
            wanted = [self.excess, *self.wanted]
            near = _solve(self.form.priced(self.total, 1 / size), self.design, wanted, near)
            value = self.excess.value if self.objective is None else self.objective.value
            if near is None or value is None or not np.all(np.isfinite(value)):
                break
            last, size = size, 1.0 if self.objective is None else abs(float(np.asarray(value).item())) or 1.0
            if round_ and abs(size - last) <= _KNOWN * size:
                break


def _solve(form: StandardForm, design: Design, wanted: Sequence[cp.Variable], near: Array | None) -> Array | None:
    """Gives `wanted` their values, the design's columns held; the sizes of the others, None on failure."""
    program = form.program
    fixed, values = np.zeros(len(program.cost), dtype=bool), np.zeros(len(program.cost))
    for variable in design.variables:
        columns = form.columns([variable])
        if columns.size:
            fixed[columns], values[columns] = True, variable.value
    right = program.right - program.matrix @ values
    reduced = program.columns(~fixed)
    known = 1.0 if near is None else _SURE
    # what is small as the difference of two numbers that agree says nothing of sizes, and rounding least of all
    large = np.where(np.abs(right) > _SMALL * np.max(np.abs(right), initial=0.0), right, 0.0)
    for sizing in (right, large):
        solution = solve_conic(
            reduced.cost, reduced.matrix, right, program.cones, near=near, known=known, sizing=sizing
        )
        if solution.has_point:
            break
    else:
        return None
    values[~fixed] = solution.primal
    for variable in wanted:
        columns = form.columns([variable])
        if columns.size == variable.size:
            variable.value = variable.project(values[columns].reshape(variable.shape, order="F"))
        elif columns.size:  # a symmetric matrix, as the upper triangle by row
            order = variable.shape[0]
            upper = np.zeros(variable.shape)
            upper[np.triu_indices(order)] = values[columns]
            variable.value = variable.project(upper + np.triu(upper, 1).T)
    return np.abs(solution.primal)
