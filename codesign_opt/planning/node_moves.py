"""Grids from other grids, with nodes added and taken where the error says (docs/theory.md section 7.8).

A descent keeps the order of the nodes and crosses no ridge; a node that is wasted at one end of the levels never gets
to where it is missed. Taking it away and adding one elsewhere is a change of two numbers, of which all are tried (or
some, of long grids).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..basics.checks import Array

__all__ = ["Errors", "between", "extended", "moved_nodes", "resized", "stretched", "with_steps"]

Places = NDArray[np.intp]
"""(G,) which nodes, or which steps."""

Errors = Callable[[Array], Array]
"""(G,) what grids (G, K+1) leave."""

_ENDS = 2  # steps at each end that a grid of a few steps more keeps
_TAKEN = 3  # nodes whose loss costs least, each of which is taken away in turn
_PLACES = 128  # nodes of a long grid of which one is tried, since one is as good as its neighbours


def with_steps(sigmas: Array, steps: int, errors: Errors) -> Array:
    """A grid (K+1,) with nodes added or taken away one by one, each where the grid then leaves least.

    Args:
        sigmas: descending grid, with or without a last zero.
        steps: of the grid that is wanted; at least as many as the ends alone need.
        errors: what grids leave.
    """
    while sigmas.size - 1 != steps:
        tried = _longer(sigmas, _steps_of(sigmas)) if sigmas.size - 1 < steps else _shorter(sigmas, _inner(sigmas))
        if not tried.size:
            return sigmas
        sigmas = tried[int(np.argmin(_finite(errors(tried))))]
    return sigmas


def moved_nodes(sigmas: Array, errors: Errors) -> list[Array]:
    """Grids of as many steps (K+1,) with one node taken away and one added elsewhere, the least error first."""
    nodes = _some(_inner(sigmas))
    if not nodes.size:
        return []
    shorter = _shorter(sigmas, nodes)
    order = np.argsort(_finite(errors(shorter)))[:_TAKEN]
    found: list[tuple[float, Array]] = []
    for taken in order:
        halved = _some(_steps_of(shorter[taken]))
        longer = _longer(shorter[taken], halved[halved != nodes[taken] - 1])  # not back into the step that it left
        if longer.size:
            left = _finite(errors(longer))
            found.append((float(left.min()), longer[int(np.argmin(left))]))
    return [grid for _, grid in sorted(found, key=lambda each: each[0])]


def _inner(sigmas: Array) -> Places:
    """(P-2,) the positive nodes between the ends."""
    return np.arange(1, int((sigmas > 0).sum()) - 1)


def _steps_of(sigmas: Array) -> Places:
    """(P-1,) the steps between positive nodes."""
    return np.arange(int((sigmas > 0).sum()) - 1)


def _some(places: Places) -> Places:
    """So many of them at most, evenly."""
    return places[:: -(-places.size // _PLACES)] if places.size else places


def _shorter(sigmas: Array, nodes: Places) -> Array:
    """(G, K) the grids without one of the nodes."""
    places = np.arange(sigmas.size - 1)
    return sigmas[places + (places >= nodes[:, None])]


def _longer(sigmas: Array, halved: Places) -> Array:
    """(G, K+2) the grids with one of the steps halved in log sigma."""
    places = np.arange(sigmas.size + 1)
    grids = sigmas[places - (places > halved[:, None] + 1)]
    grids[np.arange(halved.size), halved + 1] = np.sqrt(sigmas[halved] * sigmas[halved + 1])
    return grids


def _finite(errors: Array) -> Array:
    return np.where(np.isfinite(errors), errors, np.inf)


def between(start: Array, end: Array, share: float) -> Array:
    """The grid a share of the way from one to another, in log sigma."""
    if share >= 1.0:
        return end
    positive = start > 0
    grid = start.copy()
    grid[positive] = start[positive] ** (1 - share) * end[positive] ** share
    grid[0] = start[0]
    return grid


def resized(sigmas: Array, steps: int) -> Array:
    """A grid of another number of steps with the same density of nodes."""
    tail = int((sigmas <= 0).sum())
    return _interpolated(sigmas, np.linspace(0.0, sigmas.size - tail - 1.0, steps + 1 - tail))


def stretched(sigmas: Array, steps: int) -> Array:
    """A grid of a few steps more: of the same density, but with the first and last steps as they are.

    Where a sampler starts and stops, the best steps change with their place and hardly with the number of all.
    """
    tail = int((sigmas <= 0).sum())
    before, count = sigmas.size - tail - 1, steps - tail
    if before <= 2 * _ENDS + 1:
        return resized(sigmas, steps)
    place = np.arange(count + 1.0)
    return _interpolated(sigmas, place - (count - before) * np.clip((place - _ENDS) / (count - 2 * _ENDS), 0.0, 1.0))


def extended(sigmas: Array, lowest: float) -> list[Array]:
    """The grid with one step more below its last positive node, to half of it; none where that is below the lowest."""
    positive = sigmas[sigmas > 0]
    below = 0.5 * positive[-1]
    return [] if below < lowest else [np.insert(sigmas, positive.size, below)]


def _interpolated(sigmas: Array, at: Array) -> Array:
    """The grid with nodes at fractional places among those of another."""
    positive = sigmas[sigmas > 0]
    tail = sigmas.size - positive.size
    logs = np.interp(at, np.arange(positive.size), np.log(positive))
    nodes = np.exp(logs)
    nodes[0], nodes[-1] = positive[0], positive[-1]
    return np.append(nodes, 0.0) if tail else nodes
