"""P4: examples for shared parameters against conic solvers, scipy, grids, closed forms and KKT conditions."""

from __future__ import annotations

import os

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import minimize

import codesign_opt as co
from codesign_opt.basics.errors import InfeasibleError
from codesign_opt.solvers.information.knapsack import capped_shares, knapsack
from codesign_opt.solvers.information.master import Block, Master
from codesign_opt.solvers.information.shares import solve_information
from tests.helpers.information import smooth_features

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"


def random_problem(seed, *, levels=None, decades=0.0, bounds=True):
    """Roots, response in their range, prices, budget and options of every kind."""
    rng = np.random.default_rng(seed)
    count = levels or int(rng.choice([2, 5, 12, 40]))
    size, k, r = (int(rng.choice(options)) for options in ([1, 3, 8], [1, 2, 3], [1, 2, 12]))
    roots = rng.standard_normal((count, k, size)) * 10 ** rng.uniform(-decades / 2, decades / 2, (count, 1, 1))
    if seed % 3 == 0:
        roots = smooth_features(size, count, k, seed)
    if seed % 5 == 0:
        roots[count // 2 :] = roots[: count - count // 2]  # equal levels
    response = np.einsum("lkp,lkr->pr", roots, rng.standard_normal((count, k, r)))
    prices, budget = np.exp(rng.standard_normal(count)), float(10 ** rng.uniform(-3, 3))
    share = budget / prices / count
    options = {}
    if rng.random() < 0.4:
        half = rng.standard_normal((size, int(rng.integers(1, size + 1))))
        options["prior"] = budget * 10 ** rng.uniform(-2, 1) * half @ half.T
    if bounds and rng.random() < 0.4:
        options["spent"] = share * rng.uniform(0, 1, count)
    if bounds and rng.random() < 0.4:
        options["low"] = share * rng.uniform(0, 0.9, count) * (rng.random(count) < 0.5)
    if bounds and rng.random() < 0.5:
        options["high"] = options.get("low", 0) + share * 10 ** rng.uniform(-0.5, 1.5, count)
    return roots, response, prices, budget, options


def error(roots, response, total, prior=None):
    information = np.einsum("l,lkp,lkq->pq", total, roots, roots) + (0 if prior is None else prior)
    return float(np.sum(response * (np.linalg.pinv(information, rcond=1e-13, hermitian=True) @ response)))


def conic(roots, response, prices, budget, options):
    """The semidefinite form (matrix_frac), in shares, by Clarabel."""
    count = prices.size
    unit = budget / prices / count
    u = cp.Variable(count, nonneg=True)
    fixed = options.get("prior", 0) + np.einsum("l,lkp,lkq->pq", options.get("spent", np.zeros(count)), roots, roots)
    levels = np.einsum("l,lkp,lkq->lpq", unit, roots, roots)
    total = fixed + cp.reshape(levels.reshape(count, -1).T @ u, levels.shape[1:], order="C")
    rows = [cp.sum(u) <= count, u >= options.get("low", 0) / unit]
    if "high" in options:
        rows.append(u <= options["high"] / unit)
    scale = error(roots, response, np.ones(count) * unit, fixed)
    frac = cp.matrix_frac(response / np.sqrt(scale), (total + total.T) / 2)
    return cp.Problem(cp.Minimize(frac), rows).solve(solver=cp.CLARABEL) * scale


def assert_feasible(found, prices, budget, options):
    m = found.examples
    assert prices @ m <= budget * (1 + 1e-15)
    assert np.all(m >= options.get("low", 0))
    assert np.all(m <= options.get("high", np.inf))


@pytest.mark.parametrize("seed", range(60 if FULL else 20))
def test_random_programs_are_solved_to_a_billionth_and_meet_the_optimality_conditions(seed):
    roots, response, prices, budget, options = random_problem(seed)
    found = solve_information(roots, response, prices, budget, **options)
    assert_feasible(found, prices, budget, options)
    assert found.relative_gap < 1e-9
    total = options.get("spent", 0) + found.examples
    assert found.value == pytest.approx(error(roots, response, total, options.get("prior")), rel=1e-7)
    # no feasible design found by chance is better than the bound
    rng = np.random.default_rng(seed)
    for _ in range(20):
        u = rng.dirichlet(np.full(prices.size, 0.3)) * (budget - prices @ (options.get("low", 0 * prices)))
        m = np.minimum(options.get("low", 0) + u / prices, options.get("high", np.inf))
        trial = error(roots, response, options.get("spent", 0) + m + 1e-12 * budget / prices, options.get("prior"))
        assert trial >= found.lower_bound * (1 - 1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 7, 8, 9, 11, 12])
