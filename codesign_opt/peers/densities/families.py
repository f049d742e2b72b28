"""Training densities of the literature over noise levels, each by its own parameters.

All are densities of sigma, the noise level in rescaled coordinates x0 + sigma z (docs/theory.md section 1); the
literature states them in sigma, in log-SNR = -2 ln sigma, or in a process's time.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri

from ...basics.checks import Array, noise_level, number, scale_of
from ...ingredients.densities import FURTHEST, LogNormal, SigmaDensity

__all__ = ["Cauchy", "LaplaceDensity", "LogLogistic", "LogUniform", "LogitNormal", "Mode", "VDiffusion"]

_BISECTIONS = 200  # halvings of [0, 1] down to the last bit of a small share


class _LocationScale(SigmaDensity):
    """ln sigma = location + scale * a standard variable, symmetric about 0."""

    @property
    @abstractmethod
    def _place(self) -> tuple[float, float]:
        """Location and scale of ln sigma."""

    @staticmethod
    @abstractmethod
    def _below(z: Array) -> Array:
        """Distribution function of the standard variable, exact in its lower tail."""

    @staticmethod
    @abstractmethod
    def _point(u: Array) -> Array:
        """Its quantile, exact at small u."""

    @staticmethod
    @abstractmethod
    def _height(z: Array) -> Array:
        """Its density."""

    def tails(self, sigma: Array) -> tuple[Array, Array]:
        """Probability below and above noise levels."""
        location, scale = self._place
        with np.errstate(divide="ignore", over="ignore"):
            z = (np.log(sigma) - location) / scale
            return self._below(z), self._below(-z)

    def quantile(self, u: Array) -> Array:
        """sigma below which a fraction `u` of the training examples lies."""
        location, scale = self._place
        with np.errstate(divide="ignore"):
            z = self._point(np.asarray(u, dtype=np.float64))
        return np.exp(np.clip(location + scale * z, -FURTHEST, FURTHEST))

    def per_log_sigma(self, sigma: Array) -> Array:
        """Probability per unit log sigma."""
        location, scale = self._place
        with np.errstate(over="ignore"):
            return self._height((np.log(sigma) - location) / scale) / scale


@dataclass(frozen=True)
class LaplaceDensity(_LocationScale):
    """Laplace density of the log-SNR, exp(-|log-SNR - mean| / scale) / (2 scale) (Hang and Gu 2024, arXiv:2407.03297).

    Args:
        mean, scale: of the log-SNR, their mu = 0 and b = 0.5; ln sigma has half of both, with the mean's sign turned.

    >>> LaplaceDensity(0.0, 0.5).quantile(np.array([0.25, 0.5])).round(4).tolist()
    [0.8409, 1.0]
    """

    name: ClassVar[str] = "laplace"
    mean: float = 0.0
    scale: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", number(self.mean, "LaplaceDensity.mean"))
        object.__setattr__(self, "scale", scale_of(self.scale, "LaplaceDensity.scale"))

    @property
    def _place(self) -> tuple[float, float]:
        return -0.5 * self.mean, 0.5 * self.scale

    @staticmethod
    def _below(z: Array) -> Array:
        return np.where(z < 0, 0.5 * np.exp(-np.abs(z)), 1 - 0.5 * np.exp(-np.abs(z)))

    @staticmethod
    def _point(u: Array) -> Array:
        return np.where(u < 0.5, np.log(2 * np.minimum(u, 0.5)), -np.log(2 * np.minimum(1 - u, 0.5)))

    @staticmethod
    def _height(z: Array) -> Array:
        return 0.5 * np.exp(-np.abs(z))


@dataclass(frozen=True)
class Cauchy(_LocationScale):
    """Cauchy in the log-SNR, scale / (pi ((log-SNR - mean)^2 + scale^2)) (Hang and Gu 2024, arXiv:2407.03297).

    Its tails reach noise levels that no model takes: restrict it with `between` before training.

    Args:
        mean, scale: of the log-SNR; the default scale is 1.

    >>> Cauchy().between(0.002, 80.0).quantile(np.array([0.0, 0.5, 1.0])).round(3).tolist()
    [0.002, 0.992, 80.0]
    """

    name: ClassVar[str] = "cauchy"
    mean: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", number(self.mean, "Cauchy.mean"))
        object.__setattr__(self, "scale", scale_of(self.scale, "Cauchy.scale"))

    @property
    def _place(self) -> tuple[float, float]:
        return -0.5 * self.mean, 0.5 * self.scale

    @staticmethod
    def _below(z: Array) -> Array:
        with np.errstate(divide="ignore"):
            return np.where(z < -1, np.arctan(1 / np.abs(z)), np.arctan(np.maximum(z, -1)) + np.pi / 2) / np.pi

    @staticmethod
    def _point(u: Array) -> Array:
        with np.errstate(divide="ignore"):
            low = -1 / np.tan(np.pi * np.minimum(u, 0.25))
            high = 1 / np.tan(np.pi * np.minimum(1 - u, 0.25))
        return np.where(u < 0.25, low, np.where(u > 0.75, high, np.tan(np.pi * (np.clip(u, 0.25, 0.75) - 0.5))))

    @staticmethod
    def _height(z: Array) -> Array:
        return 1 / (np.pi * (1 + z**2))


@dataclass(frozen=True)
class LogLogistic(_LocationScale):
    """ln sigma is logistic: "loglogistic" of k-diffusion.

    Args:
        location, scale: of ln sigma; k-diffusion's defaults are 0 and 1.

    >>> LogLogistic().tails(np.array([1.0]))[0].tolist()
    [0.5]
    """

    name: ClassVar[str] = "log_logistic"
    location: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "location", number(self.location, "LogLogistic.location"))
        object.__setattr__(self, "scale", scale_of(self.scale, "LogLogistic.scale"))

    @property
    def _place(self) -> tuple[float, float]:
        return self.location, self.scale

    @staticmethod
    def _below(z: Array) -> Array:
        return np.asarray(expit(z))

    @staticmethod
    def _point(u: Array) -> Array:
        return np.asarray(logit(u))

    @staticmethod
    def _height(z: Array) -> Array:
        return np.asarray(expit(z) * expit(-z))


@dataclass(frozen=True)
class LogitNormal(_LocationScale):
    """The flow's time is logit-normal, logit t ~ N(mean, std^2): Stable Diffusion 3 (Esser et al. 2024, equation 19).

    With sigma = t / (1 - t), ln sigma = logit t: a log-normal density, times the resolution's shift
    (their equation 23 multiplies sigma by it).

    Args:
        mean, std: of logit t, t = 1 being noise as in the paper. diffusers indexes timesteps that descend, which turns
            the sign of its logit_mean.
        shift: factor on sigma.

    >>> LogitNormal(0.0, 1.0, shift=3.0).quantile(np.array([0.5])).round(12).tolist()
    [3.0]
    """

    name: ClassVar[str] = "logit_normal"
    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", number(self.mean, "LogitNormal.mean"))
        for name in ("std", "shift"):
            object.__setattr__(self, name, number(getattr(self, name), f"LogitNormal.{name}", positive=True))

    @property
    def _place(self) -> tuple[float, float]:
        return self.mean + float(np.log(self.shift)), self.std

    def nearest_lognormal(self) -> LogNormal:
        """The same density by its mean and standard deviation of ln sigma."""
        return LogNormal(*self._place)

    @staticmethod
    def _below(z: Array) -> Array:
        return np.asarray(ndtr(z))

    @staticmethod
    def _point(u: Array) -> Array:
        return np.asarray(ndtri(u))

    @staticmethod
    def _height(z: Array) -> Array:
        return np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)


@dataclass(frozen=True)
class LogUniform(SigmaDensity):
    """Even in log sigma over a range: "loguniform" of k-diffusion, even in the log-SNR.

    >>> LogUniform(0.01, 100.0).quantile(np.array([0.0, 0.5])).round(12).tolist()
    [0.01, 1.0]
    """

    name: ClassVar[str] = "log_uniform"
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        low = noise_level(self.sigma_min, "LogUniform.sigma_min")
        high = noise_level(self.sigma_max, "LogUniform.sigma_max")
        if not low < high:
            raise ValueError(f"LogUniform.sigma_min is {low:g} but sigma_max is {high:g}; it must be smaller.")
        object.__setattr__(self, "sigma_min", low)
        object.__setattr__(self, "sigma_max", high)

    def tails(self, sigma: Array) -> tuple[Array, Array]:
        """Probability below and above noise levels."""
        at = np.clip(sigma, self.sigma_min, self.sigma_max)
        width = np.log(self.sigma_max / self.sigma_min)
        return np.log(at / self.sigma_min) / width, np.log(self.sigma_max / at) / width

    def quantile(self, u: Array) -> Array:
        """sigma below which a fraction `u` of the training examples lies."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** np.asarray(u)

    def per_log_sigma(self, sigma: Array) -> Array:
        """Probability per unit log sigma; 0 outside the range."""
        inside = (sigma >= self.sigma_min) & (sigma <= self.sigma_max)
        return np.where(inside, 1 / np.log(self.sigma_max / self.sigma_min), 0.0)


