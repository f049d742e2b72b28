"""Quadratic forms of inverse powers with nonnegative coefficients: jointly convex, and how they are declared.

f(x) = sum_jk H_jk (x_j x_k)^(-p), H >= 0 entrywise, is convex in x and in log x (docs/theory.md section 3,
G+, and the end of section 6), but it is no sum of squares unless H is also positive semidefinite. Spelling
it out takes one exponential cone for each of the L^2 / 2 pairs. What is declared instead is a convex upper
model that touches f at the reference: with mu >= 0 such that H + diag(mu) is positive semidefinite,

    f(x) = v' (H + diag mu) v - sum_l mu_l x_l^(-2p),   v = x^(-p),

the first part is convex in x, because it rises with every v, and the second is replaced by its tangent.
Solving, moving the reference to the solution and solving again cannot increase f. mu is as small as the
negative eigenvalues of H allow; with H = max(G, 0) of a Gram matrix G it is small and few rounds are needed.
"""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from ..basics.checks import Array

__all__ = ["declared_form", "form_as_written", "form_gradient", "positive_part"]


def positive_part(gram: Array) -> Array:
    """G+ = max(G, 0) entrywise, symmetric."""
    return np.maximum(0.5 * (gram + gram.T), 0.0)


def form_gradient(form: Array, inverse: Array) -> Array:
    """(L,) share of each level, v_l (H v)_l; they sum to f. v = inf only counts where H has an entry."""
    used = np.any(form > 0, axis=1)
    v = np.where(used, inverse, 0.0)
    if np.any(np.isinf(v)):
        return np.where(used, np.inf, 0.0)
    return v * (form @ v)


def declared_form(form: Array, power: float, x: cp.Expression) -> tuple[cp.Expression, list[cp.Constraint]]:
    """Convex upper model of sum_jk H_jk (x_j x_k)^(-p), equal to it with its gradient at x = 1.

    Args:
        form: (L, L) H >= 0, symmetric.
        power: p > 0.
        x: (L,) positive variables, relative to the reference.

    Returns:
        The expression and the constraints of its auxiliary variable v >= x^(-p).
    """
    degree = form.sum(axis=1)
    on = np.flatnonzero(degree > 0)
    size = float(degree.sum())
    if not on.size:
        return cp.Constant(0.0), []
    root, added = _completed(form[np.ix_(on, on)] / size)
    v = cp.Variable(on.size, name="inverse powers")
    relative = x[on]
    inverse = cp.inv_pos(relative) if power == 1 else cp.power(relative, -power)
    tangent = 2 * power * (added @ (relative - 1.0)) - float(added.sum())
    return size * (cp.sum_squares(root @ v) + tangent), [v >= inverse]


def form_as_written(form: Array, power: float, x: cp.Expression) -> cp.Expression:
    """The form itself, one exponential cone for every pair of levels: for comparisons on few levels."""
    rows, columns = np.nonzero(np.triu(form))
    if not rows.size:
        return cp.Constant(0.0)
    weight = np.where(rows == columns, 1.0, 2.0) * form[rows, columns]
    logs = cp.log(x)
    return weight @ cp.exp(-power * (logs[rows] + logs[columns]))


def _completed(form: Array) -> tuple[Array, Array]:
    """(C, mu) with C' C = H + diag(mu), mu = tau x (row sums) and tau the least that makes this semidefinite.

    The scaled matrix has eigenvalues in [-1, 1], so tau <= 1: the separable bound (3.2) is the worst case.
    """
    degree = form.sum(axis=1)
    half = np.sqrt(degree)
    values, vectors = np.linalg.eigh(form / half / half[:, None])
    tau = max(0.0, -float(values[0]))
    lifted = np.maximum(values + tau, 0.0)
    keep = lifted > 1e-14 * lifted[-1]
    root = np.sqrt(lifted[keep])[:, None] * vectors[:, keep].T * half
    return root, tau * degree
