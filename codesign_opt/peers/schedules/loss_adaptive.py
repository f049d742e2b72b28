"""Loss-adaptive schedules: the noise levels at which a known risk of the denoiser leaves the least path divergence.

With gamma = 1/sigma^2 and the risk l(gamma) of the denoiser, a sampler that freezes the denoiser over each step
(DDIM with eta = 1) has a path divergence of (1/2) sum_k (gamma_(k+1) - gamma_k) l(gamma_k) minus a constant
("Entropy-based dimension-free convergence and loss-adaptive schedules", 2026, proposition 4): the schedule is the
shortest path for these interval costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ...basics.checks import Array, Indices, integer, number, shown, vector
from ...basics.user_code import answer
from ...models.evidence import Evidence
from ..paths.arc_length import equal_increments
from ..paths.interval_cost import monotone, shortest_path_of_lines
from ..paths.smooth_path import beam_path, smooth_path
from .base import Schedule

__all__ = ["LossAdaptive", "LossAdaptiveLimit", "SaturatingSNR"]

_REACH = 1.5  # the risk may end this factor inside the range; a flat curve over more would draw the nodes to its end
_MOST_CANDIDATES = 1_000_000
_PAIRS = 400  # candidates up to which the penalty is solved exactly; the exact program takes K N^3


@dataclass(frozen=True)
class SaturatingSNR:
    """Axis on which steps are measured, g(gamma) = gamma / (1 + beta gamma) = 1 / (sigma^2 + beta).

    The signal-to-noise ratio after adding noise of variance beta; beta = 0 is the ratio itself, for which the sum
    is the path divergence. The paper asks for an increasing axis that saturates, with one parameter, and its text as
    we have it does not give the formula: this form is inferred, not the paper's.

    Args:
        beta: squared data units, >= 0; noise levels below sqrt(beta) count little.

    Raises:
        ValueError: beta is negative or not finite.

    >>> SaturatingSNR(0.25)(np.array([4.0])).tolist()
    [2.0]
    """

    beta: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", number(self.beta, "SaturatingSNR.beta", nonnegative=True))

    def __call__(self, gamma: Array) -> Array:
        """Axis at signal-to-noise ratios, inverse squared data units."""
        return gamma / (1 + self.beta * gamma)


@dataclass(frozen=True)
class LossAdaptive(Schedule):
    """Shortest path for (u_(k+1) - u_k) l(gamma_k) + rho sum |h_(k+1) - h_k|^p, u an axis, h the steps of log-SNR.

    Equations (5.2) and (6.1) of the paper; the paper names the penalty in words, its square is inferred. The sum is
    divided by the area under the risk, so that rho has no unit. Without penalty the path is exact in O(K N); with
    one it is exact up to 400 candidates and a beam with windows above. A risk that grows with the signal-to-noise
    ratio is pooled first, as noise of the measurement.

    Args:
        smoothness: rho >= 0; 0 for samplers of first order.
        axis: u(gamma), increasing; SaturatingSNR() is gamma itself, the path divergence.
        candidates: noise levels to choose from, uniform in log sigma over the range (8 per node at least).
        exponent: power p >= 1 of the penalty.

    Raises:
        ValueError: a field out of its range; an axis that does not grow; from `sigmas`, a risk that is not known over
            the range.

    >>> import codesign_opt as co
    >>> gaussian = co.GaussianModel(co.Spectrum.from_eigenvalues([1.0]), terminal="rescale")
    >>> sigma = LossAdaptive(candidates=4000).sigmas(3, Evidence.of(gaussian))
    >>> bool(np.ptp(np.diff(np.log1p(sigma**-2.0))) < 0.02)  # uniform in log(1 + gamma)
    True
    """

    smoothness: float = 0.0
    axis: Callable[[Array], Array] = field(default_factory=SaturatingSNR)
    candidates: int = _PAIRS
    exponent: float = 2.0
    name: ClassVar[str] = "las"
    title: ClassVar[str] = "loss-adaptive, least path divergence"
    needs: ClassVar[tuple[str, ...]] = ("risk",)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "smoothness", number(self.smoothness, "LossAdaptive.smoothness", nonnegative=True))
        put(
            self, "candidates", integer(self.candidates, "LossAdaptive.candidates", minimum=2, maximum=_MOST_CANDIDATES)
        )
        put(self, "exponent", number(self.exponent, "LossAdaptive.exponent", positive=True))
        if self.exponent < 1:
            raise ValueError(f"LossAdaptive.exponent is {self.exponent:g}; it must be >= 1.")
        _check_axis(self.axis, "LossAdaptive.axis")

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        sigma, u, risk = _table(evidence, self.axis, max(self.candidates, 8 * count))
        if count == 1:
            return sigma[:1]
        return evidence.between(sigma[self._path(sigma, u, risk, count - 1)])

    def _path(self, sigma: Array, u: Array, risk: Array, intervals: int) -> Indices:
        if self.smoothness == 0:
            return shortest_path_of_lines(u, risk, intervals)
        area = float(np.sum(np.diff(u) * 0.5 * (risk[1:] + risk[:-1])))
        unit = risk / area if area > 0 else risk
        places = -2 * np.log(sigma)
        weight, power = self.smoothness, self.exponent
        if sigma.size <= _PAIRS:
            return smooth_path((u - u[:, None]) * unit[:, None], places, intervals, weight=weight, exponent=power)
        return beam_path(lambda i, j: (u[j] - u[i]) * unit[i], places, intervals, weight=weight, exponent=power)


@dataclass(frozen=True)
class LossAdaptiveLimit(Schedule):
    """Equal increments of the integral of sqrt(-dl/du) du: the loss-adaptive schedule at many steps.

    The sum exceeds its integral by Lambda^2 / (2 K) to leading order, Lambda being the whole integral
    (derived here; tests/test_peers_las.py holds it). For one Gaussian eigenvalue and u = gamma it is the exact
    schedule at every K.

    Args:
        axis: u(gamma), increasing; SaturatingSNR() is gamma itself.
        candidates: noise levels of the integral.

    Raises:
        ValueError: a field out of its range; an axis that does not grow; a risk that is constant.

    >>> import codesign_opt as co
    >>> gaussian = co.GaussianModel(co.Spectrum.from_eigenvalues([1.0]), terminal="rescale")
    >>> sigma = LossAdaptiveLimit().sigmas(3, Evidence.of(gaussian))
    >>> np.diff(np.log1p(sigma**-2.0)).round(2).tolist()
    [4.14, 4.14, 4.14]
    """

    axis: Callable[[Array], Array] = field(default_factory=SaturatingSNR)
    candidates: int = 2000
    name: ClassVar[str] = "las_limit"
    title: ClassVar[str] = "loss-adaptive, limit of many steps"
    needs: ClassVar[tuple[str, ...]] = ("risk",)

    def __post_init__(self) -> None:
        candidates = integer(self.candidates, "LossAdaptiveLimit.candidates", minimum=2, maximum=_MOST_CANDIDATES)
        object.__setattr__(self, "candidates", candidates)
        _check_axis(self.axis, "LossAdaptiveLimit.axis")

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        if count == 1:
            return np.array([evidence.sigma_max])
        sigma, u, risk = _table(evidence, self.axis, self.candidates)
        lengths = np.sqrt(-np.diff(risk) * np.diff(u))[::-1]
        done = np.concatenate([[0.0], np.cumsum(lengths)])
        return evidence.between(np.exp(equal_increments(np.log(sigma[::-1]), done, count)))


def _table(evidence: Evidence, axis: Callable[[Array], Array], count: int) -> tuple[Array, Array, Array]:
    """Descending candidates, the axis there, and the risk made monotone."""
    assert evidence.risk is not None  # held by `needs`
    known = evidence.risk.sigma
    if evidence.sigma_min * _REACH < known[0] or evidence.sigma_max > known[-1] * _REACH:
        raise ValueError(
            f"Evidence.risk is known from {known[0]:g} to {known[-1]:g}, but the range is from {evidence.sigma_min:g} "
            f"to {evidence.sigma_max:g}; measure it there, or guess it with `extended_risk`."
        )
    sigma = evidence.fine(count)[::-1]
    u = vector(
        answer(axis, sigma**-2.0, "axis", what="gamma"),
        "axis(gamma)",
        length=sigma.size,
        ascending=True,
        hint="The axis must grow.",
    )
    return sigma, u, monotone(evidence.risk(sigma))


def _check_axis(axis: Callable[[Array], Array], name: str) -> None:
    if not callable(axis):
        raise ValueError(f"{name} is {shown(axis)}; a function of the signal-to-noise ratio is needed.")