@dataclass(frozen=True)
class VDiffusion(SigmaDensity):
    """sigma = sigma_data tan(pi u / 2), u uniform: the cosine process's time, "v-diffusion" of k-diffusion.

    With sigma_data = 1 it is Nichol and Dhariwal's cosine schedule without their offset; it is also the tangent law
    of sampling grids, as a training density. Its tails reach every noise level: restrict it with `between`.

    Args:
        sigma_data: data units, > 0; k-diffusion's default is 1.

    >>> VDiffusion(0.5).quantile(np.array([0.5])).round(12).tolist()
    [0.5]
    """

    name: ClassVar[str] = "v_diffusion"
    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma_data", noise_level(self.sigma_data, "VDiffusion.sigma_data"))

    def tails(self, sigma: Array) -> tuple[Array, Array]:
        """Probability below and above noise levels."""
        with np.errstate(divide="ignore", over="ignore"):
            return (
                2 / np.pi * np.arctan(sigma / self.sigma_data),
                2 / np.pi * np.arctan(self.sigma_data / np.asarray(sigma)),
            )

    def quantile(self, u: Array) -> Array:
        """sigma below which a fraction `u` of the training examples lies."""
        u = np.asarray(u, dtype=np.float64)
        with np.errstate(divide="ignore"):  # the cotangent of the complement is exact near u = 1
            high = 1 / np.tan(0.5 * np.pi * np.minimum(1 - u, 0.5))
        return self.sigma_data * np.where(u < 0.5, np.tan(0.5 * np.pi * np.minimum(u, 0.5)), high)

    def per_log_sigma(self, sigma: Array) -> Array:
        """Probability per unit log sigma."""
        return 2 / np.pi / (sigma / self.sigma_data + self.sigma_data / sigma)


