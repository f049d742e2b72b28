"""A declared program in conic form, what the library bounds exactly left out: candidate, multipliers, lower bound.

docs/theory.md section 8.3. The objective and every bound name a number of their own for each built-in part, q >= f(x).
The rows behind f have the auxiliary columns of f and nothing else in common with the rest; without them the program is
what the user wrote, linear in q. Its dual z prices every design column, and the built-in parts enter at the weight
that z gives their q, exact, beside these prices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import cvxpy as cp
import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ..basics.checks import Array, Indices, Mask
from ..certificate.conic import ConicProgram
from ..certificate.lagrangian import LagrangianBound
from ..modeling.algebra import Term
from ..modeling.design import Design
from ..modeling.standard_form import StandardForm, standard_form
from ..solvers.conic.solve import ConicSolution, solve_conic
from .compiled import Compiled
from .rows import Row

__all__ = ["ConicForm", "conic_form"]

_OURS = "codesign_opt: "  # starts the names of the variables made here; a user's own have others
_UNSIZED = 1e-6  # a reference below so much of the largest is a stopgap for a level that the built-in parts leave empty
_SEEN = 1e-9  # a column below so much of its factor may as well be zero
_SURE = 10.0
_SMALL = 1e-3
_USED = 1e-6  # a column of the design above so much of its reference is used


@dataclass(eq=False)
class _Parts:
    """Built-in parts met while a program is written down: their numbers q and m with f(x) - c <= m <= q.

    c is what no design changes of f: beside it the rest of an error may have few digits, or none.
    `behind` is the design that they are stated on: the same, or copies of its variables. cvxpy recognises what a
    user's term and a built-in one have in common and gives it one auxiliary column; of copies it can't.
    """

    design: Design
    behind: Design
    terms: list[Term] = field(default_factory=list)
    constants: list[float] = field(default_factory=list)
    numbers: list[cp.Variable] = field(default_factory=list)
    inner: list[cp.Variable] = field(default_factory=list)
    constraints: list[cp.Constraint] = field(default_factory=list)

    def stated(self, term: Term) -> cp.Expression:
        """The term as a number of its own where the certificate bounds it exactly, else as its author wrote it."""
        number, constant = self.varying(term)
        return number + constant if constant else number

    def varying(self, term: Term) -> tuple[cp.Expression, float]:
        """The same less a constant, and that constant."""
        if term.linear_prices(self.design) is None and _has_exact_bound(term, self.design):
            index = len(self.terms)
            outer, inner = cp.Variable(name=f"{_OURS}exact {index}"), cp.Variable(name=f"{_OURS}behind {index}")
            expression, own = term.formulation(self.behind)
            if expression.is_constant():  # beside what is minimised, too: it would take the digits of the rest
                return cp.Constant(0.0), float(np.asarray(expression.value).item())
            constant = self._staying(term)
            self.terms.append(term)
            self.constants.append(constant)
            self.numbers.append(outer)
            self.inner.append(inner)
            self.constraints += [expression - constant <= inner, inner <= outer, *own]
            return outer, constant
        expression, own = term.formulation(replace(self.design, declares=self._inside))
        self.constraints += own
        return expression, 0.0

    def _staying(self, term: Term) -> float:
        """What no design changes of a term; 0 where that is a small part of it, and takes no digits from the rest."""
        constant, value = (f(self.design, self.design.reference) for f in (term.constant, term.value))
        return constant if np.isfinite(constant) and abs(constant) > _SMALL * abs(value) else 0.0

    def _inside(self, term: Term, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:
        """A part of a term that is made of others: exact, too, where it can be."""
        if design.step_variable is not self.design.step_variable or len(design) != len(self.design):
            return term.formulation(design)  # of one sampler, or of the upper levels, alone: as its author wrote it
        return self.stated(term), []


def _has_exact_bound(term: Term, design: Design) -> bool:
    if not term.scales_itself or term.as_information is not None:
        return False
    ones = np.ones(len(design))
    bound = LagrangianBound(
        len(design),
        design.reference.spent,
        fixed_examples=ones if design.fixed_examples else None,
        fixed_steps=ones if design.fixed_steps else None,
    )
    bound.samplings = {name: LagrangianBound(len(design), design.reference.spent) for name in design.samplings}
    if not term.add_to(bound, 1.0, design.reference):
        return False
    # pooled examples have prices of their own, which the dual knows and a candidate only about (section 8.3)
    return all(part.price is None for each in (bound, *bound.samplings.values()) for part in each.parts)


@dataclass(frozen=True, eq=False)
class ConicForm:
    """The conic form of a compiled program.

    Attributes:
        program: all of it, the built-in parts included: this is what is solved.
        kept: (R,) rows of what the user wrote, level bounds left out.
        examples, steps: columns of the design; empty where a quantity is given.
        samplings: columns of each sampler's steps, where several share the training.
        terms: the built-in parts, `numbers` their columns q.
        rows: for each row of the compiled program, the conic rows r <= 0 or r == 0 that say so, in order.
        auxiliary: (N,) columns that must vanish from c + A'z: neither design, nor numbers, nor of built-in parts.
        linear: (N,) columns of the design that no built-in part depends on.
        sized: (N,) columns of the design whose reference says something of their size.
        constants: what no design changes of each of `terms`: its number is the rest.
        offset: the objective less what is minimised, in its own units.
    """

    program: ConicProgram
    kept: Mask
    examples: Indices
    steps: Indices
    terms: Sequence[Term]
    numbers: Indices
    rows: Sequence[Indices]
    auxiliary: Mask
    linear: Mask
    sized: Mask
    samplings: Mapping[str, Indices] = field(default_factory=dict)
    constants: Sequence[float] = ()
    offset: float = 0.0

    def solve(
        self, previous: ConicSolution | None = None, *, sharp: bool = False, leading: bool = False,
        verbose: bool = False, time_limit: float = np.inf,
    ) -> ConicSolution:  # fmt: skip
        """The solver's answer, in the program's own units; scaled by the sizes in a `previous` one if there is any."""
        whole = self.program
        near = np.where(self.sized, 1.0, 0.0)  # relative to the reference
        known = 1.0
        if previous is not None and previous.has_point:
            size = np.abs(previous.primal)
            near, known = np.where(size > _SEEN * previous.balance.columns, size, 0.0), _SURE
        return solve_conic(
            whole.cost, whole.matrix, whole.right, whole.cones,
            near=near, known=known, chosen=self.chosen, sharp=sharp, leading=leading,
            verbose=verbose, time_limit=time_limit,
        )  # fmt: skip

    @cached_property
    def chosen(self) -> Mask:
        """(N,) columns of the design."""
        found = np.zeros(len(self.program.cost), dtype=bool)
        found[np.concatenate([self.examples, self.steps, *self.samplings.values()])] = True
        return found

    def users(self, solution: ConicSolution) -> ConicProgram:
        """The rows of what the user wrote, as they were scaled for the solver."""
        cost, matrix, right = solution.scaled
        rows = np.flatnonzero(self.kept)
        kept = sparse.csc_array(sparse.csr_array(matrix)[rows])
        return ConicProgram(cost, kept, right[rows], self.program.cones.restricted(self.kept))

    def data_rounding(self, solution: ConicSolution, dual: Array) -> float:
        """What rounding of the numbers that cvxpy wrote down may have added to the bound of a dual."""
        full = np.zeros(len(self.kept))
        full[self.kept] = dual
        program = self.program
        return solution.balance.rounding(program.matrix, program.right, np.abs(solution.primal), full)

    def duals(self, users: ConicProgram, solution: ConicSolution) -> list[Array]:
        """(kept rows,) the solver's dual inside the dual cone and corrected there, in one or two ways."""
        dual = solution.scaled_dual[self.kept]
        tries = [self.auxiliary]
        used = self.linear & (solution.primal > _USED)
        if used.any():  # their price is 0, and nothing curved would hold back what is left of it
            tries.append(self.auxiliary | used)
        return [users.corrected(dual, free) for free in tries]

    def unscaled(self, solution: ConicSolution, dual: Array) -> Array:
        """(R,) a dual of the scaled kept rows, in the program's own units; 0 for the other rows."""
        full = np.zeros(len(self.kept))
        full[self.kept] = dual
        return solution.balance.dual(full)

    def multipliers(self, dual: Array, compiled: Compiled) -> list[Array]:
        """(N,) multipliers per unit of each of the user's rows, in a dual (R,)."""
        found = []
        for row, conic in zip(compiled.rows, self.rows, strict=True):
            value = dual[conic]
            value = value * self._signs[conic] if row.equality else np.maximum(value, 0.0)
            found.append(value * compiled.unit / row.size)
        return found

    @cached_property
    def _signs(self) -> Array:
        """(R,) sign of the one entry of rows that have one."""
        return np.sign(np.asarray(self.program.matrix.sum(axis=1)).ravel())


