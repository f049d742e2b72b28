"""A declared program in conic form, what the library bounds exactly left out: candidate, multipliers, lower bound.

docs/theory.md section 8.3. The objective and every bound name a number of their own for each built-in part, q >= f(x).
The rows behind f have the auxiliary columns of f and nothing else in common with the rest; without them the program is
what the user wrote, linear in q. Its dual z prices every design column, and the built-in parts enter at the weight
that z gives their q, exact, beside these prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import cvxpy as cp
import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from ..basics.checks import Array, Indices, Mask
from ..basics.cones import Cones
from ..certificate.conic import ConicProgram, into_dual
from ..certificate.lagrangian import LagrangianBound
from ..modeling.algebra import Term
from ..modeling.design import Design
from ..solvers.conic.solve import ConicSolution, solve_conic
from .compiled import Compiled
from .rows import Row

__all__ = ["ConicForm", "conic_form"]


@dataclass(eq=False)
class _Parts:
    """Built-in parts met while a program is written down: their numbers q and m with f(x) <= m <= q."""

    design: Design
    terms: list[Term] = field(default_factory=list)
    numbers: list[cp.Variable] = field(default_factory=list)
    inner: list[cp.Variable] = field(default_factory=list)
    constraints: list[cp.Constraint] = field(default_factory=list)

    def stated(self, term: Term) -> cp.Expression:
        """The term as a number of its own where the certificate bounds it exactly, else as its author wrote it."""
        if term.linear_prices(self.design) is None and _has_exact_bound(term, self.design):
            index = len(self.terms)
            outer, inner = cp.Variable(name=f"exact {index}"), cp.Variable(name=f"behind {index}")
            expression, own = term.formulation(self.design)
            if expression.is_constant():
                return expression
            self.terms.append(term)
            self.numbers.append(outer)
            self.inner.append(inner)
            self.constraints += [expression <= inner, inner <= outer, *own]
            return outer
        expression, own = term.formulation(replace(self.design, declares=self._inside))
        self.constraints += own
        return expression

    def _inside(self, term: Term, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:
        """A part of a term that is made of others: exact, too, where it can be."""
        return self.stated(term), []


def _has_exact_bound(term: Term, design: Design) -> bool:
    if not term.scales_itself or term.as_information is not None:
        return False
    ones = np.ones(len(design))
    fixed = {"fixed_examples": ones if design.fixed_examples else None, "fixed_steps": ones if design.fixed_steps else None}
    return term.add_to(LagrangianBound(len(design), design.reference.spent, **fixed), 1.0, design.reference)


@dataclass(frozen=True, eq=False)
class ConicForm:
    """The conic form of a compiled program.

    Attributes:
        program: all of it, the built-in parts included: this is what is solved.
        kept: (R,) rows of what the user wrote, level bounds left out.
        examples, steps: columns of the design; empty where a quantity is given.
        terms: the built-in parts, `numbers` their columns q.
        rows: for each row of the compiled program, the conic rows r <= 0 or r == 0 that say so, in order.
        auxiliary: (N,) columns that must vanish from c + A'z: neither design, nor numbers, nor of built-in parts.
    """

    program: ConicProgram
    kept: Mask
    examples: Indices
    steps: Indices
    terms: Sequence[Term]
    numbers: Indices
    rows: Sequence[Indices]
    auxiliary: Mask

    def solve(self, *, verbose: bool = False, time_limit: float = np.inf) -> ConicSolution:
        """The solver's answer, in the program's own units."""
        whole = self.program
        held = np.zeros(len(whole.cost), dtype=bool)
        held[self.examples] = held[self.steps] = True
        return solve_conic(
            whole.cost, whole.matrix, whole.right, whole.cones, held=held, verbose=verbose, time_limit=time_limit
        )

    @cached_property
    def users(self) -> ConicProgram:
        """The rows of what the user wrote."""
        whole, rows = self.program, np.flatnonzero(self.kept)
        matrix = sparse.csc_array(sparse.csr_array(whole.matrix)[rows])
        return ConicProgram(whole.cost, matrix, whole.right[rows], whole.cones.restricted(self.kept))

    def dual(self, solution: ConicSolution) -> Array:
        """(kept rows,) the solver's dual, corrected in the scaled program and inside the dual cone."""
        rows, balance = np.flatnonzero(self.kept), solution.balance
        factors = sparse.csr_array(balance.rows)[rows][:, rows]
        matrix = sparse.csc_array(factors @ self.users.matrix @ sparse.diags_array(balance.columns))
        cost = balance.cost_factor * balance.columns * self.users.cost
        scaled = ConicProgram(cost, matrix, factors @ self.users.right, self.users.cones)
        inside = scaled.corrected(solution.scaled_dual[rows], self.auxiliary)
        return into_dual(np.asarray(factors.T @ inside) / balance.cost_factor, self.users.cones)

    def multipliers(self, solution: ConicSolution, rows: Sequence[Row], unit: float) -> list[Array]:
        """(N,) multipliers per unit of each of the user's rows, as the solver gave them."""
        found = []
        for row, conic in zip(rows, self.rows, strict=True):
            value = solution.dual[conic]
            if not row.equality:
                value = np.maximum(value, 0.0)
            else:
                value = value * self._signs[conic]
            found.append(value * unit / row.size)
        return found

    @cached_property
    def _signs(self) -> Array:
        """(R,) sign of the one entry of rows that have one."""
        return np.sign(np.asarray(self.program.matrix.sum(axis=1)).ravel())


