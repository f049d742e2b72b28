"""The samplers: how each one acts on Gaussian data, exactly and to leading order in the step.

Every class holds one row of the two tables of docs/theory.md: the action on a band (section 2) and
the local error (section 3). Names and last steps are those of k-diffusion.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..basics.checks import Array, number
from ..ingredients.grids import Grid, check_grid
from .affine_steps import Numbers, Steps, TerminalLaw
from .base import MinimumSteps, Sampler

__all__ = [
    "Ancestral",
    "DPMpp2M",
    "Euler",
    "EulerMaruyama",
    "Grid",
    "Heun",
    "MinimumSteps",
    "Sampler",
    "TerminalLaw",
    "check_grid",
]


class _OneEvaluation(Sampler):
    """Samplers whose mean step is carry x + (1 - carry) D(x)."""

    @abstractmethod
    def _carry(self, sigma: Numbers) -> Numbers:
        """(..., K, 1) what of x is kept, with 0 where the step goes to sigma = 0."""

    def _noise(self, sigma: Numbers) -> Numbers | None:
        """(..., K, 1) variance added, with 0 where the step goes to sigma = 0."""
        return None

    def _steps(self, sigma: Numbers, weights: Numbers) -> Steps:
        carry = self._carry(sigma)
        return Steps(carry + (1 - carry) * weights[..., :-1, :], noise=self._noise(sigma))

    def _by_weight(self, sigma: Numbers, weights: Numbers, by_current: Numbers, by_previous: Numbers | None) -> Numbers:
        return _pad_after(by_current * (1 - self._carry(sigma)))


@dataclass(frozen=True)
class Euler(_OneEvaluation):
    """Euler's method in sigma, the same as DDIM with eta = 0: x' = D + (sigma'/sigma)(x - D). Order 1.

    >>> Euler().order, Euler().evaluations_per_step, Euler().eta
    (1, 1, 0.0)
    """

    name: ClassVar[str] = "euler"

    def _local_error(self, lam: Array, sigma: Array) -> Array:
        return lam / (2 * (lam + sigma**2) ** 2)

    def _carry(self, sigma: Numbers) -> Numbers:
        return _ratio(sigma)


@dataclass(frozen=True)
class Heun(Sampler):
    """Heun's method in sigma, the sampler of EDM: Euler, then the mean of both slopes. Order 2.

    >>> bool((Heun().local_error([1.0], [0.1, 1.0, 10.0], 0.01) < 0).all())  # it grows
    True
    """

    name: ClassVar[str] = "heun"
    order: ClassVar[int] = 2
    evaluations_per_step: ClassVar[int] = 2

    def _local_error(self, lam: Array, sigma: Array) -> Array:
        return -lam * sigma / (2 * (lam + sigma**2) ** 3)

    def _steps(self, sigma: Numbers, weights: Numbers) -> Steps:
        ratio, before, after, inverse = self._parts(sigma, weights)
        predicted = ratio + (1 - ratio) * before
        corrected = 0.5 * (1 + predicted + (1 - inverse) * (1 - after) * predicted)
        return Steps(np.where(_to_zero(sigma), before, corrected))

    def _by_weight(self, sigma: Numbers, weights: Numbers, by_current: Numbers, by_previous: Numbers | None) -> Numbers:
        ratio, before, after, inverse = self._parts(sigma, weights)
        predicted = ratio + (1 - ratio) * before
        by_before = 0.5 * (1 - ratio) * (1 + (1 - inverse) * (1 - after))
        by_after = -0.5 * (1 - inverse) * predicted
        zero = _to_zero(sigma)
        first = by_current * np.where(zero, 1.0, by_before)
        second = by_current * np.where(zero, 0.0, by_after)
        return _pad_after(first) + _pad_before(second)  # D(sigma_k) corrects step k - 1 and predicts step k

    @staticmethod
    def _parts(sigma: Numbers, weights: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        ratio = _ratio(sigma)
        inverse = 1 / np.where(_to_zero(sigma), 1.0, ratio)
        return ratio, weights[..., :-1, :], weights[..., 1:, :], inverse


@dataclass(frozen=True)
class DPMpp2M(Sampler):
    """DPM-Solver++(2M): exponential integrator in log sigma, D extrapolated from two nodes. Order 2.

    The first step and a last step to 0 have no extrapolation, as in k-diffusion. Its local error
    (at step ratio 1) grows where sigma^2 < 1.5 lambda and shrinks above.

    >>> DPMpp2M().local_error([2.0], [1.0, 2.0], 0.01).round(6).tolist()
    [[-0.074074, 0.002315]]
    """

    name: ClassVar[str] = "dpmpp_2m"
    order: ClassVar[int] = 2

    @property
    def signed(self) -> bool:
        """True: it changes sign at sigma^2 = 1.5 lambda."""
        return True

    def _local_error(self, lam: Array, sigma: Array) -> Array:
        return lam * (2 * sigma**2 - 3 * lam) / (4 * sigma * (lam + sigma**2) ** 3)

    def _steps(self, sigma: Numbers, weights: Numbers) -> Steps:
        by_here, by_earlier = self._slopes(sigma)
        earlier = np.zeros_like(weights[..., :-1, :] + by_earlier)
        earlier[..., 1:, :] = by_earlier[..., 1:, :] * weights[..., :-2, :]
        return Steps(_ratio(sigma) + by_here * weights[..., :-1, :], previous=earlier)

    def _by_weight(self, sigma: Numbers, weights: Numbers, by_current: Numbers, by_previous: Numbers | None) -> Numbers:
        assert by_previous is not None
        by_here, by_earlier = self._slopes(sigma)
        used = by_current * by_here
        used[..., :-1, :] += by_previous[..., 1:, :] * by_earlier[..., 1:, :]  # D_k serves steps k and k + 1
        return _pad_after(used)

    @staticmethod
    def _slopes(sigma: Numbers) -> tuple[Numbers, Numbers]:
        """(..., K, 1) factors of D and of the D before it; the second is 0 in the first and last steps."""
        ratio = _ratio(sigma)
        log_step = -np.log(np.where(_to_zero(sigma), 1.0, ratio))  # 0 for a step to zero: no extrapolation
        extra = np.zeros_like(log_step)
        extra[..., 1:, :] = log_step[..., 1:, :] / (2 * log_step[..., :-1, :])
        return (1 - ratio) * (1 + extra), -(1 - ratio) * extra


@dataclass(frozen=True)
class Ancestral(_OneEvaluation):
    """Ancestral sampling, DDIM with noise eta: x' = D + (sigma_dn/sigma)(x - D) + sigma_up z. Order 1.

    sigma_up = min(sigma', eta sqrt(sigma'^2 (1 - sigma'^2/sigma^2))), sigma_dn^2 = sigma'^2 - sigma_up^2.

    Args:
        eta: >= 0; 0 is Euler, 1 the posterior variance of DDPM. Above 1 sigma_up hits its cap sigma'
            on long steps, and the local error holds only for steps shorter than those.

    Raises:
        ValueError: eta is negative or not finite.

    >>> Ancestral(eta=0.5)
    Ancestral(eta=0.5)
    """

    eta: float = 1.0
    name: ClassVar[str] = "euler_ancestral"

    def __post_init__(self) -> None:
        object.__setattr__(self, "eta", number(self.eta, "Ancestral.eta", nonnegative=True))

    def _local_error(self, lam: Array, sigma: Array) -> Array:
        return (1 + self.eta**2) ** 2 * lam / (2 * (lam + sigma**2) ** 2)

    def _carry(self, sigma: Numbers) -> Numbers:
        # written so that eta = 1 gives ratio^2 with no cancellation: sqrt must stay analytic at a tiny ratio
        ratio = _ratio(sigma)
        kept = (1 - self.eta**2) + self.eta**2 * ratio**2
        return ratio * np.sqrt(np.where(kept.real > 0, kept, 0.0))

    def _noise(self, sigma: Numbers) -> Numbers:
        share = self.eta**2 * (1 - _ratio(sigma) ** 2)
        return sigma[..., 1:, :] ** 2 * np.where(share.real < 1, share, 1.0)


@dataclass(frozen=True)
class EulerMaruyama(_OneEvaluation):
    """Euler-Maruyama of the reverse SDE in sigma: step (1 + eta^2) h (x - D)/sigma, noise 2 eta^2 sigma |h|.

    Order 1 in law. eta = 0 is Euler, eta = 1 the reverse SDE; a last step to 0 is the
    plain denoiser. Mean multipliers are nonnegative only below `positivity_cap`.

    Args:
        eta: >= 0.

    Raises:
        ValueError: eta is negative or not finite.

    >>> EulerMaruyama(eta=1.0).signed, EulerMaruyama(eta=0.0).signed
    (True, False)
    """

    eta: float = 1.0
    name: ClassVar[str] = "euler_maruyama"

    def __post_init__(self) -> None:
        object.__setattr__(self, "eta", number(self.eta, "EulerMaruyama.eta", nonnegative=True))

    @property
    def signed(self) -> bool:
        """True for eta > 0: the local error changes sign at sigma^2 = lambda / (eta^2 (2 + eta^2))."""
        return self.eta > 0

    @property
    def positivity(self) -> float:
        """1 + eta^2 for eta > 0: steps up to v_min / ((1 + eta^2) sigma) keep multipliers nonnegative."""
        return 1 + self.eta**2 if self.eta > 0 else 0.0

    def _local_error(self, lam: Array, sigma: Array) -> Array:
        noise = self.eta**2 * (2 + self.eta**2)
        return (lam - noise * sigma**2) / (2 * (lam + sigma**2) ** 2)

    def _carry(self, sigma: Numbers) -> Numbers:
        carry = (1 + self.eta**2) * _ratio(sigma) - self.eta**2  # so written, eta = 0 cancels nothing
        return np.where(_to_zero(sigma), 0.0, carry)

    def _noise(self, sigma: Numbers) -> Numbers:
        before, after = sigma[..., :-1, :], sigma[..., 1:, :]
        return np.where(_to_zero(sigma), 0.0, 2 * self.eta**2 * before * (before - after))


def _ratio(sigma: Numbers) -> Numbers:
    return np.where(_to_zero(sigma), 0.0, sigma[..., 1:, :] / sigma[..., :-1, :])


def _to_zero(sigma: Numbers) -> Any:
    return sigma[..., 1:, :].real == 0


def _pad_after(steps: Numbers) -> Numbers:
    """(..., K, B) to (..., K+1, B): node k opens step k."""
    return np.concatenate([steps, np.zeros_like(steps[..., :1, :])], axis=-2)


def _pad_before(steps: Numbers) -> Numbers:
    """(..., K, B) to (..., K+1, B): node k+1 closes step k."""
    return np.concatenate([np.zeros_like(steps[..., :1, :]), steps], axis=-2)
