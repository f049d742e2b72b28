"""Score coefficients of training noise against kernels, closed forms and random weight errors."""

from __future__ import annotations

import numpy as np
import pytest

from codesign_opt.samplers.terminal import terminal_weight
from codesign_opt.training.lower_bounds import cramer_rao_score_error
from codesign_opt.training.optimisers import (
    AveragedSGD,
    ConstantStepSGD,
    constant_step_variance,
    dataset_floor,
    least_squares_variance,
)
from codesign_opt.training.sensitivity_kernel import banded_sum, diagonal_kernel, mean_kernel, pairwise_kernel
from tests.helpers.training_noise import COUNTS, LAM, SIGMA, STOP, moment_operator, within


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


@pytest.mark.cases(1)
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
    rng, sigma, h, draws = np.random.default_rng(11), 0.5, 1e-3, 1500
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
