"""Derivatives of cvxpy expressions by their variables, node by node (docs/theory.md section 8).

cvxpy's own `grad` builds a matrix for every atom of an expression, most of which pick, repeat or add entries: a third
of the time of a declared program. Here those are moved as rows of one dense matrix, and cvxpy is asked for the
derivatives of the functions that bend alone, each by variables of its own. Where every entry depends on one entry of
the variable, as a bound of every level does, no matrix is made at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cvxpy as cp
import numpy as np
from scipy import sparse

from ..basics.checks import Array, Indices

__all__ = ["gradient"]


@dataclass(frozen=True, eq=False)
class _Single:
    """(N, width) slopes with one entry in each row at most: values (N,) in the columns `at`."""

    at: Indices
    values: Array
    width: int

    def matrix(self) -> sparse.csr_array:
        rows = np.arange(len(self.at))
        return sparse.csr_array((self.values, (rows, self.at)), shape=(len(rows), self.width))

    def dense(self) -> Array:
        found = np.zeros((len(self.at), self.width))
        found[np.arange(len(self.at)), self.at] = self.values
        return found


Slopes = dict[int, Array | _Single]
"""(entries, size of the variable) by the id of each variable; entries of a matrix column by column, as in cvxpy."""

_MOST = 2_000_000  # entries of a dense matrix; beyond, cvxpy's sparse ones are smaller


class _Unknown(Exception):
    """A derivative that does not exist there."""


def gradient(expression: cp.Expression) -> dict[int, sparse.csr_array] | None:
    """(size of the variable, N) derivatives by the id of each variable; None where cvxpy has to be asked for them.

    At the variables' values. The same as `expression.grad`, for real expressions whose derivatives exist.
    """
    if any(variable.value is None for variable in expression.variables()):
        return None
    if expression.size * max((variable.size for variable in expression.variables()), default=0) > _MOST:
        return None
    try:
        found = _slopes(expression)
    except _Unknown:
        return None
    return {name: _transposed(slope) for name, slope in found.items()}


def _transposed(slope: Array | _Single) -> sparse.csr_array:
    if not isinstance(slope, _Single):
        return sparse.csr_array(slope.T)
    found = sparse.csr_array(slope.matrix().T)
    found.eliminate_zeros()
    return found


def _dense(slope: Array | _Single) -> Array:
    return slope.dense() if isinstance(slope, _Single) else slope


@cache  # not before the first node: loading this file must not ask anything of cvxpy, which may be put off
def _picking() -> tuple[type, ...]:
    """The kinds of nodes whose entries are picked, repeated or put elsewhere."""
    affine = cp.atoms.affine
    return (
        affine.index.index,
        affine.index.special_index,
        affine.reshape.reshape,
        affine.promote.Promote,
        affine.hstack.Hstack,
        affine.vstack.Vstack,
        affine.transpose.transpose,
    )


def _slopes(node: Any) -> Slopes:
    affine = cp.atoms.affine
    if node.is_constant():
        return {}
    if isinstance(node, cp.Variable):
        if node.attributes["diag"] or node.is_complex():
            raise _Unknown
        return {node.id: _Single(np.arange(node.size), np.ones(node.size), node.size)}
    if isinstance(node, _picking()):
        return _picked(node)
    if isinstance(node, affine.add_expr.AddExpression) and all(arg.shape == node.shape for arg in node.args):
        return _summed([_slopes(arg) for arg in node.args])
    if isinstance(node, affine.unary_operators.NegExpression):
        return _times(_slopes(node.args[0]), -1.0)
    if isinstance(node, affine.sum.Sum) and node.size == 1:
        return {name: _total(slope) for name, slope in _slopes(node.args[0]).items()}
    factor = _factor(node)
    if factor is not None:
        varying, number = factor
        return _times(_slopes(varying), number)
    if isinstance(node, affine.binary_operators.MulExpression) and all(arg.ndim <= 2 for arg in node.args):
        product = _product(node)
        if product is not None:
            return product
    return _bent(node)


def _picked(node: Any) -> Slopes:
    """Entries that are picked, repeated or put elsewhere: the node says which by what it makes of their numbers."""
    numbers, first = [], 0
    for arg in node.args:
        numbers.append(np.reshape(np.arange(first, first + arg.size, dtype=np.float64), arg.shape, order="F"))
        first += arg.size
    rows = np.ravel(np.asarray(node.numeric(numbers)), order="F").astype(np.intp)
    parts = [_slopes(arg) for arg in node.args]
    return {name: _put([part.get(name) for part in parts], node.args, rows) for name in {n for p in parts for n in p}}


def _put(parts: list[Array | _Single | None], args: list[Any], rows: Indices) -> Array | _Single:
    """Rows of the parts' slopes, one after the other, by one variable; None where a part does not depend on it."""
    width = next(part.width if isinstance(part, _Single) else part.shape[1] for part in parts if part is not None)
    if all(part is None or isinstance(part, _Single) for part in parts):
        empty = (_Single(np.zeros(arg.size, dtype=np.intp), np.zeros(arg.size), width) for arg in args)
        single = [part if isinstance(part, _Single) else none for part, none in zip(parts, empty, strict=True)]
        at, values = (np.concatenate([getattr(part, name) for part in single]) for name in ("at", "values"))
        return _Single(at[rows], values[rows], width)
    whole = [
        np.zeros((arg.size, width)) if part is None else _dense(part) for arg, part in zip(args, parts, strict=True)
    ]
    return np.asarray((whole[0] if len(whole) == 1 else np.concatenate(whole))[rows])