def conic_form(compiled: Compiled) -> ConicForm | None:
    """The conic form of a compiled program as its author stated it; None where its parts cannot be told apart."""
    form = _form(compiled, _Parts(compiled.design, compiled.design))
    return form if form is not None else _form(compiled, _on_copies(compiled.design))


def _on_copies(design: Design) -> _Parts:
    size = len(design)
    pairs = [
        (variable, cp.Variable(size, nonneg=True, name=f"{_OURS}{variable.name()}") if not fixed else variable)
        for variable, fixed in (
            (design.new_variable, design.fixed_examples),
            (design.step_variable, design.fixed_steps),
        )
    ]
    own = {
        name: replace(each, step_variable=cp.Variable(size, nonneg=True, name=f"{_OURS}{each.step_variable.name()}"))
        for name, each in design.samplings.items()
    }
    pairs += [(each.step_variable, own[name].step_variable) for name, each in design.samplings.items()]
    parts = _Parts(design, replace(design, new_variable=pairs[0][1], step_variable=pairs[1][1], samplings=own))
    parts.constraints += [copy == variable for variable, copy in pairs if copy is not variable]
    return parts


def _form(compiled: Compiled, parts: _Parts) -> ConicForm | None:
    total, top, offset = cp.Variable(name=f"{_OURS}objective"), cp.Constant(0.0), 0.0
    for leaf in compiled.leaves:
        if leaf.weight:
            number, constant = parts.varying(leaf.term)
            top, offset = top + (leaf.weight / compiled.unit) * number, offset + leaf.weight * constant
    slacks = [cp.Variable(row.size.size, name=f"{_OURS}row {index}") for index, row in enumerate(compiled.rows)]
    said = [top <= total]
    for row, slack in zip(compiled.rows, slacks, strict=True):
        scaled = cp.multiply(1 / row.size, cp.reshape(_stated(row, parts), (row.size.size,), order="C"))
        said += [scaled == slack, slack == 0] if row.equality else [scaled <= slack, slack <= 0]
    form = _read(standard_form(cp.Problem(cp.Minimize(total), said + parts.constraints)), compiled, parts, slacks)
    return None if form is None else replace(form, constants=tuple(parts.constants), offset=offset)


