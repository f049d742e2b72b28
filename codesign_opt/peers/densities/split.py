"""k-diffusion's split log-normal density: two half-normals of ln sigma that meet at the mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import ndtr, ndtri

from ...basics.checks import Array, number, scale_of
from ...ingredients.densities import FURTHEST, SigmaDensity

__all__ = ["SplitLogNormal"]


@dataclass(frozen=True)
class SplitLogNormal(SigmaDensity):
    """ln sigma - location is half-normal on both sides, of scale_1 below and scale_2 above, continuous at the mode.

    "split-lognormal" of k-diffusion (rand_split_log_normal): below the mode with probability scale_1 / (scale_1 +
    scale_2).

    Args:
        location: mode of ln sigma.
        scale_1, scale_2: > 0.

    >>> SplitLogNormal(0.0, 1.0, 3.0).tails(np.array([1.0]))[0].tolist()
    [0.25]
    """

    name: ClassVar[str] = "split_lognormal"
    location: float = -1.2
    scale_1: float = 1.2
    scale_2: float = 1.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "location", number(self.location, "SplitLogNormal.location"))
        for name in ("scale_1", "scale_2"):
            object.__setattr__(self, name, scale_of(getattr(self, name), f"SplitLogNormal.{name}"))

    @classmethod
    def of_parameters(cls, parameters: Array) -> SplitLogNormal:
        """From the location and the logarithms of the scales, any numbers: for searches."""
        return cls(float(parameters[0]), *(float(s) for s in np.exp(np.clip(parameters[1:], -30, 30))))

    @property
    def _low(self) -> float:
        """Probability below the mode."""
        return self.scale_1 / (self.scale_1 + self.scale_2)

    def tails(self, sigma: Array) -> tuple[Array, Array]:
        """Probability below and above noise levels."""
        with np.errstate(divide="ignore", over="ignore"):
            z = np.log(sigma) - self.location
            under, over = 2 * self._low * ndtr(z / self.scale_1), 2 * (1 - self._low) * ndtr(-z / self.scale_2)
        return np.where(z < 0, under, 1 - over), np.where(z < 0, 1 - under, over)

    def quantile(self, u: Array) -> Array:
        """sigma below which a fraction `u` of the training examples lies."""
        share, low = np.asarray(u, dtype=np.float64), self._low
        left = self.scale_1 * ndtri(np.minimum(share / (2 * low), 0.5))
        right = -self.scale_2 * ndtri(np.minimum((1 - share) / (2 * (1 - low)), 0.5))
        return np.exp(np.clip(self.location + np.where(share < low, left, right), -FURTHEST, FURTHEST))

    def per_log_sigma(self, sigma: Array) -> Array:
        """Probability per unit log sigma."""
        z = np.log(sigma) - self.location
        with np.errstate(over="ignore"):
            scaled = np.where(z < 0, z / self.scale_1, z / self.scale_2)
            return np.exp(-0.5 * scaled**2) * np.sqrt(2 / np.pi) / (self.scale_1 + self.scale_2)
