"""The lower bound of a program in conic form: prices from its dual, built-in parts exact beside them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import numpy as np

from ..basics.checks import Array
from ..certificate.conic import ConicProgram
from ..certificate.intervals import implied_bounds
from ..certificate.lagrangian import LagrangianBound
from ..modeling.design import Point
from ..modeling.gradients import all_jacobians
from ..solvers.conic.solve import ConicSolution
from .compiled import Compiled, Leaf
from .conic_check import Declared, Plane
from .conic_form import ConicForm
from .proof import add_leaf, empty_bound, tighten_box
from .rows import PLACEHOLDER, Row

__all__ = ["conic_bound"]

_ROUNDING = 1e-14  # of the sums over levels, relative
_TRUSTED = 1e-7  # most that stated sizes may be charged, against the objective's size
_ABOVE = 1e-3  # a bound need not be told further above the candidate than that
_UNSURE = 1e-9  # the same where the solver gave up: its columns may say nothing of the candidate's sizes
_MISSTATED = 1e-7  # of the objective's size: most that a bound may be above what it should lie below
_STATED = 1e3  # auxiliary variables are taken to stay below so many times their size at the candidate


def conic_bound(
    form: ConicForm, solution: ConicSolution, compiled: Compiled, point: Point, declared: Declared | None = None
) -> float:
    """No feasible design costs less, where auxiliary variables stay within their stated bounds (section 8.3).

    `declared`: what data and objective are held to, where that is not the compiled program itself.
    """
    users = form.users(solution)
    declared = Declared(compiled) if declared is None else declared
    bounds = _Bounds.of(form, users, solution, compiled, point, declared.objective(point))
    best = -np.inf
    for dual in form.duals(users, solution):
        bound, plane = _bound(form, users, solution, compiled, point, bounds, dual)
        if bound > best:
            excess = declared.excess(plane, point)
            # a little is what evaluating rounds; more, and the data are not the program that was declared
            best = max(best, bound - excess if excess <= _MISSTATED * compiled.unit else -np.inf)
    return best


@dataclass(frozen=True, eq=False)
class _Bounds:
    """What is known of a point that costs no more than `value`.

    Attributes:
        box: an empty bound with the intervals of examples and steps.
        low, high: (N,) bounds of the scaled columns, infinite where none is proved.
        stated: (N,) sizes that the scaled columns are taken to have where none is.
    """

    value: float
    box: LagrangianBound
    low: Array
    high: Array
    stated: Array

    @classmethod
    def of(
        cls, form: ConicForm, users: ConicProgram, solution: ConicSolution, compiled: Compiled, point: Point,
        value: float,
    ) -> _Bounds:  # fmt: skip
        """Intervals that rows, level bounds and the value at the candidate imply."""
        columns, reference, box = solution.balance.columns, compiled.design.reference, _boxed(compiled, point)
        value = value + _ABOVE * compiled.unit  # what costs more needs no bound below it
        low, high = np.full(len(columns), -np.inf), np.full(len(columns), np.inf)
        for at, units, (least, most) in (
            (form.examples, reference.new_examples, box.examples_box),
            (form.steps, reference.steps, box.steps_box),
            *((form.samplings[name], reference.of(name).steps, own.steps_box) for name, own in box.samplings.items()),
        ):
            if at.size:
                low[at], high[at] = least / (units * columns[at]), most / (units * columns[at])
        for term, constant, at in zip(form.terms, form.constants, form.numbers, strict=True):
            if term.monotone:
                low[at] = (term.constant(compiled.design, point) - constant) / columns[at]
        priced = users.cost != 0
        high[priced] = (value - form.offset) / (compiled.unit * columns[priced]) if np.isfinite(value) else np.inf
        low, high = implied_bounds(users, low, high)
        if form.examples.size:
            box.examples_box = _closed(box.examples_box, (high * columns)[form.examples] * reference.new_examples)
        if form.steps.size:
            box.steps_box = _closed(box.steps_box, (high * columns)[form.steps] * reference.steps)
        for name, own in box.samplings.items():
            implied = (high * columns)[form.samplings[name]] * reference.of(name).steps
            own.steps_box = _closed(own.steps_box, implied)
        stated = _STATED * np.maximum(np.abs(solution.primal / columns), 1.0)
        return cls(value, box, low, high, stated)

    def charged(self, left: Array, enough: float) -> tuple[float, float]:
        """What (N,) remainders cost at most where a size is proved, and where it is stated.

        A proved size that is larger than the stated one stands as long as all of these cost no more than `enough`.
        """
        size = np.maximum(np.abs(self.low), np.abs(self.high))
        proved = np.isfinite(size) & (left > 0)
        if not left[proved] @ size[proved] <= enough:
            proved &= size <= self.stated
        rest = (left > 0) & ~proved
        return float(left[proved] @ size[proved]), float(left[rest] @ self.stated[rest])


def _closed(box: tuple[Array, Array], implied: Array) -> tuple[Array, Array]:
    """Intervals without an upper end, closed by what the rows imply."""
    low, high = box
    return low, np.maximum(np.where(np.isfinite(high), high, implied * (1 + 1e-12)), low)


def _bound(
    form: ConicForm, users: ConicProgram, solution: ConicSolution, compiled: Compiled, point: Point, known: _Bounds,
    dual: Array,
) -> tuple[float, Plane]:  # fmt: skip
    """The bound of one dual, and the plane that it says lies below the Lagrangian."""
    balance, reference = solution.balance, compiled.design.reference
    unit = compiled.unit / balance.cost_factor
    slope = users.reduced(dual)  # of the scaled columns
    left = np.where(form.auxiliary, np.abs(slope), 0.0)
    bound = deepcopy(known.box)
    constant = unit * users.constant(dual) + form.offset
    parts = []
    for term, stays, column in zip(form.terms, form.constants, form.numbers, strict=True):
        if slope[column] > 0:
            parts.append((float(unit * slope[column] / balance.columns[column]), term))
            constant -= parts[-1][0] * stays
            add_leaf(bound, Leaf(*parts[-1], PLACEHOLDER), compiled.design, point)
        else:
            left[column] = -slope[column]
    bound.constant += constant
    prices, whole = [], []
    for columns, units, box in (
        (form.examples, reference.new_examples, bound.examples_box),
        (form.steps, reference.steps, bound.steps_box),
        *((form.samplings[name], reference.of(name).steps, own.steps_box) for name, own in bound.samplings.items()),
    ):
        price, slopes = np.zeros(len(compiled.design)), np.zeros(len(compiled.design))
        if columns.size:
            slopes = slope[columns] / (balance.columns[columns] * units)
            # a price below zero by rounding, of a quantity that no row bounds by itself, is charged like the rest
            endless = (slope[columns] < 0) & ~np.isfinite(box[1])
            left[columns[endless]] = -slope[columns[endless]]
            price = np.where(endless, 0.0, slopes)
        prices.append(unit * price)
        whole.append(unit * slopes)
    plane = Plane(
        constant, whole[0], whole[1], parts, form.multipliers(form.unscaled(solution, dual), compiled),
        dict(zip(bound.samplings, whole[2:], strict=True)),
    )  # fmt: skip
    proved, stated = (unit * part for part in known.charged(left, _TRUSTED * balance.cost_factor))
    if not stated <= (_TRUSTED if solution.converged else _UNSURE) * compiled.unit:
        return -np.inf, plane  # stated sizes may pay for rounding; where they decide, they would have to be proved
    bound.add_linear(-proved - stated, prices[0], prices[1])
    for own, price in zip(bound.samplings.values(), prices[2:], strict=True):
        own.add_linear(0.0, np.zeros_like(price), price)
    value = min(bound.value(), known.value)
    # what rounding of the data, of c + A'z and of the sums may have added
    size = np.abs(solution.primal / balance.columns)
    rounding = compiled.unit * form.data_rounding(solution, dual) + unit * users.rounding(dual, size)
    return value - rounding - _ROUNDING * abs(value), plane


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
