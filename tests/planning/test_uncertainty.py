"""Intervals of plans: the program solved again at moved coefficients, and plans from samples of a known law."""

import os
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

import codesign_opt as co
from codesign_opt.ingredients.grids import grid_from_steps
from codesign_opt.models.unknowns import spectrum_bias
from codesign_opt.planning.optimum_change import Optimum
from codesign_opt.planning.question import Study

full = pytest.mark.skipif(not os.environ.get("CODESIGN_OPT_FULL"), reason="200 repeats; set CODESIGN_OPT_FULL=1")
PRICES, BUDGET = co.Prices(3.0, 1.0, 1e4), 1e6
TRUE = co.Spectrum.power_law(8, 1.5)


def draws(seed, size, spectrum=TRUE, heavy=False):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(size, len(spectrum))) * np.sqrt(spectrum.eigenvalues)
    return rows * np.sqrt(rng.gamma(2.0, 0.5, size=(size, 1))) if heavy else rows


# eigenvalues of samples


@pytest.mark.parametrize("heavy", [False, True], ids=["Gaussian", "scale mixture"])
def test_standard_errors_of_functions_of_eigenvalues_are_their_scatter_over_samples(heavy):
    """Of the trace, where eigenvalues of a scale mixture err together, and of the smallest alone."""
    found, told = [], []
    for seed in range(100):
        spectrum = co.Spectrum.from_samples(draws(seed, 400, heavy=heavy))
        deviations = spectrum.sampling.deviations
        found.append([spectrum.trace, spectrum.eigenvalues[-1]])
        told.append([np.sum(deviations.sum(axis=0) ** 2), np.sum(deviations[-1] ** 2)])
    ratio = np.mean(told, axis=0) / np.var(found, axis=0)
    assert np.all(np.abs(ratio - 1) < 5 * np.sqrt((2.0 if not heavy else 6.0) / 100))  # of a variance over 100


def test_bias_of_a_function_of_eigenvalues_is_its_mean_over_samples():
    """Of sum of f(lambda): Monte Carlo over samples, f = log, whose eigenvalues' repulsion is felt most below."""
    size, spectrum = 200, co.Spectrum.power_law(12, 1.0)
    values = [np.log(np.linalg.eigvalsh(np.cov(draws(seed, size, spectrum).T))).sum() for seed in range(250)]
    found = co.Spectrum.from_samples(draws(1, size, spectrum))
    told = float(spectrum_bias(found, np.ones(12)))
    error = np.std(values) / np.sqrt(250)
    assert abs(np.mean(values) - np.log(spectrum.eigenvalues).sum() - told) < 4 * error
    assert told < -10 * error  # and it is far from none


def test_sampling_survives_merging_and_a_file():
    spectrum = co.Spectrum.from_samples(draws(0, 400))
    merged = spectrum.in_bands(3)
    by_hand = np.array([
        (spectrum.counts[part, None] * spectrum.sampling.deviations[part]).mean(axis=0)
        for part in np.split(np.arange(8), np.cumsum(merged.counts).astype(int)[:-1])
    ])  # fmt: skip
    np.testing.assert_allclose(merged.sampling.deviations, by_hand)
    again = co.Spectrum.from_dict(merged.to_dict())
    np.testing.assert_array_equal(again.sampling.deviations, merged.sampling.deviations)
    assert co.Spectrum.from_samples(draws(0, 6)).sampling is None  # fewer than dimensions


# the optimum


