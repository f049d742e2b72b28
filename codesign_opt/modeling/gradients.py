"""Values, slopes and sizes of cvxpy expressions of a design, at the values of its variables."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
from scipy import sparse

from ..basics.checks import Array
from ..basics.errors import ConvexityError
from ..certificate.lagrangian import LagrangianBound
from .derivatives import gradient
from .design import Design, Point

__all__ = ["all_jacobians", "jacobians", "linearise", "row_size", "tangent_into"]


def linearise(expression: cp.Expression, design: Design, weights: Array) -> tuple[float, Array, Array]:
    """weights @ expression and its (sub)gradient at the variables' values, per example and per step."""
    value = float(weights @ np.ravel(np.asarray(expression.value, dtype=np.float64)))
    examples, steps = jacobians(expression, design)
    return value, np.ravel(examples @ weights), np.ravel(steps @ weights)


def tangent_into(
    bound: LagrangianBound, expression: cp.Expression, weights: Array, point: Point, design: Design
) -> None:
    """Add weights @ expression by its tangent at the point: below a convex function, and exact for a linear one.

    Raises:
        ConvexityError: a function without a gradient, or a candidate outside its domain.
    """
    design.set(point)
    value = float(weights @ np.ravel(np.asarray(expression.value, dtype=np.float64)))
    examples, steps, *own = (np.ravel(part @ weights) for part in all_jacobians(expression, design))
    around = bound.origin
    value += float(examples @ (around[0] - point.new_examples)) + float(steps @ (around[1] - point.steps))
    for name, slope in zip(design.samplings, own, strict=True):
        beside = bound.samplings[name]
        beside.add_around(float(slope @ (beside.origin[1] - point.of(name).steps)), np.zeros(len(design)), slope)
    bound.add_around(value, examples, steps)


def jacobians(expression: cp.Expression, design: Design) -> tuple[Any, Any]:
    """(L, N) derivatives of each entry by the examples and by the steps of each level, sparse or dense.

    Raises:
        ConvexityError: a function without a gradient, or a candidate outside its domain.
    """
    first, second, *_ = all_jacobians(expression, design)
    return first, second


def all_jacobians(expression: cp.Expression, design: Design) -> list[Any]:
    """`jacobians`, and (L, N) derivatives by the steps of each of several samplers."""
    found = _gradients(expression)
    result = []
    for variable, unit in (
        (design.new_variable, design.reference.new_examples),
        (design.step_variable, design.reference.steps),
        *((each.step_variable, design.reference.of(name).steps) for name, each in design.samplings.items()),
    ):
        behind = next(iter(variable.variables()), None)
        if behind is None or behind.id not in found:
            result.append(sparse.csr_array((len(design), expression.size)))
            continue
        gradient = found[behind.id]
        if gradient is None:
            raise ConvexityError("its gradient does not exist at the candidate (outside the domain)")
        if behind is not variable:  # a design on the upper levels of another one
            gradient = gradient[-len(design) :]
        result.append(sparse.diags(1 / np.where(unit > 0, unit, 1.0)) @ gradient)
    return result


def _gradients(expression: cp.Expression) -> dict[int, sparse.csr_array | None]:
    """(size of the variable, N) derivatives by the id of each variable; None where one does not exist."""
    try:
        with np.errstate(all="ignore"):  # outside the domain and far from it: what comes out is looked at
            known = gradient(expression)
            if known is not None:
                return dict(known)
            found = expression.grad
    except (NotImplementedError, TypeError):  # TypeError: cvxpy adds the None of an inner function to a matrix
        raise ConvexityError(
            "cvxpy knows no gradient of one of its functions there; state it another way, or keep the design inside "
            "the function's domain"
        ) from None
    # of one variable and one entry cvxpy gives a number
    return {
        variable.id: None
        if gradient is None
        else sparse.csr_array(gradient if sparse.issparse(gradient) else np.reshape(gradient, (variable.size, -1)))
        for variable, gradient in found.items()
    }


def row_size(expression: cp.Expression, minimum: float) -> Array:
    """(N,) sum of the magnitudes of each entry's pieces, |gradient| x + |rest|, at the variables' values."""
    linear = np.zeros(expression.size)
    with np.errstate(all="ignore"):
        rest = np.ravel(np.asarray(expression.value, dtype=np.float64)).copy()
        values = {variable.id: np.ravel(variable.value) for variable in expression.variables()}
        try:
            gradients = _gradients(expression)
        except ConvexityError:  # the value alone says how large it is
            gradients = {}
        for name, gradient in gradients.items():
            if gradient is None:
                continue
            pieces = sparse.diags_array(values[name]) @ gradient
            linear += np.asarray(abs(pieces).sum(axis=0)).ravel()
            rest -= np.asarray(pieces.sum(axis=0)).ravel()
    size = np.maximum(linear + np.abs(np.where(np.isfinite(rest), rest, 0.0)), minimum)
    return np.where((size > 0) & np.isfinite(size), size, 1.0)
