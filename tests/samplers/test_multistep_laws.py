"""Laws and sensitivities of the multistep samplers against literal loops, complex steps and differences."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import codesign_opt as co
from codesign_opt.estimate import run
from codesign_opt.estimate.runs.run import trajectory
from codesign_opt.samplers.affine_steps import denoiser_weights
from codesign_opt.samplers.interpolants import falling_moments, rising_moments
from codesign_opt.samplers.network_step import Place
from codesign_opt.samplers.node_gradient import node_gradient
from tests.helpers.literal_multistep import MULTISTEP, TWO_CALLS, heun_churn, literal_law
from tests.helpers.literal_samplers import GRIDS

LAM = np.array([4.0, 0.25, 1e-3, 0.0])
GRID = np.array([10.0, 9.0, 4.0, 1.7, 0.9, 0.3, 0.25, 0.1])
CHOSEN = {"to zero": np.append(GRID, 0.0), "rescale": GRID, "two steps": GRID[:3], "one step": GRID[:2]}
EVERY = [*MULTISTEP, *TWO_CALLS]


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("sampler", EVERY, ids=repr)
def test_terminal_law_is_that_of_the_papers_loop(sampler, name):
    grid = CHOSEN[name]
    law = sampler.terminal_law(grid, LAM)
    for b, lam in enumerate(LAM):
        amplitude, variance = literal_law(sampler, grid, lam, lam + grid[0] ** 2)
        assert law.amplitude[b] == pytest.approx(amplitude, rel=1e-9, abs=1e-12)
        assert law.variance[b] == pytest.approx(variance, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("sampler", MULTISTEP, ids=repr)
def test_any_linear_denoiser_in_batches_of_both_terminals_matches_the_loop_and_its_differences(sampler):
    rng = np.random.default_rng(3)
    grids = np.sort(rng.uniform(0.05, 5.0, (2, 1, 7)), axis=-1)[..., ::-1].copy()
    grids[1, 0, -1] = 0.0
    weights, start = rng.uniform(-0.3, 1.2, (2, 7, 1)), np.array([1.3])
    law = sampler.terminal_law(grids, [0.5], denoiser=weights, initial_variance=start)
    found = sampler.weight_sensitivity(grids, [0.5], denoiser=weights, initial_variance=start)
    for g, w in np.ndindex(2, 2):
        own = weights[w, :, 0]
        amplitude, _ = literal_law(sampler, grids[g, 0], 0.5, 1.3, own)
        assert law.amplitude[g, w, 0] == pytest.approx(amplitude, rel=1e-8, abs=1e-11)
        k = int(rng.integers(5))
        moved = [literal_law(sampler, grids[g, 0], 0.5, 1.3, own + h * np.eye(7)[k])[1] for h in (1e-4, -1e-4)]
        slope = (math.sqrt(moved[0]) - math.sqrt(moved[1])) / 2e-4
        assert found[g, w, k, 0] == pytest.approx(slope, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("sampler", EVERY, ids=repr)
def test_sensitivity_and_node_gradient_are_complex_steps_of_the_law(sampler):
    grid, lam = CHOSEN["to zero"], LAM[:3]
    weights, start = denoiser_weights(lam, grid), lam + grid[0] ** 2
    nodes = np.eye(grid.size)
    by_weight = sampler.terminal_law(grid, lam, denoiser=weights + 1e-30j * nodes[:, :, None]).std.imag / 1e-30
    np.testing.assert_allclose(sampler.weight_sensitivity(grid, lam), by_weight, rtol=1e-9, atol=1e-12)
    positive = grid.size - 1
    moved = grid * (1 + 1e-30j * nodes[:positive])
    by_node = sampler.terminal_law(moved, lam, initial_variance=start).std.imag / 1e-30
    found = node_gradient(sampler, grid, lam, start, gain=False).std_by_node
    np.testing.assert_allclose(found, by_node.T, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("sampler", [*MULTISTEP, co.DPMpp2S(), co.HeunChurn(0.0)], ids=repr)
def test_a_step_on_a_network_has_the_law_and_goes_on_from_the_middle_of_a_grid(sampler):
    lam = torch.as_tensor(LAM)

    def linear(x, sigma):
        return x * lam / (lam + sigma[:, None] ** 2)

    for grid in (CHOSEN["to zero"], GRIDS["rescale"]):
        x = torch.ones((1, 4), dtype=torch.float64)
        out = trajectory(linear, sampler, grid, x)
        np.testing.assert_allclose(out[-1][0], sampler.terminal_law(grid, LAM).amplitude, rtol=1e-9, atol=1e-13)
        before = [(grid[k], out[k], linear(out[k], torch.tensor([grid[k]]))) for k in range(4)]
        place = Place(grid.size - 1, grid.size - 6)
        tail = run(linear, sampler, grid[4:], out[4], before=before, place=place)
        np.testing.assert_allclose(tail, out[-1], rtol=1e-12, atol=1e-14)


def test_churn_has_the_law_of_its_loop_under_drawn_noise():
    sampler, count, lam = co.HeunChurn(8.0, 0.2, 30.0, 1.05), 200_000, 0.25
    grid = co.edm_grid(6, 0.05, 20.0)
    noise = np.random.default_rng(5).standard_normal((len(grid), count))
    x = math.sqrt(lam + 400.0) * np.random.default_rng(6).standard_normal(count)
    out = heun_churn(sampler, lambda y, s, k: lam / (lam + s**2) * y, x, [float(s) for s in grid], noise)
    variance = sampler.terminal_law(grid, [lam]).variance[0]
    assert abs(out.var(ddof=1) - variance) < 3 * variance * math.sqrt(2 / count)


@pytest.mark.parametrize("length", [1e-3, 0.3, 0.999, 1.001, 4.0, 25.0])
def test_moments_are_the_integrals(length):
    decay = math.exp(-length)
    rising, falling = (f(np.array(length), np.array(decay), 4) for f in (rising_moments, falling_moments))
    for m in range(4):
        exact = [quad(lambda s, m=m, c=c: math.exp(-length * (c - s if c else s)) * s**m, 0, 1)[0] for c in (1, 0)]
        np.testing.assert_allclose([rising[m], falling[m]], exact, rtol=1e-10)
