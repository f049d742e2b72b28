"""Laws of the samplers' last state against literal scalar loops, Monte Carlo and fine grids."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign_opt.samplers.members import Ancestral, DPMpp2M, Euler, EulerMaruyama, Heun
from tests.helpers.literal_samplers import GRIDS, LAM, LITERAL, SAMPLERS, edm_grid, ids, literal_law

NOISY = [Ancestral(0.5), Ancestral(1.0), EulerMaruyama(0.5), EulerMaruyama(1.0), EulerMaruyama(1.4)]


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_terminal_law_is_that_of_the_literal_scalar_loop(sampler, grid):
    law = sampler.terminal_law(grid, LAM)
    for b, lam in enumerate(LAM):
        weights = [lam / (lam + s**2) if s > 0 else 1.0 for s in grid]
        amplitude, variance = literal_law(sampler, grid, weights, lam + grid[0] ** 2)
        assert law.amplitude[b] == pytest.approx(amplitude, rel=1e-10, abs=1e-14)
        assert law.variance[b] == pytest.approx(variance, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_any_linear_denoiser_and_start_match_the_literal_loop_in_batches(sampler):
    rng = np.random.default_rng(3)
    grids = np.sort(rng.uniform(0.01, 5.0, (3, 1, 7)), axis=-1)[..., ::-1].copy()
    grids[1, 0, -1] = 0.0  # both terminals in one batch
    weights = rng.uniform(-0.3, 1.2, (2, 7, 3))
    start = rng.uniform(0.5, 2.0, 3)
    law = sampler.terminal_law(grids, LAM[:3], denoiser=weights, initial_variance=start)
    assert law.amplitude.shape == law.variance.shape == (3, 2, 3)
    for g, w, b in np.ndindex(3, 2, 3):
        amplitude, variance = literal_law(sampler, grids[g, 0], weights[w, :, b], start[b])
        assert law.amplitude[g, w, b] == pytest.approx(amplitude, rel=1e-9, abs=1e-13)
        assert law.variance[g, w, b] == pytest.approx(variance, rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("grid", ["denoise", "rescale"])
@pytest.mark.parametrize("sampler", NOISY, ids=ids)
def test_terminal_law_matches_monte_carlo_of_the_stochastic_samplers(sampler, grid):
    draws, lam, sigmas = 100_000, 0.25, GRIDS[grid]
    rng = np.random.default_rng(11)
    start = math.sqrt(lam + sigmas[0] ** 2)
    x = start * (1.0 + rng.standard_normal(draws))  # a mean of one start std besides
    noise = rng.standard_normal((len(sigmas) - 1, draws))
    out = LITERAL[sampler.name](
        lambda y, i: lam / (lam + sigmas[i] ** 2) * y, x, [float(s) for s in sigmas], noise, sampler.eta
    )
    law = sampler.terminal_law(sigmas, [lam])
    variance = law.variance[0]
    assert abs(out.mean() - law.amplitude[0] * start) < 3 * math.sqrt(variance / draws)
    assert abs(out.var(ddof=1) - variance) < 3 * variance * math.sqrt(2 / (draws - 1))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_last_step_to_zero_is_the_plain_denoiser(sampler):
    grid = edm_grid(8, sigma_min=0.3)
    before = sampler.terminal_law(grid[:-1], LAM)
    after = sampler.terminal_law(grid, LAM)
    weight = LAM / (LAM + 0.3**2)
    np.testing.assert_allclose(after.std, weight * before.std, rtol=1e-13)
    np.testing.assert_allclose(after.amplitude, weight * before.amplitude, rtol=1e-13)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=ids)
def test_fine_grids_reach_the_exact_terminal_std(sampler):
    grid = np.geomspace(20.0, 0.1, 4001)
    law = sampler.terminal_law(grid, LAM)
    np.testing.assert_allclose(law.std, np.sqrt(LAM + 0.01), rtol=2e-2 if sampler.order == 1 else 1e-5)
    # the mean is forgotten (v_r / v)^((1 + eta^2) / 2)
    forgotten = ((LAM + 0.01) / (LAM + 400.0)) ** ((1 + sampler.eta**2) / 2)
    np.testing.assert_allclose(law.amplitude, forgotten, rtol=5e-2 if sampler.order == 1 else 1e-5)


def test_noise_free_eta_is_euler():
    grid, euler = GRIDS["denoise"], Euler()
    for sampler in (Ancestral(0.0), EulerMaruyama(0.0)):
        np.testing.assert_allclose(sampler.terminal_law(grid, LAM).std, euler.terminal_law(grid, LAM).std, rtol=1e-13)
        np.testing.assert_allclose(
            sampler.local_error(LAM, [0.1, 2.0], 0.1), euler.local_error(LAM, [0.1, 2.0], 0.1), rtol=1e-14
        )


def test_tangent_law_multiplier_over_exact_is_cosine_for_euler_and_its_correction_for_heun():
    rng = np.random.default_rng(5)
    for lam, a, share in zip(rng.uniform(0.01, 9, 50), rng.uniform(0.1, 30, 50), rng.random(50), strict=True):
        b = a * share
        exact = math.sqrt((lam + b**2) / (lam + a**2))
        delta = math.atan(a / math.sqrt(lam)) - math.atan(b / math.sqrt(lam))
        euler = Euler().terminal_law([a, b], [lam]).amplitude[0]
        heun = Heun().terminal_law([a, b], [lam]).amplitude[0]
        correction = 0.5 * math.sin(delta) ** 2 * math.sqrt((lam + a**2) / (lam + b**2))
        assert euler / exact == pytest.approx(math.cos(delta), rel=1e-12)
        assert heun / exact == pytest.approx(math.cos(delta) + correction, rel=1e-12)


def test_uniform_angles_are_the_best_euler_grid_of_one_band():
    lam, steps = 0.25, 9
    low, high = math.atan(0.05 / 0.5), math.atan(80 / 0.5)
    angles = np.linspace(high, low, steps + 1)
    best = Euler().terminal_law(0.5 * np.tan(angles), [lam]).std[0]
    exact = math.sqrt(lam + 0.05**2)
    assert best == pytest.approx(exact * math.cos((high - low) / steps) ** steps, rel=1e-12)
    rng = np.random.default_rng(2)
    others = np.sort(rng.uniform(low, high, (500, steps - 1)))[:, ::-1]
    ends = np.ones((500, 1))
    grids = 0.5 * np.tan(np.hstack([high * ends, others, low * ends]))
    assert (Euler().terminal_law(grids, [lam]).std < best).all()


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1e4), st.floats(1e-3, 1e3), st.just(0.0) | st.floats(1e-5, 0.999))
def test_every_real_step_of_euler_heun_and_ancestral_is_stable(lam, sigma, share):
    below = sigma * share
    for sampler in (Euler(), Heun(), Ancestral(0.7), Ancestral(1.0)):
        multiplier = sampler.terminal_law([sigma, below], [lam]).amplitude[0]
        assert -1e-10 <= multiplier <= 1 + 1e-10


def test_euler_maruyama_is_stable_for_every_real_step_up_to_eta_one_but_not_beyond():
    a, share = np.geomspace(1e-2, 1e2, 40)[:, None], np.linspace(1e-4, 0.99, 30)
    steps = np.stack(np.broadcast_arrays(a, a * share), axis=-1)
    for eta, stable in [(0.5, True), (1.0, True), (1.5, False)]:
        multipliers = EulerMaruyama(eta).terminal_law(steps, LAM).amplitude
        assert (np.abs(multipliers) <= 1).all() == stable


def test_2m_can_amplify_in_one_step():
    lam = np.geomspace(1e-6, 1e4, 2001)
    for steps, worst in [(2, 1.60), (3, 1.48), (8, 1.19)]:
        grid = edm_grid(steps + 1, zero=False)
        path = [DPMpp2M().terminal_law(grid[: k + 1], lam).amplitude for k in range(1, steps + 1)]
        assert max((b / a).max() for a, b in pairwise(path)) == pytest.approx(worst, abs=0.005)
