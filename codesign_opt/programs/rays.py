"""Directions without end: mixes of examples and steps of levels that rows admit together, and none of them alone.

docs/theory.md section 8.4. A linear program over tangents of the rows, far out along what it found before, gives the
direction; whether it has an end is for whoever asks to evaluate.
"""

from __future__ import annotations

from collections.abc import Iterator

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

__all__ = ["along", "mixed_rays"]

_FAR = (0.0, 1e6, 1e12)  # multiples of a direction at which tangents are taken
_NOTHING = 1e-9  # share of the largest that counts as none
_RATHER = 1e-3  # what more of everything counts beside a fall of the objective


def along(point: Point, ray: Array, factor: float) -> Point:
    """The point moved by a multiple of a ray (2L,) of new examples and steps."""
    examples, steps = np.split(factor * ray, 2)
    return Point(point.new_examples + examples, point.spent, point.steps + steps)


def mixed_rays(compiled: Compiled, point: Point, units: Array, decided: Mask) -> Iterator[Array]:
    """(2L,) directions of new examples and steps along which no tangent of a row rises and none of the objective.

    Args:
        units: (2L,) amounts of order one.
        decided: (2L,) what may move.
    """
    ray = np.where(decided, units, 0.0)
    for far in _FAR:
        found = _falling(compiled, along(point, ray, far), units, decided)
        if found is None:
            return
        if far == 0.0 or not np.allclose(found, ray, rtol=1e-9, atol=0.0):
            yield found
        ray = found


def _falling(compiled: Compiled, at: Point, units: Array, decided: Mask) -> Array | None:
    """The direction in [0, units] of least slope and, beside that, of most of everything; None without any."""
    cuts: list[Array] = []
    equal: list[Array] = []
    for row in compiled.rows:
        budget = row.budget
        slopes = (
            np.concatenate([budget.example, budget.step])[None, :]
            if budget is not None
            else _slopes(compiled, row.stated, [*row.auxiliary], at)
        )
        if slopes is None:
            return None
        scaled = slopes * units
        size = np.max(np.abs(scaled), axis=1, keepdims=True)
        (equal if row.equality else cuts).append(scaled / np.where(size > 0, size, 1.0))
    slope = _objective(compiled, at) * units
    steepest = float(np.max(np.abs(slope), initial=0.0))
    slope = slope / steepest if steepest > 0 else slope
    cuts.append(slope[None, :])
    found = linprog(
        slope - _RATHER / len(slope), A_ub=np.concatenate(cuts), b_ub=np.zeros(sum(len(cut) for cut in cuts)),
        A_eq=np.concatenate(equal) if equal else None, b_eq=np.zeros(sum(len(cut) for cut in equal)) if equal else None,
        bounds=[(0.0, float(free)) for free in decided], method="highs",
    )  # fmt: skip
    if found.x is None:
        return None
    share = np.where(found.x > _NOTHING * np.max(found.x, initial=0.0), found.x, 0.0)
    return share * units if share.any() else None


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
