"""A program below the declared programs of every stopping point in an interval, user parts and constraints included.

docs/theory.md section 7.7. Coefficients are the least of the interval; what the user wrote enters where it says that
it is nested, on the levels above the interval that all its programs share; everything else is left out where that
only lowers the optimum, and named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import cvxpy as cp
import numpy as np

from ..basics.checks import Array
from ..basics.errors import EmptySelectionError
from ..certificate.lagrangian import LagrangianBound
from ..ingredients.levels import Levels
from ..modeling import Bound, Constraint, Design, Named, Point, ScoreError, Sum, Term, Truncation, named
from ..modeling.constraints import BoxConstraint, as_named
from ..modeling.design import Box
from ..modeling.own_variables import stated_pair
from ..modeling.shared_parameters import SharedParameters
from ..models.coefficients import Coefficients
from ..programs.problem import Problem
from ..results.plan import Plan
from .question import Study
from .shared_stops import shared_below

__all__ = ["IntervalProgram", "interval_program"]

_BELOW = 2  # levels of the program below those that all stopping points share: the interval, and the level it cuts
_CUTS = 5  # of the level that the interval cuts, at which bounds of single levels are taken
_SAMPLES = 129  # of a price that is a function of sigma, whose least is taken


@dataclass(frozen=True, eq=False)
class IntervalProgram:
    """A program whose every lower bound holds at every stopping point of an interval.

    Attributes:
        problem: None where a part that is missing may be negative.
        missing: names of the user's parts that are left out, and why.
        plain: whether nothing of what the user added is in it.
        nonnegative: whether all that the user added to the error is at least 0, so that leaving it out is a bound.
    """

    problem: Problem | None
    missing: tuple[str, ...]
    plain: bool = True
    nonnegative: bool = False


def interval_program(study: Study, low: float, high: float, near: Plan | None = None) -> IntervalProgram:
    """The program for the stopping points in [low, high]; shared parameters by the Y of a plan nearby."""
    found = study.model.interval_coefficients(low, high, study.levels)
    if found is None:
        return IntervalProgram(None, ("the model knows no coefficients below those of an interval",))
    if found.pooling is not None:
        return IntervalProgram(None, ("a coupling that pools examples has no bound over an interval",))
    table = _lowered(study, study.without_training(found), low, high)
    parts: list[tuple[float, Term]] = [(1.0, ScoreError(table)), (1.0, Truncation(table))]
    parts.append((1.0, study.discretization(table)))
    terms, missing, nonnegative = _terms(study, table, (low, high), near)
    if terms is None:
        return IntervalProgram(None, missing)
    constraints, left_out = _constraints(study, table, low)
    spent = _spent(study, table)
    known = {"examples": None if study.trains else spent, "spent": spent}
    problem = Problem(Sum((*parts, *terms)), [*_budgets(study, table), *constraints], **known)
    return IntervalProgram(problem, (*missing, *left_out), not (terms or constraints), nonnegative)


@dataclass(frozen=True, eq=False)
class IntervalCoefficients(Coefficients):
    """Coefficients below those of every stopping point of an interval.

    Args:
        window: (L,) largest part of each level that serves the last evaluation at any stopping point there.
    """

    window: Array | None = None

    @property
    def final_window(self) -> Array:
        assert self.window is not None
        return self.window


def _lowered(study: Study, table: Coefficients, low: float, high: float) -> IntervalCoefficients:
    """The table with a level of no errors below: examples between the interval's stopping points lie there.

    The last evaluation's error is that at `low`, the least; what serves it is all between the stopping points and
    one correlation length above the highest.
    """

    def free(row: Array) -> Array:
        return np.concatenate([np.zeros((*row.shape[:-1], 1)), row], axis=-1)

    edge = min(low, table.levels.edges[0] * (1 - 1e-9))  # an interval of one point has no extent
    levels = Levels(np.concatenate([[edge], table.levels.edges]))
    length = table.coupling.constant_length
    top = np.inf if length is None else high * float(np.exp(min(length, 600.0)))
    window = levels.overlap(low, top) / levels.log_width
    window[:_BELOW] = 1.0
    known = {field.name: getattr(table, field.name) for field in fields(Coefficients)}
    rows = {name: free(known[name]) for name in ("score", "floor", "response", "untrained") if known[name] is not None}
    last = study.table(low).final_score
    return IntervalCoefficients(
        **{**known, **rows, "levels": levels, "variance_ratio": None, "final_score": last, "window": window}
    )


def _spent(study: Study, table: Coefficients) -> Array | None:
    """Examples spent: on the level that the interval cuts all those above its lower end, which is the most."""
    below, spent = study.spent(table), study.most_spent(Levels(table.levels.edges[1:]), float(table.levels.edges[0]))
    return None if below is None or spent is None else np.concatenate([below[:1], spent])


def _budgets(study: Study, table: Coefficients) -> Iterator[Named]:
    """The study's budgets at prices that are the least on the levels below those shared."""
    limits = study.budgets.of(table, interval=True)
    for name, left, example, step in zip(
        [item.name for item in study.budgets.declared()],
        limits.left.tolist(), limits.example_prices, limits.step_prices, strict=True,
    ):  # fmt: skip
        examples, steps = example.copy(), step.copy()
        if name == "budget" and study.prices is not None:
            at = Levels(np.geomspace(table.levels.edges[0], table.levels.edges[_BELOW], _SAMPLES))
            examples[:_BELOW] = study.prices.example_price(at).min()
            steps[:_BELOW] = study.prices.evaluation_price(at).min() * table.evaluations_per_step
        yield named(name, Priced(examples, steps) <= left)


