"""Training densities over noise levels: a plan's own, the log-normal of EDM, and sampling from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri

from ..basics.checks import Array, integer, number, vector
from .levels import Levels

__all__ = ["Between", "LogNormal", "LogNormalFit", "SigmaDensity", "TrainingDensity"]


class SigmaDensity(ABC):
    """A probability density of training examples over noise levels: what every training density is.

    To add one, write a frozen dataclass with `tails`, `quantile` and `per_log_sigma`; it then serves as
    `TrainingRun(density=...)`, in `audit`, and wherever the library trains.

    >>> LogNormal(0.0, 1.0).between(1.0, 1e9).quantile(np.array([0.0])).round(9).tolist()
    [1.0]
    """

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


class LogNormalFit(NamedTuple):
    """The log-normal density closest to a plan's, at the same price.

    Attributes:
        P_mean, P_std: mean and standard deviation of ln sigma.
        loss: relative excess of the score error over the plan's certified optimum.
        examples: total number of examples that the plan's training price buys at this density.
    """

    P_mean: float
    P_std: float
    loss: float
    examples: float


@dataclass(frozen=True, eq=False)
class TrainingDensity(SigmaDensity):
    """Examples per unit sigma, a smooth monotone interpolation of log density between the levels.

    Args:
        levels: the levels.
        examples: (L,) examples on each level.
        score_weights: (L,) s_l of the reducible score error sum s_l / m_l at the plan's grid.
        final_score, final_window: the last evaluation's error final_score / (final_window . m).
        prices: (L,) price of an example.
        served_weights, pooling: where examples teach neighbouring levels (docs/theory.md section 6.3): the reducible
            score error is sum served_weights / (pooling @ m), (R,) and (R, L), and `score_weights` only its separable
            upper bound; None where every level has its own examples.
    """

    levels: Levels
    examples: Array
    score_weights: Array
    final_score: float
    final_window: Array
    prices: Array
    served_weights: Array | None = None
    pooling: Array | None = None

    def __call__(self, sigma: Any) -> Any:
        """Examples per unit sigma at `sigma`; 0 outside the levels."""
        values = np.asarray(sigma, dtype=np.float64)
        inside = (values >= self.levels.edges[0]) & (values <= self.levels.edges[-1])
        at = np.clip(values, self.levels.sigma[0], self.levels.sigma[-1])
        result = np.where(inside, np.exp(self._log_density(np.log(at))) / np.where(inside, values, 1.0), 0.0)
        return float(result) if result.ndim == 0 else result

    @cached_property
    def _log_density(self) -> Any:
        density = self.examples / self.levels.log_width
        logs = np.log(np.maximum(density, 1e-300))
        if logs.size == 1:
            return lambda u: np.full(np.shape(u), logs[0])
        return PchipInterpolator(np.log(self.levels.sigma), logs)

    @property
    def total(self) -> float:
        """Number of examples."""
        return float(self.examples.sum())

    def quantile(self, u: Array) -> Array:
        """sigma below which a fraction `u` of the examples lies."""
        share = np.concatenate([[0.0], np.cumsum(self.examples)]) / self.total
        level = self._level_of(np.searchsorted(share, u, side="right") - 1)
        inside = np.clip((u - share[level]) / (share[level + 1] - share[level]), 0.0, 1.0)
        logs = np.log(self.levels.edges)
        return np.exp(logs[level] + inside * (logs[level + 1] - logs[level]))

    def _level_of(self, index: Any) -> Any:
        """The level itself, or the nearest one below (else above) that has examples."""
        used = np.flatnonzero(self.examples > 0)
        return used[np.clip(np.searchsorted(used, index, side="right") - 1, 0, used.size - 1)]

    def tails(self, sigma: Array) -> tuple[Array, Array]:
        """Fraction of the examples below and above noise levels."""
        with np.errstate(divide="ignore"):
            at, knots = np.log(sigma), np.log(self.levels.edges)
        below = np.concatenate([[0.0], np.cumsum(self.examples)]) / self.total
        above = np.concatenate([np.cumsum(self.examples[::-1])[::-1], [0.0]]) / self.total
        return np.interp(at, knots, below), np.interp(at, knots, above)

    def per_log_sigma(self, sigma: Array) -> Array:
        """Fraction of the examples per unit log sigma, even inside each level as they are drawn; 0 outside."""
        edges = self.levels.edges
        level = np.clip(np.searchsorted(edges, sigma, side="right") - 1, 0, len(self.levels) - 1)
        inside = (sigma >= edges[0]) & (sigma <= edges[-1])
        return np.where(inside, (self.examples / self.levels.log_width)[level] / self.total, 0.0)

    def score_error(self, examples: Array) -> float:
        """Reducible score error of another allocation at the plan's grid."""
        weights, served = self.score_weights, examples
        if self.pooling is not None and self.served_weights is not None:
            weights, served = self.served_weights, self.pooling @ examples
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(weights > 0, weights / served, 0.0)
        final = 0.0
        if self.final_score > 0:
            near = float(self.final_window @ examples)
            final = self.final_score / near if near > 0 else np.inf
        return float(terms.sum() + final)

    def lognormal(self) -> LogNormalFit:
        """The log-normal density with the smallest score error at the plan's training price.

        Minimises sum s_l / m_l over P_mean and P_std, with the number of examples set by the price;
        the loss is relative to the plan's own score error. Where examples teach neighbouring levels, m_l are those
        that serve a level: the plan itself then leaves out levels that a trained network needs, its log-normal
        does not, and did best in docs/theory.md section 6.3.

        Raises:
            ValueError: the plan has no reducible score error, so that no density is better than another.
        """
        price = float(self.prices @ self.examples)
        own = self.score_error(self.examples)
        if own <= 0:
            raise ValueError("training_density.lognormal: the plan has no reducible score error to fit to.")

        def allocation(parameters: Array) -> Array:
            mass = LogNormal(float(parameters[0]), float(np.exp(parameters[1]))).mass(self.levels.edges)
            mass = np.maximum(mass, 1e-300)
            return mass * (price / float(self.prices @ mass))

        logs = np.log(self.levels.sigma)
        share = self.examples / self.total
        mean = float(share @ logs)
        start = np.array([mean, np.log(max(float(np.sqrt(share @ (logs - mean) ** 2)), 0.1))])
        found = minimize(
            lambda p: np.log(self.score_error(allocation(p))),
            start,
            method="Nelder-Mead",
            options={"xatol": 1e-8, "fatol": 1e-12, "maxiter": 2000},
        )
        best = allocation(found.x)
        return LogNormalFit(
            float(found.x[0]), float(np.exp(found.x[1])), self.score_error(best) / own - 1.0, float(best.sum())
        )

    def sample(self, batch: int, generator: Any, base: SigmaDensity | None = None) -> tuple[Any, Any]:
        """Stratified noise levels for a training step, and their importance weights.

        One uniform draw in each of `batch` equal strata goes through the density's quantiles and the
        result is shuffled. Without `base` all weights are 1: train on this density. With `base` the
        weights are base density / this density, so that weighted averages of a loss estimate its
        average under `base` while the noise of the estimate follows the plan.

        Args:
            batch: number of noise levels, >= 1.
            generator: numpy.random.Generator, or torch.Generator (tensors on its device come back).
            base: density whose expected loss is to be kept, or None.
        """
        count = integer(batch, "batch", minimum=1)
        torch = _torch_of(generator)
        if torch is None:
            if not isinstance(generator, np.random.Generator):
                raise TypeError(
                    f"generator is {type(generator).__name__}; give numpy.random.default_rng(0) or a torch.Generator."
                )
            uniform, order = generator.random(count), generator.permutation(count)
        else:
            device = generator.device
            uniform = torch.rand(count, generator=generator, device=device, dtype=torch.float64).cpu().numpy()
            order = torch.randperm(count, generator=generator, device=device).cpu().numpy()
        sigma = self.quantile((np.arange(count) + uniform) / count)[order]
        weight = np.ones(count) if base is None else self._weights(sigma, base)
        if torch is None:
            return sigma, weight
        return (
            torch.as_tensor(sigma, dtype=torch.float32, device=generator.device),
            torch.as_tensor(weight, dtype=torch.float32, device=generator.device),
        )

    def _weights(self, sigma: Array, base: SigmaDensity) -> Array:
        # the samples are uniform in log sigma inside a level: their own density, so that nothing is biased
        level = np.searchsorted(self.levels.edges, sigma, side="right") - 1
        level = self._level_of(np.clip(level, 0, len(self.levels) - 1))
        own = (self.examples / self.levels.log_width)[level] / self.total
        return base.per_log_sigma(sigma) / float(base.mass(self.levels.edges).sum()) / own


def _torch_of(generator: Any) -> Any:
    """The torch module when `generator` is one of its generators, without importing torch otherwise."""
    if type(generator).__module__.split(".")[0] != "torch":
        return None
    import torch

    return torch


def examples_of(density: Any, levels: Levels, total: float) -> Array:
    """(L,) examples on each level for `total` examples drawn from a density in any accepted form.

    A density is a SigmaDensity (LogNormal, TrainingDensity, one of `peers.training_density`), a function of
    sigma (examples per unit sigma, any scale), or an array with one entry per level (examples, any scale).
    """
    if isinstance(density, SigmaDensity):
        share = density.on_levels(levels)
    elif callable(density):
        share = levels.average(lambda sigma: np.asarray(density(sigma)) * sigma, points=16) * levels.log_width
        share = vector(share, "density(sigma)", nonnegative=True)
    else:
        share = vector(density, "density", length=len(levels), nonnegative=True)
    if share.sum() <= 0:
        raise ValueError("density has no mass on the levels; widen it or the range of sigma.")
    return share / share.sum() * total
