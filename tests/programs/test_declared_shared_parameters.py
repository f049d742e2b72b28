"""The declared program P4, examples for shared parameters, against SDPs, SLSQP, simulation and closed forms."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import minimize

import codesign_opt as co
from codesign_opt.solvers.waterfill.fill import square_root_rule
from tests.helpers.declared import named_budget, shared

pytestmark = pytest.mark.usefixtures("declared_programs_only")


def semidefinite(term, c, budget, rows=()):
    """Optimal value with cp.matrix_frac: tr G^T M(m)^-1 G."""
    x = cp.Variable(c.size, nonneg=True)  # share of the budget
    fisher = [f.T @ f / s for f, s in zip(term.features, term.residual_variance, strict=True)]
    m = cp.multiply(budget / c, x)
    information = sum(m[l] * fisher[l] for l in range(c.size))
    if term.prior is not None:
        information = information + term.prior
    value = sum(cp.matrix_frac(column, information) for column in term.response.T)
    program = cp.Problem(cp.Minimize(value), [cp.sum(x) <= 1, *(row(m) for row in rows)])
    program.solve(solver="CLARABEL", tol_gap_abs=1e-10, tol_gap_rel=1e-10)
    return float(program.value)


@pytest.mark.parametrize("prior", [False, True])
def test_shared_parameters_cone_form_equals_the_semidefinite_form_and_slsqp(prior):
    for seed in range(3):
        term, c = shared(seed, prior=prior)
        plan = co.Problem(term, [named_budget(co.Prices(c, 1.0, 1), 50.0, "training")]).solve()
        truth = semidefinite(term, c, 50.0)
        assert plan.error == pytest.approx(truth, rel=1e-5)
        assert plan.certificate.lower_bound <= truth * (1 + 1e-7)
        assert c @ plan.examples <= 50 * (1 + 1e-7)

        def direct(z, term=term, c=c):
            m = 50.0 * np.exp(z - z.max()) / np.exp(z - z.max()).sum() / c
            flat = (term.features * np.sqrt(m / term.residual_variance)[:, None, None]).reshape(-1, 5)
            information = flat.T @ flat + (0 if term.prior is None else term.prior)
            return np.log(np.sum(term.response * np.linalg.solve(information, term.response)))

        found = minimize(direct, np.zeros(7), method="SLSQP", bounds=[(-25, 25)] * 7, options={"ftol": 1e-14})
        assert plan.error <= np.exp(found.fun) * (1 + 1e-6)
        assert plan.error == pytest.approx(np.exp(found.fun), rel=1e-4)


def test_shared_parameters_with_a_floor_and_a_linear_row_equal_the_semidefinite_form():
    term, c = shared(4)
    rows = [
        co.named("few low", lambda d: cp.sum(d.examples[:3]) <= 5.0),
        co.Floor(0.5, "examples"),
    ]
    plan = co.Problem(term, [named_budget(co.Prices(c, 1.0, 1), 50.0, "training"), *rows]).solve()
    truth = semidefinite(term, c, 50.0, [lambda m: cp.sum(m[:3]) <= 5.0, lambda m: m >= 0.5])
    assert plan.error == pytest.approx(truth, rel=1e-5)
    assert plan.certificate.lower_bound <= truth * (1 + 1e-7)


def test_orthogonal_features_reduce_to_the_square_root_rule():
    rng = np.random.default_rng(1)
    s, g, c = rng.uniform(0.1, 10, 6), rng.normal(size=6), rng.uniform(0.5, 2, 6)
    term = co.InformationError(np.eye(6)[:, None, :], g[:, None], sigma=np.logspace(-2, 1, 6), residual_variance=s)
    plan = co.Problem(term, [named_budget(co.Prices(c, 1.0, 1), 30.0, "training")]).solve()
    exact = square_root_rule(g**2 * s, c, 30.0)
    assert plan.error == pytest.approx(exact.value, rel=1e-7)
    np.testing.assert_allclose(plan.examples, exact.examples, rtol=1e-3)
    assert -plan.shadow_prices["budget"] == pytest.approx(exact.multiplier, rel=1e-4)


def test_a_price_of_evaluations_is_not_charged_where_no_sampler_is_planned():
    term, c = shared(0)
    plan = co.Problem(term, [named_budget(co.Prices(c, 1e3, 10), 50.0)]).solve()
    assert plan.error == pytest.approx(semidefinite(term, c, 50.0), rel=1e-5)
    assert plan.sigmas is None


def test_sandwich_error_equals_weighted_least_squares_by_simulation():
    rng = np.random.default_rng(5)
    term, _ = shared(5, levels=4, outputs=2, parameters=3, responses=2)
    m, weight, repeats = np.array([7, 3, 12, 5]), np.array([1.0, 0.2, 3.0, 0.5]), 20_000
    rows = np.concatenate([np.tile(f, (k, 1)) for f, k in zip(term.features, m, strict=True)])
    root = np.sqrt(np.repeat(weight, 2 * m))[:, None]
    spread = np.sqrt(np.repeat(term.residual_variance, 2 * m))[:, None]
    truth = rng.normal(size=3)
    targets = (rows @ truth)[:, None] + spread * rng.normal(size=(rows.shape[0], repeats))
    fitted = np.linalg.lstsq(root * rows, root * targets, rcond=None)[0]
    squares = ((term.response.T @ (fitted - truth[:, None])) ** 2).sum(axis=0)
    error = squares.std() / np.sqrt(repeats)
    assert abs(squares.mean() - term.sandwich_error(m, weight)) < 3 * error
    efficient = term.sandwich_error(m, 1 / np.asarray(term.residual_variance))
    assert efficient == pytest.approx(term.error(m), rel=1e-10)


def test_unit_loss_weights_make_more_data_worse():
    """Section 6: two levels of residual variance 1 and 10: .0275 with both, .0100 training only the first."""
    term = co.InformationError(
        np.ones((2, 1, 1)), np.ones((1, 1)), sigma=[0.1, 1.0], residual_variance=np.array([1.0, 10.0])
    )
    assert term.sandwich_error(np.array([100.0, 100.0])) == pytest.approx(0.0275)
    assert term.sandwich_error(np.array([100.0, 0.0])) == pytest.approx(0.0100)
    assert term.error(np.array([100.0, 100.0])) == pytest.approx(1 / 110)


@pytest.mark.parametrize("unit", [1e-8, 1e-5, 1e5])
def test_shared_parameters_in_another_unit_give_the_same_plan(unit):
    """A parameter measured in other units changes features and response together and nothing else."""
    term, c = shared(2, parameters=4)
    scale = np.array([1.0, unit, 1.0, 1.0])
    other = co.InformationError(
        term.features * scale, term.response * scale[:, None], sigma=term.sigma,
        residual_variance=term.residual_variance,
    )  # fmt: skip
    budget = named_budget(co.Prices(c, 1.0, 1), 50.0, "training")
    truth = co.Problem(term, [budget]).solve().error
    assert co.Problem(other, [budget]).solve().error == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_shared_parameters_scale_with_the_budget(scale):
    """Without a prior the error is proportional to 1 / budget, and so must be the solver's answer."""
    for seed in range(3):
        term, c = shared(seed)
        one, other = (
            co.Problem(term, [named_budget(co.Prices(c, 1.0, 1), 50.0 * k, "training")]).solve() for k in (1, scale)
        )
        assert other.error * scale == pytest.approx(one.error, rel=2e-6)