def _terms(
    study: Study, table: Coefficients, interval: tuple[float, float], near: Plan | None
) -> tuple[list[tuple[float, Term]] | None, tuple[str, ...], bool]:
    """The user's terms on the shared levels (None: one left out may be negative), names left out, whether all >= 0."""
    parts: list[tuple[float, Term]] = []
    missing, nonnegative, bounded = [], True, True
    for weight, leaf in (each for term in study.terms for each in term.leaves()):
        positive = all(_nonnegative(study, leaf, stop) for stop in interval)
        nonnegative &= positive
        if type(leaf) is SharedParameters and near is not None:
            parts.append((weight, shared_below(leaf, near, interval, table.levels)))
        elif leaf.nested and _selects(leaf, table):
            parts.append((weight, Above(leaf)))
        elif leaf.nested and positive:
            missing.append(f"{leaf.name} is taken as 0, the least it can be: it is about levels of the interval alone")
        elif positive:
            missing.append(f"{leaf.name} is taken as 0, the least it can be: it does not say that it is nested")
        else:
            missing.append(f"{leaf.name} may be negative, and does not say that it is nested")
            bounded = False
    return (parts if bounded else None), tuple(missing), nonnegative


def _nonnegative(study: Study, leaf: Term, stop: float) -> bool:
    """Whether the term shows that it is at least 0 for every design at this stopping point."""
    try:  # constraints have no say in it, and may select no level at the far end of the interval
        declared = replace(study, constraints=()).problem(stop).declaration
    except EmptySelectionError:
        return False
    design = declared.design(declared.neutral)
    if leaf.nonnegative(design):
        return True
    try:  # without the variables by which it is declared
        return bool(stated_pair(leaf, design)[0].is_nonneg())
    except TypeError:
        return False


def _selects(leaf: Term, table: Coefficients) -> bool:
    """Whether the term is about any of the levels that all stopping points of the interval share."""
    levels = Levels(table.levels.edges[_BELOW:])
    ones = np.ones(len(levels))
    try:
        leaf.formulation(Design.declare(levels, reference=Point(ones, 0 * ones, ones)))
    except EmptySelectionError:
        return False
    return True


def _constraints(study: Study, table: Coefficients, low: float) -> tuple[list[Named], tuple[str, ...]]:
    """The user's constraints on the shared levels, and the names of those left out."""
    kept, missing = [], []
    for index, stated in enumerate(study.constraints):
        item = as_named(stated, index)
        what = item.what
        if isinstance(what, Bound) and all(leaf.nested for _, leaf in what.term.leaves()):
            inside = Sum(tuple((weight, Above(leaf)) for weight, leaf in what.term.leaves()))
            kept.append(named(item.name, Bound(inside, what.limit)))
        elif isinstance(what, Constraint) and what.nested:
            box = _least_box(what, table, low)
            kept.append(named(item.name, _AboveRows(what.constraints) if box is None else _Limits(box)))
        elif not isinstance(what, (Bound, Constraint)) and item.nested:
            kept.append(named(item.name, _AboveRows(what)))
        else:
            missing.append(f"{item.name} is left out: it does not say that it is nested")
    return kept, tuple(missing)


