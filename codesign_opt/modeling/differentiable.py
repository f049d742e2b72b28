"""Expressions said by functions that cvxpy differentiates and translates: the same values, other atoms."""

from __future__ import annotations

from typing import Any, TypeVar

import cvxpy as cp

__all__ = ["differentiable", "differentiable_row", "has_kinks"]

_Row = TypeVar("_Row", bound="cp.Constraint")


def differentiable(expression: Any) -> cp.Expression:
    """The expression with norm_inf as max of |x|, of which cvxpy knows a gradient, and sum_largest of all as the sum.

    cvxpy raises NotImplementedError for the first and ValueError in its translation of the second. A power whose
    exponent it would replace by a fraction, off by up to 2e-6, is said by power cones, which hold the exponent itself:
    no bound on another function is one on what was stated. What holds none of these is returned as it is.

    >>> import cvxpy as cp
    >>> x = cp.Variable(3, name="x")
    >>> print(differentiable(2 * cp.norm_inf(x) + cp.sum_largest(x, 3)))
    2.0 * max(abs(x), None, False) + Sum(x, None, False)
    """
    node: Any = expression
    arguments = list(node.args)
    if not arguments:
        return expression
    said = [differentiable(part) for part in arguments]
    if type(expression) is cp.norm_inf:
        axis, *keep = node.get_data() or [None]
        return cp.max(cp.abs(said[0]), axis=axis, keepdims=bool(keep and keep[0]))
    if type(expression) is cp.sum_largest:
        number, *rest = node.get_data()
        if number >= said[0].size and not any(part is not None and part is not False for part in rest):
            return cp.sum(said[0])
    power: Any = getattr(cp, "Power", ())  # cvxpy before 1.9 has no power cones for it
    if isinstance(node, power) and getattr(node, "approx_error", 0.0) > 0:
        return cp.power(said[0], float(node.p.value), approx=False)
    if all(new is old for new, old in zip(said, arguments, strict=True)):
        return expression
    copied: cp.Expression = node.copy(said)
    return copied


def differentiable_row(constraint: _Row) -> _Row:
    """The same of both sides of an inequality or equation; other cones as they are."""
    if not isinstance(constraint, (cp.constraints.Inequality, cp.constraints.Equality)):
        return constraint
    said = [differentiable(side) for side in constraint.args]
    return constraint if all(a is b for a, b in zip(said, constraint.args, strict=True)) else constraint.copy(said)


def has_kinks(expression: cp.Expression) -> bool:
    """Whether a function in it has several gradients somewhere, where one tangent proves little.

    >>> x = cp.Variable(3)
    >>> has_kinks(cp.sum(cp.exp(x))), has_kinks(cp.sum(cp.exp(cp.pos(x))))
    (False, True)
    """
    node: Any = expression
    kinked = (cp.abs, cp.max, cp.maximum, cp.norm1, cp.norm_inf, cp.sum_largest, cp.lambda_max, cp.Pnorm)
    if isinstance(node, kinked) and not node.is_constant():
        return True
    return any(has_kinks(part) for part in node.args)
