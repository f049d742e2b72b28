"""Evidence: what a schedule of the literature may know of the data, the denoiser and the sampler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..basics.checks import AT_ONCE, Array, choice, integer, matrix, noise_level, shown, vector
from ..ingredients.spectrum import Spectrum
from ..samplers.members import Euler, Sampler

__all__ = ["VELOCITIES", "DenoiserGaps", "Evidence", "RiskCurve", "ScoreCost", "Trajectories"]

_FINE = 512  # noise levels of the closed-form tables


@dataclass(frozen=True, eq=False)
class RiskCurve:
    """Risk of the denoiser, E |x0 - D(x0 + sigma z, sigma)|^2, summed over dimensions, at ascending noise levels.

    Between levels it is interpolated linearly in log sigma; beyond the ends it keeps the last value.

    Args:
        sigma: (L,) ascending, data units.
        risk: (L,) squared data units, >= 0.
        standard_error: (L,) or None where the curve is exact.
        floor: (L,) Bayes risk (mmse) where it is known, else None.

    >>> RiskCurve(np.array([1.0, 4.0]), np.array([0.5, 1.5]))(np.array([2.0])).round(12).tolist()
    [1.0]
    """

    sigma: Array
    risk: Array
    standard_error: Array | None = None
    floor: Array | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "sigma", vector(self.sigma, "RiskCurve.sigma", minimum_length=2, positive=True, ascending=True))
        for name in ("risk", "standard_error", "floor"):
            if getattr(self, name) is not None:
                value = vector(getattr(self, name), f"RiskCurve.{name}", length=self.sigma.size, nonnegative=True)
                put(self, name, value)

    def __call__(self, sigma: Array) -> Array:
        """Risk at noise levels."""
        return np.interp(np.log(sigma), np.log(self.sigma), self.risk)


@dataclass(frozen=True, eq=False)
class ScoreCost:
    """Incremental cost of the corrector, delta(sigma) = sigma^2 E |d score / d sigma|^2, per unit sigma squared.

    Score-optimal schedules (Williams et al. 2024): a step d sigma costs delta d sigma^2; the length of a schedule is
    the integral of sqrt(delta).

    Args:
        sigma: (L,) ascending, data units.
        delta: (L,) >= 0, 1 / squared data units.
        standard_error: (L,) of delta, or None where it is exact.

    >>> ScoreCost(np.array([1.0, 2.0]), np.array([4.0, 1.0])).sigma.tolist()
    [1.0, 2.0]
    """

    sigma: Array
    delta: Array
    standard_error: Array | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "sigma", vector(self.sigma, "ScoreCost.sigma", minimum_length=2, positive=True, ascending=True))
        put(self, "delta", vector(self.delta, "ScoreCost.delta", length=self.sigma.size, nonnegative=True))
        if self.standard_error is not None:
            error = vector(self.standard_error, "ScoreCost.standard_error", length=self.sigma.size, nonnegative=True)
            put(self, "standard_error", error)


@dataclass(frozen=True, eq=False)
class DenoiserGaps:
    """Squared change of the denoiser along the forward process, E |D(x_j, sigma_j) - D(x_i, sigma_i)|^2.

    x_i = x_j + sqrt(sigma_i^2 - sigma_j^2) z with sigma_j < sigma_i: the integrand of AYS's KLUB (Sabour et al. 2024)
    and, for the exact denoiser, mmse(sigma_i) - mmse(sigma_j).

    Args:
        sigma: (L,) ascending, data units.
        squared: (L, L) symmetric, 0 on the diagonal, squared data units summed over dimensions.

    >>> float(DenoiserGaps(np.array([1.0, 2.0]), np.array([[0.0, 0.3], [0.3, 0.0]])).squared[1, 0])
    0.3
    """

    sigma: Array
    squared: Array

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "sigma", vector(self.sigma, "DenoiserGaps.sigma", minimum_length=2, positive=True, ascending=True))
        shape = (self.sigma.size, self.sigma.size)
        squared = matrix(self.squared, "DenoiserGaps.squared", shape=shape, nonnegative=True)
        off = np.abs(squared - squared.T)
        if off.max() > 1e-9 * squared.max():
            i, j = (int(k) for k in np.unravel_index(np.argmax(off), shape))
            raise ValueError(
                f"DenoiserGaps.squared is {squared[i, j]:g} at {i, j} and {squared[j, i]:g} at {j, i}; it must be "
                "symmetric: give their mean."
            )
        put(self, "squared", squared)


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Fine solutions of the probability-flow ODE, what GITS (Chen et al. 2024) learns from.

    Args:
        sigma: (T,) descending, the teacher's noise levels.
        states: (T, N, D) rescaled states of N draws, data units.
        slopes: (T, N, D) d x / d sigma = (x - D(x, sigma)) / sigma at these states.

    >>> Trajectories(np.array([2.0, 1.0]), np.zeros((2, 1, 3)), np.zeros((2, 1, 3))).sigma.tolist()
    [2.0, 1.0]
    """

    sigma: Array
    states: Array
    slopes: Array

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "sigma", vector(self.sigma, "Trajectories.sigma", minimum_length=2, positive=True, descending=True))
        put(self, "states", matrix(self.states, "Trajectories.states", shape=(self.sigma.size, None, None)))
        put(self, "slopes", matrix(self.slopes, "Trajectories.slopes", shape=self.states.shape))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known, for schedules to read; a field that is not known is None.

    Args:
        sigma_min, sigma_max: range of noise levels, data units.
        sampler: the sampler that the grid is for.
        terminal: "denoise" (K levels and a final 0) or "rescale".
        spectrum: of the data.
        risk, score_cost, gaps, trajectories: see the classes.
        provenance: where they come from.

    Raises:
        ValueError: a field of the wrong type, or a range that is not ascending.

    >>> Evidence(sigma_min=0.002, sigma_max=80.0).risk is None
    True
    """

    sigma_min: float
    sigma_max: float
    sampler: Sampler = field(default_factory=Euler)
    terminal: str = "denoise"
    spectrum: Spectrum | None = None
    risk: RiskCurve | None = None
    score_cost: ScoreCost | None = None
    gaps: DenoiserGaps | None = None
    trajectories: Trajectories | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        low = noise_level(self.sigma_min, "Evidence.sigma_min")
        high = noise_level(self.sigma_max, "Evidence.sigma_max")
        if not low < high:
            raise ValueError(f"Evidence.sigma_min is {low:g} but sigma_max is {high:g}; it must be smaller.")
        choice(self.terminal, "Evidence.terminal", ("denoise", "rescale"))
        kinds = {"sampler": Sampler, "spectrum": Spectrum, "risk": RiskCurve, "score_cost": ScoreCost}
        for name, kind in (kinds | {"gaps": DenoiserGaps, "trajectories": Trajectories}).items():
            value = getattr(self, name)
            if not (isinstance(value, kind) or (value is None and name != "sampler")):
                raise ValueError(f"Evidence.{name} is {shown(value)}; a {kind.__name__} is needed.")

    def between(self, nodes: Array) -> Array:
        """The nodes with their ends set to sigma_max and sigma_min, so that rounding moves neither."""
        exact = np.array(nodes, dtype=np.float64)
        exact[0] = self.sigma_max
        if exact.size > 1:
            exact[-1] = self.sigma_min
        return exact

    def fine(self, count: int = _FINE) -> Array:
        """(count,) ascending noise levels, uniform in log sigma over the range."""
        count = integer(count, "count", minimum=2, maximum=AT_ONCE)
        nodes = np.geomspace(self.sigma_min, self.sigma_max, count)
        nodes[0], nodes[-1] = self.sigma_min, self.sigma_max
        return nodes

    @classmethod
    def of(cls, model: Any) -> Evidence:
        """What a model knows: everything in closed form from a GaussianModel, spectrum and range from any other.

        Raises:
            ValueError: something that is no model.
        """
        if not isinstance(model, _Knowing):
            raise ValueError(
                f"Evidence.of: model is {type(model).__name__}; give a GaussianModel or another Model "
                "(estimate.evidence measures a denoiser)."
            )
        return model.evidence()


@runtime_checkable
class _Knowing(Protocol):
    def evidence(self) -> Evidence: ...


VELOCITIES = ("source", "receiving")
