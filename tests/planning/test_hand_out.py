"""What is handed out: never worse than peers beside it, fewer steps or free descents; its gradients."""

import os
from dataclasses import replace
from functools import partial
from itertools import pairwise, product

import numpy as np
import pytest
from scipy.optimize import minimize

import codesign_opt as co
from codesign_opt.basics.wording import quantity
from codesign_opt.models.grid_descent import Descent, Descents, NodeErrors, descend_nodes
from codesign_opt.planning.examples_cost import BestExamples, ExamplesCost
from codesign_opt.planning.grid_fit import ROUNDING
from codesign_opt.planning.question import Study
from codesign_opt.planning.settling import settle
from codesign_opt.samplers.node_gradient import node_gradient

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
SAMPLERS = (co.Euler(), co.Heun(), co.DPMpp2M(), co.Ancestral(1.0), co.EulerMaruyama(1.0))
LEAST = 1e-9  # of the data's variance; errors below are zero to anyone


def random_question(seed):
    """A model and what is asked of it: five samplers, 2 to 200 steps, 2 to 10 decades of sigma, half with a budget."""
    rng = np.random.default_rng(seed)
    d = int(rng.choice([1, 4, 16, 64, 200]))
    spectrum = (
        co.Spectrum.power_law(d, exponent=rng.uniform(0.3, 3.0))
        if rng.random() < 0.5
        else co.Spectrum.from_eigenvalues(np.exp(rng.uniform(-8.0, 2.0, d)))
    )
    decades = rng.uniform(2.0, 10.0)
    high = 10 ** rng.uniform(0.5, min(5.0, decades - 0.5))
    low = high / 10**decades
    model = co.GaussianModel(
        spectrum,
        process=co.EDM(low, high),
        sampler=SAMPLERS[int(rng.integers(5))],
        terminal=str(rng.choice(["denoise", "rescale"])),
        start=str(rng.choice(["noise", "mean", "marginal"])),
    )
    asked = {"levels": 60, "points": 8}
    steps = max(2, int(np.exp(rng.uniform(np.log(2), np.log(200)))))
    if rng.random() < 0.5:
        asked["steps"] = steps
    else:
        prices = co.Prices(rng.uniform(0.5, 5.0), 1.0, 10 ** rng.uniform(1.0, 4.0))
        asked |= {"prices": prices, "budget": float(prices.images * 10 ** rng.uniform(1.0, 3.0))}
    if rng.random() < 0.4:
        asked["stopping_sigma"] = float(low * 10 ** rng.uniform(0.0, 0.4 * decades))
    return model, asked


@pytest.mark.parametrize("seed", range(1000) if FULL else (1,))
def test_a_random_plan_is_never_worse_than_a_peer_beside_it_nor_than_fewer_steps(seed):
    model, asked = random_question(seed)
    try:
        plan = co.codesign(model, **asked)
    except co.InfeasibleError:
        pytest.skip("no grid fits")
    assert min(peer["total"] for peer in plan.peers.values()) >= plan.handed_out["total"] * (1 - 1e-6)
    assert plan.number_of_steps <= asked.get("steps", np.inf)
    if "budget" in asked:
        assert plan.costs["training"] + plan.costs["sampling"] <= asked["budget"] * (1 + 1e-9)
    elif asked["steps"] > 2:
        fewer = int(np.random.default_rng(seed).integers(2, asked["steps"]))
        before = co.codesign(model, **{**asked, "steps": fewer})
        limit = before.handed_out["total"] * (1 + 1e-6) + ROUNDING * model.spectrum.trace
        assert plan.handed_out["total"] <= limit


@pytest.mark.parametrize("steps", [40, 60] if FULL else [60])
def test_long_grids_of_patches_are_better_than_equal_steps_in_log_snr(steps):
    model = co.problems.load("photo_patches").model
    plan = co.codesign(model, steps=steps)
    assert plan.handed_out["total"] < 1e-4
    assert min(peer["ratio"] for peer in plan.peers.values()) > 1.0
    assert plan.handed_out["bias"] == pytest.approx(float(model.wasserstein2(plan.sigmas)), rel=1e-9)