@dataclass(frozen=True)
class Mode(SigmaDensity):
    """Mode density of the flow's time: t = 1 - u - s (cos^2(pi u / 2) - 1 + u), u uniform (Esser et al. 2024, eq. 20).

    sigma = t / (1 - t). Positive s trains the middle more, negative s the ends; t and 1 - t are distributed alike.

    Args:
        scale: s, within [-1, 2 / (pi - 2) = 1.7519], where t is monotone in u; diffusers' default is 1.29.
        shift: factor on sigma.

    >>> Mode(1.29).quantile(np.array([0.5])).round(12).tolist()
    [1.0]
    """

    name: ClassVar[str] = "mode"
    scale: float = 1.29
    shift: float = 1.0

    def __post_init__(self) -> None:
        scale = number(self.scale, "Mode.scale", maximum=2 / (np.pi - 2))
        if scale < -1:
            raise ValueError(f"Mode.scale is {scale:g}; it must be >= -1, where t is monotone in u.")
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "shift", scale_of(self.shift, "Mode.shift"))

    def _time(self, q: Array) -> Array:
        """t at q = 1 - u, rising; small t without cancellation."""
        return q + self.scale * (q - np.sin(0.5 * np.pi * q) ** 2)

    def _share(self, time: Array) -> Array:
        """q with _time(q) = time, by bisection to the last bit."""
        low, high = np.zeros_like(time), np.ones_like(time)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            under = self._time(middle) < time
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        return high

    def tails(self, sigma: Array) -> tuple[Array, Array]:
        """Probability below and above noise levels."""
        with np.errstate(divide="ignore", over="ignore"):
            ratio = np.asarray(sigma, dtype=np.float64) / self.shift
            time, rest = 1 / (1 + 1 / ratio), 1 / (1 + ratio)
        return (
            np.where(ratio > 0, self._share(time), 0.0),
            np.where(np.isfinite(ratio), self._share(rest), 0.0),
        )

    def quantile(self, u: Array) -> Array:
        """sigma below which a fraction `u` of the training examples lies."""
        u = np.asarray(u, dtype=np.float64)
        with np.errstate(divide="ignore"):
            return self.shift * self._time(u) / self._time(1 - u)

    def per_log_sigma(self, sigma: Array) -> Array:
        """Probability per unit log sigma."""
        ratio = np.asarray(sigma, dtype=np.float64) / self.shift
        time = ratio / (1 + ratio)
        slope = 1 + self.scale * (1 - 0.5 * np.pi * np.sin(np.pi * self._share(time)))
        return time / (1 + ratio) / slope
