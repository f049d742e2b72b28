"""What is said of a measured grid: on draws that chose nothing, against a converged solution, with an honest error."""

import json
import os
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import codesign_opt as co
from codesign_opt.estimate import Draws, Measurement, Reference, measured_error, network
from codesign_opt.estimate.fine_to_data import fine_to_data
from codesign_opt.estimate.steps.grid_error import GridErrors, objective_of
from codesign_opt.estimate.steps.stated_error import ENOUGH, StatedErrors
from codesign_opt.ingredients.measured_error import MeasuredError
from codesign_opt.planning.stated import stated
from codesign_opt.testbed import Mixture, cached, circle8, clusters4, grid8

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
DOUBLE = torch.zeros((), dtype=torch.float64)
FEW = Measurement(levels=5, draws=64, fine_steps=32 if FULL else 16, evaluations=6_000 if FULL else 3_500)
SHORT = {"points": 3, "levels": 30}


def fine(mixture, sampler=None, *, count=64, steps=32, name="draws", seed=0):
    size = mixture.means.shape[1]
    draws = Draws((size,), count, 80.0, seed=seed, name=name, chunk=count, like=DOUBLE)
    return Reference(mixture, sampler or co.Heun(), draws, 0.002, steps=steps)


@pytest.fixture(scope="module")
def model():
    world = clusters4()
    return network(world, world.sample(2_000, dtype=torch.float64), measurement=FEW, seed=1)


@pytest.fixture(scope="module")
def plan(model):
    return co.codesign(model, steps=8, **SHORT)


# the fine solution


@pytest.mark.parametrize("world", [circle8(), grid8()], ids=["circle", "grid"])
def test_the_fine_solution_is_of_order_four_and_nearer_than_heuns_of_as_many_calls(world):
    ends = {steps: fine(world, steps=steps).terminal_states(0) for steps in (32, 64, 512)}
    left = [float((ends[steps] - ends[512]).square().sum(dim=1).median()) for steps in (32, 64)]
    assert 0.5 < left[0] / left[1] / 2**8 < 2  # squares of the fourth power
    heun = co.estimate.run(world, co.Heun(), co.edm_grid(65, 0.002, 80.0), fine(world).draws.start(0))
    assert left[0] < 0.01 * float((heun - ends[512]).square().sum(dim=1).median())


@pytest.mark.slow
@pytest.mark.parametrize("steps", [4, 16] if FULL else [8])
@pytest.mark.parametrize(("world", "objective"), [(clusters4(), "mean"), (grid8(), "trimmed")], ids=["mean", "trimmed"])
def test_the_share_of_the_fine_solution_bounds_what_its_error_does_to_the_number(world, objective, steps):
    own, converged = (StatedErrors(fine(world, count=400, steps=each)) for each in (steps, 300))
    grids = {"plan": co.edm_grid(14, 0.02, 80.0), "other": co.log_snr_grid(14, 0.02, 80.0)}
    truth = converged.state(grids, objective, 0)
    before, after = (own.state(grids, objective, budget) for budget in (0, 2_000))
    for said in (before, after):
        for name, each in said.items():
            assert abs(each.value - truth[name].value) <= each.fine_share * each.value
            assert each.draws == 400
    assert after["plan"].fine_share <= ENOUGH < before["plan"].fine_share  # refined until it is
    assert after["plan"].fine_steps > steps == before["plan"].fine_steps
    assert after["other"].ratio == pytest.approx(truth["other"].ratio, rel=2 * ENOUGH)


def test_a_stochastic_sampler_is_refined_by_its_own_strong_order():
    sampler, grid = co.Ancestral(1.0), co.edm_grid(8, 0.02, 80.0)
    own = StatedErrors(fine(clusters4(), sampler, count=32, steps=8))
    truth = measured_error(fine(clusters4(), sampler, count=32, steps=100), grid).mean.value
    said = own.state({"plan": grid}, "mean", 0)["plan"]
    assert abs(said.value - truth) <= said.fine_share * said.value


# the error of the number