def test_a_wide_range_with_little_money_is_handed_out_as_it_is_predicted():
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5), process=co.EDM(0.002, 1e5))
    plan = co.codesign(model, co.Prices(1.0, 1.0, 100), 1e4, levels=100, points=8)
    assert plan.handed_out["total"] < 1.3e-3  # 1.58 was handed out where 1.24e-3 was predicted
    assert plan.handed_out["total"] <= min(peer["total"] for peer in plan.peers.values())


def test_steps_that_are_allowed_are_the_most_and_never_hurt():
    model = co.GaussianModel(co.Spectrum.from_bands([0.25], [64]), sampler=co.DPMpp2M(), start="mean")
    prices = co.Prices(3.0, 1.0, 1000)
    # 1.75e-3 and 1.16e-3 were handed out; the few steps of this case lie on a flat valley of examples and nodes
    ten = co.codesign(model, prices, 1e5, levels=100, steps=10)
    assert ten.handed_out["total"] < 7.8e-4
    assert ten.number_of_steps <= 10
    if FULL:
        free = co.codesign(model, prices, 1e5, levels=100)
        assert free.handed_out["total"] <= ten.handed_out["total"] * (1 + 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS if FULL else SAMPLERS[1:2], ids=lambda s: s.name)
def test_more_steps_that_are_allowed_beside_a_budget_never_leave_more(sampler):
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5), sampler=sampler, start="mean")
    asked = {"prices": co.Prices(3.0, 1.0, 1000), "budget": 3e4, "levels": 60, "points": 5}
    plans = [co.codesign(model, steps=k, **asked) for k in ((3, 5, 6, 9, 12, 20) if FULL else (20,))]
    plans.append(co.codesign(model, **asked))
    errors = [plan.handed_out["total"] for plan in plans]
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(errors))
    if plans[-1].number_of_steps <= 20:  # a limit that does not bind changes nothing
        np.testing.assert_array_equal(plans[-2].sigmas, plans[-1].sigmas)


@pytest.mark.slow
def test_beside_a_run_whose_examples_are_plenty_a_plan_is_as_good_as_its_sampler_alone():
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5))
    asked = {"levels": 60, "points": 6}
    run = co.TrainingRun(co.LogNormal(-1.2, 1.2), 1000, 100)  # a thousand times what the budget adds
    beside = {"prices": co.Prices(3.0, 1.0, 100), "budget": 2000.0, "run": run, **asked}
    free, limited = co.codesign(model, **beside), co.codesign(model, **beside, steps=12)
    alone = co.codesign(model, steps=free.number_of_steps, **asked)
    assert free.handed_out["total"] <= 1.1 * alone.handed_out["total"]  # the examples of the run are plenty
    np.testing.assert_allclose(limited.handed_out["total"], free.handed_out["total"], rtol=1e-6)  # it does not bind


def test_what_money_is_worth_beside_a_run_is_the_slope_of_the_best_error_by_the_budget():
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5))
    grid, prices = co.edm_grid(12, 0.01, 80.0, terminal="denoise"), co.Prices(3.0, 1.0, 100)
    for run in (None, co.TrainingRun(co.LogNormal(-1.2, 1.2), 100, 100)):
        left = [
            settle(Study(model, prices, budget, None, run, (), (), 60, 1e-9), grid, even=True)
            for budget in (9900.0, 10_000.0, 10_100.0)
        ]
        slope = (left[0].total - left[2].total) / 200.0
        study = Study(model, prices, 10_000.0, None, run, (), (), 60, 1e-9)
        assert ExamplesCost(study, left[1].examples).worth == pytest.approx(slope, rel=1e-2)


@pytest.mark.slow
def test_no_limit_leaves_no_more_than_a_limit_beside_a_run_where_one_step_cancels_with_the_stop():
    model, asked = random_question(42)  # one band, ancestral steps, the noise left in
    run = co.TrainingRun(co.LogNormal(-9.64, 2.1), 155, 100)
    free, few = (co.codesign(model, **asked, run=run, **limit).handed_out["total"] for limit in ({}, {"steps": 9}))
    assert free <= few * (1 + 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "limits"), [(992, (1, 2, 15)), (300, (4, 8, 16)), (805, (8, 16, 40)), (524, (2, 8))])
def test_no_limit_leaves_no_more_than_a_limit_where_as_many_steps_as_bands_may_leave_nothing(seed, limits):
    model, asked = random_question(seed)  # of one band, or four: errors of steps cancel with what stopping leaves
    errors = [co.codesign(model, **asked, **({"steps": k} if k else {})).handed_out["total"] for k in (*limits, None)]
    assert all(more <= fewer * (1 + 1e-6) for fewer, more in pairwise(errors))