@pytest.mark.parametrize(
    ("coupling", "training", "bends"),
    [
        (co.Local(), co.ConstantStepSGD(1e-4, 16), True),  # a few levels whose step is the correlation length
        (co.Local(form="p4"), co.AveragedSGD(), False),
        (co.PerStep(0.3), co.AveragedSGD(), False),
    ],
    ids=["local, at the bend", "smooth", "per step"],
)
def test_an_optimum_moves_as_programs_solved_again_do(coupling, training, bends):
    spectrum = co.Spectrum.from_samples(draws(0, 500))
    known = co.GaussianModel(spectrum, coupling=coupling, training=training).unknowns(length_error=0.1)
    size, step = len(known.sources), 1e-3
    study = Study(known.moved(np.zeros(size)), PRICES, BUDGET, None, None, (), (), 80, 1e-9)
    optimum = Optimum.at(study, 0.01, 80)
    assert bool(optimum._kinked.any()) == bends
    asked = (0, 6, size - 1)  # two eigenvalues and the correlation length
    moves = [step * np.eye(size)[j] for j in asked]
    pairs = [tuple(optimum.moved_table(known.moved(s * move)) for s in (1, -1)) for move in moves]
    change = optimum.change(pairs, step)
    for i, move in enumerate(moves):
        up, down = (Optimum.at(replace(study, model=known.moved(s * move)), 0.01, 80) for s in (1, -1))
        slope = (optimum.error(pairs[i][0]) - optimum.error(pairs[i][1])) / (2 * step)
        assert slope == pytest.approx((up.value - down.value) / (2 * step), rel=1e-3, abs=1e-6 * optimum.value)
        for name, told in (("new", change.examples[i]), ("steps", change.steps[i])):
            again = (getattr(up, name) - getattr(down, name)) / (2 * step)
            assert np.linalg.norm(told - again) <= 1e-3 * np.linalg.norm(again)


def test_steps_alone_and_measured_rows_move_as_programs_solved_again_do():
    """An EstimatedModel: a Gram matrix of signed rows, its kappa1 and sensitivity known to 20 % and 10 %."""
    sigma = np.geomspace(0.01, 80.0, 12)
    rows = np.stack([np.exp(-(np.log(sigma / at) ** 2)) for at in (0.1, 1.0, 5.0)]) * [[0.3], [1.0], [-0.5]]
    model = co.EstimatedModel(
        sigma, rows, truncation=1e-2 * sigma**4 / (1 + sigma**2), spectrum=co.Spectrum.power_law(4, 1.0),
        sensitivity=0.2 + sigma / (1 + sigma), error_variance=sigma**2 / (1 + sigma**2),
        standard_errors={"sensitivity": 0.1 * (0.2 + sigma / (1 + sigma)), "error_variance": np.full(12, 0.05)},
    )  # fmt: skip
    known = model.unknowns()
    assert known.sources.count("sensitivity") == known.sources.count("error variance") == 12
    study = Study(model, PRICES, BUDGET, None, None, (), (), 40, 1e-9)
    optimum, move, step = Optimum.at(study, 0.05, 40), np.zeros(24), 1e-3
    move[18] = step
    pair = tuple(optimum.moved_table(known.moved(s * move)) for s in (1, -1))
    change = optimum.change([pair], step)
    up, down = (Optimum.at(replace(study, model=known.moved(s * move)), 0.05, 40) for s in (1, -1))
    again = (up.new - down.new) / (2 * step)
    assert np.linalg.norm(change.examples[0] - again) <= 1e-2 * np.linalg.norm(again)
    plan = co.codesign(model, PRICES, BUDGET, levels=40, points=5, stopping_sigma=0.05)
    found = co.uncertainty(plan, model, PRICES, BUDGET, levels=40)
    assert found.stopping_sigma is None
    assert set(found.shares) == {"sensitivity", "error variance"}
    assert "responses" in found.omitted
    # an independent check of the interval: the error is sum of coefficients times what the design makes of them
    slopes = [(optimum.error(a) - optimum.error(b)) / (2 * step) for a, b in [pair]]
    assert slopes[0] == pytest.approx((up.value - down.value) / (2 * step), rel=1e-3)


# intervals


def truth(model, levels, stop=None):
    """Numbers of the program of the true law, from plans alone."""
    study = Study(model, PRICES, BUDGET, None, None, (), (), levels, 1e-8)
    if stop is None:
        stops = np.geomspace(0.004, 0.1, 40)
        errors = np.array([study.solve(float(s)).error for s in stops])
        best = int(np.argmin(errors))
        fit = np.polyfit(np.log(stops[best - 2 : best + 3]), errors[best - 2 : best + 3], 2)
        stop = float(np.exp(-fit[1] / (2 * fit[0])))
    plan = study.solve(stop)
    density = plan.training_density.lognormal()
    share = float(plan.new_examples @ plan.tables["example_price"]) / BUDGET
    told = {"error": plan.error, "stopping_sigma": stop, "P_mean": density.P_mean, "P_std": density.P_std}
    return told | {"training_share": share}, plan


