"""The best stopping points of many settings: swept at some of them, interpolated between."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.interpolate import RegularGridInterpolator

from ..basics.checks import Array, Indices

__all__ = ["best_stops"]

Errors = Callable[[Array, Array], Array | None]

_DIRECT = 36  # settings of which each is swept; of more, this many on a grid
_POINTS, _NEAR = 8, 5  # of the sweep over the range, and of a second one around its best
_CUBIC = 4  # knots along an axis from which on cubic pieces go through them


def best_stops(errors: Errors, settings: Array, between: tuple[float, float]) -> Array | None:
    """(N,) stopping points of the least error; None where errors are not known in a batch.

    Where the same limits bind, log sigma of the best stop is smooth in the logarithms of a setting: it is swept on a
    grid of settings, to a few hundredths, and interpolated. The error is flat there.

    Args:
        errors: of (M, 2) settings at (M,) stopping points, inf where there is none.
        settings: (N, 2) positive coordinates, between which limits do not change.
        between: range of stopping points; one point twice where it is given.
    """
    low, high = between
    if low == high or not len(settings):
        return np.full(len(settings), low)
    if len(settings) <= _DIRECT:
        return _swept(errors, settings, low, high)
    logs = np.log(settings)
    knots = [np.linspace(logs[:, axis].min(), logs[:, axis].max(), _knots(logs, axis)) for axis in (0, 1)]
    grid = np.stack(np.meshgrid(*knots, indexing="ij"), axis=-1)
    found = _swept(errors, np.exp(grid).reshape(-1, 2), low, high)
    if found is None:
        return None
    values = np.log(found).reshape(grid.shape[:2])
    wide = [axis for axis in (0, 1) if knots[axis].size > 1]
    method = "cubic" if all(knots[axis].size >= _CUBIC for axis in wide) else "linear"
    pieces = RegularGridInterpolator(
        [knots[axis] for axis in wide], values.reshape([knots[a].size for a in wide]), method
    )
    inside = np.stack([np.clip(logs[:, axis], knots[axis][0], knots[axis][-1]) for axis in wide], axis=1)
    return np.exp(np.clip(pieces(inside), np.log(low), np.log(high))).clip(low, high)


def _knots(logs: Array, axis: int) -> int:
    """How many knots an axis gets: one where it does not vary, all where the other does not."""
    spread = np.ptp(logs, axis=0) > 1e-12
    if not spread[axis]:
        return 1
    return round(_DIRECT**0.5) if spread.all() else min(_DIRECT, 16)


def _swept(errors: Errors, settings: Array, low: float, high: float) -> Array | None:
    """(M,) best stopping point of each setting: a sweep, a second one around its best, and a parabola."""
    grid = np.broadcast_to(np.linspace(np.log(low), np.log(high), _POINTS), (len(settings), _POINTS))
    gap = (np.log(high) - np.log(low)) / (_POINTS - 1)
    for last in (False, True):
        found = errors(np.repeat(settings, grid.shape[1], axis=0), np.exp(grid).clip(low, high).ravel())
        if found is None:
            return None
        values = found.reshape(grid.shape)
        best = values.argmin(axis=1)
        if not last:
            middle = np.take_along_axis(grid, best[:, None], axis=1)
            middle = np.clip(middle, np.log(low) + gap, np.log(high) - gap)
            grid = middle + np.linspace(-gap, gap, _NEAR)
    return np.exp(_vertex(grid, values, best)).clip(low, high)


def _vertex(grid: Array, values: Array, best: Indices) -> Array:
    """(M,) vertex of the parabola through the least of each row and its neighbours; the least itself at an end."""
    rows, inner = np.arange(len(best)), np.clip(best, 1, grid.shape[1] - 2)
    x = np.stack([grid[rows, inner + k] for k in (-1, 0, 1)])
    y = np.stack([values[rows, inner + k] for k in (-1, 0, 1)])
    with np.errstate(all="ignore"):
        left, right = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
        curve = (right - left) / (x[2] - x[0])
        vertex = 0.5 * (x[0] + x[1]) - left / (2 * curve)
    good = np.isfinite(vertex) & (curve > 0) & (best == inner)
    return np.where(good, np.clip(vertex, x[0], x[2]), grid[rows, best])