def test_two_standard_errors_cover_means_of_heavy_tails():
    rng, hits = np.random.default_rng(0), {}
    for width in (1.0, 1.5, 2.0):
        errors = rng.lognormal(0.0, width, (400, 256))
        found = [GridErrors(row).mean for row in errors]
        hits[width] = np.mean([abs(f.value - np.exp(width**2 / 2)) <= 2 * f.standard_error for f in found])
    assert hits[1.0] > 0.93
    assert hits[1.5] > 0.9
    assert hits[2.0] > 0.84


@pytest.mark.parametrize("objective", ["mean", "trimmed", "geometric"])
def test_standard_errors_of_statistics_and_ratios_are_their_spread_over_repetitions(objective):
    rng = np.random.default_rng(1)
    one = rng.lognormal(0.0, 0.7, (300, 200))
    two = 0.6 * one * rng.lognormal(0.0, 0.2, one.shape)
    found = [GridErrors(row).of(objective) for row in one]
    ratios = [GridErrors(b).ratio(GridErrors(a), objective) for a, b in zip(one, two, strict=True)]
    for each, room in ((found, 1.4 if objective == "mean" else 1.1), (ratios, 1.1)):  # the unseen tail adds some
        spread = np.std([e.value for e in each])
        assert spread / 1.1 < np.mean([e.standard_error for e in each]) < room * spread


def test_more_draws_are_taken_where_few_of_them_decide():
    world, grid = grid8(), co.edm_grid(18, 0.04, 80.0)  # three of some hundred draws carry most of it
    light = StatedErrors(fine(clusters4(), count=64)).state({"plan": grid}, "mean", 50_000)["plan"]
    heavy = StatedErrors(fine(world, count=64)).state({"plan": grid}, "mean", 50_000)["plan"]
    assert (light.draws, heavy.draws) == (64, 256)
    assert heavy.largest_share > 0.3 > light.largest_share
    assert StatedErrors(fine(world, count=64)).state({"plan": grid}, "mean", 100)["plan"].draws == 64


# a plan's number


@pytest.mark.slow
def test_what_is_said_comes_from_draws_that_chose_nothing_and_agrees_with_others(model, plan):
    probe, said = model.probe, plan.measured
    names = [
        draws.name for draws in (probe.reference.draws, probe.held_out, probe.choosing, probe.said.reference.draws)
    ]
    assert len(set(names)) == 4
    fresh = fine(clusters4(), count=1000, steps=64, seed=9)
    for name, grid in (("plan", plan.sigmas), ("edm", co.edm_grid(8, plan.stopping_sigma, 80.0))):
        truth = measured_error(fresh, grid).mean
        own = (
            (said.value, said.standard_error)
            if name == "plan"
            else [plan.peers[name][k] for k in ("total", "standard_error")]
        )
        assert abs(own[0] - truth.value) <= 3 * np.hypot(own[1], truth.standard_error)
    assert plan.handed_out["total"] == said.value


def test_a_measured_plan_leads_with_its_error_and_names_the_prediction(plan):
    lines = str(plan).splitlines()
    assert lines[1].startswith(f"Measured error {said_of(plan)}: mean squared distance")
    assert "% of the data's total variance" in lines[2]
    text = " ".join(" ".join(lines).split())
    assert "quote the measured error: its" in text
    assert "the program's prediction, to leading order, was" in text
    assert "edm, full range" in text
    assert "edm, the plan's range" in text
    assert "floor: the fine solution itself is" in text
    assert all(len(line) <= 88 for line in lines if "denoiser" not in line)


def said_of(plan):
    from codesign_opt.basics.wording import quantity

    return f"{quantity(plan.measured.value)} ± {quantity(plan.measured.standard_error, 2)}"


def test_a_grid_that_no_descent_betters_is_called_by_its_name(model, plan):
    given, found = co.edm_grid(8, 0.05, 80.0), plan
    assert not any("found nothing better" in note for note in found.notes)
    named = stated(model, replace(found, sigmas=given), {}, given=False)
    assert "this is EDM's grid, with its last level at sigma 0.05" in named.notes[0]
    assert "descent" not in " ".join(stated(model, replace(found, sigmas=given), {}, given=True).notes)


