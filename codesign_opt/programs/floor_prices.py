"""Multipliers of floors of the steps beside measured signs, which a declared program splits in two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..basics.checks import Array
from ..basics.errors import ConvexityError
from ..modeling.gradients import jacobians
from ..modeling.gram import GramDiscretization
from .compiled import Compiled, Solved
from .proof import lagrangian
from .solver import Solver
from .structure import box_multipliers

__all__ = ["with_floor_prices"]

_TIGHT = 1e-5  # of a row's size: a conic solver's answer lies so near to a bound that holds it


def with_floor_prices(solved: Solved, solver: Solver) -> Solved:
    """The same with floors of steps priced whole, where a signed Gram matrix is declared.

    There a floor also bounds u = n^(-q) from above, by a constraint of the term's own that keeps part of the price
    (docs/theory.md section 7.4, forms). The price is the derivative of the Lagrangian; beside parts with kinks, which
    have no one derivative, both parts of it are those of the declared program's dual.
    """
    compiled, point = solved.compiled, solved.point
    signed = any(isinstance(leaf.term, GramDiscretization) and not leaf.term.majorised for leaf in compiled.leaves)
    low = compiled.box.steps_low > 0
    if not signed or compiled.design.fixed_steps or not np.any(low):
        return solved
    slope = _by_duals(compiled, solver) if compiled.kinked else _by_derivative(solved)
    if slope is None:
        return solved
    compiled.set(point)
    found = box_multipliers(compiled.rows, compiled.design, np.zeros_like(slope), slope, _TIGHT)
    multipliers = [
        new if new is not None and row.levels is not None and new.any() and low[row.levels].any() else old
        for row, old, new in zip(compiled.rows, solved.multipliers, found, strict=True)
    ]
    return replace(solved, multipliers=multipliers)


def _by_derivative(solved: Solved) -> Array | None:
    """(L,) derivative of the Lagrangian by the steps; None beside a part of the user's without a gradient there."""
    solved.compiled.set(solved.point)
    try:
        with np.errstate(all="ignore"):
            slope = lagrangian(solved.compiled, solved.multipliers, solved.point).steps_slope(solved.point.steps)
    except ConvexityError:
        return None
    return np.where(np.isfinite(slope), slope, 0.0)


def _by_duals(compiled: Compiled, solver: Solver) -> Array | None:
    """(L,) what the level bounds of steps pay together in the dual of the declared program; None: no dual."""
    if not solver.run(compiled.declared).startswith("optimal"):
        return None
    paid = np.zeros(len(compiled.design))
    for leaf in compiled.leaves:
        if isinstance(leaf.term, GramDiscretization) and not leaf.term.majorised:
            paid += compiled.unit * leaf.term.floor_prices(compiled.design, leaf.auxiliary)
    for row in compiled.rows:
        if row.bound is None and row.levels is not None:
            by_steps = jacobians(row.stated, compiled.design)[1]
            paid -= by_steps @ row.multipliers(compiled.unit)
    return paid
