"""Training noise against direct simulation of SGD. Every "within 3 standard errors" has a fixed seed."""

from __future__ import annotations

import numpy as np
import pytest

from codesign_opt.ingredients.parameterization import Parameterization
from codesign_opt.training.optimisers import (
    AveragedSGD,
    ConstantStepSGD,
    average_step_factor,
    burn_in_bias,
    constant_step_variance,
    ema_variance,
    finite_dataset_variance,
    largest_stable_rate,
    least_squares_variance,
)
from tests.helpers.training_noise import LAM, STOP, moment_operator, within


def scalar_sgd(rng, lam, sigma, rate, batch, steps, replicas, form=None, weight=None, intercept=False):
    """Errors of slope and intercept of the denoiser, step by step, of SGD on the network's output."""
    form = Parameterization("x0") if form is None else form
    at = np.array([sigma])
    skip, out, inner = (float(f(at)[0]) for f in (form.c_skip, form.c_out, form.c_in))
    table = {"score_weighted": sigma**2}  # omega_F by hand, not from the code under test
    omega = table.get(form.name, 1.0) if weight is None else weight * out**2
    best = lam / (lam + sigma**2)
    theta, shift = np.full(replicas, (best - skip) / (out * inner)), np.zeros(replicas)
    for _ in range(steps):
        clean = np.sqrt(lam) * rng.standard_normal((replicas, batch))
        noisy = clean + sigma * rng.standard_normal((replicas, batch))
        error = omega * (theta[:, None] * inner * noisy + shift[:, None] - (clean - skip * noisy) / out)
        theta = theta - rate * np.mean(error * inner * noisy, axis=1)
        if intercept:
            shift = shift - rate * np.mean(error, axis=1)
        yield skip + out * inner * theta - best, out * shift


def full_sgd(rng, lam, sigma, rate, batch, steps, replicas, scale=1.0, shift_scale=None):
    """Errors of the full matrix (replicas, d, d) and of the intercept, in rates per unit denoiser weight."""
    best = np.diag(lam / (lam + sigma**2))
    w, c = np.tile(best, (replicas, 1, 1)), np.zeros((replicas, lam.size))
    for _ in range(steps):
        clean = np.sqrt(lam) * rng.standard_normal((replicas, batch, lam.size))
        noisy = clean + sigma * rng.standard_normal(clean.shape)
        error = noisy @ w.transpose(0, 2, 1) + c[:, None] - clean
        w = w - rate * scale * error.transpose(0, 2, 1) @ noisy / batch
        if shift_scale is not None:
            c = c - rate * shift_scale * error.mean(axis=1)
        yield w - best, c


def second_moments(path, burn):
    """Time averages of the squared errors of each replica after `burn` steps."""
    kept = [tuple(part**2 for part in item) for k, item in enumerate(path) if k >= burn]
    return [np.mean([item[i] for item in kept], axis=0) for i in range(2)]


@pytest.mark.parametrize(("batch", "step", "replicas"), [(1, 0.375, 4000), (64, 1.2, 250)])
def test_constant_step_variance_matches_simulation_at_a_finite_step(batch, step, replicas):
    lam, sigma = 1.0, 0.8
    rate = step / (lam + sigma**2)
    path = scalar_sgd(np.random.default_rng(0), lam, sigma, rate, batch, 330, replicas)
    truth, _ = second_moments(path, 30)
    noise = constant_step_variance([lam], [sigma], rate, batch)
    within(truth, noise.diagonal()[0, 0])  # 3 standard errors
    small = constant_step_variance([lam], [sigma], rate, batch, finite_step=False).diagonal()[0, 0]
    assert abs(truth.mean() / small - 1) > 0.3


@pytest.mark.parametrize(("batch", "rate", "replicas"), [(1, 0.15, 3000), (64, 0.6, 250)])
def test_full_matrix_constant_step_variance_matches_simulation(batch, rate, replicas):
    path = full_sgd(np.random.default_rng(1), LAM, 0.7, rate, batch, 280, replicas)
    truth, _ = second_moments(path, 40)
    noise = constant_step_variance(LAM, [0.7], rate, batch, counts=np.ones(3))
    within(truth, noise.full()[..., 0], errors=3.0)


def test_full_matrix_with_intercept_matches_simulation():
    scale, shift = 0.5, 1.3
    path = full_sgd(np.random.default_rng(2), LAM, 0.7, 0.25, 2, 280, 3000, scale, shift)
    truth, bias = second_moments(path, 40)
    noise = constant_step_variance(
        LAM, [0.7], 0.25, 2, counts=np.ones(3), rate_factor=[scale], intercept_factor=[shift]
    )
    within(truth, noise.full()[..., 0])
    within(bias, noise.intercept[:, 0])


