"""The samplers: how each one acts on Gaussian data, exactly and to leading order in the step.

Every class holds one row of the two tables of docs/theory.md: the action on a band (section 2) and
the local error (section 3), and the same action as a step on a network. Names are those of k-diffusion. The multistep
samplers and those with calls between nodes, in files of their own, are members too.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..basics.checks import Array, number
from ..ingredients.grids import Grid, check_grid
from .adjoint import Adjoint, pad_after, pad_before, ratios
from .affine_steps import AffineSteps, Numbers, StepGradient, StepSlopes, TerminalLaw
from .base import MinimumSteps, Sampler
from .exponential import DEIS, IPNDM, AdamsBashforth, DPMpp3M
from .linear_multistep import LinearMultistep
from .network_step import DenoiserCall, NoisePath, Remembered, SigmaStep, mixed, trapezoid
from .raised import DPMpp2S, HeunChurn
from .unipc import UniPC

if TYPE_CHECKING:
    import torch

__all__ = [
    "DEIS",
    "IPNDM",
    "AdamsBashforth",
    "Ancestral",
    "DPMpp2M",
    "DPMpp2S",
    "DPMpp3M",
    "Euler",
    "EulerMaruyama",
    "Grid",
    "Heun",
    "HeunChurn",
    "LinearMultistep",
    "MinimumSteps",
    "Sampler",
    "TerminalLaw",
    "UniPC",
    "check_grid",
]

_LOUDEST = 1e30  # eta whose fourth power is a float


class _OneEvaluation(Adjoint):
    """Samplers whose mean step is carry x + (1 - carry) D(x)."""

    @abstractmethod
    def _carry(self, sigma: Numbers) -> Numbers:
        """(..., K, 1) what of x is kept."""

    @abstractmethod
    def _carry_slope(self, sigma: Array) -> Array:
        """(..., K, 1) its derivative by log(sigma' / sigma)."""

    def _noise(self, sigma: Numbers) -> Numbers | None:
        """(..., K, 1) variance added."""
        return None

    def _noise_slopes(self, sigma: Array) -> tuple[Array | None, Array | None]:
        """(..., K, 1) its derivatives by log sigma and by log sigma'."""
        return None, None

    def affine_steps(self, sigma: Numbers, weights: Numbers) -> AffineSteps:
        """docs/theory.md section 2, the row of this sampler."""
        carry = self._carry(sigma)
        return AffineSteps(carry + (1 - carry) * weights[..., :-1, :], noise=self._noise(sigma))

    def step_slopes(self, sigma: Array, weights: Array, weight_slopes: Array) -> StepSlopes:
        """Derivatives of `affine_steps`."""
        opening, closing = self._noise_slopes(sigma)
        by_ratio = self._carry_slope(sigma) * (1 - weights[..., :-1, :])
        by_weight = (1 - self._carry(sigma)) * weight_slopes[..., :-1, :]
        return StepSlopes((by_weight - by_ratio, None, opening), (by_ratio, None, closing))

    def _by_weight(self, sigma: Numbers, weights: Numbers, by_steps: StepGradient) -> Numbers:
        return pad_after(by_steps.by_current * (1 - self._carry(sigma)))


@dataclass(frozen=True)
class Euler(_OneEvaluation):
    """Euler's method in sigma, the same as DDIM with eta = 0: x' = D + (sigma'/sigma)(x - D). Order 1.

    >>> Euler().order, Euler().evaluations_per_step, Euler().eta
    (1, 1, 0.0)
    """

    name: ClassVar[str] = "euler"

    def leading_error(self, lam: Array, sigma: Array) -> Array:
        """docs/theory.md section 3, the row of this sampler."""
        return lam / (2 * (lam + sigma**2) ** 2)

    def _carry(self, sigma: Numbers) -> Numbers:
        return ratios(sigma)

    def _carry_slope(self, sigma: Array) -> Array:
        return ratios(sigma)

    def step(
        self,
        denoiser: DenoiserCall,
        x: torch.Tensor,
        levels: SigmaStep,
        memory: Sequence[Remembered],
        noise: NoisePath | None,
    ) -> torch.Tensor:
        """x' = D + (sigma'/sigma)(x - D)."""
        return mixed(x, denoiser(x, levels.high), levels.low / levels.high)


@dataclass(frozen=True)
class Heun(Adjoint):
    """Heun's method in sigma, the sampler of EDM: Euler, then the mean of both slopes. Order 2.

    >>> bool((Heun().local_error([1.0], [0.1, 1.0, 10.0], 0.01) < 0).all())  # it grows
    True
    """

    name: ClassVar[str] = "heun"
    order: ClassVar[int] = 2
    evaluations_per_step: ClassVar[int] = 2

    def leading_error(self, lam: Array, sigma: Array) -> Array:
        """docs/theory.md section 3, the row of this sampler."""
        return -lam * sigma / (2 * (lam + sigma**2) ** 3)

    def affine_steps(self, sigma: Numbers, weights: Numbers) -> AffineSteps:
        """docs/theory.md section 2, the row of this sampler."""
        ratio, before, after, inverse = self._parts(sigma, weights)
        predicted = ratio + (1 - ratio) * before
        corrected = 0.5 * (1 + predicted + (1 - inverse) * (1 - after) * predicted)
        return AffineSteps(corrected)

    def step_slopes(self, sigma: Array, weights: Array, weight_slopes: Array) -> StepSlopes:
        """Derivatives of `affine_steps`."""
        ratio, before, after, inverse = self._parts(sigma, weights)
        predicted = ratio + (1 - ratio) * before
        by_predicted = 0.5 * (1 + (1 - inverse) * (1 - after))
        by_ratio = by_predicted * ratio * (1 - before) + 0.5 * inverse * (1 - after) * predicted
        opening = by_predicted * (1 - ratio) * weight_slopes[..., :-1, :] - by_ratio
        closing = by_ratio - 0.5 * (1 - inverse) * predicted * weight_slopes[..., 1:, :]
        return StepSlopes((opening, None, None), (closing, None, None))

    def _by_weight(self, sigma: Numbers, weights: Numbers, by_steps: StepGradient) -> Numbers:
        ratio, before, after, inverse = self._parts(sigma, weights)
        predicted = ratio + (1 - ratio) * before
        by_before = 0.5 * (1 - ratio) * (1 + (1 - inverse) * (1 - after))
        by_after = -0.5 * (1 - inverse) * predicted
        # D(sigma_k) corrects step k - 1 and predicts step k
        return pad_after(by_steps.by_current * by_before) + pad_before(by_steps.by_current * by_after)

    @staticmethod
    def _parts(sigma: Numbers, weights: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        ratio = ratios(sigma)
        return ratio, weights[..., :-1, :], weights[..., 1:, :], 1 / ratio

    def step(
        self,
        denoiser: DenoiserCall,
        x: torch.Tensor,
        levels: SigmaStep,
        memory: Sequence[Remembered],
        noise: NoisePath | None,
    ) -> torch.Tensor:
        """An Euler step, and the mean of the slopes at both its ends."""
        return trapezoid(denoiser, x, levels.high, levels.low)


@dataclass(frozen=True)
class DPMpp2M(Adjoint):
    """DPM-Solver++(2M): exponential integrator in log sigma, D extrapolated from two nodes. Order 2.

    The first step and a last step to 0 have no extrapolation, as in k-diffusion. Its local error
    (at step ratio 1) grows where sigma^2 < 1.5 lambda and shrinks above.

    >>> DPMpp2M().local_error([2.0], [1.0, 2.0], 0.01).round(6).tolist()
    [[-0.074074, 0.002315]]
    """

    name: ClassVar[str] = "dpmpp_2m"
    order: ClassVar[int] = 2
    memory: ClassVar[int] = 1

    @property
    def signed(self) -> bool:
        """True: it changes sign at sigma^2 = 1.5 lambda."""
        return True

    def leading_error(self, lam: Array, sigma: Array) -> Array:
        """docs/theory.md section 3, the row of this sampler."""
        return lam * (2 * sigma**2 - 3 * lam) / (4 * sigma * (lam + sigma**2) ** 3)

    def affine_steps(self, sigma: Numbers, weights: Numbers) -> AffineSteps:
        """docs/theory.md section 2, the row of this sampler."""
        by_here, by_earlier = self._slopes(sigma)
        return AffineSteps(ratios(sigma) + by_here * weights[..., :-1, :], [by_earlier * self._before(weights)])

    def step_slopes(self, sigma: Array, weights: Array, weight_slopes: Array) -> StepSlopes:
        """Derivatives of `affine_steps`: with h the length of the step in log sigma and g that of the one before."""
        ratio, here, (by_here, by_earlier) = ratios(sigma), weights[..., :-1, :], self._slopes(sigma)
        length = -np.log(ratio)
        extra_by_length, extra_by_before = np.zeros(length.shape), np.zeros(length.shape)
        extra_by_length[..., 1:, :] = 0.5 / length[..., :-1, :]
        extra_by_before[..., 1:, :] = -0.5 * length[..., 1:, :] / length[..., :-1, :] ** 2
        earlier, earlier_slope = self._before(weights), self._before(weight_slopes)
        # by_here = (1 - ratio) (1 + extra), by_earlier = -(1 - ratio) extra
        extra = extra_by_length * length
        current = here * (ratio * (1 + extra) + (1 - ratio) * extra_by_length) - ratio
        current_before = here * (1 - ratio) * extra_by_before
        previous = -earlier * (ratio * extra + (1 - ratio) * extra_by_length)
        previous_before = -earlier * (1 - ratio) * extra_by_before
        opening = current - current_before + by_here * weight_slopes[..., :-1, :]
        return StepSlopes(
            (opening, previous - previous_before, None),
            (-current, -previous, None),
            (current_before, previous_before + by_earlier * earlier_slope, None),
        )

    def _by_weight(self, sigma: Numbers, weights: Numbers, by_steps: StepGradient) -> Numbers:
        by_here, by_earlier = self._slopes(sigma)
        used = by_steps.by_current * by_here
        used[..., :-1, :] += by_steps.by_earlier[0][..., 1:, :] * by_earlier[..., 1:, :]  # D_k serves steps k and k + 1
        return pad_after(used)

    @staticmethod
    def _slopes(sigma: Numbers) -> tuple[Numbers, Numbers]:
        """(..., K, 1) factors of D and of the D before it; the second is 0 in the first step."""
        ratio = ratios(sigma)
        log_step = -np.log(ratio)
        extra = np.zeros(log_step.shape, log_step.dtype)
        extra[..., 1:, :] = log_step[..., 1:, :] / (2 * log_step[..., :-1, :])
        return (1 - ratio) * (1 + extra), -(1 - ratio) * extra

    @staticmethod
    def _before(nodes: Numbers) -> Numbers:
        """(..., K, B) from (..., K+1, B): of the node before each step's own; that of the first step counts nothing."""
        return np.concatenate([nodes[..., :1, :], nodes[..., :-2, :]], axis=-2)

    def step(
        self,
        denoiser: DenoiserCall,
        x: torch.Tensor,
        levels: SigmaStep,
        memory: Sequence[Remembered],
        noise: NoisePath | None,
    ) -> torch.Tensor:
        """The Euler step of an output that is extrapolated in log sigma from two nodes."""
        clean = used = denoiser(x, levels.high)
        length = levels.log_ratio
        if memory:
            before = memory[-1]
            share = (length / (2 * before.step.log_ratio)).to(x.dtype)
            used = (1 + share) * clean - share * before.output
        return mixed(x, used, levels.low / levels.high)


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
        object.__setattr__(self, "eta", number(self.eta, "Ancestral.eta", nonnegative=True, maximum=_LOUDEST))

    def leading_error(self, lam: Array, sigma: Array) -> Array:
        """docs/theory.md section 3, the row of this sampler."""
        return (1 + self.eta**2) ** 2 * lam / (2 * (lam + sigma**2) ** 2)

    def _carry(self, sigma: Numbers) -> Numbers:
        # written so that eta = 1 gives ratio^2 with no cancellation: sqrt must stay analytic at a tiny ratio
        ratio = ratios(sigma)
        kept = (1 - self.eta**2) + self.eta**2 * ratio**2
        return ratio * np.sqrt(np.where(kept.real > 0, kept, 0.0))

    def _carry_slope(self, sigma: Array) -> Array:
        ratio = ratios(sigma)
        kept = (1 - self.eta**2) + self.eta**2 * ratio**2
        root = np.sqrt(np.where(kept > 0, kept, np.inf))
        return np.where(kept > 0, ratio * root, 0.0) + self.eta**2 * ratio**3 / root

    def _noise_slopes(self, sigma: Array) -> tuple[Array, Array]:
        ratio, square = ratios(sigma), sigma[..., 1:, :] ** 2
        share = self.eta**2 * (1 - ratio**2)
        opening = 2 * self.eta**2 * square * ratio**2 * (share < 1)
        return opening, 2 * square * np.where(share < 1, share, 1.0) - opening

    def _noise(self, sigma: Numbers) -> Numbers:
        share = self.eta**2 * (1 - ratios(sigma) ** 2)
        return sigma[..., 1:, :] ** 2 * np.where(share.real < 1, share, 1.0)

    def step(
        self,
        denoiser: DenoiserCall,
        x: torch.Tensor,
        levels: SigmaStep,
        memory: Sequence[Remembered],
        noise: NoisePath | None,
    ) -> torch.Tensor:
        """x' = D + (sigma_dn/sigma)(x - D) + sigma_up z."""
        clean, eta2, ratio = denoiser(x, levels.high), self.eta**2, levels.low / levels.high
        if eta2 == 0 or noise is None:
            return mixed(x, clean, ratio)
        up = levels.low * (eta2 * (1 - ratio**2)).clamp(max=1.0).sqrt()
        carry = ratio * ((1 - eta2) + eta2 * ratio**2).clamp(min=0.0).sqrt()
        return mixed(x, clean, carry) + up.to(x.dtype) * noise.draw(levels.high, levels.low, x)


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
        object.__setattr__(self, "eta", number(self.eta, "EulerMaruyama.eta", nonnegative=True, maximum=_LOUDEST))

    @property
    def signed(self) -> bool:
        """True for eta > 0: the local error changes sign at sigma^2 = lambda / (eta^2 (2 + eta^2))."""
        return self.eta > 0

    @property
    def positivity(self) -> float:
        """1 + eta^2 for eta > 0: steps up to v_min / ((1 + eta^2) sigma) keep multipliers nonnegative."""
        return 1 + self.eta**2 if self.eta > 0 else 0.0

    def leading_error(self, lam: Array, sigma: Array) -> Array:
        """docs/theory.md section 3, the row of this sampler."""
        noise = self.eta**2 * (2 + self.eta**2)
        return (lam - noise * sigma**2) / (2 * (lam + sigma**2) ** 2)

    def _carry(self, sigma: Numbers) -> Numbers:
        return (1 + self.eta**2) * ratios(sigma) - self.eta**2  # so written, eta = 0 cancels nothing

    def _carry_slope(self, sigma: Array) -> Array:
        return (1 + self.eta**2) * ratios(sigma)

    def _noise_slopes(self, sigma: Array) -> tuple[Array, Array]:
        before, after = sigma[..., :-1, :], sigma[..., 1:, :]
        return 2 * self.eta**2 * before * (2 * before - after), -2 * self.eta**2 * before * after

    def _noise(self, sigma: Numbers) -> Numbers:
        before, after = sigma[..., :-1, :], sigma[..., 1:, :]
        return 2 * self.eta**2 * before * (before - after)

    def step(
        self,
        denoiser: DenoiserCall,
        x: torch.Tensor,
        levels: SigmaStep,
        memory: Sequence[Remembered],
        noise: NoisePath | None,
    ) -> torch.Tensor:
        """One step of (1 + eta^2) h along the slope, and noise of variance 2 eta^2 sigma h."""
        clean, eta2, ratio = denoiser(x, levels.high), self.eta**2, levels.low / levels.high
        if eta2 == 0 or noise is None:
            return mixed(x, clean, ratio)
        up = (2 * eta2 * levels.high * (levels.high - levels.low)).sqrt()
        drawn = noise.draw(levels.high, levels.low, x)
        return mixed(x, clean, (1 + eta2) * ratio - eta2) + up.to(x.dtype) * drawn
