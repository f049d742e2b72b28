"""Scaling: user rows and user terms brought to order one, and every answer scaled back.

Conic solvers handed raw units return "optimal" far from the optimum; the variables are relative to
a reference, rows are divided by their size there, and a homogeneous user term is declared in units
in which it is of order one (docs/theory.md section 7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
from scipy import sparse

from ..basics.checks import Array, Indices
from ..basics.errors import ConvexityError, EmptySelectionError
from ..modeling.algebra import Bound, Term
from ..modeling.constraints import BoxConstraint, Named
from ..modeling.curvature import blamed, clipped
from ..modeling.design import Design, Point
from ..modeling.differentiable import differentiable_row
from ..modeling.own_variables import own_variables, refuse_whole_numbers, stated_pair
from ..modeling.stated_rows import stated_rows
from .budget import Budget
from .rows import Row, jacobians, row_size

__all__ = ["as_stated", "check_leaf", "rows_of", "scaled_expression"]

_PROBES = (1e-9, 1e-3, 0.5, 2.0, 8.0, 1e3, 1e9)  # wide, so that a constant inside a maximum shows


def scaled_expression(term: Term, design: Design) -> tuple[cp.Expression, list[cp.Constraint], bool]:
    """The term declared in units in which it is of order one, and whether that could be done.

    Built-in terms scale themselves. A user's term is probed: where f(k m, n) = k^p f(m, n) and
    f(m, k n) = k^r f(m, n), it is declared as U^p V^r f(m/U, n/V) with U, V the sizes of the densities.
    """
    if term.scales_itself:
        expression, constraints = term.formulation(design)
        return expression, constraints, True
    degrees = _degrees(term, design)
    if degrees is None:
        expression, constraints = term.formulation(design)
        return expression, constraints, False
    units = [_size(design.reference.examples / design.log_width), _size(design.reference.steps / design.log_width)]
    if not all(degrees):  # one quantity only: its unit is the size of what the nonlinear functions see
        design.set_to_reference()
        units = [_argument_size(stated_pair(term, design)[0], unit) for unit in units]
    units = [unit if degree else 1.0 for unit, degree in zip(units, degrees, strict=True)]
    expression, constraints = term.formulation(design.in_units(*units))
    factor = float(np.prod([unit**degree for unit, degree in zip(units, degrees, strict=True)]))
    return factor * expression, constraints, True


def as_stated(term: Term, scaled: cp.Expression, design: Design) -> cp.Expression:
    """The term as its author wrote it: homogeneity is probed, not known, and no proof may rest on it."""
    return scaled if term.scales_itself else stated_pair(term, design)[0]


def _argument_size(expression: cp.Expression, default: float) -> float:
    """Typical size of the arguments of the nonlinear functions in an expression, at the variables' values."""
    found: list[float] = []
    stack: list[Any] = [expression]
    while stack:
        node = stack.pop()
        arguments = [a for a in getattr(node, "args", []) if not a.is_constant()]
        if arguments and not node.is_affine() and all(a.is_affine() for a in arguments):
            found += [float(np.max(np.abs(a.value))) for a in arguments if a.value is not None]
        stack.extend(arguments)
    found = [size for size in found if size > 0 and np.isfinite(size)]
    return float(np.exp(np.mean(np.log(found)))) if found else default


def _size(density: Array) -> float:
    return float(np.max(density)) if np.any(density > 0) else 1.0


def _degrees(term: Term, design: Design) -> tuple[float, float] | None:
    """Degrees of homogeneity in examples and in steps, or None where the term is not homogeneous."""
    if np.any(design.reference.spent > 0):
        return None  # examples = spent + new is not homogeneous in the new ones
    probe = _Probe(term, design)
    base = probe(1.0, 1.0)
    if base is None or base == 0:
        return None
    degrees = []
    for axis in range(2):
        found = []
        for k in _PROBES:
            value = probe(*((k, 1.0) if axis == 0 else (1.0, k)))
            if value is None or value / base <= 0:
                return None
            found.append(np.log(value / base) / np.log(k))
        if np.ptp(found) > 1e-9 * max(1.0, abs(found[0])):
            return None
        degrees.append(float(np.round(found[0], 9)))
    return degrees[0], degrees[1]


class _Probe:
    """The user's term with all examples and all steps multiplied, evaluated through its own expression."""

    def __init__(self, term: Term, design: Design) -> None:
        self._units = cp.Parameter(pos=True, value=1.0), cp.Parameter(pos=True, value=1.0)
        design.set_to_reference()
        expression, constraints = stated_pair(term, design.in_units(*self._units))
        _refuse_no_scalar(term.name, expression)
        self._expression = None if own_variables([expression, *constraints], design) else expression

    def __call__(self, examples: float, steps: float) -> float | None:
        if self._expression is None:
            return None
        for unit, factor in zip(self._units, (examples, steps), strict=True):
            unit.value = 1 / factor
        with np.errstate(all="ignore"):
            value = self._expression.value
        return None if value is None or not np.isfinite(value) else float(np.asarray(value).item())
