"""Score-optimal schedules: equal steps of the work that a corrector does between neighbouring levels.

docs/theory.md section 11.2; Williams et al. 2024 (2412.07877), whose predictor estimator could not be read: the
predictor's cost here is derived from their definition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...basics.checks import AT_ONCE, Array, array, choice, integer, number, scale_of, takes, vector
from ...ingredients.spectrum import Spectrum
from ...models.evidence import VELOCITIES, Evidence
from ..paths.arc_length import equal_increments
from .base import Schedule

__all__ = ["ScoreOptimal", "corrector_cost", "equal_cost_levels", "gaussian_length", "predictor_cost"]

_FAR = 1e60  # of noise levels
_STEEPEST = 20.0  # exponent of a step's length


@dataclass(frozen=True)
class ScoreOptimal(Schedule):
    """Equal increments of int delta(sigma)^(1/p) d sigma: every step costs the corrector the same.

    One pass: the length is accumulated on a fixed fine grid, uniform in log sigma, and inverted by a monotone cubic;
    any number of steps is read off it. Iterating on a coarse grid instead has spurious fixed points, see
    `OnlineSchedule`. delta is interpolated linearly in log delta over log sigma.

    Args:
        exponent: p where a step d sigma costs delta d sigma^p; 2 for the corrector.
        floor: costs below this share of the largest count as it.
        fine: levels of the fine grid.

    Raises:
        ValueError: Evidence.score_cost that does not cover the range, or is 0 everywhere.

    >>> import codesign_opt as co
    >>> known = Evidence.of(co.GaussianModel(co.Spectrum([0.25], [1])))
    >>> grid = ScoreOptimal().sigmas(4, known)
    >>> np.diff(gaussian_length(grid[:-1], 0.25)).round(3).tolist()
    [-3.179, -3.179, -3.179]
    """

    exponent: float = 2.0
    floor: float = 1e-12
    fine: int = 1024
    name: ClassVar[str] = "score_optimal"
    title: ClassVar[str] = "equal cost of the corrector"
    needs: ClassVar[tuple[str, ...]] = ("score_cost",)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "exponent", _power(self.exponent, "ScoreOptimal.exponent"))
        put(self, "floor", number(self.floor, "ScoreOptimal.floor", positive=True, maximum=1.0))
        put(self, "fine", integer(self.fine, "ScoreOptimal.fine", minimum=16, maximum=AT_ONCE))

    def _nodes(self, count: int, evidence: Evidence) -> Array:
        known = evidence.score_cost
        assert known is not None
        levels = evidence.fine(self.fine)
        if known.sigma[0] > levels[0] * (1 + 1e-9) or known.sigma[-1] < levels[-1] * (1 - 1e-9):
            raise ValueError(
                f"score_optimal: Evidence.score_cost covers [{known.sigma[0]:g}, {known.sigma[-1]:g}], not the range "
                f"[{levels[0]:g}, {levels[-1]:g}]; measure it up to both ends."
            )
        if not np.any(known.delta > 0):
            raise ValueError("score_optimal: Evidence.score_cost is 0 everywhere, so that it places no level.")
        least = float(known.delta[known.delta > 0].min())
        delta = np.exp(np.interp(np.log(levels), np.log(known.sigma), np.log(np.maximum(known.delta, least))))
        density = delta ** (1 / self.exponent)
        costs = (0.5 * (density[1:] + density[:-1]) * np.diff(levels)) ** self.exponent
        return evidence.between(_equal_costs(levels, costs, count, self.exponent, self.floor))


def _power(value: Any, name: str) -> float:
    power = number(value, name, positive=True, maximum=_STEEPEST)
    if power < 1 / _STEEPEST:
        raise ValueError(f"{name} is {power:g}; it must lie between {1 / _STEEPEST:g} and {_STEEPEST:g}.")
    return power


def equal_cost_levels(sigmas: Any, costs: Any, count: int, *, exponent: float = 2.0, floor: float = 1e-12) -> Array:
    """Levels between which the costs measured on other levels become equal (algorithm 1 of the paper).

    Lambda_j = sum of L^(1/p) up to level j, inverted at equal increments by a monotone cubic.

    Args:
        sigmas: (N,) descending noise levels, data units.
        costs: (N-1,) cost L >= 0 of the step from each level to the next.
        count: number of levels wanted, at least 2.
        exponent: p where cost grows as the p-th power of the step.
        floor: costs below this share of the largest count as it.

    Returns:
        (count,) descending, with the same ends.

    >>> equal_cost_levels([4.0, 2.0, 1.0], [4.0, 1.0], 4).round(3).tolist()  # lengths 2 and 1
    [4.0, 3.0, 2.0, 1.0]
    """
    levels = vector(sigmas, "sigmas", minimum_length=2, positive=True, descending=True)
    cost = vector(costs, "costs", length=levels.size - 1, nonnegative=True)
    power = _power(exponent, "exponent")
    least = number(floor, "floor", positive=True, maximum=1.0)
    wanted = integer(count, "count", minimum=2, maximum=AT_ONCE)
    if not np.any(cost > 0):
        raise ValueError("costs are 0 everywhere, so that they place no level.")
    return _equal_costs(levels[::-1], cost[::-1], wanted, power, least)


@takes(spectrum=Spectrum)
def corrector_cost(sigmas: Any, spectrum: Spectrum, *, velocity: str = "receiving") -> Array:
    """Cost of the corrector from each level to the next, closed form for Gaussian data.

    v^2 E |score_{sigma'}(x) - score_sigma(x)|^2 at the same x of the law at sigma: both scores at the noisier point,
    v^2 sum_b n_b (lambda_b + sigma^2) (1/(lambda_b + sigma'^2) - 1/(lambda_b + sigma^2))^2.

    Args:
        sigmas: (N,) descending noise levels > 0, data units.
        spectrum: the data.
        velocity: v = sigma' ("receiving", as the paper) or v = sigma ("source", safe to iterate).

    Returns:
        (N-1,) no unit.

    >>> corrector_cost([1.0, 0.5], Spectrum([1.0], [1]), velocity="source").round(12).tolist()  # 2 (1/1.25 - 1/2)^2
    [0.18]
    """
    before, after, v = _steps(sigmas, velocity)
    lam, n = spectrum.eigenvalues, spectrum.counts
    earlier, later = lam + before**2, lam + after**2
    difference = (before - after) * (before + after) / (earlier * later)
    return v**2 * ((earlier * difference**2) @ n)


@takes(spectrum=Spectrum)
def predictor_cost(sigmas: Any, spectrum: Spectrum, *, velocity: str = "receiving") -> Array:
    """Cost of the corrector after an Euler step of the probability-flow ODE, closed form for Gaussian data.

    v^2 E |score_{sigma'} - score of the predicted law|^2 at the predicted points, v^2 sum_b n_b sin^4 / (v_b(sigma')
    cos^2) of the change of theta_b = arctan(sigma / sqrt(lambda_b)): of fourth order in the step.

    Arguments and errors as for `corrector_cost`.

    >>> predictor_cost([1.0, 1e-9], Spectrum([1.0], [1]), velocity="source").round(6).tolist()  # 45 degrees
    [0.5]
    """
    before, after, v = _steps(sigmas, velocity)
    lam, n = spectrum.eigenvalues, spectrum.counts
    angle = np.arctan2(before, np.sqrt(lam)) - np.arctan2(after, np.sqrt(lam))
    return v**2 * ((np.sin(angle) ** 4 / np.cos(angle) ** 2 / (lam + after**2)) @ n)


def gaussian_length(sigma: Any, eigenvalue: float) -> Array:
    """Length of the score-optimal schedule of one eigenvalue from 0 to sigma, 2 [asinh(s) - s / sqrt(1 + s^2)].

    s = sigma / sqrt(lambda); docs/theory.md section 11.2. Equal increments of it are the schedule.

    Args: sigma (...,) >= 0, data units; eigenvalue > 0, squared data units. Returns (...,), no unit.

    >>> float(gaussian_length(1.0, 1.0).round(6))
    0.348534
    """
    lam = scale_of(eigenvalue, "eigenvalue")
    at = array(sigma, "sigma")
    if at.min(initial=0.0) < 0 or at.max(initial=0.0) > _FAR:
        raise ValueError(f"sigma runs from {at.min():g} to {at.max():g}; it must lie between 0 and {_FAR:g}.")
    scaled = at / np.sqrt(lam)
    return 2 * (np.arcsinh(scaled) - scaled / np.hypot(1.0, scaled))


def _equal_costs(levels: Array, costs: Array, count: int, exponent: float, floor: float) -> Array:
    """(count,) descending levels of equal cost, from ascending levels."""
    lengths = np.maximum(costs, floor * costs.max()) ** (1 / exponent)
    return equal_increments(levels, np.concatenate([[0.0], np.cumsum(lengths)]), count)


def _steps(sigmas: Any, velocity: str) -> tuple[Array, Array, Array]:
    """(N-1, 1) levels before and after every step and (N-1,) v."""
    levels = vector(sigmas, "sigmas", minimum_length=2, positive=True, descending=True)
    choice(velocity, "velocity", VELOCITIES)
    before, after = levels[:-1], levels[1:]
    return before[:, None], after[:, None], before if velocity == "source" else after
