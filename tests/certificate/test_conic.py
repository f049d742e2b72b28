"""Bounds from the conic dual: membership in every cone, never above a feasible value, right at the optimum."""

import cvxpy as cp
import numpy as np
import pytest
from scipy import sparse

from codesign_opt.basics.cones import Cones
from codesign_opt.certificate.conic import ConicProgram, into_dual

CONES = Cones(2, 3, (2, 3, 3, 5), (2, 3), 4, ((0.3, 0.7), (0.5, 0.5), (0.2, 0.3, 0.5)))


def inside(cones, rng):
    """A random point of the cones, made from their definitions and near their boundaries."""
    s = np.zeros(len(cones))
    s[cones.nonnegative_rows] = rng.exponential(size=cones.nonnegative) * rng.integers(0, 2, cones.nonnegative)
    for rows in cones.second_order_rows:
        s[rows] = rng.normal(size=rows.shape)
        s[rows[:, 0]] = np.linalg.norm(s[rows[:, 1:]], axis=1) * (1 + 1e-9 * rng.random(len(rows)))
    for order, span in cones.semidefinite_rows:
        root = rng.normal(size=(order, int(rng.integers(1, order + 1))))
        matrix = root @ root.T
        columns, rows = np.tril_indices(order)
        s[span] = np.where(rows == columns, 1.0, np.sqrt(2)) * matrix[rows, columns]
    x, y = 3 * rng.normal(size=cones.exponential), 0.1 + rng.exponential(size=cones.exponential)
    s[cones.exponential_rows] = np.stack([x, y, y * np.exp(x / y)], axis=1)
    for exponents, rows in cones.power_rows:
        base = rng.exponential(size=exponents.shape)
        top = np.prod(base**exponents, axis=1, keepdims=True)
        s[rows] = np.concatenate([base, top * rng.choice([-1, 1], size=top.shape)], axis=1)
    return s


@pytest.mark.cases(1)
@pytest.mark.parametrize("decades", [0, 6, 12])
def test_any_numbers_are_moved_to_where_they_meet_every_point_of_the_cone_at_an_acute_angle(decades):
    rng = np.random.default_rng(decades)
    owner = CONES.cone_of_row
    for _ in range(50):
        z = into_dual(rng.normal(size=len(CONES)) * 10 ** rng.uniform(-decades / 2, decades / 2, len(CONES)), CONES)
        for _ in range(5):
            s = inside(CONES, rng)
            product = np.bincount(owner, z * s, len(CONES))[CONES.zero :]
            size = np.bincount(owner, np.abs(z * s), len(CONES))[CONES.zero :]
            assert np.all(product >= -1e-13 * size)
        assert np.allclose(into_dual(z, CONES), z, rtol=1e-12, atol=1e-13 * np.max(np.abs(z)))


def random_program(seed):
    """(program, its optimum by cvxpy): a bounded program with every cone but the semidefinite one."""
    rng = np.random.default_rng(seed)
    x, t = cp.Variable(4), cp.Variable(4)
    a, b = np.exp(rng.normal(size=(2, 4)))
    rows = [cp.exp(x) <= cp.multiply(a, t), cp.norm(x) <= 2.0, cp.sum(cp.power(t, 1.7, approx=False)) <= 90.0, t <= 9.0]
    problem = cp.Problem(cp.Minimize(b @ t - cp.sum(x)), rows)
    data, _, _ = problem.get_problem_data(cp.CLARABEL)
    problem.solve(solver="CLARABEL")
    dims = data["dims"]
    cones = Cones(dims.zero, dims.nonneg, tuple(dims.soc), (), dims.exp, tuple((p, 1 - p) for p in dims.p3d))
    return ConicProgram(data["c"], sparse.csc_array(data["A"]), data["b"], cones), problem, data


@pytest.mark.cases(2)
@pytest.mark.parametrize("seed", range(6))
def test_no_dual_gives_a_bound_above_the_optimum_and_the_solvers_one_gives_the_optimum(seed):
    program, problem, _ = random_program(seed)
    rng, optimum = np.random.default_rng(seed), problem.value
    wide = np.full(len(program.cost), 1e3)
    for _ in range(30):
        z = rng.normal(size=len(program.cones)) * 10 ** rng.uniform(-3, 3)
        free = np.ones(len(program.cost), dtype=bool)
        for each in (z, program.corrected(z, free)):
            assert program.lower_bound(each, -wide, wide) <= optimum + 1e-7
    z = dual_of(program)
    assert program.lower_bound(program.corrected(z, free), -wide, wide) == pytest.approx(optimum, rel=1e-6, abs=1e-6)
    shaken = z * (1 + 1e-6 * rng.normal(size=len(z)))  # the correction restores the equations inside the cone
    mended = program.corrected(shaken, free)
    assert (
        np.abs(program.reduced(mended)).sum() <= 1e-6 * np.abs(program.reduced(into_dual(shaken, program.cones))).sum()
    )
    assert program.lower_bound(mended, -wide, wide) == pytest.approx(optimum, rel=1e-5, abs=1e-5)


def dual_of(program):
    from codesign_opt.solvers.conic.solve import solve_conic

    return solve_conic(program.cost, program.matrix, program.right, program.cones).dual


def test_a_column_without_a_bound_that_the_dual_leaves_open_gives_no_bound():
    program = ConicProgram(np.ones(1), sparse.csc_array([[-1.0]]), np.array([-2.0]), Cones(nonnegative=1))
    assert program.lower_bound(np.array([1.5]), np.zeros(1), np.full(1, np.inf)) == -np.inf
    assert program.lower_bound(np.array([1.0]), np.full(1, -np.inf), np.full(1, np.inf)) == pytest.approx(2.0)