@pytest.mark.slow
def test_a_chain_does_not_end_before_it_leaves_less_than_usual_grids_of_more_steps():
    model, asked = random_question(805)  # four bands, Euler: seven steps left less than eight that had not moved
    plan = co.codesign(model, **asked)
    usual = co.edm_grid(64, plan.stopping_sigma, float(plan.sigmas[0]), terminal=model.terminal)
    assert plan.handed_out["total"] < model.bias(usual)


@pytest.mark.slow
def test_no_limit_leaves_no_more_than_a_limit_of_few_steps_where_errors_cancel():
    model, asked = random_question(496)  # noisy steps whose best numbers, 15 to 19, leave within a tenth of each other
    errors = [co.codesign(model, **asked, **limit).handed_out["total"] for limit in ({"steps": 16}, {"steps": 17}, {})]
    assert errors[2] <= errors[1] * (1 + 1e-6)
    assert errors[1] <= errors[0] * (1 + 1e-6)


@pytest.mark.parametrize("terminal", ["denoise", "rescale"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
def test_examples_in_closed_form_are_the_best_and_their_slope_that_of_finite_differences(sampler, terminal):
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5), sampler=sampler, terminal=terminal)
    study = Study(model, co.Prices(3.0, 1.0, 1000), 1e6, None, None, (), (), 100, 1e-6)
    for steps in (4, 9, 30):
        grid = co.edm_grid(steps, 0.01, 80.0, terminal=terminal)
        settled = settle(study, grid, even=True)
        best = BestExamples(study, settled.examples.costs["training"])
        found = best.of(grid[None], np.arange(1))
        (total,), (slope,) = found.values, found.slopes(np.arange(1))
        # no level straddles two steps: the program's examples are a little better, near the last evaluation alone
        assert 1 - 1e-9 < total / (settled.total - settled.handed_out["bias"]) < 1.001
        nodes = np.eye(grid.size)[1 : np.count_nonzero(grid)]
        found = (best.value(grid * np.exp(1e-5 * nodes)) - best.value(grid * np.exp(-1e-5 * nodes))) / 2e-5
        np.testing.assert_allclose(slope[1:], found, atol=2e-4 * np.abs(found).max())


def test_a_process_that_starts_above_the_data_has_a_range_of_stopping_points():
    model = co.GaussianModel(co.Spectrum.from_eigenvalues([1e-6, 1e-5]), process=co.EDM(0.1, 80.0))
    plan = co.codesign(model, steps=5, levels=40, points=5)
    assert 0.1 <= plan.stopping_sigma < 80.0
    with pytest.raises(ValueError, match="search runs from 90 to 100"):
        co.codesign(model, steps=5, search=(90.0, 100.0))


CASES = list(product((co.Euler(), co.Heun()), ("noise", "mean"), (None, 0.01)))


@pytest.mark.skipif(not FULL, reason="CODESIGN_OPT_FULL=1; every number of steps is in test_step_chain.py")
@pytest.mark.parametrize(("sampler", "start", "stop"), CASES)
def test_more_steps_never_leave_more(sampler, start, stop):
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5), sampler=sampler, start=start)
    errors = [
        co.codesign(model, steps=k, stopping_sigma=stop, levels=40, points=5).handed_out["total"]
        for k in (2, 3, 5, 8, 9, 17, 18, 33)
    ]
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(errors))


class Unstated(co.Heun):
    """A sampler whose steps are its own, so that what Heun states of their derivatives is not asked."""

    name = "unstated"

    def affine_steps(self, sigma, weights):
        return super().affine_steps(sigma, weights**1.1)


