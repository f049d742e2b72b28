"""Efficiency of plans: simulated estimators of one direction's slope, and of an eigenvalue that levels share."""

import numpy as np
import pytest

import codesign_opt as co
from codesign_opt.planning.efficiency import _shared_fit

LAM = 0.4


def plan_of(model):
    return co.codesign(model, co.Prices(1.0, 1.0, 100), 1e5, stopping_sigma=0.05, levels=30, polish=False)


def test_per_level_is_the_variance_of_least_squares_over_that_of_the_best_estimator():
    """Simulated: slopes fitted to pairs, and slopes from the mean square of the clean values, 12,000 fits each."""
    model = co.GaussianModel(co.Spectrum.from_eigenvalues([LAM]), sampler=co.Euler())
    found = co.efficiency(plan_of(model), model)
    rng, pairs = np.random.default_rng(0), 200
    at = 12
    sigma = found.sigma[at]
    clean = np.sqrt(LAM) * rng.normal(size=(12_000, pairs))
    noised = clean + sigma * rng.normal(size=clean.shape)
    least_squares = (clean * noised).sum(axis=1) / (noised**2).sum(axis=1)
    known = (clean**2).mean(axis=1)
    best = known / (known + sigma**2)
    ratio = least_squares.var() / best.var()
    assert ratio == pytest.approx(found.per_level[at], rel=0.05)  # 1.8 % for two variances of 12,000, terms of 1 / 200
    assert found.total == pytest.approx(found.achieved / found.bound)
    assert found.total >= 2


def test_shared_fit_is_the_error_of_one_eigenvalue_fitted_to_all_levels():
    """Simulated: weighted least squares over three levels by scoring; terminal error by finite differences."""
    sigma, examples, stop = np.array([0.2, 0.7, 2.0]), np.array([300.0, 100.0, 200.0]), 0.1
    rng, fits = np.random.default_rng(1), np.full(4000, LAM)
    told, pulled = 0.0, 0.0
    for level, count in zip(sigma, examples.astype(int), strict=True):
        clean = np.sqrt(LAM) * rng.normal(size=(fits.size, count))
        noised = clean + level * rng.normal(size=clean.shape)
        v = LAM + level**2
        slope, noise = level**2 / v**2 * noised, LAM * level**2 / v
        pulled = pulled + (slope * (clean - LAM / v * noised)).sum(axis=1) / noise
        told = told + (slope**2).sum(axis=1) / noise
    fits = fits + pulled / told
    out = fits / np.sqrt(fits + stop**2)  # denoise: the standard deviation of the output
    error = np.mean((out - LAM / np.sqrt(LAM + stop**2)) ** 2)
    own = _shared_fit(co.Spectrum.from_eigenvalues([LAM]), sigma, examples, stop, "denoise")
    assert own == pytest.approx(error, rel=0.1)  # 4,000 squares: 2.2 % twice, and terms of 1 / 600


def test_bounds_stand_below_what_they_bound_and_the_floor_is_the_step_size_s():
    model = co.GaussianModel(co.Spectrum.power_law(6, 1.5), training=co.ConstantStepSGD(1e-4, 16))
    plan = plan_of(model)
    found = co.efficiency(plan, model)
    assert found.shared_bound < found.shared_fit < found.achieved
    assert found.shared_bound < found.bound < found.achieved
    assert found.floor == pytest.approx(plan.breakdown["floor"] + model.coefficients(0.05).final_floor, rel=0.2)
    assert "Cramér–Rao, eigenvalues shared" in str(found)
    with pytest.raises(ValueError, match="plan trains no examples"):
        co.efficiency(co.codesign(model, steps=5, stopping_sigma=0.05, levels=30, polish=False), model)
