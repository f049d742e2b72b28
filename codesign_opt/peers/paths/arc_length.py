"""Noise levels at equal increments of a length, the common last step of schedules that come from a density."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator

from ...basics.checks import AT_ONCE, Array, integer, vector

__all__ = ["accumulated", "equal_increments"]


def accumulated(levels: Array, density: Array) -> Array:
    """(L,) integral of a density over ascending noise levels from the first, by the trapezoidal rule in sigma."""
    return np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(levels))])


def equal_increments(levels: Array, length: Array, count: int) -> Array:
    """(count,) descending noise levels between which an accumulated length has equal increments.

    The inverse of the length is interpolated by a monotone cubic (Fritsch and Carlson); stretches without length get
    no node. The ends are those of `levels`.

    Args:
        levels: (L,) ascending noise levels, data units.
        length: (L,) nondecreasing, from 0.
        count: number of nodes, at least 2.

    >>> equal_increments(np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.5, 1.0]), 3).round(12).tolist()
    [3.0, 2.0, 1.0]
    """
    levels = vector(levels, "levels", ascending=True, minimum_length=2)
    length = vector(length, "length", length=levels.size)
    if np.any(np.diff(length) < 0):
        i = int(np.argmax(np.diff(length) < 0))
        raise ValueError(f"length falls from {length[i]:g} to {length[i + 1]:g} at index {i}; it accumulates.")
    count = integer(count, "count", minimum=2, maximum=AT_ONCE)
    keep = np.concatenate([[True], np.diff(length) > 0])
    if np.count_nonzero(keep) < 2:
        raise ValueError("equal_increments: the length is 0 over the whole range, so that it places no node.")
    inverse = PchipInterpolator(length[keep], levels[keep])
    nodes = np.asarray(inverse(np.linspace(float(length[-1]), 0.0, count)), dtype=np.float64)
    nodes[0], nodes[-1] = levels[-1], levels[0]
    return nodes
