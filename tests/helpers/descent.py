"""Descents from many random starts, for tests of programs with one budget."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize


def descent(error, cost, budget, dimension, *, starts=20, seed=0, low=None):
    """Smallest error found by quasi-Newton from random starts, designs scaled onto the budget.

    All starts are followed to six digits or so, the best of them to the last.
    """
    rng = np.random.default_rng(seed)
    least = np.zeros(dimension) if low is None else low
    room = budget - cost(least)

    def design(z):
        raw = np.exp(np.clip(z, -40, 40))
        return least + raw * room / cost(raw)

    def least_from(z, accuracy):
        return minimize(lambda z: error(design(z)), z, method="BFGS", options={"gtol": accuracy})

    rough = 1e-4 * error(design(np.zeros(dimension)))
    found = [least_from(rng.normal(0, 2, dimension), rough) for _ in range(starts)]
    best = sorted(found, key=lambda result: result.fun)[: max(3, starts // 5)]
    return min(least_from(result.x, 1e-13).fun for result in best)
