"""Training laws measured on networks, in Gaussian plans: docs/theory.md section 5.7."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.curves.error_law import ErrorLaw
from codesign_opt.training.measured import bayes_loss
from codesign_opt.training.optimisers import AveragedSGD, TrainingNoise

FULL = os.environ.get("CODESIGN_OPT_FULL") == "1"
LAM, COUNTS = np.array([4.0, 1.0, 0.02]), np.array([1.0, 3.0, 10.0])
SIGMA = np.geomspace(0.02, 30.0, 7)
SPECTRUM = co.Spectrum.from_bands(LAM, COUNTS)


@pytest.mark.parametrize("matrix", ["diagonal", "full"])
def test_a_law_of_least_squares_gives_what_least_squares_gives(matrix):
    # p = 1 along each direction, or as many as directions for a full matrix
    count = 1.0 if matrix == "diagonal" else COUNTS.sum()
    law = co.Measured([1.0], [count], matrix=matrix, prior=None)
    plain = AveragedSGD(matrix, prior=None)
    for terminal in ("denoise", "rescale"):
        for eta in (0.0, 0.7):
            options = {"eta": eta, "terminal": terminal}
            found = law.reducible(LAM, COUNTS, SIGMA, 0.01, **options)
            np.testing.assert_allclose(found, plain.reducible(LAM, COUNTS, SIGMA, 0.01, **options), rtol=1e-12)
    assert law.last_evaluation(LAM, COUNTS, 0.1) == pytest.approx(plain.last_evaluation(LAM, COUNTS, 0.1))
    np.testing.assert_allclose(
        law.last_evaluations(LAM, COUNTS, SIGMA)[0], plain.last_evaluations(LAM, COUNTS, SIGMA)[0], rtol=1e-12
    )


def test_output_errs_by_kappa1_over_m():
    # E|D - D*|^2 of slopes w along each direction is sum n v Var w: the definition, not the code's way to it
    kappa1 = 50.0 * SIGMA**2 / (1 + SIGMA**2)
    law = co.Measured.from_kappa1(SIGMA, kappa1, SPECTRUM)
    variance, _ = law.weight_variance(LAM, SIGMA)
    total = (COUNTS[:, None] * (LAM[:, None] + SIGMA**2) * variance).sum(axis=0)
    np.testing.assert_allclose(total, kappa1, rtol=1e-12)


def test_bayes_loss_is_the_error_of_the_best_denoiser_of_a_simulation():
    rng = np.random.default_rng(0)
    x0 = rng.standard_normal(200_000) * 2.0
    x = x0 + 0.5 * rng.standard_normal(x0.size)
    squares = (x * 4 / 4.25 - x0) ** 2
    assert bayes_loss(np.array([4.0]), np.array([1.0]), np.array([0.5]))[0] == pytest.approx(
        squares.mean(), abs=4 * squares.std() / np.sqrt(x.size)
    )


def test_a_plan_with_a_law_of_least_squares_is_the_plan_of_least_squares():
    model = co.GaussianModel(co.Spectrum.power_law(8, exponent=1.5), sampler=co.Euler())
    law = co.Measured([1.0], [1.0], parameterization="x0")
    prices = co.Prices(example=3.0, evaluation=1.0, images=1000)
    plans = [
        co.codesign(one, prices, 1e5, stopping_sigma=0.02, levels=60, polish=False)
        for one in (model, dataclasses.replace(model, training=law))
    ]
    assert plans[1].error == pytest.approx(plans[0].error, rel=1e-9)
    np.testing.assert_allclose(plans[1].examples, plans[0].examples, rtol=1e-6)


def test_examples_are_counted_within_the_models_length():
    # the same run: error kappa1 / (density x 1.35) = 2 kappa1 / (density x 2.7)
    law = co.Measured([0.1, 10.0], [20.0, 30.0], log_width=1.35)
    model = co.GaussianModel(SPECTRUM, training=law, coupling=co.Local(2.7))
    np.testing.assert_allclose(model.training.parameters, [40.0, 60.0])
    again = dataclasses.replace(model, coupling=co.Local(1.35))
    np.testing.assert_allclose(again.training.parameters, [20.0, 30.0])


def test_many_stopping_points_at_once_are_those_one_by_one():
    law = co.Measured(SIGMA, 10 + SIGMA, floor_share=0.1 * np.ones(SIGMA.size), sigma_data=1.0)
    model = co.GaussianModel(SPECTRUM, training=law)
    stops = np.array([0.01, 0.05, 0.3])
    batch = model.coefficient_batch(stops, 40)
    for row, stop in enumerate(stops):
        table = model.coefficients(float(stop), 40)
        used = batch.score[row] > 0
        np.testing.assert_allclose(batch.score[row][used], table.score, rtol=1e-9)
        np.testing.assert_allclose(batch.floor[row][used], table.floor, rtol=1e-9)
        assert batch.final_floor[row] == pytest.approx(table.final_floor)


def test_levels_where_nothing_fell_are_interpolated_over_and_all_zeros_refused():
    law = co.Measured.from_kappa1([0.1, 1.0, 10.0], [1.0, 0.0, 1.0], SPECTRUM)
    assert law.sigma.tolist() == [0.1, 10.0]
    with pytest.raises(ValueError, match="0 at every level"):
        co.Measured.from_kappa1([0.1, 1.0], [0.0, 0.0], SPECTRUM)


def test_a_law_that_pools_neighbours_is_refused():
    with pytest.raises(ValueError, match=r"transfer width of 0\.5"):
        co.Measured.of(ErrorLaw([1.0], [1.0], transfer_width=0.5), SPECTRUM)


def test_kappa2_becomes_a_floor():
    errors = ErrorLaw([0.5, 2.0], [1.0, 1.0], step_noise=[4.0, 4.0], log_width=1.0)
    law = co.Measured.of(errors, SPECTRUM, rate=0.01)
    _, floor = law.weight_variance(LAM, np.array([0.5]))
    assert float((COUNTS[:, None] * (LAM[:, None] + 0.25) * floor).sum()) == pytest.approx(0.04)


def test_saved_and_loaded_as_it_was(tmp_path):
    law = co.Measured(SIGMA, 10 + SIGMA, source="a test", record={"seeds": [1]})
    again = co.Measured.load(law.save(tmp_path / "law.json"))
    assert again.to_dict() == law.to_dict()
    assert TrainingNoise.from_dict(json.loads(json.dumps(law.to_dict()))).speaks_of == "networks like a test"
    plan = co.codesign(co.GaussianModel(SPECTRUM, training=law), steps=4, stopping_sigma=0.1, levels=40)
    assert co.Plan.load(plan.save(tmp_path / "plan.json") or tmp_path / "plan.json").number_of_steps == 4
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no measured training"):
        co.Measured.load(tmp_path / "other.json")
    with pytest.raises(ValueError, match="is no file and none of"):
        co.Measured.load("mlp_nothing")


@pytest.mark.parametrize("name", co.Measured.names())
def test_every_law_that_comes_along_says_where_it_is_from(name):
    law = co.Measured.load(name)
    assert {"command", "title", "training", "seeds", "images", "parameters"} <= set(law.record)
    assert law.source == law.record["title"]
    scaled = co.Measured.load(name, sigma_data=2 * law.sigma_data)
    np.testing.assert_allclose(scaled.sigma, 2 * law.sigma)


@pytest.mark.skipif(not FULL, reason="CODESIGN_OPT_FULL=1 trains networks for some minutes")
@pytest.mark.parametrize("name", co.Measured.names())
def test_networks_trained_as_planned_err_as_predicted(name):
    pytest.importorskip("torch")
    from problems.studies.calibration import predicted_and_realised

    try:
        found = predicted_and_realised(name, 1e6)
    except FileNotFoundError as absent:
        pytest.skip(str(absent))
    assert 0.5 <= found["ratio"] <= 2.0, found
