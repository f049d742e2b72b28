"""Directions without end: mixes of examples and steps of levels that rows admit together, and none of them alone.

docs/theory.md section 8.4. A linear program over tangents of the rows, far out along what it found before, gives the
direction; whether it has an end is for whoever asks to evaluate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cvxpy as cp
import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from ..basics.checks import Array, Mask
from ..basics.errors import ConvexityError
from ..modeling.design import Point
from ..modeling.gradients import all_jacobians
from ..modeling.own_variables import own_variables
from .compiled import Compiled
from .rows import Row

__all__ = ["along", "is_affine", "mixed_rays"]

_FAR = (0.0, 1e6, 1e6, 1e6, 1e12, 1e12)  # multiples of a direction at which tangents are taken
_NOTHING = 1e-9  # share of the largest that counts as none
_HARDLY = 1e-6  # change of a row along a direction, against its largest slope, that may be the solver's tolerance
_ROUNDING = 1e-14  # of the summands of a slope along a direction
_RATHER = 1e-3  # what more of everything counts beside a fall of the objective


def along(point: Point, ray: Array, factor: float) -> Point:
    """The point moved by a multiple of a ray (2L,) of new examples and steps."""
    examples, steps = np.split(factor * ray, 2)
    return Point(point.new_examples + examples, point.spent, point.steps + steps)


def is_affine(row: Row) -> bool:
    """Whether one slope says all of the row: what cancels in it cancels, which its value far out does not show."""
    return row.budget is not None or bool(row.stated.is_affine())


def mixed_rays(compiled: Compiled, point: Point, units: Array, decided: Mask) -> Iterator[Array]:
    """(2L,) directions of new examples and steps along which no tangent of a row rises and none of the objective.

    Of affine rows none rises by more than rounding. Tangents anywhere bound the directions in which a convex function
    does not rise without end: those taken along one direction stay when the next is looked for.

    Args:
        units: (2L,) amounts of order one.
        decided: (2L,) what may move.
    """
    ray = np.where(decided, units, 0.0)
    cuts = _Cuts([np.zeros((0, ray.size))], [np.zeros((0, ray.size))])
    for far in _FAR:
        slope = _more_tangents(cuts, compiled, along(point, ray, far), units)
        found = None if slope is None else _falling(cuts, slope, decided)
        if found is None:
            return
        found = found * units
        fresh = far == 0.0 or not np.allclose(found, ray, rtol=1e-9, atol=0.0)
        if fresh and not any(is_affine(row) and _rises(compiled, row, found, point) for row in compiled.rows):
            yield found
        ray = found


class _Cuts(NamedTuple):
    """Rows of slopes that must not be positive along a direction, and of those that must be 0."""

    falling: list[Array]
    level: list[Array]


def _more_tangents(cuts: _Cuts, compiled: Compiled, at: Point, units: Array) -> Array | None:
    """Adds the slopes of all rows and of the objective at a point; (2L,) of the objective, None where one has none."""
    for row in compiled.rows:
        slopes = _row_slopes(compiled, row, at)
        if slopes is None:
            return None
        scaled = slopes * units
        size = np.max(np.abs(scaled), axis=1, keepdims=True)
        (cuts.level if row.equality else cuts.falling).append(scaled / np.where(size > 0, size, 1.0))
    slope = _objective(compiled, at) * units
    steepest = float(np.max(np.abs(slope), initial=0.0))
    slope = slope / steepest if steepest > 0 else slope
    cuts.falling.append(slope[None, :])
    return slope


def _falling(cuts: _Cuts, slope: Array, decided: Mask) -> Array | None:
    """The direction in [0, 1] of least slope and, beside that, of most of everything; None without any."""
    falling, level = np.concatenate(cuts.falling), np.concatenate(cuts.level)
    found = linprog(
        slope - _RATHER / len(slope), A_ub=falling, b_ub=np.zeros(len(falling)),
        A_eq=level if len(level) else None, b_eq=np.zeros(len(level)) if len(level) else None,
        bounds=[(0.0, float(free)) for free in decided], method="highs",
    )  # fmt: skip
    if found.x is None:
        return None
    share = np.where(found.x > _NOTHING * np.max(found.x, initial=0.0), found.x, 0.0)
    return _along_rows(np.concatenate([falling, level]), share) if share.any() else None


def _along_rows(slopes: Array, share: Array) -> Array | None:
    """The direction along which rows that hardly change do not change at all, to rounding: the solver's tolerance is
    1e-7, and far out a difference of levels that is to stay small shows it. None where that asks for less than nothing.
    """
    on = share > 0
    kept = slopes[np.abs(slopes @ share) <= _HARDLY][:, on]
    if not len(kept):
        return share
    exact = share[on] - np.linalg.lstsq(kept, kept @ share[on], rcond=None)[0]
    if np.any(exact < 0.5 * share[on]):
        return None  # rows that exclude each other but for that tolerance
    moved = np.zeros_like(share)
    moved[on] = exact
    return moved


def _row_slopes(compiled: Compiled, row: Row, at: Point) -> Array | None:
    """(N, 2L) slopes of a row's entries; None where there are none."""
    if row.budget is not None:
        return np.concatenate([row.budget.example, row.budget.step])[None, :]
    return _slopes(compiled, row.stated, [*row.auxiliary], at)


def _rises(compiled: Compiled, row: Row, ray: Array, at: Point) -> bool:
    slopes = _row_slopes(compiled, row, at)
    if slopes is None:
        return True
    change = slopes @ ray
    return bool(np.any((np.abs(change) if row.equality else change) > _ROUNDING * np.abs(slopes) @ ray))


def _objective(compiled: Compiled, at: Point) -> Array:
    """(2L,) slope of what is not known to fall with more of everything: prices, and the user's own terms."""
    slope = np.zeros(2 * len(compiled.design))
    for leaf in compiled.leaves:
        prices = leaf.term.linear_prices(compiled.design)
        if prices is not None:
            slope += leaf.weight * np.concatenate(prices[:2])
        elif not leaf.term.monotone:
            theirs = _slopes(compiled, leaf.expression, [*leaf.auxiliary], at)
            slope += 0.0 if theirs is None else leaf.weight * theirs[0]
    return slope


def _slopes(compiled: Compiled, expression: cp.Expression, beside: list[cp.Constraint], at: Point) -> Array | None:
    """(N, 2L) derivatives by examples and steps; None where there are none."""
    design = compiled.design
    if own_variables([expression, *beside], design):
        return None
    design.set(at)
    try:
        parts = all_jacobians(expression, design)[:2]
    except ConvexityError:
        return None
    found = np.concatenate([part.toarray() if sparse.issparse(part) else np.asarray(part) for part in parts]).T
    return found if np.all(np.isfinite(found)) else None
