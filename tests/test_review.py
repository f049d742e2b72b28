"""What a first reader found wrong: each finding stays found."""

import os
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
PRICES = co.Prices(example=3.0, evaluation=1.0, images=1_000)
MODEL = co.GaussianModel(co.Spectrum.power_law(24, exponent=1.5))
FAST = {"levels": 60, "points": 8}


def joint(*constraints, levels=100):
    table = MODEL.coefficients(0.01, levels)
    return co.Problem(
        co.ScoreError(table) + co.Discretization(table), [co.Compute(PRICES) <= 2e5, *constraints]
    ).solve()


@pytest.mark.cases(2)
@pytest.mark.parametrize("method", ["auto", "declared"])
@pytest.mark.parametrize(
    ("bound", "value"),
    [
        (lambda v: co.Cap(v, "density"), 6_000.0),
        (lambda v: co.Cap(v, "step_size", low=1.0), 3.0),
        (lambda v: co.Floor(v, "step_density", low=0.02, high=0.1), 25.0),
    ],
    ids=["density cap", "step size cap", "step density floor"],
)
def test_shadow_price_of_a_level_bound_is_per_unit_of_its_value(bound, value, method):
    def error(v, levels):
        table = MODEL.coefficients(0.01, levels)
        objective = co.ScoreError(table) + co.Discretization(table)
        problem = co.Problem(objective, [co.Compute(PRICES) <= 2e5, co.named("bound", bound(v))])
        return problem.solve(method=method)

    step = 1e-3 * value
    for levels in (50, 100) if FULL else (30, 50):
        slope = (error(value + step, levels).error - error(value - step, levels).error) / (2 * step)
        assert slope != 0
        assert np.sum(error(value, levels).shadow_prices["bound"]) == pytest.approx(slope, rel=2e-2)


def test_a_constraint_at_low_noise_does_not_stop_the_search_over_stopping_points():
    floor = co.named("low-noise floor", lambda d: cp.sum(d.examples[d.sigma < 0.1]) >= 2_000)
    plan = co.codesign(MODEL, PRICES, 2e5, constraints=[floor], levels=30, points=4, polish=False, outer_tolerance=0.1)
    assert plan.stopping_sigma < 0.1
    assert plan.examples[plan.levels.sigma < 0.1].sum() >= 2_000 * (1 - 1e-6)
    assert any("EmptySelectionError" in record["status"] for record in plan.curve)


def test_the_range_of_stopping_points_is_kept_with_few_steps():
    plan = co.codesign(MODEL, steps=8, search=(0.002, 0.01), **FAST)
    assert 0.002 <= plan.stopping_sigma <= 0.01 * (1 + 1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("undescended")
def test_an_audit_holds_the_users_constraints_in_every_stage():
    cap = co.Share(0.2, 0.3, 3.0)
    run = co.TrainingRun(co.LogNormal(-1.2, 1.2), iterations=100, batch=64)
    loose = {"polish": False, "outer_tolerance": 0.1}
    report = co.audit(
        MODEL,
        PRICES,
        sigmas=co.edm_grid(5, 0.002, 80.0),
        run=run,
        constraints=[cap],
        levels=24,
        points=3,
        **loose,
    )
    inside = report.optimum.levels.overlap(0.3, 3.0) / report.optimum.levels.log_width
    assert inside @ report.optimum.examples <= 0.2 * report.optimum.examples.sum() * (1 + 1e-6)


def test_a_budget_that_pays_no_whole_step_is_infeasible():
    with pytest.raises(co.InfeasibleError, match="whole steps"):
        co.codesign(MODEL, PRICES, 2_500.0, **FAST)


def test_a_sampler_that_cannot_run_does_not_end_the_comparison():
    plan = co.codesign(MODEL, steps=2, samplers=[co.Heun(), co.Euler()], **FAST)
    assert "failure" in plan.outer["samplers"]["Heun()"]
    assert plan.number_of_steps == 2


def test_a_given_solver_is_the_one_that_solves():
    table = MODEL.coefficients(0.01, 40)
    problem = co.Problem(co.ScoreError(table) + co.Discretization(table), [co.Compute(PRICES) <= 2e5])
    assert problem.solve(solver="CLARABEL").attempts[0]["solver"] == "CLARABEL"
    with pytest.raises(ValueError, match="NOSUCH"):
        problem.solve(solver="NOSUCH")


def test_a_log_alone_says_where_a_run_trained(tmp_path):
    path = tmp_path / "loss.csv"
    draws = np.exp(np.random.default_rng(0).normal(-1.2, 1.2, 20_000))
    path.write_text("examples,sigma,loss\n" + "".join(f"1,{s},0.1\n" for s in draws))
    levels = co.Levels.log_uniform(0.002, 80.0, 12)
    logged = co.TrainingRun(None, iterations=100, batch=64, log=path).examples_on(levels)
    known = co.TrainingRun(co.LogNormal(-1.2, 1.2), iterations=100, batch=64).examples_on(levels)
    np.testing.assert_allclose(logged, known, atol=5 * np.sqrt(6400 * 6400 / 20_000 * 0.25))
    with pytest.raises(FileNotFoundError):
        co.TrainingRun(None, iterations=1, batch=1, log=tmp_path / "none.csv")


@dataclass(frozen=True, eq=False)
class Latency(co.Term):
    price: float

    def expression(self, design):
        return self.price * cp.sum(design.steps)


def test_whole_steps_are_chosen_with_the_users_terms():
    plan = co.codesign(MODEL, PRICES, 3e5, terms=[Latency(3e-4)], stopping_sigma=0.02, **FAST)
    parts = [plan.handed_out[name] for name in ("bias", "score", "floor", "last evaluation", "Latency")]
    assert plan.handed_out["total"] == pytest.approx(sum(parts))
    assert plan.handed_out["Latency"] == pytest.approx(3e-4 * (plan.number_of_steps - 1), rel=1e-6)
    assert "Objective" in str(plan)


def test_a_schedule_of_ones_own_is_held_against_the_bound():
    table = MODEL.coefficients(0.01, 40)
    problem = co.Problem(co.ScoreError(table) + co.Discretization(table), [co.Compute(PRICES) <= 2e5])
    best = problem.solve()
    assert problem.certify(examples=best.examples, steps=best.steps).optimal
    worse = problem.certify(examples=0.9 * best.examples, steps=best.steps)
    assert not worse.optimal
    assert worse.relative_gap == pytest.approx(1 - best.certificate.lower_bound / worse.value)
    dearer = problem.certify(examples=2 * best.examples, steps=best.steps)
    assert dearer.infeasibility > 1e-2
    assert not dearer.optimal
    with pytest.raises(ValueError, match="steps is missing"):
        problem.certify(examples=best.examples)
