"""Derivatives of expressions node by node: cvxpy's own, and finite differences."""

import tracemalloc

import cvxpy as cp
import numpy as np
import pytest
from scipy import sparse

from codesign_opt.modeling.derivatives import gradient

X, Y, Z = cp.Variable(6, nonneg=True, name="x"), cp.Variable(6, name="y"), cp.Variable((2, 3), name="z")
NUMBERS = np.random.default_rng(0).uniform(0.5, 2.0, (4, 6))
MASK = np.array([True, False, True, True, False, True])

EXPRESSIONS = {
    "picked": X[1:4] + 2 * Y[::2],
    "masked": cp.sum(cp.multiply(NUMBERS[0], X)[MASK]) - Y[3],
    "stacked": cp.hstack([X[2:], cp.sum(Y), 1.0, -Y[:2] / 3]),
    "above one another": cp.vstack([X, 2 * Y])[1, 2:5],
    "rows times": NUMBERS @ X - 4.0,
    "times columns": Y @ NUMBERS.T,
    "one number": 3.0 * (NUMBERS[0] @ X) + 2.0 * cp.mean(Y),
    "a number as a matrix": np.full((1, 1), 2.0) @ cp.exp(X[:1]) + Y[0],
    "changes": cp.diff(cp.multiply(NUMBERS[1], X)) / 5.0,
    "sums so far": cp.cumsum(X) + 1.0,
    "of a matrix": cp.sum(cp.multiply(NUMBERS[:2, :3], Z), axis=1),
    "turned": cp.reshape(Z.T, (6,), order="F") + X,
    "in rows": cp.reshape(Z, (6,), order="C") - Y,
    "bent": cp.sum(cp.power(cp.multiply(NUMBERS[2], X), -1.5)) + cp.exp(cp.sum(Y)),
    "bent in places": cp.multiply(NUMBERS[0], cp.inv_pos(X)) + cp.square(Y),
    "bent twice": cp.log_sum_exp(cp.hstack([cp.sum_squares(NUMBERS @ X - Y[:4]), cp.norm(Y, 2)])),
    "largest": cp.sum_largest(cp.multiply(NUMBERS[3], X), 2) + cp.max(Y),
    "entropies": cp.sum(cp.rel_entr(X, 2 * X + 1)),
    "a level and its neighbours": X[1:] - 2 * X[:-1] + cp.multiply(NUMBERS[0, :5], X[1:]),
    "the same level twice": cp.multiply(NUMBERS[0], X) - X / 3 + cp.inv_pos(X) + cp.exp(2 * X),
    "levels beside numbers": cp.hstack([X[:2], np.ones(2), Y[:1], Z[0]]) + 1.0,
    "nothing of it": 0.0 * X + X[::-1],
    "matrix": cp.lambda_max(cp.bmat([[X[0], Y[0]], [Y[0], X[1]]])),
}  # fmt: skip


def set_values(seed):
    rng = np.random.default_rng(seed)
    X.value, Y.value, Z.value = rng.uniform(0.2, 2.0, 6), rng.normal(size=6), rng.normal(size=(2, 3))


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_they_are_those_of_cvxpy_and_of_finite_differences(name):
    expression = EXPRESSIONS[name]
    set_values(len(name))
    found = gradient(expression)
    assert found is not None
    for variable, theirs in expression.grad.items():
        dense = theirs.toarray() if sparse.issparse(theirs) else np.reshape(theirs, (variable.size, -1))
        ours = found[variable.id].toarray()
        np.testing.assert_allclose(ours, dense, rtol=1e-12, atol=1e-12 * np.abs(dense).max())
        before = variable.value.copy()
        direction = np.random.default_rng(1).normal(size=before.shape)
        moved = []
        for shift in (1e-6, -1e-6):
            variable.value = before + shift * direction
            moved.append(np.ravel(np.asarray(expression.value), order="F"))
        variable.value = before
        slope = np.ravel(direction, order="F") @ ours
        np.testing.assert_allclose(slope, (moved[0] - moved[1]) / 2e-6, rtol=1e-6, atol=1e-7)


def test_what_has_no_derivative_there_is_left_to_cvxpy():
    set_values(0)
    X.value = np.zeros(6)
    assert gradient(cp.sum(cp.inv_pos(X))) is None
    assert gradient(cp.sum(cp.log(X))) is None
    assert gradient(cp.sum(cp.Variable(3))) is None  # without a value


def test_of_a_bound_of_every_level_no_matrix_is_made():
    size = 1400
    x = cp.Variable(size, nonneg=True, value=np.linspace(1.0, 2.0, size))
    bound = 3.0 - cp.multiply(np.arange(1.0, size + 1), x)[np.arange(size)[::-1]]
    tracemalloc.start()
    found = gradient(bound)[x.id]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(found.toarray(), -np.diag(np.arange(1.0, size + 1))[:, ::-1])
    assert peak < 1e6 < 8 * size**2
