"""A conic dual held against the declared expressions' own values: weak duality, where numbers may have been lost.

docs/theory.md section 8.3. What cvxpy writes down as A, b and c is a program in floating-point numbers, and a part 1
beside 1e18 is not in it. The dual of such data says of every design, feasible or not, that
constant + prices . (m, n) + sum_k w_k f_k(m, n) <= objective(m, n) + sum_j y_j h_j(m, n), and both sides can be
computed without the data: at the candidate, where it is tight, and around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import cvxpy as cp
import numpy as np

from ..basics.checks import Array
from ..modeling.algebra import Term
from ..modeling.design import Design, Point
from ..modeling.own_variables import own_variables, stated_pair
from .compiled import Compiled
from .rows import Row

__all__ = ["Declared", "Elastic", "Plane"]

_NEAR = (1e-6, 1e-4, 1e-3, 1e-2)  # standard deviations of logarithms of points beside the candidate, both ways
_AROUND = (0.1, 1.0, 3.0)  # standard deviations of logarithms of points around the candidate
_SCALED = (1e-2, 3.0)  # multiples of the candidate
_ROUNDING = 1e-12  # of the sum of magnitudes on both sides, which cvxpy's functions and sums of thousands may round
_RESIDUAL = 1e-9  # the same away from the candidate: auxiliary variables are larger there than the dual was mended for
_Value = Callable[[Point], float]


@dataclass(frozen=True, eq=False)
class Plane:
    """What a dual says: constant + examples . m + steps . n + sum of weights times built-in parts lies below.

    Attributes:
        constant: -b'z, in the objective's units.
        examples, steps: (L,) prices of new examples and of steps.
        parts: (weight, built-in term).
        multipliers: of each of the compiled program's rows, per unit of the row.
        samplings: (L,) prices of the steps of each sampler, by name, where several share the training.
    """

    constant: float
    examples: Array
    steps: Array
    parts: Sequence[tuple[float, Term]]
    multipliers: Sequence[Array]
    samplings: Mapping[str, Array] = field(default_factory=dict)


@dataclass(eq=False)
class Declared:
    """The objective and the rows of a compiled program as functions of a point, by their own expressions."""

    compiled: Compiled
    _values: dict[int, _Value] = field(default_factory=dict)
    _points: list[tuple[Point, float]] | None = None

    def excess(self, plane: Plane, candidate: Point) -> float:
        """By how much the plane is above the Lagrangian it should lie below, at the worst of some points; >= 0."""
        if self._points is None or self._points[0][0] is not candidate:
            self._points = [(candidate, _ROUNDING)] + [(point, _ROUNDING) for point in self._beside(candidate)]
            self._points += [(point, _RESIDUAL) for point in self._around(candidate)]
        return max(self._above(plane, point, tolerance) for point, tolerance in self._points)

    def objective(self, point: Point) -> float:
        """The objective's value at a point."""
        design = self.compiled.design
        with np.errstate(all="ignore"):
            return sum(leaf.weight * self._value(leaf.term, design)(point) for leaf in self.compiled.leaves)

    def _above(self, plane: Plane, point: Point, tolerance: float) -> float:
        design = self.compiled.design
        parts = [(weight, term) for weight, term in plane.parts if weight]
        with np.errstate(all="ignore"):
            below = [plane.constant, float(plane.examples @ point.new_examples), float(plane.steps @ point.steps)]
            below += [float(prices @ point.of(name).steps) for name, prices in plane.samplings.items()]
            below += [weight * self._value(term, design)(point) for weight, term in parts]
            above = [leaf.weight * self._value(leaf.term, design)(point) for leaf in self.compiled.leaves]
            self.compiled.set(point)
            rows = [
                float(y @ self._row(row, point))
                for row, y in zip(self.compiled.rows, plane.multipliers, strict=True)
                if not row.box and np.any(y)
            ]
            above += rows
            excess = sum(below) - sum(above) - tolerance * sum(abs(part) for part in below + above)
        return max(excess, 0.0) if np.isfinite(excess) else 0.0  # outside a function's domain there is nothing to hold

    def _row(self, row: Row, point: Point) -> Array:
        """(N,) entries of a row at a point, to which the variables are set."""
        if row.bound is None or row.budget is not None:
            return np.ravel(np.asarray(row.stated.value, dtype=np.float64))
        leaves = row.bound.term.leaves()
        values = [weight * self._value(term, self.compiled.design)(point) for weight, term in leaves]
        self.compiled.design.set(point)
        return np.array([sum(values) - row.bound.limit])

    def _value(self, term: Term, design: Design) -> _Value:
        """The term's value; a user's expression is built once."""
        if id(term) not in self._values:
            self._values[id(term)] = self._evaluator(term, design)
        return self._values[id(term)]

    def _evaluator(self, term: Term, design: Design) -> _Value:
        if not term.scales_itself:
            expression, constraints = stated_pair(term, design)
            if not own_variables([expression, *constraints], design):
                return lambda point: _at(expression, design, point)
        return lambda point: self.compiled.value(term, point)

    @cached_property
    def _slow(self) -> bool:
        """Whether a value is a program of its own."""
        design = self.compiled.design
        stated = [leaf.expression for leaf in self.compiled.leaves if not leaf.term.scales_itself]
        stated += [row.stated for row in self.compiled.rows if row.at is None or not _by_the_library(row)]
        return bool(own_variables(stated, design))

    def _beside(self, candidate: Point) -> Iterator[Point]:
        """Where another piece of a maximum is the largest: the plane is tight where pieces meet, lower elsewhere."""
        rng = np.random.default_rng(1)
        for spread in _NEAR[-1:] if self._slow else _NEAR:
            directions = spread * rng.normal(size=(2, len(self.compiled.design)))
            for sign in (1.0,) if self._slow else (1.0, -1.0):
                yield self._times(candidate, *np.exp(sign * directions))

    def _around(self, candidate: Point) -> Iterator[Point]:
        if self._slow:
            return
        rng = np.random.default_rng(0)
        size = len(self.compiled.design)
        for spread in _AROUND:
            yield self._times(candidate, *np.exp(spread * rng.normal(size=(2, size))))
        for factor in _SCALED:
            yield self._times(candidate, *np.full((2, size), factor))

    def _times(self, point: Point, examples: Array, steps: Array) -> Point:
        """Multiples of a point, levels that are empty there a little filled; what is given stays."""
        design = self.compiled.design
        return Point(
            point.new_examples if design.fixed_examples else examples * _filled(point.new_examples),
            point.spent,
            point.steps if design.fixed_steps else steps * _filled(point.steps),
            {name: steps * _filled(point.of(name).steps) for name in design.samplings},
        )


@dataclass(eq=False)
class Elastic(Declared):
    """The least sum of relative violations of a program without objective, whose rows are as they were stated."""

    def objective(self, point: Point) -> float:
        """Sum over the rows but level bounds of the largest violation of an entry, over its size."""
        self.compiled.set(point)
        with np.errstate(all="ignore"):
            found = [np.max(self._row(row, point) / row.size) for row in self.compiled.rows if not row.box]
        return float(sum(max(violation, 0.0) for violation in found))


def _filled(values: Array) -> Array:
    return np.maximum(values, 1e-6 * np.max(values, initial=0.0))


def _at(expression: cp.Expression, design: Design, point: Point) -> float:
    design.set(point)
    return float(np.asarray(expression.value, dtype=np.float64).item())


def _by_the_library(row: Row) -> bool:
    return row.bound is not None and all(term.scales_itself for _, term in row.bound.term.leaves())
