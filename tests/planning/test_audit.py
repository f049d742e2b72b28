"""Audit: the gap of today's schedule, its parts, and runs as they are stated and logged."""

import os
from dataclasses import replace

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.modeling.prediction import predict

PRICES = co.Prices(example=3.0, evaluation=1.0, images=1_000)
FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
ITERATIONS = 1_000 if FULL else 100
FAST = {"levels": 60, "points": 5} | ({} if FULL else {"outer_tolerance": 0.1})


@pytest.fixture(scope="module")
def model():
    return co.GaussianModel(co.Spectrum.power_law(24, exponent=1.5))


@pytest.fixture(scope="module")
def little_low_noise(model):
    """A run that trains high noise, and what an audit says of it."""
    grid = co.edm_grid(12 if FULL else 6, 0.01, 80.0)
    run = co.TrainingRun(co.LogNormal(2.0, 0.7), ITERATIONS, 64)
    return grid, run, co.audit(model, PRICES, sigmas=grid, run=run, **FAST)


def test_the_gap_of_random_schedules_is_the_sum_of_its_parts_and_the_ratio_at_least_one(model):
    rng = np.random.default_rng(4)
    for terminal in ("denoise", "rescale")[: 2 if FULL else 1]:
        for _ in range(2 if FULL else 1):
            count = int(rng.integers(5, 20 if FULL else 7))
            inner = np.sort(np.exp(rng.uniform(np.log(0.004), np.log(70.0), count)))[::-1]
            grid = np.concatenate([[80.0], inner, [0.0] if terminal == "denoise" else []])
            run = co.TrainingRun(co.LogNormal(rng.uniform(-2, 1), rng.uniform(0.6, 2.0)), ITERATIONS, 64)
            report = co.audit(replace(model, terminal=terminal), PRICES, sigmas=grid, run=run, **FAST)
            assert report.ratio >= 1.0
            assert all(part >= 0 for part in report.gap.values())
            best = report.current["total"] / report.ratio
            assert sum(report.gap.values()) == pytest.approx(report.current["total"] - best, rel=1e-9)
            evaluations = (grid.size - 2) * 2 + 1 if terminal == "denoise" else (grid.size - 1) * 2
            assert report.budget == pytest.approx(3.0 * 64 * ITERATIONS + 1_000 * evaluations, rel=1e-9)


def test_the_current_error_is_the_prediction_of_that_schedule(model, little_low_noise):
    grid, run, report = little_low_noise
    table = model.settled(grid, report.levels)
    mass = np.diff(run.density.mass(np.concatenate([[1e-12], table.levels.edges])).cumsum()) * 64 * ITERATIONS
    assert report.current["total"] == pytest.approx(model.predict(grid, mass, levels=table.levels).total, rel=1e-9)


