"""How the best stopping point scales with the training noise: a fit to solved plans, beside the laws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from ..basics.checks import Array, integer, number, shown, takes, vector
from ..models.gaussian import GaussianModel
from ..training.optimisers import ConstantStepSGD
from .question import Study
from .stopping_points import sweep

__all__ = ["STOPPING_LAWS", "StoppingLaw", "stopping_exponent"]

# docs/theory.md section 10: exponents of sigma_r in the learning rate, by case
STOPPING_LAWS: Mapping[str, float] = {
    "denoise, steps shorter than the correlation length": 1 / 2,
    "bounded floor, constant steps, smallest eigenvalue > 0": 1 / 3,
}

_EDGE = 0.01  # of the search's extent in log sigma, within which an optimum is at its end


@dataclass(frozen=True, eq=False)
class StoppingLaw:
    """sigma_r ~ rate^exponent, fitted to the certified optima.

    Attributes:
        learning_rates: (N,) rates tau.
        stopping_sigmas: (N,) best stopping points.
        exponent: least-squares slope of log sigma_r in log tau.
        spread: largest deviation of log sigma_r from the fitted line.
        laws: exponents of the limiting cases of docs/theory.md section 10.
    """

    learning_rates: Array
    stopping_sigmas: Array
    exponent: float
    spread: float
    laws: Mapping[str, float]

    def __str__(self) -> str:
        lines = [f"sigma_r ~ rate^{self.exponent:.3f} (largest deviation {100 * self.spread:.1f} %)"]
        return "\n".join(lines + [f"  {value:.3f}  {case}" for case, value in self.laws.items()])


@takes(model=GaussianModel)
def stopping_exponent(
    model: GaussianModel,
    learning_rates: ArrayLike,
    *,
    steps: float,
    search: tuple[float, float],
    points: int = 16,
    levels: int = 100,
) -> StoppingLaw:
    """Exponent of the best stopping point in the learning rate of constant-step training.

    For each rate the sampler's program (discretisation, floor and truncation; section 7) is solved at every
    stopping point of the search, and the best one is refined.

    Args:
        model: GaussianModel whose training is ConstantStepSGD.
        learning_rates: (N,) ascending rates, N >= 2.
        steps: sampler steps; many, so that the floor and not the steps decides.
        search: range of stopping points.
        points, levels: stopping points of the first sweep, and noise levels.

    Raises:
        ValueError: training without a learning rate, fewer than two rates, or a best stopping point at an end of the
            search, of which no exponent follows.

    >>> import codesign_opt as co
    >>> model = co.GaussianModel(co.Spectrum.from_eigenvalues([0.25]), co.EDM(1e-4, 5.0), start="marginal",
    ...                          training=co.ConstantStepSGD(1e-3, 1, parameterization="x0"))
    >>> law = stopping_exponent(model, [1e-5, 1e-4, 1e-3], steps=4000, search=(3e-4, 0.3), levels=60)
    >>> abs(law.exponent - 1 / 2) < 0.05
    True
    """
    points = integer(points, "points", minimum=3, maximum=10_000)
    if not isinstance(model.training, ConstantStepSGD):
        raise ValueError(
            f"stopping_exponent: training is {shown(model.training)}; only ConstantStepSGD has a learning rate to vary."
        )
    rates = vector(learning_rates, "learning_rates", minimum_length=2, positive=True, ascending=True)
    low, high = (float(x) for x in vector(search, "search", length=2, positive=True, ascending=True))
    count = number(steps, "steps", positive=True)
    stops = []
    for rate in rates:
        study = Study(
            replace(model, training=replace(model.training, learning_rate=float(rate))),
            None, None, count, None, (), (), levels, 1e-6,
        )  # fmt: skip
        found = sweep(study, low, high, points, False)
        best = min(found, key=lambda stop: stop.error).sigma
        edge = next((end for end in (low, high) if abs(np.log(best / end)) < _EDGE * np.log(high / low)), None)
        if edge is not None:
            raise ValueError(
                f"stopping_exponent: at rate {rate:g} the best stopping point is the search's end, sigma {edge:g}; "
                "widen the search, or no interior optimum exists (docs/theory.md section 10)."
            )
        stops.append(best)
    logs, values = np.log(rates), np.log(stops)
    slope, offset = np.polyfit(logs, values, 1)
    spread = float(np.max(np.abs(values - slope * logs - offset)))
    return StoppingLaw(rates, np.array(stops), float(slope), spread, STOPPING_LAWS)
