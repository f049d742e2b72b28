"""Training densities over noise levels: a plan's own, the log-normal of EDM, and sampling from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri

from ..basics.checks import AT_ONCE, Array, instance, integer, noise_level, number, scale_of, shown, takes, vector
from ..basics.registry import Registry
from ..basics.spelling import spelled
from ..basics.user_code import answer
from .levels import Bins, Levels
from .strata import given_back, shuffled_strata

__all__ = [
    "DENSITIES",
    "FURTHEST",
    "Between",
    "Floored",
    "LogNormal",
    "SigmaDensity",
    "closest",
    "examples_of",
    "least",
]

DENSITIES: Registry[Callable[..., SigmaDensity]] = Registry("training_density", "training density")

_BINS, _FAR, _WIDEST = 2_000, 1e-9, 1e8  # of comparisons: bins in log sigma, tails left out, noise levels at most
_KNOTS, _HALVINGS, FURTHEST = 1_000, 40, 700.0  # of inverted distributions; |ln sigma| of float64


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

    def per_flow_time(self, time: Array) -> Array:
        """Probability per unit time t = sigma / (1 + sigma) of flow matching, 0 < t < 1."""
        at = np.asarray(time, dtype=np.float64)
        return np.asarray(self.per_log_sigma(at / (1 - at)) / (at * (1 - at)))

    @takes(levels=(Levels, Bins))
    def on_levels(self, levels: Levels) -> Array:
        """(L,) probability of each level, normalised over the levels' range (sampling is clipped to it)."""
        mass = self.mass(levels.edges)
        if mass.sum() <= 0:
            raise ValueError(f"{self!r} has no mass between {levels.edges[0]:g} and {levels.edges[-1]:g}.")
        return mass / mass.sum()

    def importance(self, sigma: Array, base: SigmaDensity) -> Array:
        """Weights base / self: with them a loss averaged over this density estimates its average under `base`."""
        instance(base, SigmaDensity, "base", "Give the density whose expected loss is kept, such as co.LogNormal().")
        return base.per_log_sigma(sigma) / self.per_log_sigma(sigma)

    def between(self, sigma_min: float, sigma_max: float) -> Between:
        """This density restricted to a range of noise levels."""
        return Between(self, sigma_min, sigma_max)

    def with_floor(self, share: float, sigma_min: float, sigma_max: float) -> Floored:
        """This density beside a share of examples that is even in log sigma over a whole range.

        A plan trains nothing outside its stopping point and sigma_max: with a floor, another number of steps later,
        which stops elsewhere, finds a trained network there.
        """
        return Floored(self, share, sigma_min, sigma_max)

    def sample(self, batch: int, generator: Any, base: SigmaDensity | None = None) -> tuple[Any, Any]:
        """Stratified noise levels for a training step, and their importance weights.

        One uniform draw in each of `batch` equal strata goes through the density's quantiles and the result is
        shuffled. Without `base` all weights are 1: train on this density. With `base` the weights are base density /
        this density, so that weighted averages of a loss estimate its average under `base`, restricted to where this
        density trains, while the noise of the estimate follows this density.

        Args:
            batch: number of noise levels, >= 1.
            generator: numpy.random.Generator, or torch.Generator (float32 tensors on its device come back).
            base: density whose expected loss is to be kept, or None.

        >>> sigma, weight = LogNormal(0.0, 1.0).sample(3, np.random.default_rng(0))
        >>> weight.tolist()
        [1.0, 1.0, 1.0]
        """
        count = integer(batch, "batch", minimum=1, maximum=AT_ONCE)
        sigma = self.quantile(shuffled_strata(count, generator))
        weight = np.ones(count) if base is None else self.importance(sigma, base)
        return given_back(sigma, generator), given_back(weight, generator)

    def loss_of(self, other: SigmaDensity) -> float:
        """Relative excess of the error where examples come from `other`, were this density the best for its errors.

        Errors a / m are least at equal prices where m is in proportion to sqrt(a), so that a density p is the best
        for a = p^2, and another, q, leaves int p^2 / q as much: 1 + chi^2(p, q) (docs/theory.md section 5.8). A plan's
        density knows its own errors and prices instead.

        >>> LogNormal(0.0, 1.0).loss_of(LogNormal(0.5, 1.0)), LogNormal(0.0, 1.0).loss_of(LogNormal(0.0, 1.0))
        (0.284, 0.0)
        """
        instance(other, SigmaDensity, "other")
        ends = np.clip(self.quantile(np.array([_FAR, 1 - _FAR])), 1 / _WIDEST, _WIDEST)
        edges = np.geomspace(float(ends[0]), float(ends[1]), _BINS + 1)
        own, others = self.mass(edges), other.mass(edges)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.where(own > 0, own**2 / others, 0.0).sum() / own.sum() - 1.0)

    def nearest_lognormal(self) -> LogNormal:
        """The log-normal density with the least `loss_of`.

        >>> LogNormal(0.3, 0.7).nearest_lognormal()
        LogNormal(mean=0.3, std=0.7)
        """
        low, middle, high = np.log(self.quantile(ndtr(np.array([-1.0, 0.0, 1.0]))))
        return closest(self, LogNormal.of_parameters, np.array([middle, np.log(max(0.5 * (high - low), 0.05))]))[0]

    def distance(self, other: SigmaDensity) -> float:
        """Kolmogorov's distance: the largest difference between shares of examples below a noise level."""
        instance(other, SigmaDensity, "other")
        u = (np.arange(_BINS) + 0.5) / _BINS
        at = np.concatenate([self.quantile(u), other.quantile(u)])
        return float(np.max(np.abs(self.tails(at)[0] - other.tails(at)[0])))


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
            raise ValueError(f"Between.density is {shown(self.density)}; a SigmaDensity is needed.")
        low = number(self.sigma_min, "Between.sigma_min", nonnegative=True)
        high = noise_level(self.sigma_max, "Between.sigma_max")
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
class Floored(SigmaDensity):
    """(1 - share) of a density and a share that is even in log sigma between sigma_min and sigma_max.

    Args:
        density: the density.
        share: of all examples, 0 < share < 1.
        sigma_min, sigma_max: data units, 0 < sigma_min < sigma_max.

    Raises:
        ValueError: a share or a range outside these.

    >>> whole = LogNormal(0.0, 0.5).between(0.5, 2.0).with_floor(0.1, 0.01, 100.0)
    >>> whole.mass(np.array([0.01, 0.5])).round(6).tolist()
    [0.042474]
    """

    density: SigmaDensity
    share: float
    sigma_min: float
    sigma_max: float

    def __post_init__(self) -> None:
        if not isinstance(self.density, SigmaDensity):
            raise ValueError(f"Floored.density is {shown(self.density)}; a SigmaDensity is needed.")
        share = number(self.share, "Floored.share", positive=True)
        low = noise_level(self.sigma_min, "Floored.sigma_min")
        high = noise_level(self.sigma_max, "Floored.sigma_max")
        if not share < 1:
            raise ValueError(f"Floored.share is {share:g}; it must be < 1.")
        if not low < high:
            raise ValueError(f"Floored.sigma_min is {low:g} but sigma_max is {high:g}; it must be smaller.")
        for name, value in (("share", share), ("sigma_min", low), ("sigma_max", high)):
            object.__setattr__(self, name, value)

    def tails(self, sigma: Array) -> tuple[Array, Array]:
        """Probability below and above noise levels."""
        at, width = np.clip(sigma, self.sigma_min, self.sigma_max), np.log(self.sigma_max / self.sigma_min)
        even = np.log(at / self.sigma_min) / width, np.log(self.sigma_max / at) / width
        below, above = ((1 - self.share) * own + self.share * e
                        for own, e in zip(self.density.tails(sigma), even, strict=True))  # fmt: skip
        return below, above

    def quantile(self, u: Array) -> Array:
        """sigma below which a fraction `u` of the training examples lies, by bisection between tabulated quantiles."""
        share = np.asarray(u, dtype=np.float64)
        knots, below = self._knots
        k = np.clip(np.searchsorted(below, share), 1, knots.size - 1)
        low, high = knots[k - 1], knots[k]
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            under = self.tails(np.exp(middle))[0] < share
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        return np.exp(high)

    @cached_property
    def _knots(self) -> tuple[Array, Array]:
        """Ascending ln sigma between which all quantiles lie, and the fractions below them."""
        u = (np.arange(_KNOTS) + 0.5) / _KNOTS
        with np.errstate(divide="ignore"):
            own = np.log(self.density.quantile(np.concatenate([[0.0, 1e-12], u, [1 - 1e-12, 1.0]])))
        even = np.linspace(np.log(self.sigma_min), np.log(self.sigma_max), _KNOTS)
        knots = np.unique(np.clip(np.concatenate([own, even]), -FURTHEST, FURTHEST))
        return knots, self.tails(np.exp(knots))[0]

    def per_log_sigma(self, sigma: Array) -> Array:
        """Probability per unit log sigma."""
        inside = (sigma >= self.sigma_min) & (sigma <= self.sigma_max)
        even = np.where(inside, 1 / np.log(self.sigma_max / self.sigma_min), 0.0)
        return np.asarray((1 - self.share) * self.density.per_log_sigma(sigma) + self.share * even)


