"""Training noise against direct simulation of SGD. Every "within 3 standard errors" has a fixed seed."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from codesign_opt.ingredients.parameterization import PARAMETERIZATIONS, Parameterization, TabulatedWeight
from codesign_opt.samplers.terminal import terminal_weight
from codesign_opt.training.constant_step import check_stable
from codesign_opt.training.lower_bounds import cramer_rao_score_error
from codesign_opt.training.optimisers import (
    AveragedSGD,
    ConstantStepSGD,
    TrainingNoise,
    WeightNoise,
    average_step_factor,
    burn_in_bias,
    constant_step_variance,
    dataset_floor,
    ema_variance,
    finite_dataset_variance,
    largest_stable_rate,
    least_squares_variance,
)
from codesign_opt.training.sensitivity_kernel import banded_sum, diagonal_kernel, mean_kernel, pairwise_kernel

LAM, STOP = np.array([1.0, 0.5, 0.2]), 0.2
NAN, INF = float("nan"), float("inf")


def within(samples, expected, errors=3.0, relative=0.0):
    """Mean over axis 0 agrees within `errors` standard errors (plus a stated relative bias)."""
    mean, se = samples.mean(axis=0), samples.std(axis=0, ddof=1) / np.sqrt(samples.shape[0])
    assert np.all(se < 0.06 * np.abs(expected)), "too few replicas to say anything"
    np.testing.assert_array_less(np.abs(mean - expected), errors * se + relative * np.abs(expected))


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


def moment_operator(v, rate, batch):
    """One SGD step on the second moment of a row, (d^2, d^2): Gaussian fourth moments written out."""
    h, eye = np.diag(v), np.eye(v.size)
    twice = np.kron(h, h)
    fourth = 2 * twice + np.outer(h.ravel(), h.ravel())
    return np.eye(v.size**2) - rate * (np.kron(h, eye) + np.kron(eye, h)) + rate**2 * (twice + (fourth - twice) / batch)


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


SIGMA = np.array([0.3, 1.1, 4.0])
COUNTS = np.array([2.0, 3.0, 1.0])


def entries(noise, sigma):
    """Var E_ij (B, B, L), Var E_ii (B, L) and Cov(E_ij, E_ji) of A (m = 1) and of F, by definition."""
    v = LAM[:, None] + sigma**2
    fresh = least_squares_variance(LAM, sigma, 1.0, matrix="full") / sigma**4
    data = (LAM[:, None] / v**2)[:, None] * (LAM[:, None] / v**2)[None]
    zero = np.zeros_like(fresh)
    n, floor = noise.dataset_size, zero
    if isinstance(noise, ConstantStepSGD):
        rate = noise.rate_factors(sigma)[0]
        # its own fixed point, one row at a time, from the moment operator of all d directions
        floor = np.empty_like(fresh)
        x = np.repeat(LAM, COUNTS.astype(int))
        first = np.searchsorted(-x, -LAM)
        for k, s in enumerate(sigma):
            u, tau = x + s**2, noise.learning_rate * rate[k]
            operator = np.eye(u.size**2) - moment_operator(u, tau, noise.batch)
            unit = np.linalg.solve(operator, tau**2 / noise.batch * np.diag(u).ravel())
            row = LAM * s**2 / (LAM + s**2)
            floor[..., k] = np.outer(row, np.diag(unit.reshape(u.size, -1))[first]) / s**4
    own = [np.einsum("bbl->bl", part) for part in (fresh, floor, data)]
    if n is None:
        return (fresh, own[0], zero), (floor, own[1], zero)
    whole = 0.0 if noise.replacement else 1.0
    a = (fresh - whole * data, own[0] - 2 * whole * own[2], -whole * data)
    return a, (floor + data / n, own[1] + 2 * own[2] / n, data / n)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("terminal", ["rescale", "denoise"])
@pytest.mark.parametrize(
    "noise",
    [
        AveragedSGD(matrix="full"),
        AveragedSGD(matrix="full", dataset_size=50),
        AveragedSGD(matrix="full", dataset_size=50, replacement=False),
        ConstantStepSGD(0.02, 3, parameterization="v", matrix="full"),
        ConstantStepSGD(0.02, 3, parameterization="v", matrix="full", dataset_size=9),
    ],
    ids=["averaged", "dataset", "passes", "constant", "both"],
)
def test_full_matrix_coefficients_equal_the_contraction_of_the_pairwise_kernel(noise, terminal, eta):
    kernel = pairwise_kernel(LAM, SIGMA, STOP, eta=eta, terminal=terminal)
    a, floor = entries(noise, SIGMA)
    have_a = noise.reducible(LAM, COUNTS, SIGMA, STOP, eta=eta, terminal=terminal)
    have_floor = noise.floor(LAM, COUNTS, SIGMA, STOP, eta=eta, terminal=terminal)
    for have, (variance, own, covariance) in ((have_a, a), (have_floor, floor)):
        want = banded_sum(kernel, COUNTS, variance, covariance=covariance, diagonal_variance=own)
        np.testing.assert_allclose(have, want, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("terminal", ["rescale", "denoise"])
@pytest.mark.parametrize("size", [None, 40])
def test_diagonal_coefficients_are_the_kernel_times_the_variances_of_slope_and_intercept(size, terminal, eta):
    options = {"eta": eta, "terminal": terminal}
    slope = diagonal_kernel(LAM, SIGMA, STOP, **options) / SIGMA**4
    mean = mean_kernel(LAM, SIGMA, STOP, **options) / SIGMA**4
    for noise in (
        AveragedSGD(intercept=True, dataset_size=size, replacement=False),
        ConstantStepSGD(0.05, 8, parameterization="eps_vp", intercept=True, dataset_size=size),
    ):
        w, c = noise.weight_variance(LAM, SIGMA), noise.intercept_variance(LAM, SIGMA)
        for k, have in enumerate((noise.reducible, noise.floor)):
            want = COUNTS @ (slope * w[k] + mean * c[k])
            np.testing.assert_allclose(have(LAM, COUNTS, SIGMA, STOP, **options), want, rtol=1e-12)


def test_the_ode_learned_intercept_doubles_the_diagonal_coefficient():
    plain = AveragedSGD().reducible(LAM, COUNTS, SIGMA, STOP)
    np.testing.assert_allclose(AveragedSGD(intercept=True).reducible(LAM, COUNTS, SIGMA, STOP), 2 * plain)


@pytest.mark.parametrize("matrix", ["diagonal", "full"])
def test_small_steps_give_the_closed_form_floor(matrix):
    tau, batch = 1e-5, 2
    p, v = terminal_weight(LAM, STOP, "denoise")[:, None], LAM[:, None] + SIGMA**2
    if matrix == "diagonal":
        b = COUNTS @ (p * LAM[:, None] / (2 * v))
    else:
        h = p * p.T / (p + p.T)
        inner = v * p / 2 + h @ (COUNTS[:, None] * v)
        b = COUNTS @ (LAM[:, None] / (2 * v**2) * inner)
    for finite, accuracy in ((True, 1e-3), (False, 1e-12)):
        sgd = ConstantStepSGD(tau, batch, parameterization="x0", matrix=matrix, finite_step=finite)
        np.testing.assert_allclose(sgd.floor(LAM, COUNTS, SIGMA, STOP), tau / batch * b, rtol=accuracy)


def bures(first, second):
    values, vectors = np.linalg.eigh(first)
    half = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.linalg.eigvalsh(half @ second @ half)
    return np.trace(first + second) - 2 * np.sum(np.sqrt(np.maximum(cross, 0)))


@pytest.mark.parametrize(
    ("noise", "part"),
    [
        (AveragedSGD(matrix="full"), 0),
        (AveragedSGD(matrix="full", dataset_size=1), 1),
        (ConstantStepSGD(0.3, 4, matrix="full"), 1),
        (AveragedSGD(), 0),
    ],
    ids=["averaged", "dataset", "constant", "diagonal"],
)
def test_last_evaluation_is_the_bures_distance_of_outputs_under_random_weight_errors(noise, part):
    rng, sigma, h, draws = np.random.default_rng(11), 0.5, 1e-3, 3000
    v = LAM + sigma**2
    weights, spread = np.diag(LAM / v), np.sqrt(np.outer(LAM * sigma**2 / v, 1 / v))
    if isinstance(noise, ConstantStepSGD):
        factor = noise.rate_factors([sigma])[0]
        options = {"counts": np.ones(3), "rate_factor": factor}
        spread = np.sqrt(constant_step_variance(LAM, [sigma], 0.3, 4, **options).full()[..., 0])
    exact, truth = weights @ np.diag(v) @ weights, np.empty(draws)
    for k in range(draws):
        error = spread * rng.standard_normal((3, 3))
        if noise.matrix == "diagonal":
            error = np.diag(np.diag(error))
        if noise.dataset_size is not None:
            x = rng.standard_normal((3, 3)) / np.sqrt(2)
            error = np.sqrt(np.outer(LAM, LAM)) * sigma**2 / np.outer(v, v) * (x + x.T)
        laws = [(weights + c * error) @ np.diag(v) @ (weights + c * error).T for c in (h, -h)]
        truth[k] = sum(bures(exact, law) for law in laws) / (2 * h**2)
    within(truth, noise.last_evaluation(LAM, np.ones(3), sigma)[part])


def test_last_evaluation_with_intercept_adds_the_variance_of_the_shift():
    for options in ({}, {"dataset_size": 30}, {"dataset_size": 30, "replacement": False}):
        for kind in (AveragedSGD, lambda **o: ConstantStepSGD(0.1, 4, parameterization="v", **o)):
            noise = kind(intercept=True, **options)
            w, c = noise.weight_variance(LAM, [STOP]), noise.intercept_variance(LAM, [STOP])
            want = [COUNTS @ (w[k][:, 0] * (LAM + STOP**2) + c[k][:, 0]) for k in range(2)]
            np.testing.assert_allclose(noise.last_evaluation(LAM, COUNTS, STOP), want, rtol=1e-12)


def test_directions_without_data_cost_nothing():
    lam, counts = np.append(LAM, 0.0), np.append(COUNTS, 50.0)
    for matrix in ("diagonal", "full"):
        for terminal in ("denoise", "rescale"):
            noise = AveragedSGD(matrix=matrix, dataset_size=10, intercept=True)
            part = noise.floor(LAM, COUNTS, SIGMA, STOP, terminal=terminal)
            np.testing.assert_allclose(noise.floor(lam, counts, SIGMA, STOP, terminal=terminal), part)
        have = noise.last_evaluation(lam, counts, STOP)
        np.testing.assert_allclose(have, noise.last_evaluation(LAM, COUNTS, STOP))
    zero = AveragedSGD(matrix="full", dataset_size=2).last_evaluation([0.0], [1.0], STOP)
    assert zero == (0.0, 0.0)


def test_dataset_error_is_the_common_floor_and_zero_for_fresh_examples():
    noise = AveragedSGD(matrix="full", dataset_size=100)
    want = dataset_floor(LAM, COUNTS, STOP, 100, matrix="full", terminal="rescale")
    assert noise.dataset_error(LAM, COUNTS, STOP, terminal="rescale") == want
    assert AveragedSGD().dataset_error(LAM, COUNTS, STOP) == 0.0
    per_level = noise.floor(LAM, COUNTS, SIGMA, STOP)
    np.testing.assert_allclose(per_level, cramer_rao_score_error(LAM, COUNTS, SIGMA, STOP, matrix="full") / 100)


def test_a_thousand_bands_and_levels_take_no_cubic_memory():
    lam, sigma = np.geomspace(1e-5, 10, 1000), np.geomspace(STOP, 80, 1000)
    sgd = ConstantStepSGD(1e-3, 64, matrix="full", sigma_data=1.0)
    assert np.all(sgd.reducible(lam, np.ones(1000), sigma, STOP) > 0)
    assert np.all(sgd.floor(lam, np.ones(1000), sigma, STOP, eta=1.0) > 0)
    with pytest.raises(ValueError, match="merge bands"):
        least_squares_variance(lam, sigma, 10.0, matrix="full")


def test_warnings_name_the_levels_where_burn_in_is_not_over():
    sgd = ConstantStepSGD(0.01, 64, parameterization="x0")
    sigma = np.array([4.0, 2.0, 1.0, 0.5])
    needed = 10 * 64 / (0.01 * (LAM.min() + sigma**2))
    assert sgd.warnings_for(sigma, LAM, 1.01 * needed) == []
    (one,) = sgd.warnings_for(sigma, LAM, needed * [2, 2, 0.5, 2])
    assert "sigma = 1:" in one
    assert f"{needed[2]:.6g}" in one
    low, high = sgd.warnings_for(sigma, LAM, needed * [0.5, 2, 0.5, 0.0])
    assert "2 levels, sigma = 0.5 to 1, worst at sigma = 0.5: 0 examples" in low
    assert "sigma = 4:" in high
    slow = ConstantStepSGD(0.01, 64, parameterization="x0", intercept=True)
    assert len(slow.warnings_for(sigma, LAM, 1.01 * needed)) == 1  # the intercept relaxes at rate 1
    assert AveragedSGD().warnings_for(sigma, LAM, needed * 0) == []


@pytest.mark.parametrize("name", list(PARAMETERIZATIONS))
def test_parameterisation_table_is_the_closed_form_of_each_rate(name):
    s = np.array([0.1, 1.0, 7.0])
    rate = {
        "x0": 1 + 0 * s,
        "eps": 1 + 0 * s,
        "eps_vp": 1 / (1 + s**2),
        "v": 1 / (1 + s**2),
        "flow": 1 / (1 + s) ** 2,
        "score": 1 + 0 * s,
        "score_weighted": s**2,
        "edm": 1 / (s**2 + 0.3**2),
    }[name]
    form = Parameterization(name, sigma_data=0.3)
    np.testing.assert_allclose(form.rate_factor(s), rate, rtol=1e-14)
    omega = form.output_weight(s, weight=lambda x: 1 / x)
    np.testing.assert_allclose(omega, form.c_out(s) ** 2 / s, rtol=1e-14)


def test_v_and_flow_networks_predict_what_their_names_say():
    # D(x) must be x0 when the network outputs its target: v = (z - sigma x0) / sqrt(1 + sigma^2), z - x0, ...
    x0, z, s = 0.7, -1.3, np.array([0.4, 2.0])
    x = x0 + s * z
    v = (z - s * x0) / np.hypot(1, s)
    for name, output in (("v", v), ("flow", z - x0), ("eps", z), ("score", -z / s)):
        form = Parameterization(name)
        np.testing.assert_allclose(form.c_skip(s) * x + form.c_out(s) * output, x0, rtol=1e-12)


def test_training_noise_survives_json_and_tabulates_functions():
    weight = lambda s: 1 / s**2 + 4.0  # noqa: E731
    for noise in (
        AveragedSGD("full", True, 10, False),
        ConstantStepSGD(0.1, 8, weight=3.0, finite_step=False),
    ):
        assert TrainingNoise.from_dict(json.loads(json.dumps(noise.to_dict()))) == noise
    sgd = ConstantStepSGD(0.001, 8, weight=weight)
    with pytest.raises(ValueError, match=r"ConstantStepSGD\.weight is a function"):
        sgd.to_dict()
    back = TrainingNoise.from_dict(json.loads(json.dumps(sgd.to_dict(SIGMA))))
    np.testing.assert_allclose(back.rate_factors(SIGMA), sgd.rate_factors(SIGMA), rtol=1e-12)
    assert back.to_dict() == sgd.to_dict(SIGMA)
    table = TabulatedWeight([0.1, 1.0, 10.0], [1.0, 10.0, 10.0])
    np.testing.assert_allclose(table([0.01, 0.5, 100.0]), [0.1, 5.0, 10.0])
    np.testing.assert_allclose(TabulatedWeight([1.0], [3.0])([2.0]), [3.0])


def test_from_dict_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"TrainingNoise\.type"):
        TrainingNoise.from_dict({"type": "Adam"})
    with pytest.raises(ValueError, match="no field 'momentum'"):
        TrainingNoise.from_dict({"type": "AveragedSGD", "momentum": 0.9})
    with pytest.raises(ValueError, match="lacks 'learning_rate', 'batch'"):
        TrainingNoise.from_dict({"type": "ConstantStepSGD"})
    with pytest.raises(ValueError, match="weight has the keys"):
        TrainingNoise.from_dict({"type": "ConstantStepSGD", "weight": {"sigma": [1.0]}})
    with pytest.raises(ValueError, match="mapping"):
        TrainingNoise.from_dict([1])


def test_a_training_noise_of_ones_own_needs_one_method_and_is_saved_by_name():
    @dataclass(frozen=True)
    class Floor(TrainingNoise):
        level: float = 0.1
        matrix: str = "diagonal"
        intercept: bool = False
        dataset_size: int | None = None
        replacement: bool = True

        def _stationary(self, eigenvalues, counts, sigma):
            flat = np.full((eigenvalues.size, sigma.size), self.level)
            return WeightNoise(np.ones_like(flat), flat, 0 * flat)

    own = Floor(0.2)
    assert TrainingNoise.from_dict(own.to_dict()) == own
    want = COUNTS @ diagonal_kernel(LAM, SIGMA, STOP) * 0.2 / SIGMA**4
    np.testing.assert_allclose(own.floor(LAM, COUNTS, SIGMA, STOP), want)


BAD_NUMBER = [NAN, INF, -1.0, True, None, "a", [1.0]]
BAD_VECTOR = [[], [[1.0]], 1.0, [NAN], [INF], [-1.0], [True], ["a"], None]


@pytest.mark.parametrize("kind", [AveragedSGD, lambda **o: ConstantStepSGD(**({"learning_rate": 0.1, "batch": 1} | o))])
def test_common_fields_are_checked_by_name(kind):
    for field in ("intercept", "replacement"):
        for bad in (1, None, "yes", NAN):
            with pytest.raises(ValueError, match=rf"SGD\.{field}"):
                kind(**{field: bad})
    for bad in ("other", None, True, 3):
        with pytest.raises(ValueError, match=r"SGD\.matrix"):
            kind(matrix=bad)
    for bad in (NAN, INF, -1, 0, 1.5, True, "a", [3]):
        with pytest.raises(ValueError, match=r"SGD\.dataset_size"):
            kind(dataset_size=bad)


@pytest.mark.parametrize("field", ["learning_rate", "batch", "weight", "sigma_data", "parameterization", "finite_step"])
def test_constant_step_fields_are_checked_by_name(field):
    bad_values = {
        "batch": [*BAD_NUMBER, 0, 1.5],
        "weight": [NAN, INF, -1.0, 0.0, True, "a", [1.0]],
        "parameterization": ["other", None, True, 1.0],
        "finite_step": [1, None, "yes", NAN],
    }.get(field, [*BAD_NUMBER, 0.0])
    for bad in bad_values:
        with pytest.raises(ValueError, match=rf"ConstantStepSGD\.{field}"):
            ConstantStepSGD(**({"learning_rate": 0.1, "batch": 8} | {field: bad}))


def test_a_weight_function_is_checked_where_it_is_used():
    for bad in (lambda s: -s, lambda s: s * NAN, lambda s: s[:1], lambda s: True, lambda s: 0.0):
        with pytest.raises(ValueError, match=r"ConstantStepSGD\.weight"):
            ConstantStepSGD(0.1, 8, weight=bad).rate_factors(SIGMA)
    same = ConstantStepSGD(0.1, 8, weight=lambda s: 2.0).rate_factors(SIGMA)
    np.testing.assert_allclose(same, ConstantStepSGD(0.1, 8, weight=2.0).rate_factors(SIGMA))


@pytest.mark.parametrize("noise", [AveragedSGD(), ConstantStepSGD(1e-3, 8, matrix="full")])
def test_methods_refuse_bad_arrays_by_name(noise):
    for bad in BAD_VECTOR:
        for method in (noise.reducible, noise.floor):
            with pytest.raises(ValueError, match="eigenvalues"):
                method(bad, [1.0], [1.0], STOP)
            with pytest.raises(ValueError, match="counts"):
                method([1.0], bad, [1.0], STOP)
            with pytest.raises(ValueError, match="sigma"):
                method([1.0], [1.0], bad, STOP)
        with pytest.raises(ValueError, match="eigenvalues"):
            noise.weight_variance(bad, [1.0])
        with pytest.raises(ValueError, match="sigma"):
            noise.intercept_variance([1.0], bad)
        with pytest.raises(ValueError, match="counts"):
            noise.last_evaluation([1.0], bad, STOP)
    for bad in [*BAD_NUMBER, 0.0]:
        for method in (noise.reducible, noise.floor):
            with pytest.raises(ValueError, match="stopping_sigma"):
                method([1.0], [1.0], [1.0], bad)
        with pytest.raises(ValueError, match="stopping_sigma"):
            noise.last_evaluation([1.0], [1.0], bad)
    for bad in BAD_NUMBER:
        with pytest.raises(ValueError, match="eta"):
            noise.floor([1.0], [1.0], [1.0], STOP, eta=bad)
    with pytest.raises(ValueError, match="terminal"):
        noise.floor([1.0], [1.0], [1.0], STOP, terminal="other")
    if isinstance(noise, ConstantStepSGD):
        for bad in BAD_VECTOR:
            with pytest.raises(ValueError, match="examples"):
                noise.warnings_for([1.0], [1.0], bad)


def test_formula_functions_refuse_bad_numbers_by_name():
    for bad in [*BAD_NUMBER, 0.0]:
        for name, call in {
            "examples": lambda x: least_squares_variance([1.0], [1.0], x),
            "learning_rate": lambda x: constant_step_variance([1.0], [1.0], x, 1),
            "batch": lambda x: constant_step_variance([1.0], [1.0], 0.1, x),
            "curvature": lambda x: average_step_factor(0.1, x, 1),
            "dataset_size": lambda x: finite_dataset_variance([1.0], [1.0], x, 10),
        }.items():
            with pytest.raises(ValueError, match=name):
                call(bad)
        with pytest.raises(ValueError, match="sigma_data"):
            Parameterization("edm", bad)
    for bad in BAD_NUMBER:
        with pytest.raises(ValueError, match="decay"):
            ema_variance(1.0, 0.1, 1.0, 1, bad)
    for bad in (NAN, INF, -1.0, True, None, "a"):
        with pytest.raises(ValueError, match="stationary"):
            ema_variance(bad, 0.1, 1.0, 1, 0.5)
    with pytest.raises(ValueError, match="decay is 1"):
        ema_variance(1.0, 0.1, 1.0, 1, 1.0)
    with pytest.raises(ValueError, match="largest stable rate"):
        burn_in_bias(1.0, 1.0, 1.0, 1, 10)
    with pytest.raises(ValueError, match="more than 4"):
        least_squares_variance([1.0], [1.0], 4, regressors=3)
    with pytest.raises(ValueError, match="rate_factor"):
        largest_stable_rate([1.0], [1.0], 1, rate_factor=[0.0])
    with pytest.raises(ValueError, match="learning_rate is 5"):
        check_stable(np.array([1.0]), np.array([1.0]), 5.0, 1)
    for bad in ([2.0, 1.0], [1.0, NAN], [0.0, 1.0], [True, True], [1.0]):
        with pytest.raises(ValueError, match=r"TabulatedWeight\."):
            TabulatedWeight(bad, [1.0, 1.0])