def test_a_measured_plan_is_the_same_when_it_was_saved(plan, tmp_path):
    again = co.Plan.load(plan.save(tmp_path / "plan.json"))
    assert again.measured == plan.measured
    assert again.estimation.floor == plan.estimation.floor
    assert str(again) == str(plan)


def test_files_before_measured_errors_load(plan, tmp_path):
    path = plan.save(tmp_path / "plan.json")
    record = json.loads(path.read_text())
    del record["measured"], record["estimation"]["floor"], record["checksum"]
    path.write_text(json.dumps(record))
    old = co.Plan.load(path)
    assert old.measured is None
    assert "Measured error" in str(old)


# objectives


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["trimmed", "geometric"] if FULL else ["trimmed"])
def test_a_plan_by_another_statistic_has_less_of_it_and_says_both(model, plan, objective, tmp_path):
    found = co.codesign(model, steps=8, objective=objective, **SHORT)
    assert found.measured.objective == objective
    assert found.handed_out["total"] == found.measured.value < found.measured.mean
    fresh, value = fine(clusters4(), count=500, steps=64, seed=9), objective_of(objective)
    ours, means = (value(measured_error(fresh, each.sigmas).errors)[0] for each in (found, plan))
    assert ours < (0.95 if FULL else 1.1) * means
    assert "the mean of the same draws is" in " ".join(str(found).split())
    assert str(co.Plan.load(found.save(tmp_path / "plan.json"))) == str(found)


def test_the_objective_of_a_model_is_that_of_its_plans(model):
    typical = model.with_objective("geometric")
    found = co.codesign(typical, steps=4, stopping_sigma=0.3, levels=20, polish=False)
    assert found.measured.objective == typical.probe.objective == "geometric"
    with pytest.raises(ValueError, match="objective"):
        network(clusters4(), torch.zeros(10, 2), objective="median")


def test_exact_errors_have_no_other_statistic():
    gaussian = co.GaussianModel(co.Spectrum.from_eigenvalues([1.0]))
    assert co.codesign(gaussian, steps=4, objective="mean", **SHORT).measured is None
    with pytest.raises(ValueError, match="objective is 'geometric', but the errors of"):
        co.codesign(gaussian, steps=4, objective="geometric", **SHORT)


@pytest.mark.slow
def test_a_guided_denoiser_is_planned_by_the_typical_draw_too():
    world = clusters4()
    one = Mixture(world.means[:1], world.widths[:1], np.ones(1))
    steered = co.estimate.guided(one, world, 1.5, interval=(0.2, 5.0))
    data, small = world.sample(500, dtype=torch.float64), replace(FEW, draws=16, evaluations=2_000)
    estimated = network(steered, data, measurement=small, objective="geometric", check=False)
    found = co.codesign(estimated, steps=5, stopping_sigma=0.1, levels=20)
    fresh = Reference(steered, co.Heun(), Draws((2,), 300, 80.0, seed=5, chunk=300, like=DOUBLE), 0.002, steps=200)
    truth = GridErrors(measured_error(fresh, found.sigmas).errors).geometric_mean
    assert abs(found.measured.value / truth.value - 1) < 3 * found.measured.relative_error + 0.05


# the floor


def test_distances_to_the_data_are_those_of_the_laws_without_bias():
    rng, lam = np.random.default_rng(0), np.arange(1.0, 33.0) ** -1.5
    found = []
    for _ in range(24):
        outputs, data = (torch.as_tensor(rng.normal(size=(count, lam.size)) * np.sqrt(lam)) for count in (128, 800))
        found.append([fine_to_data(scale * outputs + shift, data) for scale, shift in ((1.0, 0.0), (1.3, 0.1))])
    for one, truth in zip(zip(*found, strict=True), (0.0, lam.sum() * 0.3**2 + lam.size * 0.1**2), strict=True):
        values = np.array([each.gaussian for each in one])
        error = np.mean([each.gaussian_standard_error for each in one])
        assert abs(values.mean() - truth) < 3 * values.std() / 24**0.5
        assert 0.7 < error / values.std() < 1.8
    equal, other = ([each[i].energy for each in found] for i in (0, 1))
    assert abs(np.mean(equal)) < 3 * np.std(equal) / 24**0.5
    assert np.mean(other) > 10 * np.std(equal)


