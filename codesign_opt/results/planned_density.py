"""The training density of a plan: examples per unit sigma, drawn from, and fitted by a log-normal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..basics.checks import Array, boolean, instance, number, vector
from ..ingredients.densities import LogNormal, SigmaDensity, least
from ..ingredients.levels import Levels

__all__ = ["SPIKE", "LogNormalFit", "LogitNormalFit", "Prior", "TrainingDensity"]

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

    @property
    def density(self) -> LogNormal:
        """The density itself."""
        return LogNormal(self.P_mean, self.P_std)

    def sample(self, batch: int, generator: Any, base: SigmaDensity | None = None) -> tuple[Any, Any]:
        """Stratified noise levels and importance weights; see `SigmaDensity.sample`."""
        return self.density.sample(batch, generator, base)


class LogitNormalFit(NamedTuple):
    """The logit-normal density of a flow's time t = sigma / (1 + sigma) closest to a plan's: logit t = ln sigma.

    Attributes:
        logit_mean, logit_std: of logit t, t = 1 being noise. Trainers that count timesteps from noise to data, as
            diffusers' scripts do, take the mean with the other sign, shifted: `Plan.export_training` writes theirs.
        loss, examples: as in `LogNormalFit`.
    """

    logit_mean: float
    logit_std: float
    loss: float
    examples: float


@dataclass(frozen=True, eq=False)
class TrainingDensity(SigmaDensity):
    """Examples per unit sigma, a smooth monotone interpolation of log density between the levels.

    Of the examples that are still to be trained: those of a run already made are `spent` and not drawn again. Nothing
    is trained outside the levels, that is below the plan's stopping point or above sigma_max: `with_floor` adds a
    share over a whole range. It says where examples go and leaves the loss weight as it is: train with the weight that
    the training law of the plan was stated or measured with.

    Args:
        levels: the levels.
        examples: (L,) examples on each level, those to be trained.
        score_weights: (L,) s_l of the reducible score error sum s_l / m_l at the plan's grid.
        final_score, final_window: the last evaluation's error final_score / (final_window . m).
        prices: (L,) price of an example.
        served_weights, pooling: where examples teach neighbouring levels (docs/theory.md section 6.3): the reducible
            score error is sum served_weights / (pooling @ m), (R,) and (R, L), and `score_weights` only its separable
            upper bound; None where every level has its own examples.
        prior: examples that count beside all these; None: none.
        spent: (L,) examples of a run already made, which count beside those to be trained; None: none.
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
    spent: Array | None = None

    def __post_init__(self) -> None:
        size = len(instance(self.levels, Levels, "TrainingDensity.levels"))
        for name in ("examples", "score_weights", "final_window", "prices", "spent"):
            if (value := getattr(self, name)) is not None:
                values = vector(value, f"TrainingDensity.{name}", length=size, nonnegative=True)
                object.__setattr__(self, name, values)
        number(self.final_score, "TrainingDensity.final_score", nonnegative=True)

    def __call__(self, sigma: ArrayLike) -> Any:
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
        from scipy.interpolate import PchipInterpolator  # scipy takes a while to load and few plans are asked

        return PchipInterpolator(np.log(self.levels.sigma), logs)

    @property
    def total(self) -> float:
        """Number of examples that are to be trained."""
        return float(self.examples.sum())

    @cached_property
    def _share(self) -> Array:
        """(L,) fraction of the examples on each level."""
        if not self.total > 0:
            why = "its budget is spent already" if self.spent is not None and self.spent.any() else "only a sampler"
            raise ValueError(
                f"training_density: the plan trains no examples ({why}), so that there is nothing to draw; plan with "
                "training, prices and a budget that leaves something to train with."
            )
        return np.asarray(self.examples / self.total)

    def quantile(self, u: Array) -> Array:
        """sigma below which a fraction `u` of the examples lies."""
        share = np.concatenate([[0.0], np.cumsum(self._share)])
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
        below = np.concatenate([[0.0], np.cumsum(self._share)])
        above = np.concatenate([np.cumsum(self._share[::-1])[::-1], [0.0]])
        return np.interp(at, knots, below), np.interp(at, knots, above)

    def per_log_sigma(self, sigma: Array) -> Array:
        """Fraction of the examples per unit log sigma, even inside each level as they are drawn; 0 outside."""
        edges = self.levels.edges
        level = np.clip(np.searchsorted(edges, sigma, side="right") - 1, 0, len(self.levels) - 1)
        inside = (sigma >= edges[0]) & (sigma <= edges[-1])
        return np.where(inside, (self._share / self.levels.log_width)[level], 0.0)

    def score_error(self, examples: Array) -> float:
        """Reducible score error of (L,) examples, spent ones included, at the plan's grid."""
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

    def lognormal(self, *, clipped: bool = True) -> LogNormalFit:
        """The log-normal density with the smallest score error at the plan's training price.

        Minimises sum s_l / (m_l + m0_l) over P_mean and P_std, with the number of examples set by the price;
        the loss is relative to the plan's own score error. Where examples teach neighbouring levels, m_l are those
        that serve a level: the plan itself then leaves out levels that a trained network needs, its log-normal
        does not, and did best in docs/theory.md section 6.3.

        Args:
            clipped: the trainer restricts its noise levels to the plan's. Off, as trainers are: what falls outside is
                paid for and counts for nothing, so that the best density is another; exports take that one.

        Raises:
            ValueError: the plan has no reducible score error, so that no density is better than another; where examples
                teach neighbouring levels, a spike: P_std below 0.3.
        """
        found = self.closest_lognormal(clipped=clipped)
        if self.pooling is not None and found.P_std < SPIKE:
            raise ValueError(
                f"training_density.lognormal: P_std comes out as {found.P_std:.2g}. By the plan's transfer kernel one "
                "noise level teaches all others, so that nothing stands against a spike; no run has shown that "
                "(docs/theory.md section 6.3). Plan the density with co.pilot_density(co.estimate.pilot(...)), or add "
                "co.Floor and co.Smooth."
            )
        return found

    def closest_lognormal(self, *, clipped: bool = True) -> LogNormalFit:
        """`lognormal`, a spike or not."""
        clipped = boolean(clipped, "lognormal: clipped")
        if clipped not in self._closest:  # a dozen trainers' exports ask for it
            self._closest[clipped] = self._fit_lognormal(clipped)
        return self._closest[clipped]

    @cached_property
    def _closest(self) -> dict[bool, LogNormalFit]:
        return {}

    def _fit_lognormal(self, clipped: bool) -> LogNormalFit:
        own = self.score_error(self._counted(self.examples))
        if own <= 0:
            raise ValueError("training_density.lognormal: the plan has no reducible score error to fit to.")
        logs = np.log(self.levels.sigma)
        mean = float(self._share @ logs)
        std = max(float(np.sqrt(self._share @ (logs - mean) ** 2)), 0.1)
        found = least(lambda p: self.lognormal_loss(p, clipped=clipped), np.array([mean, np.log(std)]))
        best = LogNormal.of_parameters(found)
        bought, count = self._bought(best, clipped)
        return LogNormalFit(best.mean, best.std, self.score_error(self._counted(bought)) / own - 1.0, count)

    def lognormal_loss(self, parameters: Array, *, clipped: bool = True) -> float:
        """Logarithm of the score error that the plan's training price buys with a log-normal density.

        Args:
            parameters: P_mean and the logarithm of P_std.
            clipped: as in `lognormal`, which minimises this.
        """
        bought = self._bought(LogNormal.of_parameters(parameters), clipped)[0]
        return float(np.log(self.score_error(self._counted(bought))))

    def nearest_lognormal(self) -> LogNormal:
        """The density of `lognormal(clipped=False)`; where the plan has no score error, of the least chi-squared."""
        if not 0 < self.score_error(self._counted(self.examples)) < np.inf:
            return super().nearest_lognormal()
        return self.lognormal(clipped=False).density

    def loss_of(self, other: SigmaDensity) -> float:
        """Relative excess of the score error where the new examples are drawn from another density at the same price.

        Examples outside the levels are paid for, at the price of the nearest level, and count for nothing.
        """
        own = self.score_error(self._counted(self.examples))
        if not 0 < own < np.inf:
            return super().loss_of(other)
        return self.score_error(self._counted(self._bought(other, clipped=False)[0])) / own - 1.0

    def _counted(self, examples: Array) -> Array:
        return examples if self.spent is None else examples + self.spent

    def _bought(self, density: SigmaDensity, clipped: bool) -> tuple[Array, float]:
        """(L,) examples on the levels, and the number of all, that the plan's training price buys of a density."""
        below, above = instance(density, SigmaDensity, "other").tails(self.levels.edges)
        mass = np.maximum(density.mass(self.levels.edges), 1e-300)
        outside = 0.0 if clipped else float(self.prices[0] * below[0] + self.prices[-1] * above[-1])
        count = float(self.prices @ self.examples) / (float(self.prices @ mass) + outside)
        return mass * count, float((mass * count).sum()) if clipped else count

    def importance(self, sigma: Array, base: SigmaDensity) -> Array:
        """Weights base / self, of the base restricted to the levels; those without examples have no part in a mean."""
        return super().importance(sigma, base) / float(base.mass(self.levels.edges).sum())