@pytest.mark.cases(2)
@pytest.mark.parametrize(
    ("name", "weight", "rate"),
    [
        ("edm", None, 0.2),
        ("v", None, 0.3),
        ("score_weighted", None, 0.3),
        ("eps", 2.0, 0.3),
        ("flow", 1.5, 0.4),
    ],
)
def test_floor_changes_with_the_parameterisation_by_omega_c_in_squared(name, weight, rate):
    lam, sigma, batch = 0.6, 0.7, 2
    form = Parameterization(name, sigma_data=0.9)
    path = scalar_sgd(np.random.default_rng(3), lam, sigma, rate, batch, 430, 2000, form, weight, intercept=True)
    slope, shift = second_moments(path, 130)
    sgd = ConstantStepSGD(rate, batch, parameterization=name, weight=weight, sigma_data=0.9, intercept=True)
    within(slope, sgd.weight_variance([lam], [sigma])[1][0, 0])
    within(shift, sgd.intercept_variance([lam], [sigma])[1][0, 0])


@pytest.mark.cases(1)
@pytest.mark.parametrize(("name", "rate"), [("edm", 0.3), ("v", 0.4), ("score", 0.15)])
def test_averaged_variance_is_the_same_for_every_parameterisation(name, rate):
    lam, sigma, batch, steps, burn = 0.6, 0.7, 4, 800, 100
    form = Parameterization(name, sigma_data=0.9)
    path = scalar_sgd(np.random.default_rng(4), lam, sigma, rate, batch, steps + burn, 2000, form)
    mean = np.mean([w for k, (w, _) in enumerate(path) if k >= burn], axis=0)
    want = AveragedSGD().weight_variance([lam], [sigma])[0][0, 0] / (steps * batch)
    effective = rate * form.rate_factor([sigma])[0]
    # 3 standard errors; the end effects of the window are of order 1 / (steps tau h)
    slack = 3 / (steps * effective * (lam + sigma**2))
    within(mean**2, want * average_step_factor(effective, lam + sigma**2, batch), relative=slack)


def test_averaged_iterate_at_a_finite_step_has_the_stated_excess():
    lam, sigma, batch, steps = 1.0, 0.8, 1, 1000
    rate = 0.375 / (lam + sigma**2)
    path = scalar_sgd(np.random.default_rng(5), lam, sigma, rate, batch, steps + 50, 5000)
    mean = np.mean([w for k, (w, _) in enumerate(path) if k >= 50], axis=0)
    plain = least_squares_variance([lam], [sigma], steps)[0, 0]
    factor = average_step_factor(rate, lam + sigma**2, batch)
    within(mean**2, plain * factor, relative=0.005)
    assert factor > 1.8


@pytest.mark.parametrize(("decay", "batch"), [(0.5, 1), (0.97, 4)])
def test_ema_variance_matches_simulation(decay, batch):
    lam, sigma, rate = 1.0, 0.8, 0.18
    ema, kept = 0.0, []
    for k, (w, _) in enumerate(scalar_sgd(np.random.default_rng(6), lam, sigma, rate, batch, 700, 2000)):
        ema = w if k == 0 else decay * ema + (1 - decay) * w
        if k >= 200:
            kept.append(ema**2)
    stationary = constant_step_variance([lam], [sigma], rate, batch).diagonal()[0, 0]
    within(np.mean(kept, axis=0), ema_variance(stationary, rate, lam + sigma**2, batch, decay))


def test_ema_of_a_long_window_is_an_average_over_its_window():
    stationary = constant_step_variance([1.0], [1.0], 1e-3, 8).diagonal()[0, 0]
    long = ema_variance(stationary, 1e-3, 2.0, 8, 1 - 1e-6)
    average = AveragedSGD().weight_variance([1.0], [1.0])[0][0, 0]
    np.testing.assert_allclose(long, average / 8 * 0.5e-6, rtol=5e-3)


@pytest.mark.parametrize(("batch", "average", "steps"), [(1, False, 6), (4, False, 10), (1, True, 200)])
def test_burn_in_bias_matches_simulation_without_residual(batch, average, steps):
    rng, v, rate, replicas = np.random.default_rng(7), 1.5, 0.2, 40_000
    error, total = np.full(replicas, 2.0), np.zeros(replicas)
    for _ in range(steps):
        total += error
        error = error * (1 - rate * np.mean(v * rng.standard_normal((replicas, batch)) ** 2, axis=1))
    truth = (total / steps if average else error) ** 2
    within(truth, burn_in_bias(2.0, rate, v, batch, steps * batch, average=average))