def _least_box(what: Constraint, table: Coefficients, low: float) -> Box | None:
    """Bounds of single levels, on the cut level the loosest of its cuts, as densities; None for other constraints."""
    edges = table.levels.edges[1:]
    boxes = []
    for cut in np.geomspace(min(low, edges[0]), edges[0], _CUTS):
        levels = Levels(np.append(cut, edges[1:]))
        ones = np.ones(len(levels))
        try:
            found = what.level_bounds(Design.declare(levels, reference=Point(ones, 0 * ones, ones)))
        except EmptySelectionError:
            found = Box.empty(len(levels))
        if found is None:
            return None
        boxes.append([row / levels.log_width for row in vars(found).values()])
    width = np.diff(np.log(edges))
    loosest = (np.min, np.max, np.min, np.max)
    rows = [pick([box[i] for box in boxes], axis=0) * width for i, pick in enumerate(loosest)]
    free = Box.empty(1)
    return Box(*(np.append(first, row) for first, row in zip(vars(free).values(), rows, strict=True)))


@dataclass(frozen=True, eq=False)
class _Limits(BoxConstraint):
    """Bounds of single levels, in numbers."""

    limits: Box

    def box(self, design: Design) -> Box:
        return self.limits


@dataclass(frozen=True, eq=False)
class _AboveRows:
    """A function of the design, of the shared levels alone."""

    what: Any

    def __call__(self, design: Design) -> Any:
        try:
            return self.what(design.above(_BELOW))
        except EmptySelectionError:  # a range of sigma that ends within the interval
            return []


@dataclass(frozen=True, eq=False)
class Above(Term):
    """A term of the shared levels alone."""

    whole: Term

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def scales_itself(self) -> bool:  # type: ignore[override]
        return self.whole.scales_itself

    @property
    def bounded_by_duals(self) -> bool:  # type: ignore[override]
        return self.whole.bounded_by_duals

    @property
    def needs_examples(self) -> bool:
        return self.whole.needs_examples

    def expression(self, design: Design) -> cp.Expression:
        return self.whole.expression(design.above(_BELOW))

    def formulation(self, design: Design) -> tuple[cp.Expression, list[cp.Constraint]]:
        return self.whole.formulation(design.above(_BELOW))

    def value(self, design: Design, point: Point) -> float:
        design.set(point)
        cut = Point(point.new_examples[_BELOW:], point.spent[_BELOW:], point.steps[_BELOW:])
        return self.whole.value(design.above(_BELOW), cut)

    def linear_prices(self, design: Design) -> tuple[Array, Array, float] | None:
        prices = self.whole.linear_prices(design.above(_BELOW))
        if prices is None:
            return None
        ends = self.whole.linear_prices(design)
        same = ends is not None and ends[2] == prices[2]  # a constant that moves with the stopping point is left out
        free = np.zeros(_BELOW)
        return np.append(free, prices[0]), np.append(free, prices[1]), prices[2] if same else min(prices[2], 0.0)

    def add_solved(
        self, bound: LagrangianBound, weight: float, point: Point, design: Design, auxiliary: Sequence[cp.Constraint]
    ) -> bool:
        """The whole term's own bound, where it is one of powers, logarithms and prices."""
        design.set(point)
        cut = Point(point.new_examples[_BELOW:], point.spent[_BELOW:], point.steps[_BELOW:])
        own = LagrangianBound(len(design) - _BELOW, cut.spent)
        if not self.whole.add_solved(own, weight, cut, design.above(_BELOW), auxiliary) or own.parts:
            return False
        free = np.zeros(_BELOW)
        bound.powers += [(power, np.append(free, each)) for power, each in own.powers]
        bound.add_linear(own.constant, np.append(free, own.examples_price), np.append(free, own.steps_price))
        if own.has_logs:
            bound.add_logarithms(0.0, np.append(free, own.examples_log), np.append(free, own.steps_log))
        return True


@dataclass(frozen=True, eq=False)
class Priced(Term):
    """Prices given level by level."""

    examples: Array
    steps: Array

    @property
    def needs_examples(self) -> bool:
        return False

    def linear_prices(self, design: Design) -> tuple[Array, Array, float]:
        return self.examples, self.steps, 0.0

    def expression(self, design: Design) -> cp.Expression:
        unit = design.reference
        return (self.examples * unit.new_examples) @ design.new_variable + (
            self.steps * unit.steps
        ) @ design.step_variable

    def value(self, design: Design, point: Point) -> float:
        return float(self.examples @ point.new_examples + self.steps @ point.steps)
