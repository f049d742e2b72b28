"""Schedules that need nothing but the range of noise levels: what users set by a flag today.

Each keeps its own formula between the ends and has sigma_max and sigma_min as its ends. Those of a formula with
constants in data units (`KLOptimal`, `Laplace`) mean data of unit scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import betaincinv

from ...basics.checks import Array, choice, number, scale_of
from ...ingredients.grids import FLATTEST
from ...models.evidence import Evidence
from .base import Schedule

__all__ = ["BetaSigma", "EDMRho", "KLOptimal", "Laplace", "LinearSigma", "LogSNR", "Polyexponential"]

_WIDEST = 100.0  # mean and spread in log sigma, whose exponentials are floats


@dataclass(frozen=True)
class EDMRho(Schedule):
    """Equal increments of sigma^(1/rho): EDM's grid (Karras et al. 2022, equation 5).

    Args:
        rho: 7 is EDM's default; 1 is uniform in sigma, infinity would be uniform in log sigma.

    >>> EDMRho(3.0).sigmas(3, Evidence(sigma_min=1.0, sigma_max=8.0)).round(12).tolist()
    [8.0, 3.375, 1.0, 0.0]
    """

    rho: float = 7.0
    name: ClassVar[str] = "edm"
    title: ClassVar[str] = "EDM, equal steps of sigma^(1/rho)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", number(self.rho, "EDMRho.rho", positive=True, maximum=FLATTEST))

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        last = (evidence.sigma_min / evidence.sigma_max) ** (1 / self.rho)
        return evidence.between(evidence.sigma_max * np.linspace(1.0, last, count) ** self.rho)


@dataclass(frozen=True)
class LogSNR(Schedule):
    """Equal increments of log sigma, a geometric progression; "exponential" in k-diffusion and diffusers.

    >>> LogSNR().sigmas(3, Evidence(sigma_min=1.0, sigma_max=4.0)).round(12).tolist()
    [4.0, 2.0, 1.0, 0.0]
    """

    name: ClassVar[str] = "log_snr"
    title: ClassVar[str] = "equal steps of log sigma"

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        return evidence.between(np.geomspace(evidence.sigma_max, evidence.sigma_min, count))


@dataclass(frozen=True)
class LinearSigma(Schedule):
    """Equal increments of sigma; EDM's grid at rho = 1.

    >>> LinearSigma().sigmas(3, Evidence(sigma_min=1.0, sigma_max=5.0)).tolist()
    [5.0, 3.0, 1.0, 0.0]
    """

    name: ClassVar[str] = "linear_sigma"
    title: ClassVar[str] = "equal steps of sigma"

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        return np.linspace(evidence.sigma_max, evidence.sigma_min, count)


@dataclass(frozen=True)
class Polyexponential(Schedule):
    """A polynomial in log sigma: log sigma = log sigma_min + r^rho log(sigma_max / sigma_min), r from 1 to 0.

    As `get_sigmas_polyexponential` of k-diffusion.

    Args:
        rho: > 0; 1 is `LogSNR`, more puts more nodes at low noise.

    >>> Polyexponential(2.0).sigmas(3, Evidence(sigma_min=1.0, sigma_max=16.0)).round(12).tolist()
    [16.0, 2.0, 1.0, 0.0]
    """

    rho: float = 1.0
    name: ClassVar[str] = "polyexponential"
    title: ClassVar[str] = "a power of a ramp in log sigma"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", number(self.rho, "Polyexponential.rho", positive=True))

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        ramp = np.linspace(1.0, 0.0, count) ** self.rho
        low = np.log(evidence.sigma_min)
        return evidence.between(np.exp(low + ramp * (np.log(evidence.sigma_max) - low)))


@dataclass(frozen=True)
class BetaSigma(Schedule):
    """Quantiles of a Beta law in sigma: sigma_min + q(1 - i/(K-1)) (sigma_max - sigma_min), as `use_beta_sigmas`.

    Lee et al. 2024 (2407.12173) place timesteps by this law and ComfyUI does so too: that is `BetaTimesteps`, another
    schedule. diffusers applies the quantiles to the noise level itself: this one.

    Args:
        alpha, beta: exponents of the law, > 0.

    >>> BetaSigma(1.0, 1.0).sigmas(3, Evidence(sigma_min=1.0, sigma_max=5.0)).tolist()
    [5.0, 3.0, 1.0, 0.0]
    """

    alpha: float = 0.6
    beta: float = 0.6
    name: ClassVar[str] = "beta_sigma"
    title: ClassVar[str] = "Beta quantiles in sigma (diffusers)"

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            object.__setattr__(self, name, number(getattr(self, name), f"BetaSigma.{name}", positive=True))

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        share = betaincinv(self.alpha, self.beta, np.linspace(1.0, 0.0, count))
        return evidence.between(evidence.sigma_min + share * (evidence.sigma_max - evidence.sigma_min))


@dataclass(frozen=True)
class KLOptimal(Schedule):
    """Equal increments of arctan(sigma / scale): the best grid of Euler on N(0, scale^2), at every number of steps.

    docs/theory.md section 11.3; Sabour et al. 2024 state it for one Gaussian. ComfyUI's `kl_optimal` has scale = 1,
    whatever the data; `Tangent` takes the scale from their spectrum.

    Args:
        scale: standard deviation of the data, data units, > 0.

    >>> KLOptimal().sigmas(3, Evidence(sigma_min=0.1, sigma_max=10.0)).round(12).tolist()
    [10.0, 1.0, 0.1, 0.0]
    """

    scale: float = 1.0
    name: ClassVar[str] = "kl_optimal"
    title: ClassVar[str] = "equal steps of arctan sigma"

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", scale_of(self.scale, "KLOptimal.scale"))

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        high, low = np.arctan(np.array([evidence.sigma_max, evidence.sigma_min]) / self.scale)
        return evidence.between(self.scale * np.tan(np.linspace(high, low, count)))


@dataclass(frozen=True)
class Laplace(Schedule):
    """Quantiles of a Laplace law in log sigma: mean - spread sgn(1/2 - x) log(1 - 2|1/2 - x| + 1e-5), x from 0 to 1.

    As ComfyUI's `laplace`. Hang et al. 2024 (2407.03297) state the law for the log-SNR and for training.

    Args:
        mean: of log sigma.
        spread: scale of the law, > 0.
        ends: "clamp" as ComfyUI: quantiles of the whole law, clamped to the range, of which several may fall on one
            end. "truncate": quantiles of the law restricted to the range, which are always distinct.

    Raises:
        ValueError: "clamp" with two or more quantiles outside one end of the range.

    >>> Laplace().sigmas(4, Evidence(sigma_min=0.002, sigma_max=80.0)).round(4).tolist()
    [80.0, 1.2247, 0.8165, 0.002, 0.0]
    """

    mean: float = 0.0
    spread: float = 0.5
    ends: str = "clamp"
    name: ClassVar[str] = "laplace"
    title: ClassVar[str] = "Laplace quantiles in log sigma"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", number(self.mean, "Laplace.mean", maximum=_WIDEST))
        object.__setattr__(self, "spread", number(self.spread, "Laplace.spread", positive=True, maximum=_WIDEST))
        choice(self.ends, "Laplace.ends", ("clamp", "truncate"))

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        low, high = evidence.sigma_min, evidence.sigma_max
        if self.ends == "truncate":
            return evidence.between(self._truncated(count, low, high))
        side = 0.5 - np.linspace(0.0, 1.0, count)
        levels = np.exp(self.mean - self.spread * np.sign(side) * np.log(1 - 2 * np.abs(side) + 1e-5))
        outside = int(np.sum((levels[1:-1] >= high) | (levels[1:-1] <= low)))
        if outside:
            raise ValueError(
                f"laplace: {outside} of {count} quantiles fall outside [{low:g}, {high:g}] and would repeat its ends; "
                'use ends="truncate", a smaller spread or a mean inside the range.'
            )
        return evidence.between(levels)

    def _truncated(self, count: int, low: float, high: float) -> Array:
        """Quantiles of the law restricted to the range, each side of the mean by its own exponential."""
        above, below = (np.log([high, low]) - self.mean) / self.spread
        with np.errstate(divide="ignore"):  # an infinite quantile can only be an end, which is replaced
            if below >= 0:
                found = below - np.log(np.linspace(np.exp(below - above), 1.0, count))
            elif above <= 0:
                found = above + np.log(np.linspace(1.0, np.exp(below - above), count))
            else:  # by F - 1/2 = sign(z) (1 - exp(-|z|)) / 2
                centred = np.linspace(-np.expm1(-above), np.expm1(below), count)
                found = -np.sign(centred) * np.log1p(-np.abs(centred))
        return np.exp(self.mean + self.spread * np.clip(found, below, above))
