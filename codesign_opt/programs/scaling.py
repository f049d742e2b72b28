"""Scaling: user rows and user terms brought to order one, and every answer scaled back.

Conic solvers handed raw units return "optimal" far from the optimum; the variables are relative to
a reference, rows are divided by their size there, and a homogeneous user term is declared in units
in which it is of order one (docs/theory.md section 7).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cvxpy as cp
import numpy as np
from scipy import sparse

from ..basics.checks import Array, Indices, shown
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
_ROUNDING = 1e-13  # of what a number is computed from: sums over hundreds of levels
_LARGEST = 1e30  # a row of numbers that overflow holds, or is broken, by no less


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


def rows_of(item: Named, design: Design, budget: Budget | None = None) -> list[Row]:
    """The scaled rows of one named constraint; design's variables are set to their reference."""
    design.set_to_reference()
    what = item.what
    if isinstance(what, Bound):
        return [_bound_row(item.name, what, design, budget)]
    box = what if isinstance(what, BoxConstraint) and what.level_bounds(design) is not None else None
    produced = stated_rows(item, design)
    with np.errstate(all="ignore"):  # what is given may be the argument of an exponential
        rows = [_row(item.name, differentiable_row(constraint), design, box is not None) for constraint in produced]
        if not all(row.expression.variables() for row in rows):
            rows = _without_rounding(rows, item, design)
    if box is not None:
        for row in rows:
            row.levels = _level_of_entries(row, design)
    return rows


def _without_rounding(rows: list[Row], item: Named, design: Design) -> list[Row]:
    """Rows of given quantities alone, numbers, are held up to the rounding of what they were computed from.

    How much that is their value does not tell: it is told by the same rows of quantities that are still variables.
    """
    size, at = len(design), design.reference
    whole_amounts = replace(at, new_examples=at.examples, spent=np.zeros(size))  # spent ones round like the new
    free = replace(
        design,
        reference=whole_amounts,
        new_variable=cp.Variable(size, nonneg=True),
        step_variable=cp.Variable(size, nonneg=True),
    )
    free.set_to_reference()
    found = []
    for row, constraint in zip(rows, stated_rows(item, free), strict=True):
        if not row.expression.variables():
            whole, *_ = _standard_form(item.name, differentiable_row(constraint))
            made_of = row_size(cp.reshape(whole, (whole.size,), order="C"), 0.0)
            value = np.ravel(np.asarray(row.expression.value, dtype=np.float64))
            rounded = np.isfinite(value) & (np.abs(value) <= _ROUNDING * made_of)
            flat = cp.Constant(np.where(rounded, 0.0, np.clip(value, -_LARGEST, _LARGEST)))
            scaled = cp.multiply(1 / row.size, flat)
            row = replace(row, expression=flat, constraint=scaled == 0 if row.equality else scaled <= 0)
        found.append(row)
    return found


def _level_of_entries(row: Row, design: Design) -> Indices:
    """(N,) the level that each entry of a level bound is about."""
    examples, steps = jacobians(row.expression, design)
    touched = sparse.csc_array(abs(sparse.csr_array(examples)) + abs(sparse.csr_array(steps)))
    if np.all(np.diff(touched.indptr) == 1):
        return np.asarray(touched.indices, dtype=np.intp)
    return np.asarray(touched.toarray().argmax(axis=0), dtype=np.intp)


def _bound_row(name: str, bound: Bound, design: Design, budget: Budget | None) -> Row:
    leaves = list(bound.term.leaves())
    formed = [_bounded(leaf, design) for _, leaf in leaves]
    for (_, leaf), (scaled, _, _) in zip(leaves, formed, strict=True):
        check_leaf(leaf.name, scaled, design)
    pieces = [w * scaled for (w, _), (scaled, _, _) in zip(leaves, formed, strict=True)]
    own = tuple(tuple(constraints) for _, _, constraints in formed)
    if any(constraints and _values_itself(leaf) for (_, leaf), constraints in zip(leaves, own, strict=True)):
        return _auxiliary_row(name, bound, design, sum(pieces) - bound.limit, own)
    auxiliary = [constraint for constraints in own for constraint in constraints]
    stated = sum((w * s for (w, _), (_, s, _) in zip(leaves, formed, strict=True)), start=cp.Constant(-bound.limit))
    _start(own_variables([*pieces, *auxiliary], design))
    expression, least = sum(pieces, start=cp.Constant(-bound.limit)), abs(bound.limit)
    if budget is not None and not design.samplings and expression.variables():
        expression, least = _beside_the_given(budget, design)
        stated = expression
    size = row_size(cp.reshape(expression, (1,), order="C"), least)
    built = expression / size[0] <= 0
    return Row(
        name,
        expression,
        size,
        built,
        limit=bound.limit,
        bound=bound,
        exact=stated,
        budget=budget,
        auxiliary=tuple(auxiliary),
    )


def _values_itself(leaf: Term) -> bool:
    """Whether a term says what it is at a point without its auxiliary variables being solved for."""
    return leaf.scales_itself or type(leaf).value is not Term.value


