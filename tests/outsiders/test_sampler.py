"""A sampler from outside the package: Ralston's method, one class, on Gaussian data and on a network."""

from dataclasses import dataclass

import numpy as np
import torch

import codesign_opt as co
from codesign_opt.estimate import Measurement, network, run
from codesign_opt.testbed import LinearDenoiser


@dataclass(frozen=True)
class Ralston(co.Sampler):
    name, order, evaluations_per_step = "ralston", 2, 2

    def leading_error(self, lam, sigma):
        return -lam * sigma / (6 * (lam + sigma**2) ** 3)

    def affine_steps(self, sigma, weights):
        high, step = sigma[..., :-1, :], -np.diff(sigma, axis=-2)
        there = 1 - 2 * step / 3 * (1 - weights[..., :-1, :]) / high
        slope = (1 - self.weights_at(high - 2 * step / 3, sigma, weights)) / (high - 2 * step / 3) * there
        return co.AffineSteps(1 - step * ((1 - weights[..., :-1, :]) / high + 3 * slope) / 4)

    def step(self, denoiser, x, levels, memory, noise):
        between, slope = levels.high / 3 + 2 * levels.low / 3, (x - denoiser(x, levels.high)) / levels.high
        there = x + (between - levels.high) * slope
        return x + (levels.low - levels.high) * (slope + 3 * (there - denoiser(there, between)) / between) / 4


def test_ralston_plans_on_gaussian_data_and_on_a_network_is_compared_and_comes_back_from_a_file(tmp_path):
    lam, grid = co.Spectrum.power_law(12, exponent=1.5).eigenvalues, co.edm_grid(7, 0.02, 20.0)
    out = run(LinearDenoiser(lam), Ralston(), grid, torch.ones(1, 12, dtype=torch.float64))
    np.testing.assert_allclose(out[0], Ralston().terminal_law(grid, lam).amplitude, rtol=1e-12)
    model = co.GaussianModel(co.Spectrum.power_law(12, exponent=1.5), sampler=Ralston())
    assert co.codesign(model, steps=8, levels=40, points=4).error > 0
    measurement = Measurement(levels=6, draws=8, fine_steps=16, evaluations=1500)
    data = torch.as_tensor(np.random.default_rng(0).normal(size=(400, 12)) * lam**0.5)
    model = network(LinearDenoiser(lam), data, sampler=Ralston(), measurement=measurement)
    assert [row.peer for row in co.compare(model, ["edm"], [9], draws=100).rows] == ["plan", "edm"]  # by their errors
    assert co.EstimatedModel.load(model.save(tmp_path / "model.npz")).sampler == Ralston()
