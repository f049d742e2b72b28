"""How many steps a cap on their length asks for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["MinimumSteps", "counted_steps"]

_MANY = 100_000  # steps that are not counted one by one


class MinimumSteps(NamedTuple):
    """Steps that the positivity cap asks for: of a real grid, and as a density in the program."""

    grid: float
    density: float


def counted_steps(smallest: float, positivity: float, sigma: float, stop: float) -> MinimumSteps:
    """Steps sigma' = sigma - (smallest + sigma^2) / (positivity sigma) down to `stop`; see `Sampler.minimum_steps`."""
    if positivity == 0.0:
        return MinimumSteps(0.0, 0.0)
    ratio = (smallest + sigma**2) / (smallest + stop**2)
    density = 0.5 * positivity * float(np.log(ratio))
    if density > _MANY:
        return MinimumSteps(density, density)
    full = 0
    while True:
        step = (smallest + sigma**2) / (positivity * sigma)
        if sigma - step <= stop:
            return MinimumSteps(full + (sigma - stop) / step, density)
        sigma, full = sigma - step, full + 1