@pytest.mark.slow
def test_the_plans_own_schedule_has_nothing_to_gain(model):
    budget, options = (2e5, {"levels": 100, "points": 8}) if FULL else (1.5e4, {"levels": 80, "points": 5})
    plan = co.codesign(model, PRICES, budget, **options)
    run = co.TrainingRun(plan.training_density, int(plan.examples.sum() // 64), 64)
    report = co.audit(model, PRICES, sigmas=plan.sigmas, run=run, **options)
    print(f"ratio of the plan's own schedule: {report.ratio:.5f}")
    assert report.ratio == pytest.approx(1.0, abs=5e-3)


def test_where_the_run_trains_too_little_the_excess_is_positive(little_low_noise):
    _, _, report = little_low_noise
    low = report.levels.sigma < 0.1
    assert report.excess_by_level[low].sum() > 0
    assert report.gap["training density"] > 0.5 * report.current["total"]


def test_levels_without_examples_are_named_and_cost_what_the_untrained_denoiser_does(model, little_low_noise):
    grid, run, report = little_low_noise
    few = report.within < 1
    assert few.any()
    told = " ".join(str(report).split())
    assert f"{report.levels.edges[few.argmin()]:.3g}" in told
    assert "the error there is that of an untrained denoiser" in told
    assert np.isfinite(report.current["total"])
    # all of the excess is there, where nothing more than the mean is known
    errors = model.settled(grid, report.levels)
    none = predict(model, grid, np.zeros(len(report.levels)), table=errors)
    assert report.current["score"] <= none["score"]
    assert none["score"] == pytest.approx(float((errors.log_width * 2.7 * errors.untrained).sum()), rel=1e-9)
    old = co.audit(replace(model, training=co.AveragedSGD(prior=None)), PRICES, sigmas=grid, run=run, **FAST)
    assert old.ratio > 1e3 * report.ratio


def test_a_bound_above_the_best_error_says_why(little_low_noise):
    _, _, report = little_low_noise
    assert report.optimum.certificate.lower_bound > report.optimum.handed_out["total"]
    assert "this bound is of the program, whose discretisation error is to leading order" in " ".join(
        str(report).split()
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one step", "steps in proportion"] if FULL else ["one step"])
def test_grids_that_start_in_pure_noise_are_audited_alike_however_high_they_start(model, kind):
    run, ratios, errors = co.TrainingRun(co.LogNormal(-1.2, 1.2), 400 if FULL else 40, 256), [], []
    euler = model.with_sampler(co.Euler())
    for start in (1e3, 1e6) if not FULL else (1e2, 1e3, 1e4, 1e5, 1e6):
        head = [start] if kind == "one step" else np.geomspace(start, 80.0, 2 + int(np.log(start / 80.0)))[:-1]
        report = co.audit(
            euler, PRICES, sigmas=np.r_[head, co.edm_grid(12 if FULL else 6, 0.01, 80.0)], run=run, **FAST
        )
        ratios.append(report.ratio)
        errors.append(report.current["total"])
    np.testing.assert_allclose(errors, errors[0], rtol=1e-2)
    if kind == "one step":  # more steps would buy the best more
        np.testing.assert_allclose(ratios, ratios[0], rtol=1e-2)


def test_a_grid_of_the_other_terminal_map_is_refused(model):
    run = co.TrainingRun(co.LogNormal(), 1000, 64)
    with pytest.raises(ValueError, match="terminal"):
        co.audit(model, PRICES, sigmas=co.edm_grid(8, 0.01, 80.0, terminal="rescale"), run=run)
    with pytest.raises(ValueError, match="run"):
        co.audit(model, PRICES, sigmas=co.edm_grid(8, 0.01, 80.0), run="yesterday")
    with pytest.raises(ValueError, match="sigmas"):
        co.audit(model, PRICES, sigmas=[1.0, 2.0], run=run)


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl"])
def test_logs_are_read_and_bad_lines_named(tmp_path, name):
    path = tmp_path / name
    rows = [(1000, 0.5, 0.1), (2000, 1.5, 0.09)]
    if name.endswith("csv"):
        path.write_text("examples,sigma,loss\n" + "\n".join(",".join(map(str, r)) for r in rows) + "\n")
    else:
        path.write_text("\n".join(f'{{"examples": {a}, "sigma": {b}, "loss": {c}}}' for a, b, c in rows))
    run = co.TrainingRun(co.LogNormal(), 10, 10, log=path)
    assert run.read_log()["sigma"].tolist() == [0.5, 1.5]
    text = path.read_text()
    path.write_text(text.replace("1.5", '"x"' if name.endswith("jsonl") else "x"))
    with pytest.raises(ValueError, match=r"line \d.*sigma"):
        run.read_log()
    path.write_text("")
    with pytest.raises(ValueError, match="no rows"):
        run.read_log()


def test_a_log_without_a_column_says_which(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("examples,loss\n1,2\n")
    with pytest.raises(ValueError, match="'sigma' is missing"):
        co.TrainingRun(co.LogNormal(), 10, 10, log=path).read_log()
    path = tmp_path / "log.jsonl"
    path.write_text("{broken\n")
    with pytest.raises(ValueError, match="line 1"):
        co.TrainingRun(co.LogNormal(), 10, 10, log=path).read_log()
    with pytest.raises(ValueError, match="log is None"):
        co.TrainingRun(co.LogNormal(), 10, 10).read_log()


def test_examples_outside_the_levels_are_lost_to_the_plan():
    levels = co.Levels.log_uniform(0.1, 1.0, 5)
    run = co.TrainingRun(co.LogNormal(0.0, 1.0), 100, 10)
    assert run.examples_on(levels).sum() == pytest.approx(
        1000 * float(co.LogNormal(0.0, 1.0).mass(np.array([0.1, 1.0]))[0])
    )