@spelled
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
        object.__setattr__(self, "std", scale_of(self.std, "LogNormal.std"))

    def tails(self, sigma: Array) -> tuple[Array, Array]:
        """Probability below and above noise levels."""
        with np.errstate(divide="ignore", over="ignore"):
            z = (np.log(sigma) - self.mean) / self.std
        return ndtr(z), ndtr(-z)

    def quantile(self, u: Array) -> Array:
        """sigma below which a fraction `u` of the training examples lies."""
        return np.exp(np.clip(self.mean + self.std * ndtri(u), -FURTHEST, FURTHEST))

    def per_log_sigma(self, sigma: Array) -> Array:
        """Probability per unit log sigma."""
        with np.errstate(over="ignore"):
            z = (np.log(sigma) - self.mean) / self.std
            return np.exp(-0.5 * z**2) / (self.std * np.sqrt(2 * np.pi))

    def nearest_lognormal(self) -> LogNormal:
        """Itself."""
        return self

    @classmethod
    def of_parameters(cls, parameters: Array) -> LogNormal:
        """From the mean and the logarithm of the standard deviation, any numbers: for searches."""
        return cls(float(parameters[0]), float(np.exp(np.clip(parameters[1], -30, 30))))


Kind = TypeVar("Kind", bound=SigmaDensity)


