"""The range of timesteps, drawn more often than the rest or alone, that comes nearest to a density."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...basics.checks import Array
from ...ingredients.densities import SigmaDensity, least
from ...peers.densities.of_timesteps import noise_table, timesteps

__all__ = ["biased", "closest_bias", "closest_range"]

_COARSE, _FINE = 10, (20, 4, 1)


def biased(first: int, last: int, factor: float, count: int) -> Array:
    """(T,) relative probabilities of timesteps, `factor` from first to last - 1 and 1 elsewhere."""
    at = np.arange(count)
    return np.where((at >= first) & (at < last), factor, 1.0)


def closest_range(density: SigmaDensity, table: Any) -> tuple[int, int]:
    """First timestep and the end of the range of uniform draws with the least `density.loss_of`.

    On a grid of tenths of the table, then by finer and finer steps around the best.
    """
    found = noise_table(table)
    count = found.sigmas.size

    def loss(first: int, last: int) -> float:
        at = np.arange(count)
        return density.loss_of(timesteps(found, ((at >= first) & (at < last)).astype(np.float64)))

    tenth = count // _COARSE
    best = min((loss(a, b), a, b) for a in range(0, count, tenth) for b in range(a + tenth, count + 1, tenth))
    for step in _FINE:
        moved = True
        while moved:
            around = [(best[1] + i * step, best[2] + j * step) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            tried = [(loss(a, b), a, b) for a, b in around if 0 <= a < b <= count]
            moved, best = min(tried) < best, min(best, *tried)
    return best[1], best[2]


def closest_bias(density: SigmaDensity, table: Any) -> tuple[int, int, float]:
    """First timestep, end and factor of the biased range with the least `density.loss_of`."""
    found = noise_table(table)
    count = found.sigmas.size
    tenth = count // _COARSE

    def whole(parameters: Array) -> tuple[int, int, float]:
        low, high = np.clip(np.round(parameters[:2]), 0, count)
        first = int(min(low, count - 1))
        return first, int(max(high, first + 1)), float(np.exp(np.clip(parameters[2], -12, 12)))

    def loss(parameters: Array) -> float:
        return float(np.log1p(density.loss_of(timesteps(found, biased(*whole(parameters), count)))))

    starts = [
        np.array([a, b, factor], dtype=np.float64)
        for a in range(0, count, 2 * tenth)
        for b in range(a + 2 * tenth, count + 1, 2 * tenth)
        for factor in (1.0, 3.0)
    ]
    return whole(least(loss, min(starts, key=loss)))