def test_full_row_least_squares_variance_matches_simulation():
    rng, m, replicas, sigma = np.random.default_rng(8), 30, 20_000, 0.7
    clean = np.sqrt(LAM) * rng.standard_normal((replicas, m, 3))
    noisy = clean + sigma * rng.standard_normal(clean.shape)
    gram = noisy.transpose(0, 2, 1) @ noisy
    w = np.linalg.solve(gram, noisy.transpose(0, 2, 1) @ clean).transpose(0, 2, 1)
    truth = (w - np.diag(LAM / (LAM + sigma**2))) ** 2
    within(truth, least_squares_variance(LAM, [sigma], m, matrix="full", regressors=3)[..., 0])
    np.testing.assert_allclose(
        np.einsum("bbl->bl", least_squares_variance(LAM, [sigma], m, matrix="full")),
        least_squares_variance(LAM, [sigma], m),
    )


@pytest.mark.parametrize("replacement", [False, True])
def test_finite_dataset_variance_matches_simulation(replacement):
    rng, lam, sigma, size, m, replicas = np.random.default_rng(9), 1.0, 0.6, 300, 900, 12_000
    v, parts = lam + sigma**2, []
    for _ in range(12):
        images = np.sqrt(lam) * rng.standard_normal((replicas // 12, size))
        if replacement:
            clean = np.take_along_axis(images, rng.integers(0, size, (replicas // 12, m)), axis=1)
        else:
            clean = np.repeat(images, m // size, axis=1)
        noisy = clean + sigma * rng.standard_normal(clean.shape)
        parts.append(np.sum(clean * noisy, axis=1) / np.sum(noisy**2, axis=1) - lam / v)
    error = (np.concatenate(parts) / sigma**2) ** 2
    want = finite_dataset_variance([lam], [sigma], size, m, replacement=replacement)[0, 0]
    within(error, want, relative=3 / size)  # 3 standard errors, next order in 1 / N
    a, f = AveragedSGD(dataset_size=size, replacement=replacement).weight_variance([lam], [sigma])
    np.testing.assert_allclose((a / m + f)[0, 0] / sigma**4, want)


@pytest.mark.parametrize("batch", [1, 7])
def test_full_row_formula_solves_the_moment_equation_and_its_stability_limit_is_spectral(batch):
    sigma = 0.7
    v = LAM + sigma**2
    rate = 0.5 * largest_stable_rate(LAM, [sigma], batch, counts=np.ones(3))[0]
    source = rate**2 / batch * (LAM[1] * sigma**2 / v[1]) * np.diag(v).ravel()
    fixed = np.linalg.solve(np.eye(9) - moment_operator(v, rate, batch), source).reshape(3, 3)
    have = constant_step_variance(LAM, [sigma], rate, batch, counts=np.ones(3)).full()[1, :, 0]
    np.testing.assert_allclose(np.diag(have), fixed, rtol=1e-9, atol=1e-14)
    for factor, stable in ((1 - 1e-6, True), (1 + 1e-6, False)):
        radius = np.max(np.abs(np.linalg.eigvals(moment_operator(v, 2 * rate * factor, batch))))
        assert (radius < 1) == stable


def test_scalar_stability_limit_is_two_over_one_plus_two_over_beta():
    limit = largest_stable_rate([1.0, 0.1], [0.5, 3.0], 4, rate_factor=[1.0, 0.5])
    np.testing.assert_allclose(limit, [2 / (1.5 * 1.25), 2 / (1.5 * 10 * 0.5)], rtol=1e-12)


@pytest.mark.parametrize("matrix", ["diagonal", "full"])
@pytest.mark.parametrize("intercept", [False, True])
def test_an_unstable_rate_is_refused_with_its_noise_level_and_the_largest_stable_rate(matrix, intercept):
    sigma = np.array([0.3, 1.0, 6.0])
    options = {"parameterization": "x0", "matrix": matrix, "intercept": intercept}
    counts = np.ones(3) if matrix == "full" else None
    factor = np.ones(3) if intercept else None
    limit = largest_stable_rate(LAM, sigma, 4, counts=counts, intercept_factor=factor)
    assert np.argmin(limit) == 2
    match = rf"ConstantStepSGD.learning_rate is .*sigma = 6,.*{limit[2]:.6g} at batch 4 \(1 of 3"
    bad = ConstantStepSGD(1.001 * limit[2], 4, **options)
    with pytest.raises(ValueError, match=match):
        bad.floor(LAM, np.ones(3), sigma, STOP)
    with pytest.raises(ValueError, match=match):
        bad.reducible(LAM, np.ones(3), sigma, STOP)
    good = ConstantStepSGD(0.999 * limit[2], 4, **options)
    assert np.all(good.floor(LAM, np.ones(3), sigma, STOP) > 0)
    with pytest.raises(ValueError, match=r"sigma = 6.*\(3 of 3 levels"):
        ConstantStepSGD(1e9, 4, **options, finite_step=False).floor(LAM, np.ones(3), sigma, STOP)