def _beside_the_given(budget: Budget, design: Design) -> tuple[cp.Expression, float]:
    """A budget as what is decided costs, less what the rest leaves: rounded once, and the size of the row.

    Beside a sampler that is given and costs a limit but for one part in 1e12, a row of the size of the limit has four
    digits of what examples cost.
    """
    unit, given = design.reference, {}
    varying: cp.Expression = cp.Constant(0.0)
    for name, fixed, price, amount, variable in (
        ("new_examples", design.fixed_examples, budget.example, unit.new_examples, design.new_variable),
        ("steps", design.fixed_steps, budget.step, unit.steps, design.step_variable),
    ):
        if fixed:
            given[name] = amount
        elif price.any():
            varying = varying + (price * amount) @ variable
    left = budget.left(**given)
    return varying - left, abs(left)


def _auxiliary_row(
    name: str, bound: Bound, design: Design, expression: cp.Expression, own: tuple[tuple[cp.Constraint, ...], ...]
) -> Row:
    """A bound on terms with auxiliary variables: its value at a point is that of the terms, not of the variables."""
    size = sum(w * abs(leaf.value(design, design.reference)) for w, leaf in bound.term.leaves()) + abs(bound.limit)
    size = size if np.isfinite(size) and size > 0 else 1.0

    def at(point: Point) -> float:
        return bound.term.value(design, point) - bound.limit

    auxiliary = tuple(constraint for constraints in own for constraint in constraints)
    built = expression / size <= 0
    return Row(
        name, expression, np.array([size]), built, limit=bound.limit, bound=bound, own=own, at=at, auxiliary=auxiliary
    )


def _bounded(leaf: Term, design: Design) -> tuple[cp.Expression, cp.Expression, list[cp.Constraint]]:
    """A term inside a bound: scaled, as its author wrote it, and constraints on auxiliary variables.

    The library's own terms are said without auxiliary variables where they can be.
    """
    expression, auxiliary, _ = scaled_expression(leaf, design)
    if not leaf.scales_itself and own_variables([expression, *auxiliary], design):
        return expression, expression, auxiliary
    if not auxiliary:
        return expression, as_stated(leaf, expression, design), []
    if leaf.bounded_by_duals:
        return expression, expression, auxiliary
    try:
        whole = leaf.expression(design)
        return whole, whole, []
    except TypeError:
        return expression, expression, auxiliary


def _row(name: str, constraint: Any, design: Design, is_box: bool) -> Row:
    if isinstance(constraint, (bool, np.bool_)):
        raise TypeError(
            f"'{name}' returned {constraint}, not a cvxpy constraint: a comparison of numbers was evaluated. "
            "Use design.examples, design.density, design.steps or design.step_sizes in it."
        )
    expression, equality, sign, limit = _standard_form(name, constraint)
    uniform = expression.size > 1 and any(number.size == 1 for side in constraint.args for number in _numbers(side))
    _refuse_empty(name, expression)
    own = own_variables([expression], design)
    refuse_whole_numbers(f"'{name}'", own)
    _start(own)
    if not constraint.is_dcp():
        raise ConvexityError(
            f"'{clipped(name)}' is not convex in (examples, steps): {blamed(expression)}. State a lower bound on a "
            "convex quantity, a ratio or a product as a linear row; see docs/theory.md section 7.6."
        )
    flat = cp.reshape(expression, (expression.size,), order="C")
    size = row_size(flat, 0.0)
    scaled = cp.multiply(1 / size, flat)
    built = scaled == 0 if equality else scaled <= 0
    limits = _limits(constraint, expression)
    return Row(name, flat, size, built, equality, sign, limit, box=is_box, uniform=uniform, limits=limits)


def _limits(constraint: cp.Constraint, expression: cp.Expression) -> Array:
    """(N,) size of the number that each entry is compared with; 0 where both sides depend on the design."""
    compared = (cp.constraints.Inequality, cp.constraints.Equality, cp.constraints.SOC)
    sides = constraint.args if isinstance(constraint, compared) else []
    stated: Any = next((side.value for side in sides if side.is_constant()), 0.0)
    numbers = np.asarray(stated.toarray() if sparse.issparse(stated) else stated, dtype=np.float64)
    numbers = np.where(np.isfinite(numbers), numbers, 0.0)
    if numbers.size > expression.size:  # a cone whose points are numbers and whose head is not
        return np.zeros(expression.size)
    return np.abs(np.ravel(np.broadcast_to(numbers, expression.shape)))


def _start(own: list[cp.Variable]) -> None:
    """Some value for variables that have none: sizes of rows are taken at it."""
    for variable in own:
        if variable.value is None:
            variable.value = variable.project(np.zeros(variable.shape))


