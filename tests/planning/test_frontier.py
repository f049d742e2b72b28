"""Frontier: sweeps of budgets and of images, failures recorded, break-even interpolated."""

import numpy as np
import pytest

import codesign_opt as co

PRICES = co.Prices(example=3.0, evaluation=1.0, images=1_000)
FAST = {"stopping_sigma": 0.02, "levels": 40, "polish": False}


@pytest.fixture(scope="module")
def model():
    return co.GaussianModel(co.Spectrum.power_law(24, exponent=1.5), sampler=co.Euler())


def test_more_budget_is_never_worse_and_every_plan_is_certified(model):
    found = co.frontier(model, PRICES, np.geomspace(1e4, 1e7, 6), **FAST)
    assert found.axis == "budget"
    assert np.all(np.diff([p.error for p in found.plans]) < 0)
    assert all(p.certificate.optimal for p in found.plans)
    assert found.steps.tolist() == [p.number_of_steps for p in found.plans]
    np.testing.assert_allclose(found.budgets, np.geomspace(1e4, 1e7, 6))
    assert len(str(found).splitlines()) == 8  # whose errors, the titles, six budgets


def test_a_budget_that_is_too_small_is_recorded_and_the_sweep_goes_on(model):
    found = co.frontier(model, PRICES, [10.0, 1e5], **FAST)
    assert found.plans[0] is None
    assert "budget" in found.failures[0]
    assert found.plans[1] is not None
    assert np.isnan(found.errors[0])
    assert "budget" in str(found)


@pytest.mark.slow
def test_more_images_make_sampling_dearer_and_break_even_lies_between(model):
    images = np.geomspace(1, 1e5, 6)
    lines = []
    found = co.frontier(model, PRICES, 1e6, images=images, progress=lines.append, **FAST)
    assert found.axis == "images"
    assert len(lines) == 6
    assert np.all(np.diff([p.error for p in found.plans]) > 0)
    share = found.training_share
    even = found.break_even()
    if np.isnan(even):
        assert np.all(share > 0.5) or np.all(share < 0.5)
    else:
        i = np.searchsorted(images, even)
        assert (share[i - 1] - 0.5) * (share[i] - 0.5) <= 0


def test_break_even_interpolates_in_the_logarithm(model):
    class Stub:
        def __init__(self, share):
            self.costs = {"training": share, "sampling": 1 - share}

    made = co.Frontier("images", np.array([1.0, 10.0, 100.0]), (Stub(0.9), Stub(0.6), Stub(0.4)), {})
    assert made.break_even() == pytest.approx(10 * 10**0.5)
    assert np.isnan(co.Frontier("images", np.array([1.0, 10.0]), (Stub(0.9), Stub(0.6)), {}).break_even())
    assert np.isnan(co.Frontier("images", np.array([1.0, 10.0]), (Stub(0.9), None), {1: "no"}).break_even())


@pytest.mark.parametrize("budgets", [[], [1e5, 1e4], [1e4, 1e4], [np.nan], [-1.0], "1e4", [True]])
def test_bad_budgets_are_named(model, budgets):
    with pytest.raises(ValueError, match="budgets"):
        co.frontier(model, PRICES, budgets, **FAST)


@pytest.mark.parametrize("images", [[], [10.0, 1.0], [np.inf], [0.0]])
def test_bad_images_are_named(model, images):
    with pytest.raises(ValueError, match="images"):
        co.frontier(model, PRICES, 1e5, images=images, **FAST)
