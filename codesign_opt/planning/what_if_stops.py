"""The best stopping points of many settings: swept at some of them, interpolated between."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from scipy.interpolate import RegularGridInterpolator

from ..basics.checks import Array, Indices

__all__ = ["best_stops"]

Errors = Callable[[Array, Array], Array | None]

_ANCHORS = 40  # settings whose stopping points are swept
_POINTS, _NEAR = 8, 5  # of the sweep over the range, and of a second one around its best


def best_stops(
    errors: Errors, own: Array, axes: tuple[Array, Array, Array], between: tuple[float, float]
) -> Array | None:
    """(1 + N,) stopping points of the least error, of `own` first; None where errors are not known in a batch.

    Log sigma of the best stop is smooth in log budget, in log images and in one over the most steps: it is found at no
    more than 40 settings, to a few hundredths, and interpolated. The error is flat there.

    Args:
        errors: of (M, 3) settings at (M,) stopping points, inf where there is none.
        own: (3,) a setting beside them.
        axes: settings along each axis, whose product are the N.
        between: range of stopping points; one point twice where it is given.
    """
    low, high = between
    chosen = _chosen([axis.size for axis in axes])
    count = int(np.prod([axis.size for axis in axes]))
    if low == high:
        return np.full(1 + count, low)
    anchors = list(product(*(axis[at] for axis, at in zip(axes, chosen, strict=True))))
    found = _swept(errors, np.array([own, *anchors]), low, high)
    if found is None:
        return None
    places = [_place(axis, kind) for kind, axis in enumerate(axes)]
    logs = np.log(found[1:]).reshape([at.size for at in chosen])
    return np.append(found[0], np.exp(_between(logs, places, chosen))).clip(low, high)


def _chosen(sizes: list[int]) -> list[Indices]:
    """Indices along each axis, so few that their product is at most `_ANCHORS`; ends included."""
    taken = list(sizes)
    while np.prod(taken) > _ANCHORS:
        taken[int(np.argmax(taken))] -= 1
    return [np.unique(np.round(np.linspace(0, size - 1, n)).astype(np.int64)) for size, n in zip(sizes, taken, strict=True)]


def _place(axis: Array, kind: int) -> Array:
    """Coordinates in which the best stop is nearly linear: 1 / steps, logarithms of the others."""
    if kind == 1:
        return -1.0 / axis
    return np.zeros(1) if np.isnan(axis).any() else np.log(axis)


def _between(logs: Array, places: list[Array], chosen: list[Indices]) -> Array:
    """(N,) values on the whole product, linear between those of the chosen."""
    for axis, (place, at) in enumerate(zip(places, chosen, strict=True)):
        order = at[np.argsort(place[at], kind="stable")]
        knots, first = np.unique(place[order], return_index=True)
        rank = np.searchsorted(at, order[first])
        values = np.moveaxis(logs, axis, 0)[rank]
        if knots.size == 1:
            spread = np.repeat(values, place.size, axis=0)
        else:
            spread = RegularGridInterpolator((knots,), values)(np.clip(place, knots[0], knots[-1])[:, None])
        logs = np.moveaxis(np.asarray(spread).reshape(place.size, *values.shape[1:]), 0, axis)
    return logs.ravel()


def _swept(errors: Errors, asked: Array, low: float, high: float) -> Array | None:
    """(M,) best stopping point of each setting: a sweep, a second one around its best, and a parabola."""
    grid = np.broadcast_to(np.linspace(np.log(low), np.log(high), _POINTS), (len(asked), _POINTS))
    gap = (np.log(high) - np.log(low)) / (_POINTS - 1)
    for narrow in (False, True):
        found = errors(np.repeat(asked, grid.shape[1], axis=0), np.exp(grid).clip(low, high).ravel())
        if found is None:
            return None
        values = found.reshape(grid.shape)
        best = values.argmin(axis=1)
        at = np.take_along_axis(grid, best[:, None], axis=1)
        if not narrow:
            offsets = np.linspace(-gap, gap, _NEAR)
            grid = np.clip(at + offsets, np.log(low), np.log(high))
    return np.exp(np.clip(_vertex(grid, values, best), np.log(low), np.log(high))).clip(low, high)


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