def test_value_equals_the_semidefinite_program(seed):
    problem = random_problem(100 + seed, levels=6)
    *data, options = problem
    found = solve_information(*data, **options)
    truth = conic(*problem)
    assert found.value == pytest.approx(truth, rel=2e-5)
    assert found.lower_bound <= truth * (1 + 2e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_value_equals_the_declared_problem(seed):
    rng = np.random.default_rng(seed)
    roots, response = smooth_features(6, 20, 2, seed), rng.standard_normal((6, 2))
    sigma, c = np.geomspace(0.01, 50, 20), np.exp(0.3 * rng.standard_normal(20))
    term = co.InformationError(roots, response, sigma=sigma)
    plan = co.Problem(term, [co.Compute(co.Prices(c, 1.0, 0), part="training") <= 1e4]).solve()
    found = solve_information(roots, response, c, 1e4)
    assert found.value <= plan.error * (1 + 1e-9)
    assert found.value == pytest.approx(plan.error, rel=1e-5)
    assert found.lower_bound >= plan.certificate.lower_bound * (1 - 1e-9)


@pytest.mark.parametrize("prices", [np.ones(5), np.array([0.1, 3.0, 1.0, 20.0, 0.5])])
def test_orthogonal_features_follow_the_square_root_rule(prices):
    a = np.array([1e-3, 0.2, 1.0, 30.0, 1e4])
    g = np.array([1.0, 5.0, 0.1, 2.0, 1e3])
    found = solve_information(np.diag(a)[:, None, :], np.diag(g), prices, 50.0)
    each = g / a * np.sqrt(prices)
    assert found.value == pytest.approx(each.sum() ** 2 / 50.0, rel=1e-10)
    assert np.allclose(found.examples * prices, 50.0 * each / each.sum(), rtol=1e-6)
    assert found.budget_multiplier == pytest.approx((each.sum() / 50.0) ** 2, rel=1e-8)


def test_orthogonal_features_that_the_response_does_not_need_get_nothing():
    found = solve_information(np.eye(4)[:, None, :], [[3.0], [0.0], [1.0], [0.0]], 1.0, 8.0)
    assert found.support.tolist() == [0, 2]
    assert np.allclose(found.examples, [6.0, 0.0, 2.0, 0.0], atol=1e-6)
    assert found.relative_gap < 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_two_and_three_levels_equal_a_grid_over_all_designs(seed):
    rng = np.random.default_rng(seed)
    count = 2 + seed % 2
    roots, response = rng.standard_normal((count, 2, 2)), rng.standard_normal((2, 3))
    prices = np.exp(rng.standard_normal(count))
    found = solve_information(roots, response, prices, 3.0)
    t = np.linspace(0, 1, 301)
    grid = np.stack([t, 1 - t], 1) if count == 2 else np.array([(a, b, 1 - a - b) for a in t for b in t if a + b <= 1])
    total = np.einsum("nl,lkp,lkq->npq", 3.0 * grid / prices, roots, roots) + 1e-12 * np.eye(2)
    best = np.einsum("pr,npq,qr->n", response, np.linalg.inv(total), response).min()
    assert found.value <= best * (1 + 1e-9)
    assert found.value == pytest.approx(best, rel=2e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_value_equals_scipy_with_floors_caps_prior_and_spent_examples(seed):
    rng = np.random.default_rng(seed)
    roots, response, c = rng.standard_normal((5, 1, 3)), rng.standard_normal((3, 2)), np.exp(rng.standard_normal(5))
    options = {"prior": 0.3 * np.eye(3), "spent": rng.random(5), "low": 0.2 / c, "high": 3.0 / c}
    found = solve_information(roots, response, c, 8.0, **options)
    solved = minimize(
        lambda x: error(roots, response, options["spent"] + x / c, options["prior"]),
        np.full(5, 1.6), bounds=[(0.2, 3.0)] * 5, method="SLSQP",
        constraints={"type": "ineq", "fun": lambda x: 8.0 - x.sum()}, options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    assert found.value <= solved.fun * (1 + 1e-9)
    assert found.value == pytest.approx(solved.fun, rel=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_gains_per_price_equal_the_multiplier_on_the_support_and_are_below_it_elsewhere(seed):
    rng = np.random.default_rng(seed)
    roots, response, c = rng.standard_normal((30, 2, 4)), rng.standard_normal((4, 5)), np.exp(rng.standard_normal(30))
    found = solve_information(roots, response, c, 7.0)
    information = np.einsum("l,lkp,lkq->pq", found.examples, roots, roots)
    y = np.linalg.solve(information, response)
    ratio = ((roots @ y) ** 2).sum(axis=(1, 2)) / c
    assert np.all(ratio <= found.budget_multiplier * (1 + 1e-8))
    assert np.allclose(ratio[found.support], found.budget_multiplier, rtol=1e-4)
    assert found.budget_multiplier == pytest.approx(found.value / 7.0, rel=1e-8)


@pytest.mark.parametrize("option", ["none", "prior", "spent", "low", "high"])
def test_multiplier_is_the_slope_of_the_value(option):
    rng = np.random.default_rng(5)
    roots, response, c = rng.standard_normal((12, 1, 3)), rng.standard_normal((3, 2)), np.exp(rng.standard_normal(12))
    options = {
        "none": {}, "prior": {"prior": np.eye(3)}, "spent": {"spent": np.ones(12)},
        "low": {"low": 0.2 / c}, "high": {"high": 1.0 / c},
    }[option]  # fmt: skip
    below, middle, above = (solve_information(roots, response, c, b, **options) for b in (4.99, 5.0, 5.01))
    assert middle.budget_multiplier == pytest.approx((below.value - above.value) / 0.02, rel=1e-4)


def test_blocks_equal_one_block_diagonal_problem():
    rng = np.random.default_rng(2)
    roots = [rng.standard_normal((25, 1, 4)), rng.standard_normal((25, 2, 3)), rng.standard_normal((25, 1, 1))]
    response = [rng.standard_normal((4, 2)), rng.standard_normal((3, 1)), rng.standard_normal((1, 3))]
    prior = [None, np.eye(3), None]
    joint = np.zeros((25, 4, 8))
    joint[:, :1, :4], joint[:, 1:3, 4:7], joint[:, 3:, 7:] = roots
    whole = np.zeros((8, 6))
    whole[:4, :2], whole[4:7, 2:3], whole[7:, 3:] = response
    c = np.exp(rng.standard_normal(25))
    parts = solve_information(roots, response, c, 4.0, prior=prior)
    one = solve_information(joint, whole, c, 4.0, prior=np.diag([0, 0, 0, 0, 1.0, 1.0, 1.0, 0]))
    assert parts.value == pytest.approx(one.value, rel=1e-10)
    assert max(parts.relative_gap, one.relative_gap) < 1e-9


@pytest.mark.parametrize(("count", "seed"), [(1500, 0), (1400, 1)])
def test_many_levels_start_in_a_bundle_and_end_certified(count, seed):
    rng = np.random.default_rng(seed)
    roots = smooth_features(8, count, 2, seed) if seed else rng.standard_normal((count, 2, 8))
    found = solve_information(roots, rng.standard_normal((8, 3)), 1.0, 100.0)
    assert found.relative_gap < 1e-9
    assert found.support.size < 60


@pytest.mark.parametrize("columns", [1, 12])
@pytest.mark.parametrize("bundle", [False, True])
def test_hessian_equals_differences_of_the_gains_in_both_forms(columns, bundle):
    rng = np.random.default_rng(0)
    block = Block(rng.standard_normal((9, 2, 12)), rng.standard_normal((12, columns)), 0.1 * np.eye(12))
    master = Master([block], np.full(9, np.inf))
    own = np.arange(7) if bundle else np.arange(9)
    mix = np.where(np.arange(9) >= own.size, 0.5, 0.0)
    grouped = master.bundled(own, mix)
    shares = rng.uniform(0.5, 1.5, own.size + bundle)
    exact = master.hessian(grouped, master.point(grouped, shares))
    for i, unit in enumerate(np.eye(shares.size)):
        up, down = (master.point(grouped, shares + step * unit).gains for step in (1e-5, -1e-5))
        assert np.allclose((down - up) / 2e-5, exact[i], rtol=1e-6, atol=1e-8 * exact.max())


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_units_of_features_response_prices_and_budget_change_nothing(scale):
    rng = np.random.default_rng(3)
    roots, response, c = rng.standard_normal((20, 2, 5)), rng.standard_normal((5, 2)), np.exp(rng.standard_normal(20))
    plain = solve_information(roots, response, c, 3.0)
    for a, b, p, w, change in [
        (roots * scale, response, c, 3.0, scale**-2), (roots, response * scale, c, 3.0, scale**2),
        (roots, response, c * scale, 3.0, scale), (roots, response, c, 3.0 * scale, 1 / scale),
    ]:  # fmt: skip
        found = solve_information(a, b, p, w)
        assert found.value == pytest.approx(plain.value * change, rel=1e-9)
        assert found.relative_gap < 1e-9
    units = 10.0 ** np.linspace(-6, 6, 5)
    found = solve_information(roots * units, response * units[:, None], c, 3.0)
    assert found.value == pytest.approx(plain.value, rel=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_levels_over_twelve_decades_are_certified(seed):
    roots, response, prices, budget, options = random_problem(200 + seed, levels=40, decades=12, bounds=seed % 2 == 0)
    found = solve_information(roots, response, prices, budget, **options)
    assert_feasible(found, prices, budget, options)
    assert found.relative_gap < 1e-6


def test_one_level_equal_levels_and_caps_that_all_bind():
    one = solve_information([[[2.0]]], [[3.0]], 4.0, 8.0)
    assert (one.examples[0], one.value) == pytest.approx((2.0, 9 / 8))
    equal = solve_information(np.ones((6, 1, 1)), [[1.0]], [3.0, 1.0, 1.0, 2.0, 5.0, 1.0], 4.0)
    assert equal.value == pytest.approx(0.25, rel=1e-10)
    assert equal.examples[[0, 3, 4]].max() < 1e-6
    capped = solve_information(np.eye(2)[:, None, :], np.eye(2), 1.0, 100.0, high=[2.0, 4.0])
    assert capped.examples.tolist() == [2.0, 4.0]
    assert capped.budget_multiplier == 0
    assert capped.bound_used == "exact"
    floors = solve_information(np.eye(2)[:, None, :], np.eye(2), 1.0, 6.0, low=[2.0, 4.0])
    assert floors.examples.tolist() == [2.0, 4.0]


def test_no_response_costs_nothing():
    found = solve_information(np.ones((3, 1, 2)), np.zeros((2, 1)), 1.0, 1.0)
    assert (found.value, found.relative_gap, found.support.size) == (0.0, 0.0, 0)


def test_rank_deficient_features_need_a_prior():
    roots, response = np.ones((4, 1, 2)), [[1.0], [-1.0]]
    with pytest.raises(ValueError, match=r"solve_information.response lies outside"):
        solve_information(roots, response, 1.0, 1.0)
    found = solve_information(roots, response, 1.0, 1.0, prior=np.eye(2))
    assert found.value == pytest.approx(2.0)  # examples do not help this direction
    assert found.relative_gap < 1e-9
    assert solve_information(roots, [[1.0], [1.0]], 1.0, 1.0).value == pytest.approx(1.0)


def test_a_level_that_may_have_no_examples_determines_nothing():
    roots = np.eye(2)[:, None, :]
    with pytest.raises(ValueError, match="room in the bounds"):
        solve_information(roots, np.eye(2), 1.0, 1.0, high=[0.0, 5.0])
    assert solve_information(roots, [[0.0], [1.0]], 1.0, 1.0, high=[0.0, 5.0]).examples.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prices": 0.0}, r"solve_information\.prices is 0 at index 0"),
        ({"prices": [1.0, -1.0]}, r"prices is -1 at index 1"),
        ({"budget": 0.0}, r"budget is 0"),
        ({"budget": True}, r"not a bool"),
        ({"roots": np.full((2, 1, 2), np.nan)}, r"roots is nan"),
        ({"response": np.eye(3)}, r"response has shape"),
        ({"spent": [-1.0, 0.0]}, r"spent is -1"),
        ({"low": 2.0, "high": 1.0}, r"low is 2 at index 0, above"),
        ({"prior": -np.eye(2)}, r"positive semidefinite"),
        ({"prior": [[1.0, 0.5], [0.0, 1.0]]}, r"symmetric"),
        ({"roots": [np.ones((2, 1, 2))], "response": np.eye(2)}, r"list of 1"),
    ],
)
def test_bad_input_is_refused_by_name(change, message):
    given = {"roots": np.eye(2)[:, None, :], "response": np.eye(2), "prices": 1.0, "budget": 5.0} | change
    with pytest.raises(ValueError, match=message):
        solve_information(**given)


def test_floors_above_the_budget_are_infeasible():
    with pytest.raises(InfeasibleError, match="floors cost 6"):
        solve_information(np.eye(2)[:, None, :], np.eye(2), 1.0, 5.0, low=3.0)


@pytest.mark.parametrize("seed", range(5))
def test_knapsack_and_capped_shares_equal_linear_programs(seed):
    rng = np.random.default_rng(seed)
    gains, caps, weight = rng.random(7), rng.uniform(0.05, 0.5, 7), rng.random(7)
    caps = caps * max(1.0, 1.3 / caps.sum())
    u = cp.Variable(7)
    lp = cp.Problem(cp.Maximize(gains @ u), [u >= 0, u <= caps, cp.sum(u) <= 1])
    most, price = knapsack(gains, caps)
    assert most == pytest.approx(lp.solve(solver=cp.CLARABEL), rel=1e-6)
    assert price == pytest.approx(float(lp.constraints[2].dual_value), rel=1e-4, abs=1e-6)
    shares = capped_shares(weight, caps)
    assert shares.sum() == pytest.approx(1.0, rel=1e-12)
    free = shares < caps * (1 - 1e-12)
    assert np.allclose(shares[free] / weight[free], (shares[free] / weight[free])[0])