@pytest.mark.parametrize("sampler", [*SAMPLERS, Unstated(), co.Ancestral(1.7)], ids=lambda s: s.name)
@pytest.mark.parametrize("tail", [[0.0], []], ids=["denoise", "rescale"])
def test_gradient_by_the_nodes_is_that_of_a_complex_step_of_the_law(sampler, tail):
    rng = np.random.default_rng(0)
    lam = np.geomspace(1e-5, 10.0, 9)
    for steps in (2, 3, 7, 30):
        nodes = np.sort(np.exp(rng.uniform(np.log(0.002), np.log(80.0), steps + 1 - len(tail))))[::-1]
        grid, start = np.append(nodes, tail), np.full(lam.size, nodes[0] ** 2)
        found = node_gradient(sampler, grid, lam, start)
        moved = grid * np.exp(1e-30j * np.eye(grid.size)[: nodes.size])
        law = sampler.terminal_law(moved, lam, initial_variance=start)
        np.testing.assert_allclose(found.std, law.std[0].real, rtol=1e-12)
        scale = np.abs(law.std.imag).max() / 1e-30
        np.testing.assert_allclose(found.std_by_node, law.std.imag.T / 1e-30, atol=1e-9 * scale)
        gain = (np.sign(law.amplitude.real) * law.amplitude).imag.T / 1e-30
        np.testing.assert_allclose(found.gain_by_node, gain, atol=1e-9 * np.abs(gain).max())


@pytest.mark.cases(4)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
@pytest.mark.parametrize("training", [
    co.AveragedSGD(prior=None), co.AveragedSGD(prior="untrained", parameterization="edm", sigma_data=0.3),
    co.ConstantStepSGD(1e-5, 16, parameterization="x0"),
])  # fmt: skip
def test_gradient_of_the_score_error_is_that_of_finite_differences(sampler, training):
    spectrum = co.Spectrum.power_law(16, exponent=1.5)
    for terminal in ("denoise", "rescale"):
        model = co.GaussianModel(spectrum, sampler=sampler, terminal=terminal, training=training)
        grid = co.edm_grid(9, 0.01, 80.0, terminal=terminal)
        size = int(np.count_nonzero(grid))
        rng = np.random.default_rng(1)
        weights = NodeErrors(*rng.uniform(0.5, 2.0, (3, size)))

        def moved(k, shift, grid=grid):
            result = grid.copy()
            result[k] *= np.exp(shift)
            return result

        def value(grid, model=model, weights=weights):
            errors = model.node_errors(grid)
            known = zip(weights, errors, strict=True)
            return sum(float(weight @ error) for weight, error in known if error is not None)

        slope = model.node_errors_slope(grid, weights)
        found = [(value(moved(k, 1e-5)) - value(moved(k, -1e-5))) / 2e-5 for k in range(1, size)]
        np.testing.assert_allclose(slope[1:], found, atol=1e-6 * np.abs(found).max())
        study = Study(model, co.Prices(3.0, 1.0, 1000), 1e6, None, None, (), (), 100, 1e-6)
        settled = settle(study, grid, even=True)
        cost = ExamplesCost(study, settled.examples)
        assert cost.worth == pytest.approx(settled.reducible / settled.examples.costs["training"], rel=1e-3)
        held = cost.held(grid[None])
        found = held.of(grid[None], np.arange(1))
        (total,), (slope,) = found.values, found.slopes(np.arange(1))
        assert total == pytest.approx(settled.total - settled.handed_out["bias"], rel=3e-3)
        above, below = (np.array([moved(k, shift) for k in range(1, size)]) for shift in (1e-5, -1e-5))
        found = (held.value(above) - held.value(below)) / 2e-5
        np.testing.assert_allclose(slope[1:], found, atol=1e-4 * np.abs(found).max())


def free_descent(error, grid, low, high, starts, seed):
    """Least error over L-BFGS from random grids between two ends, by central differences of batches."""
    tail, size = grid[grid == 0], int(np.count_nonzero(grid)) - 1
    rng, best = np.random.default_rng(seed), np.inf

    def of(x):
        share = np.exp(x - x.max(axis=-1, keepdims=True))
        logs = np.cumsum(share / share.sum(axis=-1, keepdims=True), axis=-1)[..., :-1]
        inner = high * (low / high) ** logs
        ends = np.full((*x.shape[:-1], 1), 1.0)
        return np.concatenate([high * ends, inner, low * ends, np.zeros((*x.shape[:-1], tail.size))], axis=-1)

    def value(x):
        moved = np.concatenate([x[None], x + 1e-5 * np.eye(size), x - 1e-5 * np.eye(size)])
        grids = of(moved)
        if not np.all(np.diff(grids, axis=-1) < 0):
            return 1e3, np.zeros(size)
        values = np.log(error(grids))
        return values[0], (values[1 : size + 1] - values[size + 1 :]) / 2e-5

    for _ in range(starts):
        found = minimize(value, rng.normal(size=size, scale=0.7), jac=True, method="L-BFGS-B", options={"maxiter": 500})
        best = min(best, float(np.exp(found.fun)))
    return best


