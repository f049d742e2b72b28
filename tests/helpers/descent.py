"""Descents from many random starts, for tests of programs with one budget."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize


def descent(error, cost, budget, dimension, *, starts=20, seed=0, low=None):
    """Smallest error found by quasi-Newton from random starts, designs scaled onto the budget."""
    rng = np.random.default_rng(seed)
    least = np.zeros(dimension) if low is None else low
    room = budget - cost(least)

    def design(z):
        raw = np.exp(np.clip(z, -40, 40))
        return least + raw * room / cost(raw)

    found = [
        minimize(lambda z: error(design(z)), rng.normal(0, 2, dimension), method="BFGS", options={"gtol": 1e-13}).fun
        for _ in range(starts)
    ]
    return min(found)
