"""Training densities over noise levels: a plan's own, the log-normal of EDM, and sampling from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from scipy.special import ndtr, ndtri

from ..basics.checks import Array, number, vector
from ..basics.registry import Registry
from ..basics.user_code import told_in
from .levels import Levels

__all__ = ["DENSITIES", "Between", "LogNormal", "SigmaDensity", "examples_of"]

DENSITIES: Registry[Callable[..., SigmaDensity]] = Registry("training_density", "training density")


class SigmaDensity(ABC):
    """A probability density of training examples over noise levels: what every training density is.

    To add one, write a frozen dataclass with `tails`, `quantile` and `per_log_sigma`; it then serves as
    `TrainingRun(density=...)`, in `audit`, and wherever the library trains. One that states a class attribute `name`
    goes by it in `peers.training_density`; one without is not listed.

    >>> LogNormal(0.0, 1.0).between(1.0, 1e9).quantile(np.array([0.0])).round(9).tolist()
    [1.0]
    """

    name: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if isinstance(vars(cls).get("name"), str):  # not a field or property that happens to be called so
            DENSITIES.add(cls.name, cls)

    @abstractmethod
    def tails(self, sigma: Array) -> tuple[Array, Array]:
        """Probability below and above noise levels (0 and infinity included), each exact where it is small."""

    @abstractmethod
    def quantile(self, u: Array) -> Array:
        """sigma below which a fraction `u` of the training examples lies."""

    @abstractmethod
    def per_log_sigma(self, sigma: Array) -> Array:
        """Probability per unit log sigma."""

    def mass(self, edges: Array) -> Array:
        """Probability between neighbouring ascending edges."""
        below, above = self.tails(np.asarray(edges, dtype=np.float64))
        # differences of the upper tail where both ends lie in it, so that they don't cancel
        return np.where(below[:-1] > above[:-1], above[:-1] - above[1:], below[1:] - below[:-1])

    def per_log_snr(self, sigma: Array) -> Array:
        """Probability per unit log-SNR, log(1 / sigma^2): half that per unit log sigma."""
        return 0.5 * self.per_log_sigma(sigma)

    def on_levels(self, levels: Levels) -> Array:
        """(L,) probability of each level, normalised over the levels' range (sampling is clipped to it)."""
        mass = self.mass(levels.edges)
        if mass.sum() <= 0:
            raise ValueError(f"{self!r} has no mass between {levels.edges[0]:g} and {levels.edges[-1]:g}.")
        return mass / mass.sum()

    def importance(self, sigma: Array, base: SigmaDensity) -> Array:
        """Weights base / self: with them a loss averaged over this density estimates its average under `base`."""
        return base.per_log_sigma(sigma) / self.per_log_sigma(sigma)

    def between(self, sigma_min: float, sigma_max: float) -> Between:
        """This density restricted to a range of noise levels."""
        return Between(self, sigma_min, sigma_max)


@dataclass(frozen=True)
class Between(SigmaDensity):
    """A density restricted to sigma_min <= sigma <= sigma_max and normalised there, as k-diffusion truncates.

    Args:
        density: the density.
        sigma_min, sigma_max: data units, 0 <= sigma_min < sigma_max.

    Raises:
        ValueError: a range that is empty or has no mass.

    >>> LogNormal(0.0, 1.0).between(0.5, 2.0).mass(np.array([0.1, 1.0, 7.0])).round(12).tolist()
    [0.5, 0.5]
    """

    density: SigmaDensity
    sigma_min: float
    sigma_max: float

    def __post_init__(self) -> None:
        if not isinstance(self.density, SigmaDensity):
            raise ValueError(f"Between.density is {self.density!r}; a SigmaDensity is needed.")
        low = number(self.sigma_min, "Between.sigma_min", nonnegative=True)
        high = number(self.sigma_max, "Between.sigma_max", positive=True)
        if not low < high:
            raise ValueError(f"Between.sigma_min is {low:g} but sigma_max is {high:g}; it must be smaller.")
        object.__setattr__(self, "sigma_min", low)
        object.__setattr__(self, "sigma_max", high)
        if not self._whole > 0:
            raise ValueError(f"{self.density!r} has no mass between {low:g} and {high:g}; widen the range.")

    @cached_property
    def _whole(self) -> float:
        return float(self.density.mass(np.array([self.sigma_min, self.sigma_max]))[0])

    def tails(self, sigma: Array) -> tuple[Array, Array]:
        """Probability below and above noise levels."""
        at = np.clip(sigma, self.sigma_min, self.sigma_max)
        below, above = self.density.tails(at)
        low, high = self.density.tails(np.array([self.sigma_min, self.sigma_max]))
        # from whichever tail is the smaller, so that nothing cancels
        under = np.where(below > above, self._whole - (above - high[1]), below - low[0])
        over = np.where(below > above, above - high[1], self._whole - (below - low[0]))
        return np.clip(under / self._whole, 0.0, 1.0), np.clip(over / self._whole, 0.0, 1.0)

    def quantile(self, u: Array) -> Array:
        """sigma below which a fraction `u` of the training examples lies."""
        below = float(self.density.tails(np.array([self.sigma_min]))[0][0])
        found = self.density.quantile(np.minimum(below + np.asarray(u) * self._whole, 1.0))
        return np.clip(found, self.sigma_min, self.sigma_max)

    def per_log_sigma(self, sigma: Array) -> Array:
        """Probability per unit log sigma; 0 outside the range."""
        inside = (sigma >= self.sigma_min) & (sigma <= self.sigma_max)
        return np.where(inside, self.density.per_log_sigma(sigma), 0.0) / self._whole


@dataclass(frozen=True)
class LogNormal(SigmaDensity):
    """ln sigma ~ N(mean, std^2): EDM's training density, P_mean and P_std (Karras et al. 2022, table 1).

    >>> import numpy as np
    >>> LogNormal(-1.2, 1.2).mass(np.array([np.exp(-1.2), np.inf])).round(12).tolist()
    [0.5]
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", number(self.mean, "LogNormal.mean"))
        object.__setattr__(self, "std", number(self.std, "LogNormal.std", positive=True))

    def tails(self, sigma: Array) -> tuple[Array, Array]:
        """Probability below and above noise levels."""
        with np.errstate(divide="ignore"):
            z = (np.log(sigma) - self.mean) / self.std
        return ndtr(z), ndtr(-z)

    def quantile(self, u: Array) -> Array:
        """sigma below which a fraction `u` of the training examples lies."""
        return np.exp(self.mean + self.std * ndtri(u))

    def per_log_sigma(self, sigma: Array) -> Array:
        """Probability per unit log sigma."""
        z = (np.log(sigma) - self.mean) / self.std
        return np.exp(-0.5 * z**2) / (self.std * np.sqrt(2 * np.pi))


def examples_of(density: Any, levels: Levels, total: float) -> Array:
    """(L,) examples on each level for `total` examples drawn from a density in any accepted form.

    A density is a SigmaDensity (LogNormal, TrainingDensity, one of `peers.training_density`), a function of
    sigma (examples per unit sigma, any scale), or an array with one entry per level (examples, any scale).
    """
    if isinstance(density, SigmaDensity):
        share = density.on_levels(levels)
    elif callable(density):
        with told_in("density(sigma)"):
            share = levels.average(lambda sigma: np.asarray(density(sigma)) * sigma, points=16) * levels.log_width
        share = vector(share, "density(sigma)", nonnegative=True)
    else:
        share = vector(density, "density", length=len(levels), nonnegative=True)
    if share.sum() <= 0:
        raise ValueError("density has no mass on the levels; widen it or the range of sigma.")
    return share / share.sum() * total
