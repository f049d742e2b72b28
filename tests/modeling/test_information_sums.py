"""Sums of information errors in a problem: against the declared program and one error of stacked features."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.solvers.information.shares import solve_information
from tests.helpers.information import smooth_features


def bands(seed, *, count=16, prior=True):
    """Two terms with features, response and prior of their own on the same levels; prices, budget."""
    rng = np.random.default_rng(seed)
    sigma = np.geomspace(0.01, 50, count)
    roots = smooth_features(5, count, 2, seed), rng.standard_normal((count, 1, 3))
    response = rng.standard_normal((5, 2)), 3 * rng.standard_normal((3, 4))
    half = rng.standard_normal((5, 2))
    first = co.InformationError(roots[0], response[0], sigma=sigma, prior=5 * half @ half.T if prior else None)
    second = co.InformationError(roots[1], response[1], sigma=sigma, residual_variance=rng.uniform(0.5, 2, count))
    return first, second, np.exp(0.4 * rng.standard_normal(count)), 200.0


def constrained(prices, budget, option):
    """The budget, and rows and spent examples of an option."""
    share = budget / prices / prices.size
    rows = [co.named("budget", co.Compute(co.Prices(prices, 1.0, 0), part="training") <= budget)]
    rows += [co.Floor(0.4 * share, "examples")] if "floor" in option else []
    rows += [co.Cap(2.5 * share, "examples")] if "cap" in option else []
    return rows, (0.3 * share if "spent" in option else None)


@pytest.mark.parametrize("option", ["none", "floor", "cap", "floor, cap", "spent", "floor, cap, spent"])
def test_a_sum_of_errors_equals_the_declared_program(option):
    first, second, prices, budget = bands(3, prior=option != "cap")
    rows, spent = constrained(prices, budget, option)
    problem = co.Problem(first + 0.5 * second, rows, spent=spent)
    plan, declared = problem.solve(), problem.solve(method="declared", tolerance=1e-7)
    assert [a["solver"] for a in plan.attempts] == ["Newton in shares"]
    assert plan.certificate.relative_gap < 1e-9
    assert plan.error == pytest.approx(declared.error, rel=1e-7)
    assert plan.certificate.lower_bound <= declared.error * (1 + 1e-10)
    assert declared.certificate.lower_bound <= plan.error * (1 + 1e-10)
    assert plan.error == pytest.approx(first.error(plan.examples) + 0.5 * second.error(plan.examples), rel=1e-12)
    assert plan.shadow_prices["budget"] == pytest.approx(declared.shadow_prices["budget"], rel=1e-4)


@pytest.mark.parametrize("option", ["none", "floor, cap, spent"])
def test_no_feasible_design_is_better_than_the_bound_of_a_sum(option):
    first, second, prices, budget = bands(5)
    rows, spent = constrained(prices, budget, option)
    plan = co.Problem(first + 0.5 * second, rows, spent=spent).solve()
    already = np.zeros(16) if spent is None else spent
    low, high = np.maximum(plan.tables["examples_low"], already), plan.tables["examples_high"]
    rng = np.random.default_rng(0)
    for i in range(200):
        near = plan.examples - low if i % 2 else np.zeros(16)
        above = near + rng.dirichlet(np.full(16, 0.3)) * 10 ** rng.uniform(-4, 1) * budget / prices
        above = np.minimum(above, high - low)
        room = budget - prices @ (low - already)
        total = low + above * min(1.0, room / float(prices @ above))
        assert first.error(total) + 0.5 * second.error(total) >= plan.certificate.lower_bound * (1 - 1e-12)


def test_a_sum_of_errors_is_one_error_with_block_diagonal_features():
    first, second, prices, budget = bands(7, prior=False)
    joint = np.zeros((16, 3, 8))
    joint[:, :2, :5], joint[:, 2:, 5:] = first.roots, second.roots
    response = np.zeros((8, 5))
    response[:5, :2], response[5:, 2:] = first.response, np.sqrt(0.5) * second.response[:, :3]
    one = co.InformationError(joint, response, sigma=first.sigma)
    rows, _ = constrained(prices, budget, "none")
    both, whole = (co.Problem(term, rows).solve() for term in (first + 0.5 * second, one))
    assert second.response.shape == (3, 3)
    assert both.error == pytest.approx(whole.error, rel=1e-9)
    assert np.allclose(both.tables["information_gain"], whole.tables["information_gain"], rtol=1e-4)


def test_weights_of_zero_and_equal_terms_change_nothing():
    first, second, prices, budget = bands(9)
    rows, _ = constrained(prices, budget, "none")
    alone = co.Problem(first, rows).solve()
    assert co.Problem(first + 0.0 * second, rows).solve().error == pytest.approx(alone.error, rel=1e-12)
    assert co.Problem(0.25 * first + 0.75 * first, rows).solve().error == pytest.approx(alone.error, rel=1e-9)


def test_a_sum_with_a_further_row_is_declared_and_certified():
    first, second, prices, budget = bands(11)
    rows, _ = constrained(prices, budget, "none")
    free = co.Problem(first + 0.5 * second, rows).solve()
    limit = 0.7 * float(free.examples[:8].sum())
    rows.append(co.named("few low", lambda design: cp.sum(design.examples[:8]) <= limit))
    plan = co.Problem(first + 0.5 * second, rows).solve()
    assert plan.attempts[-1]["solver"] == "CLARABEL"
    assert plan.certificate.optimal
    assert plan.examples[:8].sum() <= limit * (1 + 1e-7)
    assert plan.error > free.error


def test_gains_per_price_of_a_sum_are_flat_on_the_support_and_lower_elsewhere():
    first, second, prices, budget = bands(13)
    rows, _ = constrained(prices, budget, "none")
    plan = co.Problem(first + 0.5 * second, rows).solve()
    price = -plan.shadow_prices["budget"]
    chosen = plan.examples > 1e-6 * plan.examples.max()
    assert 1 < chosen.sum() < 16
    assert np.allclose(plan.tables["marginal_gain"][chosen], price, rtol=1e-4)
    assert np.all(plan.tables["marginal_gain"] <= price * (1 + 1e-6))
    assert sum("sandwich" in note for note in plan.notes) == 1


def test_the_loss_of_another_design_for_a_sum_is_certified_by_the_solver_and_by_the_problem():
    first, second, prices, budget = bands(15, count=60)
    rows, _ = constrained(prices, budget, "none")
    problem = co.Problem(first + 0.5 * second, rows)
    found = solve_information(
        [first.roots, second.roots], [first.response, np.sqrt(0.5) * second.response], prices, budget,
        prior=[first.prior, None],
    )  # fmt: skip
    assert found.value == pytest.approx(problem.solve().error, rel=1e-9)
    assert found.support.size < 20
    spread = 0.9 * found.examples + 0.1 * budget / prices.sum()  # a tenth of the budget, evenly: no spikes alone
    value = found.program.solve(spread).value
    assert value == pytest.approx(first.error(spread) + 0.5 * second.error(spread), rel=1e-10)
    proof = problem.certify(examples=spread)
    assert proof.value == pytest.approx(value, rel=1e-10)
    loss = value / found.lower_bound - 1
    assert loss > 0.001
    assert proof.value / proof.lower_bound - 1 == pytest.approx(loss, rel=1e-6)


def test_terms_on_different_levels_are_refused_by_name():
    first, _, prices, _ = bands(1)
    other = co.InformationError(np.ones((9, 1, 1)), [[1.0]], sigma=np.geomspace(0.01, 50, 9))
    rows, _ = constrained(prices, 1.0, "none")
    with pytest.raises(ValueError, match=r"terms on different levels.*16 bins.*9 bins"):
        co.Problem(first + other, rows)
