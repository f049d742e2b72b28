"""Balance of conic programs: symmetries of the cones, and programs twelve decades from one."""

import numpy as np
import pytest
from scipy import sparse

from codesign_opt.solvers.conic.balance import balanced
from codesign_opt.solvers.conic.solve import solve_conic
from tests.certificate.test_conic import CONES, inside


@pytest.mark.parametrize("seed", range(4))
def test_scaled_rows_stay_in_their_cones_both_ways(seed):
    """A point of K is moved within K, and so is one of the dual cone: z's >= 0 for both."""
    rng = np.random.default_rng(seed)
    size = len(CONES)
    matrix = sparse.random_array((size, 12), density=0.3, rng=rng) * 1.0
    matrix = sparse.csc_array(sparse.diags_array(10 ** rng.uniform(-6, 6, size)) @ matrix)
    right = 10 ** rng.uniform(-6, 6, size) * rng.integers(0, 2, size)
    balance = balanced(np.ones(12), matrix, right, CONES, np.zeros(12))
    for _ in range(20):
        s, t = inside(CONES, rng), inside(CONES, rng)
        scaled = balance.rows(s)
        parts = [(rows, scaled[rows]) for rows in CONES.second_order_rows]
        assert all(np.all(np.linalg.norm(p[:, 1:], axis=1) <= p[:, 0] * (1 + 1e-6)) for _, p in parts)
        x, y, z = scaled[CONES.exponential_rows].T
        assert np.allclose(y * np.exp(x / y), z, rtol=1e-8)
        for order, span in CONES.semidefinite_rows:
            columns, rows = np.tril_indices(order)
            entries = scaled[span] / np.where(rows == columns, 1.0, np.sqrt(2))
            full = np.zeros((order, order))
            full[rows, columns] = full[columns, rows] = entries
            size = np.sqrt(np.diag(full))
            assert np.linalg.eigvalsh(full / np.outer(size, size)).min() >= -1e-12
        for exponents, rows in CONES.power_rows:
            assert np.allclose(
                np.prod(scaled[rows][:, :-1] ** exponents, axis=1), np.abs(scaled[rows][:, -1]), rtol=1e-9
            )
        assert balance.dual(t) @ s * balance.cost_factor == pytest.approx(t @ scaled, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("decades", [-10, -6, 0, 6, 10])
def test_a_squared_norm_is_solved_in_any_unit(decades):
    """min sum x with sum (U x - U)^2 <= U^2 has x = 1 - 1/sqrt(n), whatever U."""
    import cvxpy as cp

    from codesign_opt.modeling.standard_form import standard_form

    unit, size = 10.0**decades, 5
    x, total = cp.Variable(size), cp.Variable()
    rows = [cp.sum_squares(unit * (x - 1)) <= unit**2, cp.sum(x) <= total]
    form = standard_form(cp.Problem(cp.Minimize(total), rows))
    program = form.program
    found = solve_conic(program.cost, program.matrix, program.right, program.cones)
    assert found.primal[form.columns([x])] == pytest.approx(1 - 1 / np.sqrt(size), rel=1e-8)


@pytest.mark.parametrize("decades", [-10, -4, 0, 4, 10])
def test_the_trace_of_an_inverse_is_solved_in_any_unit(decades):
    """min U tr(sum U x_i e_i e_i')^-1 with sum x <= 1 is n^2 at x = 1/n: blocks of U, 1 and 1/U in one matrix."""
    import cvxpy as cp

    from codesign_opt.modeling.standard_form import standard_form

    unit, size = 10.0**decades, 3
    x, total = cp.Variable(size, nonneg=True), cp.Variable()
    form = standard_form(cp.Problem(cp.Minimize(total), [unit * cp.tr_inv(unit * cp.diag(x)) <= total, cp.sum(x) <= 1]))
    program = form.program
    found = solve_conic(program.cost, program.matrix, program.right, program.cones)
    assert found.primal[form.columns([total])][0] == pytest.approx(size**2, rel=1e-8)
    assert found.primal[form.columns([x])] == pytest.approx(1 / size, rel=1e-4)


def test_entries_lost_beside_the_rest_of_their_row_and_column_leave_the_balance_alone():
    """A narrow kernel falls to 1e-200 between levels far from each other."""
    rng = np.random.default_rng(0)
    dense = np.exp(rng.normal(size=(len(CONES), 12))) * (rng.random((len(CONES), 12)) < 0.4)
    dense = 10 ** rng.uniform(-3, 3, len(CONES))[:, None] * dense * 10 ** rng.uniform(-3, 3, 12)
    right = np.exp(rng.normal(size=len(CONES)))
    lost = np.where((dense == 0) & (np.arange(len(CONES)) < 5)[:, None], 1e-200, 0.0)
    found = [
        balanced(np.ones(12), sparse.csc_array(matrix), right, CONES, np.zeros(12)) for matrix in (dense, dense + lost)
    ]
    assert np.array_equal(found[0].columns, found[1].columns)
    assert np.array_equal(found[0].factors, found[1].factors)


@pytest.mark.parametrize("exponent", [1, 20, 60, 150, 300])
def test_an_exponential_any_number_of_decades_from_the_rest_is_solved(exponent):
    """min 1/x + e^(-a) e^(a x): a x = a - log(a x^2), with e^(-a) of what the other term is where x = 0."""
    import cvxpy as cp
    from scipy.optimize import brentq

    from codesign_opt.modeling.standard_form import standard_form

    x, total = cp.Variable(nonneg=True), cp.Variable()
    weight = float(np.exp(-exponent))
    form = standard_form(cp.Problem(cp.Minimize(total), [cp.inv_pos(x) + weight * cp.exp(exponent * x) <= total]))
    program, chosen = form.program, np.zeros(len(form.program.cost), dtype=bool)
    chosen[form.columns([x])] = True
    near = np.where(chosen, 1.0, 0.0)
    found = solve_conic(program.cost, program.matrix, program.right, program.cones, near=near, chosen=chosen)
    best = brentq(lambda v: np.log(exponent) + exponent * v - exponent + 2 * np.log(v), 1e-12, 1e3, xtol=1e-15)
    assert found.converged
    here = float(found.primal[form.columns([x])][0])
    values = [1 / v + weight * np.exp(exponent * v) for v in (here, best)]
    assert values[0] == pytest.approx(values[1], rel=1e-9)