def _stated(row: Row, parts: _Parts) -> cp.Expression:
    if row.bound is None or row.budget is not None:
        return row.stated
    return sum(weight * parts.stated(term) for weight, term in row.bound.term.leaves()) - row.bound.limit


def _read(form: StandardForm, compiled: Compiled, parts: _Parts, slacks: list[cp.Variable]) -> ConicForm | None:
    """The form with every row and column told what it belongs to."""
    program, design = form.program, compiled.design
    examples, steps = form.columns([design.new_variable]), form.columns([design.step_variable])
    numbers, inner = form.columns(parts.numbers), form.columns(parts.inner)
    slack_columns = [form.columns([slack]) for slack in slacks]
    samplings = {name: form.columns([each.step_variable]) for name, each in design.samplings.items()}
    chosen = np.concatenate([examples, steps, *samplings.values()])
    shared = program.cost != 0
    shared[np.concatenate([chosen, numbers, *slack_columns])] = True
    behind = _behind(program, inner, numbers, shared)
    if behind is None:
        return None
    rows_behind, columns_behind = behind
    only = _single_columns(program)
    row_of_column = np.full(len(program.cost), -1)
    row_of_column[only[only >= 0]] = np.flatnonzero(only >= 0)
    linear, auxiliary = np.zeros(len(program.cost), dtype=bool), ~columns_behind
    linear[chosen] = True
    linear &= ~_columns_of(program.matrix, rows_behind)
    if parts.behind is not parts.design:  # a copy that appears where it is made a copy and nowhere else
        others = [each.step_variable for each in parts.behind.samplings.values()]
        copies = form.columns([parts.behind.new_variable, parts.behind.step_variable, *others])
        linear[chosen] = np.diff(program.matrix.indptr)[copies] == 2
    kept = ~rows_behind & ~np.isin(only, chosen)
    auxiliary[np.concatenate([chosen, numbers])] = False
    for row, these in zip(compiled.rows, slack_columns, strict=True):
        if row.box:  # the certificate takes level bounds exactly
            kept &= ~_rows_of(program.matrix, these)
            auxiliary[these] = False
    rows = [row_of_column[these] for these in slack_columns]
    sized = np.zeros(len(program.cost), dtype=bool)
    for columns, reference in (
        (examples, design.reference.new_examples),
        (steps, design.reference.steps),
        *((columns, design.reference.of(name).steps) for name, columns in samplings.items()),
    ):
        sized[columns] = (reference > _UNSIZED * reference.max())[: columns.size] | ~linear[columns]
    return ConicForm(program, kept, examples, steps, parts.terms, numbers, rows, auxiliary, linear, sized, samplings)


