"""Mixtures of isotropic Gaussians: exact denoiser, score, density and samples at every noise level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...basics.checks import AT_ONCE, Array, integer, matrix, number, shown, vector
from ...estimate.draws.streams import seeded

__all__ = ["Mixture", "circle8", "clusters4", "grid8"]

# weights of the eight components of circle8 and grid8: unequal on purpose, a factor of 3 from end to end
_WEIGHTS = (0.20, 0.08, 0.15, 0.07, 0.18, 0.10, 0.12, 0.10)


@dataclass(frozen=True, eq=False)
class Mixture:
    """p(x) = sum_k w_k N(x; m_k, s_k^2 I), and everything about it in closed form.

    Args:
        means: (k, d), data units.
        widths: (k,) standard deviations s_k > 0, data units.
        weights: (k,) > 0; they are divided by their sum.

    Raises:
        ValueError: sizes that differ, a width or weight that is not positive.

    >>> one = Mixture([[0.0, 0.0]], [1.0], [1.0])
    >>> one(torch.ones(1, 2), torch.ones(1)).tolist()
    [[0.5, 0.5]]
    """

    means: Array
    widths: Array
    weights: Array

    def __post_init__(self) -> None:
        means = matrix(self.means, "Mixture.means")
        widths = vector(self.widths, "Mixture.widths", length=len(means), positive=True)
        weights = vector(self.weights, "Mixture.weights", length=len(means), positive=True)
        for name, value in (("means", means), ("widths", widths), ("weights", weights / weights.sum())):
            object.__setattr__(self, name, value)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Exact denoiser E[x0 | x0 + sigma z = x]: x (N, d), sigma (N,) or one number -> (N, d)."""
        share, away, variance = self._posterior(x, sigma)
        shrink = torch.from_numpy(self.widths**2).to(x) / variance
        centres = torch.tensor(self.means).to(x)
        return (share[:, :, None] * (centres + shrink[:, :, None] * away)).sum(1)

    def score(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """Gradient of the log density of x0 + sigma z at x: (N, d)."""
        share, away, variance = self._posterior(x, sigma)
        return -((share / variance)[:, :, None] * away).sum(1)

    def log_density(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """Log density of x0 + sigma z at x, natural logarithm: (N,)."""
        return torch.logsumexp(self._logs(x, sigma)[0], dim=1)

    def sample(self, count: int, seed: int = 0, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """(count, d) independent draws."""
        count = integer(count, "count", minimum=1, maximum=AT_ONCE)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(f"dtype is {shown(dtype)}; one of torch's floats is needed, such as torch.float32.")
        generator = seeded(seed, "mixture")
        which = torch.multinomial(torch.tensor(self.weights), count, replacement=True, generator=generator)
        noise = torch.randn((count, self.means.shape[1]), generator=generator, dtype=torch.float64)
        drawn = torch.tensor(self.means)[which] + torch.tensor(self.widths)[which, None] * noise
        return drawn.to(dtype)

    @property
    def mean(self) -> Array:
        """(d,) mean of the mixture."""
        return self.weights @ self.means

    @property
    def covariance(self) -> Array:
        """(d, d) covariance of the mixture."""
        away = self.means - self.mean
        within = float(self.weights @ self.widths**2)
        return (away * self.weights[:, None]).T @ away + within * np.eye(self.means.shape[1])

    def _logs(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """Log of weight times density of every component (N, k), x - m_k (N, k, d), variances (N, k)."""
        sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(x.shape[0])
        variance = torch.from_numpy(self.widths**2).to(x) + sigma[:, None] ** 2
        away = x[:, None, :] - torch.tensor(self.means).to(x)
        normal = -0.5 * (away**2).sum(2) / variance - 0.5 * x.shape[1] * (math.log(2 * math.pi) + variance.log())
        return torch.from_numpy(np.log(self.weights)).to(x) + normal, away, variance

    def _posterior(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        logs, away, variance = self._logs(x, sigma)
        return logs.softmax(1), away, variance


def circle8(radius: float = 2.0, width: float = 0.2) -> Mixture:
    """Eight components at equal angles on a circle, the first at angle 0; unequal fixed weights.

    >>> circle8().means.shape
    (8, 2)
    """
    angle = 2 * np.pi * np.arange(8) / 8
    radius = number(radius, "radius", positive=True)
    widths = np.full(8, number(width, "width", positive=True))
    return Mixture(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1), widths, np.array(_WEIGHTS))


def clusters4(offset: float = 2.0, width: float = 0.3) -> Mixture:
    """Four equal components at (+-2, +-2) of standard deviation 0.3: the toy of arXiv:2605.10790, appendix F.1.

    Each axis is a mixture of its own, of variance offset^2 + width^2 = 4.09: the data are centred, not whitened.

    >>> clusters4().means.tolist()
    [[-2.0, -2.0], [-2.0, 2.0], [2.0, -2.0], [2.0, 2.0]]
    """
    offset = number(offset, "offset", positive=True)
    corners = offset * np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    return Mixture(corners, np.full(4, number(width, "width", positive=True)), np.ones(4))


def grid8(spacing: float = 1.5, width: float = 0.2) -> Mixture:
    """Eight components on a centred grid of two rows and four columns; the weights of circle8, row by row.

    >>> grid8().means[0].tolist()
    [-2.25, -0.75]
    """
    spacing = number(spacing, "spacing", positive=True)
    y, x = np.meshgrid(spacing * np.array([-0.5, 0.5]), spacing * (np.arange(4) - 1.5), indexing="ij")
    widths = np.full(8, number(width, "width", positive=True))
    return Mixture(np.stack([x.ravel(), y.ravel()], axis=1), widths, np.array(_WEIGHTS))
