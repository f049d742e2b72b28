"""Bounds that rows imply, against the least and largest values that cvxpy finds over the same rows."""

import cvxpy as cp
import numpy as np
import pytest
from scipy import sparse

from codesign_opt.basics.cones import Cones
from codesign_opt.certificate.conic import ConicProgram
from codesign_opt.certificate.intervals import implied_bounds


def program(seed):
    """Rows of every kind over a few variables, as cvxpy writes them down."""
    rng = np.random.default_rng(seed)
    x, t = cp.Variable(3), cp.Variable(3)
    a = np.exp(rng.normal(size=(3, 3)))
    rows = [
        x >= -1, a[0] @ x <= 4, cp.abs(x) <= t, cp.sum(t) <= 6, cp.norm(x - 1) <= a[1, 0] + 2,
        cp.exp(x[0]) <= 3 + t[1], cp.power(x[1] + 2, 1.7, approx=False) <= 9,
        cp.bmat([[t[0], x[2]], [x[2], 1 + t[1]]]) >> 0, cp.log(2 + x[2]) >= -1.0, t[2] == 0.5 + a[2, 1] * t[1],
    ]  # fmt: skip
    problem = cp.Problem(cp.Minimize(cp.sum(t)), rows)
    data, _, _ = problem.get_problem_data(cp.CLARABEL)
    dims = data["dims"]
    cones = Cones(
        dims.zero, dims.nonneg, tuple(dims.soc), tuple(dims.psd), dims.exp, tuple((p, 1 - p) for p in dims.p3d)
    )
    start = data["param_prob"].var_id_to_col
    return (
        ConicProgram(data["c"], sparse.csc_array(data["A"]), data["b"], cones),
        rows,
        (x, start[x.id]),
        (t, start[t.id]),
    )


@pytest.mark.cases(1)
@pytest.mark.parametrize("seed", range(3))
def test_no_feasible_value_lies_outside_and_every_column_is_bounded(seed):
    found, rows, *variables = program(seed)
    count = len(found.cost)
    low, high = implied_bounds(found, np.full(count, -np.inf), np.full(count, np.inf))
    for variable, first in variables:
        for i in range(variable.size):
            least = cp.Problem(cp.Minimize(variable[i]), rows).solve(solver="CLARABEL")
            most = cp.Problem(cp.Maximize(variable[i]), rows).solve(solver="CLARABEL")
            assert low[first + i] <= least + 1e-6
            assert high[first + i] >= most - 1e-6
            assert high[first + i] <= 30
            assert low[first + i] >= -30


def test_what_no_row_bounds_stays_open():
    rows = sparse.csc_array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])  # x + y <= 1, z <= 2
    found = ConicProgram(np.ones(3), rows, np.array([1.0, 2.0]), Cones(nonnegative=2))
    low, high = implied_bounds(found, np.full(3, -np.inf), np.full(3, np.inf))
    assert np.all(low == -np.inf)
    assert high[:2].tolist() == [np.inf, np.inf]
    assert high[2] == pytest.approx(2)
    assert high[2] >= 2
