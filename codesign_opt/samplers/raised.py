"""Samplers of two calls a step, at levels that are not all nodes: DPM-Solver++(2S), and Heun's method with churn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..basics.checks import Array, integer, number
from .adjoint import ratios
from .affine_steps import AffineSteps, Numbers
from .base import Sampler
from .network_step import DenoiserCall, NoisePath, Remembered, SigmaStep, mixed, trapezoid

if TYPE_CHECKING:
    import torch

__all__ = ["DPMpp2S", "HeunChurn"]

_LOUDEST = 1e60  # s_noise whose powers are floats


@dataclass(frozen=True)
class DPMpp2S(Sampler):
    """DPM-Solver++(2S): x' = (s'/s) x + (1 - s'/s) D(u, sqrt(s s')), u the Euler step to sqrt(s s'). Order 2.

    The second output is taken at the middle of the step in log sigma. Source: Lu et al., DPM-Solver++ (2022), algorithm
    1 with r = 1/2, as k-diffusion's dpmpp_2s_ancestral with eta = 0; diffusers' DPMSolverSinglestepScheduler of order 2
    is this on a grid that lists the middles too. docs/theory.md section 2.

    >>> bool((DPMpp2S().local_error([1.0], [0.1, 1.0, 10.0], 0.01) > 0).all())  # it shrinks
    True
    """

    name: ClassVar[str] = "dpmpp_2s"
    order: ClassVar[int] = 2
    evaluations_per_step: ClassVar[int] = 2

    def leading_error(self, lam: Array, sigma: Array) -> Array:
        """docs/theory.md section 3, the row of this sampler."""
        return lam / (8 * sigma * (lam + sigma**2) ** 2)

    def affine_steps(self, sigma: Numbers, weights: Numbers) -> AffineSteps:
        """docs/theory.md section 2, the row of this sampler."""
        half = np.sqrt(ratios(sigma))
        between = self.weights_at(sigma[..., :-1, :] * half, sigma, weights)
        there = half + (1 - half) * weights[..., :-1, :]
        return AffineSteps(half**2 + (1 - half**2) * between * there)

    def step(
        self,
        denoiser: DenoiserCall,
        x: torch.Tensor,
        levels: SigmaStep,
        memory: Sequence[Remembered],
        noise: NoisePath | None,
    ) -> torch.Tensor:
        """The Euler step with the output at its middle."""
        middle = (levels.high * levels.low).sqrt()
        there = mixed(x, denoiser(x, levels.high), middle / levels.high)
        return mixed(x, denoiser(there, middle), levels.low / levels.high)


@dataclass(frozen=True)
class HeunChurn(Sampler):
    """Heun's method with churn, EDM's stochastic sampler: noise raises s to (1 + gamma) s, from where the step goes.

    gamma = min(s_churn / K, sqrt(2) - 1) of a grid of K steps where s_tmin <= s <= s_tmax, else 0; the noise has the
    standard deviation s_noise sqrt((1 + gamma)^2 - 1) s. At s_noise = 1 it leaves the marginals exact, and the order is
    2 while s_churn is held. How much noise a step makes depends on the number of steps and not on their length, so that
    no local error per length exists: programs plan with Heun's own (gamma = 0), and descents of the grid go by the law
    with churn. The step to zero adds no noise. Source: Karras et al., Elucidating the Design Space (2022), algorithm 2,
    as k-diffusion's heun; docs/theory.md sections 2 and 3.

    Args:
        s_churn: >= 0.
        s_tmin, s_tmax: 0 <= s_tmin <= s_tmax, data units.
        s_noise: > 0.

    Raises:
        ValueError: a field out of its range.

    >>> HeunChurn(s_churn=40.0).stochastic, HeunChurn(s_churn=40.0).gamma(18)
    (True, 0.41421356237309515)
    """

    s_churn: float = 40.0
    s_tmin: float = 0.05
    s_tmax: float = 50.0
    s_noise: float = 1.003
    name: ClassVar[str] = "heun_churn"
    order: ClassVar[int] = 2
    evaluations_per_step: ClassVar[int] = 2

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "s_churn", number(self.s_churn, "HeunChurn.s_churn", nonnegative=True))
        put(self, "s_tmax", number(self.s_tmax, "HeunChurn.s_tmax", positive=True))
        put(self, "s_tmin", number(self.s_tmin, "HeunChurn.s_tmin", nonnegative=True, maximum=self.s_tmax))
        put(self, "s_noise", number(self.s_noise, "HeunChurn.s_noise", positive=True, maximum=_LOUDEST))

    @property
    def stochastic(self) -> bool:
        """Whether there is any churn."""
        return self.s_churn > 0

    def gamma(self, steps: int) -> float:
        """Share by which the noise level is raised in a grid of some steps, the last to zero counted in."""
        return min(self.s_churn / integer(steps, "steps", minimum=1), sqrt(2) - 1)

    def leading_error(self, lam: Array, sigma: Array) -> Array:
        """docs/theory.md section 3, Heun's row."""
        return -lam * sigma / (2 * (lam + sigma**2) ** 3)

    def affine_steps(self, sigma: Numbers, weights: Numbers) -> AffineSteps:
        """docs/theory.md section 2, the row of this sampler."""
        high, low, after = sigma[..., :-1, :], sigma[..., 1:, :], weights[..., 1:, :]
        inside = (high.real >= self.s_tmin) & (high.real <= self.s_tmax)
        raised = high * (1 + self.gamma(high.shape[-2]) * inside)
        ratio = low / raised
        before = np.where(inside, self.weights_at(raised, sigma, weights), weights[..., :-1, :])
        predicted = ratio + (1 - ratio) * before
        kept = 0.5 * (1 + predicted + (1 - 1 / ratio) * (1 - after) * predicted)
        return AffineSteps(kept, noise=kept**2 * (self.s_noise**2 * (raised**2 - high**2)))

    def step(
        self,
        denoiser: DenoiserCall,
        x: torch.Tensor,
        levels: SigmaStep,
        memory: Sequence[Remembered],
        noise: NoisePath | None,
    ) -> torch.Tensor:
        """Noise up to the raised level, the Euler step from there, and the mean of the slopes at both its ends."""
        high, low = levels.high, levels.low
        gamma = self.gamma(levels.place.steps) if self.s_tmin <= float(high.detach()) <= self.s_tmax else 0.0
        if gamma > 0 and noise is not None:
            added = (self.s_noise * ((1 + gamma) ** 2 - 1) ** 0.5 * high).to(x.dtype)
            x = x + added * noise.draw(high, low, x)
            high = (1 + gamma) * high
        return trapezoid(denoiser, x, high, low)
