"""A training that is over, and the sampler for the denoiser that it left: co.codesign(model, steps=…, run=…)."""

import os
from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.planning.question import Study
from codesign_opt.planning.run_examples import RunExamples, RunMass
from codesign_opt.planning.settling import settle
from codesign_opt.planning.stopping_points import bounds_of, solved_at

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
RUN = co.TrainingRun(density=co.LogNormal(-1.2, 1.2), iterations=300, batch=64)
MODEL = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.3))
UNKNOWN = co.AveragedSGD(prior=None)
FAST = {"levels": 40, "points": 5}
PRICES = co.Prices(1.0, 1.0, 100)
CAP = co.Cap(lambda s: 2.5 * s, "step_size", low=0.3, high=3.0)


def study_of(model=MODEL, run=RUN, steps=8, levels=40):
    return Study(model, None, None, steps, run, (), (), levels, 1e-6)


@pytest.mark.parametrize("coupling", [co.Local(2.7), co.PerStep(0.3)])
def test_the_program_is_that_of_steps_alone_with_what_the_run_leaves(coupling):
    model = replace(MODEL, coupling=coupling)
    plan = co.codesign(model, steps=8, run=RUN, stopping_sigma=0.03, polish=False, **FAST)
    table = model.coefficients(0.03, 40)
    n = cp.Variable(len(table.levels), pos=True)
    left = table.example_error / (RUN.examples_on(table.levels) + table.prior_examples)
    stretch = cp.multiply(table.kappa, cp.inv_pos(n))
    stretch = stretch if isinstance(coupling, co.PerStep) else cp.maximum(1.0, stretch)
    bands = cp.hstack([row @ cp.power(n, -2) for row in table.step_response])
    raw = cp.Problem(cp.Minimize(left @ stretch + cp.sum_squares(bands)), [cp.sum(n) + 1 <= 8])
    near = table.final_window @ RUN.examples_on(table.levels) + table.final_prior
    constant = table.truncation + table.initial + table.final_score / near
    assert plan.error == pytest.approx(raw.solve() + constant, rel=1e-6)
    assert plan.certificate.optimal
    np.testing.assert_allclose(plan.examples, RUN.examples_on(plan.levels))
    assert not plan.new_examples.any()


QUESTIONS = {
    "heun": (MODEL, {"stopping_sigma": 0.03}),
    "searched": (MODEL, {}),
    "euler, rescale": (replace(MODEL, sampler=co.Euler(), terminal="rescale"), {"stopping_sigma": 0.03}),
    "2M": (replace(MODEL, sampler=co.DPMpp2M()), {"stopping_sigma": 0.03}),
    "ancestral": (replace(MODEL, sampler=co.Ancestral(1.0)), {"stopping_sigma": 0.03}),
    "per step": (replace(MODEL, coupling=co.PerStep(0.3)), {"stopping_sigma": 0.03}),
    "pooled": (replace(MODEL, coupling=co.Transfer(0.6)), {"stopping_sigma": 0.03}),
    "KL": (replace(MODEL, metric=co.KL("reverse")), {"stopping_sigma": 0.03}),
    "features": (replace(MODEL, metric=co.Features(lambda x: 1 / (0.1 + x))), {"stopping_sigma": 0.03}),
    "cap": (MODEL, {"stopping_sigma": 0.03, "constraints": [CAP]}),
}


@pytest.mark.parametrize("name", QUESTIONS if FULL else ["heun"])
def test_it_is_the_limit_of_a_budget_that_leaves_nothing_to_train(name):
    model, asked = QUESTIONS[name]
    count, asked = (8, {**FAST, **asked}) if FULL else (3, {**FAST, **asked, "levels": 16, "polish": False})
    given = co.codesign(model, steps=count, run=RUN, **asked)
    calls = model.sampler.evaluations_per_step * (count - 1) + 1 if model.terminal == "denoise" else count
    left = co.codesign(model, PRICES, 100.0 * calls * (1 + 1e-6), steps=count, run=RUN, **asked)
    assert given.error == pytest.approx(left.error, rel=2e-6)
    assert given.outer["status"] == left.outer["status"]
    assert given.handed_out["total"] <= left.handed_out["total"] * (1 + 1e-3)


@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
@pytest.mark.parametrize("training", [co.AveragedSGD(), UNKNOWN])
def test_what_a_run_leaves_on_a_grid_has_the_slope_of_finite_differences(terminal, training):
    couplings = [co.Local(2.7), co.PerStep(0.3), co.Local(lambda s: 1 + 0.5 * s / (1 + s))]
    for coupling in couplings if FULL else couplings[-1:]:
        study = study_of(replace(MODEL, terminal=terminal, training=training, coupling=coupling), levels=200)
        cost = RunExamples(study, 0.0, RunMass.of(study, 0.001, 80.0))
        grid = co.edm_grid(6, 0.05, 80.0, terminal=terminal)
        count = int((grid > 0).sum())
        moved = np.repeat(grid[None], 2 * count, axis=0)
        moved[np.arange(2 * count), np.tile(np.arange(count), 2)] *= np.repeat(np.exp([1e-5, -1e-5]), count)
        up, down = cost.value(moved).reshape(2, count)
        slopes = cost.of(grid[None], np.zeros(1, dtype=int)).slopes(np.zeros(1, dtype=int))[0]
        differences = (up - down)[1:] / 2e-5
        np.testing.assert_allclose(slopes[1:], differences, atol=1e-4 * np.abs(differences).max())
        settled = settle(study, grid)
        assert cost.value(grid[None])[0] == pytest.approx(settled.total - settled.handed_out["bias"], rel=3e-3)


