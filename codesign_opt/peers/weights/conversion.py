"""Loss weights and sampling densities turned into each other, with the variance that each form costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...basics.checks import Array, noise_level, takes, vector
from ...basics.user_code import answer
from ...ingredients.densities import SigmaDensity
from ...ingredients.levels import Levels
from ..densities.of_time import OnLevels

__all__ = ["Reweighted", "reweighted", "weight_as_density"]

_BINS = 2_000


@dataclass(frozen=True, eq=False)
class Reweighted:
    """A training objective stated with another sampling density.

    Attributes:
        density: where examples are drawn.
        weight: function of sigma that multiplies their loss; density x weight is what it was.
        variance: second moment of an example's part in the loss over what it was: 2 asks for twice the examples to
            know the same mean as well. infinite where the density misses levels that count.
    """

    density: SigmaDensity
    weight: Callable[[Any], Any]
    variance: float


@takes(density=SigmaDensity, other=SigmaDensity)
def reweighted(
    density: SigmaDensity,
    other: SigmaDensity,
    weight: Callable[[Array], Array] = np.ones_like,
    *,
    second_moment: Callable[[Array], Array] = np.ones_like,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> Reweighted:
    """The objective E_density[weight loss] with noise levels drawn from another density (docs/theory.md section 5.8).

    The weight becomes weight p / q, so that every mean stays. The second moment int p w^2 G becomes int p^2 w^2 G / q,
    with G that of the unweighted loss (or of its gradient) at a noise level; it is least at q ~ p w sqrt(G).

    Args:
        density, other: p, where training draws now, and q.
        weight: w, function of sigma; 1 unless given (a `Weighting` will do).
        second_moment: G, function of sigma; even unless given, which a loss normalised at every level has (EDM's F).
        sigma_min, sigma_max: range that is compared.

    >>> from codesign_opt import LogNormal
    >>> found = reweighted(LogNormal(0.0, 1.0), LogNormal(0.0, 2.0))
    >>> round(found.weight(1.0), 6), round(found.variance, 4)
    (2.0, 1.5119)
    """
    levels = Levels.log_uniform(sigma_min, sigma_max, _BINS)
    p, q = density.mass(levels.edges), other.mass(levels.edges)
    w = vector(
        answer(weight, levels.sigma, "reweighted.weight"), "reweighted.weight(sigma)", length=p.size, nonnegative=True
    )
    moments = answer(second_moment, levels.sigma, "reweighted.second_moment")
    g = vector(moments, "reweighted.second_moment(sigma)", length=p.size, nonnegative=True)
    part = p * w**2 * g
    if not part.sum() > 0:
        raise ValueError(f"reweighted: the weight is 0 wherever {density!r} draws from {sigma_min:g} to {sigma_max:g}.")
    with np.errstate(divide="ignore", invalid="ignore"):
        after = float(np.where(part > 0, part * p / q, 0.0).sum())

    def of(sigma: Any) -> Any:
        at = np.atleast_1d(np.asarray(sigma, dtype=np.float64))
        found = np.asarray(weight(at)) * density.per_log_sigma(at) / other.per_log_sigma(at)
        return float(found[0]) if np.ndim(sigma) == 0 else found

    return Reweighted(other, of, after / float(part.sum()))


@takes(density=SigmaDensity)
def weight_as_density(
    density: SigmaDensity,
    weight: Callable[[Array], Array],
    *,
    second_moment: Callable[[Array], Array] = np.ones_like,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> Reweighted:
    """A loss weight moved into the sampling density: q ~ p w, and the loss without a weight but for one factor.

    Args:
        density, weight, second_moment, sigma_min, sigma_max: as in `reweighted`; q lies within the range.

    >>> from codesign_opt import LogNormal
    >>> normal = LogNormal(0.0, 1.0)  # e^x N(0, 1) is N(1, 1) times sqrt(e)
    >>> moved = weight_as_density(normal, lambda sigma: sigma, sigma_max=1e4)
    >>> moved.density.quantile(np.array([0.5])).round(2).tolist(), round(moved.variance, 3)
    ([2.72], 0.368)
    """
    low, high = noise_level(sigma_min, "sigma_min"), noise_level(sigma_max, "sigma_max")
    levels = Levels.log_uniform(low, high, _BINS)
    w = vector(
        answer(weight, levels.sigma, "weight_as_density.weight"),
        "weight_as_density.weight(sigma)",
        length=_BINS,
        nonnegative=True,
    )
    other = OnLevels(levels, density.mass(levels.edges) * w)
    return reweighted(density, other, weight, second_moment=second_moment, sigma_min=low, sigma_max=high)
