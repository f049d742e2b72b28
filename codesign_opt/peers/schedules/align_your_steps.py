"""Align Your Steps: the noise levels that minimise its bound KLUB by coordinate search (Sabour et al. 2024).

KLUB bounds the divergence of a sampler that freezes the denoiser over each step. An interval from sigma_i down to
sigma_j costs int E |D(x, sigma) - D(x_i, sigma_i)|^2 sigma^-3 dsigma. With the exact denoiser the squared change is
mmse(sigma_i) - mmse(sigma), and the sum is the discretisation error of the loss-adaptive schedule:
`risks.discretization_error`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...basics.checks import Array, instance, integer, scale_of, takes, vector
from ...models.evidence import DenoiserGaps, Evidence
from ..paths.interval_cost import coordinate_search
from .base import Schedule

__all__ = ["AlignYourSteps", "EulerCost", "KLUBCost", "klub", "subdivided"]

_TABLE = 257  # levels of the cost's table: finer than the largest of the usual measured ones


class KLUBCost:
    """Cost of intervals, int_(sigma_j)^(sigma_i) gap(sigma, sigma_i) sigma^-3 dsigma, from a table of gaps.

    The gaps are read as a smooth function of both logarithms: their sign is turned below the diagonal, across which
    |D - D|^2, which grows like the distance, would have a kink. The integrals are those of a cubic spline.

    Args:
        gaps: of the denoiser at hand; at least 4 levels.

    Raises:
        ValueError: fewer than 4 levels.

    >>> risk = lambda s: s**2 / (1 + s**2)
    >>> sigma = np.geomspace(0.1, 10.0, 80)
    >>> cost = KLUBCost(DenoiserGaps(sigma, np.abs(risk(sigma)[:, None] - risk(sigma))))
    >>> cost(np.log(np.array([1.0])), np.log(np.array([2.0]))).round(5).tolist()
    [0.065]
    """

    def __init__(self, gaps: DenoiserGaps) -> None:
        from scipy.interpolate import CubicSpline, RectBivariateSpline

        instance(gaps, DenoiserGaps, "KLUBCost: gaps")
        if gaps.sigma.size < 4:
            raise ValueError(f"gaps has {gaps.sigma.size} levels; at least 4 are needed.")
        known = np.log(gaps.sigma)
        signed = np.where(np.tri(known.size, dtype=bool), -1.0, 1.0) * gaps.squared  # row: sigma, column: sigma_i
        x = np.linspace(known[0], known[-1], max(_TABLE, known.size))
        self.low, self.high = float(known[0]), float(known[-1])
        if not (known.size == x.size and np.allclose(known, x, rtol=0, atol=1e-12)):
            signed = RectBivariateSpline(known, known, signed)(x, x)
        # from the top down, so that the large integrand of low noise cancels nothing at high noise
        rising = CubicSpline(-x[::-1], signed[::-1] * np.exp(-2 * x[::-1])[:, None]).antiderivative()(-x)
        integral = rising - np.diagonal(rising)
        self._scaled = RectBivariateSpline(x, x, integral * np.exp(2 * x)[:, None])  # of the order of the gap

    def __call__(self, low: Array, high: Array) -> Array:
        """Cost of intervals between logarithms of noise levels, arrays of one shape; nats, summed over dimensions."""
        return np.asarray(self._scaled.ev(low, high) * np.exp(-2 * np.asarray(low)))


@takes(gaps=DenoiserGaps)
def klub(gaps: DenoiserGaps, sigmas: Array) -> float:
    """Align Your Steps' bound of a grid: the sum of its intervals' costs, a last step to 0 left out.

    Raises:
        ValueError: noise levels that do not descend or leave the range of the gaps.

    >>> risk = lambda s: s**2 / (1 + s**2)
    >>> sigma = np.geomspace(0.1, 10.0, 80)
    >>> round(klub(DenoiserGaps(sigma, np.abs(risk(sigma)[:, None] - risk(sigma))), np.array([2.0, 1.0, 0.0])), 5)
    0.065
    """
    levels = vector(sigmas, "sigmas", nonnegative=True)
    levels = vector(levels[levels > 0], "sigmas", positive=True, descending=True, minimum_length=2)
    cost = KLUBCost(gaps)
    logs = np.log(levels)
    if logs[0] > cost.high + 1e-9 or logs[-1] < cost.low - 1e-9:
        raise ValueError(
            f"sigmas run from {levels[0]:g} to {levels[-1]:g}, the gaps from {gaps.sigma[-1]:g} to {gaps.sigma[0]:g}."
        )
    return float(cost(logs[1:], logs[:-1]).sum())


@dataclass(frozen=True)
class EulerCost:
    """Interval cost of Euler's method on N(0, scale^2 I), -log cos of the difference of the angles arctan(sigma/scale).

    Euler's output has variance r times the exact one, log r = 2 sum log cos (docs/theory.md section 2, angles), and its
    divergence falls as log r < 0 grows: what minimises the sum minimises the exact divergence. The minimiser is equal
    angles, the tangent law that Align Your Steps states. It is not that of KLUB, which for the same data is uniform in
    log(1 + scale^2 / sigma^2).

    Args:
        scale: standard deviation of the data, > 0.

    Raises:
        ValueError: scale is not positive.

    >>> EulerCost(1.0)(np.log(np.array([1.0])), np.log(np.array([np.tan(np.pi / 3)]))).round(4).tolist()
    [0.0347]
    """

    scale: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", scale_of(self.scale, "EulerCost.scale"))

    def __call__(self, low: Array, high: Array) -> Array:
        """Cost of intervals between logarithms of noise levels, arrays of one shape."""
        angles = np.arctan(np.exp(high) / self.scale) - np.arctan(np.exp(low) / self.scale)
        return -np.log(np.cos(angles))


@dataclass(frozen=True)
class AlignYourSteps(Schedule):
    """Minimiser of KLUB by coordinate search up to 10 intervals, halved in log sigma for more.

    More intervals than `base` are had as in the paper: the base grid's intervals are halved in log sigma, the old
    nodes kept and the new ones searched, to 20, 40 and so on; other numbers are read off by linear interpolation of
    log sigma. The search begins at EDM's grid.

    Args:
        sweeps: most passes of the search over all nodes; the paper stops before 300.
        base: intervals up to which all nodes are searched.

    Raises:
        ValueError: a field below 1.

    >>> import codesign_opt as co
    >>> model = co.GaussianModel(co.Spectrum.from_eigenvalues([1.0]), terminal="rescale")
    >>> sigma = AlignYourSteps().sigmas(4, Evidence.of(model))
    >>> np.diff(np.log1p(sigma**-2.0)).round(2).tolist()
    [3.11, 3.11, 3.11, 3.11]
    """

    sweeps: int = 300
    base: int = 10
    name: ClassVar[str] = "ays"
    title: ClassVar[str] = "Align Your Steps, least KLUB"
    needs: ClassVar[tuple[str, ...]] = ("gaps",)

    def __post_init__(self) -> None:
        for field in ("sweeps", "base"):
            object.__setattr__(self, field, integer(getattr(self, field), f"AlignYourSteps.{field}", minimum=1))

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        assert evidence.gaps is not None  # held by `needs`
        cost = KLUBCost(evidence.gaps)
        low, high = np.log(evidence.sigma_min), np.log(evidence.sigma_max)
        if low < cost.low - 1e-9 or high > cost.high + 1e-9:
            raise ValueError(
                f"Evidence.gaps runs from {np.exp(cost.low):g} to {np.exp(cost.high):g}, but sigma_min is "
                f"{evidence.sigma_min:g} and sigma_max {evidence.sigma_max:g}; measure the gaps on the whole range."
            )
        if count == 1:
            return np.array([evidence.sigma_max])
        intervals = min(count - 1, self.base)
        start = np.log(np.linspace(evidence.sigma_min ** (1 / 7), evidence.sigma_max ** (1 / 7), intervals + 1) ** 7)
        start[0], start[-1] = low, high
        logs = coordinate_search(cost, start, sweeps=self.sweeps)
        while logs.size < count:
            logs = subdivided(cost, logs, sweeps=self.sweeps)
        if logs.size > count:
            logs = np.interp(np.linspace(0, 1, count), np.linspace(0, 1, logs.size), logs)
        return evidence.between(np.exp(logs[::-1]))


@takes(cost=(KLUBCost, EulerCost))
def subdivided(cost: KLUBCost | EulerCost, logs: Array, *, sweeps: int = 300) -> Array:
    """Twice the intervals: a new node in the middle of each, searched while the old nodes stay.

    Args:
        cost: of intervals between logarithms of noise levels.
        logs: (K+1,) ascending logarithms of noise levels.
        sweeps: most passes.

    Returns:
        (2K+1,) ascending; every second one is an old node.

    >>> subdivided(EulerCost(1.0), np.log(np.tan(np.array([0.1, 1.1])))).round(4).tolist()
    [-2.2992, -0.3796, 0.6754]
    """
    logs = vector(logs, "logs", ascending=True, minimum_length=2)
    finer = np.interp(np.arange(2 * logs.size - 1) / 2, np.arange(logs.size), logs)
    return coordinate_search(cost, finer, frozen=np.arange(finer.size) % 2 == 0, sweeps=sweeps)
