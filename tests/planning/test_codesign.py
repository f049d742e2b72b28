"""codesign(): the loop over stopping points, its bound, and the questions that it takes."""

import os

import cvxpy as cp
import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.planning.question import Study
from codesign_opt.planning.stopping_points import bound_between, sweep

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
SMALL = {"levels": 60, "points": 6}
LOOSE = {"outer_tolerance": 0.1}  # where the bound over stopping points is not what is asked
PROGRAM = SMALL | {"polish": False}  # where the whole steps are not what is asked


def model(**changes):
    settings = {"spectrum": co.Spectrum.power_law(24, exponent=1.5), "process": co.EDM(0.002, 80.0)}
    return co.GaussianModel(**{**settings, **changes})


PRICES = co.Prices(example=3.0, evaluation=1.0, images=1_000)

STUDIES = {
    "joint, heun": (model(), PRICES, 1e5, None, None),
    "joint, few examples": (model(), PRICES, 2e4, None, None),
    "joint, euler, rescale": (model(sampler=co.Euler(), terminal="rescale"), PRICES, 1e6, None, None),
    "joint and steps, floors": (model(training=co.ConstantStepSGD(1e-3, 64)), PRICES, 3e5, 12.0, None),
    "sampler only": (model(), None, None, 12.0, None),
    "spent": (model(), PRICES, 1e5, None, co.TrainingRun(co.LogNormal(-1.2, 1.2), 100, 64)),
    "ancestral": (model(sampler=co.Ancestral(0.5)), PRICES, 3e5, None, None),
    "full matrix": (model(training=co.AveragedSGD(matrix="full", intercept=True)), PRICES, 1e5, None, None),
    "one dimension": (model(spectrum=co.Spectrum.from_eigenvalues([0.25])), PRICES, 1e5, None, None),
    "per step": (model(coupling=co.PerStep(0.5)), PRICES, 1e5, None, None),
}  # fmt: skip


def study(name, levels=50):
    m, prices, budget, steps, run = STUDIES[name]
    return Study(m, prices, budget, steps, run, (), (), levels, 1e-6)


@pytest.mark.cases(3)
@pytest.mark.parametrize("name", STUDIES)
def test_no_stopping_point_of_a_dense_scan_lies_below_the_bound(name):
    found = study(name)
    low, high = 0.002, 0.2
    stops = sweep(found, low, high, 8, lambda text: None)
    bound, _ = bound_between(found, stops, 1e-3)
    best = min(s.error for s in stops)
    dense = [s.error for s in sweep(found, low, high, 200 if FULL else 60, lambda text: None)]
    print(f"{name}: best {best:.6e}, bound gap {1 - bound / best:.2e}, dense scan {min(dense):.6e}")
    assert min(dense) >= bound * (1 - 1e-9)
    assert best <= min(dense) * (1 + 1e-3)
    assert bound >= best * (1 - 1e-3) * (1 - 1e-9), "the bound closes"


def test_a_loose_tolerance_never_says_more_than_the_bound():
    m, prices, budget, _, _ = STUDIES["joint, heun"]
    plan = co.codesign(m, prices, budget, **PROGRAM, outer_tolerance=1e-9)
    assert plan.outer["status"].startswith("best of")
    assert plan.outer["relative_gap"] > 1e-9
    assert plan.outer["lower_bound"] <= plan.error


@pytest.mark.parametrize("name", ["joint, heun", "sampler only", "joint and steps, floors"])
def test_error_is_continuous_where_the_stopping_point_crosses_an_edge(name):
    found = study(name)
    edges = co.Levels.log_uniform(0.002, 80.0, 80).edges
    for edge in edges[[5, 20, 33]]:
        below, above = (found.solve(edge * (1 + shift)).error for shift in (-1e-6, 1e-6))
        assert below == pytest.approx(above, rel=1e-4)


def test_interval_bound_is_below_the_optimum_inside_random_intervals():
    from codesign_opt.planning.stopping_points import Stop, _interval_bound, from_plan

    rng = np.random.default_rng(11)
    for name in STUDIES:
        found = study(name, 60)
        for _ in range(3):
            a, b = np.sort(np.exp(rng.uniform(np.log(0.002), np.log(0.2), 2)))
            inside = np.exp(rng.uniform(np.log(a), np.log(b)))
            elsewhere = np.exp(rng.uniform(np.log(0.002), np.log(0.2)))
            near = from_plan(found.solve(elsewhere))
            assert isinstance(near, Stop)
            value = _interval_bound(found, a, b, near)
            assert value is None or value <= found.solve(inside).error * (1 + 1e-9)


def test_an_optimum_at_the_end_of_the_search_says_so():
    m, prices, budget, _, _ = STUDIES["joint, heun"]
    free = co.codesign(m, prices, budget, **PROGRAM)
    assert not free.outer["at_end"]
    inside = free.stopping_sigma
    below = co.codesign(m, prices, budget, search=(0.002, inside / 3), **PROGRAM)
    above = co.codesign(m, prices, budget, search=(inside * 3, inside * 10), **PROGRAM)
    assert below.outer["at_end"]
    assert below.stopping_sigma == pytest.approx(inside / 3, rel=0.02)
    assert above.outer["at_end"]
    assert above.stopping_sigma == pytest.approx(inside * 3, rel=0.02)