@pytest.mark.parametrize("cell", range(100) if FULL else (6,))
def test_nodes_are_within_two_percent_of_free_descents_from_random_starts(cell):
    rng = np.random.default_rng(cell)
    sampler, terminal = SAMPLERS[cell % 5], ("denoise", "rescale")[cell // 5 % 2]
    steps = int(np.exp(rng.uniform(np.log(3), np.log(40 if FULL else 9))))
    model = co.GaussianModel(
        co.Spectrum.power_law(int(rng.choice([4, 16])), exponent=rng.uniform(0.5, 2.5)),
        process=co.EDM(0.002, 80.0), sampler=sampler, terminal=terminal,
    )  # fmt: skip
    stop = float(np.exp(rng.uniform(np.log(0.002), np.log(0.1))))
    plan = co.codesign(model, steps=steps, stopping_sigma=stop, levels=60)
    grid = co.log_snr_grid(steps, stop, 80.0, terminal=terminal)
    free = free_descent(model.wasserstein2, grid, stop, 80.0, 20, cell)
    assert plan.handed_out["bias"] <= 1.02 * free + LEAST * model.spectrum.trace


def test_descended_nodes_are_never_worse_and_move_the_end_within_its_range():
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5), sampler=co.Heun())
    grid = co.edm_grid(8, 0.01, 80.0)
    held, error = descend_nodes(grid, Descent(model.exact_values, model.exact_residuals))
    assert held[-2] == 0.01
    free, _ = descend_nodes(
        grid, Descent(model.exact_values, model.exact_residuals, stops=(np.log(0.005), np.log(0.03)))
    )
    assert 0.005 * (1 - 1e-12) <= free[-2] <= 0.03 * (1 + 1e-12)
    assert float(model.wasserstein2(free)) <= error <= float(model.wasserstein2(grid))
    assert error == pytest.approx(float(model.wasserstein2(held)), rel=1e-9)


def test_descents_made_together_are_those_made_alone():
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5), sampler=co.DPMpp2M())
    study = Study(model, co.Prices(3.0, 1.0, 1000), 1e6, None, None, (), (), 100, 1e-6)
    starts = np.array([family(8, 0.01, 80.0) for family in (co.edm_grid, co.log_snr_grid)])
    how = Descent(
        partial(model.exact_values, sensitive=True),
        model.exact_residuals,
        BestExamples(study, 1e5),
        (np.log(0.005), np.log(0.03)),
    )
    together = Descents(starts, how)
    together.go(6, np.array([0]))
    together.go(12)
    for k, start in enumerate(starts):
        alone, error = descend_nodes(start, replace(how, moves=12))
        np.testing.assert_allclose(together.sigmas[k], alone, rtol=1e-6)
        assert together.errors[k] == pytest.approx(error, rel=1e-9)


def test_grids_that_the_question_does_not_admit_are_not_handed_out():
    class Coarse(Study):
        def admits(self, sigmas):
            return bool(np.diff(np.log(sigmas[sigmas > 0])).min() > -0.9)  # no step longer than 0.9 in log sigma

    from codesign_opt.planning.whole_steps import hand_out

    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5), sampler=co.Heun())
    free = Study(model, None, None, 12, None, (), (), 60, 1e-6)
    held = Coarse(model, None, None, 12, None, (), (), 60, 1e-6)
    plan = replace(free.solve(0.01), outer={"status": "given"}, curve=({},))
    loose, kept = (hand_out(study, plan, polish=None) for study in (free, held))
    assert np.diff(np.log(loose.sigmas[loose.sigmas > 0])).min() < -0.9
    assert np.diff(np.log(kept.sigmas[kept.sigmas > 0])).min() > -0.9
    assert kept.handed_out["total"] >= loose.handed_out["total"]