def conic_form(compiled: Compiled) -> ConicForm | None:
    """The conic form of a compiled program as its author stated it; None for a cone that has no bound here."""
    design = compiled.design
    parts = _Parts(design)
    total, top = cp.Variable(name="objective"), cp.Constant(0.0)
    for leaf in compiled.leaves:
        if leaf.weight:
            top = top + (leaf.weight / compiled.unit) * parts.stated(leaf.term)
    slacks = [cp.Variable(row.size.size, name=f"row {index}") for index, row in enumerate(compiled.rows)]
    said = [top <= total]
    for row, slack in zip(compiled.rows, slacks, strict=True):
        scaled = cp.multiply(1 / row.size, cp.reshape(_stated(row, parts), (row.size.size,), order="C"))
        said += [scaled == slack, slack == 0] if row.equality else [scaled <= slack, slack <= 0]
    problem = cp.Problem(cp.Minimize(total), said + parts.constraints)
    data, _, _ = problem.get_problem_data(cp.CLARABEL, solver_opts={"use_quad_obj": False})
    if data["dims"].pnd:
        return None
    return _read(data, compiled, parts, slacks)


def _stated(row: Row, parts: _Parts) -> cp.Expression:
    if row.bound is None or row.budget is not None:
        return row.stated
    return sum(weight * parts.stated(term) for weight, term in row.bound.term.leaves()) - row.bound.limit


def _read(data: dict, compiled: Compiled, parts: _Parts, slacks: list[cp.Variable]) -> ConicForm | None:
    dims, design = data["dims"], compiled.design
    cones = Cones(dims.zero, dims.nonneg, tuple(dims.soc), tuple(dims.psd), dims.exp, tuple(map(float, dims.p3d)))
    program = ConicProgram(np.asarray(data["c"], dtype=float), sparse.csc_array(data["A"]), np.asarray(data["b"]), cones)
    places = {}
    starts, order = data["param_prob"].var_id_to_col, data["param_prob"].variables
    for variable in order:
        if variable.name() in places:
            places[variable.name()] = None  # two of one name: the library's own names are checked below
        else:
            places[variable.name()] = starts[variable.id] + np.arange(variable.size)

    def columns(found: Sequence[cp.Expression]) -> Indices:
        pieces = [places.get(v.name(), np.zeros(0, dtype=np.intp)) for v in found if isinstance(v, cp.Variable)]
        return np.concatenate([np.zeros(0, dtype=np.intp), *pieces]).astype(np.intp)

    count = len(program.cost)
    by_row = sparse.csr_array(program.matrix)
    entries = np.diff(by_row.indptr)
    single = (entries == 1) & (np.arange(len(entries)) < cones.zero + cones.nonnegative)
    only = np.full(len(entries), -1)
    only[single] = by_row.indices[by_row.indptr[:-1][single]]
    row_of_column = np.full(count, -1)
    row_of_column[only[single]] = np.flatnonzero(single)
    examples, steps = columns([design.new_variable]), columns([design.step_variable])
    numbers, inner = columns(parts.numbers), columns(parts.inner)
    slack_columns = [columns([slack]) for slack in slacks]
    shared = np.zeros(count, dtype=bool)
    for these in (examples, steps, numbers, columns([]), *slack_columns):
        shared[these] = True
    shared[program.cost != 0] = True
    behind = _behind(program, inner, numbers, shared)
    if behind is None:
        return None
    rows_behind, columns_behind = behind
    kept = ~rows_behind
    design_columns = np.concatenate([examples, steps])
    kept[single & np.isin(only, design_columns)] = False
    for row, these in zip(compiled.rows, slack_columns, strict=True):
        if row.box:
            kept[_touching(by_row, these)] = False
    auxiliary = ~columns_behind
    auxiliary[np.concatenate([design_columns, numbers])] = False
    for row, these in zip(compiled.rows, slack_columns, strict=True):
        if row.box:
            auxiliary[these] = False
    return ConicForm(
        program, kept, examples, steps, parts.terms, numbers, [row_of_column[these] for these in slack_columns], auxiliary
    )


def _touching(by_row: sparse.csr_array, columns: Indices) -> Mask:
    marked = np.zeros(by_row.shape[1])
    marked[columns] = 1.0
    pattern = sparse.csr_array((np.ones(by_row.nnz), by_row.indices, by_row.indptr), shape=by_row.shape)
    return np.asarray(pattern @ marked > 0)


def _behind(program: ConicProgram, inner: Indices, numbers: Indices, shared: Mask) -> tuple[Mask, Mask] | None:
    """Rows and columns of the built-in parts; None where they share an auxiliary column with the rest."""
    by_row = sparse.csr_array(program.matrix)
    size, count = by_row.shape
    if not len(inner):
        return np.zeros(size, dtype=bool), np.zeros(count, dtype=bool)
    cut = _touching(by_row, np.flatnonzero(shared & ~np.isin(np.arange(count), numbers) & (program.cost != 0)))
    link = _touching(by_row, numbers)
    pattern = sparse.coo_array(program.matrix)
    i, j = pattern.coords
    # rows of one cone hang together; rows that touch a shared column only through it do not
    free = ~shared[j] & ~link[i]
    owner = program.cones.cone_of_row
    graph = sparse.coo_array(
        (np.ones(int(free.sum())), (owner[i[free]], size + j[free])), shape=(size + count, size + count)
    )
    labels = connected_components(graph, directed=False)[1]
    mine = np.isin(labels, np.unique(labels[size + inner]))
    rows, columns = mine[:size][owner], mine[size:]
    if np.any(rows & (cut | link)) or np.any(program.cost[columns] != 0):
        return None
    # a row of the rest that touches a column of a built-in part is a link, m <= q, and nothing else
    touched = _touching(by_row, np.flatnonzero(columns)) & ~rows
    entries = np.diff(by_row.indptr)
    if np.any(touched & ~(link & (entries == 2))):
        return None
    return rows | touched, columns