def test_spent_examples_cost_nothing_and_never_hurt():
    m, prices, budget, _, _ = STUDIES["joint, heun"]
    fresh = co.codesign(m, prices, budget, **PROGRAM)
    for density in (co.LogNormal(-1.2, 1.2), fresh.training_density)[: 2 if FULL else 1]:
        run = co.TrainingRun(density, 300, 64)
        more = co.codesign(m, prices, budget, run=run, **PROGRAM)
        assert more.error < fresh.error
        assert np.all(more.new_examples >= 0)
        spent = more.examples - more.new_examples
        np.testing.assert_allclose(spent, run.examples_on(more.levels), rtol=1e-12)
        assert more.costs["training"] + more.costs["sampling"] <= budget * (1 + 1e-9)
        # no better: as if the spent examples were bought with as much more budget
        rich = co.codesign(m, prices, budget + 3.0 * run.examples, **PROGRAM)
        assert more.error >= rich.error * (1 - 1e-3)


def test_the_sampler_with_the_smallest_handed_out_error_is_chosen():
    m, prices, budget = STUDIES["joint, heun"][0], PRICES, 2e4
    choices = [co.Euler(), co.Heun(), co.DPMpp2M()]
    plan = co.codesign(m, prices, budget, samplers=choices, polish=False, stopping_sigma=0.05, levels=60)
    table = plan.outer["samplers"]
    single = {
        repr(s): co.codesign(model(sampler=s), prices, budget, polish=False, stopping_sigma=0.05, levels=60).handed_out[
            "total"
        ]
        for s in choices
    }
    assert {k: v["error"] for k, v in table.items()} == pytest.approx(single)
    assert plan.handed_out["total"] == pytest.approx(min(single.values()))


def test_samplers_are_compared_at_the_same_evaluations():
    plan = co.codesign(model(), steps=13, samplers=[co.Euler(), co.Heun()], **PROGRAM)
    table = plan.outer["samplers"]
    assert table["Euler()"]["evaluations"] == 13
    assert table["Heun()"]["evaluations"] == 13
    assert table["Heun()"]["steps"] == 7


def test_a_given_grid_is_kept_and_steps_are_obeyed():
    m, prices, budget, _, _ = STUDIES["joint, heun"]
    grid = co.edm_grid(9, 0.01, 80.0)
    trained = co.codesign(m, prices, budget, sigmas=grid, levels=80)
    np.testing.assert_array_equal(trained.sigmas, grid)
    assert trained.costs["training"] == pytest.approx(budget - 1_000 * 17, rel=1e-6)
    both = co.codesign(m, prices, budget, steps=9, **PROGRAM)
    assert both.number_of_steps == 9
    assert both.error >= co.codesign(m, prices, budget, **PROGRAM).error


def test_training_is_best_where_the_marginal_gains_are_equal():
    m, prices, budget, _, _ = STUDIES["joint, heun"]
    plan = co.codesign(m, prices, budget, sigmas=co.edm_grid(9, 0.01, 80.0), levels=80)
    gain, trained = plan.tables["marginal_gain"], plan.examples > 0
    np.testing.assert_allclose(gain[trained], gain[trained].mean(), rtol=1e-3)
    assert np.all(gain[~trained] <= gain[trained].max())


@pytest.mark.slow
def test_constraints_that_are_functions_of_the_design_hold_at_every_stopping_point():
    m, prices, budget, _, _ = STUDIES["joint, heun"]
    floor = co.named("low-noise floor", lambda d: cp.sum(d.examples[d.sigma < 1.0]) >= 20_000)
    free = co.codesign(m, prices, budget, **PROGRAM)
    small = PROGRAM if FULL else PROGRAM | {"levels": 30, "points": 4}
    plan = co.codesign(m, prices, budget, constraints=[floor], **small, **LOOSE)
    assert plan.examples[plan.levels.sigma < 1.0].sum() >= 20_000 * (1 - 1e-6)
    assert free.examples[free.levels.sigma < 1.0].sum() < 20_000
    assert plan.error > free.error
    assert plan.shadow_prices["low-noise floor"] > 0


@pytest.mark.slow
def test_a_stability_cap_holds_for_euler_maruyama():
    m = model(sampler=co.EulerMaruyama(1.0), process=co.EDM(0.02, 20.0))
    cap = co.named("positivity", lambda d: co.StabilityCap(m.coefficients(d.levels.edges[0], 60)).constraints(d))
    quick = {"levels": 60, "points": 3, "search": (0.02, 0.06), "polish": False, "outer_tolerance": 0.5}
    plan = co.codesign(m, PRICES, 1e6 if FULL else 2e5, constraints=[cap], **(SMALL if FULL else quick))
    assert plan.certificate.optimal
    needed = m.sampler.minimum_steps(m.spectrum.eigenvalues, 20.0, plan.stopping_sigma).density
    assert plan.steps.sum() >= needed * (1 - 1e-3)
    assert plan.sigmas is not None


