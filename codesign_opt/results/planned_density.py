"""The training density of a plan: examples per unit sigma, drawn from, and fitted by a log-normal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.optimize import minimize

from ..basics.checks import Array, integer
from ..ingredients.densities import LogNormal, SigmaDensity
from ..ingredients.levels import Levels

__all__ = ["SPIKE", "LogNormalFit", "Prior", "TrainingDensity"]

SPIKE = 0.3  # P_std below which a log-normal planned with a transfer kernel is refused


class Prior(NamedTuple):
    """Examples that the untrained denoiser is worth (docs/theory.md section 5.6).

    Attributes:
        levels: (L,) beside those of each level.
        served: (R,) beside those that serve each row of `pooling`.
        final: beside those near the stopping point.
    """

    levels: Array
    served: Array
    final: float

    @classmethod
    def of(cls, tables: Mapping[str, Array], final: float) -> Prior | None:
        """From a plan's tables; None where they say nothing of it, as those of versions before 0.2.0."""
        if "prior_examples" not in tables:
            return None
        levels = np.asarray(tables["prior_examples"])
        return cls(levels, np.asarray(tables.get("served_prior", levels)), final)


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
        prior: examples that count beside all these; None: none.
    """

    levels: Levels
    examples: Array
    score_weights: Array
    final_score: float
    final_window: Array
    prices: Array
    served_weights: Array | None = None
    pooling: Array | None = None
    prior: Prior | None = None

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
        prior = Prior(np.zeros(examples.size), np.zeros(1), 0.0) if self.prior is None else self.prior
        weights, served = self.score_weights, examples + prior.levels
        if self.pooling is not None and self.served_weights is not None:
            weights, served = self.served_weights, self.pooling @ examples + prior.served
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(weights > 0, weights / served, 0.0)
        final = 0.0
        if self.final_score > 0:
            near = float(self.final_window @ examples) + prior.final
            final = self.final_score / near if near > 0 else np.inf
        return float(terms.sum() + final)

    def lognormal(self) -> LogNormalFit:
        """The log-normal density with the smallest score error at the plan's training price.

        Minimises sum s_l / (m_l + m0_l) over P_mean and P_std, with the number of examples set by the price;
        the loss is relative to the plan's own score error. Where examples teach neighbouring levels, m_l are those
        that serve a level: the plan itself then leaves out levels that a trained network needs, its log-normal
        does not, and did best in docs/theory.md section 6.3.

        Raises:
            ValueError: the plan has no reducible score error, so that no density is better than another; where examples
                teach neighbouring levels, a spike: P_std below 0.3.
        """
        found = self.closest_lognormal()
        if self.pooling is not None and found.P_std < SPIKE:
            raise ValueError(
                f"training_density.lognormal: P_std comes out as {found.P_std:.2g}. By the plan's transfer kernel one "
                "noise level teaches all others, so that nothing stands against a spike; no run has shown that "
                "(docs/theory.md section 6.3). Plan the density with co.pilot_density(co.estimate.pilot(...)), or add "
                "co.Floor and co.Smooth."
            )
        return found

    def closest_lognormal(self) -> LogNormalFit:
        """`lognormal`, a spike or not."""
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
