"""Values, slopes and sizes of cvxpy expressions of a design, at the values of its variables."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
from scipy import sparse

from ..basics.checks import Array
from ..basics.errors import ConvexityError
from .design import Design

__all__ = ["jacobians", "linearise", "row_size"]


def linearise(expression: cp.Expression, design: Design, weights: Array) -> tuple[float, Array, Array]:
    """weights @ expression and its (sub)gradient at the variables' values, per example and per step."""
    value = float(weights @ np.ravel(np.asarray(expression.value, dtype=np.float64)))
    examples, steps = jacobians(expression, design)
    return value, np.ravel(examples @ weights), np.ravel(steps @ weights)


def jacobians(expression: cp.Expression, design: Design) -> tuple[Any, Any]:
    """(L, N) derivatives of each entry by the examples and by the steps of each level, sparse or dense.

    Raises:
        ConvexityError: a function without a gradient, or a candidate outside its domain.
    """
    try:
        found = {variable.id: gradient for variable, gradient in expression.grad.items()}
    except NotImplementedError:
        raise ConvexityError("cvxpy knows no gradient of one of its functions; state it another way") from None
    result = []
    for variable, unit in (
        (design.new_variable, design.reference.new_examples),
        (design.step_variable, design.reference.steps),
    ):
        if not isinstance(variable, cp.Variable) or variable.id not in found:
            result.append(np.zeros((len(design), expression.size)))
            continue
        if found[variable.id] is None:
            raise ConvexityError("its gradient does not exist at the candidate (outside the domain)")
        result.append(sparse.diags(1 / np.where(unit > 0, unit, 1.0)) @ sparse.csr_array(found[variable.id]))
    return result[0], result[1]


def row_size(expression: cp.Expression, minimum: float) -> Array:
    """(N,) sum of the magnitudes of each entry's pieces, |gradient| x + |rest|, at the variables' values."""
    linear = np.zeros(expression.size)
    rest = np.ravel(np.asarray(expression.value, dtype=np.float64)).copy()
    for variable, gradient in expression.grad.items():
        if gradient is None:
            continue
        columns = gradient.toarray() if hasattr(gradient, "toarray") else np.asarray(gradient)
        pieces = columns.reshape(variable.size, -1) * np.ravel(variable.value)[:, None]
        linear += np.abs(pieces).sum(axis=0)
        rest -= pieces.sum(axis=0)
    size = np.maximum(linear + np.abs(np.where(np.isfinite(rest), rest, 0.0)), minimum)
    return np.where((size > 0) & np.isfinite(size), size, 1.0)