@pytest.mark.parametrize("constraints", [(), (co.Floor(30.0, "density"),)] if FULL else [()], ids=len)
def test_what_is_proved_stays_that_of_the_program_where_the_whole_steps_stop_elsewhere(constraints, tmp_path):
    model = co.GaussianModel(co.Spectrum.power_law(16, exponent=1.5), sampler=co.Heun())
    prices, asked = co.Prices(3.0, 1.0, 1000), {"levels": 40, "points": 5, "constraints": constraints}
    plan = co.codesign(model, prices, 3e4, **asked)
    proved = co.codesign(model, prices, 3e4, polish=False, **asked)
    assert abs(np.log(plan.stopping_sigma / plan.program_stopping_sigma)) > 0.1
    assert plan.program_stopping_sigma == proved.stopping_sigma
    assert proved.program_stopping_sigma is None
    assert plan.error == pytest.approx(min(record["error"] for record in plan.curve), rel=1e-6)
    for name in ("error", "breakdown", "certificate", "elasticities", "constraints", "outer"):
        assert getattr(plan, name) == getattr(proved, name)
    assert plan.shadow_prices["budget"] == proved.shadow_prices["budget"]
    for name in (name for name in proved.tables if name.startswith("shadow price of")):
        np.testing.assert_array_equal(plan.tables[name], proved.tables[name])
    program = proved.tables.get("program_sigma", proved.levels.sigma)  # where they are others
    np.testing.assert_array_equal(plan.tables["program_sigma"], program)
    # what is handed out is of its own stopping point, and within the budget
    assert plan.levels.edges[0] == plan.stopping_sigma == plan.sigmas[plan.sigmas > 0][-1]
    price = plan.costs["training"] + plan.costs["sampling"]
    assert price <= 3e4 * (1 + 1e-9)
    assert f"stops at sigma {quantity(plan.program_stopping_sigma)}" in str(plan)
    loaded = co.Plan.load(plan.save(tmp_path / "plan.json"))
    assert str(loaded) == str(plan)
    assert loaded.program_stopping_sigma == plan.program_stopping_sigma


def test_the_longest_grid_that_leaves_anything_for_training_is_tried():
    """The last step to zero noise takes one evaluation, others two: nine of them are five steps, not four."""
    model = co.GaussianModel(
        co.Spectrum.power_law(4, exponent=2.576), process=co.EDM(0.003035, 0.8674), sampler=co.Heun(), start="mean"
    )
    prices = co.Prices(example=0.15, evaluation=1.0, images=7_400)
    free, limited, fewer = (co.codesign(model, prices, 1.014 * 9 * 7_400, steps=k, levels=60) for k in (None, 5, 4))
    longest = co.edm_grid(5, limited.stopping_sigma, 0.8674)
    own = co.codesign(model, prices, 1.014 * 9 * 7_400, sigmas=longest, levels=60)
    assert own.costs["training"] > 0
    assert free.handed_out["total"] <= limited.handed_out["total"] * (1 + 1e-6)
    assert limited.handed_out["total"] <= min(fewer.handed_out["total"], own.handed_out["total"]) * (1 + 1e-6)


@pytest.mark.slow
def test_no_half_of_the_steps_leaves_less_over_many_decades():
    """Usual starts of 91 steps end in a valley so poor that the sizes below it were never tried: 90 were handed out."""
    model = co.GaussianModel(
        co.Spectrum.from_bands([1.388, 0.7514, 0.005484], [23, 4, 57]),
        process=co.EDM(0.0026, 6.2e6), sampler=co.Heun(), start="mean",
    )  # fmt: skip
    prices = co.Prices(example=1.96, evaluation=1.0, images=130)
    free, limited = (co.codesign(model, prices, 2.8354e5, steps=k, levels=40, points=5) for k in (None, 45))
    assert free.handed_out["total"] <= limited.handed_out["total"] * (1 + 1e-6)
    assert free.number_of_steps < 70


@pytest.mark.parametrize("start", ["marginal", "noise"])
def test_errors_of_grids_follow_from_their_residuals_where_a_model_states_no_shorter_way(start):
    model = co.GaussianModel(co.Spectrum.power_law(6, exponent=1.5), sampler=co.Heun(), start=start)
    grids = np.stack([co.edm_grid(7, 0.01, 80.0), co.log_snr_grid(7, 0.01, 80.0)])
    values, sensitivity = co.Model.exact_values(model, grids, sensitive=True)
    np.testing.assert_allclose(values, model.exact_values(grids)[0], rtol=1e-10)
    np.testing.assert_allclose(values, [float(model.exact_error(grid)) for grid in grids], rtol=1e-10)
    assert sensitivity is None  # residuals of this model do not tell