def _total(slope: Array | _Single) -> Array:
    """(1, width) sum of the rows."""
    if isinstance(slope, _Single):
        return np.asarray(np.bincount(slope.at, slope.values, minlength=slope.width)[None, :], dtype=np.float64)
    return np.asarray(slope.sum(axis=0, keepdims=True))


def _factor(node: Any) -> tuple[Any, Array] | None:
    """The varying side and the numbers that its entries are multiplied with, where there are such."""
    affine = cp.atoms.affine
    if isinstance(node, affine.binary_operators.DivExpression):
        varying, constant = node.args
        if constant.is_constant() and varying.shape == node.shape:
            return varying, _entries(1.0 / np.asarray(_value(constant)), node)
    elif isinstance(node, affine.binary_operators.multiply):
        varying, constant = node.args if node.args[1].is_constant() else node.args[::-1]
        if constant.is_constant() and varying.shape == node.shape:
            return varying, _entries(_value(constant), node)
    elif isinstance(node, affine.binary_operators.MulExpression):  # a number times an expression
        varying, constant = node.args if node.args[1].is_constant() else node.args[::-1]
        if constant.is_constant() and constant.size == 1 and varying.shape == node.shape:
            return varying, _entries(_value(constant), node)
    return None


def _product(node: Any) -> Slopes | None:
    """A matrix or vector of numbers times a vector, or the other way round."""
    left, right = node.args
    if left.is_constant() and right.ndim == 1 and left.ndim >= 1:
        matrix = np.atleast_2d(_value(left))
        varying = right
    elif right.is_constant() and left.ndim == 1 and right.ndim >= 1:
        matrix = np.atleast_2d(np.asarray(_value(right)).T)
        varying = left
    else:
        return None
    return {name: _mixed(matrix, slope) for name, slope in _slopes(varying).items()}


def _mixed(matrix: Array, slope: Array | _Single) -> Array:
    """matrix @ slope."""
    return np.asarray(matrix @ (slope.matrix() if isinstance(slope, _Single) else slope))


def _bent(node: Any) -> Slopes:
    """Any other function, through its derivatives by arguments that are variables of their own."""
    arguments = [arg if arg.is_constant() else cp.Variable(arg.shape, value=_value(arg)) for arg in node.args]
    alone = node.copy(arguments)
    by_argument = {variable.id: found for variable, found in alone.grad.items()}
    parts = []
    for arg, argument in zip(node.args, arguments, strict=True):
        if argument is arg:
            continue
        found = by_argument.get(argument.id)
        if found is None:
            raise _Unknown
        outer = found if sparse.issparse(found) else np.reshape(np.asarray(found, dtype=np.float64), (arg.size, -1))
        parts.append({name: _chained(outer, slope) for name, slope in _slopes(arg).items()})
    return _summed(parts)


def _chained(outer: Any, slope: Array | _Single) -> Array | _Single:
    """outer.T @ slope, entry by entry where the function is taken of every entry alone."""
    if not isinstance(slope, _Single):
        return np.asarray(outer.T @ slope)
    if sparse.issparse(outer) and outer.shape[0] == outer.shape[1]:
        i, j = sparse.coo_array(outer).coords
        if np.array_equal(i, j):
            return _Single(slope.at, slope.values * np.asarray(outer.diagonal()), slope.width)
    found = outer.T @ slope.matrix()
    return np.asarray(found.toarray() if sparse.issparse(found) else found)


def _summed(parts: list[Slopes]) -> Slopes:
    total: Slopes = {}
    for part in parts:
        for name, slope in part.items():
            total[name] = _added(total[name], slope) if name in total else slope
    return total


def _added(one: Array | _Single, other: Array | _Single) -> Array | _Single:
    if isinstance(one, _Single) and isinstance(other, _Single):
        if np.array_equal(one.at, other.at):
            return _Single(one.at, one.values + other.values, one.width)
        for some, rest in ((one, other), (other, one)):
            if not some.values.any():
                return rest
    return _dense(one) + _dense(other)


def _times(slopes: Slopes, factor: float | Array) -> Slopes:
    return {
        name: _Single(slope.at, factor * slope.values, slope.width)
        if isinstance(slope, _Single)
        else np.asarray(factor if np.ndim(factor) == 0 else np.asarray(factor)[:, None]) * slope
        for name, slope in slopes.items()
    }


def _value(expression: Any) -> Array:
    value = expression.value
    if value is None:
        raise _Unknown
    return np.asarray(value.toarray() if sparse.issparse(value) else value, dtype=np.float64)


def _entries(numbers: Array, node: Any) -> Array:
    if np.size(numbers) == 1:  # cvxpy keeps a number as (1, 1), too
        return np.full(node.size, float(np.reshape(numbers, ())))
    return np.ravel(np.broadcast_to(numbers, node.shape), order="F")
