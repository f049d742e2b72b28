"""A sampler from outside the package: Ralston's method, one class, on Gaussian data and on a network."""

from dataclasses import dataclass

import numpy as np

import codesign_opt as co

LAM = np.array([1.0, 0.25, 0.01])


@dataclass(frozen=True)
class Ralston(co.Sampler):
    name, order, evaluations_per_step = "ralston", 2, 2

    def leading_error(self, lam, sigma):
        return -lam * sigma / (6 * (lam + sigma**2) ** 3)

    def affine_steps(self, sigma, weights):
        return co.AffineSteps(self.move(sigma[..., :-1, :], sigma[..., 1:, :], 1.0, lambda x, s: x * (
            weights[..., :-1, :] if s is None else self.weights_at(s, sigma, weights))))  # fmt: skip

    def step(self, denoiser, x, levels, memory, noise):
        return self.move(levels.high, levels.low, x, lambda x, s: denoiser(x, levels.high if s is None else s))