def _single_columns(program: ConicProgram) -> Indices:
    """(R,) the column of a linear row that has one entry; -1 for others."""
    by_row = sparse.csr_array(program.matrix)
    linear = program.cones.zero + program.cones.nonnegative
    single = (np.diff(by_row.indptr) == 1) & (np.arange(by_row.shape[0]) < linear)
    only = np.full(by_row.shape[0], -1, dtype=np.intp)
    only[single] = by_row.indices[by_row.indptr[:-1][single]]
    return only


def _columns_of(matrix: sparse.csc_array, rows: Mask) -> Mask:
    """(N,) columns with an entry in one of the rows."""
    return np.asarray(abs(matrix.T) @ rows.astype(np.float64) > 0)


def _rows_of(matrix: sparse.csc_array, columns: Indices) -> Mask:
    """(R,) rows with an entry in one of the columns."""
    marked = np.zeros(matrix.shape[1])
    marked[columns] = 1.0
    return np.asarray(abs(matrix) @ marked > 0)


def _behind(program: ConicProgram, inner: Indices, numbers: Indices, shared: Mask) -> tuple[Mask, Mask] | None:
    """Rows and columns of the built-in parts; None where they share an auxiliary column with the rest.

    Rows and the auxiliary columns in them hang together, rows of one cone too; the rows with a number q are cut.
    """
    matrix, owner = program.matrix, program.cones.cone_of_row
    size, count = matrix.shape
    if not len(inner):
        return np.zeros(size, dtype=bool), np.zeros(count, dtype=bool)
    link = _rows_of(matrix, numbers)
    priced = _rows_of(matrix, np.flatnonzero(program.cost))
    i, j = sparse.coo_array(matrix).coords
    free = ~shared[j] & ~link[i]
    edges = (np.ones(int(free.sum())), (owner[i[free]], size + j[free]))
    labels = connected_components(sparse.coo_array(edges, shape=(size + count, size + count)), directed=False)[1]
    mine = np.isin(labels, labels[size + inner])
    rows, columns = mine[:size][owner], mine[size:]
    # a row of the rest that touches a column of a built-in part is m <= q and nothing else
    touched = _rows_of(matrix, np.flatnonzero(columns)) & ~rows
    entries = np.diff(sparse.csr_array(matrix).indptr)
    if (
        np.any(rows & (priced | link))
        or np.any(program.cost[columns] != 0)
        or np.any(touched & ~(link & (entries == 2)))
    ):
        return None
    return rows | touched, columns