@pytest.mark.slow
def test_a_network_with_an_error_of_its_own_is_told_that_no_grid_mends_it():
    world = clusters4()
    data = world.sample(2_000, dtype=torch.float64)
    wrong = network(lambda x, s: 0.8 * world(x, s), data, measurement=FEW, check=False)
    floor = wrong.estimation.floor
    assert floor.seen
    outputs = Reference(
        lambda x, s: 0.8 * world(x, s), co.Heun(), fine(world, count=4_000, seed=3).draws, 0.002, steps=24
    )
    spread = outputs.terminal_states(0).square().mean(dim=0).sqrt().numpy()  # both laws are symmetric
    root = np.sqrt(np.diag(world.covariance))
    truth, error = np.sum((spread - root) ** 2), 2 * np.abs(spread - root).max() * spread.max() / 4_000**0.5
    assert abs(floor.gaussian - truth) <= 3 * np.hypot(floor.gaussian_standard_error, error)
    text = " ".join(str(co.codesign(wrong, steps=5, **SHORT)).split())
    assert "more steps or a better grid cannot help below this: it is the network's own error" in text


def test_few_examples_have_no_floor():
    assert fine_to_data(torch.zeros(20, 2), torch.zeros(10, 2)) is None


def test_a_record_out_of_range_is_named():
    good = asdict(MeasuredError(1.0, 0.1, 256, "mean", 1.0, 0.1, 3, 0.05, 32, 0.004))
    for name, value in (("objective", "median"), ("draws", 0), ("value", -1.0)):
        with pytest.raises(ValueError, match=f"MeasuredError.{name}"):
            MeasuredError(**{**good, name: value})


# forty plans


def world_of(number):
    rng = np.random.default_rng([number, 7])
    if number % 5 in (0, 1, 3):
        return {0: grid8, 1: circle8, 3: clusters4}[number % 5]()
    dims, kinds = int(rng.integers(4, 20)), int(rng.integers(3, 12))
    widths = rng.uniform(0.2, 0.6, kinds) if number % 5 == 2 else rng.uniform(0.5, 1.0, kinds)
    return Mixture(rng.normal(size=(kinds, dims)), widths, rng.uniform(0.5, 1.5, kinds))


def off_by(denoiser, data, number, sampler, steps):
    """How many of its own standard errors a plan's number is off that of 2,000 fresh draws, converged."""
    like = torch.zeros((), dtype=data.dtype)
    model = network(denoiser, data, sampler=sampler, seed=number, measurement=Measurement(levels=8), check=False)
    said = co.codesign(model, steps=steps, points=6, levels=60)
    draws = Draws(tuple(data.shape[1:]), 2_000, 80.0, seed=1000 + number, name="fresh", chunk=2_000, like=like)
    truth = measured_error(Reference(denoiser, sampler, draws, 0.002, steps=128), said.sigmas).errors.mean()
    return (said.measured.value - truth) / said.measured.standard_error


@pytest.mark.skipif(not FULL, reason="forty plans take some minutes")
def test_forty_plans_say_their_error_within_two_standard_errors():
    off = []
    for number in range(40):
        sampler = (co.Heun(), co.DPMpp2M(), co.Euler())[number % 3]
        steps = int(np.random.default_rng([number, 3]).choice([5, 8, 12, 18]))
        world = world_of(number)
        off.append(off_by(world, world.sample(3_000, seed=number, dtype=torch.float64), number, sampler, steps))
    assert np.mean(np.abs(off) <= 2) >= 0.9, off


@pytest.mark.skipif(not FULL, reason="needs the trained networks of the testbed")
@pytest.mark.parametrize("name", ["digits", "grid8"])
def test_plans_of_trained_networks_say_their_error_within_two_standard_errors(name):
    try:
        denoiser = cached(name)
    except FileNotFoundError:
        pytest.skip(f"train {name} first")
    data = co.testbed.RECIPES[name].data()
    off = [off_by(denoiser, data, i, sampler, 8) for i, sampler in enumerate((co.Heun(), co.DPMpp2M(), co.Euler()))]
    assert np.mean(np.abs(off) <= 2) >= 2 / 3, off