def test_scores_of_intervals_are_standard_normal_over_samples():
    """Sums of squares of 6 scores each: a standard error off by a factor 2 either way fails."""
    told, _ = truth(co.GaussianModel(TRUE), 30, stop=0.01)
    scores = {"error": [], "P_mean": [], "training_share": []}
    for seed in range(6):
        model = co.GaussianModel(co.Spectrum.from_samples(draws(seed, 400)))
        plan = co.codesign(model, PRICES, BUDGET, stopping_sigma=0.01, levels=30, polish=False)
        found = co.uncertainty(plan, model, PRICES, BUDGET, levels=30)
        for name, each in scores.items():
            own = getattr(found, name)
            far = np.log(own.value / told[name]) if name == "error" else own.value - told[name]
            each.append(far / own.standard_error)
    for each in scores.values():
        assert chi2.ppf(0.002, 6) < np.sum(np.square(each)) < chi2.ppf(0.998, 6)


def test_levels_go_from_the_known_start_to_the_interval_of_the_best_stop():
    """The first level is the process's own, known exactly; the last is the best stop, not the one that was searched."""
    model = co.GaussianModel(co.Spectrum.from_samples(draws(3, 400)))
    plan = co.codesign(model, PRICES, BUDGET, levels=40, polish=False)
    away = replace(plan, program_stopping_sigma=1.04 * plan.stopping_sigma)
    rough, fine = (co.uncertainty(each, model, PRICES, BUDGET, levels=40) for each in (away, plan))
    assert rough.levels.covers(80.0)[0]
    assert rough.levels.standard_error[0] == 0
    for name in ("low", "value", "high"):
        ends = getattr(rough.levels, name)[-1], getattr(rough.stopping_sigma, name)
        assert ends[0] == pytest.approx(ends[1], rel=1e-3), name
    np.testing.assert_allclose(rough.levels.value, fine.levels.value, rtol=5e-3)


@full
@pytest.mark.parametrize(("heavy", "size"), [(False, 400), (True, 1000)], ids=["Gaussian", "scale mixture"])
def test_intervals_cover_the_truth_in_90_to_99_of_a_hundred_samples(heavy, size):
    told, plan_of_truth = truth(co.GaussianModel(TRUE), 80)
    covered = {name: [] for name in (*told, "levels")}
    for seed in range(200):
        model = co.GaussianModel(co.Spectrum.from_samples(draws(seed, size, heavy=heavy)))
        plan = co.codesign(model, PRICES, BUDGET, levels=80, polish=False, outer_tolerance=1e-2)
        found = co.uncertainty(plan, model, PRICES, BUDGET, levels=80)
        for name, value in told.items():
            covered[name].append(bool(getattr(found, name).covers(value)))
        grid = grid_from_steps(plan_of_truth.levels, plan_of_truth.steps, plan.number_of_steps)
        covered["levels"].append(found.levels.covers(grid[grid > 0]).mean())
    for name, each in covered.items():
        assert 0.90 <= np.mean(each) <= 0.99, (name, np.mean(each))


def test_a_level_where_training_has_hardly_begun_changes_no_interval():
    model = co.GaussianModel(co.Spectrum.from_samples(draws(13, 400)))
    spreads = []
    for stop in (
        0.01327810422696144,
        0.0135,
    ):  # at the first a level has 0.1 examples, which 1e-3 of an eigenvalue takes
        plan = co.codesign(model, PRICES, BUDGET, levels=80, polish=False, stopping_sigma=stop)
        found = co.uncertainty(plan, model, PRICES, BUDGET, levels=80)
        spreads.append([found.P_mean.standard_error, found.P_std.standard_error, found.training_share.standard_error])
    np.testing.assert_allclose(*spreads, rtol=0.02)


def test_refusals_name_what_is_missing():
    model = co.GaussianModel(TRUE, sampler=co.Euler())
    plan = co.codesign(model, steps=6, stopping_sigma=0.05, levels=40, polish=False)
    with pytest.raises(ValueError, match="no number of the model is measured"):
        co.uncertainty(plan, model, steps=6, levels=40)
    with pytest.raises(ValueError, match="an error of the transfer width is given, but Local"):
        co.uncertainty(plan, model, steps=6, width_error=0.1, levels=40)
    with pytest.raises(ValueError, match="give the model, prices, budget, steps and run"):
        co.uncertainty(plan, model, steps=12, length_error=0.1, levels=40)
