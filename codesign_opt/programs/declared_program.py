"""The declared program in cvxpy's own words: for solvers, atoms and tools of cvxpy that the library does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp

from ..basics.checks import Array
from ..modeling.algebra import Bound
from ..modeling.constraints import as_named
from ..modeling.design import Design, Point
from ..modeling.parameters import is_parameter
from .attempts import first_point
from .compiled import Compiled, compile_problem
from .declaration import Declaration
from .rows import Row
from .structure import structure_of

__all__ = ["DeclaredProgram", "declared_program"]


@dataclass(frozen=True, eq=False)
class DeclaredProgram:
    """A problem declared in cvxpy: variables of order one inside, expressions in user units outside.

    `program.problem` is an ordinary cp.Problem: add constraints on `design.examples`, `design.density` or
    `design.steps` to it, solve it with any solver of cvxpy, or read its data. Nothing here is certified:
    `Problem.certify(examples=..., steps=...)` rates what comes out. Terms that are majorised (CoherentScore,
    GramDiscretization of the positive model) stand in it by their upper model around `start`. Limits that are
    cp.Parameter stay parameters in their rows, so that setting one and solving again compiles nothing anew
    (disciplined parametrised programming); weights and prices enter by their present values.

    Attributes:
        problem: minimise objective / unit subject to the scaled rows.
        design: examples, density, steps, step_sizes, ... as expressions in user units.
        objective: the sum of terms, in user units.
        constraints: the cvxpy constraints by name; their duals count in `unit` per size of the row.
        unit: what the objective is divided by.

    >>> import codesign_opt as co
    >>> table = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5)).coefficients(0.01, 30)
    >>> stated = co.Problem(co.ScoreError(table) + co.Discretization(table),
    ...                     [co.Compute(co.Prices(3.0, 1.0, 1_000)) <= 1e5])
    >>> program = stated.cvxpy()
    >>> least = program.unit * program.problem.solve(solver="CLARABEL")
    >>> bool(abs(least / stated.solve().error - 1) < 1e-6), bool(abs(program.objective.value / least - 1) < 1e-9)
    (True, True)
    """

    problem: cp.Problem
    design: Design
    objective: cp.Expression
    constraints: Mapping[str, list[cp.Constraint]]
    unit: float

    @property
    def examples(self) -> Array:
        """(L,) all examples at the variables' values, spent ones included."""
        return self.design.point().examples

    @property
    def steps(self) -> Array:
        """(L,) steps at the variables' values."""
        return self.design.point().steps


def declared_program(program: Declaration, stated: Sequence[Any], start: Point | None) -> DeclaredProgram:
    """A program around a point; `stated` are its constraints as they came, with their parameters."""
    compiled = compile_problem(program, program.recentred(start or _reference(program)), program.box)
    assert compiled.declared is not None
    limits = _parameters(stated, program)
    by_name: dict[str, list[cp.Constraint]] = {}
    replaced: dict[int, cp.Constraint] = {}
    for row in compiled.rows:
        constraint = row.constraint if limits.get(row.name) is None else _with_parameter(row, limits[row.name])
        replaced[row.constraint.id] = constraint
        by_name.setdefault(row.name, []).append(constraint)
    rows = [replaced.get(constraint.id, constraint) for constraint in compiled.declared.constraints]
    objective = _objective(compiled)
    problem = cp.Problem(cp.Minimize(objective / compiled.unit), rows)
    return DeclaredProgram(problem, compiled.design, objective, by_name, compiled.unit)


def _reference(program: Declaration) -> Point:
    structure = structure_of(program)
    answer = None if structure is None else structure.solve()
    return first_point(program) if answer is None else answer.point


def _objective(compiled: Compiled) -> cp.Expression:
    return sum((leaf.weight * leaf.expression for leaf in compiled.leaves), start=cp.Constant(0.0))


def _parameters(stated: Sequence[Any], program: Declaration) -> dict[str, Any]:
    """The limit of each bound where it is a parameter, by the name that the constraint has in the program."""
    found = {}
    for index, (what, item) in enumerate(zip(stated, program.constraints, strict=True)):
        bound = as_named(what, index).what
        if isinstance(bound, Bound) and is_parameter(bound.limit):
            found[item.name] = bound.limit
    return found


def _with_parameter(row: Row, parameter: cp.Expression) -> cp.Constraint:
    assert row.limit is not None
    return (row.expression + row.limit) / row.size[0] - parameter / row.size[0] <= 0
