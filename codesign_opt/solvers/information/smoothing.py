"""What it costs to train a smooth density in place of the few spikes that are optimal for shared parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...basics.checks import Array, number, vector
from .knapsack import capped_shares
from .shares import InformationSolution

__all__ = ["SmoothedDensity", "smoothed_loss"]


@dataclass(frozen=True, eq=False)
class SmoothedDensity:
    """A smooth density near a spiky optimum.

    Attributes:
        examples: (L,) smoothed new examples, of the same price, within the bounds.
        value: error with them.
        loss: value / lower bound of the optimum - 1; the true loss is no larger.
    """

    examples: Array
    value: float
    loss: float


def smoothed_loss(solution: InformationSolution, width: Any, *, sigma: Any) -> SmoothedDensity:
    """Certified loss of a smooth density: the optimal spikes spread by a Gaussian kernel in log sigma.

    The price of each spike is spread over the levels in proportion to the kernel times the level's width
    in log sigma, then fitted into the bounds at the same total price (docs/theory.md section 7.5).

    Args:
        solution: of `solve_information`.
        width: standard deviation of the kernel in log sigma, >= 0.
        sigma: (L,) ascending noise levels.

    Raises:
        ValueError: a width that is negative or not finite, noise levels that do not fit.

    >>> import numpy as np
    >>> from codesign_opt.solvers.information.shares import solve_information
    >>> found = solve_information(np.ones((3, 1, 1)), [[1.0]], [2.0, 1.0, 2.0], 8.0)
    >>> round(smoothed_loss(found, 0.0, sigma=[0.1, 0.2, 0.4]).loss, 6)
    0.0
    >>> 0 < smoothed_loss(found, 0.5, sigma=[0.1, 0.2, 0.4]).loss < 0.5
    True
    """
    width = number(width, "smoothed_loss.width", nonnegative=True)
    size = solution.examples.size
    place = np.log(vector(sigma, "smoothed_loss.sigma", length=size, positive=True, ascending=True))
    program = solution.program
    spikes = program.prices * (solution.examples - program.low)
    total = float(spikes.sum())
    examples = solution.examples
    if width > 0 and size > 1 and total > 0:
        bins = np.gradient(place)
        distance = (place[:, None] - place[solution.support]) / width
        kernel = np.exp(-0.5 * np.maximum(distance**2 - (distance**2).min(axis=0), 0.0)) * bins[:, None]
        spread = kernel / kernel.sum(axis=0) @ spikes[solution.support] + 1e-300
        caps = program.prices * (program.high - program.low) / total
        on = np.flatnonzero(caps > 0)
        shares = np.zeros(size)
        shares[on] = capped_shares(spread[on] / total, caps[on])
        examples = np.minimum(program.low + shares * total / program.prices, program.high)
    value = program.solve(examples).value
    loss = value / solution.lower_bound - 1 if solution.lower_bound > 0 else (0.0 if value == 0 else np.inf)
    return SmoothedDensity(examples, value, float(loss))
