"""Multipliers of floors of the steps beside measured signs, which a declared program splits in two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..basics.errors import ConvexityError
from ..modeling.gram import GramDiscretization
from .compiled import Solved
from .proof import lagrangian
from .structure import box_multipliers

__all__ = ["with_floor_prices"]

_TIGHT = 1e-5  # of a row's size: a conic solver's answer lies so near to a bound that holds it


def with_floor_prices(solved: Solved) -> Solved:
    """The same with floors of steps priced by the derivative of the Lagrangian, where a signed Gram matrix is declared.

    There a floor also bounds u = n^(-q) from above, by a constraint of the term's own that keeps part of the price
    (docs/theory.md section 7.4, forms). Beside parts with kinks, without one derivative, the solver's prices stay.
    """
    compiled, point = solved.compiled, solved.point
    signed = any(isinstance(leaf.term, GramDiscretization) and not leaf.term.majorised for leaf in compiled.leaves)
    if not signed or compiled.kinked or compiled.design.fixed_steps or not np.any(compiled.box.steps_low > 0):
        return solved
    compiled.set(point)
    try:
        with np.errstate(all="ignore"):
            slope = lagrangian(compiled, solved.multipliers, point).steps_slope(point.steps)
    except ConvexityError:  # a part of the user's without a gradient at the point
        return solved
    slope = np.where(np.isfinite(slope), slope, 0.0)
    found = box_multipliers(compiled.rows, compiled.design, np.zeros_like(slope), slope, _TIGHT)
    low = compiled.box.steps_low > 0
    multipliers = [
        new if new is not None and row.levels is not None and new.any() and low[row.levels].any() else old
        for row, old, new in zip(compiled.rows, solved.multipliers, found, strict=True)
    ]
    return replace(solved, multipliers=multipliers)