def test_a_direction_that_only_a_weak_level_determines_is_paid_for():
    """F = diag(1, 1e-16), G = (1, 1e-9): the second direction costs as much as a tenth of the first."""
    features = np.array([[[1.0, 0.0]], [[0.0, 1e-8]]])
    term = co.InformationError(features, np.array([[1.0], [1e-9]]), sigma=[0.1, 1.0])
    plan = co.Problem(term, [named_budget(co.Prices(1.0, 1.0, 1), 1.0, "training")]).solve()
    assert plan.error == pytest.approx(1.1**2, rel=1e-6)
    assert term.error(np.array([1.0, 0.0])) == np.inf


def test_no_examples_at_all_leave_shared_parameters_undetermined_and_infeasible_by_name():
    rng = np.random.default_rng(3)
    sigma = co.Levels.log_uniform(0.01, 10.0, 12).sigma
    term = co.InformationError(rng.normal(size=(12, 2, 4)), rng.normal(size=(4, 1)), sigma=sigma)
    assert term.error(np.zeros(12)) == np.inf
    rows = [
        co.named("budget", co.Compute(co.Prices(1.0, 1.0, 1)) <= 1e3),
        co.named("floor", co.Floor(200.0, "examples")),
    ]
    with pytest.raises(co.InfeasibleError, match=r"'budget'.*'floor'"):
        co.Problem(term, rows).solve()