@pytest.mark.parametrize("training", [co.AveragedSGD(), UNKNOWN])
def test_no_stopping_point_between_two_leaves_less_than_their_bound(training):
    for centre, width, iterations in ((0.045, 0.1, 1000), (0.3, 1.2, 1000), (0.045, 0.02, 100)):
        run = co.TrainingRun(density=co.LogNormal(np.log(centre), width), iterations=iterations, batch=64)
        study = study_of(replace(MODEL, training=training), run, 12, 20)
        for low, high in ((0.04, 0.06), (0.0449, 0.0451)):
            solved = solved_at(study, [low, high])
            if len(solved) < 2:  # without a prior a narrow run teaches too little of the range
                assert training is UNKNOWN
                continue
            bound = bounds_of(study, [(low, high)], solved)[0]
            inside = [stop.error for stop in solved_at(study, list(np.geomspace(low, high, 5)))]
            assert bound <= min(inside) * (1 + 1e-9)
    assert bound >= 0.99 * min(inside) or training is UNKNOWN


def test_the_grid_is_a_minimum_of_the_programs_law_and_neighbours_leave_more(tmp_path):
    plan = co.codesign(MODEL, steps=4, run=RUN, levels=20, points=5, outer_tolerance=3e-3)
    study, rng = study_of(steps=4, levels=20), np.random.default_rng(0)
    own = settle(study, plan.sigmas).total
    told = MODEL.predict(plan.sigmas, plan.examples, levels=plan.levels).total
    assert plan.handed_out["total"] == pytest.approx(told, rel=1e-2)
    assert own == pytest.approx(told, rel=2e-2)
    assert plan.outer["status"] == "optimal"
    assert plan.outer["lower_bound"] <= plan.error
    for _ in range(20):
        near = plan.sigmas.copy()
        near[1:-1] *= np.exp(0.01 * rng.standard_normal(3))
        assert settle(study, near).total >= own * (1 - 1e-6)
    assert str(co.Plan.load(plan.save(tmp_path / "plan.json"))) == str(plan)
    assert f"0 examples, beside {plan.examples.sum():,.0f} already spent" in str(plan)


def test_realised_errors_of_trained_denoisers_are_those_that_the_plan_states():
    model = replace(MODEL, coupling=co.PerStep(0.3), start="mean", training=UNKNOWN)
    run = co.TrainingRun(density=co.LogNormal(-1.2, 1.4), iterations=2000, batch=64)
    plan = co.codesign(model, steps=16, run=run, stopping_sigma=0.05, polish=False, **FAST)
    found = co.validate(plan, replicas=50)
    value, error = found.realised["total"]
    assert abs(value - plan.handed_out["total"]) <= 0.03 * value + 3 * error


@pytest.mark.skipif(not FULL, reason="CODESIGN_OPT_FULL=1: rows of steps are in test_stated_split.py")
@pytest.mark.parametrize("run", [None, RUN])
def test_whole_steps_keep_what_constraints_allow_where_nothing_is_trained(run):
    model, stop = replace(MODEL, sampler=co.Euler()), {"stopping_sigma": 0.03, "levels": 12}
    free = co.codesign(model, steps=3, run=run, **stop)
    limits = {
        "compute": co.Compute(PRICES, part="sampling") <= 300.0,
        "steps": lambda design: cp.sum(design.steps) + 1 <= 3,
        "stages": co.Stages([co.Stage("all", 2.0)], images=100) <= 300.0,
    }
    for name in limits:
        plan = co.codesign(model, steps=4, run=run, constraints=[limits[name]], **stop)
        assert plan.number_of_steps == 3
        assert plan.handed_out["total"] == pytest.approx(free.handed_out["total"], rel=1e-4)


def test_levels_that_a_run_never_reached_are_named():
    model = replace(MODEL, training=UNKNOWN)
    narrow = co.TrainingRun(density=lambda sigma: (sigma > 0.1) / (1 + sigma**2), iterations=100, batch=64)
    with pytest.raises(co.InfeasibleError, match=r"run has no examples on 8 levels between sigma 0.01 and 0.08"):
        co.codesign(model, steps=8, run=narrow, stopping_sigma=0.01, **FAST)
    plan = co.codesign(model, steps=4, run=narrow, stopping_sigma=0.2, polish=False, **FAST)
    assert np.isfinite(plan.handed_out["total"])
    nodes = np.geomspace(0.01, 10, 5)
    untrained = co.EstimatedModel(nodes, responses=np.ones((3, 5)), truncation=np.ones(5), spectrum=MODEL.spectrum)
    with pytest.raises(ValueError, match="estimated without training, so that what a run leaves is not known"):
        co.codesign(untrained, steps=8, run=RUN)
    plan = co.codesign(MODEL, steps=3, run=RUN, stopping_sigma=0.1, polish=False, **FAST)
    with pytest.raises(ValueError, match="made beside a training run"):
        co.what_if(plan, steps=[3], model=MODEL)
