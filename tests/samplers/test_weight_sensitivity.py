"""Derivatives of the samplers' laws against complex steps, finite differences and perturbed denoisers."""

import math

import numpy as np
import pytest

from codesign_opt.samplers.affine_steps import denoiser_weights
from codesign_opt.samplers.members import Ancestral, DPMpp2M, Euler, EulerMaruyama, Heun
from tests.helpers.literal_samplers import GRIDS, LAM, LITERAL, SAMPLERS, edm_grid, ids, literal_law


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_weight_sensitivity_matches_complex_steps_and_finite_differences_of_the_law(sampler, grid):
    lam = LAM[:3]
    weights = denoiser_weights(lam, grid)
    sensitivity = sampler.weight_sensitivity(grid, lam)
    assert sensitivity.shape == weights.shape
    directions = np.eye(len(grid))[:, :, None]  # one batch entry per node
    step = sampler.terminal_law(grid, lam, denoiser=weights + 1e-30j * directions)
    np.testing.assert_allclose(sensitivity, step.std.imag / 1e-30, rtol=1e-10, atol=1e-14)
    ahead = sampler.terminal_law(grid, lam, denoiser=weights + 1e-6 * directions).std
    behind = sampler.terminal_law(grid, lam, denoiser=weights - 1e-6 * directions).std
    scale = np.abs(sensitivity).max()
    np.testing.assert_allclose(sensitivity, (ahead - behind) / 2e-6, rtol=1e-6, atol=1e-7 * scale)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_weight_sensitivity_of_a_broken_denoiser_matches_the_literal_loop(sampler):
    rng = np.random.default_rng(8)
    grid = GRIDS["uneven"]
    weights = rng.uniform(-0.4, 1.3, (len(grid), 1))  # negative amplitudes too
    sensitivity = sampler.weight_sensitivity(grid, [1.0], denoiser=weights, initial_variance=[2.0])
    for k in range(len(grid)):
        std = []
        for h in (1e-5, -1e-5):
            shifted = weights[:, 0].copy()
            shifted[k] += h
            std.append(math.sqrt(literal_law(sampler, grid, shifted, 2.0)[1]))
        assert sensitivity[k, 0] == pytest.approx((std[0] - std[1]) / 2e-5, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", ["denoise", "rescale", "uneven"])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_complex_steps_differentiate_law_and_adjoint_by_the_grid(sampler, name):
    grid, lam = GRIDS[name], LAM[:3]
    nodes = len(grid) - (grid[-1] == 0)
    batch = grid + 1e-30j * np.eye(len(grid))[:nodes]
    by_law = sampler.terminal_law(batch, lam).std.imag / 1e-30
    by_adjoint = sampler.weight_sensitivity(batch, lam).imag / 1e-30
    for k in range(nodes):
        h = 1e-5 * grid[k]
        shift = h * np.eye(len(grid))[k]
        std = [sampler.terminal_law(grid + s * shift, lam).std for s in (1, -1)]
        scale = np.abs(by_law).max(axis=0) + 1e-12
        assert (np.abs(by_law[k] - (std[0] - std[1]) / (2 * h)) < 1e-5 * scale).all()
        adjoint = [sampler.weight_sensitivity(grid + s * shift, lam) for s in (1, -1)]
        scale = np.abs(by_adjoint).max(axis=(0, 1)) + 1e-12
        assert (np.abs(by_adjoint[k] - (adjoint[0] - adjoint[1]) / (2 * h)) < 1e-5 * scale).all()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_complex_steps_survive_tiny_step_ratios(sampler):
    """A ratio of 1e-10 must not lose the derivative to cancelled terms (of a square root above all)."""
    grid = np.array([100.0, 1e-8, 1e-9])
    batch = grid + 1e-40j * np.eye(3)
    by_law = sampler.terminal_law(batch, [1e-18]).std.imag / 1e-40
    for k in range(3):
        shift = 1e-5 * grid * np.eye(3)[k]
        std = [sampler.terminal_law(grid + s * shift, [1e-18]).std[0] for s in (1, -1)]
        difference = (std[0] - std[1]) / (2 * shift[k])
        assert by_law[k, 0] == pytest.approx(difference, rel=1e-3, abs=1e-9 * np.abs(by_law).max())


@pytest.mark.parametrize("steps", [10, 40])
@pytest.mark.parametrize("sampler", [Euler(), Heun(), DPMpp2M(), Ancestral(1.0), EulerMaruyama(0.7)], ids=ids)
def test_discrete_kernel_is_the_variance_over_perturbed_denoisers(sampler, steps):
    draws, lam = 20_000, 0.25
    grid = edm_grid(steps)
    rng = np.random.default_rng(steps)
    weights = np.array([lam / (lam + s**2) if s > 0 else 1.0 for s in grid])
    spread = 1e-4 * rng.uniform(0.5, 2.0, len(grid)) * weights
    noisy = weights[:, None] + spread[:, None] * rng.standard_normal((len(grid), draws))
    # one literal run per source of randomness, all draws of the denoiser at once
    run, levels = LITERAL[sampler.name], [float(s) for s in grid]

    def push(x, noise):
        return run(lambda y, i: noisy[i] * y, x, levels, noise, sampler.eta)

    zero = np.zeros(draws)
    variance = push(zero + 1.0, [0.0] * steps) ** 2 * (lam + grid[0] ** 2)
    if sampler.eta:
        for i in range(steps):
            variance += push(zero, [float(i == j) for j in range(steps)]) ** 2
    measured = np.sqrt(variance).var(ddof=1)
    kernel = (sampler.weight_sensitivity(grid, [lam])[:, 0] ** 2 * spread**2).sum()
    assert abs(measured / kernel - 1) < 3 * math.sqrt(2 / (draws - 1))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_sensitivity_at_zero_output_is_the_one_sided_derivative(sampler):
    grid = GRIDS["denoise"]
    sensitivity = sampler.weight_sensitivity(grid, [0.0])  # W = 0 everywhere: the output is 0
    weights = np.zeros((len(grid), 1))
    weights[-2] = 1e-7
    grown = sampler.terminal_law(grid, [0.0], denoiser=weights).std[0]
    assert sensitivity[-2, 0] == pytest.approx(grown / 1e-7, rel=1e-5)
    assert np.isfinite(sensitivity).all()
