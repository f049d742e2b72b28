"""Schedules uniform in the time of a training process, or placed on its discrete timesteps.

Each knows a law sigma(t) and takes its times between those of sigma_max and sigma_min. On the native range of the
process that is the schedule of the original code; outside it the law is continued, never stretched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import betaincinv

from ...basics.checks import AT_ONCE, Array, choice, integer, number, scale_of, shown
from ...models.evidence import Evidence
from .base import Schedule

__all__ = [
    "BetaTimesteps",
    "CosineTime",
    "CosineTimeToZero",
    "FlowUniform",
    "FlowUniformToZero",
    "TimeUniform",
    "TimeUniformToZero",
    "TimestepUniform",
    "TimestepUniformToZero",
]


@dataclass(frozen=True)
class TimeUniform(Schedule):
    """Equal increments of the time of the VP process, sigma = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1).

    Song et al. 2021; Karras et al. 2022, table 1. Native: t from 1 to eps_s, sigma from 152.17 to 0.0101.

    Args:
        beta_d, beta_min: slope and start of beta, per unit time; beta_d >= 0, beta_min > 0.
        eps_s: smallest time of the native range, used by `fit` alone, in (0, 1).
        fit: False takes the times of sigma_max and sigma_min under the given betas. True replaces the betas by those
            that give sigma_max at t = 1 and sigma_min at t = eps_s, as the ablations of Karras et al. do.

    Raises:
        ValueError: `fit` finds no increasing beta (sigma_min too large for eps_s).

    >>> native = Evidence(sigma_min=TimeUniform().sigma(1e-3), sigma_max=TimeUniform().sigma(1.0))
    >>> TimeUniform().sigmas(3, native).round(4).tolist()
    [152.167, 3.4222, 0.0105, 0.0]
    """

    beta_d: float = 19.9
    beta_min: float = 0.1
    eps_s: float = 1e-3
    fit: bool = False
    name: ClassVar[str] = "time_uniform"
    title: ClassVar[str] = "equal steps of VP time"

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "beta_d", number(self.beta_d, "TimeUniform.beta_d", nonnegative=True, maximum=1e60))
        put(self, "beta_min", scale_of(self.beta_min, "TimeUniform.beta_min"))
        put(self, "eps_s", number(self.eps_s, "TimeUniform.eps_s", positive=True))
        if self.eps_s >= 1:
            raise ValueError(f"TimeUniform.eps_s is {self.eps_s:g}; it must be < 1, the largest time.")
        if not isinstance(self.fit, bool):
            raise ValueError(f"TimeUniform.fit is {shown(self.fit)}; True or False is needed.")

    def sigma(self, time: float) -> float:
        """Noise level at a time, data units."""
        at = number(time, "time", nonnegative=True, maximum=1.0)
        return float(np.sqrt(np.expm1(self.beta_d * at**2 / 2 + self.beta_min * at)))

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        integral = np.log1p(np.array([evidence.sigma_max, evidence.sigma_min]) ** 2)
        beta_d, beta_min = self.beta_d, self.beta_min
        if self.fit:
            beta_d = 2 * (integral[1] / self.eps_s - integral[0]) / (self.eps_s - 1)
            beta_min = integral[0] - beta_d / 2
            ends = np.array([1.0, self.eps_s])
            if np.any(beta_min + beta_d * ends <= 0):
                raise ValueError(
                    f"time_uniform: no rising VP process has sigma {evidence.sigma_min:g} at t = {self.eps_s:g} and "
                    f"{evidence.sigma_max:g} at t = 1; set eps_s or fit=False."
                )
        else:  # the root of the quadratic without cancellation
            ends = 2 * integral / (beta_min + np.sqrt(beta_min**2 + 2 * beta_d * integral))
        time = np.linspace(ends[0], ends[1], count)
        return evidence.between(np.sqrt(np.expm1(beta_d * time**2 / 2 + beta_min * time)))


@dataclass(frozen=True)
class CosineTime(Schedule):
    """Equal increments of the time of the cosine process, alpha-bar = cos^2(w) / cos^2(w_0), w = (t + s)/(1 + s) pi/2.

    Nichol and Dhariwal 2021, equation 17. Native: t from 1 (infinite noise) to 0; here between the times of the ends.

    Args:
        offset: their s, 0.008; with 0 it is `KLOptimal` of scale 1.

    >>> CosineTime(0.0).sigmas(3, Evidence(sigma_min=0.1, sigma_max=10.0)).round(12).tolist()
    [10.0, 1.0, 0.1, 0.0]
    """

    offset: float = 0.008
    name: ClassVar[str] = "cosine"
    title: ClassVar[str] = "equal steps of cosine time"

    def __post_init__(self) -> None:
        object.__setattr__(self, "offset", number(self.offset, "CosineTime.offset", nonnegative=True))

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        # t is affine in w, so equal steps of t are equal steps of w: cos w = cos w_0 / sqrt(1 + sigma^2)
        # and back, without cancellation, sigma^2 = (sin^2 w - sin^2 w_0) / cos^2 w
        first = self.offset / (1 + self.offset) * np.pi / 2
        level = np.array([evidence.sigma_max, evidence.sigma_min])
        high, low = np.arctan2(np.hypot(level, np.sin(first)), np.cos(first))
        angle = np.linspace(high, low, count)
        return evidence.between(np.sqrt(np.sin(angle - first) * np.sin(angle + first)) / np.cos(angle))


@dataclass(frozen=True)
class FlowUniform(Schedule):
    """Equal increments of the time of flow matching, sigma = shift t / (1 - t).

    x_t = (1 - u) x_0 + u z with u = shift t / (1 + (shift - 1) t): the `shift` of FlowMatchEulerDiscreteScheduler
    (Esser et al. 2024, equation 23). Native: t from 1 (infinite noise) to 1/1000; here between the times of the ends.

    Args:
        shift: > 0; 1 is none, 3 that of Stable Diffusion 3.

    >>> FlowUniform().sigmas(3, Evidence(sigma_min=0.25, sigma_max=4.0)).round(12).tolist()
    [4.0, 1.0, 0.25, 0.0]
    """

    shift: float = 1.0
    name: ClassVar[str] = "flow_uniform"
    title: ClassVar[str] = "equal steps of flow-matching time"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shift", scale_of(self.shift, "FlowUniform.shift"))

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        level = np.array([evidence.sigma_max, evidence.sigma_min])
        high, low = level / (self.shift + level)
        time = np.linspace(high, low, count)
        return evidence.between(self.shift * time / (1 - time))


@dataclass(frozen=True)
class _Timesteps(Schedule):
    """A process of discrete timesteps: alpha-bar_i = product of (1 - beta_j), sigma = sqrt(1 / alpha-bar - 1)."""

    beta_start: float = 0.00085
    beta_end: float = 0.012
    timesteps: int = 1000
    law: str = "scaled_linear"

    def __post_init__(self) -> None:
        kind = type(self).__name__
        for name in ("beta_start", "beta_end"):
            object.__setattr__(self, name, number(getattr(self, name), f"{kind}.{name}", positive=True, maximum=0.999))
        if self.beta_end < self.beta_start:
            raise ValueError(f"{kind}.beta_end is {self.beta_end:g}; it must be >= beta_start = {self.beta_start:g}.")
        object.__setattr__(self, "timesteps", integer(self.timesteps, f"{kind}.timesteps", minimum=2, maximum=AT_ONCE))
        choice(self.law, f"{kind}.law", ("scaled_linear", "linear"))

    def _integral(self, sigma_max: float) -> Array:
        """-log alpha-bar after 0, 1, 2, ... timesteps, continued past the last one until it reaches sigma_max."""
        power = 0.5 if self.law == "scaled_linear" else 1.0
        first, last = self.beta_start**power, self.beta_end**power
        wanted, count = np.log1p(sigma_max**2), self.timesteps
        while True:
            beta = (first + (last - first) * np.arange(count) / (self.timesteps - 1)) ** (1 / power)
            total = np.concatenate([[0.0], np.cumsum(-np.log1p(-np.minimum(beta, 0.999)))])
            if total[-1] >= wanted:
                return total
            count *= 2

    def _between(self, share: Array, evidence: Evidence) -> Array:
        """Noise levels at times that run from that of sigma_min (share 0) to that of sigma_max (share 1)."""
        total = self._integral(evidence.sigma_max)
        steps = np.arange(total.size, dtype=np.float64)
        low, high = np.interp(np.log1p(np.array([evidence.sigma_min, evidence.sigma_max]) ** 2), total, steps)
        return np.sqrt(np.expm1(np.interp(low + share * (high - low), steps, total)))


@dataclass(frozen=True)
class TimestepUniform(_Timesteps):
    """Equal increments of the discrete timestep of a trained model; by default Stable Diffusion's.

    Native: timesteps 999 to 0, sigma from 14.615 to 0.029 (`timestep_spacing="linspace"` of diffusers). Between
    timesteps log alpha-bar is interpolated linearly; beyond the last one the law of beta is continued.

    Args:
        beta_start, beta_end: first and last beta, in (0, 1).
        timesteps: how many the model was trained with.
        law: "scaled_linear" (sqrt(beta) linear) or "linear".

    >>> TimestepUniform().sigmas(3, Evidence(sigma_min=0.0292, sigma_max=14.6146)).round(3).tolist()
    [14.615, 1.616, 0.029, 0.0]
    """

    name: ClassVar[str] = "timestep_uniform"
    title: ClassVar[str] = "equal steps of the discrete timestep"

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        return evidence.between(self._between(np.linspace(1.0, 0.0, count), evidence))


@dataclass(frozen=True)
class BetaTimesteps(_Timesteps):
    """Beta quantiles of the timestep index, rounded to whole timesteps: ComfyUI's `beta`.

    Lee et al. 2024 (2407.12173). Index rint(q(1 - i/K) (T - 1)) for i = 0, ..., K-1: the lowest positive level stays
    above sigma_min, since quantile 0 is not among them; under "rescale" it is, and the grid ends at sigma_min. With
    many steps indices coincide; ComfyUI then drops the repeated ones and runs fewer steps than were asked for.

    Args:
        beta_start, beta_end, timesteps, law: as for `TimestepUniform`; the T timesteps are spread over the range.
        alpha, beta: exponents of the Beta law, > 0.
        fewer: what to do where indices coincide: "raise", or "fill" with the nearest free indices below (then above).

    Raises:
        ValueError: indices coincide under "raise", or there are fewer timesteps than levels.

    >>> native = Evidence(sigma_min=0.029167, sigma_max=14.614641)
    >>> BetaTimesteps().sigmas(4, native).round(3).tolist()
    [14.615, 5.687, 1.618, 0.515, 0.0]
    """

    alpha: float = 0.6
    beta: float = 0.6
    fewer: str = "raise"
    name: ClassVar[str] = "beta_timesteps"
    title: ClassVar[str] = "Beta quantiles of the timestep (ComfyUI)"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "beta"):
            object.__setattr__(self, name, number(getattr(self, name), f"BetaTimesteps.{name}", positive=True))
        choice(self.fewer, "BetaTimesteps.fewer", ("raise", "fill"))

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        quantiles = 1 - np.linspace(0.0, 1.0, count, endpoint=evidence.terminal == "rescale")
        last = self.timesteps - 1
        index = np.rint(betaincinv(self.alpha, self.beta, quantiles) * last)
        distinct = np.unique(index).size
        if distinct < count:
            if self.fewer == "raise" or count > self.timesteps:
                raise ValueError(
                    f"beta_timesteps: {count} levels fall on {distinct} of {self.timesteps} timesteps, so that ComfyUI "
                    f'would run {distinct}; ask for fewer steps, or use fewer="fill" (up to {self.timesteps} levels).'
                )
            index = _apart(index)
        nodes = self._between(index / last, evidence)
        nodes[0] = evidence.sigma_max
        if evidence.terminal == "rescale":
            nodes[-1] = evidence.sigma_min
        return nodes


def _apart(index: Array) -> Array:
    """Descending whole numbers made distinct: each at most its upper neighbour less 1, then none below 0."""
    place = np.arange(index.size)
    lowered = np.minimum.accumulate(index + place) - place
    return np.maximum(lowered, (index.size - 1 - place).astype(np.float64))


class _ToZero(Schedule):
    """Equal steps of time down to sigma_min, the last of which goes to zero instead: no evaluation at sigma_min.

    What users of time-linear grids have whose scheduler ends with 0: K levels are evaluated, and the K + 1st would be
    sigma_min. Under "rescale" nothing changes.
    """

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        if evidence.terminal == "rescale":
            return super()._nodes(count, evidence)  # type: ignore[safe-super]
        return super()._nodes(count + 1, evidence)[:-1]  # type: ignore[safe-super]


@dataclass(frozen=True)
class TimeUniformToZero(_ToZero, TimeUniform):
    """`TimeUniform` whose last step goes straight to zero, so that no evaluation is spent on sigma_min.

    >>> both = Evidence(sigma_min=0.1, sigma_max=20.0)
    >>> bool(np.allclose(TimeUniformToZero().sigmas(3, both)[:-1], TimeUniform().sigmas(4, both)[:3]))
    True
    """

    name: ClassVar[str] = "time_uniform_to_zero"
    title: ClassVar[str] = "equal steps of VP time, the last to zero"


@dataclass(frozen=True)
class CosineTimeToZero(_ToZero, CosineTime):
    """`CosineTime` whose last step goes straight to zero.

    >>> CosineTimeToZero(0.0).sigmas(2, Evidence(sigma_min=0.1, sigma_max=10.0)).round(12).tolist()
    [10.0, 1.0, 0.0]
    """

    name: ClassVar[str] = "cosine_to_zero"
    title: ClassVar[str] = "equal steps of cosine time, the last to zero"


@dataclass(frozen=True)
class FlowUniformToZero(_ToZero, FlowUniform):
    """`FlowUniform` whose last step goes straight to zero.

    >>> FlowUniformToZero().sigmas(2, Evidence(sigma_min=0.25, sigma_max=4.0)).round(12).tolist()
    [4.0, 1.0, 0.0]
    """

    name: ClassVar[str] = "flow_uniform_to_zero"
    title: ClassVar[str] = "equal steps of flow-matching time, the last to zero"


@dataclass(frozen=True)
class TimestepUniformToZero(_ToZero, TimestepUniform):
    """`TimestepUniform` whose last step goes straight to zero.

    >>> TimestepUniformToZero().sigmas(2, Evidence(sigma_min=0.0292, sigma_max=14.6146)).round(3).tolist()
    [14.615, 1.616, 0.0]
    """

    name: ClassVar[str] = "timestep_uniform_to_zero"
    title: ClassVar[str] = "equal steps of the discrete timestep, the last to zero"
