"""What plans say against their own numbers: errors that cancel or are shared, matrices of few examples."""

import re
from itertools import pairwise

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.basics.wording import quantity

LAM = np.arange(1, 17) ** -0.7


def heun_bias(lam, sigmas):
    """Squared distance that Heun's steps from N(0, sigma_max^2) and a last denoiser call leave, written out."""
    amplitude = np.full(lam.size, sigmas[0])
    for high, low in pairwise(sigmas[:-1]):
        slope = high / (lam + high**2)
        moved = 1 + (low - high) * slope
        amplitude = amplitude * (1 + (low - high) / 2 * (slope + low / (lam + low**2) * moved))
    return float(((amplitude * lam / (lam + sigmas[-2] ** 2) - np.sqrt(lam)) ** 2).sum())


@pytest.fixture(scope="module")
def few_steps():
    model = co.GaussianModel(co.Spectrum.from_eigenvalues(LAM), sampler=co.Heun(), start="mean")
    return co.codesign(model, co.Prices(3.0, 1.0, 100), 1.5e3, levels=40, points=5)


def test_a_few_step_plan_says_that_its_errors_cancel_and_what_that_is_worth_on_other_variances(few_steps):
    (note,) = [note for note in few_steps.notes if "cancel" in note]
    said = [float(word) for word in re.findall(r"\d\.?\d*(?:e-\d+)?(?=[ ,:]|$)", note.replace("10%", ""))]
    v = LAM + few_steps.stopping_sigma**2
    alone = float(((LAM / np.sqrt(v) - np.sqrt(LAM)) ** 2).sum())
    bias = heun_bias(LAM, few_steps.sigmas)
    assert few_steps.handed_out["bias"] == pytest.approx(bias, rel=1e-9)
    assert bias < 0.5 * alone
    others = sorted(heun_bias(LAM * factor, few_steps.sigmas) for factor in (0.9, 1.1))
    np.testing.assert_allclose(said, [alone, bias, *others], rtol=0.02)


def test_the_one_number_of_a_plan_counts_errors_that_steps_share(few_steps):
    model = co.GaussianModel(co.Spectrum.from_eigenvalues(LAM), sampler=co.Heun(), start="mean")
    found = model.predict(few_steps.sigmas, few_steps.examples, levels=few_steps.levels)
    assert few_steps.handed_out["total"] == pytest.approx(found.total, rel=1e-12)
    assert few_steps.handed_out["last with steps"] == found.parts["last with steps"] != 0
    assert f"Predicted error {quantity(found.total)}" in str(few_steps)


def test_a_plan_says_where_few_examples_teach_a_node_without_a_prior():
    model = co.GaussianModel(
        co.Spectrum.from_eigenvalues(LAM), sampler=co.Ancestral(1.0), training=co.AveragedSGD(prior=None),
        start="mean", coupling=co.Local(0.3),
    )  # fmt: skip
    plan = co.codesign(model, co.Prices(3.0, 1.0, 10), 7e2, levels=40, points=5)
    fewest, where = model.predict(plan.sigmas, plan.examples, levels=plan.levels).fewest
    assert fewest < 10
    assert any(f"examples teach sigma {quantity(where, 3)}" in note for note in plan.notes)


@pytest.mark.parametrize("spread", [0.5, 1e-3, 1e-9, 1e-20, 1e-60])
def test_data_below_all_noise_are_told_and_refused_where_rounding_hides_them(spread):
    model = co.GaussianModel(co.Spectrum([spread**2], [4]), sampler=co.Euler())
    asked = [{"steps": 4}, {"prices": co.Prices(3.0, 1.0, 100), "budget": 1e3}]
    for question in asked:
        if spread > 1e-12 * 0.002:
            notes = co.codesign(model, **question, levels=20, points=3).notes
            assert any("no step sees them" in note for note in notes) == (spread < 0.002)
        else:
            with pytest.raises(ValueError, match=r"standard deviation is .*, the lowest noise 0\.002: rounding hides"):
                co.codesign(model, **question, levels=20, points=3)


def test_a_full_matrix_says_how_many_examples_a_weight_has():
    law = co.AveragedSGD(matrix="full")
    (said,) = law.warnings_for([0.1, 1.0], [1.0, 0.5], [1e3, 24.0], [3.0, 5.0])
    assert "8 weights a row and 3 examples for each at sigma 1: least squares leaves 1.6 times A / m" in said
    (said,) = law.warnings_for([0.1, 1.0], [1.0, 0.5], [1e3, 4.0], [3.0, 5.0])
    assert "no bound without a prior" in said
    assert law.warnings_for([0.1, 1.0], [1.0, 0.5], [1e3, 400.0], [3.0, 5.0]) == []


def test_an_exponent_of_stopping_points_at_the_end_of_the_search_is_refused():
    model = co.GaussianModel(
        co.Spectrum.from_eigenvalues([0.25]), co.EDM(1e-3, 5.0), start="marginal", terminal="rescale",
        training=co.ConstantStepSGD(1e-3, 1, parameterization="x0"),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"the best stopping point is the search's end, sigma 0\.003"):
        co.stopping_exponent(model, [1e-4, 1e-3], steps=1000, search=(3e-3, 0.3), levels=20, points=5)