@pytest.mark.cases(1)
@pytest.mark.parametrize("process", [co.VP(), co.VE(), co.Cosine(0.01, 0.98), co.FlowMatching(0.01, 0.98)])
def test_every_process_is_planned_in_its_own_range(process):
    plan = co.codesign(model(process=process), PRICES, 1e5, **PROGRAM)
    assert plan.certificate.optimal
    assert plan.outer["status"] == "optimal"
    assert plan.sigmas[0] == process.sigma_max
    assert plan.stopping_sigma >= process.sigma_min * (1 - 1e-12)


@pytest.mark.cases(1)
@pytest.mark.parametrize("coupling", [co.Local(lambda s: 1.5 + np.tanh(np.log(s))), co.Local(2.7, form="p4"),
                                      co.PerLevel(np.geomspace(0.002, 80.0, 9))])  # fmt: skip
def test_every_coupling_is_planned_and_handed_out(coupling):
    budget, loose = (1e5, {}) if FULL else (1.5e4, LOOSE | {"levels": 30, "points": 4})
    plan = co.codesign(model(coupling=coupling), PRICES, budget, **SMALL | loose)
    assert plan.certificate.optimal
    assert plan.handed_out["total"] <= plan.error
    assert plan.costs["training"] + plan.costs["sampling"] <= budget * (1 + 1e-9)


@pytest.mark.parametrize("budget", [1e-3, 1.0, 999.0])
def test_a_budget_that_no_image_fits_into_is_infeasible_with_the_amount(budget):
    with pytest.raises(co.InfeasibleError, match=r"budget.*1,000"):
        co.codesign(model(), PRICES, budget, **SMALL)


def test_images_that_cost_nothing_need_steps():
    free = co.Prices(example=1.0, evaluation=1.0, images=0)
    with pytest.raises(ValueError, match="images is 0"):
        co.codesign(model(), free, 1e5, **SMALL)
    plan = co.codesign(model(), free, 1e5, steps=10, **PROGRAM)
    assert plan.number_of_steps == 10
    assert plan.examples.sum() == pytest.approx(1e5, rel=1e-6)


@pytest.mark.slow
def test_large_budgets_and_large_spectra_take_seconds():
    rich = co.codesign(model(), PRICES, 1e13 if FULL else 1e8, **(SMALL if FULL else PROGRAM))
    assert rich.certificate.optimal
    options = {"levels": 60, "points": 5, "polish": None if FULL else False}
    large = co.codesign(model(spectrum=co.Spectrum.power_law(100_000, 1.2)), PRICES, 1e6, **options)
    assert large.certificate.optimal
    assert large.outer["status"] == "optimal"


def test_progress_tells_of_every_stopping_point():
    lines = []
    plan = co.codesign(model(), steps=8, levels=40, points=5, polish=False, progress=lines.append)
    assert len(lines) >= 5
    assert all("stopping sigma" in line for line in lines)
    assert len(plan.curve) >= len(lines)


def test_exponent_of_the_stopping_point_in_the_step_size_under_a_correlation_length():
    # docs/theory.md section 10: with steps far below the correlation length, sigma_r ~ tau^(1/2) for "denoise"
    training = co.ConstantStepSGD(1e-3, 1, parameterization="x0")
    m = co.GaussianModel(
        co.Spectrum.from_eigenvalues([0.25]), co.EDM(1e-4, 5.0), co.Heun(), training=training, start="marginal"
    )
    law = co.stopping_exponent(m, [1e-5, 1e-4, 1e-3], steps=4000, search=(3e-4, 0.3))
    assert law.exponent == pytest.approx(0.5, abs=0.05)
    assert "0.500" in str(law)
    with pytest.raises(ValueError, match="AveragedSGD"):
        co.stopping_exponent(model(), [1e-5, 1e-4], steps=100, search=(1e-3, 0.1))


@pytest.mark.cases(1)
@pytest.mark.parametrize("sampler", [co.Euler(), co.Heun()], ids=["euler", "heun"])
@pytest.mark.parametrize("steps", [2, 3, 5, 9] if FULL else [2, 5])
def test_few_steps_are_never_worse_than_the_usual_grids_with_their_stopping_point_scanned(sampler, steps):
    found = co.GaussianModel(co.Spectrum.power_law(32, exponent=1.5), sampler=sampler)
    plan = co.codesign(found, steps=steps, levels=80, points=8 if FULL else 5)
    scanned = min(
        float(found.wasserstein2(family(steps, stop, 80.0)))
        for stop in np.geomspace(0.002, 20.0, 40)
        for family in (co.edm_grid, co.log_snr_grid)
    )
    assert plan.handed_out["bias"] == pytest.approx(float(found.wasserstein2(plan.sigmas)), rel=1e-9)
    assert plan.handed_out["total"] <= scanned