def _standard_form(name: str, constraint: cp.Constraint) -> tuple[cp.Expression, bool, float, float | None]:
    """Expression that must be <= 0 (== 0), whether it is an equality, sign of the price, right-hand side."""
    if isinstance(constraint, cp.constraints.Inequality):
        left, right = constraint.args
        if right.is_constant():
            return left - right, False, -1.0, _scalar(right)
        if left.is_constant():
            return left - right, False, 1.0, _scalar(left)
        return left - right, False, _side_of_the_number(left, right), None
    if isinstance(constraint, (cp.constraints.Equality, cp.constraints.Zero)):
        left, right = constraint.args if len(constraint.args) == 2 else (constraint.args[0], cp.Constant(0.0))
        limit = next((_scalar(side) for side in (right, left) if side.is_constant()), None)
        return left - right, True, _side_of_the_number(left, right), limit
    if isinstance(constraint, cp.constraints.SOC):
        t, x = constraint.args
        return cp.norm(x, 2, axis=constraint.axis) - t, False, -1.0, None
    if isinstance(constraint, (cp.constraints.NonPos, cp.constraints.NonNeg)):
        flip = 1.0 if isinstance(constraint, cp.constraints.NonPos) else -1.0
        return flip * constraint.args[0], False, -1.0, None
    if isinstance(constraint, cp.constraints.PSD):
        return cp.lambda_max(-0.5 * (constraint.args[0] + constraint.args[0].T)), False, -1.0, None
    if isinstance(constraint, cp.constraints.ExpCone):
        x, y, z = constraint.args
        return cp.rel_entr(y, z) + x, False, -1.0, None
    if isinstance(constraint, cp.constraints.PowCone3D):
        return _power_cone(constraint), False, -1.0, None
    raise TypeError(
        f"'{name}' gives a {type(constraint).__name__} constraint; use <=, >=, ==, >> or a second-order, exponential "
        "or three-dimensional power cone, which the certificate can check."
    )


def _power_cone(constraint: cp.constraints.PowCone3D) -> cp.Expression:
    """|z| - x^a y^(1 - a) of every entry."""
    x, y, z = (cp.reshape(part, (part.size,), order="C") for part in constraint.args)
    exponents = np.broadcast_to(np.asarray(constraint.alpha.value, dtype=np.float64).ravel(), (x.size,))
    means = [cp.geo_mean(cp.hstack([x[i], y[i]]), [a, 1 - a], approx=False) for i, a in enumerate(exponents)]
    return cp.abs(z) - cp.hstack(means)


def _side_of_the_number(left: cp.Expression, right: cp.Expression) -> float:
    """+1 where the row's constant stands on the left of left <= right, where raising it tightens; else -1.

    cvxpy turns a >= b + 5 into b + 5 <= a: the 5 is on the left, and still what the user wrote on the right.
    """
    return 1.0 if _numbers(left) and not _numbers(right) else -1.0


def _numbers(side: cp.Expression) -> list[cp.Expression]:
    """The constants other than 0 that are a side, or summands of it, as they were before they were made a vector."""
    if side.is_constant():
        return [side]
    summands = side.args if isinstance(side, cp.atoms.affine.add_expr.AddExpression) else [side]
    found = [part for part in summands if part.is_constant() and np.any(part.value)]
    return [part.args[0] if isinstance(part, cp.atoms.affine.promote.Promote) else part for part in found]


def _scalar(expression: cp.Expression) -> float | None:
    return float(np.asarray(expression.value).item()) if expression.size == 1 else None


def check_leaf(name: str, expression: cp.Expression, design: Design) -> None:
    """Refuse a term that is not a scalar convex function of this design, by name."""
    _refuse_no_scalar(name, expression)
    _refuse_empty(name, expression)
    refuse_whole_numbers(name, own_variables([expression], design))
    if not (expression.is_dcp() and expression.is_convex()):
        raise ConvexityError(
            f"{clipped(name)} is not convex in (density, steps): {blamed(expression)}. A concave price, a "
            "ratio or a total variation of logarithms is not convex; state it on densities or as a linear bound."
        )


def _refuse_no_scalar(name: str, expression: Any) -> None:
    if not isinstance(expression, cp.Expression):
        raise TypeError(f"{name}.expression returned {shown(expression)}; a cvxpy expression is needed.")
    if not expression.is_real():
        raise TypeError(f"{name}.expression is complex; a real number is needed, such as cp.real(...) of it.")
    if expression.size != 1:
        raise ConvexityError(f"{name} has shape {expression.shape}; a term is one number (sum over the levels).")


def _refuse_empty(name: str, expression: Any) -> None:
    """Refuse an empty mask, and a number that is none, anywhere in the expression."""
    stack: list[Any] = [expression]
    walk: Callable[[Any], Any] = lambda e: getattr(e, "args", [])  # noqa: E731
    while stack:
        current = stack.pop()
        if getattr(current, "size", 1) == 0:
            raise EmptySelectionError(f"{name} selects no level (an empty mask); widen the range of sigma.")
        if isinstance(current, cp.Constant):
            _refuse_not_finite(name, current.value)
        stack.extend(walk(current))


def _refuse_not_finite(name: str, value: Any) -> None:
    numbers = np.asarray(value.data if sparse.issparse(value) else value)
    wrong = numbers[~np.isfinite(numbers)]
    if wrong.size:
        raise ValueError(
            f"{name} holds {wrong.flat[0]} among its numbers; each must be finite. Where there is no limit, leave the "
            "entry out."
        )
