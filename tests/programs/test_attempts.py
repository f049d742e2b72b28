"""The loop of attempts: what is recorded, when it stops, where it starts."""

import numpy as np
import pytest

import codesign_opt as co

TABLE = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5)).coefficients(0.01, 30)
TERMS = co.ScoreError(TABLE) + co.Discretization(TABLE)
BUDGET = [co.named("budget", co.Compute(co.Prices(3.0, 1.0, 1000)) <= 1e5)]


def test_every_attempt_is_recorded_and_told_while_it_goes_on():
    told = []
    plan = co.Problem(TERMS, BUDGET).solve(method="declared", on_attempt=told.append)
    assert list(plan.attempts) == told
    assert [a["attempt"] for a in told] == list(range(1, len(told) + 1))
    assert told[-1]["relative_gap"] == plan.certificate.relative_gap
    assert all(a["solve_seconds"] > 0 for a in told)


def test_a_plan_nearby_is_a_better_reference_than_none():
    problem = co.Problem(TERMS, BUDGET)
    near = co.Problem(TERMS, [co.Compute(co.Prices(3.0, 1.0, 1000)) <= 1.01e5]).solve()
    cold, warm = (problem.solve(method="declared", start=start) for start in (None, near))
    assert warm.error == pytest.approx(cold.error, rel=1e-6)
    assert len(warm.attempts) == 1 <= len(cold.attempts)


def test_a_tolerance_out_of_reach_ends_with_the_best_candidate_and_all_attempts():
    table = co.GaussianModel(co.Spectrum.power_law(4, exponent=1.5)).coefficients(0.01, 8)
    terms = co.ScoreError(table) + co.Discretization(table)
    with pytest.raises(co.NotCertifiedError) as refused:
        co.Problem(terms, BUDGET).solve(method="declared", tolerance=1e-15)
    assert len(refused.value.attempts) == 6
    gaps = [abs(a["relative_gap"]) for a in refused.value.attempts]
    assert 1e-15 < abs(refused.value.plan.certificate.relative_gap) <= min(gaps)  # against the best of their bounds


def test_a_budget_that_leaves_nothing_is_infeasible_before_any_solver_is_asked():
    told = []
    with pytest.raises(co.InfeasibleError, match=r"'steps' .* leaves nothing"):
        co.Problem(TERMS, [*BUDGET, co.named("steps", co.Steps() <= 1.0)]).solve(on_attempt=told.append)
    assert not told


def test_a_given_quantity_stays_what_it_is_in_every_attempt():
    steps = np.linspace(0.1, 1.0, len(TABLE.levels))
    plan = co.Problem(TERMS, BUDGET, steps=steps).solve(method="declared")
    np.testing.assert_array_equal(plan.steps, steps)


def test_an_attempt_around_the_nearest_point_is_not_made_twice():
    """It left 1e-5 of the row, so that every attempt after it was the same, and the program "not certified"."""
    model = co.GaussianModel(
        co.Spectrum.power_law(32, exponent=0.6411929633605988),
        process=co.EDM(0.002526840686752318, 50.3398245785641),
        sampler=co.Ancestral(1.0),
    )
    table = model.coefficients(0.007614285544954474, 100)
    rows = [
        co.Compute(co.Prices(0.9321242970795554, 1.0, 195.817028788023)) <= 2721.5825596746795,
        lambda design: design.step_sizes <= 0.8 * design.sigma,
    ]
    plan = co.Problem(co.ScoreError(table) + co.Discretization(table) + co.Truncation(table), rows).solve()
    assert plan.certificate.optimal
    assert np.all(plan.levels.width / plan.steps <= 0.8 * plan.levels.sigma * (1 + 1e-6))