def closest(density: SigmaDensity, family: Callable[[Array], Kind], start: Array) -> tuple[Kind, float]:
    """The member of a family with the least `density.loss_of`, found by Nelder and Mead's search, and that loss.

    Args:
        density: what is to be approached.
        family: parameters -> density.
        start: first parameters.

    >>> closest(LogNormal(0.2, 1.0), lambda mean: LogNormal(mean[0], 1.0), np.array([0.0]))[0].mean
    0.2
    """
    best = family(least(lambda parameters: float(np.log1p(density.loss_of(family(parameters)))), start))
    return best, density.loss_of(best)


def least(loss: Callable[[Array], float], start: Array) -> Array:
    """Parameters of the least loss by Nelder and Mead's search."""
    options = {"xatol": 1e-8, "fatol": 1e-12, "maxiter": 2000}
    return np.asarray(minimize(loss, start, method="Nelder-Mead", options=options).x)


def examples_of(density: Any, levels: Levels, total: float) -> Array:
    """(L,) examples on each level for `total` examples drawn from a density in any accepted form.

    A density is a SigmaDensity (LogNormal, TrainingDensity, one of `peers.training_density`), a function of
    sigma (examples per unit sigma, any scale), or an array with one entry per level (examples, any scale).
    """
    if isinstance(density, SigmaDensity):
        share = density.on_levels(levels)
    elif callable(density):
        share = levels.average(lambda sigma: answer(density, sigma, "density") * sigma, points=16) * levels.log_width
        share = vector(share, "density(sigma)", nonnegative=True)
    else:
        share = vector(density, "density", length=len(levels), nonnegative=True)
    if share.sum() <= 0:
        raise ValueError("density has no mass on the levels; widen it or the range of sigma.")
    return share / share.sum() * total
