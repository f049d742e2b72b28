"""The lower bound of a program in conic form: prices from its dual, built-in parts exact beside them."""

from __future__ import annotations

import numpy as np

from ..basics.checks import Array
from ..certificate.conic import ConicProgram
from ..certificate.lagrangian import LagrangianBound
from ..modeling.design import Point
from ..modeling.gradients import all_jacobians
from ..solvers.conic.solve import ConicSolution
from .compiled import Compiled, Leaf
from .conic_form import ConicForm
from .proof import add_leaf, empty_bound, tighten_box
from .rows import PLACEHOLDER, Row

__all__ = ["conic_bound"]

_ROUNDING = 1e-14  # of the sums over levels, relative
_TRUSTED = 1e-6  # most that stated sizes may be charged, against the objective's size
_UNSURE = 1e-9  # the same where the solver gave up: its columns may say nothing of the candidate's sizes
_STATED = 1e3  # auxiliary variables are taken to stay below so many times their size at the candidate


def conic_bound(form: ConicForm, solution: ConicSolution, compiled: Compiled, point: Point) -> float:
    """No feasible design costs less, where auxiliary variables stay within their stated bounds (section 8.3)."""
    users = form.users(solution)
    return max(_bound(form, users, solution, compiled, point, dual) for dual in form.duals(users, solution))


def _bound(
    form: ConicForm, users: ConicProgram, solution: ConicSolution, compiled: Compiled, point: Point, dual: Array
) -> float:
    balance, reference = solution.balance, compiled.design.reference
    unit = compiled.unit / balance.cost_factor
    size = np.abs(solution.primal / balance.columns)
    slope = users.reduced(dual)  # of the scaled columns
    left = np.where(form.auxiliary, np.abs(slope), 0.0)
    bound = _boxed(compiled, point)
    bound.constant += unit * users.constant(dual)
    for term, column in zip(form.terms, form.numbers, strict=True):
        if slope[column] > 0:
            weight = float(unit * slope[column] / balance.columns[column])
            add_leaf(bound, Leaf(weight, term, PLACEHOLDER), compiled.design, point)
        else:
            left[column] = -slope[column]
    prices = []
    for columns, units, box in (
        (form.examples, reference.new_examples, bound.examples_box),
        (form.steps, reference.steps, bound.steps_box),
        *((form.samplings[name], reference.of(name).steps, own.steps_box) for name, own in bound.samplings.items()),
    ):
        price = np.zeros(len(compiled.design))
        if columns.size:
            # a price below zero by rounding, of a quantity that no row bounds by itself, is charged like the rest
            endless = (slope[columns] < 0) & ~np.isfinite(box[1])
            left[columns[endless]] = -slope[columns[endless]]
            price = np.where(endless, 0.0, slope[columns] / (balance.columns[columns] * units))
        prices.append(unit * price)
    charged = unit * _STATED * float(left @ np.maximum(size, 1.0))
    trusted = _TRUSTED if solution.converged else _UNSURE
    if not charged <= trusted * compiled.unit:
        return -np.inf  # stated sizes may pay for rounding; where they decide, they would have to be proved
    bound.add_linear(-charged, prices[0], prices[1])
    for own, price in zip(bound.samplings.values(), prices[2:], strict=True):
        own.add_linear(0.0, np.zeros_like(price), price)
    value = bound.value()
    # what rounding of the data, of c + A'z and of the sums may have added
    rounding = compiled.unit * form.data_rounding(solution, dual) + unit * users.rounding(dual, size)
    return value - rounding - _ROUNDING * abs(value)


def _boxed(compiled: Compiled, point: Point) -> LagrangianBound:
    """An empty bound in the box of the level bounds, the budgets, and the rows of single levels."""
    bound = empty_bound(compiled.box, compiled.design, point)
    for row in compiled.rows:
        tighten_box(bound, row, compiled.design)
        if row.box or row.bound is not None or row.equality or not row.expression.is_affine():
            continue
        _tighten_by_entries(bound, row, compiled, point)
    return bound


def _tighten_by_entries(bound: LagrangianBound, row: Row, compiled: Compiled, point: Point) -> None:
    """Entries of an affine row that are about one level: a x <= b."""
    design = compiled.design
    if any(variable.id not in {v.id for v in design.variables} for variable in row.expression.variables()):
        return
    design.set(point)
    value = np.ravel(np.asarray(row.stated.value, dtype=np.float64))
    slopes = [
        np.asarray(part.toarray() if hasattr(part, "toarray") else part) for part in all_jacobians(row.stated, design)
    ]
    touched = np.sum([(slope != 0).sum(axis=0) for slope in slopes], axis=0)
    sides = [(bound, point.new_examples, "examples_box"), (bound, point.steps, "steps_box")]
    sides += [(own, point.of(name).steps, "steps_box") for name, own in bound.samplings.items()]
    for slope, (owner, at, name) in zip(slopes, sides, strict=True):
        levels, entries = np.nonzero(slope * (touched == 1))
        if not levels.size:
            continue
        a = slope[levels, entries]
        edge = at[levels] - value[entries] / a
        edge = edge + 1e-15 * np.abs(edge) * np.sign(a)
        low, high = (side.copy() for side in getattr(owner, name))
        np.minimum.at(high, levels[a > 0], np.maximum(edge[a > 0], 0.0))
        np.maximum.at(low, levels[a < 0], edge[a < 0])
        setattr(owner, name, (np.minimum(low, high), high))
